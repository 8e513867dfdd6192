//! norn killed at any moment: the next apply leaves no orphan, no duplicate, no lost step.

use std::io::Write;
use std::net::TcpStream;
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};

use crate::supervise::world::{free_port, kill};
use crate::support::{Sandbox, get, until};

const DEAD: &str = "norn restarted during deployment";

/// After a kill the next apply makes it as if nothing had happened.
fn recovers(sandbox: &Sandbox, port: u16, version: &str, moment: &str) {
    let plan = sandbox.run("plan");
    let applied = sandbox.run("apply --yes");
    assert_eq!(applied.code, 0, "{moment}: {}{}\n{}", applied.out, applied.err, plan.out);
    assert!(get(port, "/").expect(moment).starts_with(version), "{moment}");
    let again = sandbox.run("plan --detailed-exitcode");
    assert_eq!(again.code, 0, "{moment}: the plan is not empty: {}{}", again.out, again.err);
    until("the old replicas have ended", || sandbox.processes().len() == 3);
    assert_eq!(sandbox.processes_of("server.py").len(), 2, "{moment}");
    assert_eq!(sandbox.names(".norn/releases/web", "."), Vec::<String>::new(), "{moment}");
    for row in sandbox.rows() {
        let settled = ["deployed", "failed", "rolled_back"].contains(&row.status.as_str());
        assert!(settled, "{moment}: {row:?}");
        assert!(row.status != "failed" || row.error == DEAD, "{moment}: {row:?}");
    }
    assert_eq!(sandbox.rows().last().expect("a row").status, "deployed", "{moment}");
    assert_eq!(sandbox.open_in_journal(), 0, "{moment}: everything in the journal has ended");
}

#[test]
fn killed_at_any_time_the_next_apply_makes_it_right() {
    let port = free_port();
    let build = "build: {command: 'sleep 0.3; echo built > built', test: 'sleep 0.2; test -f built'}\n";
    let sandbox = Sandbox::webserver(port, build);
    for (round, wait) in (0..12).map(|round| (round, 60 + 130 * round)) {
        let version = format!("v{round}");
        sandbox.write("web/version", &version);
        let spec = crate::support::web("web", port, &format!("{build}env: {{VERSION: {version}}}"));
        sandbox.spec(&spec);
        let mut norn = sandbox.spawn("apply --yes");
        std::thread::sleep(Duration::from_millis(wait));
        norn.kill().expect("it is ours");
        norn.wait().expect("it is ours");
        recovers(&sandbox, port, &version, &format!("killed after {wait} ms"));
    }
}

#[test]
fn killed_by_its_own_commands_it_leaves_none_of_them() {
    let port = free_port();
    // The shell's parent is the guard, and the guard's is norn.
    let suicide = "if [ ! -e FLAG ]; then touch FLAG; sleep 300 & kill -9 $(cut -d' ' -f4 /proc/$PPID/stat); sleep 300; fi";
    let sandbox = Sandbox::webserver(port, "");
    for (step, version) in [("build", "one"), ("test", "two"), ("migrate", "three")] {
        let flag = sandbox.path(&format!("{step}-flag")).display().to_string();
        let command = suicide.replace("FLAG", &flag).replace('\'', "''");
        let more = match step {
            "build" => format!("build: {{command: '{command}'}}\n"),
            "test" => format!("build: {{test: '{command}'}}\n"),
            _ => format!("migrations: {{command: '{command}', database: shop}}\n"),
        };
        sandbox.write("web/version", version);
        sandbox.spec(&crate::support::web("web", port, &format!("{more}env: {{VERSION: {version}}}")));
        assert_eq!(sandbox.run("apply --yes").code, -1, "norn was killed in its {step} step");
        let history: Vec<String> = sandbox.rows().iter().map(|row| row.status.clone()).collect();
        recovers(&sandbox, port, version, step);
        assert_eq!(sandbox.processes_of("sleep 300"), Vec::<u32>::new(), "{step}: {history:?}");
        let rows = sandbox.rows();
        let dead = &rows[rows.len() - 2];
        assert_eq!(dead.short(), ("failed", DEAD), "{step}");
        if step == "migrate" {
            let again = rows.last().expect("a row").output("clone");
            assert!(again.contains("interrupted attempt"), "the finished release is taken up: {again}");
        }
    }
}

