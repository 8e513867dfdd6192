//! Deploys, what the engine has of them, and the end of an app.

use crate::load::Load;
use crate::sandbox::{exists, until};

use super::{Shop, has};

#[test]
fn a_webserver_is_deployed_looked_at_restarted_and_destroyed() {
    let Some(shop) = Shop::new() else { return };
    shop.write(
        "web/Dockerfile",
        "FROM norn-base:1\nCOPY release /www/index.html\nCMD [\"sh\", \"-c\", \"echo starts on $PORT; exec httpd -f -p $PORT -h /www\"]\n",
    );
    shop.web("replicas: 2\nresources: {memory: 48Mi, cpu: 250m}\nenv: {VERSION: v1}");
    let ran = shop.ok("apply --yes");
    has(&ran.out, &["webserver on runtime docker, 2 replicas", "the image's own", "clone, build, deploy"]);
    assert_eq!(shop.get().expect("it serves").trim(), "one");
    shop.plan_is_empty();
    has(&shop.ok("status").out, &["web", "2/2"]);
    has(&shop.ok("logs web").out, &[&format!("starts on {}", shop.port)]);

    let tag = shop.rows()[0].tag.clone();
    assert_eq!(shop.images(), [format!("{}/{tag}", shop.project)]);
    let names = shop.of_engine("ps", "{{.Names}}");
    assert_eq!(names.len(), 2, "{names:?}");
    for name in &names {
        assert!(name.starts_with(&format!("{}-web-", shop.project)), "{name}");
        assert_eq!(shop.inspect(name, ".HostConfig.Memory"), (48 << 20).to_string());
        assert_eq!(shop.inspect(name, ".HostConfig.NanoCpus"), "250000000");
        let labels = shop.inspect(name, "json .Config.Labels");
        let labels: serde_json::Value = serde_json::from_str(&labels).expect("it is JSON");
        assert_eq!(labels["dev.norn.project"], shop.project);
        assert_eq!(labels["dev.norn.app"], "web");
        assert_eq!(labels["dev.norn.stage"], "");
        for label in ["commit", "operation", "replica", "holder"] {
            assert_ne!(labels[format!("dev.norn.{label}")], serde_json::Value::Null, "{label}: {labels}");
        }
    }
    let image = shop.inspect(&shop.images()[0], "json .Config.Labels");
    for label in ["project", "stage", "app", "commit", "operation"] {
        assert!(image.contains(&format!("\"dev.norn.{label}\":")), "{label}: {image}");
    }

    shop.ok("restart web --yes");
    until("the old containers are gone", || shop.of_engine("ps --all", "{{.Names}}").len() == 2);
    assert!(shop.of_engine("ps", "{{.Names}}").iter().all(|name| !names.contains(name)), "{names:?}");
    assert_eq!(shop.get().expect("it serves").trim(), "one");
    shop.plan_is_empty();

    shop.web("replicas: 0");
    shop.ok("apply --yes");
    shop.comes_to(0, 1);
    shop.get().expect_err("nothing runs");
    shop.plan_is_empty();

    shop.destroy();
    shop.comes_to(0, 0);
    assert_eq!(shop.processes(), Vec::<u32>::new());
    assert!(exists(&shop.path(".norn/logs/web")), "logs are kept");
}

