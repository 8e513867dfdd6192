//! Several processes and threads at one database, some of them killed.

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
    assert_eq!(newest.load(Ordering::SeqCst), 8);
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
    assert_eq!(waiting.await.expect("no panic").expect("its turn came").token, 2);
}

/// Not a test: the process that [`a_killed_holder_loses_nothing_that_was_written`] kills. It
/// takes the lease and writes steps for ever, telling each that is durable.
#[tokio::test]
#[ignore = "the child of another test"]
async fn child() {
    let Some(path) = std::env::var_os(CHILD_PATH) else { return };
    let store = SqliteStore::open(Path::new(&path), scope("shop", None)).expect("the path is absolute");
    let lease = store.lock(&own("child"), Duration::ZERO).await.expect("nobody holds the lease");
    let first = [Change::RunStarted { command: "norn apply".into() }, operation("o")];
    store.write(&lease, &first).await.expect("the lease is current");
    for step in 0.. {
        let id = format!("{step:06}");
        store.write(&lease, &[step_started(&id, "o"), put("web", step)]).await.expect("the lease is current");
        // Not by the macro, whose words the harness may capture.
        writeln!(std::io::stdout(), "wrote {step}").expect("somebody reads");
    }
}

struct Killed(Child);

impl Drop for Killed {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[tokio::test]
async fn a_killed_holder_loses_nothing_that_was_written() {
    let folder = Folder::new();
    let child = Command::new(std::env::current_exe().expect("this is a program"))
        .args(["--ignored", "--exact", "state::sqlite::tests::locking::child", "--nocapture"])
        .env(CHILD_PATH, folder.path())
        .stdout(Stdio::piped())
        .spawn()
        .expect("the child starts");
    let mut child = Killed(child);
    let pid = child.0.id();
    let mut lines = BufReader::new(child.0.stdout.take().expect("it is piped")).lines();
    let mut wrote = || {
        let line = lines.find_map(|line| line.ok()?.strip_prefix("wrote ")?.parse::<usize>().ok());
        line.expect("the child writes")
    };
    while wrote() < 20 {}
    let store = shop(&folder);
    match store.lock(&own("next"), Duration::ZERO).await {
        Err(StoreError::Locked { held, .. }) => assert_eq!(held.holder.process.pid, pid),
        other => panic!("the child holds the lease: {other:?}"),
    }
    // Reading beside a live writer.
    assert!(store.snapshot().await.expect("it is readable").pending.len() >= 20);
    child.0.kill().expect("the child is ours");
    child.0.wait().expect("the child is ours");
    let last = std::iter::from_fn(|| lines.next())
        .filter_map(|line| line.ok()?.strip_prefix("wrote ")?.parse().ok());
    let last: usize = last.last().unwrap_or(20);

    let before = super::files::listing(&folder);
    let read = shop(&folder).snapshot().await.expect("what the child left is readable");
    assert!(read.pending.len() > last, "{} of {last}", read.pending.len());
    assert_eq!(
        read.resources.values().next().map(|r| r.digest.clone()),
        Some((read.pending.len() - 1).to_string())
    );
    assert_eq!(super::files::listing(&folder), before, "reading changes nothing");

    let lease = store.lock(&own("next"), Duration::ZERO).await.expect("the child is gone");
    assert_eq!(lease.token, 2);
    let taken = store.snapshot().await.expect("it is readable");
    assert_eq!((taken.pending, taken.runs), (read.pending, read.runs));
}
