//! An engine of another host: nothing of norn's stays there, and nothing of it here.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::ops::Deref;
use std::time::{Duration, Instant};

use crate::engine::Engine;
use crate::sandbox::until;
use crate::world::ADDRESS;

use super::{Shop, WHAT, has};

/// A project on an engine that it knows by an address of another host.
struct Far<'a> {
    shop: Shop<'a>,
    address: String,
}

impl<'a> Deref for Far<'a> {
    type Target = Shop<'a>;

    fn deref(&self) -> &Shop<'a> {
        &self.shop
    }
}

impl Far<'static> {
    fn new() -> Option<Self> {
        let engine = Engine::own(WHAT)?;
        let address = engine.elsewhere();
        let mut shop = Shop::on(engine);
        shop.sandbox.env.insert("DOCKER_HOST".into(), address.clone());
        Some(Self { shop, address })
    }
}

impl Far<'_> {
    /// What the webserver answers at the engine's host.
    fn get(&self) -> Result<String, String> {
        let ask = || -> std::io::Result<String> {
            let mut stream = TcpStream::connect((ADDRESS, self.port))?;
            stream.set_read_timeout(Some(Duration::from_secs(5)))?;
            // The server of these tests closes only when it is told to.
            stream.write_all(b"GET / HTTP/1.1\r\nHost: there\r\nConnection: close\r\n\r\n")?;
            let mut answer = String::new();
            stream.read_to_string(&mut answer)?;
            Ok(answer)
        };
        let answer = ask().map_err(|error| error.to_string())?;
        answer.split_once("\r\n\r\n").map(|(_, body)| body.to_owned()).ok_or_else(|| answer.clone())
    }

    fn serves(&self, body: &str) {
        assert_eq!(self.get().as_deref(), Ok(body));
        assert_eq!(self.processes(), Vec::<u32>::new(), "nothing of norn's runs on");
        self.plan_is_empty();
    }
}

#[test]
fn an_app_goes_live_on_another_host_and_nothing_of_norn_stays() {
    let Some(far) = Far::new() else { return };
    far.web(
        "env: {VERSION: v1}\nbuild: {test: cat /release}\nmigrations: {command: 'echo migrates $VERSION'}",
    );
    let plan = far.ok("plan");
    has(&plan.out, &[&format!("webserver on runtime docker, 1 replica at http://{ADDRESS}:{}", far.port)]);
    let ran = far.ok("apply --yes");
    has(&ran.err, &[&format!("http://{ADDRESS}:{}", far.port)]);
    far.serves("v1 grey one");
    has(&far.rows()[0].output("migrate"), &["migrates v1"]);
    let status = far.ok("status");
    has(&status.out, &["healthy", &format!("http://{ADDRESS}:{}", far.port)]);
    has(&far.ok("logs web").out, &["starts v1"]);
    let before = far.containers();
    assert_eq!(before.len(), 1);
    assert_eq!(far.inspect(&before[0], ".HostConfig.RestartPolicy.Name"), "unless-stopped");

    // Another checkout of the same state needs nothing of this one.
    std::fs::remove_dir_all(far.path(".norn/releases")).expect("it is there");
    far.plan_is_empty();
    far.web("env: {VERSION: v2}");
    has(&far.ok("plan").out, &["interrupts", "VERSION"]);
    far.ok("apply --yes");
    far.serves("v2 grey one");
    assert_ne!(far.containers(), before);

    let before = far.containers();
    has(&far.ok("restart web --yes").err, &["web"]);
    far.serves("v2 grey one");
    assert_eq!(far.containers().len(), 1);
    assert_ne!(far.containers(), before);

    far.write("web/release", "two");
    far.ok("apply --yes");
    far.serves("v2 grey two");
    far.ok("rollback web --yes");
    assert_eq!(far.get().as_deref(), Ok("v2 grey one"));
    far.ok(&format!("rollback web --to {} --yes", far.rows()[1].tag));
    far.serves("v2 grey two");

    // Gone by hand.
    far.engine.ok(&format!("rm --force {}", far.containers()[0]));
    has(&far.ok("status").out, &["down", "nothing runs there"]);
    has(&far.ok("plan").out, &["nothing runs"]);
    far.ok("apply --yes");
    far.serves("v2 grey two");

    // What others have there is theirs.
    let other = format!("dev.norn.project={}-other", far.project);
    let id = far.engine.ok(&format!("run --detach --label {other} --label dev.norn.app=web norn-base:1"));
    far.destroy();
    far.comes_to(0, 0);
    far.get().expect_err("nothing serves");
    far.engine.ok(&format!("rm --force {}", id.trim()));
}

