//! The life of an app in a cluster.

use crate::cluster::Cluster;
use crate::get_soon;
use crate::sandbox::until;

use super::{Shop, WHAT, has, under_load};

#[test]
fn an_app_is_built_pushed_rolled_out_changed_and_taken_away() {
    let Some(cluster) = Cluster::shared(WHAT) else { return };
    let shop = Shop::new(cluster);
    shop.web("env: {VERSION: first}");
    let ran = shop.ok("apply --yes");
    println!("{}\n{}", ran.out, ran.err);
    let port = shop.node_port();
    shop.answers(port, "first one");
    assert_eq!(shop.objects(), ["deployment.apps/web", "service/web"]);
    shop.plan_is_empty();

    // A changed definition and new code roll once, together.
    shop.web("env: {VERSION: second}\nreplicas: 2");
    shop.write("web/release", "two");
    shop.ok("apply --yes");
    shop.answers(port, "second two");
    let revision = "{.metadata.annotations.deployment\\.kubernetes\\.io/revision}";
    assert_eq!(shop.space.ok(&format!("get deployment web --output jsonpath={revision}")), "2");
    shop.plan_is_empty();

    // A definition alone.
    shop.web("env: {VERSION: third}");
    let ran = shop.ok("apply --yes");
    println!("{}\n{}", ran.out, ran.err);
    shop.answers(port, "third two");
    shop.plan_is_empty();

    // None of it, and one again.
    shop.web("env: {VERSION: third}\nreplicas: 0");
    shop.ok("apply --yes");
    shop.plan_is_empty();
    has(&shop.ok("status").out, &["scaled-to-zero"]);
    shop.web("env: {VERSION: fourth}");
    shop.ok("apply --yes");
    shop.answers(port, "fourth two");

    shop.destroy();
    assert_eq!(shop.objects(), Vec::<String>::new());
}

#[test]
fn what_was_live_before_is_live_again_without_a_lost_request() {
    let Some(cluster) = Cluster::shared(WHAT) else { return };
    let shop = Shop::new(cluster);
    let migrates = "migrations: {command: 'echo migrates'}";
    shop.web(&format!("env: {{VERSION: first}}\n{migrates}"));
    shop.ok("apply --yes");
    let port = shop.node_port();
    shop.answers(port, "first one");
    for release in ["two", "three"] {
        shop.write("web/release", release);
        shop.web(&format!("env: {{VERSION: second}}\nreplicas: 2\n{migrates}"));
        shop.ok("apply --yes");
    }
    shop.answers(port, "second three");
    let rows = shop.rows();
    under_load(cluster.node_address(), port, || {
        let ran = shop.ok("rollback web --yes");
        has(&ran.out, &[&format!("stays as {} migrated it", rows[2].tag)]);
        shop.answers(port, "second two");
        // Today's definition, and what was released first.
        shop.ok(&format!("rollback web --to {} --yes", rows[0].tag));
        shop.answers(port, "second one");
    });
    let images = "{.spec.template.spec.containers[*].image}";
    let image = shop.space.ok(&format!("get deployment web --output jsonpath={images}"));
    assert!(image.contains("@sha256:"), "{image}");
    has(&shop.ok("plan --detailed-exitcode").out, &["Held back", &rows[2].tag]);
    shop.ok("plan --refresh --detailed-exitcode");
    // A release that does not come up leaves what serves.
    shop.web("env: {VERSION: second}\ncommand: 'test $(cat /release) = one && exec sh /serve; exit 9'\nrollout: {timeout: 10s, drain: 1s}");
    shop.ok("apply --yes");
    let ran = shop.fails(&format!("rollback web --to {} --yes", rows[1].tag), 1);
    has(&ran.err, &["ended with 9"]);
    shop.answers(port, "second one");
    shop.destroy();
}

