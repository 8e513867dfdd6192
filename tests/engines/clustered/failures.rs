//! What does not come to a good end in a cluster, and what is said of it.

use crate::cluster::Cluster;

use super::{Shop, WHAT, has};

#[test]
fn a_version_that_is_never_healthy_leaves_the_former_one_serving() {
    let Some(cluster) = Cluster::shared(WHAT) else { return };
    let shop = Shop::new(cluster);
    // The first one of all: nothing is left of it but its Service.
    let broken = "env: {VERSION: first}\ncommand: [\"sh\", \"-c\", \"echo it breaks >&2; exit 3\"]";
    shop.web(&format!("{broken}\nrollout: {{timeout: 8s, drain: 1s}}"));
    let ran = shop.run("apply --yes");
    assert_eq!(ran.code, 3, "{}", ran.err);
    has(&ran.err, &["deployment/web", "it breaks", "it was the first, so its pods were removed again"]);
    assert_eq!(shop.objects(), ["service/web"]);

    shop.web("env: {VERSION: first}");
    shop.ok("apply --yes");
    let port = shop.node_port();
    shop.answers(port, "first one");

    // New code and a new definition, and then a definition alone.
    shop.write("web/release", "two");
    shop.web(&format!("{}\nrollout: {{timeout: 8s, drain: 1s}}", broken.replace("first", "second")));
    let ran = shop.run("apply --yes");
    assert!([1, 3].contains(&ran.code), "{}", ran.err);
    has(&ran.err, &["it breaks", "serves as before"]);
    shop.answers(port, "first one");
    let status = shop.ok("status");
    has(&status.out, &["healthy", "1/1"]);

    // It sets what the next one does not: nothing of it is left in what comes after.
    shop.write("web/release", "one");
    let third = broken.replace("VERSION: first", "VERSION: third, EXTRA: x");
    shop.web(&format!("{third}\nrollout: {{timeout: 8s, drain: 1s}}"));
    shop.write("infraspec.yaml", &shop.read("infraspec.yaml").replace("port: 8080", "port: 8081"));
    let ran = shop.run("apply --yes");
    assert_eq!(ran.code, 1, "{}", ran.err);
    has(&ran.err, &["it breaks", "serves as before"]);
    shop.answers(port, "first one");

    // What stands is what the state says: nothing is left to mend.
    shop.web("env: {VERSION: first}");
    shop.ok("apply --yes");
    shop.plan_is_empty();
    shop.ok("plan --refresh --detailed-exitcode");
    shop.web("env: {OTHER: y}");
    shop.write("infraspec.yaml", &shop.read("infraspec.yaml").replace("port: 8080", "port: 8082"));
    shop.ok("apply --yes");
    let container = "{.spec.template.spec.containers[0].ports[*].containerPort},{.spec.template.spec.containers[0].env[*].name}";
    let put = shop.space.ok(&format!("get deployment web --output jsonpath={container}"));
    assert_eq!(put, "8082,OTHER PORT");
    shop.plan_is_empty();

    // A checkout that knows nothing of it takes nothing away with its own failure.
    shop.web(&format!("{broken}\nrollout: {{timeout: 8s, drain: 1s}}"));
    let ran = shop.run("apply --yes --state other.db");
    assert!([1, 3].contains(&ran.code), "{}", ran.err);
    has(&ran.err, &["it breaks", "serves as before"]);
    shop.answers(port, "one");
    shop.ok(&format!("destroy --yes --confirm {} --state .norn/state.db", shop.project));
    assert_eq!(shop.objects(), Vec::<String>::new());
}

