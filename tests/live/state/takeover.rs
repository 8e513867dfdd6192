//! The lock is taken away in the middle of a run: that run writes nothing more.

use std::sync::Arc;

use norn::secret::Secret;
use norn::state::postgres::PostgresStore;
use norn::state::postgres::address::ServerUrl;
use norn::state::{Scope, Store};

use super::{BUILD_UNTIL_TOLD, Shop, finished, started};
use crate::support::{Ran, until};

#[test]
fn a_run_whose_lock_was_broken_writes_nothing_more() {
    let Some(shop) = Shop::new("a lock that is broken") else { return };
    shop.version("one", "");
    shop.sandbox.ok("apply --yes");
    shop.version("two", BUILD_UNTIL_TOLD);
    let norn = started(&mut shop.sandbox.command("apply --yes"));
    until("the build runs", || shop.sandbox.path("building").exists());
    let url = ServerUrl::parse(&Secret::new(shop.database.url()), &|_| None).expect("it is a URL");
    let project = "shop".parse().expect("a name");
    let store: Arc<dyn Store> = Arc::new(PostgresStore::new(url, Scope { project, stage: None }));
    let token = shop.database.sql("SELECT token FROM norn_locks").parse().expect("a number");
    let broken = tokio::runtime::Runtime::new().expect("a runtime").block_on(store.break_lock(token));
    assert!(broken.expect("it is reached"), "it was held");
    let before = shop.content();
    shop.sandbox.write("go", "");
    ends_as_lost(&finished(norn), "it was given back, or broken");
    assert!(before == shop.content(), "it writes nothing more");
    shop.serves("one");
    shop.sandbox.ok("apply --yes");
    assert_eq!(shop.statuses(), "deployed failed deployed");
    shop.is_sound("after the lock was broken");
}

#[test]
fn a_run_whose_lock_another_has_ends_its_command() {
    let Some(shop) = Shop::new("a lock that is taken over") else { return };
    shop.version("one", "");
    shop.sandbox.ok("apply --yes");
    shop.version("two", "build: {command: 'touch ../../../../building; sleep 300'}");
    let norn = started(&mut shop.sandbox.command("apply --yes"));
    until("the build runs", || shop.sandbox.path("building").exists());
    shop.database.sql(
        "UPDATE norn_locks SET run = 'another', who = 'bob@away', token = token + 1, pid = 1, start_time = 1",
    );
    let before = shop.content();
    let since = shop.database.sql("SELECT rtrim(to_char(acquired_at AT TIME ZONE 'UTC', 'YYYY-MM-DD\"T\"HH24:MI:SS.US'), '0') FROM norn_locks");
    let why = format!("it was taken over by bob@away (pid 1, norn apply, since {since}Z)");
    ends_as_lost(
        &finished(norn),
        &format!("{why}\n    `touch ../../../../building; sleep 300` was cancelled"),
    );
    assert!(before == shop.content(), "it writes nothing more");
    assert_eq!(shop.sandbox.processes_of("sleep 300"), Vec::<u32>::new());
    shop.serves("one");
    // The other one is a process of this machine that is gone.
    shop.version("three", "");
    shop.sandbox.ok("apply --yes");
    assert_eq!(shop.statuses(), "deployed failed deployed");
    shop.is_sound("after the takeover");
}

/// The run ends in part done, and says why from where it failed.
fn ends_as_lost(ran: &Ran, why: &str) {
    assert_eq!(ran.code, 3, "{}", ran.err);
    let (_, said) = ran.err.split_once("deploy/web build: FAILED after ").expect("its build failed");
    let (_, said) = said.split_once(" s: ").expect("it took a time");
    let lines: Vec<&str> =
        said.lines().map(|line| line.split_once(" deploy/web: ").map_or(line, |(_, rest)| rest)).collect();
    let rest = "failed\nApplied in part: 1 done, 1 failed, 0 not done.\n  failed: deploy/web\n\
                What is done stays done. Mend what failed and run `norn apply` again: it goes on from here.";
    assert_eq!(lines.join("\n").trim(), format!("the lock on the state was lost: {why}\n{rest}"));
}
