//! A saved plan that fails, dies or is interrupted is applied again until it is finished.

use std::time::Duration;

use crate::load::Load;
use crate::supervise::world::free_port;
use crate::support::{Sandbox, get, until, web};

const DEAD: &str = "norn restarted during deployment";

/// Saves what is due, and gives the line that applies it.
fn save(sandbox: &Sandbox) -> &'static str {
    sandbox.ok("plan --out plan.norn");
    "apply plan.norn"
}

#[test]
fn a_plan_that_failed_is_finished_once_the_world_is_mended() {
    let (one, two) = (free_port(), free_port());
    let sandbox = Sandbox::webserver(one, "");
    let mended = sandbox.path("mended").display().to_string();
    let apps = |version: &str| {
        let build = format!("env: {{VERSION: {version}}}\nbuild: {{command: test -e {mended}}}");
        web("api", two, &format!("env: {{VERSION: {version}}}")) + &web("web", one, &build)
    };
    sandbox.write("mended", "");
    sandbox.spec(&apps("one"));
    sandbox.ok("apply --yes");

    std::fs::remove_file(sandbox.path("mended")).expect("it is there");
    sandbox.write("web/version", "two");
    sandbox.spec(&apps("two"));
    let apply = save(&sandbox);
    let failed = sandbox.fails(apply, 3);
    assert!(failed.err.contains("build: FAILED"), "{}", failed.err);
    assert!(failed.err.contains("run `norn apply plan.norn` again"), "{}", failed.err);
    assert!(get(one, "/").expect("it serves").starts_with("one"));
    assert!(get(two, "/").expect("it serves").starts_with("two"));
    sandbox.fails(apply, 1);

    sandbox.write("mended", "");
    let rows = sandbox.rows().len();
    let finished = sandbox.ok(apply);
    for done in ["forge/api: done already by this plan", "deploy/api: done already by this plan"] {
        assert!(finished.err.contains(done), "{}", finished.err);
    }
    assert_eq!(sandbox.rows().len(), rows + 1, "only what was left is done");
    assert!(get(one, "/").expect("it serves").starts_with("two"));
    sandbox.plan_is_empty();
    let again = sandbox.ok(apply);
    assert!(again.err.contains("Nothing left to do"), "{}", again.err);
    assert_eq!(sandbox.rows().len(), rows + 1);
}

#[test]
fn killed_at_any_time_the_same_plan_makes_it_right() {
    let port = free_port();
    let build = "build: {command: 'sleep 0.2; echo built > built'}\n";
    let sandbox = Sandbox::webserver(port, build);
    for round in 0..10 {
        let version = format!("v{round}");
        sandbox.write("web/version", &version);
        sandbox.spec(&web("web", port, &format!("{build}env: {{VERSION: {version}}}")));
        let apply = save(&sandbox);
        // Twice: the second kill is during recovery, or the work that it leads to.
        for wait in [40 + 110 * round, 60] {
            let mut norn = sandbox.spawn(apply);
            std::thread::sleep(Duration::from_millis(wait));
            norn.kill().expect("it is ours");
            norn.wait().expect("it is ours");
        }
        whole(&sandbox, apply, port, &version, &format!("round {round}"));
    }
}

#[test]
fn what_a_dead_run_brought_live_is_only_written_down() {
    let port = free_port();
    let sandbox = Sandbox::webserver(port, "env: {VERSION: one}");
    sandbox.ok("apply --yes");
    for version in ["two", "three", "four"] {
        sandbox.write("web/version", version);
        sandbox.spec(&web("web", port, &format!("env: {{VERSION: {version}}}")));
        let apply = save(&sandbox);
        let mut norn = sandbox.spawn(apply);
        let live = || get(port, "/").is_ok_and(|answer| answer.starts_with(version));
        let end = std::time::Instant::now() + Duration::from_secs(30);
        while !live() {
            assert!(std::time::Instant::now() < end, "{version} is not live");
        }
        norn.kill().expect("it is ours");
        norn.wait().expect("it is ours");
        let before = sandbox.rows();
        whole(&sandbox, apply, port, version, version);
        let rows = sandbox.rows();
        if before.last().expect("a row").status != "deployed" {
            let last = rows.last().expect("a row");
            assert!(last.steps().iter().all(|step| step.ends_with("skipped")), "{last:?}");
            assert_eq!(rows[rows.len() - 2].short(), ("failed", DEAD));
        }
    }
}

