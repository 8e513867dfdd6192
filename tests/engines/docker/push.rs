//! Images that go to a registry.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::process::{Child, Command, Stdio};

use norn::desired::{Login, Registry as Own};
use norn::provider::docker::Engine as Reached;
use norn::provider::docker::address::Address;
use norn::provider::docker::registry::Logins;
use norn::secret::Secret;

use crate::cluster::Cluster;
use crate::engine::Engine;
use crate::registry::{PASSWORD, Registry, Rules, USER};
use crate::sandbox::until;
use crate::shared::free_port;
use crate::world::{World, named};

use super::{BASE, Shop, WHAT, has};

/// Set in a process that pushes: what, where to and as what, split at white space.
const PUSH: &str = "NORN_TEST_PUSH";
/// Set in it if it looks up what nodes get, too.
const NODES: &str = "NORN_TEST_PUSH_NODES";
/// The password of the spec, if it has one.
const OWN: &str = "NORN_TEST_PUSH_PASSWORD";
/// What a push may add to norn's memory, in KiB.
const MEMORY: u64 = 16 * 1024;

/// What came of a push.
#[derive(Debug)]
struct Pushed {
    /// The name with the digest, or the error.
    result: Result<String, String>,
    lines: Vec<String>,
    /// What nodes get, or the error.
    nodes: Option<String>,
    /// The most memory before and after, in KiB.
    memory: (u64, u64),
}

/// A push in a process of its own, which has the environment of the engine's user.
struct Push<'a> {
    engine: &'a Engine,
    env: BTreeMap<&'static str, String>,
}

impl<'a> Push<'a> {
    fn of(engine: &'a Engine, id: &str, image: &str) -> Self {
        let (repository, tag) = image.rsplit_once(':').expect("it has a tag");
        Self { engine, env: BTreeMap::from([(PUSH, format!("{id} {repository} {tag}"))]) }
    }

    fn with(mut self, name: &'static str, value: &str) -> Self {
        self.env.insert(name, value.to_owned());
        self
    }

    fn start(self) -> Child {
        let mut command = Command::new(std::env::current_exe().expect("this is a program"));
        command.args(["--ignored", "--exact", "--nocapture", "docker::push::child_that_pushes"]);
        command.envs(self.engine.env()).envs(self.env).stdout(Stdio::piped());
        command.spawn().expect("it starts")
    }

    fn run(self) -> Pushed {
        end(self.start())
    }

    /// The error of one that fails.
    fn fails(self) -> String {
        let pushed = self.run();
        pushed.result.expect_err("it cannot be pushed")
    }
}

fn end(child: Child) -> Pushed {
    let output = child.wait_with_output().expect("it is ours");
    let text = String::from_utf8(output.stdout).expect("it is text");
    assert!(output.status.success(), "{text}");
    let told = |what: &str| text.lines().find_map(|line| line.strip_prefix(what)).map(str::to_owned);
    let number = |what: &str| told(what).and_then(|text| text.parse().ok()).expect("it measures");
    Pushed {
        result: told("pushed ").ok_or_else(|| told("failed ").expect("it says how it went")),
        lines: text.lines().filter_map(|line| line.strip_prefix("told ")).map(str::to_owned).collect(),
        nodes: told("nodes "),
        memory: (number("before "), number("after ")),
    }
}

#[tokio::test]
#[ignore = "a part of the others"]
async fn child_that_pushes() {
    let Some(push) = named(PUSH) else { return };
    let [id, repository, tag] = push.split_whitespace().collect::<Vec<_>>()[..] else { panic!("{push}") };
    let logins = Logins { own: named(OWN).map(|password| own_login(repository, &password)) };
    println!();
    if named(NODES).is_some() {
        let found = logins.docker_config(&format!("{repository}:{tag}")).await;
        let found = found.map(|config| config.map(|config| config.expose().to_owned()));
        println!("nodes {}", found.map_or_else(|error| error.to_string(), |config| format!("{config:?}")));
    }
    let host = named("DOCKER_HOST").expect("it is set");
    let engine = Reached::connect(&Address::of(Some(host.as_str()))).await.expect("it is there");
    println!("before {}", peak());
    match engine.push(id, repository, tag, &logins, |line| println!("told {line}")).await {
        Ok(pinned) => println!("pushed {pinned}"),
        Err(error) => println!("failed {error}"),
    }
    println!("after {}", peak());
}

