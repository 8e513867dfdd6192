//! A release that was live before is live again: at once, without a lost request, and it stays.

use crate::load::Load;
use crate::supervise::world::{SERVER, free_port};
use crate::support::{Sandbox, get, until};

/// A webserver that had three releases, `one` to `three`, of one definition.
fn three_releases() -> (Sandbox, u16) {
    let port = free_port();
    let sandbox = Sandbox::webserver(port, "build: {command: 'echo built >> ../../../../built'}");
    for version in ["one", "two", "three"] {
        deploy(&sandbox, version);
    }
    (sandbox, port)
}

/// Deploys code that answers with this.
fn deploy(sandbox: &Sandbox, version: &str) {
    sandbox
        .write("web/server.py", &SERVER.replace(r#"os.environ.get("VERSION", "")"#, &format!("'{version}'")));
    sandbox.ok("apply --yes");
}

fn version(port: u16) -> String {
    let answer = get(port, "/").expect("it serves");
    answer.split(' ').next().unwrap_or_default().to_owned()
}

/// The same without attempts that failed or died.
fn settled(sandbox: &Sandbox) -> Vec<String> {
    let mut statuses = statuses(sandbox);
    statuses.retain(|status| status != "failed");
    statuses
}

fn statuses(sandbox: &Sandbox) -> Vec<String> {
    sandbox.rows().iter().map(|row| row.status.clone()).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_live_before_is_live_again_without_a_build_or_a_lost_request() {
    let (sandbox, port) = three_releases();
    let tags: Vec<String> = sandbox.rows().iter().map(|row| row.tag.clone()).collect();
    assert_eq!(version(port), "three");
    let load = Load::start(port);
    let ran = sandbox.ok("rollback web --yes");
    assert!(ran.out.contains(&format!("{} → {}", tags[2], tags[1])), "{}", ran.out);
    assert_eq!(version(port), "two");
    // It is a deployment too.
    assert_eq!(statuses(&sandbox), ["deployed", "deployed", "rolled_back", "deployed"]);
    assert_eq!(sandbox.read("built").lines().count(), 3, "nothing is built");
    // It stays: what was gone back from is held, and said.
    let plan = sandbox.ok("plan --detailed-exitcode");
    assert!(plan.out.contains("Held back") && plan.out.contains(&tags[2]), "{}", plan.out);
    sandbox.ok("apply --yes");
    assert_eq!(version(port), "two");
    // A second goes further back, and a named one forward again.
    sandbox.ok("rollback web --yes");
    assert_eq!(version(port), "one");
    sandbox.ok(&format!("rollback web --to {} --yes", tags[1]));
    assert_eq!(version(port), "two");
    let again = sandbox.ok(&format!("rollback web --to {} --yes", tags[1]));
    assert!(again.err.contains("is live already"), "{}", again.err);
    // What comes next is deployed, and is what the next rollback leaves.
    deploy(&sandbox, "four");
    assert_eq!(version(port), "four");
    sandbox.ok("rollback web --yes");
    assert_eq!(version(port), "two");
    sandbox.ok("apply --yes --redeploy web");
    assert_eq!(version(port), "four");
    sandbox.plan_is_empty();
    let (answered, failed) = load.end().await;
    assert_eq!(failed, Vec::<String>::new(), "of {answered}");
    until("what was replaced has ended", || sandbox.processes().len() == 3);
}

#[test]
fn what_cannot_be_gone_back_to_is_said_and_changes_nothing() {
    let port = free_port();
    let sandbox = Sandbox::webserver(port, "");
    let fails = |line: &str, words: &[&str]| {
        let ran = sandbox.fails(line, 1);
        for word in words {
            assert!(ran.err.contains(word), "`{word}` is not in: {}", ran.err);
        }
    };
    fails("rollback web --yes", &["app `web` has no live release"]);
    deploy(&sandbox, "one");
    fails("rollback web --yes", &["no release of app `web` was live before", "norn history web"]);
    fails("rollback web --to v9 --yes", &["app `web` has no release `v9`"]);
    fails("rollback wep --yes", &["wep", "web"]);
    deploy(&sandbox, "two");
    let tag = sandbox.rows()[0].tag.clone();
    let folder = format!(".norn/releases/web/{}", tag.split(':').next_back().expect("a tag has a colon"));
    assert!(sandbox.path(&folder).is_dir(), "{folder}");
    std::fs::remove_dir_all(sandbox.path(&folder)).expect("it is there");
    fails("rollback web --yes", &["not kept any more"]);
    fails(&format!("rollback web --to {tag} --yes"), &["not kept any more"]);
    assert_eq!(version(port), "two");
    // Somebody has to say yes.
    sandbox.fails("rollback web", 1);
    sandbox.spec("  other: {role: worker, path: ./web, command: [sleep, '600']}\n");
    sandbox.ok("apply --yes --confirm shop");
    fails("rollback web --yes", &["app `web`"]);
    assert_eq!(statuses(&sandbox), ["deployed"; 3]);
}

#[test]
fn one_that_does_not_get_well_leaves_what_serves() {
    let (sandbox, port) = three_releases();
    let two = sandbox.rows()[1].tag.clone();
    let folder = format!(".norn/releases/web/{}", two.split(':').next_back().expect("a tag has a colon"));
    std::fs::write(sandbox.path(&format!("{folder}/server.py")), "raise SystemExit('broken')").expect("kept");
    let ran = sandbox.fails("rollback web --yes", 1);
    assert!(ran.err.contains("broken"), "{}", ran.err);
    assert_eq!(version(port), "three");
    assert_eq!(statuses(&sandbox), ["deployed", "deployed", "deployed", "failed"]);
    sandbox.plan_is_empty();
    // Another is gone back to all the same.
    let one = sandbox.rows()[0].tag.clone();
    sandbox.ok(&format!("rollback web --to {one} --yes"));
    assert_eq!(version(port), "one");
}

#[test]
fn a_rollback_that_dies_is_gone_on_with_and_goes_no_further() {
    for wait in [30, 120, 300, 600, 0, 0] {
        let (sandbox, port) = three_releases();
        let mut norn = sandbox.spawn("rollback web --yes");
        std::thread::sleep(std::time::Duration::from_millis(wait));
        // The moment when it serves and is not written down yet.
        while wait == 0 && version(port) != "two" {}
        norn.kill().expect("it is ours");
        norn.wait().expect("it is ours");
        let before = version(port);
        assert!(["three", "two"].contains(&before.as_str()), "{before}");
        // What it had done counts: the same command goes on with it.
        let done = statuses(&sandbox).contains(&"rolled_back".to_owned());
        let went_on = if done { String::new() } else { sandbox.ok("rollback web --yes").err };
        assert_eq!(version(port), "two", "after {wait} ms: {went_on}");
        assert_eq!(settled(&sandbox), ["deployed", "deployed", "rolled_back", "deployed"], "after {wait} ms");
        sandbox.ok("apply --yes");
        sandbox.plan_is_empty();
        assert_eq!(sandbox.open_in_journal(), 0);
        until("what was replaced has ended", || sandbox.processes().len() == 3);
    }
}

#[test]
fn roles_without_a_port_go_back_too() {
    let sandbox = Sandbox::new();
    let spec = "  work:
    role: worker
    path: ./work
    command: [sh, -c, 'echo $$ $(cat version) >> ../../../../seen; exec sleep 600']
    rollout: {drain: 1s}
";
    sandbox.spec(spec);
    for version in ["one", "two"] {
        sandbox.write("work/version", version);
        sandbox.ok("apply --yes");
    }
    sandbox.ok("rollback work --yes");
    until("the former one runs", || {
        sandbox.read("seen").lines().last().is_some_and(|line| line.ends_with("one"))
    });
    until("it runs alone", || sandbox.processes_of("sleep").len() == 1);
    let plan = sandbox.ok("plan --detailed-exitcode");
    assert!(plan.out.contains("Held back"), "{}", plan.out);
}
