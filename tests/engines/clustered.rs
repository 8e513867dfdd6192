//! norn's runtime kubernetes as its user meets it: the binary, a spec, and what the cluster then has.

mod cloudflare;
mod crash;
mod deploys;
mod failures;
#[cfg(feature = "failpoints")]
pub mod struck;

use std::ops::Deref;

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

    fn destroy(&self) {
        self.ok(&format!("destroy --yes --confirm {}", self.project));
    }
}

fn has(text: &str, words: &[&str]) {
    for word in words {
        assert!(text.contains(word), "`{word}` is not in:\n{text}");
    }
}
