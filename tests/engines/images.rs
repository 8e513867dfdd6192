//! A registry of images.

use crate::containers::greeter;
use crate::engine::Engine;
use crate::registry::{Registry, Rules};
use crate::world::World;

const WHAT: &str = "a registry of images";

#[test]
fn what_was_pushed_is_pulled_by_its_digest() {
    let (Some(engine), Some(registry)) = (Engine::shared(WHAT), Registry::shared(WHAT)) else { return };
    let image = greeter(engine, registry, "pinned:1", "pinned");
    let id = engine.ok(&format!("image inspect --format {{{{.Id}}}} {image}"));
    let pinned = engine.push(&image);
    assert!(pinned.contains("/pinned@sha256:"), "{pinned}");
    engine.ok(&format!("image rm --force {id}"));
    engine.ok(&format!("pull --quiet {pinned}"));
    assert_eq!(engine.ok(&format!("image inspect --format {{{{.Id}}}} {pinned}")), id);
}

#[test]
fn a_registry_with_a_login_refuses_whoever_has_none() {
    let (Some(engine), Some(world)) = (Engine::shared(WHAT), World::shared(WHAT)) else { return };
    let rules = Rules { login: true, delete: true, ..Rules::default() };
    let Some(registry) = Registry::start(&world, rules, WHAT) else { return };
    // Logins are one file: no other test is to write it at the same time.
    let engine = &engine.stranger(engine.host());
    let image = registry.image("closed:1");
    engine.build_base(&image);
    let refused = engine.docker(&format!("push {image}")).expect_err("it has not logged in");
    assert!(refused.contains("no basic auth credentials"), "{refused}");
    registry.login(engine);
    let pinned = engine.push(&image);
    engine.ok(&format!("logout {}", registry.host()));
    let refused = engine.docker(&format!("pull {pinned}")).expect_err("it has logged out");
    assert!(refused.contains("no basic auth credentials"), "{refused}");
}