#[test]
fn a_version_that_fails_elsewhere_is_told_and_the_one_before_it_serves_again() {
    let Some(far) = Far::new() else { return };
    far.web("env: {VERSION: v1}");
    far.ok("apply --yes");
    far.web("env: {VERSION: v2}\ncommand: 'echo last words; exit 3'");
    far.write("web/release", "two");
    let ran = far.run("apply --yes");
    assert_ne!(ran.code, 0);
    has(&ran.err, &["exit status 3", "last words", "was started again and serves"]);
    assert_eq!(far.get().as_deref(), Ok("v1 grey one"));
    far.comes_to(1, 1);

    far.web("env: {VERSION: v3}\nhealthcheck: {path: /, interval: 1s, startup: 3s}\ncommand: 'echo deaf; sleep 600'");
    let ran = far.run("apply --yes");
    has(
        &ran.err,
        &["was not healthy after 3 s", "the last probe: GET /", "deaf", "was started again and serves"],
    );
    assert_eq!(far.get().as_deref(), Ok("v1 grey one"));

    far.web("env: {VERSION: v1}");
    far.write("web/release", "one");
    far.ok("apply --yes");
    far.serves("v1 grey one");
    far.destroy();
    far.comes_to(0, 0);
}

#[test]
fn a_norn_that_is_killed_in_an_exchange_is_made_good_by_the_next() {
    let Some(far) = Far::new() else { return };
    far.web("env: {VERSION: v1}");
    far.ok("apply --yes");
    far.web("env: {VERSION: v2}\ncommand: 'sleep 4; exec sh /serve'");
    far.write("web/release", "two");
    let mut norn = far.spawn("apply --yes");
    let new = || far.of_engine("ps", "{{.Names}}").iter().any(|name| name.ends_with(".new"));
    until("the new container runs", new);
    norn.kill().expect("it lives");
    norn.wait().expect("it is ours");
    assert!(far.open_in_journal() > 0, "norn had ended");
    let began = Instant::now();
    // What never was called fit is not taken to be live, even where it serves by now.
    until("it serves", || {
        far.get().as_deref() == Ok("v2 grey two") || began.elapsed() > Duration::from_secs(8)
    });
    has(&far.ok("plan").out, &["deploy/web", "no whole release of it serves"]);
    far.ok("apply --yes");
    far.comes_to(1, 2);
    assert_eq!(far.open_in_journal(), 0);
    far.serves("v2 grey two");
    far.destroy();
    far.comes_to(0, 0);
}

#[test]
fn what_cannot_be_on_another_host_is_refused_with_a_mend() {
    let Some(mut far) = Far::new() else { return };
    far.web("replicas: 2");
    has(&far.fails("plan", 1).err, &["cannot share one port", &far.address, "run one replica"]);
    far.web("front: {bind: 0.0.0.0}");
    has(&far.fails("plan", 1).err, &["cannot have a front", "take `front` out"]);
    far.web("env: {VERSION: v1}");
    far.ok("apply --yes");

    // Where it is stays known, whatever the environment says.
    let here = far.engine.host().to_owned();
    far.shop.sandbox.env.insert("DOCKER_HOST".into(), here);
    has(&far.ok("status").out, &["healthy"]);
    has(&far.ok("plan").out, &["BLOCKED", &format!("docker at {}", far.address)]);
    far.shop.sandbox.env.insert("DOCKER_HOST".into(), "ssh://ada@build".into());
    has(&far.fails("plan", 1).err, &["cannot be reached by ssh: write tcp://host:port"]);
    let address = far.address.clone();
    far.shop.sandbox.env.insert("DOCKER_HOST".into(), address);
    far.serves("v1 grey one");
    far.destroy();
    far.comes_to(0, 0);
}

