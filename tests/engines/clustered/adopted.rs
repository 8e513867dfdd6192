//! What others made becomes an app's, and what reaches an app is its own alone.

use super::{Shop, WHAT, has, under_load};
use crate::cluster::Cluster;
use crate::sandbox::until;

/// A webserver that somebody else put there: `more` is of its pods.
fn theirs(shop: &Shop<'_>, more: &str) {
    let base = shop.space.cluster.registry.base(shop.space.cluster.engine, "1");
    shop.space.apply(&format!(
        "apiVersion: apps/v1
kind: Deployment
metadata: {{name: web, labels: {{tier: front}}}}
spec:
  replicas: 2
  selector: {{matchLabels: {{tier: front}}}}
  template:
    metadata: {{labels: {{tier: front}}}}
    spec:
      containers:
        - name: server
          image: {base}
          command: [sh, -c, \"mkdir -p /www && echo theirs > /www/index.html && exec httpd -f -p 8080 -h /www\"]
          env: [{{name: VERSION, value: old}}, {{name: LEFT, value: over}}]
          ports: [{{name: web, containerPort: 8080}}]
          readinessProbe: {{httpGet: {{path: /, port: 8080}}, periodSeconds: 1}}
          lifecycle: {{preStop: {{sleep: {{seconds: 3}}}}}}
{more}---
apiVersion: v1
kind: Service
metadata: {{name: web}}
spec: {{type: NodePort, selector: {{tier: front}}, ports: [{{port: 80, targetPort: web}}]}}
"
    ));
}

#[test]
fn what_serves_is_taken_over_without_a_lost_request() {
    let Some(cluster) = Cluster::shared(WHAT) else { return };
    let shop = Shop::new(cluster);
    theirs(&shop, "");
    let port = shop.space.ok("get service web --output jsonpath={.spec.ports[0].nodePort}");
    let port = port.parse().expect("it has a port");
    shop.answers(port, "theirs");
    shop.web("env: {VERSION: ours}\nreplicas: 2");
    let ran = shop.run("apply --yes");
    assert_eq!(ran.code, 3, "{}", ran.err);
    has(&ran.err, &["service/web in the namespace", "nobody says that it is theirs"]);
    under_load(cluster.node_address(), port, || {
        shop.ok("apply --yes --adopt forge/web");
    });
    shop.answers(port, "ours one");
    // Nothing of theirs is left beside it.
    let shown = |path: &str| shop.space.ok(&format!("get {path}"));
    assert_eq!(
        shown("deployment web --output jsonpath={.spec.template.spec.containers[*].name}"),
        "web",
        "one container"
    );
    let env = shown("deployment web --output jsonpath={.spec.template.spec.containers[0].env[*].name}");
    assert_eq!(env, "PORT VERSION");
    // Its port keeps its name: while that changes, nobody is sent to a pod.
    assert_eq!(shown("service web --output jsonpath={.spec.ports[*].name}"), "");
    assert_eq!(shown("service web --output jsonpath={.spec.ports[*].targetPort}"), "http");
    until("the service has both pods", || {
        let slices = "endpointslices --selector kubernetes.io/service-name=web";
        shown(&format!("{slices} --output jsonpath={{.items[*].endpoints[*].conditions.ready}}"))
            == "true true"
    });
    shop.ok("plan --refresh --detailed-exitcode");
    // What norn sets no more goes: all of it is norn's by now.
    shop.web("replicas: 2");
    shop.ok("apply --yes");
    let env = shown("deployment web --output jsonpath={.spec.template.spec.containers[0].env[*].name}");
    assert_eq!(env, "PORT");
    shop.destroy();
    assert_eq!(shop.objects(), Vec::<String>::new());
}

#[test]
fn what_holds_data_is_not_taken_from_under_what_is_taken_over() {
    let Some(cluster) = Cluster::shared(WHAT) else { return };
    let shop = Shop::new(cluster);
    let volume = "          volumeMounts: [{name: data, mountPath: /data}]
      volumes: [{name: data, persistentVolumeClaim: {claimName: orders}}]
";
    theirs(&shop, volume);
    shop.web("env: {VERSION: ours}");
    let ran = shop.run("apply --yes --adopt forge/web");
    assert_eq!(ran.code, 3, "{}", ran.err);
    has(
        &ran.err,
        &["its pods would lose persistentvolumeclaim/orders", "the claim of volume `data` is web-data"],
    );
    let claim = "get deployment web --output jsonpath={.spec.template.spec.volumes[0].persistentVolumeClaim.claimName}";
    assert_eq!(shop.space.ok(claim), "orders");
}

#[test]
fn an_app_is_reached_by_its_own_objects_alone() {
    let Some(cluster) = Cluster::shared(WHAT) else { return };
    let shop = Shop::new(cluster);
    let write = |more: &str| {
        shop.web(more);
        let text = shop
            .read("infraspec.yaml")
            .replace("kubernetes: {namespace", "kubernetes: {ingressClass: traefik, namespace");
        shop.write("infraspec.yaml", &text);
    };
    write("env: {VERSION: v1}\nhosts: {external: one.example.com}");
    shop.ok("apply --yes");
    let host = || shop.space.ok("get ingress web --output jsonpath={.spec.rules[0].host}");

    // The world is not sent to a version that never serves.
    write(
        "env: {VERSION: v2}\nhosts: {external: two.example.com}\ncommand: [sh, -c, exit 1]\nrollout: {timeout: 10s, drain: 0s}",
    );
    shop.fails("apply --yes", 1);
    assert_eq!(host(), "one.example.com");
    write("env: {VERSION: v1}\nhosts: {external: one.example.com}");
    shop.ok("apply --yes");
    shop.plan_is_empty();

    // What is missing, and what is there beside it, is seen without asking for more.
    shop.space.ok("delete service web");
    has(&shop.fails("plan --detailed-exitcode", 2).out, &["this plan repairs it"]);
    shop.ok("apply --yes");
    shop.plan_is_empty();
    let more = shop
        .space
        .ok("get ingress web --output json")
        .replace("\"name\": \"web\",\n        \"namespace\"", "\"name\": \"more\",\n        \"namespace\"");
    assert!(more.contains("\"more\""), "{more}");
    // One that somebody made of a copy, with all its labels, is theirs.
    shop.space.apply(&more);
    shop.ok("plan --refresh --detailed-exitcode");
    shop.space.ok("delete ingress more");
    let file = cluster.file("more.json", &more);
    shop.space.ok(&format!("apply --field-manager norn --filename {}", file.display()));
    has(
        &shop.fails("plan --refresh --detailed-exitcode", 2).out,
        &["ingress/more is there, and should not be"],
    );
    has(&shop.fails("plan --detailed-exitcode", 2).out, &["this plan repairs it"]);
    shop.ok("apply --yes");
    shop.plan_is_empty();
    assert!(!shop.objects().iter().any(|object| object.ends_with("more")));
    shop.destroy();
}

#[test]
fn what_the_cluster_would_refuse_is_in_the_plan() {
    let Some(cluster) = Cluster::shared(WHAT) else { return };
    let shop = Shop::new(cluster);
    shop.space.apply(
        "apiVersion: v1
kind: ResourceQuota
metadata: {name: few}
spec: {hard: {count/deployments.apps: \"0\"}}
",
    );
    until("the quota counts", || {
        shop.space.ok("get quota few --output jsonpath={.status.hard}").contains("deployments")
    });
    shop.web("env: {VERSION: v1}");
    let ran = shop.ok("plan --refresh");
    has(&ran.out, &["the cluster would refuse it", "deployment/web", "the quota of the namespace"]);
    let ran = shop.fails("apply --refresh --yes", 1);
    has(&ran.err, &["the plan has operations that cannot be applied"]);
    assert_eq!(shop.objects(), Vec::<String>::new(), "nothing was begun");
    shop.space.ok("delete quota few");
    shop.ok("apply --refresh --yes");
    shop.destroy();
}
