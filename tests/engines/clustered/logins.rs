//! The ways into a cluster: programs that give logins, a pod's own account, and what fails of them.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::process::Stdio;

use crate::cluster::Cluster;
use crate::sandbox::until;

use super::{Shop, WHAT, has};

impl Shop<'_> {
    /// A program that a kubeconfig names for logins.
    fn program(&self, script: &str) -> String {
        self.write("login", &format!("#!/bin/sh\n{script}\n"));
        let path = self.path("login");
        fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).expect("it is ours");
        path.display().to_string()
    }

    /// That nothing begins, with these words, of which the first are there once.
    fn keeps_out(&self, words: &[&str]) {
        for command in ["plan", "apply --yes"] {
            let ran = self.fails(command, 1);
            println!("{}", ran.err);
            has(&ran.err, words);
            assert_eq!(ran.err.matches(words[0]).count(), 1, "{}", ran.err);
            assert!(!ran.err.contains("applying") && !ran.err.contains("s3cret"), "{}", ran.err);
        }
    }
}

fn exec(command: &str) -> String {
    format!(
        "{{exec: {{apiVersion: client.authentication.k8s.io/v1, interactiveMode: Never, command: {command}}}}}"
    )
}

#[test]
fn a_program_of_the_kubeconfig_gives_the_login_or_is_told_as_the_one_that_failed() {
    let Some(cluster) = Cluster::shared(WHAT) else { return };
    let mut shop = Shop::new(cluster);
    let (token, _) = shop.member();
    let good = format!(
        "echo '{{\"apiVersion\": \"client.authentication.k8s.io/v1\", \"kind\": \"ExecCredential\", \"status\": {{\"token\": \"{token}\"}}}}'"
    );
    let command = shop.program(&good);
    shop.as_user(&exec(&command));
    shop.ready_made("env: {VERSION: first}");
    shop.ok("apply --yes");
    let port = shop.node_port();
    shop.answers(port, "first");
    shop.plan_is_empty();

    shop.ready_made("env: {VERSION: second}");
    shop.program("echo 'your session has ended: log in again' >&2; exit 7");
    let own = format!("is not to be had: `{command}`, which the kubeconfig names for it, ");
    let failed = "failed (exit status: 7): your session has ended: log in again; see that it works";
    shop.keeps_out(&[&format!("{own}{failed}")]);
    shop.program("echo '{\"status\": {\"token\": \"s3cret'");
    shop.keeps_out(&[&format!("{own}gives no ExecCredential; ")]);
    shop.program("echo '{\"apiVersion\": \"client.authentication.k8s.io/v1\", \"kind\": \"ExecCredential\", \"status\": {\"token\": \"s3cret\"}}'");
    shop.keeps_out(&["does not take the login of the kubeconfig", "renew its token or certificate"]);
    shop.as_user(&exec("/nowhere/at/all/login"));
    shop.keeps_out(&[
        "`/nowhere/at/all/login`, which the kubeconfig names for it, cannot be started: No such",
    ]);

    shop.answers(port, "first");
    let command = shop.program(&good);
    shop.as_user(&exec(&command));
    shop.ok("apply --yes");
    shop.answers(port, "second");
    shop.plan_is_empty();
    shop.destroy();
}

/// A first version, put live by somebody with a token; who, and the port where it answers.
fn of_a_member(cluster: &Cluster) -> (Shop<'_>, String, u16) {
    let mut shop = Shop::new(cluster);
    let (token, who) = shop.member();
    shop.as_user(&format!("{{token: {token}}}"));
    shop.ready_made("env: {VERSION: first}");
    shop.ok("apply --yes");
    let port = shop.node_port();
    (shop, who, port)
}

#[test]
fn a_login_that_ends_keeps_out_and_another_goes_on() {
    let Some(cluster) = Cluster::shared(WHAT) else { return };
    let (mut shop, who, port) = of_a_member(cluster);
    shop.space.ok(&format!("delete serviceaccount {who}"));
    until("its token counts no more", || shop.run("plan").code != 0);
    shop.ready_made("env: {VERSION: second}");
    shop.keeps_out(&["does not take the login of the kubeconfig", "renew its token or certificate"]);
    shop.answers(port, "first");

    let (token, _) = shop.member();
    shop.as_user(&format!("{{token: {token}}}"));
    shop.ok("apply --yes");
    shop.answers(port, "second");
    shop.plan_is_empty();
    shop.destroy();
}

#[test]
fn a_login_that_ends_in_the_middle_leaves_what_the_next_run_goes_on_from() {
    let Some(cluster) = Cluster::shared(WHAT) else { return };
    let (mut shop, who, port) = of_a_member(cluster);
    shop.answers(port, "first");

    // What the apiserver knows of a token it believes for ten seconds more.
    let slow = "sleep 15; mkdir -p /www; echo $VERSION >/www/index.html; exec httpd -f -p $PORT -h /www";
    shop.ready_made(&format!("env: {{VERSION: second}}\ncommand: [sh, -c, \"{slow}\"]"));
    let mut command = shop.command("apply --yes");
    let norn = command.stdout(Stdio::null()).stderr(Stdio::piped()).spawn().expect("norn starts");
    let version = "get deployment web --output jsonpath={.spec.template.spec.containers[0].env[?(@.name==\"VERSION\")].value}";
    until("the second version is put", || shop.space.ok(version) == "second");
    shop.space.ok(&format!("delete serviceaccount {who}"));
    let ended = norn.wait_with_output().expect("it ends");
    let err = String::from_utf8_lossy(&ended.stderr).into_owned();
    println!("{err}");
    assert_eq!(ended.status.code(), Some(1), "{err}");
    assert_eq!(err.matches("does not take the login of the kubeconfig").count(), 1, "{err}");
    has(&err, &["create-deployment: FAILED after ", "apply again, which looks first"]);
    assert!(!err.contains("FAILED after 0.0 s"), "{err}");

    let (token, _) = shop.member();
    shop.as_user(&format!("{{token: {token}}}"));
    shop.ok("apply --yes");
    shop.answers(port, "second");
    shop.plan_is_empty();
    assert_eq!(shop.open_in_journal(), 0);
    shop.destroy();
}

