//! Many runs at once: one works, and the others wait or are told who does.

use std::process::Child;

use rustix::process::{Pid, Signal, kill_process};

use super::{BUILD_UNTIL_TOLD, Shop, finished, started};
use crate::shared::free_port;
use crate::support::{until, web};

const MANY: usize = 8;

#[test]
fn runs_that_wait_for_the_lock_work_one_after_the_other() {
    let Some(shop) = Shop::new("runs that wait for each other") else { return };
    // Fails where another one is at work.
    let build = "build: {command: 'set -C; : > ../../../../busy && sleep 0.2 && rm ../../../../busy'}";
    let apps = (0..MANY).map(|number| web(&format!("web{number}"), free_port(), build));
    shop.sandbox.spec(&apps.collect::<String>().replace("replicas: 2", "replicas: 1"));
    let line = |number| format!("apply --yes --lock-wait 2m --target web{number}");
    let runs: Vec<Child> =
        (0..MANY).map(|number| started(&mut shop.sandbox.command(&line(number)))).collect();
    for run in runs {
        let ran = finished(run);
        assert_eq!(ran.code, 0, "{}{}", ran.out, ran.err);
    }
    let order = "SELECT count(*), bool_and(token > before), bool_and(started_at > ended_before) FROM \
                 (SELECT token, started_at, lag(token, 1, 0::bigint) OVER runs AS before, \
                 lag(ended_at, 1, '-infinity') OVER runs AS ended_before FROM norn_runs \
                 WINDOW runs AS (ORDER BY started_at)) AS runs";
    assert_eq!(shop.database.sql(order), format!("{MANY}|t|t"));
    assert_eq!(shop.statuses(), ["deployed"; MANY].join(" "));
    shop.sandbox.plan_is_empty();
}

#[test]
fn runs_that_do_not_wait_are_told_who_works() {
    let Some(shop) = Shop::new("runs that do not wait") else { return };
    shop.version("one", BUILD_UNTIL_TOLD);
    let mut runs: Vec<Child> = (0..MANY).map(|_| started(&mut shop.sandbox.command("apply --yes"))).collect();
    let mut refused = Vec::new();
    until("all but one were refused", || {
        let ended = |run: &mut Child| run.try_wait().expect("it is ours").is_some();
        while let Some(at) = runs.iter_mut().position(ended) {
            refused.push(runs.remove(at));
        }
        refused.len() >= MANY - 1
    });
    let [working] = <[Child; 1]>::try_from(runs).expect("one works");
    let pid = working.id();
    for run in refused {
        let ran = finished(run);
        assert_eq!(ran.code, 4, "{}", ran.err);
        let (said, help) = ran.err.split_once('\n').expect("two lines");
        let by = format!("(pid {pid}, norn apply, since ");
        assert!(said.starts_with("error: the state in postgres://") && said.contains(&by), "{said}");
        assert_eq!(
            help.trim(),
            "help: `norn lock status` shows what it does; wait for it with --lock-wait 5m, or end that process"
        );
    }
    shop.sandbox.write("go", "");
    assert_eq!(finished(working).code, 0);
    shop.is_sound("after the race");
    assert_eq!(shop.statuses(), "deployed");
}

#[test]
fn a_run_that_stood_still_past_its_lease_changes_nothing_more() {
    let Some(shop) = Shop::new("a run that stands still") else { return };
    shop.version("one", "");
    shop.sandbox.ok("apply --yes");
    shop.version("two", "build: {command: 'touch ../../../../building; sleep 3'}\n");
    let norn = started(&mut shop.sandbox.command("apply --yes"));
    until("the build runs", || shop.sandbox.path("building").exists());
    let pid = Pid::from_raw(i32::try_from(norn.id()).expect("a pid")).expect("a pid");
    kill_process(pid, Signal::STOP).expect("it runs");
    // Its process lives, so the lease has to run out; the one who waits has a whole lease then.
    let other = shop.sandbox.run("apply --yes --lock-wait 2m");
    let before = shop.content();
    kill_process(pid, Signal::CONT).expect("it runs");
    let late = finished(norn);
    assert_eq!(other.code, 0, "{}{}", other.out, other.err);
    assert_eq!(late.code, 3, "{}{}", late.out, late.err);
    assert!(late.err.contains("the lock on the state was lost"), "{}", late.err);
    assert!(before == shop.content(), "it writes nothing more");
    shop.serves("two");
    assert_eq!(shop.statuses(), "deployed failed deployed");
    shop.is_sound("after both");
}
