//! When a container is healthy, and what is said of one that is not.

use std::time::{Duration, Instant};

use crate::sandbox::until;

use super::{Shop, has};

#[test]
fn an_app_that_listens_late_is_waited_for_and_one_that_never_does_is_refused() {
    let Some(shop) = Shop::new() else { return };
    // docker takes connections at a published port whether anything listens behind it or not.
    let late =
        "command: 'sleep 4; exec sh /serve'\nhealthcheck: {interval: 1s, startup: 30s}\nenv: {VERSION: v1}";
    shop.web(late);
    let began = Instant::now();
    shop.ok("apply --yes");
    assert!(began.elapsed() > Duration::from_secs(4), "{:?}", began.elapsed());
    assert_eq!(shop.get().expect("it serves at once"), "v1 grey one");

    shop.web("command: 'echo lazy; trap \"exit 0\" TERM; sleep 300 & wait'\nhealthcheck: {interval: 1s, startup: 4s}\nenv: {VERSION: v2}");
    let ran = shop.apply_fails(1, 1);
    has(&ran.err, &["lazy", "connection closed at once"]);
    assert_eq!(shop.get().expect("the old one serves"), "v1 grey one");
    shop.destroy();
    shop.comes_to(0, 0);
}

#[test]
fn a_command_in_the_container_says_whether_it_is_well() {
    let Some(shop) = Shop::new() else { return };
    shop.web("healthcheck: {command: 'test -f /serve && test -n \"$VERSION\"', interval: 1s, startup: 15s}\nenv: {VERSION: v1}\nreplicas: 2");
    shop.ok("apply --yes");
    shop.plan_is_empty();
    shop.web("healthcheck: {command: 'echo not $VERSION; exit 4', interval: 1s, startup: 5s}\nenv: {VERSION: v2}\nreplicas: 2");
    let ran = shop.apply_fails(2, 1);
    has(&ran.err, &["`echo not $VERSION; exit 4`", "exit status: 4", "not v2"]);
    assert_eq!(shop.get().expect("the old one serves"), "v1 grey one");
    shop.destroy();
    shop.comes_to(0, 0);
}

#[test]
fn an_app_that_answers_badly_ends_or_takes_too_much_is_told_with_its_last_words() {
    let Some(shop) = Shop::new() else { return };
    shop.web("env: {VERSION: v1}");
    shop.ok("apply --yes");

    shop.web("env: {VERSION: v2}\ncommand: 'echo no index; exec httpd -f -p $PORT -h /tmp'\nhealthcheck: {path: /, interval: 1s, startup: 4s}");
    has(&shop.apply_fails(1, 1).err, &["GET /: 404", "no index"]);

    shop.web("env: {VERSION: v2}\ncommand: 'echo gives up; exit 3'");
    has(&shop.apply_fails(1, 1).err, &["gives up", "exit status: 3"]);

    shop.web("env: {VERSION: v2}\ncommand: [no-such-program]");
    has(&shop.apply_fails(1, 1).err, &["no-such-program"]);

    shop.web("env: {VERSION: v2}\nresources: {memory: 16Mi}\ncommand: 'echo eats; exec tail /dev/zero'");
    has(&shop.apply_fails(1, 1).err, &["eats", "it was killed, as it used more than its memory of 16 MiB"]);

    assert_eq!(shop.get().expect("the old one serves"), "v1 grey one");
    // What does not listen on all addresses of its container is reached by nobody.
    shop.web("env: {VERSION: v2}\ncommand: 'exec httpd -f -p 127.0.0.1:$PORT -h /tmp'\nhealthcheck: {interval: 1s, startup: 4s}");
    has(&shop.apply_fails(1, 1).err, &["connection closed at once", "0.0.0.0"]);
    until("the old one serves", || shop.get().is_ok());
    shop.destroy();
    shop.comes_to(0, 0);
}