#[test]
fn a_kubeconfig_or_a_context_that_is_not_there_is_told() {
    let Some(cluster) = Cluster::shared(WHAT) else { return };
    let mut shop = Shop::new(cluster);
    shop.ready_made("env: {VERSION: first}");
    shop.ok("apply --yes");
    let right = shop.read("infraspec.yaml");
    shop.write("infraspec.yaml", &right.replace("kubernetes: {", "kubernetes: {context: elsewhere, "));
    shop.keeps_out(&[
        "the kubeconfig has no context `elsewhere` (there is test)",
        "correct `kubernetes.context`",
    ]);
    shop.write("infraspec.yaml", &right);
    let own = shop.sandbox.env.insert("KUBECONFIG".into(), "/nowhere/at/all".into()).expect("it has one");
    shop.keeps_out(&["there is no kubeconfig (looked at /nowhere/at/all)", "name one with KUBECONFIG"]);
    shop.sandbox.env.remove("KUBECONFIG");
    let usual = shop.path("home/.kube/config").display().to_string();
    shop.keeps_out(&[&format!("there is no kubeconfig (looked at {usual})")]);
    // What a pod is told by, without what it is given.
    shop.sandbox.env.insert("KUBERNETES_SERVICE_HOST".into(), "127.0.0.1".into());
    shop.sandbox.env.insert("KUBERNETES_SERVICE_PORT".into(), "1".into());
    shop.keeps_out(&["/var/run/secrets/kubernetes.io/serviceaccount", "automountServiceAccountToken"]);
    shop.sandbox.env.insert("KUBECONFIG".into(), own);
    shop.plan_is_empty();
    shop.destroy();
}

#[test]
fn in_a_pod_norn_works_as_the_pods_account() {
    // What is on this machine's disk is on no user's node.
    let Some(cluster) = Cluster::shared(WHAT).filter(|cluster| cluster.is_ours()) else { return };
    let shop = Shop::new(cluster);
    let (_, who) = shop.member();
    shop.ready_made("env: {VERSION: first}");
    let base = cluster.registry.base(cluster.engine, "1");
    let (norn, folder) = (shop.norn.display().to_string(), shop.path("").display().to_string());
    let build = shop.norn.parent().expect("it is in a folder").display().to_string();
    let places = ["/usr", "/lib", "/lib64", &build, &folder];
    // The registry's name is one of the node's network, from which no route leads to services.
    let in_pod = |arguments: &str| {
        let name = format!("norn-{}", &uuid::Uuid::new_v4().simple().to_string()[..8]);
        let (mut volumes, mut mounts) = (String::new(), String::new());
        for (number, place) in places.iter().enumerate() {
            volumes += &format!("  - {{name: v{number}, hostPath: {{path: {place}}}}}\n");
            mounts += &format!("    - {{name: v{number}, mountPath: {place}}}\n");
        }
        shop.space.apply(&format!(
            "apiVersion: v1
kind: Pod
metadata: {{name: {name}}}
spec:
  restartPolicy: Never
  serviceAccountName: {who}
  hostNetwork: true
  containers:
  - name: norn
    image: {base}
    workingDir: {folder}
    env:
    - {{name: HOME, value: /root}}
    - {{name: PATH, value: /usr/bin}}
    - {{name: KUBERNETES_SERVICE_HOST, value: 127.0.0.1}}
    - {{name: KUBERNETES_SERVICE_PORT, value: \"6443\"}}
    command: [\"{norn}\", {}]
    volumeMounts:
{mounts}  volumes:
{volumes}",
            arguments.split(' ').map(|word| format!("\"{word}\"")).collect::<Vec<_>>().join(", ")
        ));
        let state = "{.status.containerStatuses[0].state.terminated.exitCode}";
        let mut code = String::new();
        let look = || {
            code = shop.space.ok(&format!("get pod {name} --output jsonpath={state}"));
            !code.is_empty()
        };
        until("norn has ended in its pod", look);
        (code.clone(), shop.space.ok(&format!("logs {name}")))
    };
    let (code, said) = in_pod("apply --yes");
    assert_eq!(code, "0", "{said}");
    shop.answers(shop.node_port(), "first");
    let (code, said) = in_pod("plan --detailed-exitcode");
    assert_eq!(code, "0", "{said}");

    // The account loses its right: that is told, and nothing begins.
    shop.space.ok(&format!("delete rolebinding {who}"));
    let mut last = String::new();
    let refused = || {
        let (code, said) = in_pod("plan");
        last = said;
        code == "1"
    };
    until("nothing may be done any more", refused);
    let user = format!("the user `system:serviceaccount:{}:{who}` may not list ", shop.space.name);
    has(&last, &[&user, "--verb list --resource "]);
    shop.space.ok("delete deployment,service,pod --all --wait=false");
}