#[test]
fn deploys_under_load_lose_no_request() {
    let Some(shop) = Shop::new() else { return };
    let spec = |version: &str, colour: &str| {
        shop.web(&format!("replicas: 2\nenv: {{VERSION: {version}}}\nbuild: {{args: {{COLOUR: {colour}}}}}"));
    };
    spec("v1", "red");
    shop.ok("apply --yes");
    assert_eq!(shop.get().expect("it serves"), "v1 red one");
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    let (over, ended) = std::sync::mpsc::channel::<()>();
    let port = shop.port;
    let (answered, failed) = std::thread::scope(|scope| {
        let load = scope.spawn(move || {
            runtime.block_on(async {
                let load = Load::start(port);
                while ended.try_recv() == Err(std::sync::mpsc::TryRecvError::Empty) {
                    tokio::time::sleep(std::time::Duration::from_millis(20)).await;
                }
                load.end().await
            })
        });
        // Another environment, other arguments, other code, in this order; then all at once.
        for (version, colour, release) in [
            ("v2", "red", "one"),
            ("v2", "blue", "one"),
            ("v2", "blue", "two"),
            ("v3", "green", "three"),
            ("v4", "red", "one"),
        ] {
            spec(version, colour);
            shop.write("web/release", release);
            shop.ok("apply --yes");
            assert_eq!(shop.get().expect("it serves"), format!("{version} {colour} {release}"));
        }
        // Of what was live before only the release comes back, and only where its image is kept.
        shop.ok("rollback web --yes");
        assert_eq!(shop.get().expect("it serves"), "v4 green three");
        has(&shop.ok("plan --detailed-exitcode").out, &["Held back"]);
        shop.engine.ok(&format!("rmi {}/{}", shop.project, shop.rows()[2].tag));
        has(&shop.fails(&format!("rollback web --to {} --yes", shop.rows()[2].tag), 1).err, &["not kept"]);
        shop.ok("rollback web --yes");
        assert_eq!(shop.get().expect("it serves"), "v4 blue one");
        shop.ok("apply --yes --redeploy web");
        assert_eq!(shop.get().expect("it serves"), "v4 red one");
        drop(over);
        load.join().expect("the load ends")
    });
    assert_eq!(failed, Vec::<String>::new(), "of {answered}");
    assert!(answered > 100, "{answered} requests are no load");
    assert_eq!(shop.rows().len(), 8, "an environment alone is no deployment");
    assert_eq!(shop.containers().len(), 2);
    shop.plan_is_empty();
    shop.destroy();
    shop.comes_to(0, 0);
}

#[test]
fn a_worker_works_and_an_app_that_left_the_spec_leaves_nothing() {
    let Some(shop) = Shop::new() else { return };
    let worker = "  mail:\n    role: worker\n    path: ./web\n    env: {WORD: works}\n    \
                  command: 'trap \"exit 0\" TERM; echo it $WORD; sleep 600 & wait'\n    \
                  healthcheck: {startup: 10s}\n";
    let web = format!(
        "  web: {{role: webserver, path: ./web, port: {}, healthcheck: {{path: /, interval: 1s}}}}\n",
        shop.port
    );
    shop.apps(&format!("{worker}{web}"));
    shop.ok("apply --yes");
    has(&shop.ok("logs mail").out, &["it works"]);
    shop.plan_is_empty();
    shop.apps(&web);
    let ran = shop.ok(&format!("apply --yes --confirm {}", shop.project));
    has(&ran.out, &["teardown"]);
    let apps = shop.of_engine("ps --all", "{{.Label \"dev.norn.app\"}}");
    assert_eq!(apps, ["web"]);
    assert_eq!(shop.images().len(), 1, "{:?}", shop.images());
    shop.destroy();
    shop.comes_to(0, 0);
}

#[test]
fn a_container_reaches_another_app_by_its_name() {
    let Some(shop) = Shop::new() else { return };
    let port = shop.port;
    shop.apps(&format!(
        "  web: {{role: webserver, path: ./web, port: {port}, front: {{bind: 0.0.0.0}}, env: {{VERSION: v1}}, \
         healthcheck: {{path: /, interval: 1s}}}}\n  client:\n    role: worker\n    path: ./web\n    \
         command: [\"sleep\", \"1000\"]\n    rollout: {{timeout: 30s, drain: 1s}}\n    \
         env: {{WEB: \"${{apps.web.url}}\"}}\n    \
         healthcheck: {{command: 'wget -q -O - $WEB | grep v1', interval: 1s, startup: 20s}}\n"
    ));
    shop.ok("apply --yes");
    shop.plan_is_empty();
    shop.destroy();
}
