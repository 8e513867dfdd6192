//! norn's runtime kubernetes as its user meets it: the binary, a spec, and what the cluster then has.

mod adopted;
mod bench;
mod calls;
mod cloudflare;
mod crash;
mod deploys;
mod failures;
mod logins;
mod looked_up;
mod refused;
#[cfg(feature = "failpoints")]
pub mod struck;

use std::ops::Deref;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread;
use std::time::Instant;

use crate::cluster::{Cluster, Namespace};
use crate::get;
use crate::sandbox::{Sandbox, until};

const WHAT: &str = "norn on Kubernetes";

/// Answers every request with what it was built and started with.
const SERVE: &str = r#"#!/bin/sh
trap 'exit 0' TERM
mkdir -p /www && echo "$VERSION $(cat /release)" > /www/index.html
echo "starts $VERSION"
httpd -f -p "$PORT" -h /www &
wait
"#;

/// A project in a namespace of its own.
struct Shop<'a> {
    space: Namespace<'a>,
    sandbox: Sandbox,
    project: String,
}

impl Deref for Shop<'_> {
    type Target = Sandbox;

    fn deref(&self) -> &Sandbox {
        &self.sandbox
    }
}

impl<'a> Shop<'a> {
    fn new(cluster: &'a Cluster) -> Self {
        let space = cluster.namespace();
        let mut sandbox = Sandbox::new();
        let engine = cluster.engine.env().into_iter();
        sandbox.env.extend(engine.map(|(name, value)| (name.to_owned(), value)));
        sandbox.env.insert("KUBECONFIG".to_owned(), cluster.kubeconfig().display().to_string());
        let project = space.name.replace("norn-test", "shop");
        let shop = Self { space, sandbox, project };
        let base = cluster.registry.base(cluster.engine, "1");
        let dockerfile = format!("FROM {base}\nCOPY serve release /\nCMD [\"sh\", \"/serve\"]\n");
        shop.write("web/Dockerfile", &dockerfile);
        shop.write("web/serve", SERVE);
        shop.write("web/release", "one");
        shop
    }

    /// Writes the spec: the apps in YAML, indented by two.
    fn apps(&self, apps: &str) {
        let registry = self.space.cluster.registry.image(&self.project);
        let text = format!(
            "version: 1\nproject: {}\nruntime: kubernetes\nkubernetes: {{namespace: {}}}\nregistry: {{url: \"{registry}\"}}\napps:\n{apps}",
            self.project, self.space.name
        );
        self.write("infraspec.yaml", &text);
    }

    /// One webserver `web`, of which `more` says more, a line a field.
    fn web(&self, more: &str) {
        let more: String = more.lines().map(|line| format!("    {line}\n")).collect();
        let usual = "    rollout: {timeout: 60s, drain: 2s}\n";
        let rollout = if more.contains("rollout:") { "" } else { usual };
        self.apps(&format!(
            "  web:\n    role: webserver\n    path: ./web\n    port: 8080\n    \
             healthcheck: {{path: /, interval: 1s, startup: 20s}}\n{rollout}{more}"
        ));
    }

    /// One webserver `web` of an image that is there, so that nothing is built; `more` as with
    /// [`web`](Self::web).
    fn ready_made(&self, more: &str) {
        let base = self.space.cluster.registry.base(self.space.cluster.engine, "1");
        let serve = "trap 'exit 0' TERM; mkdir -p /www; echo $VERSION >/www/index.html; httpd -f -p $PORT -h /www & wait";
        let usual = [
            ("rollout", "{timeout: 60s, drain: 2s}".to_owned()),
            ("command", format!("[sh, -c, \"{serve}\"]")),
            ("image", format!("\"{base}\"")),
        ];
        let usual = usual.iter().filter(|(field, _)| !more.contains(&format!("{field}:")));
        let usual: String = usual.map(|(field, value)| format!("    {field}: {value}\n")).collect();
        let more: String = more.lines().map(|line| format!("    {line}\n")).collect();
        self.apps(&format!(
            "  web:\n    role: webserver\n    port: 8080\n    \
             healthcheck: {{path: /, interval: 1s, startup: 20s}}\n{usual}{more}"
        ));
    }