/// The plan is finished, and nothing of it is left over.
fn whole(sandbox: &Sandbox, apply: &str, port: u16, version: &str, moment: &str) {
    let applied = sandbox.run(apply);
    assert_eq!(applied.code, 0, "{moment}: {}{}", applied.out, applied.err);
    assert!(get(port, "/").expect(moment).starts_with(version), "{moment}");
    let plan = sandbox.run("plan --detailed-exitcode");
    assert_eq!(plan.code, 0, "{moment}: the plan is not empty: {}{}", plan.out, plan.err);
    until("the old replicas have ended", || sandbox.processes().len() == 3);
    for row in sandbox.rows() {
        let settled = ["deployed", "failed"].contains(&row.status.as_str());
        assert!(settled && (row.status != "failed" || row.error == DEAD), "{moment}: {row:?}");
    }
    let again = sandbox.ok(apply);
    assert!(again.err.contains("Nothing left to do"), "{moment}: {}", again.err);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_rename_in_a_plan_goes_on_after_a_kill_and_loses_no_request() {
    let port = free_port();
    let sandbox = Sandbox::webserver(port, "env: {VERSION: v0}");
    sandbox.ok("apply --yes");
    let load = Load::start(port);
    let names = ["web", "site", "page", "home", "root", "face", "last"];
    for (round, pair) in names.windows(2).enumerate() {
        let version = format!("v{}", round / 2 + 1);
        // With a deploy of its own, with another definition only, and with neither.
        if round % 3 == 0 {
            sandbox.write("web/version", &version);
        }
        let more = format!("was: [{}]\nenv: {{VERSION: {version}}}", pair[0]);
        sandbox.spec(&web(pair[1], port, &more));
        let apply = save(&sandbox);
        let mut norn = sandbox.spawn(apply);
        std::thread::sleep(Duration::from_millis(30 + 90 * round as u64));
        norn.kill().expect("it is ours");
        norn.wait().expect("it is ours");
        let moment = format!("{} to {}", pair[0], pair[1]);
        whole(&sandbox, apply, port, &version, &moment);
        assert_eq!(sandbox.names(".norn/run", pair[0]), Vec::<String>::new(), "{moment}");
        assert!(sandbox.rows().iter().all(|row| row.app == pair[1]), "{moment}: the history follows");
    }
    let (answered, failed) = load.end().await;
    assert_eq!(failed, Vec::<String>::new(), "of {answered}");
}

#[test]
fn what_another_apply_changed_meanwhile_is_not_overwritten() {
    let port = free_port();
    let sandbox = Sandbox::webserver(port, "env: {VERSION: one}");
    sandbox.ok("apply --yes");
    sandbox.write("web/version", "two");
    let apply = save(&sandbox);
    let mut norn = sandbox.spawn(apply);
    std::thread::sleep(Duration::from_millis(120));
    norn.kill().expect("it is ours");
    norn.wait().expect("it is ours");
    sandbox.write("web/version", "three");
    sandbox.ok("apply --yes");
    let rows = sandbox.rows();
    let refused = sandbox.fails(apply, 5);
    assert!(refused.err.contains("deploy/web is another release"), "{}", refused.err);
    assert!(refused.err.contains(&rows.last().expect("a row").tag), "{}", refused.err);
    assert_eq!(sandbox.rows(), rows);
}
