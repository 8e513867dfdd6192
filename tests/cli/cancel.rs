//! Ctrl-C and the signals of CI: the first stops gently, the second at once, and nothing is left.

use std::time::{Duration, Instant};

use rustix::process::Signal;

use crate::ask::{at_terminal, no_terminal};
use crate::dying::{held, hold, only_the_app_runs, release};
use crate::sandbox::{Sandbox, free_port, get};

#[test]
fn one_ctrl_c_finishes_the_running_step() {
    let port = free_port();
    let sandbox = held(port);
    hold(&sandbox, "build");
    let applying = sandbox.norn("apply --yes -v").start();
    applying.until("reached build");
    applying.signal_group(Signal::INT);
    applying.until("stopping");
    release(&sandbox, "build");
    let ran = applying.end();
    assert_eq!(ran.code, Some(130), "{}", ran.all());
    ran.says("build: done").says("Cancelled: ").says("What is done stays done. Run `norn apply` again");
    assert!(!ran.err.contains("test: started"), "{}", ran.all());
    assert!(get(port, "/").is_err());
    only_the_app_runs(&sandbox, 0);
    sandbox.norn("plan").ok().prints("the last attempt was cancelled");
    sandbox.norn("apply --yes").ok();
    assert_eq!(get(port, "/").as_deref(), Ok("one"));
}

