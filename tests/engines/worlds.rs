//! What is left of a world: nothing, however its test process ends.

use std::fs;
use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use crate::containers::greeter;
use crate::engine::Engine;
use crate::registry::Registry;
use crate::shared::free_port;
use crate::world::{World, run};
use crate::{get_soon, world};

const WHAT: &str = "the end of a world";
/// Set in a process that is to be killed.
const VICTIM: &str = "NORN_TEST_VICTIM";

#[test]
fn nothing_is_left_of_the_world_of_a_killed_process() {
    if world::named(VICTIM).is_some() {
        return victim();
    }
    if Engine::own(WHAT).is_none() || Registry::shared(WHAT).is_none() {
        return;
    }
    let own = std::env::current_exe().expect("this is a program");
    let name = "worlds::nothing_is_left_of_the_world_of_a_killed_process";
    let mut command = Command::new(own);
    command.args(["--exact", name, "--nocapture"]).env(VICTIM, "1").stdout(Stdio::piped());
    let mut child = command.spawn().expect("it starts");
    let said = BufReader::new(child.stdout.take().expect("it is piped"));
    let mut lines = said.lines().map(|line| line.expect("it is text"));
    let folder = lines.find_map(|line| line.strip_prefix("the world is ").map(str::to_owned));
    let folder = folder.expect("it says where its world is");
    assert!(!left(&folder).is_empty(), "nothing could be left: there was no world");
    child.kill().expect("it lives");
    child.wait().expect("it was ours");
    let began = Instant::now();
    while !left(&folder).is_empty() {
        assert!(began.elapsed() < Duration::from_secs(20), "{}", left(&folder).join("\n"));
        thread::sleep(Duration::from_millis(20));
    }
}

/// Has a container in its world, and waits for its end.
fn victim() {
    let (Some(engine), Some(registry)) = (Engine::own(WHAT), Registry::shared(WHAT)) else { return };
    let image = greeter(engine, registry, "victim:1", "still here");
    let port = free_port();
    engine.ok(&format!("run --detach --publish 127.0.0.1:{port}:8080 {image}"));
    assert_eq!(get_soon("127.0.0.1", port), "still here");
    let world = World::shared(WHAT).expect("the engine is in it");
    println!("\nthe world is {}", world.path("").display());
    thread::sleep(Duration::from_secs(60));
}

/// What there is of a world: its folder, processes, mounts and groups.
fn left(folder: &str) -> Vec<String> {
    let folder = folder.trim_end_matches('/');
    let name = folder.rsplit('/').next().expect("a path has an end");
    let mut left = Vec::new();
    if Path::new(folder).exists() {
        left.push(folder.to_owned());
    }
    for process in fs::read_dir("/proc").expect("it is there").flatten() {
        for file in ["cmdline", "mountinfo"] {
            let text = fs::read(process.path().join(file)).unwrap_or_default();
            let text = String::from_utf8_lossy(&text).replace('\0', " ");
            left.extend(text.lines().filter(|line| line.contains(name)).map(str::to_owned));
        }
    }
    let mut find = Command::new("find");
    let groups = run(find.args(["/sys/fs/cgroup", "-name", name])).unwrap_or_default();
    left.extend(groups.lines().map(str::to_owned));
    left
}
