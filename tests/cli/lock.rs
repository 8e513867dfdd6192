//! The lock on the state: who holds it, who waits, who takes it over, who breaks it.

use std::fs;
use std::thread;
use std::time::{Duration, Instant};

use rustix::process::Signal;

use crate::run::{Ran, Running};
use crate::sandbox::{Sandbox, free_port, get};
use crate::snapshot;

/// An app whose build waits while the file `hold` is there, and fails if two of them run at once.
fn sandbox(port: u16) -> Sandbox {
    let sandbox = Sandbox::hello(port);
    let (alone, hold) = (sandbox.folder().join("alone"), sandbox.folder().join("hold"));
    let (alone, hold) = (alone.display(), hold.display());
    sandbox.hello_with(
        port,
        &format!(
            "build:\n  command: |\n    set -C; echo $$ > {alone} || exit 9; set +C\n    echo building; while test -e {hold}; do sleep 0.02; done\n    sleep 0.05; rm {alone}\n"
        ),
    );
    sandbox
}

/// An apply that holds the lock until the file `hold` is gone.
fn holding(sandbox: &Sandbox) -> Running {
    sandbox.write("../hold", "");
    let applying = sandbox.norn("apply --yes -v --redeploy hello").start();
    applying.until("building");
    applying
}

fn let_go(sandbox: &Sandbox) {
    fs::remove_file(sandbox.path("../hold")).expect("it is held");
}

/// Changes the row of the lock, as another machine might have written it.
fn row(sandbox: &Sandbox, set: &str) {
    let db = rusqlite::Connection::open(sandbox.path(".norn/state.db")).expect("the state opens");
    db.busy_timeout(Duration::from_secs(5)).expect("it waits");
    db.execute(&format!("update norn_locks set {set}"), []).expect("there is a row");
}

/// A story without what differs from run to run.
fn told(story: &str, pid: i32) -> String {
    let mut kept = String::new();
    for line in story.replace(&pid.to_string(), "<pid>").lines() {
        let words = line.split(' ').map(|word| {
            let plain = word.trim_matches(['(', ',', ')', ':']);
            let seconds = plain.strip_suffix('s').unwrap_or(plain);
            match seconds.len() {
                10 if seconds.bytes().all(|byte| byte.is_ascii_digit()) => word.replace(seconds, "<token>"),
                1..4 if seconds != plain && seconds.bytes().all(|byte| byte.is_ascii_digit()) => {
                    word.replace(plain, "<age>")
                }
                _ if word.contains('@') => "<user@host>".to_owned(),
                _ => word.to_owned(),
            }
        });
        let line = words.collect::<Vec<_>>().join(" ");
        let number = line.split_once("Seconds\": ").map(|(name, _)| format!("{name}Seconds\": <number>"));
        kept += &number.unwrap_or(line);
        kept.push('\n');
    }
    kept
}

#[test]
fn who_holds_the_lock_is_told_and_it_can_be_broken() {
    let port = free_port();
    let sandbox = sandbox(port);
    let mut story = String::new();
    let mut tell = |line: &str, code: i32| {
        let ran = sandbox.norn(line).exits(code);
        story += &format!("=== norn {line}\n{}", ran.redacted());
        ran
    };
    tell("lock status", 0);
    tell("lock break --yes", 0);
    assert!(!sandbox.path(".norn").exists(), "looking writes nothing");
    sandbox.norn("apply --yes").ok();
    tell("lock status", 0);
    tell("lock status --json", 0);
    let first = holding(&sandbox);
    let pid = first.pid().as_raw_nonzero().get();
    tell("lock status", 0);
    let status = tell("lock status --json", 0).json();
    assert_eq!(status["holder"]["process"], "alive");
    tell("restart hello --yes", 4);
    tell("lock break", 1);
    tell("lock break --yes --token 7", 1);
    tell("lock break --yes", 0);
    tell("lock status", 0);
    let_go(&sandbox);
    let broken = first.end();
    assert_eq!(broken.code, Some(1), "{}", broken.all());
    broken.says("the lock on the state was lost: it was given back, or broken");
    assert_eq!(get(port, "/").as_deref(), Ok("one"));
    sandbox.norn("status").ok().prints("left by a dead run");
    sandbox.norn("apply --yes").ok();
    assert!(!sandbox.norn("status").ok().out.contains("dead run"));
    sandbox.norn("plan --detailed-exitcode").exits(0);
    snapshot::check("lock", &told(&story, pid));
}