#[test]
fn a_second_signal_ends_the_running_step() {
    for signal in [Signal::INT, Signal::TERM, Signal::HUP] {
        let port = free_port();
        let sandbox = held(port);
        hold(&sandbox, "test");
        let applying = sandbox.norn("apply --yes -v --json").start();
        applying.until("reached test");
        applying.signal(signal);
        applying.until("stopping");
        applying.signal(signal);
        let ran = applying.end();
        assert_eq!(ran.code, Some(130), "{}", ran.all());
        ran.says("cancelling").prints(r#""result":"cancelled""#);
        only_the_app_runs(&sandbox, 0);
        release(&sandbox, "test");
        let plan = sandbox.norn("plan --json").ok().json();
        assert_eq!(plan["changes"], 1, "forge is done, the deploy is not: {plan:#}");
        sandbox.norn("apply --yes").ok();
        assert_eq!(get(port, "/").as_deref(), Ok("one"));
    }
}

#[test]
fn a_job_that_ci_ends_is_cancelled_in_time() {
    let port = free_port();
    let sandbox = held(port);
    sandbox.norn("apply --yes").ok();
    sandbox.write("greeting.txt", "two");
    hold(&sandbox, "build");
    let applying = sandbox.norn("apply --yes -v").env("CI", "true").start();
    applying.until("reached build");
    // A runner interrupts, then terminates, and kills 2.5 s later.
    applying.signal_group(Signal::INT);
    applying.until("stopping");
    let begun = Instant::now();
    applying.signal_group(Signal::TERM);
    let ran = applying.end();
    assert_eq!(ran.code, Some(130), "{}", ran.all());
    assert!(begun.elapsed() < Duration::from_millis(2500), "it took {:?}", begun.elapsed());
    only_the_app_runs(&sandbox, 1);
    assert_eq!(get(port, "/").as_deref(), Ok("one"), "the release before serves");
    release(&sandbox, "build");
    sandbox.norn("apply --yes").ok();
    assert_eq!(get(port, "/").as_deref(), Ok("two"));
}

#[test]
fn a_termination_alone_finishes_the_running_step() {
    let port = free_port();
    let sandbox = held(port);
    hold(&sandbox, "build");
    let applying = sandbox.norn("apply --yes -v").start();
    applying.until("reached build");
    applying.signal_group(Signal::TERM);
    applying.until("stopping");
    release(&sandbox, "build");
    let ran = applying.end();
    assert_eq!(ran.code, Some(130), "{}", ran.all());
    ran.says("build: done");
    only_the_app_runs(&sandbox, 0);
}

#[test]
fn what_does_not_want_to_end_is_gone_after_a_cancel() {
    let port = free_port();
    let sandbox = Sandbox::hello(port);
    let stubborn = "trap '' TERM INT HUP; sh -c 'trap \"\" TERM; sleep 300 & sleep 300; sleep 300' & \
                    setsid sleep 300 & echo reached build; while true; do sleep 1; done";
    let stubborn = stubborn.replace('\'', "''");
    sandbox.hello_with(port, &format!("build: {{command: '{stubborn}'}}\n"));
    let applying = sandbox.norn("apply --yes -v").start();
    applying.until("reached build");
    for word in ["stopping", "cancelling"] {
        applying.signal(Signal::TERM);
        applying.until(word);
    }
    let ran = applying.end();
    assert_eq!(ran.code, Some(130), "{}", ran.all());
    assert_eq!(sandbox.processes(), [], "nothing outlives norn");
}

#[test]
fn at_a_terminal_the_key_stops_norn_and_no_command_of_it() {
    if no_terminal() {
        return;
    }
    let port = free_port();
    let sandbox = held(port);
    hold(&sandbox, "build");
    let mut applying = at_terminal(&sandbox, "apply --yes -v").start();
    applying.until("reached build");
    applying.write("\x03");
    applying.until("stopping");
    release(&sandbox, "build");
    let ran = applying.end();
    assert_eq!(ran.code, Some(130), "{}", ran.all());
    ran.prints("build: done").prints("1 done, 0 failed, 1 not done");
    only_the_app_runs(&sandbox, 0);

    hold(&sandbox, "test");
    let mut applying = at_terminal(&sandbox, "apply --yes -v").start();
    applying.until("reached test");
    for word in ["stopping", "cancelling"] {
        applying.write("\x03");
        applying.until(word);
    }
    let ran = applying.end();
    assert_eq!(ran.code, Some(130), "{}", ran.all());
    only_the_app_runs(&sandbox, 0);
    release(&sandbox, "test");
    sandbox.norn("apply --yes").ok();
    assert_eq!(get(port, "/").as_deref(), Ok("one"));
}

/// Changes the state as something else might have left it.
fn change(sandbox: &Sandbox, statement: &str) {
    let db = rusqlite::Connection::open(sandbox.path(".norn/state.db")).expect("the state opens");
    db.busy_timeout(Duration::from_secs(5)).expect("it waits");
    let changed = db.execute(statement, []).expect("the statement is right");
    assert!(changed > 0, "{statement}");
}

#[test]
fn who_waits_for_the_lock_says_so_once_and_can_be_stopped() {
    let port = free_port();
    let sandbox = Sandbox::hello(port);
    sandbox.norn("apply --yes").ok();
    sandbox.write("greeting.txt", "two");
    let held = "update norn_locks set run = 'another', who = 'ana@box', machine_id = 'another', \
                expires_at = '2999-01-01T00:00:00.000000Z'";
    change(&sandbox, held);
    for signal in [Signal::INT, Signal::TERM] {
        let waiting = sandbox.norn("apply --yes --json --lock-wait 60s").start();
        waiting.until("waiting for the lock");
        let begun = Instant::now();
        waiting.signal(signal);
        let ran = waiting.end();
        assert_eq!(ran.code, Some(130), "{}", ran.all());
        assert!(begun.elapsed() < Duration::from_secs(3), "it took {:?}", begun.elapsed());
        ran.one_error()
            .says("at most 60 s: it is held by ana@box")
            .says("before anything of the plan was begun");
        assert_eq!(ran.err.lines().count(), 2, "{}", ran.all());
        let last = ran.out.lines().next_back().expect("an event");
        let last: serde_json::Value = serde_json::from_str(last).expect("JSON");
        assert_eq!(last["result"], "cancelled");
    }
    sandbox.norn("lock status").ok().prints("ana@box");

    let waiting = sandbox.norn("apply --yes --lock-wait 60s").start();
    waiting.until("waiting for the lock");
    change(&sandbox, "update norn_locks set run = null");
    let ran = waiting.end();
    assert_eq!(ran.code, Some(0), "{}", ran.all());
    assert_eq!(ran.err.matches("waiting for the lock").count(), 1, "{}", ran.all());
    ran.says("got the lock on the state after");
    assert_eq!(get(port, "/").as_deref(), Ok("two"));
}

#[test]
fn stopped_while_it_settles_what_a_dead_run_left_it_gives_the_lock_back() {
    let port = free_port();
    let sandbox = held(port);
    hold(&sandbox, "build");
    let applying = sandbox.norn("apply --yes -v").start();
    applying.until("reached build");
    applying.signal(Signal::KILL);
    applying.end();
    only_the_app_runs(&sandbox, 0);
    release(&sandbox, "build");
    // Its command was on another machine, so nobody can see that it has ended.
    change(
        &sandbox,
        "update norn_steps set detail = json_replace(detail, '$.child.group.machineId', 'another', \
         '$.child.guard.machineId', 'another') where ended_at is null",
    );
    for signal in [Signal::INT, Signal::HUP] {
        let settling = sandbox.norn("apply --yes").start();
        settling.until("until the commands of a dead run");
        let begun = Instant::now();
        settling.signal(signal);
        let ran = settling.end();
        assert_eq!(ran.code, Some(130), "{}", ran.all());
        assert!(begun.elapsed() < Duration::from_secs(3), "it took {:?}", begun.elapsed());
        ran.one_error().says("before anything of the plan was begun");
        sandbox.norn("lock status").ok().prints("is not locked");
    }
    change(
        &sandbox,
        "update norn_runs set heartbeat_at = '2020-01-01T00:00:00.000000Z' where ended_at is null",
    );
    sandbox.norn("apply --yes").ok().says("settled what 1 dead run left");
    assert_eq!(get(port, "/").as_deref(), Ok("one"));
}