#[test]
fn a_migration_is_a_job_and_secrets_are_in_no_output() {
    let Some(cluster) = Cluster::shared(WHAT) else { return };
    let mut shop = Shop::new(cluster);
    shop.sandbox.env.insert("TOKEN".into(), "hunter2222".into());
    let command = "echo migrating $VERSION with $TOKEN; test $VERSION != wrong";
    let spec = |version: &str| {
        format!("env: {{VERSION: {version}}}\nsecrets: [TOKEN]\nmigrations: {{command: '{command}'}}")
    };
    shop.web(&spec("first"));
    let ran = shop.ok("apply --yes -v");
    has(&ran.err, &["migrating first with ***"]);
    has(&shop.ok("logs web --step migrate").out, &["migrating first with ***"]);
    let port = shop.node_port();
    shop.answers(port, "first one");

    // One that fails stops the deploy before anything of it is live.
    shop.write("web/release", "two");
    shop.web(&spec("wrong"));
    let ran = shop.run("apply --yes");
    assert!([1, 3].contains(&ran.code), "{}", ran.err);
    has(&ran.err, &["job/web-migrate-", "failed", "migrating wrong with ***"]);
    shop.answers(port, "first one");

    // Another value is another Secret, and a roll.
    shop.sandbox.env.insert("TOKEN".into(), "hunter3333".into());
    shop.web(&spec("third"));
    shop.ok("apply --yes");
    shop.answers(port, "third two");
    let all = format!("{}{}", shop.read(".norn/logs/web/migrate.log"), shop.ok("plan --json").out);
    assert!(!all.contains("hunter"), "{all}");
    let pod = shop.space.ok("get deployment web --output jsonpath={.spec.template}");
    assert!(!pod.contains("hunter"), "{pod}");
    shop.destroy();
    assert_eq!(shop.objects(), Vec::<String>::new());
}

#[test]
fn not_one_request_is_lost_while_a_new_version_takes_over() {
    let Some(cluster) = Cluster::shared(WHAT) else { return };
    let shop = Shop::new(cluster);
    shop.web("env: {VERSION: v0}\nreplicas: 2");
    shop.ok("apply --yes");
    let port = shop.node_port();
    let host = cluster.node_address().to_owned();
    get_soon(&host, port);
    under_load(&host, port, || {
        for version in ["v1", "v2"] {
            shop.web(&format!("env: {{VERSION: {version}}}\nreplicas: 2"));
            shop.ok("apply --yes");
        }
        shop.ok("restart web --yes");
    });
    shop.answers(port, "v2 one");
    shop.plan_is_empty();
    shop.destroy();
}

#[test]
fn what_runs_is_told_restarted_and_heard() {
    let Some(cluster) = Cluster::shared(WHAT) else { return };
    let shop = Shop::new(cluster);
    shop.web("env: {VERSION: v0}\nreplicas: 2");
    shop.ok("apply --yes");
    has(&shop.ok("status").out, &["web  healthy", "2/2"]);
    let pods = |shop: &Shop<'_>| {
        let found = shop.space.ok("get pods --selector app=web --output name");
        found.lines().map(str::to_owned).collect::<Vec<_>>()
    };
    let before = pods(&shop);
    let logs = shop.ok("logs web").out;
    has(&logs, &[" | starts v0"]);
    assert_eq!(logs.lines().count(), 2, "{logs}");
    shop.ok("restart web --yes");
    until("the old pods are gone", || pods(&shop).iter().all(|pod| !before.contains(pod)));
    shop.plan_is_empty();

    // Somebody takes it away behind norn's back.
    shop.space.ok("delete deployment web --wait");
    has(&shop.ok("status").out, &["web  down", "0/2"]);
    let ran = shop.run("plan --detailed-exitcode");
    assert_eq!(ran.code, 2);
    has(&ran.out, &["web  nothing runs here (this plan repairs it)"]);
    shop.ok("apply --yes");
    shop.plan_is_empty();

    // An app that the spec names no more goes, and all of it.
    shop.apps("  other: {role: worker, path: ./web, command: [\"sleep\", \"1000\"], rollout: {drain: 1s}}\n");
    shop.ok(&format!("apply --yes --confirm {}", shop.project));
    assert_eq!(shop.objects(), ["deployment.apps/other"]);
    let ran = shop.ok("status --json");
    has(&ran.out, &["\"restarts\": 0", "\"health\": \"healthy\""]);
    shop.destroy();
}

