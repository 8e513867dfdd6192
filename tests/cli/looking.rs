//! `norn status`, `history`, `logs` and `restart`.

use std::time::Duration;

use crate::sandbox::{Sandbox, free_port, get};
use crate::snapshot;

#[test]
fn what_runs_and_what_was_deployed_is_told() {
    let port = free_port();
    let sandbox = Sandbox::hello(port);
    let mut story = String::new();
    let mut tell = |line: &str, code: i32| {
        let ran = sandbox.norn(line).exits(code);
        story += &format!("=== norn {line}\n{}", ran.redacted());
        ran
    };
    tell("status", 0);
    tell("history", 0);
    tell("logs hello", 1);
    assert!(!sandbox.path(".norn").exists(), "looking writes nothing");
    sandbox.norn("apply --yes").ok();
    sandbox.hello_with(port, "build: {command: \"echo builds; exit 3\", test: \"echo tests\"}\n");
    sandbox.norn("apply --yes").exits(1);
    tell("status", 0);
    tell("history", 0);
    tell("logs hello -n 1", 0);
    tell("logs hello --step build", 0);
    tell("logs hello --step clone", 0);
    tell("logs hello --step test", 1);
    tell("logs hello --step biuld", 1);
    tell("logs helo", 1);
    tell("status helo", 1);
    tell("history helo", 1);
    let status = tell("status hello --json", 0).json();
    assert_eq!(status["apps"][0]["health"], "healthy");
    let history = tell("history -n 1 --json", 0).json();
    assert_eq!(history["deployments"][0]["status"], "failed");
    let ages = |text: String| text.replace(&port.to_string(), "<port>");
    let story = ages(story);
    let varies = ["\"ageSeconds\": ", "\"durationMs\": "];
    let mut kept = String::new();
    for line in story.lines() {
        let name =
            varies.iter().find_map(|name| Some(line.split_once(name)?.0.to_owned() + name + "<number>"));
        kept += &name.unwrap_or_else(|| redact_age(line));
        kept.push('\n');
    }
    snapshot::check("looking", &kept);
}

/// The last column of a status.
fn redact_age(line: &str) -> String {
    match line.rsplit_once(' ') {
        Some((rest, age)) if age.ends_with('s') && age.len() < 4 && line.starts_with("hello ") => {
            format!("{rest} <age>")
        }
        _ => line.to_owned(),
    }
}

#[test]
fn a_log_is_followed_until_the_reader_stops() {
    let port = free_port();
    let sandbox = Sandbox::hello(port);
    sandbox.norn("apply --yes").ok();
    let following = sandbox.norn("logs hello -F").start();
    following.until("starts: one");
    sandbox.write("greeting.txt", "two");
    sandbox.norn("apply --yes").ok();
    following.until("starts: two");
    following.signal(rustix::process::Signal::INT);
    let ran = following.end();
    assert_eq!(ran.code, None, "the signal itself ends it: {}", ran.all());

    // A reader that goes away ends it as soon as there is a word for it.
    let script = format!("{} logs hello -F | head -1", env!("CARGO_BIN_EXE_norn"));
    let begun = std::time::Instant::now();
    let piped = sandbox.program("sh").arg("-c").arg(script).start();
    piped.until("starts: ");
    sandbox.norn("restart hello --yes").ok();
    piped.end();
    assert!(begun.elapsed() < Duration::from_secs(30));
}

#[test]
fn a_restart_puts_the_same_release_live_again() {
    let port = free_port();
    let sandbox = Sandbox::hello(port);
    sandbox.norn("restart hello --yes").exits(1).one_error().says("`hello`");
    sandbox.norn("apply --yes").ok();
    sandbox.write("greeting.txt", "two");
    let before = sandbox.sh("cat .norn/run/hello.json");
    sandbox.norn("restart hello --yes").ok();
    assert_ne!(before, sandbox.sh("cat .norn/run/hello.json"));
    assert_eq!(get(port, "/").as_deref(), Ok("one"), "what changed since is not deployed");
    sandbox.norn("restart helo --yes").exits(1).one_error().says("helo").says("hello");
}

#[test]
fn an_app_that_was_killed_is_drift_and_is_repaired() {
    let port = free_port();
    let sandbox = Sandbox::hello(port);
    sandbox.norn("apply --yes").ok();
    for (pid, _) in sandbox.processes() {
        let pid = rustix::process::Pid::from_raw(pid).expect("a pid");
        let _gone = rustix::process::kill_process(pid, rustix::process::Signal::KILL);
    }
    sandbox.norn("status").ok().prints("down").prints("norn apply");
    sandbox.norn("plan --detailed-exitcode").exits(2).prints("drift");
    sandbox.norn("apply --yes").ok();
    assert_eq!(get(port, "/").as_deref(), Ok("one"));
    sandbox.norn("plan").ok().prints("No changes");
}