#[test]
fn a_release_that_went_live_while_norn_died_is_recorded_and_not_made_again() {
    let port = free_port();
    let sandbox = Sandbox::webserver(port, "env: {VERSION: one}");
    sandbox.ok("apply --yes");
    // A request that holds up the drain, so that the order is not complete.
    let mut slow = TcpStream::connect(("127.0.0.1", port)).expect("the front listens");
    slow.write_all(b"GET /slow HTTP/1.1\r\nHost: localhost\r\n\r\n").expect("sent");
    sandbox.write("web/version", "two");
    sandbox.spec(&crate::support::web("web", port, "env: {VERSION: two}"));
    let mut norn = sandbox.spawn("apply --yes");
    until("traffic has moved", || get(port, "/").is_ok_and(|answer| answer.starts_with("two")));
    norn.kill().expect("it is ours");
    norn.wait().expect("it is ours");
    assert_eq!(sandbox.rows().last().expect("a row").status, "deploying");
    let replicas = sandbox.processes_of("server.py");
    let plan = sandbox.ok("plan").out;
    assert!(plan.contains("deploy/web"), "{plan}");
    sandbox.ok("apply --yes");
    let rows = sandbox.rows();
    let [_, dead, recorded] = rows.as_slice() else { panic!("{rows:?}") };
    assert_eq!(dead.short(), ("failed", DEAD));
    assert_eq!(recorded.short(), ("deployed", ""));
    assert_eq!(recorded.tag, dead.tag);
    assert!(recorded.steps().iter().all(|step| step.ends_with("skipped")), "{:?}", recorded.steps());
    sandbox.plan_is_empty();
    drop(slow);
    until("the old replicas have ended", || sandbox.processes_of("server.py").len() == 2);
    assert!(
        sandbox.processes_of("server.py").iter().all(|pid| replicas.contains(pid)),
        "nothing was started"
    );
    assert_eq!(sandbox.names(".norn/releases/web", "."), Vec::<String>::new());
}

#[test]
fn what_a_dead_norn_ordered_is_finished_before_the_next_order() {
    let port = free_port();
    let sandbox = Sandbox::webserver(port, "env: {VERSION: one}");
    sandbox.ok("apply --yes");
    let mut slow = TcpStream::connect(("127.0.0.1", port)).expect("the front listens");
    slow.write_all(b"GET /slow HTTP/1.1\r\nHost: localhost\r\n\r\n").expect("sent");
    sandbox.spec(&crate::support::web("web", port, "env: {VERSION: two}"));
    let mut norn = sandbox.spawn("apply --yes");
    until("traffic has moved", || get(port, "/").is_ok_and(|answer| answer.starts_with("two")));
    norn.kill().expect("it is ours");
    norn.wait().expect("it is ours");
    sandbox.spec(&crate::support::web("web", port, "env: {VERSION: three}"));
    sandbox.ok("apply --yes");
    assert!(get(port, "/").expect("it serves").starts_with("three"));
    assert_eq!(sandbox.processes().len(), 3);
    sandbox.plan_is_empty();
}