/// Three workers, which have no port to hold.
fn workers(version: &str) -> String {
    format!(
        "  web:\n    role: worker\n    path: ./web\n    replicas: 3\n    healthcheck: {{command: 'true', interval: 1s}}\n    \
         command: 'trap exit TERM; echo works {version}; sleep 600 & wait'\n    rollout: {{drain: 1s}}\n    env: {{VERSION: {version}}}\n"
    )
}

#[test]
fn replicas_go_live_together_and_one_that_is_taken_away_is_made_good() {
    let Some(far) = Far::new() else { return };
    far.apps(&workers("v1"));
    far.ok("apply --yes");
    assert_eq!(far.containers().len(), 3);
    far.plan_is_empty();
    far.engine.ok(&format!("rm --force {}", far.containers()[1]));
    has(&far.ok("status").out, &["2/3"]);
    has(&far.fails("plan --detailed-exitcode", 2).out, &["this plan repairs it"]);
    far.ok("apply --yes");
    far.comes_to(3, 1);
    far.plan_is_empty();

    // Killed at any moment of an exchange, the next apply ends where this one was to.
    let mut struck = 0;
    for wait in [200, 600, 1000, 1400, 1800] {
        far.apps(&workers(&format!("v{wait}")));
        let mut norn = far.spawn("apply --yes");
        std::thread::sleep(Duration::from_millis(wait));
        norn.kill().expect("it is ours");
        norn.wait().expect("it is ours");
        struck += usize::from(far.open_in_journal() > 0);
        far.ok("apply --yes");
        far.plan_is_empty();
        assert_eq!(far.containers().len(), 3, "after {wait} ms");
        assert_eq!(far.of_engine("ps", "{{.Names}}").len(), 3, "all of them run");
        let logs = far.ok("logs web").out;
        assert_eq!(logs.matches(&format!("works v{wait}")).count(), 3, "{logs}");
    }
    assert!(struck > 0, "every one had ended");
    far.destroy();
    far.comes_to(0, 0);
}

#[test]
fn what_an_exchange_left_beside_what_serves_is_ended_and_nothing_else() {
    let Some(far) = Far::new() else { return };
    far.apps(&workers("v1"));
    far.ok("apply --yes");
    let serving = far.containers();
    // As where norn died between calling the new ones fit and ending the old.
    let labels = far.inspect(&serving[0], "json .Config.Labels");
    let labels: std::collections::BTreeMap<String, String> =
        serde_json::from_str(&labels).expect("it is JSON");
    let labels = labels.iter().map(|(name, value)| match name.as_str() {
        "dev.norn.operation" => format!("--label {name}=before"),
        "dev.norn.definition" => format!("--label {name}=before"),
        "dev.norn.replicas" => format!("--label {name}=9"),
        _ => format!("--label {name}={value}"),
    });
    let labels = labels.collect::<Vec<_>>().join(" ");
    far.engine.ok(&format!("run --detach {labels} norn-base:1 sleep 600"));
    has(
        &far.fails("plan --detailed-exitcode", 2).out,
        &["containers are not as norn left them", "this plan repairs it"],
    );
    far.ok("apply --yes");
    assert_eq!(far.containers(), serving);
    far.plan_is_empty();
    far.destroy();
    far.comes_to(0, 0);
}

#[test]
fn a_plan_for_one_engine_is_not_applied_on_another() {
    let Some(mut far) = Far::new() else { return };
    far.web("env: {VERSION: v1}");
    far.ok("plan --out plan.norn");
    let other = far.engine.elsewhere();
    far.shop.sandbox.env.insert("DOCKER_HOST".into(), other);
    let ran = far.fails("apply plan.norn --yes", 5);
    has(&ran.err, &["the plan is for the Docker engine", &far.address]);
    assert_eq!(far.containers(), Vec::<String>::new());
}

