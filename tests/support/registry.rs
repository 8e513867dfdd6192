//! A registry of images, on 127.0.0.1 of the test process's world, and base images in it.
//!
//! `NORN_TEST_REGISTRY` names another one, such as `registry.example.com/tests`, that the engine
//! may push to and the user's cluster may pull from. The module that has this one also has
//! `tests/support/engine.rs` and `world.rs`, as `engine` and `world`.

#![allow(dead_code, reason = "each test binary uses its part")]

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, OnceLock, PoisonError};

use super::engine::Engine;
use super::shared::{free_port, skipped};
use super::world::{ADDRESS, Served, World, missing, named, run};

pub const USER: &str = "norn";
pub const PASSWORD: &str = "p@ss/w:rd%+#";
/// The password as the registry wants it: by bcrypt.
const HASH: &str = "$2y$05$norntestsnorntestsnor.bo2zqjcFrAzFhIxoSR6w2pZsZ8YDSv6";

/// How a registry is to be.
#[derive(Debug, Clone, Copy, Default)]
pub struct Rules {
    /// Whether it wants USER and PASSWORD, for pulling too.
    pub login: bool,
    /// Whether images can be deleted.
    pub delete: bool,
    /// How many MiB there are for its images, if they are to be few.
    pub space: Option<u32>,
}

pub struct Registry {
    host: String,
    /// The tags of the base images that are there.
    bases: Mutex<BTreeSet<String>>,
    own: Option<Own>,
}

/// A registry that is ours.
struct Own {
    world: Arc<World>,
    port: u16,
    server: Mutex<Served>,
}

impl Registry {
    /// The registry of this process, without login. `what` is not tested where there is none.
    pub fn shared(what: &str) -> Option<&'static Self> {
        static SHARED: OnceLock<Option<Registry>> = OnceLock::new();
        if let Some(host) = named("NORN_TEST_REGISTRY") {
            return SHARED.get_or_init(|| Some(Self::of(host, None))).as_ref();
        }
        let world = World::shared(what)?;
        SHARED.get_or_init(|| Self::start(&world, Rules::default(), what)).as_ref()
    }

    /// A further one. The calling thread is on the world's network from then on.
    pub fn start(world: &Arc<World>, rules: Rules, what: &str) -> Option<Self> {
        if let Some(program) = missing(&["docker-registry", "busybox"]) {
            skipped(what, &format!("there is no {program}"));
            return None;
        }
        world.enter();
        let port = free_port();
        let data = world.path(&format!("registry-{port}"));
        if let Some(space) = rules.space {
            std::fs::create_dir(&data).expect("the folder is made");
            let mut mount = world.command("mount");
            mount.args(["-t", "tmpfs", "-o", &format!("size={space}m"), "tmpfs"]).arg(&data);
            run(&mut mount).expect("it is mounted");
        }
        // What is at another address than a loopback one is another host's to an engine.
        let host = if world.has_own_network() { "" } else { "127.0.0.1" };
        let mut config = format!(
            "version: 0.1\nstorage: {{filesystem: {{rootdirectory: {}}}, delete: {{enabled: {}}}}}\n\
             http: {{addr: \"{host}:{port}\"}}\n",
            data.display(),
            rules.delete
        );
        if rules.login {
            let users = world.write(&format!("registry-{port}.users"), &format!("{USER}:{HASH}\n"));
            config += &format!("auth: {{htpasswd: {{realm: tests, path: {}}}}}\n", users.display());
        }
        world.write(&format!("registry-{port}.yaml"), &config);
        let server = Mutex::new(serve(world, port));
        Some(Self::of(format!("127.0.0.1:{port}"), Some(Own { world: Arc::clone(world), port, server })))
    }

    fn of(host: String, own: Option<Own>) -> Self {
        Self { host, bases: Mutex::default(), own }
    }

    fn ours(&self) -> &Own {
        self.own.as_ref().expect("the registry is ours")
    }

    /// Kills it as a crash does. What it has stays.
    pub fn kill(&self) {
        self.ours().server.lock().unwrap_or_else(PoisonError::into_inner).kill();
    }

    /// Starts the one that was killed.
    pub fn revive(&self) {
        let own = self.ours();
        *own.server.lock().unwrap_or_else(PoisonError::into_inner) = serve(&own.world, own.port);
    }

    /// The folder of what it has.
    pub fn folder(&self) -> PathBuf {
        let own = self.ours();
        own.world.path(&format!("registry-{}", own.port))
    }

    /// Its host as one that is elsewhere, in a world with its own network.
    pub fn elsewhere(&self) -> String {
        format!("{ADDRESS}:{}", self.ours().port)
    }

    /// What the names of its images begin with, such as `127.0.0.1:5000`.
    pub fn host(&self) -> &str {
        &self.host
    }

    /// The name of an image here.
    pub fn image(&self, name: &str) -> String {
        format!("{}/{name}", self.host)
    }

    /// Puts an image of only busybox there (see [`Engine::build_base`]), and gives its name,
    /// `127.0.0.1:PORT/base:TAG`. The engine must have logged in where that is needed.
    pub fn base(&self, engine: &Engine, tag: &str) -> String {
        let image = self.image(&format!("base:{tag}"));
        let mut bases = self.bases.lock().unwrap_or_else(PoisonError::into_inner);
        if !bases.contains(tag) {
            engine.build_base(&image);
            engine.push(&image);
            bases.insert(tag.to_owned());
        }
        image
    }

    /// Logs the engine in.
    pub fn login(&self, engine: &Engine) {
        engine.ok(&format!("login --username {USER} --password {PASSWORD} {}", self.host));
    }
}

fn serve(world: &World, port: u16) -> Served {
    let name = format!("registry-{port}");
    let mut command = world.command("docker-registry");
    command.arg("serve").arg(world.path(&format!("{name}.yaml")));
    let server = world.serve(&name, command);
    server.until_listening(port);
    server
}