#[test]
fn a_second_interrupt_after_traffic_moved_records_what_serves() {
    let port = free_port();
    let sandbox = Sandbox::webserver(port, "env: {VERSION: one}");
    sandbox.ok("apply --yes");
    let mut slow = TcpStream::connect(("127.0.0.1", port)).expect("the front listens");
    slow.write_all(b"GET /slow HTTP/1.1\r\nHost: localhost\r\n\r\n").expect("sent");
    sandbox.write("web/version", "two");
    sandbox.spec(&crate::support::web("web", port, "env: {VERSION: two}"));
    let mut norn = sandbox.spawn("apply --yes");
    until("traffic has moved", || get(port, "/").is_ok_and(|answer| answer.starts_with("two")));
    for _ in 0..2 {
        interrupt(norn.id(), Signal::INT);
        std::thread::sleep(Duration::from_millis(100));
    }
    assert_eq!(norn.wait().expect("it is ours").code(), Some(0), "all that was planned is done");
    drop(slow);
    assert_eq!(sandbox.rows().last().expect("a row").short(), ("deployed", ""));
    sandbox.plan_is_empty();
    assert_eq!(sandbox.processes().len(), 3);
}

#[test]
fn a_roll_whose_end_nobody_tells_is_left_to_the_next_run() {
    let port = free_port();
    let sandbox = Sandbox::webserver(port, "env: {VERSION: one}");
    sandbox.ok("apply --yes");
    sandbox.write("web/version", "two");
    let spec = crate::support::web("web", port, "env: {VERSION: two}");
    sandbox.spec(&spec.replace("{drain: 8s}", "{drain: 2s, timeout: 8s}"));
    let mut slow = TcpStream::connect(("127.0.0.1", port)).expect("the front listens");
    slow.write_all(b"GET /slow HTTP/1.1\r\nHost: localhost\r\n\r\n").expect("sent");
    let mut norn = sandbox.spawn("apply --yes");
    until("traffic has moved", || get(port, "/").is_ok_and(|answer| answer.starts_with("two")));
    let [supervisor] = sandbox.processes_of(" supervise --app web ")[..] else { panic!("one supervises") };
    interrupt(supervisor, Signal::STOP);
    for _ in 0..2 {
        interrupt(norn.id(), Signal::INT);
        std::thread::sleep(Duration::from_millis(200));
    }
    assert_eq!(norn.wait().expect("it is ours").code(), Some(130));
    assert_eq!(sandbox.rows().last().expect("a row").short(), ("deploying", ""), "nobody knows its end");
    interrupt(supervisor, Signal::CONT);
    drop(slow);
    let plan = sandbox.ok("plan").out;
    assert!(plan.contains("it serves already"), "{plan}");
    sandbox.ok("apply --yes");
    let rows = sandbox.rows();
    let [_, dead, recorded] = rows.as_slice() else { panic!("{rows:?}") };
    assert_eq!((dead.short(), recorded.short()), (("failed", DEAD), ("deployed", "")));
    assert!(recorded.steps().iter().all(|step| step.ends_with("skipped")), "{:?}", recorded.steps());
    assert_eq!(sandbox.open_in_journal(), 0);
    sandbox.plan_is_empty();
}

#[test]
fn what_an_attempt_left_is_removed_though_its_app_is_not_deployed_again() {
    const RELEASES: &str = ".norn/releases/web";
    let port = free_port();
    let sandbox = Sandbox::webserver(port, "env: {VERSION: one}");
    sandbox.ok("apply --yes");
    let live = sandbox.names(RELEASES, "");
    sandbox.write("web/version", "two");
    let build = "env: {VERSION: one}\nbuild: {command: 'touch ../../../../building; sleep 30'}\n";
    sandbox.spec(&crate::support::web("web", port, build));
    let mut norn = sandbox.spawn("apply --yes");
    until("the build runs", || sandbox.path("building").exists());
    norn.kill().expect("it is ours");
    norn.wait().expect("it is ours");
    assert_eq!(sandbox.names(RELEASES, ".building-").len(), 1);
    // The spec takes back what was begun.
    std::fs::remove_file(sandbox.path("web/version")).expect("it is there");
    sandbox.spec(&crate::support::web("web", port, "env: {VERSION: one}"));
    sandbox.plan_is_empty();
    let swept = sandbox.ok("apply --yes");
    assert!(swept.err.contains("removed what attempts to deploy web left"), "{}", swept.err);
    assert_eq!(sandbox.names(RELEASES, ""), live);

    // A run that died after it had settled that, and an app that nobody knows. What serves is no attempt.
    sandbox.write(&format!("{RELEASES}/.building-x/file"), "");
    sandbox.write(&format!("{RELEASES}/x/file"), "");
    for name in ["x", &live[0]] {
        sandbox.write(&format!("{RELEASES}/.made-{name}"), "of this");
    }
    sandbox.write(".norn/releases/gone/.building-x/file", "");
    sandbox.ok("apply --yes");
    assert_eq!(sandbox.names(RELEASES, ""), live);
    assert_eq!(sandbox.names(".norn/releases", ""), ["web"]);
    assert!(get(port, "/").expect("it serves").starts_with("one"));
    assert!(!sandbox.ok("apply --yes").err.contains("removed"));
}