/// The login of the spec for the registry of a repository.
fn own_login(repository: &str, password: &str) -> Own {
    let login = Login { username: USER.to_owned(), password: Secret::new(password) };
    Own { url: repository.split('/').next().expect("it has a host").to_owned(), login: Some(login) }
}

/// The most memory that this process has had, in KiB.
fn peak() -> u64 {
    let status = fs::read_to_string("/proc/self/status").expect("it is there");
    let seen = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
    let seen = seen.and_then(|size| size.trim().trim_end_matches(" kB").parse().ok());
    seen.expect("it is measured")
}

/// An image with a layer of so many million bytes that cannot be made less; its id and its name.
fn image(shop: &Shop<'_>, name: &str, size: u32) -> (String, String) {
    let tag = format!("{}-{name}:1", shop.project);
    let dockerfile = format!(
        "FROM norn-base:1\nRUN dd if=/dev/urandom of=/noise bs=1000000 count={size}\nRUN touch /last\n"
    );
    shop.engine.build(&tag, &dockerfile, &[]);
    (id(shop.engine, &tag), tag)
}

fn id(engine: &Engine, name: &str) -> String {
    engine.ok(&format!("image inspect --format {{{{.Id}}}} {name}"))
}

fn is_there(engine: &Engine, name: &str) -> bool {
    engine.docker(&format!("image inspect {name}")).is_ok()
}

#[test]
fn what_is_pushed_is_pulled_by_the_digest_that_comes_back() {
    let (Some(engine), Some(registry)) = (Engine::shared(WHAT), Registry::shared(WHAT)) else { return };
    let shop = Shop::on(engine);
    let (first, name) = image(&shop, "one", 2);
    let there = registry.image(&format!("{}/web:1", shop.project));
    let repository = there.trim_end_matches(":1");
    let pushed = Push::of(engine, &first, &there).run();
    let pinned = pushed.result.expect("it is pushed");
    let digest = pinned.strip_prefix(&format!("{repository}@sha256:")).expect("it is pinned");
    assert_eq!(digest.len(), 64, "{pinned}");
    let lines = pushed.lines.join("\n");
    has(
        &lines,
        &["refers to repository", "layer 1 of 3: ", "layer 3 of 3: ", &format!("1: digest: sha256:{digest}")],
    );
    assert_eq!(pushed.lines.len(), 5, "{lines}");
    // The name was for the push alone.
    assert!(!is_there(engine, &there) && is_there(engine, &name));

    // Again: the same, and nothing is sent.
    let again = Push::of(engine, &first, &there).run();
    assert_eq!(again.result.as_deref(), Ok(pinned.as_str()));
    let kept = again.lines.iter().filter(|line| line.ends_with(": Layer already exists")).count();
    assert_eq!((kept, again.lines.len()), (3, 5), "{:?}", again.lines);

    // A name that was there before is what it was.
    let (second, _) = image(&shop, "two", 1);
    engine.ok(&format!("tag {first} {there}"));
    let other = Push::of(engine, &second, &there).run().result.expect("it is pushed");
    assert_ne!(other, pinned);
    assert_eq!(id(engine, &there), first);

    engine.ok(&format!("image rm --force {first}"));
    assert!(!is_there(engine, &first) && !is_there(engine, &pinned));
    engine.ok(&format!("pull --quiet {pinned}"));
    assert_eq!(id(engine, &pinned), first);
    engine.ok(&format!("image rm --force {first}"));

    // An image goes with its last name. A digest is one, and where there is none, this name stays.
    engine.ok(&format!("image rm {}-two:1", shop.project));
    engine.ok(&format!("pull --quiet {pinned}"));
    let further = registry.image(&format!("{}/further:1", shop.project));
    Push::of(engine, &first, &further).run().result.expect("it is pushed");
    assert!(is_there(engine, &pinned) && !is_there(engine, &further));
    let container = engine.ok(&format!("create {BASE}"));
    let nameless = engine.ok(&format!("commit {container}"));
    engine.ok(&format!("rm {container}"));
    for _ in 0..2 {
        Push::of(engine, &nameless, &further).run().result.expect("it is pushed");
        assert_eq!(id(engine, &further), nameless);
    }
    engine.ok(&format!("image rm --force {first} {nameless}"));
}