#[test]
fn a_test_that_another_state_runs_there_goes_on() {
    let Some(far) = Far::new() else { return };
    let holder = r#"{"machineId":"away","bootId":"b","pidNamespace":"n","pid":7,"startTime":8}"#;
    let labels = [
        format!("dev.norn.project={}", far.project),
        "dev.norn.stage=".to_owned(),
        "dev.norn.app=web".to_owned(),
        "dev.norn.store=another".to_owned(),
        format!("dev.norn.holder={holder}"),
    ];
    let labels: Vec<String> = labels.iter().map(|label| format!("--label {label}")).collect();
    let theirs = far.engine.ok(&format!("run --detach {} norn-base:1 sleep 600", labels.join(" ")));
    far.web("env: {VERSION: v1}\nbuild: {test: cat /release}");
    far.ok("apply --yes");
    assert_eq!(far.inspect(theirs.trim(), ".State.Running"), "true");
    far.destroy();
    assert_eq!(far.inspect(theirs.trim(), ".State.Running"), "true");
    far.engine.ok(&format!("rm --force {}", theirs.trim()));
}

#[test]
fn what_another_state_has_there_is_not_touched() {
    let (Some(far), Some(mut other)) = (Far::new(), Far::new()) else { return };
    far.web("env: {VERSION: v1}");
    far.ok("apply --yes");
    let before = far.containers();
    // The same project from another checkout, whose state knows nothing of it.
    other.shop.project.clone_from(&far.project);
    other.shop.port = far.port;
    other.web("env: {VERSION: theirs}");
    has(&other.ok("plan").out, &["BLOCKED", "of another state"]);
    other.fails("apply --yes", 1);
    assert_eq!(far.containers(), before);
    far.serves("v1 grey one");
    far.destroy();
}

#[test]
fn an_engine_that_is_lost_is_given_up() {
    let Some(mut far) = Far::new() else { return };
    far.web("env: {VERSION: v1}");
    far.ok("apply --yes");
    let address = far.address.clone();
    let here = far.engine.host().to_owned();
    far.shop.sandbox.env.insert("DOCKER_HOST".into(), here);
    let destroy = format!("destroy --yes --confirm {}", far.project);
    far.fails(&destroy, 1);
    far.ok(&format!("{destroy} --lost {address}"));
    assert!(!far.ok("state show").out.contains("forge/web"));
    // What was there is there still: norn was told that nobody can see it.
    let left = far.containers();
    assert_eq!(left.len(), 1);
    far.engine.ok(&format!("rm --force {}", left[0]));
}

#[test]
fn an_app_of_an_engine_that_is_lost_goes_live_here() {
    let Some(mut far) = Far::new() else { return };
    far.web("env: {VERSION: v1}");
    far.ok("apply --yes");
    let address = far.address.clone();
    has(&far.fails(&format!("plan --lost {address}"), 1).err, &["answers, so what it has is not lost"]);
    far.engine.ok(&format!("rm --force {}", far.containers()[0]));
    let here = far.engine.host().to_owned();
    far.shop.sandbox.env.insert("DOCKER_HOST".into(), here);
    far.web("env: {VERSION: v2}");
    far.ok(&format!("apply --yes --lost {address}"));
    assert_eq!(far.shop.get().expect("it answers here"), "v2 grey one");
    far.plan_is_empty();
    far.destroy();
}

#[test]
fn an_engine_that_is_away_for_a_moment_ends_no_exchange() {
    let Some(engine) = Engine::apart(WHAT) else { return };
    let address = engine.elsewhere();
    let mut shop = Shop::on(&engine);
    shop.sandbox.env.insert("DOCKER_HOST".into(), address.clone());
    let far = Far { shop, address };
    far.apps(&workers("v1"));
    far.ok("apply --yes");
    far.apps(&workers("v2").replace(
        "command: 'true'",
        "command: 'test -e /tmp/ready || { sleep 8; touch /tmp/ready; false; }'",
    ));
    let mut norn = far.spawn("apply --yes");
    until("the new containers run", || far.of_engine("ps", "{{.Names}}").len() == 6);
    engine.kill();
    engine.revive();
    let ended = norn.wait().expect("it is ours");
    assert!(ended.success(), "{ended}");
    far.plan_is_empty();
    assert_eq!(far.of_engine("ps", "{{.Names}}").len(), 3);
    far.destroy();
}