#[test]
fn interrupts_leave_the_old_release_serving_and_go_on_later() {
    let port = free_port();
    let sandbox = Sandbox::webserver(port, "env: {VERSION: one}");
    sandbox.ok("apply --yes");
    // Never healthy, until the file is there.
    sandbox.write("web/version", "two");
    let more = "env: {VERSION: two}\nbuild: {command: 'echo built >> ../../../../builds'}\n";
    let healthy = sandbox.path("healthy").display().to_string();
    let spec = crate::support::web("web", port, more);
    let at = spec.find("healthcheck:").expect("a health check");
    let end = at + spec[at..].find('\n').expect("a line");
    let spec = format!("{}healthcheck: {{command: 'test -e {healthy}'}}{}", &spec[..at], &spec[end..]);
    sandbox.spec(&spec);
    let mut norn = sandbox.spawn("apply --yes");
    until("the new replicas are tried", || sandbox.processes_of("server.py").len() == 4);
    for _ in 0..2 {
        interrupt(norn.id(), Signal::INT);
        std::thread::sleep(Duration::from_millis(200));
    }
    assert_eq!(norn.wait().expect("it is ours").code(), Some(130));
    assert!(get(port, "/").expect("the old release serves").starts_with("one"));
    let row = sandbox.rows().pop().expect("a row");
    assert_eq!(row.short(), ("failed", "cancelled before the new release was live"));
    assert_eq!(sandbox.processes_of("server.py").len(), 2);
    sandbox.write("healthy", "");
    sandbox.ok("apply --yes");
    // Its health command says nothing of whether it listens yet.
    until("the new release serves", || get(port, "/").is_ok_and(|answer| answer.starts_with("two")));
    assert_eq!(sandbox.read("builds"), "built\n", "the release that was whole is taken up");
    sandbox.plan_is_empty();
}

#[test]
fn a_run_that_lost_the_lock_changes_nothing_more() {
    let port = free_port();
    let sandbox = Sandbox::webserver(port, "env: {VERSION: one}");
    sandbox.ok("apply --yes");
    sandbox.write("web/version", "two");
    let more = "env: {VERSION: two}\nbuild: {command: 'touch ../../../../building; sleep 1.5'}\n";
    sandbox.spec(&crate::support::web("web", port, more));
    let norn = sandbox
        .command("apply --yes")
        .stdout(std::process::Stdio::piped())
        .stderr(std::process::Stdio::piped())
        .spawn();
    let norn = norn.expect("norn starts");
    until("the build runs", || sandbox.path("building").exists());
    // As `norn lock break` does from another machine.
    let broken = sandbox.state().execute("UPDATE norn_locks SET run = 'another', token = token + 1", []);
    assert_eq!(broken.expect("the lock is broken"), 1);
    let output = norn.wait_with_output().expect("it is ours");
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(3), "{said}");
    assert!(said.contains("the lock on the state was lost"), "{said}");
    assert!(get(port, "/").expect("the old release serves").starts_with("one"));
    assert_eq!(
        sandbox.rows().last().expect("a row").status,
        "building",
        "it is not the dead run's to settle"
    );
}

