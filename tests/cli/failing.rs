//! Apps that fail to build, to test, to migrate, to start: the state says where, and what served
//! before goes on.

use std::fs;
use std::net::TcpListener;

use crate::sandbox::{Sandbox, free_port, get};
use crate::snapshot;

/// An app that serves, and its next release, of which something goes wrong.
fn next_release(more: &str) -> (Sandbox, u16) {
    let port = free_port();
    let sandbox = Sandbox::hello(port);
    sandbox.norn("apply --yes").ok();
    sandbox.write("greeting.txt", "two");
    sandbox.hello_with(port, more);
    (sandbox, port)
}

#[test]
fn a_step_that_fails_is_named_and_its_output_kept() {
    let fails = "echo what the step says; echo and its error >&2; exit 7";
    for (step, spec) in [
        ("build", format!("build: {{command: \"{fails}\"}}\n")),
        ("test", format!("build: {{test: \"{fails}\"}}\n")),
        ("migrate", format!("migrations: {{command: \"{fails}\"}}\n")),
    ] {
        let (sandbox, port) = next_release(&spec);
        let ran = sandbox.norn("apply --yes").run();
        assert!([Some(1), Some(3)].contains(&ran.code), "{}", ran.all());
        ran.says(&format!("{step}: FAILED")).says("exited with code 7").says("and its error");
        assert_eq!(get(port, "/").as_deref(), Ok("one"), "the release before still serves");
        sandbox.norn(&format!("logs hello --step {step}")).ok().prints("what the step says");
        let history = sandbox.norn("history -n 1 --json").ok().json();
        let row = &history["deployments"][0];
        assert_eq!(row["status"], "failed");
        let steps = row["steps"].as_array().expect("a list");
        let failed: Vec<_> = steps.iter().filter(|log| log["status"] == "failed").collect();
        assert_eq!(failed.len(), 1, "{row:#}");
        assert_eq!(failed[0]["step"], step);
        assert!(failed[0]["output"].as_str().is_some_and(|output| output.contains("what the step says")));
        sandbox.norn("plan").ok().prints("the last attempt failed");
        sandbox.hello_with(port, "");
        sandbox.norn("apply --yes").ok();
        assert_eq!(get(port, "/").as_deref(), Ok("two"));
    }
}

#[test]
fn an_app_that_is_not_healthy_never_goes_live() {
    let (sandbox, port) = next_release("env: {HEALTH: \"503\"}\n");
    let ran = sandbox.norn("apply --yes").exits(3);
    snapshot::check("never-healthy", &ran.redacted().replace(&port.to_string(), "<port>"));
    assert_eq!(get(port, "/").as_deref(), Ok("one"));
}

#[test]
fn an_app_on_another_port_is_told_where_it_listens() {
    let elsewhere = free_port();
    let (sandbox, port) = next_release(&format!("env: {{LISTEN: \"{elsewhere}\"}}\n"));
    let ran = sandbox.norn("apply --yes").exits(3);
    ran.says(&format!("it listens on 127.0.0.1:{elsewhere}")).says("$PORT");
    assert_eq!(get(port, "/").as_deref(), Ok("one"));
}

#[test]
fn a_port_in_use_is_told_with_who_uses_it() {
    let port = free_port();
    let sandbox = Sandbox::hello(port);
    let taken = TcpListener::bind(("127.0.0.1", port)).expect("the port is free");
    let ran = sandbox.norn("apply --yes").run();
    assert_ne!(ran.code, Some(0), "{}", ran.all());
    ran.says(&port.to_string()).says(&format!("pid {}", std::process::id()));
    drop(taken);
    sandbox.norn("apply --yes").ok();
    assert_eq!(get(port, "/").as_deref(), Ok("one"));
}

#[test]
fn a_server_that_cannot_be_dumped_is_a_failed_step() {
    let nowhere = free_port();
    let (sandbox, port) = next_release("services: {postgres: {database: shop}}\n");
    let spec = sandbox.read("infraspec.yaml");
    sandbox.write(
        "infraspec.yaml",
        &format!("{spec}postgres: {{url: \"postgres://norn:geheimwort@127.0.0.1:{nowhere}/\"}}\n"),
    );
    let ran = sandbox.norn("apply --yes").run();
    assert_ne!(ran.code, Some(0), "{}", ran.all());
    ran.says("snapshot: FAILED").says("postgres.url");
    assert!(!ran.all().contains("geheimwort"), "{}", ran.all());
    assert_eq!(get(port, "/").as_deref(), Ok("one"));
}

#[test]
fn a_commit_that_is_not_there_is_an_error_before_anything_is_done() {
    let sandbox = Sandbox::hello(free_port());
    sandbox.commit("one");
    let url = format!("file://{}", sandbox.path("").display());
    let missing = "0123456789012345678901234567890123456789";
    for (reference, code) in [("branch: gone", 1), ("ref: v9", 1), (&format!("ref: {missing}") as &str, 3)] {
        let target = sandbox.path("../deploy");
        fs::create_dir_all(&target).expect("the folder is made");
        let spec = sandbox.read("infraspec.yaml");
        let repo = format!("  hello:\n    repo: {{url: \"{url}\", {reference}}}\n");
        sandbox.write("../deploy/infraspec.yaml", &spec.replace("  hello:\n", &repo));
        let ran = sandbox.norn("apply --yes").within(&target).exits(code);
        let name = reference.split(": ").nth(1).expect("a name");
        ran.says(&name[..name.len().min(12)]);
    }
}

#[test]
fn without_git_norn_says_what_is_missing() {
    let sandbox = Sandbox::hello(free_port());
    sandbox.norn("plan").env("PATH", sandbox.path("")).exits(1).one_error().says("git is not installed");
}
