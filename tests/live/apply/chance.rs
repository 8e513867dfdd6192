//! Specs by chance, applied by norns that are killed at moments by chance: the next apply makes the
//! world as its spec says, whatever was there and whatever was begun.
//!
//! `NORN_SEED` gives the same specs and moments again, `NORN_FUZZ_SECONDS` says how long (10).

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use crate::chance::{self, Chance};
use crate::supervise::world::{SERVER, free_port, interpreter};
use crate::support::{Sandbox, until};

const NAMES: [&str; 3] = ["api", "web", "work"];

/// A spec of some apps, with how many replicas each is to have.
fn spec(chance: &mut Chance, ports: &[u16; 3]) -> (String, BTreeMap<&'static str, usize>) {
    let mut apps = String::new();
    let mut wanted: BTreeMap<&str, usize> = BTreeMap::new();
    for (at, name) in NAMES.into_iter().enumerate() {
        if chance.below(3) == 0 {
            continue;
        }
        let replicas = chance.below(3);
        let version = chance.below(3);
        apps += &format!(
            "  {name}:\n    path: ./{name}\n    replicas: {replicas}\n    env: {{VERSION: v{version}}}\n"
        );
        apps += "    rollout: {drain: 1s}\n";
        if chance.below(3) == 0 {
            let (python, port) = (interpreter(), ports[at]);
            apps += &format!(
                "    role: webserver\n    port: {port}\n    command: [\"{python}\", \"-S\", server.py]\n"
            );
            apps += "    healthcheck: {path: /healthz, startup: 60s}\n";
        } else {
            apps += "    role: worker\n    command: exec tail -f /dev/null\n";
            apps += "    healthcheck: {command: 'true', startup: 60s}\n";
        }
        if chance.below(2) == 0 {
            apps += "    build: {command: 'sleep 0.05; echo built > built', test: test -f built}\n";
        }
        if let Some(other) = wanted.keys().next_back().filter(|_| chance.below(3) == 0) {
            apps += &format!("    dependsOn: [{other}]\n");
        }
        wanted.insert(name, replicas);
    }
    if wanted.is_empty() {
        return spec(chance, ports);
    }
    (apps, wanted)
}

/// The world is as the spec says, and the state has nothing open.
fn settled(sandbox: &Sandbox, wanted: &BTreeMap<&str, usize>) {
    sandbox.plan_is_empty();
    let status = sandbox.ok("status --json").out;
    let status: serde_json::Value = serde_json::from_str(&status).expect("it is JSON");
    assert_eq!(status["unsettled"], serde_json::json!([]), "{status:#}");
    let apps = status["apps"].as_array().expect("a list").iter();
    let ready: BTreeMap<&str, usize> = apps
        .map(|app| {
            let health = if wanted.get(app["app"].as_str().expect("a name")) == Some(&0) {
                "scaled-to-zero"
            } else {
                "healthy"
            };
            assert_eq!(app["health"], health, "{status:#}");
            let ready = app["ready"].as_u64().expect("a number");
            (app["app"].as_str().expect("a name"), usize::try_from(ready).expect("it is small"))
        })
        .collect();
    assert_eq!(ready, *wanted, "{status:#}");
    // A supervisor an app, its replicas, and nothing else.
    let replicas: usize = wanted.values().sum();
    until("the old processes have ended", || {
        let supervisors = sandbox.processes_of(" supervise ").len();
        supervisors <= wanted.len() && sandbox.processes().len() == supervisors + replicas
    });
    for (app, replicas) in wanted.iter().filter(|(_, replicas)| **replicas > 0) {
        let supervisors = sandbox.processes_of(&format!(" supervise --app {app} ")).len();
        assert_eq!(supervisors, 1, "of {app}, which has {replicas} replicas");
    }
    for app in NAMES {
        assert_eq!(sandbox.names(&format!(".norn/releases/{app}"), "."), Vec::<String>::new(), "of {app}");
    }
    for row in sandbox.rows() {
        assert!(["deployed", "failed", "rolled_back"].contains(&row.status.as_str()), "{row:?}");
        let error = if row.status == "failed" { "norn restarted during deployment" } else { "" };
        assert_eq!(row.error, error, "{row:?}");
    }
    assert_eq!(sandbox.open_in_journal(), 0, "everything in the journal has ended");
}

#[test]
fn whatever_is_interrupted_the_next_apply_converges() {
    const APPLY: &str = "apply --yes --confirm shop";
    let mut chance = Chance::from_env();
    let seed = chance.0;
    let (begin, time) = (Instant::now(), chance::time(Duration::from_secs(10)));
    let sandbox = Sandbox::new();
    let ports = [free_port(), free_port(), free_port()];
    NAMES.iter().for_each(|name| sandbox.write(&format!("{name}/server.py"), SERVER));
    let (mut rounds, mut kills) = (0, Vec::new());
    // How long an apply takes here: moments are made from it.
    let mut whole = Duration::from_millis(500);
    while rounds == 0 || begin.elapsed() < time {
        rounds += 1;
        kills.clear();
        let (mut apps, mut wanted) = spec(&mut chance, &ports);
        for _ in 0..=chance.below(3) {
            // Every second one is of another spec than the next.
            if chance.below(2) == 0 {
                (apps, wanted) = spec(&mut chance, &ports);
            }
            if chance.below(3) == 0 {
                sandbox.write(&format!("{}/version", chance.one(&NAMES)), &chance.below(1000).to_string());
            }
            sandbox.spec(&apps);
            let moment =
                whole.mul_f64(f64::from(u32::try_from(chance.below(1200)).expect("it is small")) / 1000.0);
            let mut norn = sandbox.spawn(APPLY);
            std::thread::sleep(moment);
            norn.kill().expect("it is ours");
            norn.wait().expect("it is ours");
            kills.push(moment);
        }
        let history = format!("NORN_SEED={seed}, round {rounds}, killed after {kills:?}, then\n{apps}");
        let began = Instant::now();
        let ran = sandbox.run(APPLY);
        assert_eq!(ran.code, 0, "{history}{}{}", ran.out, ran.err);
        whole = (whole + began.elapsed()) / 2;
        let check = std::panic::AssertUnwindSafe(|| settled(&sandbox, &wanted));
        if std::panic::catch_unwind(check).is_err() {
            panic!("{history}{}{}", ran.out, ran.err);
        }
    }
    eprintln!("{rounds} rounds (NORN_SEED={seed})");
}