#[test]
fn a_run_that_stood_still_past_its_lease_changes_nothing_more() {
    let port = free_port();
    let sandbox = Sandbox::webserver(port, "env: {VERSION: one}");
    sandbox.ok("apply --yes");
    sandbox.write("web/version", "two");
    let more = "env: {VERSION: two}\nbuild: {command: 'touch ../../../../building; sleep 3'}\n";
    sandbox.spec(&crate::support::web("web", port, more));
    let mut norn = sandbox.spawn("apply --yes");
    until("the build runs", || sandbox.path("building").exists());
    interrupt(norn.id(), Signal::STOP);
    std::thread::sleep(Duration::from_secs(62));
    // Its process lives, yet its lease has run out: another run may have it.
    let other = sandbox.run("apply --yes");
    interrupt(norn.id(), Signal::CONT);
    let code = norn.wait().expect("it is ours").code();
    assert_eq!(other.code, 0, "{}{}", other.out, other.err);
    assert!(code.is_some_and(|code| code != 0), "{code:?}");
    assert!(get(port, "/").expect("it serves").starts_with("two"));
    let rows = sandbox.rows();
    let words: Vec<_> = rows.iter().map(|row| row.status.as_str()).collect();
    assert_eq!(words, ["deployed", "failed", "deployed"]);
    sandbox.plan_is_empty();
    assert_eq!(sandbox.processes().len(), 3);
}

#[test]
fn a_supervisor_that_was_killed_shows_as_drift_and_is_replaced() {
    let port = free_port();
    let sandbox = Sandbox::webserver(port, "env: {VERSION: one}");
    sandbox.ok("apply --yes");
    let supervisor = sandbox.processes_of(" supervise ");
    supervisor.iter().copied().for_each(kill);
    until("it is gone", || sandbox.processes_of(" supervise ").is_empty());
    let plan = sandbox.fails("plan --detailed-exitcode", 2).out;
    assert!(plan.contains("its supervisor is gone"), "{plan}");
    sandbox.ok("apply --yes");
    assert!(get(port, "/").expect("it serves").starts_with("one"));
    assert_eq!(sandbox.processes().len(), 3, "the processes it left were ended");
    sandbox.plan_is_empty();
    // A teardown ends what a dead supervisor left as well.
    sandbox.processes_of(" supervise ").into_iter().for_each(kill);
    sandbox.ok("destroy --yes --confirm shop");
    assert_eq!(sandbox.processes(), Vec::<u32>::new());
    assert_eq!(sandbox.names(".norn/releases", ""), Vec::<String>::new());
    assert_eq!(sandbox.names(".norn/logs", ""), ["web"], "logs are kept");
}

#[test]
fn after_the_machine_was_started_anew_the_next_apply_starts_it() {
    let port = free_port();
    let sandbox = Sandbox::webserver(port, "env: {VERSION: one}");
    sandbox.ok("apply --yes");
    sandbox.processes().into_iter().for_each(kill);
    until("all is gone", || sandbox.processes().is_empty());
    let record = sandbox.read(".norn/run/web.json");
    let boot = std::fs::read_to_string("/proc/sys/kernel/random/boot_id").expect("a boot id");
    let before = record.replace(boot.trim(), "11111111-2222-3333-4444-555555555555");
    assert_ne!(before, record);
    sandbox.write(".norn/run/web.json", &before);
    let plan = sandbox.fails("plan --detailed-exitcode", 2).out;
    assert!(plan.contains("the machine was started anew"), "{plan}");
    sandbox.ok("apply --yes");
    assert!(get(port, "/").expect("it serves").starts_with("one"));
    sandbox.plan_is_empty();
}

fn interrupt(pid: u32, signal: Signal) {
    let pid = Pid::from_raw(i32::try_from(pid).expect("a pid")).expect("a pid");
    kill_process(pid, signal).expect("it runs");
}
