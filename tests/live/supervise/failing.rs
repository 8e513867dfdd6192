//! Rolls that fail, and what they say.

use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::time::Duration;

use norn::provider::supervise::client::{Observation, RollError};
use norn::provider::supervise::protocol::{Command, FailureReason, Front, Outcome, Probe, Refusal, Report};

use super::world::{World, free_port, get, until};

#[tokio::test(flavor = "multi_thread")]
async fn a_release_that_is_never_healthy_changes_nothing() {
    let world = World::new();
    let port = free_port();
    world.go(world.roll("one", port)).await.expect("the first roll");
    let before = world.replicas();
    let mut roll = world.roll("two", port);
    roll.env.0.insert("HEALTH".to_owned(), "503".to_owned());
    roll.health.startup = Duration::from_secs(1);
    let (failure, reports) = world.fail(roll).await;
    assert!(matches!(failure.reason, FailureReason::NeverHealthy { replica: 0, .. }), "{failure}");
    let answer = "GET /healthz: 503 Service Unavailable: the database is away";
    assert_eq!(failure.probe.as_deref(), Some(answer));
    assert_eq!(failure.log, ["starts two"], "only lines since this start");
    assert!(failure.listens.is_empty());
    let waited = |report: &Report| matches!(report, Report::Waiting { answer: said, .. } if said == answer);
    assert!(reports.iter().any(waited), "{reports:?}");
    assert!(!reports.iter().any(|report| matches!(report, Report::Moved)));
    assert_eq!(world.replicas(), before);
    assert!(get(port, "/").await.expect("an answer").starts_with("one "));
    let known = world.home.ask(&world.app, "two").await.expect("an outcome");
    assert_eq!(known, Outcome::Failed(failure));
}

#[tokio::test(flavor = "multi_thread")]
async fn an_app_on_the_wrong_port_is_told_where_it_listens() {
    let world = World::new();
    let listen = free_port();
    let mut roll = world.roll("one", free_port());
    roll.replicas = 1;
    roll.env.0.insert("LISTEN".to_owned(), listen.to_string());
    roll.health.startup = Duration::from_secs(2);
    let (failure, _) = world.fail(roll).await;
    assert_eq!(failure.listens, [SocketAddr::from((Ipv4Addr::LOCALHOST, listen))]);
    assert!(failure.probe.as_ref().is_some_and(|probe| probe.contains("connection refused")), "{failure}");
    assert!(failure.to_string().contains("let it listen on $PORT"), "{failure}");
    assert_eq!(world.replicas(), Vec::<u32>::new());
}

