//! The connection is cut in the middle of a plan, of a run's writes, of recovery: one clear error,
//! and the next run makes it as if nothing had happened.

use std::process::Stdio;

use super::Shop;
use crate::proxy::{Proxy, Side};
use crate::support::Ran;

const BUILD: &str = "build: {command: 'echo built > built'}";

fn behind(what: &str) -> Option<(Shop, Proxy)> {
    let mut shop = Shop::new(what)?;
    let proxy = Proxy::before(shop.server.port());
    shop.state_is_at(&shop.database.url_at(proxy.port));
    Some((shop, proxy))
}

/// What is said of a cut, as the one error there is.
fn told(ran: &Ran, moment: &str) {
    let cut = ["was cut", "cut the connection", "broke"].iter().any(|words| ran.err.contains(words));
    assert!(cut, "{moment}: {}", ran.err);
    assert!(!ran.err.contains("panicked"), "{moment}: {}", ran.err);
    assert!(ran.err.matches("error: ").count() <= 1, "{moment}: {}", ran.err);
}

#[test]
fn in_a_plan() {
    let Some((shop, proxy)) = behind("a connection that is cut in a plan") else { return };
    shop.version("one", "");
    shop.sandbox.ok("apply --yes");
    shop.sandbox.ok("plan");
    let all = [Side::Client, Side::Server].map(|side| (side, proxy.passed(side)));
    let before = shop.content();
    for (side, bytes) in all {
        for part in 0..6 {
            proxy.cut_next(side, 1 + bytes * part / 6);
            let ran = shop.sandbox.fails("plan", 1);
            let moment = format!("{side:?} {part}/6");
            told(&ran, &moment);
            assert_eq!(ran.out, "", "{moment}");
        }
    }
    assert!(before == shop.content());
    shop.sandbox.plan_is_empty();
}

#[test]
fn while_a_store_is_made() {
    let Some((shop, proxy)) = behind("a connection that is cut in a store's making") else { return };
    shop.sandbox.ok("plan");
    let planned = proxy.passed(Side::Client);
    let mut cuts = 0;
    for after in (planned..).step_by(400) {
        shop.database.sql("DROP SCHEMA public CASCADE; CREATE SCHEMA public");
        proxy.cut_next(Side::Client, after);
        let ran = shop.sandbox.run("apply --yes");
        if !shop.sandbox.names(".norn", "store").is_empty() {
            // It was whole.
            break;
        }
        assert_eq!(ran.code, 1, "{}", ran.err);
        told(&ran, &after.to_string());
        cuts += 1;
        // What was made so far is no store of an older norn.
        shop.sandbox.fails("plan --detailed-exitcode", 2);
    }
    assert!(cuts > 20, "{cuts}");
}

#[test]
fn in_a_run() {
    let Some((shop, proxy)) = behind("a connection that is cut in a run") else { return };
    shop.version("zero", BUILD);
    shop.sandbox.ok("apply --yes");
    shop.version("none", BUILD);
    shop.sandbox.ok("apply --yes");
    let all = [Side::Client, Side::Server].map(|side| (side, proxy.passed(side)));
    let (mut failed, mut ended) = (0, 0);
    for ((side, bytes), every) in all.into_iter().zip([1, 3]) {
        for part in (3..10).step_by(every) {
            let version = format!("{side:?}{part}");
            shop.version(&version, BUILD);
            proxy.cut_next(side, bytes * part / 10);
            let ran = shop.sandbox.run("apply --yes");
            match ran.code {
                0 => ended += 1,
                1 | 3 => {
                    failed += 1;
                    told(&ran, &version);
                }
                _ => panic!("{version}: {}", ran.err),
            }
            let again = shop.sandbox.ok("apply --yes");
            assert!(!again.err.contains("panicked"), "{version}: {}", again.err);
            shop.serves(&version);
            shop.is_sound(&version);
        }
    }
    assert!(failed > ended, "{failed} failed, {ended} did not");
}

#[test]
fn in_recovery() {
    let Some((shop, proxy)) = behind("a connection that is cut in recovery") else { return };
    shop.version("zero", "");
    shop.sandbox.ok("apply --yes");
    // The shell's parent is the guard, and the guard's is norn.
    let suicide = "if [ ! -e ../../../../flag ]; then touch ../../../../flag; \
                   kill -9 $(cut -d\" \" -f4 /proc/$PPID/stat); sleep 300; fi";
    shop.version("one", &format!("build: {{command: '{suicide}'}}"));
    let killed = shop.sandbox.command("apply --yes").stdout(Stdio::null()).stderr(Stdio::null()).status();
    assert_eq!(killed.expect("norn starts").code(), None);
    shop.sandbox.ok("plan");
    let planned = proxy.passed(Side::Client);
    let mut cuts = 0;
    for after in (planned..).step_by(500) {
        proxy.cut_next(Side::Client, after);
        let ran = shop.sandbox.run("apply --yes");
        // From here on the run itself is cut.
        if ran.err.contains(" applying ") {
            break;
        }
        assert_eq!(ran.code, 1, "{}", ran.err);
        told(&ran, &after.to_string());
        cuts += 1;
    }
    assert!(cuts > 5, "{cuts}");
    shop.sandbox.ok("apply --yes");
    shop.serves("one");
    shop.is_sound("after recovery");
    assert_eq!(shop.sandbox.processes_of("sleep 300"), Vec::<u32>::new());
}
