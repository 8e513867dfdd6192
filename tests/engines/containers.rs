//! A Docker engine.

use crate::engine::Engine;
use crate::registry::Registry;
use crate::shared::free_port;
use crate::world::ADDRESS;
use crate::{get, get_soon};

const WHAT: &str = "containers on a Docker engine";

/// An image that answers `greeting`, and its name.
pub fn greeter(engine: &Engine, registry: &Registry, name: &str, greeting: &str) -> String {
    let image = registry.image(name);
    let base = registry.base(engine, "1");
    let dockerfile = format!(
        "FROM {base}\nCOPY index.html /www/\nEXPOSE 8080\nCMD [\"httpd\", \"-f\", \"-p\", \"8080\", \"-h\", \"/www\"]\n"
    );
    engine.build(&image, &dockerfile, &[("index.html", greeting)]);
    image
}

#[test]
fn a_published_port_answers_and_limits_hold() {
    let (Some(engine), Some(registry)) = (Engine::shared(WHAT), Registry::shared(WHAT)) else { return };
    let image = greeter(engine, registry, "published:1", "hello from a container");
    let port = free_port();
    let id = engine.ok(&format!("run --detach --memory 32m --publish 127.0.0.1:{port}:8080 {image}"));
    assert_eq!(get_soon("127.0.0.1", port), "hello from a container");
    // What the kernel lets it have, not what the engine was told.
    let limit = "cat /sys/fs/cgroup/memory/memory.limit_in_bytes /sys/fs/cgroup/memory.max";
    let read = engine.command(&format!("exec {id} {limit}")).output().expect("docker runs");
    assert_eq!(String::from_utf8_lossy(&read.stdout).trim(), "33554432");
    engine.ok(&format!("rm --force {id}"));
    get("127.0.0.1", port).expect_err("it is gone");
}

#[test]
fn an_engine_elsewhere_publishes_at_its_address() {
    let (Some(engine), Some(registry)) = (Engine::own(WHAT), Registry::shared(WHAT)) else { return };
    let image = greeter(engine, registry, "elsewhere:1", "from elsewhere");
    let engine = engine.stranger(&engine.elsewhere());
    let id = engine.ok(&format!("run --detach --publish 8080 {image}"));
    let published = engine.ok(&format!("port {id} 8080/tcp"));
    let port = published.lines().next().and_then(|line| line.rsplit(':').next()).expect("it is published");
    assert_eq!(get_soon(ADDRESS, port.parse().expect("it is a number")), "from elsewhere");
    engine.ok(&format!("rm --force {id}"));
}

#[test]
fn an_engine_that_was_killed_comes_back_with_what_must_run() {
    let Some(engine) = Engine::apart(WHAT) else { return };
    engine.build_base("base:1");
    let port = free_port();
    let serve = "base:1 sh -c";
    let mut run = engine.command(&format!(
        "run --detach --restart always --stop-signal KILL --publish 127.0.0.1:{port}:80 {serve}"
    ));
    let output =
        run.arg("echo again >/tmp/index.html; exec httpd -f -p 80 -h /tmp").output().expect("docker runs");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    assert_eq!(get_soon("127.0.0.1", port), "again");
    engine.kill();
    engine.docker("ps").expect_err("nobody is there");
    engine.revive();
    assert_eq!(get_soon("127.0.0.1", port), "again");
}