#[tokio::test(flavor = "multi_thread")]
async fn an_app_that_ends_at_once_fails_after_three_starts() {
    let world = World::new();
    let mut roll = world.roll("one", free_port());
    roll.replicas = 1;
    roll.command = Command::Shell("echo no database; exit 4".to_owned());
    let (failure, _) = world.fail(roll).await;
    assert!(
        matches!(&failure.reason, FailureReason::Exited { times: 3, status, .. } if status.contains("4"))
    );
    assert_eq!(failure.log, ["no database"]);

    let mut roll = world.roll("two", free_port());
    roll.command = Command::Exec(vec!["no-such-program".to_owned()]);
    let (failure, _) = world.fail(roll).await;
    assert!(
        matches!(&failure.reason, FailureReason::NotStarted { error, .. } if error.contains("no-such-program"))
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_port_in_use_is_told_with_its_holder() {
    let world = World::new();
    let holder = TcpListener::bind("127.0.0.1:0").expect("a port");
    let port = holder.local_addr().expect("a bound socket").port();
    let (failure, _) = world.fail(world.roll("one", port)).await;
    let FailureReason::PortUnavailable { holder: Some(holder), .. } = &failure.reason else {
        panic!("{failure}");
    };
    assert!(holder.starts_with(&format!("pid {} (", std::process::id())), "{holder}");
    assert_eq!(world.replicas(), Vec::<u32>::new());
}

#[tokio::test(flavor = "multi_thread")]
async fn without_a_front_the_release_before_is_restored() {
    let world = World::new();
    let port = free_port();
    let insisting = |key: &str| {
        let mut roll = world.roll(key, port);
        roll.front = Front::Off;
        roll.replicas = 1;
        roll
    };
    world.go(insisting("one")).await.expect("the first roll");
    assert!(get(port, "/").await.expect("an answer").starts_with("one "));
    let mut roll = insisting("two");
    roll.env.0.insert("HEALTH".to_owned(), "500".to_owned());
    roll.health.startup = Duration::from_secs(1);
    let (failure, _) = world.fail(roll.clone()).await;
    assert_eq!(failure.restored, Some(true));
    assert!(get(port, "/").await.expect("an answer").starts_with("one "));

    // The same across two builds of norn.
    let newer = world.newer_home();
    let before = world.status().await.pid;
    roll.key = "three".to_owned();
    match newer.roll(&world.app, roll, |_| {}).await {
        Err(RollError::Failed(failure)) => assert_eq!(failure.restored, Some(true), "{}", world.log()),
        other => panic!("the roll was to fail: {other:?}"),
    }
    assert_eq!(world.status().await.pid, before);
    assert!(get(port, "/").await.expect("an answer").starts_with("one "));
    newer.roll(&world.app, insisting("four"), |_| {}).await.expect("the takeover");
    assert!(get(port, "/").await.expect("an answer").starts_with("four "));
    assert_ne!(world.status().await.pid, before);
    assert_eq!(world.replicas().len(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_roll_that_is_dropped_leaves_nothing() {
    let world = World::new();
    let mut roll = world.roll("one", free_port());
    roll.env.0.insert("HEALTH".to_owned(), "500".to_owned());
    let (waits, waiting) = tokio::sync::oneshot::channel();
    let mut waits = Some(waits);
    let on_report = |report| {
        if matches!(report, Report::Waiting { .. }) {
            waits.take().map(|waits| waits.send(()));
        }
    };
    tokio::select! {
        done = world.home.roll(&world.app, roll, on_report) => panic!("it is never healthy: {done:?}"),
        told = waiting => told.expect("a replica is waited for"),
    }
    until("the new replicas are gone", async || world.replicas().is_empty()).await;
    until("the outcome is known", async || {
        let outcome = world.home.ask(&world.app, "one").await.expect("an outcome");
        matches!(outcome, Outcome::Failed(failure) if failure.reason == FailureReason::Abandoned)
    })
    .await;
    assert_eq!(world.home.ask(&world.app, "none").await.expect("an outcome"), Outcome::Unknown);
}

#[tokio::test(flavor = "multi_thread")]
async fn keys_fences_and_rolls_under_way_are_respected() {
    let world = World::new();
    let mut worker = world.roll("one", 1);
    worker.port = None;
    worker.command = Command::Shell("sleep 600 & wait # server.py".to_owned());
    worker.health.probe = Probe::Lives(Duration::from_millis(300));
    worker.replicas = 1;
    world.go(worker.clone()).await.expect("the first roll");
    let before = world.status().await.replicas[0].pid;
    world.go(worker.clone()).await.expect("the same key");
    assert_eq!(world.status().await.replicas[0].pid, before, "nothing was rolled");

    let mut late = worker.clone();
    (late.key, late.fence) = ("late".to_owned(), 6);
    let refused = world.go(late).await;
    assert!(matches!(refused, Err(RollError::Refused(Refusal::Fenced { seen: 7 }))), "{refused:?}");
    let refused = world.home.stop(&world.app, 6, |_| {}).await;
    assert!(matches!(refused, Err(RollError::Refused(Refusal::Fenced { seen: 7 }))), "{refused:?}");

    let mut slow = worker.clone();
    slow.key = "slow".to_owned();
    slow.health.probe = Probe::Lives(Duration::from_secs(2));
    let mut other = worker.clone();
    other.key = "other".to_owned();
    let (slow, other) = tokio::join!(world.go(slow), async {
        tokio::time::sleep(Duration::from_millis(500)).await;
        world.go(other).await
    });
    slow.expect("the roll under way");
    assert!(matches!(&other, Err(RollError::Refused(Refusal::Busy { key })) if key == "slow"), "{other:?}");

    world.home.stop(&world.app, 8, |_| {}).await.expect("the stop");
    assert_eq!(world.processes(), Vec::<u32>::new());
    assert_eq!(world.home.observe(&world.app).await, Observation::Absent);
    world.home.stop(&world.app, 8, |_| {}).await.expect("absent is fine");
}
