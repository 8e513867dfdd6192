//! An engine that is not there, not for this user, or that dies at work; and images that are gone.

use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::CommandExt;

use crate::engine::Engine;
use crate::sandbox::{kill, until};

use super::checks::{nap, pids, runs};
use super::{Shop, WHAT, has};

#[test]
fn an_engine_that_cannot_be_used_is_told_with_what_mends_it() {
    let Some(mut shop) = Shop::new() else { return };
    shop.web("");
    let mut says = |host: &str, words: &[&str]| {
        shop.sandbox.env.insert("DOCKER_HOST".into(), host.into());
        has(&shop.fails("apply --yes", 1).err, words);
        assert_eq!(shop.open_in_journal(), 0);
        assert_eq!(shop.rows().len(), 0, "nothing is begun");
    };
    says(
        "unix:///nowhere/docker.sock",
        &["there is no Docker engine at unix:///nowhere/docker.sock: start it, or name another"],
    );
    says(
        "tcp://10.77.0.1:2375",
        &["there is no Docker engine at tcp://10.77.0.1:2375: start it, or name another"],
    );
    says(
        "docker.sock",
        &["`docker.sock` is no address of a Docker engine: write unix:///path/to/docker.sock"],
    );
    shop.sandbox.env.insert("DOCKER_HOST".into(), shop.engine.host().into());
    shop.ok("apply --yes");
    shop.sandbox.env.insert("DOCKER_HOST".into(), "unix:///nowhere/docker.sock".into());
    for command in ["plan", "restart web --yes", &format!("destroy --yes --confirm {}", shop.project)] {
        has(&shop.fails(command, 1).err, &["there is no Docker engine at unix:///nowhere/docker.sock"]);
        assert_eq!(shop.get().expect("it serves on"), " grey one");
    }
    shop.sandbox.env.insert("DOCKER_HOST".into(), shop.engine.host().into());
    shop.destroy();
    shop.comes_to(0, 0);
}

#[test]
fn a_user_whom_the_engine_does_not_know_is_told_so() {
    let Some(engine) = Engine::own(WHAT) else { return };
    let shop = Shop::on(engine);
    shop.web("");
    // The folders of the world and of the project are for anybody in this test; the socket is not.
    let socket = std::path::Path::new(engine.host().trim_start_matches("unix://"));
    for folder in [socket.parent().expect("it is in a folder"), shop.dir.path()] {
        std::fs::set_permissions(folder, PermissionsExt::from_mode(0o755)).expect("it is ours");
    }
    let nobody = 65_534;
    for path in ["", "home", "web"] {
        std::os::unix::fs::chown(shop.path(path), Some(nobody), Some(nobody)).expect("root may");
    }
    let norn = shop.path("norn");
    std::fs::copy(&shop.norn, &norn).expect("it is copied");
    let mut command = shop.command("apply --yes");
    let environment: Vec<_> =
        command.get_envs().map(|(name, value)| (name.to_owned(), value.map(ToOwned::to_owned))).collect();
    command = std::process::Command::new(norn);
    command.args(["apply", "--yes"]).current_dir(shop.dir.path()).env_clear().uid(nobody).gid(nobody);
    command.envs(environment.into_iter().filter_map(|(name, value)| Some((name, value?))));
    let output = command.output().expect("norn starts");
    let said = String::from_utf8_lossy(&output.stderr);
    has(
        &said,
        &[
            "this user may not use the Docker engine at unix://",
            "add it to the group `docker`, then log in again",
        ],
    );
    assert_eq!(output.status.code(), Some(1), "{said}");
}

#[test]
fn an_engine_that_dies_in_a_build_fails_it_and_one_that_comes_back_has_its_apps_again() {
    let Some(engine) = Engine::apart(WHAT) else { return };
    let shop = Shop::on(&engine);
    let nap = nap(4);
    shop.write("web/Dockerfile", &format!("FROM norn-base:1\nRUN {nap}\n"));
    shop.web("env: {VERSION: v1}\nreplicas: 2");
    std::thread::scope(|scope| {
        let apply = scope.spawn(|| shop.fails("apply --yes", 3));
        until("the build runs", || runs(&nap));
        engine.kill();
        let ran = apply.join().expect("norn ends");
        has(&ran.err, &["the Docker engine at unix://", "broke off when it was asked to build the image"]);
    });
    assert_eq!(shop.open_in_journal(), 0);
    // What the build ran outlives the engine, with an address that the next container is given too.
    pids(&nap).into_iter().for_each(kill);
    engine.revive();
    shop.write("web/Dockerfile", super::DOCKERFILE);
    shop.ok("apply --yes");
    assert_eq!(shop.get().expect("it serves"), "v1 grey one");

    engine.kill();
    has(&shop.fails("plan", 1).err, &["there is no Docker engine at unix://"]);
    engine.revive();
    until("it serves again", || shop.get().is_ok_and(|body| body == "v1 grey one"));
    until("it is well again", || shop.run("plan --detailed-exitcode").code == 0);
    shop.comes_to(2, 1);

    // Gone by hand: the release with it.
    let ids = shop.containers().join(" ");
    shop.engine.ok(&format!("rm --force {ids}"));
    until("it serves again", || shop.get().is_ok_and(|body| body == "v1 grey one"));
    shop.destroy();
    shop.comes_to(0, 0);
}

#[test]
fn an_image_that_was_removed_by_hand_is_missed_and_made_again() {
    let Some(shop) = Shop::new() else { return };
    shop.web("env: {VERSION: v1}");
    shop.ok("apply --yes");
    let image = shop.images().remove(0);
    // The supervisor makes containers as fast as they are removed, until there is no image.
    until("the image is gone", || {
        for container in shop.containers() {
            let _gone = shop.engine.docker(&format!("rm --force {container}"));
        }
        shop.engine.docker(&format!("image rm --force {image}")).is_ok()
    });
    until("nothing runs", || shop.containers().is_empty());
    let plan = shop.run("plan");
    has(&plan.out, &["deploy/web", "gone"]);
    shop.ok("apply --yes");
    shop.comes_to(1, 1);
    assert_eq!(shop.get().expect("it serves"), "v1 grey one");
    shop.plan_is_empty();
    shop.destroy();
    shop.comes_to(0, 0);
}
