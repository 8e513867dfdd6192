//! A Docker engine: the one that `DOCKER_HOST` names, else one of the test process's own, in its
//! world. Images are made from nothing and a static busybox, as none can be pulled.
//!
//! The module that has this one also has `tests/support/world.rs`, as `world`.

#![allow(dead_code, reason = "each test binary uses its part")]

use std::fs;
use std::io::{self, Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::thread;
use std::time::Duration;

use tempfile::TempDir;

use super::shared::skipped;
use super::world::{ADDRESS, Served, World, missing, named, program, run};

pub struct Engine {
    host: String,
    /// The folder of docker's settings and logins. The user's are right for the user's engine.
    config: Option<PathBuf>,
    own: Option<Own>,
    /// That folder, if it goes with this.
    _settings: Option<TempDir>,
}

/// An engine that is ours.
struct Own {
    world: Arc<World>,
    daemon: Mutex<Served>,
}

impl Engine {
    /// The engine of this process. `what` is not tested where there is none.
    pub fn shared(what: &str) -> Option<&'static Self> {
        static NAMED: OnceLock<Option<Engine>> = OnceLock::new();
        let users = NAMED.get_or_init(|| {
            let host = named("DOCKER_HOST")?;
            Some(Self { host, config: None, own: None, _settings: None })
        });
        let Some(engine) = users else {
            return Self::own(what);
        };
        if missing(&["docker"]).is_some() {
            skipped(what, "there is no docker");
            return None;
        }
        Some(engine)
    }

    /// The same, but always an engine of this process's own.
    pub fn own(what: &str) -> Option<&'static Self> {
        static OWN: OnceLock<Engine> = OnceLock::new();
        let world = World::shared(what).filter(|_| installed(what))?;
        if !world.has_own_network() {
            // Engines take each other's packet filters away.
            skipped(what, "it wants an engine of its own, but DOCKER_HOST or NORN_TEST_KUBECONFIG is set");
            return None;
        }
        Some(OWN.get_or_init(|| Self::start(&world)))
    }

    /// An engine that a test may kill, in a world of its own, on whose network the calling thread
    /// is from then on. Nothing else is there yet, such as a registry.
    pub fn apart(what: &str) -> Option<Self> {
        if !installed(what) {
            return None;
        }
        match World::start(true) {
            Ok(world) => {
                world.enter();
                Some(Self::start(&world))
            }
            Err(why) => {
                skipped(what, &why);
                None
            }
        }
    }

    /// The same engine for somebody else: with no logins. `host` is a name of it.
    pub fn stranger(&self, host: &str) -> Self {
        let settings = TempDir::new().expect("a temporary folder");
        Self {
            host: host.to_owned(),
            config: Some(settings.path().to_owned()),
            own: None,
            _settings: Some(settings),
        }
    }

    /// An engine in a world with its own network that has none yet.
    pub fn start(world: &Arc<World>) -> Self {
        let daemon = daemon(world, &[]);
        let host = format!("unix://{}", socket(world).display());
        let config = Some(world.path("docker-config"));
        let own = Some(Own { world: Arc::clone(world), daemon: Mutex::new(daemon) });
        Self { host, config, own, _settings: None }
    }

    /// What `DOCKER_HOST` is to be.
    pub fn host(&self) -> &str {
        &self.host
    }

    /// The variables by which a program finds this engine and, if it is ours, no settings of the
    /// user's.
    pub fn env(&self) -> Vec<(&'static str, String)> {
        let config = self.config.as_ref().map(|folder| ("DOCKER_CONFIG", folder.display().to_string()));
        [("DOCKER_HOST", self.host.clone())].into_iter().chain(config).collect()
    }

    /// Kills the engine as a crash does. Its containers live on until it is revived.
    pub fn kill(&self) {
        let own = self.ours();
        own.daemon.lock().unwrap_or_else(PoisonError::into_inner).kill();
        while UnixStream::connect(socket(&own.world)).is_ok() {
            thread::sleep(Duration::from_millis(5));
        }
    }

    /// Starts the engine that was killed. It ends the containers that it finds running, and starts
    /// those whose restart policy says so.
    pub fn revive(&self) {
        let own = self.ours();
        *own.daemon.lock().unwrap_or_else(PoisonError::into_inner) = daemon(&own.world, &[]);
    }

    /// Has the engine listen on the network too, for clients with a certificate: the folder has `ca.pem`,
    /// `server.pem` and its key. Returns its address.
    pub fn revive_with_tls(&self, certificates: &Path) -> String {
        let own = self.ours();
        let address = format!("tcp://{ADDRESS}:2376");
        let file = |name: &str| certificates.join(name).display().to_string();
        let (ca, cert, key) = (file("ca.pem"), file("server.pem"), file("server-key.pem"));
        let more =
            ["--host", &address, "--tlsverify", "--tlscacert", &ca, "--tlscert", &cert, "--tlskey", &key];
        *own.daemon.lock().unwrap_or_else(PoisonError::into_inner) = daemon(&own.world, &more);
        address
    }

    /// A further name of the engine, `tcp://10.77.0.1:PORT`: as that of one on another host, for the
    /// address is not a loopback one. What its containers publish answers there too.
    pub fn elsewhere(&self) -> String {
        let socket = socket(&self.ours().world);
        let listener = TcpListener::bind((ADDRESS, 0)).expect("the world has the address");
        let port = listener.local_addr().expect("it is bound").port();
        thread::spawn(move || {
            for client in listener.incoming().flatten() {
                // A client whose engine is gone is hung up on.
                if let Ok(engine) = UnixStream::connect(&socket) {
                    pass_on(client, engine);
                }
            }
        });
        format!("tcp://{ADDRESS}:{port}")
    }

    /// The world that it is in, if it is ours: for a registry beside one that is apart.
    pub fn world(&self) -> &Arc<World> {
        &self.ours().world
    }

    fn ours(&self) -> &Own {
        self.own.as_ref().expect("the engine is ours")
    }

    /// `docker` with these arguments, split at white space.
    pub fn command(&self, arguments: &str) -> Command {
        let mut command = Command::new("docker");
        command.args(arguments.split_whitespace()).envs(self.env()).stdin(Stdio::null());
        // The builder that every engine has. The program has no other where buildx is not installed.
        command.env("DOCKER_BUILDKIT", "0").env_remove("DOCKER_CONTEXT");
        command
    }

    /// Runs `docker`: what it wrote, or its complaint.
    pub fn docker(&self, arguments: &str) -> Result<String, String> {
        run(&mut self.command(arguments))
    }

    /// Runs `docker`, which must succeed.
    pub fn ok(&self, arguments: &str) -> String {
        self.docker(arguments).unwrap_or_else(|error| panic!("docker {arguments}: {error}"))
    }

    /// Builds an image of a Dockerfile and texts beside it.
    pub fn build(&self, image: &str, dockerfile: &str, files: &[(&str, &str)]) {
        let context = TempDir::new().expect("a temporary folder");
        for (name, text) in [("Dockerfile", dockerfile)].iter().chain(files) {
            fs::write(context.path().join(name), text).expect("it is written");
        }
        self.build_folder(image, context.path());
    }

    fn build_folder(&self, image: &str, folder: &Path) {
        self.ok(&format!("build --quiet --tag {image} {}", folder.display()));
    }

    /// Builds an image of nothing but busybox and names for all that it can do: `sh`, `httpd`,
    /// `sleep`, `nc`. It does nothing unless it is told to. `wget` fails in it, for it looks even
    /// numbers up by libraries that are not there.
    pub fn build_base(&self, image: &str) {
        let context = TempDir::new().expect("a temporary folder");
        let bin = context.path().join("root/bin");
        fs::create_dir_all(&bin).expect("the folder is made");
        fs::create_dir(context.path().join("root/tmp")).expect("the folder is made");
        let busybox = program("busybox").expect("there is no engine without it");
        fs::copy(&busybox, bin.join("busybox")).expect("it is copied");
        let names = run(Command::new(&busybox).arg("--list")).expect("busybox runs");
        for name in names.lines().filter(|name| *name != "busybox") {
            std::os::unix::fs::symlink("busybox", bin.join(name)).expect("the link is made");
        }
        let dockerfile = "FROM scratch\nCOPY root /\nENV PATH=/bin\nCMD [\"sleep\", \"86400\"]\n";
        fs::write(context.path().join("Dockerfile"), dockerfile).expect("it is written");
        self.build_folder(image, context.path());
    }

    /// Pushes an image; gives the name that holds its digest.
    pub fn push(&self, image: &str) -> String {
        self.ok(&format!("push --quiet {image}"));
        let names = self.ok(&format!("image inspect --format {{{{.RepoDigests}}}} {image}"));
        let repository = image.rsplit_once(':').map_or(image, |(repository, _tag)| repository);
        let mut pinned = names
            .trim_matches(['[', ']'])
            .split(' ')
            .filter(|name| name.starts_with(&format!("{repository}@")));
        pinned.next().expect("what was pushed has a digest").to_owned()
    }
}

