//! The server goes away while a step is at work.

use std::thread::sleep;
use std::time::{Duration, Instant};

use super::{BUILD_UNTIL_TOLD, Shop, finished, started};
use crate::proxy::Proxy;
use crate::support::until;

/// A project whose second version is built so, with its state behind a proxy.
fn building(what: &str, build: &str) -> Option<(Shop, Proxy)> {
    let mut shop = Shop::new(what)?;
    let proxy = Proxy::before(shop.server.port());
    shop.state_is_at(&shop.database.url_at(proxy.port));
    shop.version("one", "");
    shop.sandbox.ok("apply --yes");
    shop.version("two", build);
    Some((shop, proxy))
}

fn seconds(seconds: u32) -> String {
    format!("build: {{command: 'touch ../../../../building; sleep {seconds}'}}")
}

#[test]
fn a_server_that_is_silent_for_a_while_is_waited_for() {
    let Some((shop, proxy)) = building("a server that is silent for a while", &seconds(2)) else { return };
    let norn = started(&mut shop.sandbox.command("apply --yes"));
    until("the build runs", || shop.sandbox.path("building").exists());
    // The outcome of the build is on its way meanwhile.
    proxy.stall(true);
    sleep(Duration::from_secs(5));
    proxy.stall(false);
    let ran = finished(norn);
    assert_eq!(ran.code, 0, "{}", ran.err);
    assert_eq!(shop.statuses(), "deployed deployed");
    shop.is_sound("after the silence");
}

#[test]
fn a_server_that_was_away_while_a_step_worked_is_connected_to_anew() {
    let Some((shop, proxy)) = building("a server that cuts its connections", BUILD_UNTIL_TOLD) else {
        return;
    };
    let before = proxy.accepted();
    let norn = started(&mut shop.sandbox.command("apply --yes"));
    until("the build runs", || shop.sandbox.path("building").exists());
    proxy.cut();
    shop.sandbox.write("go", "");
    let ran = finished(norn);
    assert_eq!(ran.code, 0, "{}", ran.err);
    assert_eq!(proxy.accepted() - before, 2);
    assert_eq!(shop.statuses(), "deployed deployed");
    shop.is_sound("after the cut");
}

#[test]
fn a_heartbeat_that_fails_is_made_up_for() {
    let Some((shop, proxy)) = building("a heartbeat that fails", &seconds(24)) else { return };
    let norn = started(&mut shop.sandbox.command("apply --yes"));
    until("the build runs", || shop.sandbox.path("building").exists());
    sleep(Duration::from_secs(17));
    proxy.stall(true);
    sleep(Duration::from_secs(3));
    proxy.cut();
    sleep(Duration::from_secs(2));
    proxy.stall(false);
    let ran = finished(norn);
    assert_eq!(ran.code, 0, "{}", ran.err);
    assert_eq!(shop.statuses(), "deployed deployed");
    shop.is_sound("after the silence");
}

#[test]
fn a_run_whose_server_stays_away_ends_with_its_lease() {
    let Some((shop, proxy)) = building("a server that stays away", &seconds(300)) else { return };
    let norn = started(&mut shop.sandbox.command("apply --yes"));
    until("the build runs", || shop.sandbox.path("building").exists());
    let gone = Instant::now();
    proxy.stall(true);
    while !shop.sandbox.processes_of("sleep 300").is_empty() {
        assert!(gone.elapsed() < Duration::from_secs(65), "the command outlives the lease");
        sleep(Duration::from_millis(500));
    }
    let command = gone.elapsed();
    let ran = finished(norn);
    assert_eq!(ran.code, 3, "{}", ran.err);
    assert!(command > Duration::from_secs(45) && gone.elapsed() < command + Duration::from_secs(10));
    let (_, said) = ran.err.split_once("deploy/web build: FAILED after ").expect("its build failed");
    let why = "the lock on the state was lost: the state in postgres://norn@127.0.0.1:";
    assert!(said.contains(why) && said.contains(" did not answer within "), "{said}");
    assert!(said.contains("`touch ../../../../building; sleep 300` was ended as the lock"), "{said}");
    assert_eq!(said.matches("the state in ").count(), 1, "it is told once: {said}");
    proxy.stall(false);
    shop.serves("one");
    shop.version("three", "");
    shop.sandbox.ok("apply --yes");
    assert_eq!(shop.statuses(), "deployed failed deployed");
    shop.is_sound("when it is back");
}
