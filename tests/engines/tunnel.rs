//! The configuration of cloudflared in a real cluster: a ConfigMap that others write, too.

use std::thread;
use std::time::Duration;

use norn::provider::cloudflare::Mark;
use norn::provider::cloudflare::tunnel::{TunnelError, with_rule, without_rule};
use norn::provider::kubernetes::text::TextError;
use norn::provider::kubernetes::{Cluster as Reached, ClusterError};

use crate::cluster::{Cluster, Namespace};

const WHAT: &str = "the configuration of cloudflared";
const KEY: &str = "config.yaml";
const BEFORE: &str = "# ours alone\ntunnel: shop\ningress:\n  - hostname: \"a.example.com\"   # by hand\n    service: http://a\n  - service: http_status:404\n";

fn wait<T>(future: impl Future<Output = T>) -> T {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    runtime.expect("a runtime").block_on(future)
}

/// A way into the cluster from the namespace `default`, worked in the test's own.
async fn reach(space: &Namespace<'_>) -> Reached {
    let kubeconfig = space.cluster.kubeconfig().to_owned();
    let reached = Reached::connect_by(&[kubeconfig], None, "default").await.expect("the cluster is there");
    reached.within(&space.name)
}

fn mark(app: &str) -> Mark {
    Mark::read(&format!("norn shop/prod {app}")).expect("it is one")
}

/// Makes the ConfigMap as its owner would.
fn put(space: &Namespace<'_>) {
    let lines: Vec<String> = BEFORE.lines().map(|line| format!("    {line}\n")).collect();
    space.apply(&format!(
        "apiVersion: v1
kind: ConfigMap
metadata: {{name: cloudflared, labels: {{of: others}}}}
data:
  other: kept
  {KEY}: |
{}",
        lines.concat()
    ));
}

async fn add(reached: &Reached, app: &str) -> Result<bool, TextError<TunnelError>> {
    let edit =
        |text: &str| with_rule(text, &format!("{app}.example.com"), &format!("http://{app}"), &mark(app));
    reached.edit_text("cloudflared", KEY, edit).await
}

async fn remove(reached: &Reached, app: &str) -> Result<bool, TextError<TunnelError>> {
    let edit = |text: &str| without_rule(text, &format!("{app}.example.com"), &mark(app));
    reached.edit_text("cloudflared", KEY, edit).await
}

fn version(space: &Namespace<'_>) -> String {
    space.ok("get configmap cloudflared --output jsonpath={.metadata.resourceVersion}")
}

/// Four writers at once, each with the names of its own apps.
fn at_once(space: &Namespace<'_>, change: impl AsyncFn(&Reached, &str) + Sync) {
    thread::scope(|scope| {
        for writer in 0..4 {
            let change = &change;
            scope.spawn(move || {
                wait(async {
                    let reached = reach(space).await;
                    for app in names(writer) {
                        change(&reached, &app).await;
                    }
                });
            });
        }
    });
}

fn names(writer: u32) -> impl Iterator<Item = String> {
    (0..5).map(move |app| format!("app-{writer}-{app}"))
}

async fn text(reached: &Reached) -> String {
    reached.text::<TunnelError>("cloudflared", KEY).await.expect("it is there")
}

#[test]
fn writers_at_once_lose_no_rule() {
    let Some(cluster) = Cluster::shared(WHAT) else { return };
    let space = cluster.namespace();
    put(&space);
    at_once(&space, async |reached, app| assert_eq!(add(reached, app).await, Ok(true), "{app}"));
    wait(async {
        let reached = reach(&space).await;
        let text = text(&reached).await;
        for app in (0..4).flat_map(names) {
            let mark = format!("# norn shop/prod {app}");
            let rule = format!("  - hostname: {app}.example.com {mark}\n    service: http://{app}\n");
            assert!(text.contains(&rule), "{app} is not in\n{text}");
        }
        let (first, last) = BEFORE.split_at(BEFORE.rfind("  - service").expect("it catches all"));
        assert!(text.starts_with(first) && text.ends_with(last), "{text}");
        let known = version(&space);
        assert_eq!(add(&reached, "app-0-0").await, Ok(false));
        assert_eq!(version(&space), known);
    });
    at_once(&space, async |reached, app| assert_eq!(remove(reached, app).await, Ok(true), "{app}"));
    wait(async {
        let reached = reach(&space).await;
        assert_eq!(remove(&reached, "app-0-0").await, Ok(false));
        assert_eq!(text(&reached).await, BEFORE);
    });
    let path = "{.data.other}{.metadata.labels.of}";
    assert_eq!(space.ok(&format!("get configmap cloudflared --output jsonpath={path}")), "keptothers");
}

