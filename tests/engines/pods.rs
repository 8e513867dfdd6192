//! A Kubernetes cluster.

use std::io::Write;
use std::net::TcpListener;
use std::thread;

use crate::cluster::Cluster;
use crate::containers::greeter;
use crate::get_soon;
use crate::shared::free_port;
use crate::world::{ADDRESS, run};

const WHAT: &str = "pods on Kubernetes";

#[test]
fn two_replicas_answer_through_a_port_of_the_node() {
    let Some(cluster) = Cluster::shared(WHAT) else { return };
    let image = greeter(cluster.engine, cluster.registry, "replicas:1", "hello from a pod");
    let pinned = cluster.engine.push(&image);
    let space = cluster.namespace();
    space.apply(&format!(
        "apiVersion: apps/v1
kind: Deployment
metadata: {{name: web}}
spec:
  replicas: 2
  selector: {{matchLabels: {{app: web}}}}
  template:
    metadata: {{labels: {{app: web}}}}
    spec:
      containers:
      - name: web
        image: {pinned}
        readinessProbe: {{httpGet: {{path: /, port: 8080}}, periodSeconds: 1}}
        resources: {{limits: {{memory: 32Mi}}}}
---
apiVersion: v1
kind: Service
metadata: {{name: web}}
spec: {{type: NodePort, selector: {{app: web}}, ports: [{{port: 80, targetPort: 8080}}]}}
"
    ));
    let rolled = space.kubectl("rollout status deployment/web --timeout 60s");
    assert!(rolled.is_ok(), "{rolled:?}\n{}", space.story());
    assert_eq!(space.ok("get deployment web --output jsonpath={.status.readyReplicas}"), "2");
    let port = space.ok("get service web --output jsonpath={.spec.ports[0].nodePort}");
    let port = port.parse().expect("it has a port");
    assert_eq!(get_soon(cluster.node_address(), port), "hello from a pod");
    // A pod reaches itself and the other, and the service whichever of them that leads to.
    let pods = space.ok("get pods --output jsonpath={.items[*].status.podIP}");
    let service = space.ok("get service web --output jsonpath={.spec.clusterIP}");
    let places = pods.split(' ').map(|pod| (pod, 8080)).chain([(service.as_str(), 80); 5]);
    for (address, port) in places {
        let ask = format!("printf 'GET / HTTP/1.0\\r\\n\\r\\n' | nc -w 5 {address} {port}");
        let mut exec = cluster.command(&format!("--namespace {} exec deployment/web -- sh -c", space.name));
        let answer = run(exec.arg(&ask)).unwrap_or_else(|error| panic!("{address}: {error}"));
        assert!(answer.ends_with("hello from a pod"), "{address}: {answer}");
    }
    assert_eq!(space.ok("exec deployment/web -- cat /www/index.html"), "hello from a pod");
}

#[test]
fn a_pod_keeps_what_it_claimed_and_finds_the_apiserver_and_the_node() {
    let Some(cluster) = Cluster::shared(WHAT) else { return };
    let image = cluster.registry.base(cluster.engine, "1");
    let space = cluster.namespace();
    space.apply(
        "apiVersion: v1
kind: PersistentVolumeClaim
metadata: {name: data}
spec: {accessModes: [ReadWriteOnce], resources: {requests: {storage: 1Gi}}}
",
    );
    let run = |name: &str, script: &str| {
        space.apply(&format!(
            "apiVersion: v1
kind: Pod
metadata: {{name: {name}, labels: {{app: {name}}}}}
spec:
  restartPolicy: Never
  volumes: [{{name: data, persistentVolumeClaim: {{claimName: data}}}}]
  containers:
  - name: {name}
    image: {image}
    command: [sh, -c, {script:?}]
    volumeMounts: [{{name: data, mountPath: /data}}]
"
        ));
        let done = space
            .kubectl(&format!("wait pod/{name} --timeout 30s --for jsonpath={{.status.phase}}=Succeeded"));
        assert!(done.is_ok(), "{done:?}\n{}", space.story());
        space.ok(&format!("logs {name}"))
    };
    run("writes", "echo kept >/data/file");
    assert_eq!(run("reads", "cat /data/file"), "kept");
    // Who says nothing is hung up on.
    run("asks", "nc -w 5 $KUBERNETES_SERVICE_HOST $KUBERNETES_SERVICE_PORT </dev/null");
    let listener = TcpListener::bind((ADDRESS, 0)).expect("the world has the address");
    let port = listener.local_addr().expect("it is bound").port();
    thread::spawn(move || {
        let (mut client, _) = listener.accept().expect("somebody calls");
        client.write_all(b"heard").expect("it listens");
    });
    assert_eq!(run("calls", &format!("nc -w 5 {ADDRESS} {port}")), "heard");
}

#[test]
fn a_kubeconfig_may_name_another_way_to_the_apiserver() {
    let Some(cluster) = Cluster::shared(WHAT) else { return };
    let nowhere = cluster.kubeconfig_at(&format!("https://127.0.0.1:{}", free_port()));
    let refused = run(&mut cluster.command_as(&nowhere, "get nodes")).expect_err("nobody listens there");
    assert!(refused.contains("refused"), "{refused}");
    let back = cluster.kubeconfig_at(&cluster.server());
    run(&mut cluster.command_as(&back, "get nodes")).expect("it is the cluster's own");
}

#[test]
fn somebody_with_few_rights_may_do_nothing_else() {
    let Some(cluster) = Cluster::shared(WHAT) else { return };
    let space = cluster.namespace();
    let limited = space.limited("get,list", "pods,deployments.apps");
    let as_them = |arguments: &str| {
        run(&mut cluster.command_as(&limited, &format!("--namespace {} {arguments}", space.name)))
    };
    as_them("get deployments").expect("they may");
    let refused = as_them("create configmap one").expect_err("they may not");
    assert!(refused.contains("configmaps is forbidden"), "{refused}");
    let unknown = cluster.kubeconfig_with("of-nobody");
    let refused = run(&mut cluster.command_as(&unknown, "get pods")).expect_err("nobody knows them");
    assert!(refused.contains("Unauthorized") || refused.contains("must be logged in"), "{refused}");
}
