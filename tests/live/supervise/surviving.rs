//! Crashes, kills, reboots and hostile clients.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::time::Duration;

use norn::provider::supervise::client::{Observation, RollError};
use norn::provider::supervise::protocol::{Command, Probe};
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};
use tokio::net::UnixStream;

use super::world::{World, all_healthy, free_port, get, interpreter, kill, until};

#[tokio::test(flavor = "multi_thread")]
async fn a_crashed_replica_is_restarted_and_the_others_serve() {
    let world = World::new();
    let port = free_port();
    world.go(world.roll("one", port)).await.expect("the first roll");
    get(port, "/exit").await.expect_err("the replica ends");
    get(port, "/").await.expect("the other one serves");
    until("it is restarted", async || {
        let replicas = world.status().await.replicas;
        all_healthy(&replicas) && replicas.iter().map(|replica| replica.restarts).sum::<u32>() == 1
    })
    .await;
    assert!(world.log().contains("exit status: 3"), "{}", world.log());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_replica_that_fails_its_live_path_is_restarted() {
    let world = World::new();
    let mut roll = world.roll("one", free_port());
    roll.replicas = 1;
    roll.health.probe = Probe::Command("test -n \"$PORT\"".to_owned());
    roll.health.live = Some("/healthz".to_owned());
    roll.env.0.insert("HEALTH".to_owned(), "500".to_owned());
    world.go(roll).await.expect("the first roll");
    until("it is restarted", async || world.status().await.replicas[0].restarts > 0).await;
    assert!(world.log().contains("live probe: GET /healthz: 500"), "{}", world.log());
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_killed_supervisor_left_is_seen_and_ended() {
    let world = World::new();
    let port = free_port();
    let mut roll = world.roll("one", port);
    // A child in another group, which only the marker finds.
    roll.command = Command::Shell(format!("setsid sleep 600 & exec {} -S server.py", interpreter()));
    world.go(roll).await.expect("the first roll");
    let before = world.processes();
    kill(world.status().await.pid);
    until("the supervisor is seen to be dead", async || {
        matches!(world.home.observe(&world.app).await,
            Observation::Unsupervised { replicas } if replicas.len() == before.len() - 1)
    })
    .await;
    world.go(world.roll("two", port)).await.expect("the roll after");
    let now = world.processes();
    assert_eq!(now.len(), 3, "a supervisor and two replicas");
    assert!(now.iter().all(|pid| !before.contains(pid)), "no orphan");

    kill(world.status().await.pid);
    // Without a record the marker is enough.
    until("the supervisor is dead", async || world.processes().len() == 2).await;
    fs::remove_file(world.record()).expect("the record was there");
    let seen = world.home.observe(&world.app).await;
    assert!(matches!(seen, Observation::Unsupervised { replicas } if replicas.len() == 2));
    world.home.stop(&world.app, 9, |_| {}).await.expect("the stop");
    assert_eq!(world.processes(), Vec::<u32>::new());
    assert_eq!(world.home.observe(&world.app).await, Observation::Absent);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_successor_that_comes_too_late_ends_and_leaves_nothing() {
    let world = World::new();
    world.go(world.roll("one", free_port())).await.expect("the first roll");
    // A killed norn started it, and the next norn's is in office by now: once of this name, once of
    // a former name.
    for more in [vec!["--next"], vec!["--next", "--after", "shop"]] {
        let mut late = tokio::process::Command::new(env!("CARGO_BIN_EXE_norn"));
        late.args(["supervise", "--app", "web", "--run"]).arg(&world.home.run);
        late.arg("--logs").arg(&world.home.logs).args(&more).kill_on_drop(true);
        let ended = tokio::time::timeout(Duration::from_secs(10), late.output()).await;
        let output = ended.expect("it ends by itself").expect("norn starts");
        assert_eq!(output.status.code(), Some(1));
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(said.contains("a supervisor of web listens in"), "{said}");
    }
    let mut names: Vec<_> = fs::read_dir(&world.home.run)
        .expect("the folder is there")
        .map(|entry| entry.expect("it is read").file_name().into_string().expect("UTF-8"))
        .collect();
    names.sort();
    assert_eq!(names, ["web.json", "web.sock"]);
    assert_eq!(world.processes().len(), 3);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_reboot_and_another_machine_are_told_apart() {
    let world = World::new();
    let port = free_port();
    world.go(world.roll("one", port)).await.expect("the first roll");
    let edit = |field: &str| {
        let text = fs::read_to_string(world.record()).expect("the record is there");
        let mut record: serde_json::Value = serde_json::from_str(&text).expect("the record is JSON");
        record["supervisor"][field] = "another".into();
        fs::write(world.record(), record.to_string()).expect("the record is written");
        text
    };
    let original = edit("machineId");
    assert!(matches!(world.home.observe(&world.app).await, Observation::OtherMachine { .. }));
    let refused = world.go(world.roll("two", port)).await.expect_err("another machine's app");
    assert!(refused.to_string().contains("cannot be seen from here"), "{refused}");
    fs::write(world.record(), original).expect("the record is written");
    for pid in world.processes() {
        kill(pid);
    }
    edit("bootId");
    assert_eq!(world.home.observe(&world.app).await, Observation::Rebooted);
    world.go(world.roll("two", port)).await.expect("the roll after");
    assert!(get(port, "/").await.expect("an answer").starts_with("two "));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_deep_project_works_and_its_files_are_private() {
    let world = World::below(&"a-rather-long-folder-name/".repeat(8));
    let port = free_port();
    let mut roll = world.roll("one", port);
    roll.env.0.insert("TOKEN".to_owned(), "a-value-that-must-not-leak".to_owned());
    world.go(roll).await.expect("the first roll");
    assert!(get(port, "/").await.expect("an answer").starts_with("one "));
    let mode = |path: &std::path::Path| fs::metadata(path).expect("it is there").permissions().mode() & 0o777;
    assert_eq!(mode(&world.home.run), 0o700);
    assert_eq!(mode(&world.record()), 0o600);
    assert_eq!(mode(&world.home.run.join("web.sock")), 0o600);
    assert_eq!(mode(&world.home.logs.join("web/0.log")), 0o600);
    assert!(!fs::read_to_string(world.record()).expect("the record is there").contains("must-not-leak"));
    assert!(!world.log().contains("must-not-leak"));
}

#[tokio::test(flavor = "multi_thread")]
async fn sigterm_stops_everything() {
    let world = World::new();
    world.go(world.roll("one", free_port())).await.expect("the first roll");
    let pid = i32::try_from(world.status().await.pid).expect("a pid");
    let pid = rustix::process::Pid::from_raw(pid).expect("a pid");
    for ignored in [rustix::process::Signal::INT, rustix::process::Signal::HUP] {
        rustix::process::kill_process(pid, ignored).expect("the supervisor lives");
    }
    assert_eq!(world.status().await.wanted, 2);
    rustix::process::kill_process(pid, rustix::process::Signal::TERM).expect("the supervisor lives");
    until("all has ended", async || world.processes().is_empty()).await;
    assert_eq!(world.home.observe(&world.app).await, Observation::Absent);
}

#[tokio::test(flavor = "multi_thread")]
async fn hostile_clients_are_refused_and_hold_up_nobody() {
    let world = World::new();
    world.go(world.roll("one", free_port())).await.expect("the first roll");
    let connect = || UnixStream::connect(world.home.run.join("web.sock"));
    let mut silent = Vec::new();
    for _ in 0..20 {
        silent.push(connect().await.expect("a connection"));
    }
    for (line, answer) in [
        (b"nonsense\n".to_vec(), "malformed"),
        (b"{\"protocol\":1,\"order\":{\"kind\":\"dance\"}}\n".to_vec(), "malformed"),
        (b"{\"protocol\":99,\"order\":{\"kind\":\"later\"}}\n".to_vec(), "protocol"),
        (vec![b'['; 5 << 20], "malformed"),
    ] {
        let (reader, mut writer) = connect().await.expect("a connection").into_split();
        let sending = tokio::spawn(async move {
            let _refused_half_way = writer.write_all(&line).await;
            writer
        });
        let mut said = String::new();
        BufReader::new(reader).read_line(&mut said).await.expect("an answer");
        assert!(said.contains("refused") && said.contains(answer), "{said}");
        sending.abort();
    }
    let asked = tokio::time::timeout(Duration::from_secs(2), world.status()).await;
    assert_eq!(asked.expect("an answer at once").wanted, 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_successor_that_is_killed_leaves_the_old_supervisor_in_office() {
    let world = World::new();
    let port = free_port();
    world.go(world.roll("one", port)).await.expect("the first roll");
    let (before, old) = (world.status().await.pid, world.replicas());
    let newer = world.newer_home();
    let mut roll = world.roll("two", port);
    roll.env.0.insert("HEALTH".to_owned(), "500".to_owned());
    let lost = tokio::join!(newer.roll(&world.app, roll, |_| {}), async {
        until("both successor's replicas run", async || world.replicas().len() == 4).await;
        let record = fs::read(world.home.run.join("web.next.json")).expect("the successor's record");
        let record: serde_json::Value = serde_json::from_slice(&record).expect("the record is JSON");
        kill(u32::try_from(record["supervisor"]["pid"].as_u64().expect("a pid")).expect("a pid"));
    });
    assert!(matches!(lost.0, Err(RollError::Lost { moved: false })), "{:?}", lost.0);
    assert_eq!(world.status().await.pid, before);
    assert_eq!(world.replicas().len(), 4, "nobody ended the orphans yet");
    newer.roll(&world.app, world.roll("three", port), |_| {}).await.expect("the next takeover");
    let now = world.replicas();
    assert!(now.len() == 2 && now.iter().all(|pid| !old.contains(pid)), "no orphan: {}", world.log());
    assert!(get(port, "/").await.expect("an answer").starts_with("three "));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_successor_needs_no_living_predecessor() {
    let world = World::new();
    let port = free_port();
    world.go(world.roll("one", port)).await.expect("the first roll");
    let (before, old) = (world.status().await.pid, world.replicas());
    let newer = world.newer_home();
    let mut roll = world.roll("two", port);
    roll.health.probe = Probe::Command("test -e go".to_owned());
    let (done, ()) = tokio::join!(newer.roll(&world.app, roll, |_| {}), async {
        until("the successor's replicas run", async || world.replicas().len() == 4).await;
        kill(before);
        fs::write(world.release.join("go"), "").expect("the file is written");
    });
    done.expect("the takeover");
    until("it serves", async || get(port, "/").await.is_ok_and(|said| said.starts_with("two "))).await;
    let now = world.replicas();
    assert!(now.len() == 2 && now.iter().all(|pid| !old.contains(pid)), "no orphan: {}", world.log());
    assert_ne!(world.status().await.pid, before);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_successor_that_dies_with_the_names_in_hand_gives_them_back() {
    let world = World::new();
    let port = free_port();
    world.go(world.roll("one", port)).await.expect("the first roll");
    let before = world.status().await;
    let socket = world.home.run.join("web.sock");
    let stream = UnixStream::connect(&socket).await.expect("a connection");
    let (reader, mut writer) = stream.into_split();
    let order = b"{\"protocol\":1,\"order\":{\"kind\":\"handover\",\"fence\":8,\"stop\":false}}\n";
    writer.write_all(order).await.expect("the order is sent");
    let mut reader = BufReader::new(reader);
    let mut said = String::new();
    reader.read_line(&mut said).await.expect("an answer");
    assert!(said.contains("moved"), "{said}");
    fs::remove_file(&socket).expect("the socket was there");
    fs::remove_file(world.record()).expect("the record was there");
    get(port, "/").await.expect("it serves meanwhile");
    drop((reader, writer));
    until("it can be asked again", async || {
        matches!(world.home.observe(&world.app).await, Observation::Running(_))
    })
    .await;
    let after = world.status().await;
    assert_eq!((after.pid, after.fence), (before.pid, 8));
    world
        .go({
            let mut roll = world.roll("two", port);
            roll.fence = 8;
            roll
        })
        .await
        .expect("the next roll");
}

#[tokio::test(flavor = "multi_thread")]
async fn of_supervisors_that_start_at_once_one_takes_the_seat() {
    let world = World::new();
    for _ in 0..5 {
        let start = || {
            tokio::process::Command::new(env!("CARGO_BIN_EXE_norn"))
                .args(["supervise", "--app", "web", "--run"])
                .arg(&world.home.run)
                .arg("--logs")
                .arg(&world.home.logs)
                .stderr(std::process::Stdio::piped())
                .kill_on_drop(true)
                .spawn()
                .expect("norn starts")
        };
        let mut running: Vec<_> = (0..6).map(|_| start()).collect();
        let end = std::time::Instant::now() + std::time::Duration::from_secs(20);
        while running.len() > 1 && std::time::Instant::now() < end {
            tokio::time::sleep(std::time::Duration::from_millis(20)).await;
            running.retain_mut(|child| child.try_wait().expect("it is ours").is_none());
        }
        assert_eq!(running.len(), 1, "one goes on, the others find its seat taken");
        let mut one = running.pop().expect("there is one");
        one.kill().await.expect("it is ours");
        world.home.stop(&world.app, 1, |_| {}).await.expect("nothing is left of it");
    }
}