#[test]
fn a_lock_that_changed_hands_meanwhile_is_not_broken() {
    if std::process::Command::new("script").arg("--version").output().is_err() {
        return crate::support::skipped(
            "breaking a lock at a terminal",
            "there is no `script` of util-linux",
        );
    }
    let sandbox = sandbox(free_port());
    sandbox.norn("apply --yes").ok();
    let first = holding(&sandbox);
    let command = format!("{} lock break", env!("CARGO_BIN_EXE_norn"));
    let ask = || {
        let asked =
            sandbox.program("script").arg("-qefc").arg(&command).arg("/dev/null").env("TERM", "xterm");
        let asked = asked.start();
        asked.until("Type greeter to break the lock: ");
        asked
    };
    let mut no = ask();
    no.write("y\n");
    let no = no.end();
    assert_eq!(no.code, Some(130), "{}", no.all());
    no.prints("nothing was broken: you typed `y`, not `greeter`");

    let mut late = ask();
    let_go(&sandbox);
    assert_eq!(first.end().code, Some(0));
    let second = holding(&sandbox);
    late.write("greeter\n");
    let late = late.end();
    assert_eq!(late.code, Some(1), "{}", late.all());
    late.prints("taken by another meanwhile, so nothing was broken");
    let_go(&sandbox);
    assert_eq!(second.end().code, Some(0));
}

#[test]
fn a_holder_that_died_is_replaced_at_once() {
    let port = free_port();
    let sandbox = sandbox(port);
    sandbox.norn("apply --yes").ok();
    let first = holding(&sandbox);
    first.signal(Signal::KILL);
    first.end();
    let status = sandbox.norn("lock status").ok();
    status
        .prints("gone from this machine")
        .prints("the next norn takes it at once")
        .prints("deploy deploy/hello: build");
    let_go(&sandbox);
    // The build dies with norn, and leaves its mark.
    fs::remove_file(sandbox.path("../alone")).expect("a build ran");
    sandbox.norn("apply --yes --redeploy hello").ok().says("settled what 1 dead run left");
    sandbox.norn("lock status").ok().prints("is not locked");
}

#[test]
fn a_holder_on_another_machine_blocks_until_its_lease_runs_out() {
    let sandbox = sandbox(free_port());
    sandbox.norn("apply --yes").ok();
    let first = holding(&sandbox);
    first.signal(Signal::KILL);
    first.end();
    let_go(&sandbox);
    fs::remove_file(sandbox.path("../alone")).expect("a build ran");
    let soon = "strftime('%Y-%m-%dT%H:%M:%f000Z', 'now', '+8 seconds')";
    let begun = Instant::now();
    row(&sandbox, &format!("machine_id = 'elsewhere', expires_at = {soon}"));
    sandbox.norn("lock status").ok().prints("not seen from here");
    sandbox.norn("restart hello --yes").exits(4).one_error().says("is locked by");
    sandbox.norn("restart hello --yes --lock-wait 60s").ok();
    assert!(begun.elapsed() >= Duration::from_secs(8), "it did not wait: {:?}", begun.elapsed());

    row(&sandbox, "run = 'r', machine_id = 'elsewhere', expires_at = '2026-01-01T00:00:00.000000Z'");
    sandbox.norn("lock status").ok().prints("runs out").prints("the next norn takes it at once");
    sandbox.norn("restart hello --yes").ok();
}

/// The tokens of all runs, in the order they were written.
fn tokens(sandbox: &Sandbox) -> Vec<u64> {
    let text = sandbox.norn("state export").ok().json();
    let runs = text["tables"]["norn_runs"].as_array().expect("a list").clone();
    runs.iter().map(|run| run["token"].as_u64().expect("a number")).collect()
}

fn eight(sandbox: &Sandbox, line: &str) -> Vec<Ran> {
    let started: Vec<Running> = (0..8).map(|_| sandbox.norn(line).start()).collect();
    started.into_iter().map(Running::end).collect()
}

#[test]
fn eight_that_wait_take_turns() {
    let port = free_port();
    let sandbox = sandbox(port);
    sandbox.norn("apply --yes").ok();
    for ran in eight(&sandbox, "restart hello --yes --lock-wait 60s") {
        assert_eq!(ran.code, Some(0), "{}", ran.all());
    }
    // What each planned before it had the lock, another has done meanwhile.
    let ended: Vec<Ran> = eight(&sandbox, "apply --yes --redeploy hello --lock-wait 60s");
    let mut applied = 0;
    for ran in &ended {
        match ran.code {
            Some(0) => applied += 1,
            Some(5) => drop(ran.one_error().says("since the plan was shown")),
            _ => panic!("{}", ran.all()),
        }
        assert!(!ran.err.contains("exit code 9"), "two builds at once: {}", ran.all());
    }
    assert!(applied > 0);
    assert!(!sandbox.path("../alone").exists());
    let tokens = tokens(&sandbox);
    assert!(tokens.is_sorted_by(|a, b| a < b), "{tokens:?}");
    assert_eq!(tokens.len(), 1 + 8 + applied);
    assert_eq!(get(port, "/").as_deref(), Ok("one"));
    sandbox.norn("lock status").ok().prints("is not locked");
}

