//! norn ended in the middle: what it did stays, what runs goes on, the next apply finishes.

use rustix::process::Signal;

use crate::sandbox::{Sandbox, free_port, get};

/// An app whose build, test and migration wait at the file `hold-<step>`, if it is there.
pub fn held(port: u16) -> Sandbox {
    let sandbox = Sandbox::hello(port);
    let hold = |step: &str| {
        let gate = sandbox.folder().join(format!("hold-{step}"));
        format!("echo reached {step}; while test -e {}; do sleep 0.02; done", gate.display())
    };
    sandbox.hello_with(
        port,
        &format!(
            "build:\n  command: {}\n  test: {}\nmigrations: {{command: {}}}\n",
            hold("build"),
            hold("test"),
            hold("migrate")
        ),
    );
    sandbox
}

pub fn hold(sandbox: &Sandbox, step: &str) {
    sandbox.write(&format!("../hold-{step}"), "");
}

pub fn release(sandbox: &Sandbox, step: &str) {
    std::fs::remove_file(sandbox.path(&format!("../hold-{step}"))).expect("it is held");
}

/// Nothing of norn is left but the supervisor and its replica.
#[track_caller]
pub fn only_the_app_runs(sandbox: &Sandbox, apps: usize) {
    let end = std::time::Instant::now() + std::time::Duration::from_secs(10);
    loop {
        let running = sandbox.processes();
        if running.len() == apps * 2 {
            return;
        }
        assert!(std::time::Instant::now() < end, "these run: {running:#?}");
        std::thread::sleep(std::time::Duration::from_millis(20));
    }
}

#[test]
fn a_killed_apply_is_gone_on_with_from_every_step() {
    let port = free_port();
    let sandbox = held(port);
    sandbox.norn("apply --yes").ok();
    let mut said = "one".to_owned();
    for step in ["build", "test", "migrate"] {
        sandbox.write("greeting.txt", step);
        hold(&sandbox, step);
        let applying = sandbox.norn("apply --yes -v").start();
        applying.until(&format!("reached {step}"));
        applying.signal(Signal::KILL);
        applying.end();
        only_the_app_runs(&sandbox, 1);
        assert_eq!(get(port, "/"), Ok(said), "the release before still serves");
        release(&sandbox, step);

        sandbox.norn("status").ok().prints("left by a dead run").prints("norn restarted during deployment");
        let plan = sandbox.norn("plan --detailed-exitcode").exits(2);
        plan.prints("the last attempt was interrupted");
        let again = sandbox.norn("apply --yes").ok();
        again.says("recovered: settled what 1 dead run left");
        said = step.to_owned();
        assert_eq!(get(port, "/").as_ref(), Ok(&said));
        sandbox.norn("plan --detailed-exitcode").exits(0);
        assert!(!sandbox.norn("status").ok().out.contains("dead run"));
    }
    let history = sandbox.norn("history --json").ok().json();
    let rows = history["deployments"].as_array().expect("a list");
    let failed: Vec<_> = rows.iter().filter(|row| row["status"] == "failed").collect();
    assert_eq!((rows.len(), failed.len()), (7, 3));
    assert!(failed.iter().all(|row| row["error"] == "norn restarted during deployment"));
}

#[test]
fn a_killed_apply_whose_app_starts_is_gone_on_with() {
    let port = free_port();
    let sandbox = Sandbox::hello(port);
    sandbox.norn("apply --yes").ok();
    // An app that takes its time to be healthy.
    sandbox.write("greeting.txt", "two");
    sandbox.edit("server.py", "import os", "import time, os\ntime.sleep(1.5)\nimport os");
    let applying = sandbox.norn("apply --yes").start();
    applying.until("deploy/hello deploy: started");
    std::thread::sleep(std::time::Duration::from_millis(400));
    applying.signal(Signal::KILL);
    applying.end();
    assert_eq!(get(port, "/").as_deref(), Ok("one"));
    sandbox.norn("apply --yes").ok();
    assert_eq!(get(port, "/").as_deref(), Ok("two"));
    only_the_app_runs(&sandbox, 1);
    sandbox.norn("plan --detailed-exitcode").exits(0);
}

#[test]
fn two_applies_at_once_take_turns() {
    let port = free_port();
    let sandbox = held(port);
    hold(&sandbox, "build");
    let mut first = sandbox.norn("apply --yes -v").start();
    first.until("reached build");
    let second = sandbox.norn("apply --yes").exits(4);
    second
        .one_error()
        .says("is locked by")
        .says(&format!("pid {}", first.pid().as_raw_nonzero()))
        .says("--lock-wait");
    sandbox.norn("status").ok().prints("changing now");
    // Planning waits for nobody, and says so.
    let planned = sandbox.norn("plan --json").ok();
    planned.says("norn apply, since").says("is at work, so this plan may be out of date soon");
    planned.json();
    let third = sandbox.norn("apply --yes --lock-wait 30s").start();
    std::thread::sleep(std::time::Duration::from_millis(300));
    assert!(!first.ended());
    release(&sandbox, "build");
    let first = first.end();
    assert_eq!(first.code, Some(0), "{}", first.all());
    // What it planned has come to pass meanwhile: it is shown what is left, which is nothing.
    let third = third.end();
    assert_eq!(third.code, Some(0), "{}", third.all());
    third.says("what is there changed since the plan was shown: here is the new plan");
    assert!(third.out.ends_with("\nNo changes: 1 app is as the spec wants.\n"), "{}", third.out);
    assert_eq!(get(port, "/").as_deref(), Ok("one"));
    assert!(!sandbox.norn("plan").ok().err.contains("at work"));
}

#[test]
fn a_reader_that_goes_away_ends_no_apply() {
    for options in ["--json", "-v"] {
        let port = free_port();
        let sandbox = Sandbox::hello(port);
        sandbox.hello_with(
            port,
            "build: {command: \"for i in 1 2 3 4 5 6; do echo line $i; sleep 0.02; done\"}\n",
        );
        let norn = env!("CARGO_BIN_EXE_norn");
        sandbox.sh(&format!("{norn} apply --yes {options} 2>&1 | head -n 1"));
        let end = std::time::Instant::now() + std::time::Duration::from_secs(20);
        while get(port, "/").as_deref() != Ok("one") {
            assert!(std::time::Instant::now() < end, "the apply did not finish");
            std::thread::sleep(std::time::Duration::from_millis(20));
        }
        sandbox.sh(&format!("{norn} plan --lock-wait 1s 2>/dev/null | head -n 1 || true"));
        let status = sandbox.sh(&format!("{norn} plan | head -n 1"));
        assert!(status.contains("project greeter"));
    }
}

#[test]
fn closed_streams_stop_nothing() {
    let port = free_port();
    let sandbox = Sandbox::hello(port);
    let norn = env!("CARGO_BIN_EXE_norn");
    sandbox.sh(&format!("{norn} apply --yes <&- >&- 2>&-"));
    assert_eq!(get(port, "/").as_deref(), Ok("one"));
    sandbox.sh(&format!("{norn} status <&- 2>&- | grep healthy"));
    // Data that its reader wants and does not get is an error.
    let lost = sandbox.program("sh").arg("-c").arg(format!("exec {norn} status --json >/dev/full")).exits(1);
    lost.one_error().says("the output cannot be written");
}
