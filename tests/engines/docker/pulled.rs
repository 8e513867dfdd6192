//! Images that are pulled instead of built, at the digest of the plan.

use crate::engine::Engine;
use crate::registry::{PASSWORD, Registry, Rules, USER};
use crate::shared::free_port;
use crate::world::World;

use super::{Shop, WHAT, has};

/// An image of the registry that serves its word.
fn push(engine: &Engine, image: &str, word: &str) -> String {
    let dockerfile = "FROM norn-base:1\nCOPY word /www/index.html\nCMD [\"sh\", \"-c\", \"trap 'exit 0' TERM; httpd -f -p $PORT -h /www & wait\"]\n";
    engine.build(image, dockerfile, &[("word", word)]);
    engine.push(image)
}

impl Shop<'_> {
    fn pulls(&self, image: &str, more: &str) {
        self.apps(&format!(
            "  web: {{role: webserver, image: \"{image}\", port: {}, healthcheck: {{path: /, interval: 1s}}}}\n{more}",
            self.port
        ));
    }
}

#[test]
fn an_image_is_pulled_at_the_digest_of_the_plan() {
    let (Some(shop), Some(registry)) = (Shop::new(), Registry::shared(WHAT)) else { return };
    let (engine, image) = (shop.engine, registry.image(&format!("{}:1", shop.project)));
    let first = push(engine, &image, "one");
    shop.pulls(&image, "");
    let ran = shop.ok("apply --yes");
    has(&ran.out, &[&format!("from image {image}"), "steps    build, deploy, cleanup"]);
    assert_eq!(shop.get().as_deref().ok(), Some("one"));
    shop.plan_is_empty();

    // The tag moves: the plan says from where to where, and what is saved is what is pulled.
    let second = push(engine, &image, "two");
    assert_ne!(first, second);
    let planned = shop.ok("plan --out two.norn");
    has(&planned.out, &["its image is another, "]);
    push(engine, &image, "three");
    shop.ok("apply two.norn");
    assert_eq!(shop.get().as_deref().ok(), Some("two"));

    // Nothing that was pulled keeps it here, or is taken from others.
    shop.destroy();
    assert_eq!(shop.containers(), Vec::<String>::new());
    let names = engine.ok("images --format {{.Repository}}");
    assert!(!names.contains(&format!("{}/web", shop.project)), "{names}");
}

#[test]
fn a_registry_that_wants_a_login_gets_the_specs() {
    let (Some(mut shop), Some(world)) = (Shop::new(), World::shared(WHAT)) else { return };
    let Some(registry) = Registry::start(&world, Rules { login: true, ..Rules::default() }, WHAT) else {
        return;
    };
    let pusher = shop.engine.stranger(shop.engine.host());
    let image = registry.image(&format!("{}:1", shop.project));
    registry.login(&pusher);
    push(&pusher, &image, "closed");
    shop.pulls(&image, "");
    let ran = shop.run("plan");
    assert_eq!(ran.code, 1, "{}", ran.out);
    let host = registry.host();
    has(
        &ran.err,
        &[
            &format!("web: the registry {host} has no image {image}, or this user may not see it"),
            "docker login",
        ],
    );

    let more = format!("registry: {{url: {host}, username: {USER}, password: \"${{SECRET}}\"}}\n");
    shop.pulls(&image, &more);
    shop.sandbox.env.insert("SECRET".into(), PASSWORD.into());
    let ran = shop.ok("apply --yes -v");
    assert_eq!(shop.get().as_deref().ok(), Some("closed"));
    assert!(!ran.out.contains(PASSWORD) && !ran.err.contains(PASSWORD));
    shop.sandbox.env.insert("SECRET".into(), "wrong".into());
    assert_eq!(shop.run("plan").code, 1);
    shop.sandbox.env.insert("SECRET".into(), PASSWORD.into());
    shop.destroy();
}

#[test]
fn a_registry_that_cannot_be_reached_is_not_told_as_one_without_the_image() {
    let (Some(engine), Some(world)) = (Engine::own(WHAT), World::shared(WHAT)) else { return };
    let Some(registry) = Registry::start(&world, Rules::default(), WHAT) else { return };
    let shop = Shop::on(engine);
    let (closed, plain) = (format!("127.0.0.1:{}", free_port()), registry.elsewhere());
    for (host, what) in [
        (&closed, format!("the Docker engine cannot reach the registry {closed}: ")),
        (&plain, format!("the registry {plain} speaks plain HTTP")),
    ] {
        shop.pulls(&format!("{host}/web:1"), "");
        let ran = shop.fails("plan", 1);
        has(&ran.err, &[&what]);
        assert!(!ran.err.contains("docker login"), "{}", ran.err);
    }
}