    /// A port of the node that leads to `web`.
    fn node_port(&self) -> u16 {
        self.space.apply(
            "apiVersion: v1
kind: Service
metadata: {name: outside}
spec: {type: NodePort, selector: {dev.norn.app: web}, ports: [{port: 80, targetPort: http}]}
",
        );
        let port = self.space.ok("get service outside --output jsonpath={.spec.ports[0].nodePort}");
        port.parse().expect("it has a port")
    }

    /// What the namespace has with this project's label, such as `deployment.apps/web`.
    fn objects(&self) -> Vec<String> {
        let kinds = "deployments,services,ingresses,secrets,jobs,persistentvolumeclaims";
        let label = format!("dev.norn.project={}", self.project);
        let found = self.space.ok(&format!("get {kinds} --selector {label} --output name"));
        found.lines().map(str::to_owned).collect()
    }

    /// That `web` answers this, once every node has heard of what serves.
    fn answers(&self, port: u16, text: &str) {
        let host = self.space.cluster.node_address();
        until(&format!("it answers {text}, not {:?}", get(host, port)), || {
            get(host, port).as_deref() == Ok(text)
        });
    }

    /// A token of somebody who may do all in the namespace and nothing else, and who that is.
    fn member(&self) -> (String, String) {
        let who = format!("member-{}", &uuid::Uuid::new_v4().simple().to_string()[..8]);
        self.space.ok(&format!("create serviceaccount {who}"));
        let account = format!("{}:{who}", self.space.name);
        self.space.ok(&format!("create rolebinding {who} --clusterrole admin --serviceaccount {account}"));
        (self.space.ok(&format!("create token {who}")), who)
    }

    /// The administrator's kubeconfig with this user.
    fn as_user(&mut self, user: &str) {
        let text = std::fs::read_to_string(self.space.cluster.kubeconfig()).expect("it is there");
        let users = text.lines().find(|line| line.starts_with("users:")).expect("it has users").to_owned();
        self.write("kubeconfig", &text.replace(&users, &format!("users: [{{name: admin, user: {user}}}]")));
        let path = self.path("kubeconfig").display().to_string();
        self.sandbox.env.insert("KUBECONFIG".into(), path);
    }

    fn destroy(&self) {
        self.ok(&format!("destroy --yes --confirm {}", self.project));
    }
}

fn has(text: &str, words: &[&str]) {
    for word in words {
        assert!(text.contains(word), "`{word}` is not in:\n{text}");
    }
}

/// Asks without a pause while something is done: not one request may be lost.
fn under_load(host: &str, port: u16, work: impl FnOnce()) {
    let (began, stop) = (Instant::now(), AtomicBool::new(false));
    let (asked, lost) = (AtomicUsize::new(0), Mutex::new(Vec::new()));
    thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                while !stop.load(Ordering::Relaxed) {
                    asked.fetch_add(1, Ordering::Relaxed);
                    if let Err(error) = get(host, port) {
                        let at = began.elapsed().as_millis();
                        lost.lock().expect("no reader panics").push(format!("{at} ms: {error}"));
                    }
                }
            });
        }
        let done = std::panic::catch_unwind(std::panic::AssertUnwindSafe(work));
        stop.store(true, Ordering::Relaxed);
        done.unwrap_or_else(|panic| std::panic::resume_unwind(panic));
    });
    let (lost, asked) = (lost.into_inner().expect("no reader panicked"), asked.into_inner());
    assert!(asked > 200, "only {asked} requests were made");
    let told = lost.iter().take(5).chain(lost.iter().rev().take(1)).collect::<Vec<_>>();
    assert!(lost.is_empty(), "{} of {asked} requests were lost: {told:#?}", lost.len());
}
