//! Clients that notice every lost connection, while releases, ports and supervisors change.

use std::net::Ipv4Addr;
use std::time::Duration;

use norn::provider::supervise::protocol::Probe;
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use tokio::net::TcpStream;

use super::world::{World, free_port};
use crate::load::{Load, get};

#[tokio::test(flavor = "multi_thread")]
async fn rolls_lose_no_request() {
    let world = World::new();
    let port = free_port();
    world.go(world.roll("one", port)).await.expect("the first roll");
    assert!(get(port, "/").await.expect("an answer").starts_with("one "));
    let load = Load::start(port);
    for key in ["two", "three", "four"] {
        world.go(world.roll(key, port)).await.expect("a roll under load");
        assert!(get(port, "/").await.expect("an answer").starts_with(key));
    }
    let (answered, failed) = load.end().await;
    assert_eq!(failed, Vec::<String>::new(), "of {answered}");
    assert!(answered > 100, "{answered} requests are no load");
    assert_eq!(world.replicas().len(), 2, "the old replicas are gone");
    let status = world.status().await;
    assert_eq!((status.wanted, status.fence), (2, 7));
    assert_eq!(status.release.expect("a release").tag, "web:four");
}

#[tokio::test(flavor = "multi_thread")]
async fn another_binary_takes_over_without_losing_a_connection() {
    let world = World::new();
    let port = free_port();
    world.go(world.roll("one", port)).await.expect("the first roll");
    let before = world.status().await.pid;
    let newer = world.newer_home();
    let load = Load::start(port);
    let mut failing = world.roll("never", port);
    failing.env.0.insert("HEALTH".to_owned(), "500".to_owned());
    failing.health.startup = Duration::from_millis(700);
    newer.roll(&world.app, failing, |_| {}).await.expect_err("it is never healthy");
    assert_eq!(world.status().await.pid, before, "the old supervisor goes on untouched");
    newer.roll(&world.app, world.roll("two", port), |_| {}).await.expect("the takeover");
    let (answered, failed) = load.end().await;
    assert_eq!(failed, Vec::<String>::new(), "of {answered}");
    assert!(answered > 100, "{answered} requests are no load");
    let status = world.status().await;
    assert_ne!(status.pid, before);
    assert!(get(port, "/").await.expect("an answer").starts_with("two "));
    // What the predecessor knew is known: its keys and its fence.
    let again = newer.roll(&world.app, world.roll("one", port), |_| {}).await.expect("the key is known");
    assert_eq!(again.cut, 0);
    assert_eq!(world.status().await.release.expect("a release").tag, "web:two");
    assert_eq!(world.processes().len(), 3, "a supervisor and two replicas: {}", world.log());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_port_changes_with_the_roll() {
    let world = World::new();
    let (old, new) = (free_port(), free_port());
    world.go(world.roll("one", old)).await.expect("the first roll");
    world.go(world.roll("two", new)).await.expect("the roll to another port");
    assert!(get(new, "/").await.expect("an answer").starts_with("two "));
    get(old, "/").await.expect_err("the old port is closed");
    let mut none = world.roll("none", new);
    none.replicas = 0;
    world.go(none).await.expect("a roll to nothing");
    get(new, "/").await.expect_err("nothing runs");
    assert_eq!(world.replicas(), Vec::<u32>::new());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_takeover_moves_the_port_and_leaves_workers_one_supervisor() {
    let world = World::new();
    let (old, new) = (free_port(), free_port());
    world.go(world.roll("one", old)).await.expect("the first roll");
    let newer = world.newer_home();
    newer.roll(&world.app, world.roll("two", new), |_| {}).await.expect("the takeover");
    assert!(get(new, "/").await.expect("an answer").starts_with("two "));
    get(old, "/").await.expect_err("the old port is closed");
    let mut worker = world.roll("three", new);
    worker.port = None;
    worker.health.probe = Probe::Lives(Duration::from_millis(200));
    worker.command = super::world::python("import time; time.sleep(600) # server.py");
    world.go(worker).await.expect("the takeover back, to a worker");
    get(new, "/").await.expect_err("a worker has no port");
    assert_eq!(world.processes().len(), 3, "a supervisor and two workers: {}", world.log());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_connection_that_outlasts_the_drain_is_cut_and_counted() {
    let world = World::new();
    let port = free_port();
    world.go(world.roll("one", port)).await.expect("the first roll");
    let slow = tokio::spawn(async move { get(port, "/slow").await });
    tokio::time::sleep(Duration::from_millis(200)).await;
    let mut roll = world.roll("two", port);
    roll.drain = Duration::from_millis(300);
    assert_eq!(world.go(roll).await.expect("the roll").cut, 1);
    slow.await.expect("the client ends").expect_err("it was cut");
}

#[tokio::test(flavor = "multi_thread")]
async fn thousands_of_connections_at_once_are_held() {
    let world = World::new();
    let port = free_port();
    let mut roll = world.roll("one", port);
    // Accepts and never answers: the connections stay.
    roll.command = super::world::python(
        "import os, resource, socket\n\
         most = resource.getrlimit(resource.RLIMIT_NOFILE)[1]\n\
         resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))\n\
         s = socket.create_server(('127.0.0.1', int(os.environ['PORT'])), backlog=4096)\n\
         kept = []\n\
         while True: kept.append(s.accept())",
    );
    roll.health.probe = Probe::Tcp;
    world.go(roll).await.expect("the roll");
    let mut open = Vec::new();
    for _ in 0..many_connections() {
        open.push(TcpStream::connect((Ipv4Addr::LOCALHOST, port)).await.expect("a connection"));
    }
    assert!(super::world::all_healthy(&world.status().await.replicas));
}

/// As many as this process may open, and a supervisor may forward, up to 10,000.
fn many_connections() -> u64 {
    let limit = getrlimit(Resource::Nofile);
    setrlimit(Resource::Nofile, Rlimit { current: limit.maximum, ..limit }).expect("the limit is raised");
    limit.maximum.unwrap_or(u64::MAX).saturating_sub(1000).div_euclid(2).min(10_000)
}