#[test]
fn what_cannot_be_edited_is_told() {
    let Some(cluster) = Cluster::shared(WHAT) else { return };
    let space = cluster.namespace();
    let place = format!("{}/cloudflared", space.name);
    wait(async {
        let reached = reach(&space).await;
        let refused = async |reached: &Reached| add(reached, "web").await.expect_err("it cannot be edited");
        let told = refused(&reached).await;
        assert!(matches!(&told, TextError::NoConfigMap { place: at, .. } if *at == place), "{told}");
        let told = refused(&reached.within("of-nobody")).await;
        assert!(matches!(told, TextError::NoConfigMap { .. }), "{told}");

        space.ok("create configmap cloudflared --from-literal config.yml=x");
        let told = refused(&reached).await;
        let TextError::NoText { known, .. } = &told else { panic!("{told}") };
        assert_eq!(known, &["config.yml"], "{told}");
        space.ok("delete configmap cloudflared");

        put(&space);
        for (verbs, verb) in [("list", "get"), ("get", "patch")] {
            let limited = space.limited(verbs, "configmaps");
            let limited = Reached::connect_by(&[limited], None, &space.name).await.expect("they may log in");
            let told = refused(&limited).await;
            let TextError::Cluster(ClusterError::Forbidden { verb: may_not, resource, namespace, .. }) =
                &told
            else {
                panic!("{told}")
            };
            assert_eq!((&**may_not, &**resource, namespace), (verb, "configmaps", &space.name), "{told}");
        }
        let edit = |text: &str| with_rule(text, "a.example.com", "http://b", &mark("web"));
        let told = reached.edit_text("cloudflared", KEY, edit).await.expect_err("it is another's");
        let begins = format!("the ConfigMap {place}: cloudflared has a rule for a.example.com");
        assert!(told.to_string().starts_with(&begins), "{told}");
        space.ok("patch configmap cloudflared --patch {\"immutable\":true}");
        let told = refused(&reached).await;
        assert!(matches!(told, TextError::Immutable { .. }), "{told}");
    });
}

#[test]
fn who_writes_all_the_time_is_told_of() {
    let Some(cluster) = Cluster::shared(WHAT) else { return };
    let space = cluster.namespace();
    put(&space);
    wait(async {
        let reached = reach(&space).await;
        // Somebody who changes it between every look and write of ours.
        let edit = |text: &str| {
            let stamp = uuid::Uuid::new_v4();
            space.ok(&format!("annotate configmap cloudflared stamp={stamp} --overwrite"));
            with_rule(text, "web.example.com", "http://web", &mark("web"))
        };
        let told = reached.edit_text("cloudflared", KEY, edit).await.expect_err("it is never the same");
        assert!(matches!(told, TextError::Contended { .. }), "{told}");
        assert_eq!(text(&reached).await, BEFORE);
    });
}

#[test]
fn cloudflared_is_restarted_in_its_own_namespace() {
    let Some(cluster) = Cluster::shared(WHAT) else { return };
    let space = cluster.namespace();
    let image = cluster.registry.base(cluster.engine, "1");
    space.apply(&format!(
        "apiVersion: apps/v1
kind: Deployment
metadata: {{name: cloudflared}}
spec:
  selector: {{matchLabels: {{app: cloudflared}}}}
  template:
    metadata: {{labels: {{app: cloudflared}}}}
    spec:
      terminationGracePeriodSeconds: 0
      containers: [{{name: cloudflared, image: '{image}', command: [/bin/sh, -c, sleep 1000]}}]
"
    ));
    wait(async {
        let reached = reach(&space).await;
        let live = async || {
            let rolled =
                reached.rolled_out("cloudflared", Duration::from_secs(60), std::future::pending(), |_| {});
            rolled.await.unwrap_or_else(|error| panic!("{error}\n{}", space.story()));
            space.ok("get pods --selector app=cloudflared --output jsonpath={.items[*].metadata.name}")
        };
        let before = live().await;
        reached.restart("cloudflared", jiff::Timestamp::now()).await.expect("it restarts");
        assert_ne!(live().await, before);
        let told = reached.restart("of-nobody", jiff::Timestamp::now()).await.expect_err("it is not there");
        assert!(told.to_string().contains("\"of-nobody\" not found"), "{told}");
    });
}