#[test]
fn a_registry_that_wants_a_login_gets_the_specs_else_dockers() {
    let (Some(engine), Some(world)) = (Engine::shared(WHAT), World::shared(WHAT)) else { return };
    let Some(registry) = Registry::start(&world, Rules { login: true, ..Rules::default() }, WHAT) else {
        return;
    };
    let shop = Shop::on(engine);
    let (id, _) = image(&shop, "closed", 1);
    let (there, host) = (registry.image("shop/web:1"), registry.host());
    // Logins are one file: no other test is to write it at the same time.
    let engine = &engine.stranger(engine.host());
    let push = || Push::of(engine, &id, &there).with(NODES, "1");
    let none = push().run();
    assert_eq!(none.nodes.as_deref(), Some("None"));
    assert_eq!(
        none.result.expect_err("there is no login"),
        format!(
            "the registry {host} wants a login to take {there}: no basic auth credentials; give `registry.username` and `registry.password` in the spec, or log in with `docker login {host}`"
        )
    );
    let wrong = push().with(OWN, "wrong").fails();
    has(
        &wrong,
        &[
            &format!("the registry {host} does not take {there} with the login of `{USER}`: "),
            &format!(
                "mend `registry.username` and `registry.password` in the spec, or log in with `docker login {host}`"
            ),
        ],
    );
    assert!(!is_there(engine, &there), "a push that fails leaves a name");

    let by_spec = push().with(OWN, PASSWORD).run();
    let pinned = by_spec.result.expect("the login is right");
    assert!(!by_spec.lines.join("\n").contains(PASSWORD));
    registry.login(engine);
    let by_docker = push().run();
    assert_eq!(by_docker.result.as_deref(), Ok(pinned.as_str()));
    // Nodes get the one that the engine got, wherever it is from.
    let nodes = by_docker.nodes.expect("it is looked up");
    has(&nodes, &["auths", host, PASSWORD, "bm9ybjpw"]);
    assert_eq!(by_spec.nodes.as_ref(), Some(&nodes));

    let folder = &engine.env().into_iter().find(|(name, _)| *name == "DOCKER_CONFIG").expect("it has one").1;
    let token = format!(r#"{{"auths": {{"{host}": {{"auth": "", "identitytoken": "of the user"}}}}}}"#);
    fs::write(Path::new(folder).join("config.json"), token).expect("it is written");
    let nodes = push().run().nodes.expect("it is looked up");
    has(
        &nodes,
        &[
            &format!("the login for the registry {host} is not to be had"),
            "cannot use: give `registry.username` and `registry.password` in the spec",
        ],
    );
}

#[test]
fn a_registry_that_dies_in_the_middle_gets_the_rest_by_the_next_push() {
    let (Some(engine), Some(world)) = (Engine::shared(WHAT), World::shared(WHAT)) else { return };
    let Some(registry) = Registry::start(&world, Rules::default(), WHAT) else { return };
    let shop = Shop::on(engine);
    let (id, _) = image(&shop, "large", 300);
    let there = registry.image("large:1");
    let push = Push::of(engine, &id, &there).start();
    until("a part is there", || (20_000_000..250_000_000).contains(&size(&registry.folder())));
    registry.kill();
    let broken = end(push);
    let host = registry.host();
    let error = broken.result.expect_err("there is no registry");
    has(
        &error,
        &[
            &format!("the push of {there} broke off: "),
            &format!("; see that the registry {host} runs, then push again"),
        ],
    );
    // The engine counts down to its next attempt: that is told once.
    let pauses = broken.lines.iter().filter(|line| line.starts_with("Retrying in ")).count();
    assert!(pauses < 5 && broken.lines.len() < 10, "{:?}", broken.lines);
    assert!(!is_there(engine, &there));

    registry.revive();
    let pushed = Push::of(engine, &id, &there).run();
    let pinned = pushed.result.expect("the registry is back");
    let (before, after) = pushed.memory;
    assert!(after - before < MEMORY, "{before} KiB, then {after} KiB");
    engine.ok(&format!("image rm --force {id}"));
    engine.ok(&format!("pull --quiet {pinned}"));
    assert_eq!(self::id(engine, &pinned), id);
    engine.ok(&format!("image rm --force {id}"));
}

/// What the files of a folder have, in bytes.
fn size(folder: &Path) -> u64 {
    let entries = fs::read_dir(folder).into_iter().flatten().flatten();
    entries
        .map(|entry| match entry.metadata() {
            Ok(of) if of.is_dir() => size(&entry.path()),
            Ok(of) => of.len(),
            Err(_) => 0,
        })
        .sum()
}

#[test]
fn a_place_that_takes_no_image_is_told_with_what_mends_it() {
    let (Some(engine), Some(world)) = (Engine::own(WHAT), World::shared(WHAT)) else { return };
    let Some(registry) = Registry::start(&world, Rules::default(), WHAT) else { return };
    let shop = Shop::on(engine);
    let (id, name) = image(&shop, "unwanted", 1);
    let says = |there: &str, words: &[&str]| {
        has(&Push::of(engine, &id, there).fails(), words);
        assert!(is_there(engine, &name) && !is_there(engine, there), "{there}");
    };
    let closed = format!("127.0.0.1:{}", free_port());
    says(
        &format!("{closed}/web:1"),
        &[
            &format!("the Docker engine cannot reach the registry {closed}: "),
            "connection refused; see that it runs, and that its host and port in the spec are right",
        ],
    );
    says("registry.invalid/web:1", &["the Docker engine cannot reach the registry registry.invalid: "]);
    let plain = registry.elsewhere();
    says(
        &format!("{plain}/web:1"),
        &[
            &format!("the registry {plain} speaks plain HTTP"),
            &format!("add \"{plain}\" to `insecure-registries` in the engine's daemon.json"),
        ],
    );
    let large = registry.image("Shop/web:1");
    says(
        &large,
        &[
            &format!("`{large}` is no name for an image: "),
            "must be lowercase; `registry.url` in the spec is a host",
        ],
    );
    engine.ok(&format!("image rm --force {id}"));
}

#[test]
fn a_registry_without_space_is_told() {
    let (Some(engine), Some(world)) = (Engine::shared(WHAT), World::shared(WHAT)) else { return };
    let Some(registry) = Registry::start(&world, Rules { space: Some(4), ..Rules::default() }, WHAT) else {
        return;
    };
    let shop = Shop::on(engine);
    let (id, _) = image(&shop, "large", 8);
    let (there, host) = (registry.image("web:1"), registry.host());
    // All that this one tells is that it failed.
    let words =
        [&format!("the registry {host} failed while it was sent {there}: "), "often its disk is full"];
    has(&Push::of(engine, &id, &there).fails(), &words);
    engine.ok(&format!("image rm --force {id}"));
}

#[tokio::test]
async fn nodes_pull_what_was_pushed_with_the_login_that_they_are_given() {
    // A user's cluster cannot reach a registry of the world.
    if Engine::own(WHAT).is_none() {
        return;
    }
    let (Some(cluster), Some(world)) = (Cluster::shared(WHAT), World::shared(WHAT)) else { return };
    let Some(registry) = Registry::start(&world, Rules { login: true, ..Rules::default() }, WHAT) else {
        return;
    };
    let shop = Shop::on(cluster.engine);
    let there = registry.image(&format!("{}/web:1", shop.project));
    let pushed = Push::of(cluster.engine, BASE, &there).with(OWN, PASSWORD).run();
    let pinned = pushed.result.expect("it is pushed");
    let logins = Logins { own: Some(own_login(&pinned, PASSWORD)) };
    let config = logins.docker_config(&pinned).await.expect("it is in the spec").expect("it is known");
    let space = cluster.namespace();
    let pod = |name: &str, more: &str| {
        space.apply(&format!(
            "apiVersion: v1
kind: Pod
metadata: {{name: {name}, labels: {{app: {name}}}}}
spec:
  restartPolicy: Never
  containers: [{{name: web, image: \"{pinned}\", command: [sh, -c, echo pulled]}}]
{more}"
        ));
    };
    pod("stranger", "");
    let waits = "get pod stranger --output jsonpath={.status.containerStatuses[0].state.waiting.reason}";
    until("a node without a login is refused", || space.ok(waits).contains("ImagePull"));
    space.apply(&format!(
        "apiVersion: v1
kind: Secret
metadata: {{name: login}}
type: kubernetes.io/dockerconfigjson
stringData: {{.dockerconfigjson: '{}'}}
",
        config.expose()
    ));
    pod("member", "  imagePullSecrets: [{name: login}]\n");
    let done = space.kubectl("wait pod/member --timeout 30s --for jsonpath={.status.phase}=Succeeded");
    assert!(done.is_ok(), "{done:?}\n{}", space.story());
    assert_eq!(space.ok("logs member"), "pulled");
}