#[test]
fn data_survives_and_the_world_finds_its_way() {
    let Some(cluster) = Cluster::shared(WHAT) else { return };
    let shop = Shop::new(cluster);
    let more = |version: &str| {
        format!(
            "env: {{VERSION: {version}}}\nhosts: {{external: shop.example.com}}\nvolumes: [{{name: data, mountPath: /data, size: 1Mi}}]\nmigrations: {{command: 'echo $VERSION >> $NORN_VOLUME_DATA/versions; cat $NORN_VOLUME_DATA/versions'}}"
        )
    };
    let write = |version: &str| {
        shop.web(&more(version));
        let text = shop
            .read("infraspec.yaml")
            .replace("kubernetes: {namespace", "kubernetes: {ingressClass: traefik, namespace");
        shop.write("infraspec.yaml", &text);
    };
    write("v1");
    let ran = shop.ok("apply --yes");
    has(&ran.err, &["web: http://shop.example.com"]);
    let host = "{.spec.rules[0].host},{.spec.ingressClassName}";
    assert_eq!(
        shop.space.ok(&format!("get ingress web --output jsonpath={host}")),
        "shop.example.com,traefik"
    );
    shop.write("web/release", "two");
    write("v2");
    let planned = shop.ok("plan");
    has(&planned.out, &["interrupts  its volume is for one pod at a time"]);
    shop.ok("apply --yes");
    has(&shop.ok("logs web --step migrate").out, &["v1\nv2\n"]);
    shop.plan_is_empty();

    // Without hosts there is no Ingress any more.
    shop.web(&more("v2").replace("hosts: {external: shop.example.com}\n", ""));
    shop.ok("apply --yes");
    let objects = shop.objects();
    assert!(!objects.iter().any(|object| object.starts_with("ingress")), "{objects:?}");
    shop.destroy();
    assert_eq!(shop.objects(), ["persistentvolumeclaim/web-data"]);

    shop.ok("apply --yes");
    has(&shop.ok("logs web --step migrate").out, &["v1\nv2\nv2\n"]);
    shop.destroy();
}

#[test]
fn what_others_changed_is_shown_field_by_field_and_set_right() {
    let Some(cluster) = Cluster::shared(WHAT) else { return };
    let mut shop = Shop::new(cluster);
    shop.sandbox.env.insert("TOKEN".into(), "hunter2222".into());
    shop.web("env: {VERSION: v1}\nsecrets: [TOKEN]\nvolumes: [{name: data, mountPath: /data, size: 1Mi}]");
    shop.ok("apply --yes");
    let empty = shop.ok("plan --refresh --detailed-exitcode");
    has(&empty.out, &["No changes"]);

    // What others add to it is theirs.
    shop.space.ok("label deployment web team=blue");
    shop.space.ok("annotate service web note=theirs");
    shop.ok("plan --refresh --detailed-exitcode");

    shop.space.ok("scale deployment web --replicas 2");
    shop.space.ok("set env deployment/web VERSION=edited");
    shop.space.ok("delete service web");
    let ran = shop.fails("plan --refresh --detailed-exitcode", 2);
    has(
        &ran.out,
        &[
            "deployment/web spec.replicas is 2, not 1",
            "deployment/web spec.template.spec.containers[web].env[VERSION].value is \"edited\", not \"v1\"",
            "service/web is gone",
            "web  others changed 3 fields of its objects (this plan repairs it)",
        ],
    );
    assert!(!ran.out.contains("hunter"), "{}", ran.out);
    shop.ok("apply --refresh --yes");
    shop.ok("plan --refresh --detailed-exitcode");
    assert_eq!(shop.space.ok("get deployment web --output jsonpath={.spec.replicas}"), "1");
    assert_eq!(shop.space.ok("get deployment web --output jsonpath={.metadata.labels.team}"), "blue");
    shop.answers(shop.node_port(), "v1 one");
    shop.destroy();
}
