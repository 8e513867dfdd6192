//! Several processes and threads at one database, some of them killed.

use std::collections::BTreeSet;
use std::io::{BufRead, BufReader, Write};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU64, Ordering};

use super::*;
use crate::provider::machine;
use crate::state::conformance::trace::{holder, operation, put, scope, shop, step_started};

const CHILD_PATH: &str = "NORN_TEST_STATE";

fn own(run: &str) -> Holder {
    Holder { process: machine::own_identity().expect("this process lives"), ..holder(run) }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn eight_at_once_take_turns() {
    let folder = Folder::new();
    let newest = Arc::new(AtomicU64::new(0));
    let inside = Arc::new(AtomicU64::new(0));
    let racers = (0..8).map(|racer| {
        let store = shop(&folder);
        let (newest, inside) = (Arc::clone(&newest), Arc::clone(&inside));
        tokio::spawn(async move {
            let run = format!("r{racer}");
            let lease = store.lock(&own(&run), Duration::from_secs(60)).await.expect("its turn comes");
            assert_eq!(inside.fetch_add(1, Ordering::SeqCst), 0, "one holder at a time");
            let before = newest.swap(lease.token, Ordering::SeqCst);
            assert!(lease.token > before, "{} after {before}", lease.token);
            store.write(&lease, &[put(&run, lease.token)]).await.expect("the lease is current");
            inside.fetch_sub(1, Ordering::SeqCst);
            store.unlock(&lease).await.expect("it is held");
        })
    });
    for racer in racers.collect::<Vec<_>>() {
        racer.await.expect("no racer panics");
    }
    let snapshot = shop(&folder).snapshot().await.expect("it is readable");
    assert_eq!((snapshot.resources.len(), snapshot.lock), (8, None));
}

#[tokio::test]
async fn waiting_ends_when_the_holder_lets_go() {
    let folder = Folder::new();
    let (a, b) = (shop(&folder), shop(&folder));
    let lease = a.lock(&own("a"), Duration::ZERO).await.expect("nobody holds the lease");
    let (b, holder_b) = (Arc::new(b), own("b"));
    let waiting = {
        let b = Arc::clone(&b);
        tokio::spawn(async move { b.lock(&holder_b, Duration::from_secs(60)).await })
    };
    tokio::time::sleep(Duration::from_millis(20)).await;
    assert!(!waiting.is_finished());
    a.unlock(&lease).await.expect("it is held");
    assert!(waiting.await.expect("no panic").expect("its turn came").token > lease.token);
}

/// Not a test: the process that [`a_killed_holder_loses_nothing_that_was_written`] kills. It
/// takes the lease and writes steps for ever, telling each that is durable.
#[tokio::test]
#[ignore = "the child of another test"]
async fn child_that_holds() {
    let Some(store) = store_of_parent() else { return };
    let lease = store.lock(&own("child"), Duration::ZERO).await.expect("nobody holds the lease");
    let first = [Change::RunStarted { command: "norn apply".into() }, operation("o")];
    store.write(&lease, &first).await.expect("the lease is current");
    for step in 0.. {
        let id = format!("{step:06}");
        store.write(&lease, &[step_started(&id, "o"), put("web", step)]).await.expect("the lease is current");
        tell(step);
    }
}

/// Not a test: the other process of [`what_is_read_beside_writers_is_of_one_moment`].
#[tokio::test]
#[ignore = "the child of another test"]
async fn child_in_turns() {
    let Some(store) = store_of_parent() else { return };
    for turn in 0.. {
        turn_of(&store, "child", turn).await;
        tell(turn);
    }
}

fn store_of_parent() -> Option<SqliteStore> {
    let path = std::env::var_os(CHILD_PATH)?;
    Some(SqliteStore::open(Path::new(&path), scope("shop", None)).expect("the path is absolute"))
}

/// Not by the macro, whose words the harness may capture.
fn tell(turn: u64) {
    writeln!(std::io::stdout(), "wrote {turn}").expect("the parent reads");
}

/// Opens the store, writes what belongs together, and closes it.
async fn turn_of(store: &dyn Store, run: &str, turn: u64) {
    let lease = store.lock(&own(run), Duration::from_secs(60)).await.expect("its turn comes");
    let many = (0..50).map(|row| put(&format!("w{row}"), turn));
    store.write(&lease, &many.collect::<Vec<_>>()).await.expect("the lease is current");
    store.unlock(&lease).await.expect("it is held");
}

struct Killed(Child);

impl Drop for Killed {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Runs a child of this program's, and gives the turns that it tells.
fn start(child: &str, folder: &Folder) -> (Killed, impl Iterator<Item = u64>) {
    let started = Command::new(std::env::current_exe().expect("this is a program"))
        .args(["--ignored", "--exact", "--nocapture", &format!("state::sqlite::tests::locking::{child}")])
        .env(CHILD_PATH, folder.path())
        .stdout(Stdio::piped())
        .spawn();
    let mut child = Killed(started.expect("the child starts"));
    let lines = BufReader::new(child.0.stdout.take().expect("it is piped")).lines();
    (child, lines.filter_map(|line| line.ok()?.strip_prefix("wrote ")?.parse().ok()))
}

#[tokio::test]
async fn a_killed_holder_loses_nothing_that_was_written() {
    let folder = Folder::new();
    let (mut child, mut lines) = start("child_that_holds", &folder);
    let pid = child.0.id();
    assert!(lines.by_ref().take(20).count() == 20, "the child writes");
    let store = shop(&folder);
    match store.lock(&own("next"), Duration::ZERO).await {
        Err(StoreError::Locked { held, .. }) => assert_eq!(held.holder.process.pid, pid),
        other => panic!("the child holds the lease: {other:?}"),
    }
    // Reading beside a live writer.
    assert!(store.snapshot().await.expect("it is readable").pending.len() >= 20);
    child.0.kill().expect("the child is ours");
    child.0.wait().expect("the child is ours");
    let last = lines.last().unwrap_or(19);

    let before = super::files::listing(&folder);
    let read = shop(&folder).snapshot().await.expect("what the child left is readable");
    assert!(read.pending.len() as u64 > last, "{} of {last}", read.pending.len());
    assert_eq!(
        read.resources.values().next().map(|r| r.digest.clone()),
        Some((read.pending.len() - 1).to_string())
    );
    assert_eq!(super::files::listing(&folder), before, "reading changes nothing");

    store.lock(&own("next"), Duration::ZERO).await.expect("the child is gone");
    let taken = store.snapshot().await.expect("it is readable");
    assert_eq!((taken.pending, taken.runs), (read.pending, read.runs));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn what_is_read_beside_writers_is_of_one_moment() {
    let folder = Folder::new();
    let (_child, mut told) = start("child_in_turns", &folder);
    told.next().expect("the child writes");
    let writer = {
        let store = shop(&folder);
        tokio::spawn(async move {
            for turn in 1_000_000..1_000_005 {
                turn_of(&*store, "parent", turn).await;
            }
        })
    };
    let reader = shop(&folder);
    let mut seen = BTreeSet::new();
    while !writer.is_finished() || seen.len() < 5 {
        let snapshot = reader.snapshot().await.expect("it is readable");
        let turns: BTreeSet<_> = snapshot.resources.values().map(|record| record.digest.clone()).collect();
        assert_eq!((snapshot.resources.len(), turns.len()), (50, 1), "{turns:?}");
        seen.extend(turns);
    }
    writer.await.expect("no panic");
}