#[test]
fn what_cannot_be_reached_or_done_is_told_before_anything_begins() {
    let Some(cluster) = Cluster::shared(WHAT) else { return };
    let mut shop = Shop::new(cluster);
    shop.web("env: {VERSION: first}");
    let right = shop.sandbox.env["KUBECONFIG"].clone();
    let refused = |shop: &mut Shop<'_>, kubeconfig: &str, words: &[&str]| {
        shop.sandbox.env.insert("KUBECONFIG".into(), kubeconfig.to_owned());
        let ran = shop.run("apply --yes");
        assert_eq!(ran.code, 1, "{}{}", ran.out, ran.err);
        has(&ran.err, words);
        assert!(!ran.err.contains("applying"), "{}", ran.err);
        shop.sandbox.env.insert("KUBECONFIG".into(), right.clone());
    };
    refused(&mut shop, "/nowhere/at/all", &["there is no kubeconfig (looked at /nowhere/at/all)"]);
    let away = cluster.kubeconfig_at("https://127.0.0.1:1").display().to_string();
    refused(&mut shop, &away, &["the cluster at https://127.0.0.1:1 does not answer"]);
    let expired = cluster.kubeconfig_with("not-a-token").display().to_string();
    refused(&mut shop, &expired, &["does not take the login of the kubeconfig"]);
    let reader = shop.space.limited("get,list", "pods,secrets").display().to_string();
    refused(&mut shop, &reader, &["may not list deployments.apps in the namespace"]);

    let right_namespace = shop.space.name.clone();
    shop.write("infraspec.yaml", &shop.read("infraspec.yaml").replace(&right_namespace, "nowhere-at-all"));
    refused(&mut shop, &right.clone(), &["there is no namespace nowhere-at-all"]);

    // Somebody who may look and not write begins, and is told at the first object.
    shop.web("env: {VERSION: first}\nsecrets: []");
    let looker = shop.space.limited("get,list", "pods,secrets,services,deployments.apps,jobs.batch,ingresses.networking.k8s.io,persistentvolumeclaims,replicasets.apps");
    shop.sandbox.env.insert("KUBECONFIG".into(), looker.display().to_string());
    let ran = shop.run("apply --yes");
    assert_eq!(ran.code, 3, "{}", ran.err);
    has(&ran.err, &["may not patch services in the namespace"]);
    shop.sandbox.env.insert("KUBECONFIG".into(), right);
    shop.ok("apply --yes");
    shop.destroy();
}

#[test]
fn an_object_of_others_is_not_touched() {
    let Some(cluster) = Cluster::shared(WHAT) else { return };
    let shop = Shop::new(cluster);
    shop.space.apply(
        "apiVersion: v1
kind: Service
metadata: {name: web, labels: {app.kubernetes.io/managed-by: Helm}}
spec: {ports: [{port: 80, targetPort: 9999}]}
",
    );
    shop.web("env: {VERSION: first}");
    let ran = shop.run("apply --yes");
    assert_eq!(ran.code, 3, "{}", ran.err);
    has(&ran.err, &["service/web in the namespace", "Helm manages it", "norn apply --adopt forge/web"]);
    assert_eq!(shop.space.ok("get service web --output jsonpath={.spec.ports[0].targetPort}"), "9999");
    assert_eq!(shop.objects(), Vec::<String>::new());

    // Taken over, it is norn's: put live with the rest, and gone with it.
    let planned = shop.ok("plan --adopt forge/web");
    has(&planned.out, &["you asked to take over what others made of it"]);
    shop.ok("apply --yes --adopt forge/web");
    assert_eq!(shop.objects(), ["deployment.apps/web", "service/web"]);
    shop.answers(shop.node_port(), "first one");

    // Somebody edits it behind norn's back: it is not undone in passing, but when that is asked for.
    shop.space.ok("scale deployment web --replicas 2");
    shop.web("env: {VERSION: second}");
    let ran = shop.run("apply --yes");
    assert_eq!(ran.code, 1, "{}", ran.err);
    has(
        &ran.err,
        &["others have set fields that norn sets", "spec.replicas", "norn apply --adopt forge/web"],
    );
    shop.ok("apply --yes --adopt forge/web");
    assert_eq!(shop.space.ok("get deployment web --output jsonpath={.spec.replicas}"), "1");
    shop.plan_is_empty();
    shop.destroy();
    assert_eq!(shop.objects(), Vec::<String>::new());
}