#[test]
fn of_eight_that_do_not_wait_one_works() {
    let sandbox = sandbox(free_port());
    sandbox.write("../hold", "");
    let mut started: Vec<Running> =
        (0..8).map(|_| sandbox.norn("apply --yes -v --lock-wait 0").start()).collect();
    let end = Instant::now() + Duration::from_secs(60);
    while started.iter_mut().filter_map(|running| running.ended().then_some(())).count() < 7 {
        assert!(Instant::now() < end, "more than one goes on");
        thread::sleep(Duration::from_millis(20));
    }
    let_go(&sandbox);
    let mut codes: Vec<_> = started.into_iter().map(|running| running.end().code).collect();
    codes.sort_unstable();
    assert_eq!(codes, [0, 4, 4, 4, 4, 4, 4, 4].map(Some));
}

#[test]
fn a_plan_that_expires_while_it_waits_for_the_lock_is_not_applied() {
    let port = free_port();
    let sandbox = sandbox(port);
    sandbox.norn("apply --yes").ok();
    sandbox.write("greeting.txt", "two");
    sandbox.norn("plan --out ../plan.norn --valid-for 2s").ok();
    sandbox.write("../hold", "");
    let applying = sandbox.norn("restart hello --yes").start();
    drop(applying.end());
    row(&sandbox, "run = 'another', machine_id = 'another', expires_at = '2999-01-01T00:00:00.000000Z'");
    let waiting = sandbox.norn("apply ../plan.norn --lock-wait 60s").start();
    thread::sleep(Duration::from_millis(2500));
    row(&sandbox, "run = null");
    let ended = waiting.end();
    assert_eq!(ended.code, Some(5), "{}", ended.all());
    ended.says("the plan expired at");
    assert_eq!(get(port, "/").as_deref(), Ok("one"));
}

#[test]
fn a_lock_that_was_waited_for_longer_than_a_lease_lasts_is_a_whole_one() {
    let port = free_port();
    let sandbox = sandbox(port);
    sandbox.norn("apply --yes").ok();
    row(&sandbox, "run = 'another', machine_id = 'another', expires_at = '2999-01-01T00:00:00.000000Z'");
    let waiting = sandbox.norn("restart hello --yes --lock-wait 5m").start();
    thread::sleep(Duration::from_secs(62));
    row(&sandbox, "run = null");
    let ended = waiting.end();
    assert_eq!(ended.code, Some(0), "{}", ended.all());
}

#[test]
fn what_a_holder_says_of_itself_steers_no_terminal() {
    let sandbox = sandbox(free_port());
    sandbox.norn("apply --yes").ok();
    row(
        &sandbox,
        "run = 'r', machine_id = 'another', job_url = 'http://x' || char(27) || '[31m' || char(10), \
         expires_at = '2999-01-01T00:00:00.000000Z'",
    );
    for (line, code) in [("lock status", 0), ("restart hello --yes", 4)] {
        let ran = sandbox.norn(line).exits(code);
        assert!(!ran.all().contains('\u{1b}'), "{}", ran.all());
        assert!(ran.all().contains("http://x\u{FFFD}[31m\u{FFFD}"), "{}", ran.all());
    }
}

#[test]
fn a_state_that_another_brings_to_this_version_is_waited_for() {
    let sandbox = sandbox(free_port());
    sandbox.norn("apply --yes").ok();
    let schema = |number: u32| {
        let db = rusqlite::Connection::open(sandbox.path(".norn/state.db")).expect("the state opens");
        let set = "update norn_meta set value = ?1 where key = 'schema'";
        db.execute(set, [number.to_string()]).expect("it has a version");
    };
    let held = "run = 'another', machine_id = 'another', expires_at = '2999-01-01T00:00:00.000000Z'";
    // Nobody is at work on it: the user has to be.
    schema(3);
    sandbox.norn("plan").exits(1).one_error().says("norn state upgrade");
    row(&sandbox, held);
    let waiting = ["plan", "status", "apply --yes"].map(|line| sandbox.norn(line).start());
    thread::sleep(Duration::from_secs(1));
    schema(4);
    row(&sandbox, "run = null");
    for waiting in waiting {
        let ended = waiting.end();
        assert_eq!(ended.code, Some(0), "{}", ended.all());
    }
    schema(3);
    row(&sandbox, held);
    sandbox.norn("plan").exits(4).one_error().says("is locked by").says("norn lock status");
}