/// Passes on what either says, and that it has ended.
fn pass_on(client: TcpStream, engine: UnixStream) {
    let mut from_client = client.try_clone().expect("a socket has two ends");
    let mut to_engine = engine.try_clone().expect("a socket has two ends");
    thread::spawn(move || {
        let _cut = io::copy(&mut from_client, &mut to_engine);
        let _gone = to_engine.shutdown(Shutdown::Write);
    });
    let (mut from_engine, mut to_client) = (engine, client);
    thread::spawn(move || {
        let _cut = io::copy(&mut from_engine, &mut to_client);
        let _gone = to_client.shutdown(Shutdown::Write);
    });
}

/// Whether an engine of our own can be started.
fn installed(what: &str) -> bool {
    let missing = missing(&["docker", "dockerd", "iptables", "busybox"]);
    if let Some(program) = missing {
        skipped(what, &format!("there is no {program}"));
    }
    missing.is_none()
}

fn socket(world: &World) -> PathBuf {
    world.path("docker.sock")
}

/// Starts the daemon, or starts it again, with `more` options.
fn daemon(world: &World, more: &[&str]) -> Served {
    let mut command = world.command("dockerd");
    let path = |name| world.path(name).display().to_string();
    let pid = path("docker.pid");
    let _none_yet = fs::remove_file(&pid);
    command.args(["--data-root", &path("docker"), "--exec-root", &path("docker-exec"), "--pidfile", &pid]);
    command.args(["--host", &format!("unix://{}", socket(world).display())]);
    command.args(["--cgroup-parent", &format!("/{}", world.name())]);
    command.args(more);
    let daemon = world.serve("dockerd", command);
    daemon.until(|| answers(&socket(world)).is_some_and(|answer| answer.contains("200 OK")));
    daemon
}

/// What an engine says to a ping. One that still starts takes connections and is silent.
fn answers(socket: &Path) -> Option<String> {
    let mut stream = UnixStream::connect(socket).ok()?;
    stream.set_read_timeout(Some(Duration::from_millis(100))).ok()?;
    stream.write_all(b"GET /_ping HTTP/1.0\r\n\r\n").ok()?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer).ok()?;
    Some(answer)
}
