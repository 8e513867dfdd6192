//! What the steps of a run reach: folders, git, supervisors, environments.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use tokio::sync::Mutex;

use crate::desired::{Command, Definition, EnvValue, Front, Probe, Values};
use crate::provider::cloudflare::Cloudflare;
use crate::provider::docker::address as docker;
use crate::provider::docker::registry::Logins;
use crate::provider::dump;
use crate::provider::kubernetes::Cluster;
use crate::provider::source::{Git, Repo};
use crate::provider::supervise::client::Home;
use crate::provider::supervise::protocol;
use crate::scrub::Scrub;
use crate::secret::Secret;
use crate::spec::name::AppName;
use crate::state::Scope;
use crate::state::format::RemoteEngine;

/// The world of one stage on this machine.
pub struct World {
    /// The folder of the root file; absolute.
    pub root: PathBuf,
    pub folders: Folders,
    pub home: Home,
    pub git: Git,
    /// What is no part of a local source: the spec's files, `.norn`, snapshots; absolute.
    pub skip: Vec<PathBuf>,
    pub environment: Environment,
    pub scope: Scope,
    /// What tells the store from others: see `state::format::store_id`.
    pub store: String,
    /// Where the Docker engine is.
    pub docker: docker::Address,
    /// That engine, where it is on another host and the plan has apps for it.
    pub remote: Option<RemoteEngine>,
    /// What opens registries.
    pub logins: Logins,
    /// The namespaces of clusters that the plan works in, by name.
    pub clusters: BTreeMap<String, Cluster>,
    /// The namespace that apps of the runtime kubernetes are put into.
    pub namespace: String,
    /// What opens Cloudflare, where the plan has a route.
    pub cloudflare: Option<Cloudflare>,
    /// Held by who changes a rule or a record: one name may go from an app to another.
    pub names: Mutex<()>,
    /// The server of snapshots, where the spec names one.
    pub postgres: Option<Secret>,
    pub values: Values,
    pub scrub: Scrub,
}

/// Where norn keeps what belongs to a stage.
#[derive(Debug, Clone)]
pub struct Folders {
    /// `.norn` itself.
    pub norn: PathBuf,
    /// `.norn`, or `.norn/stages/<stage>`.
    pub stage: PathBuf,
    /// `snapshots` beside the root file, or the stage's in it.
    pub snapshots: PathBuf,
}

impl Folders {
    /// Where every app has a folder of its releases.
    pub fn all_releases(&self) -> PathBuf {
        self.stage.join("releases")
    }

    pub fn releases(&self, app: &AppName) -> PathBuf {
        self.all_releases().join(app.as_str())
    }

    pub fn cache(&self, app: &AppName) -> PathBuf {
        self.stage.join("cache").join(app.as_str())
    }

    pub fn logs(&self) -> PathBuf {
        self.stage.join("logs")
    }

    /// The whole output of an app's step.
    pub fn step_log(&self, app: &AppName, step: &str) -> PathBuf {
        self.logs().join(app.as_str()).join(format!("{step}.log"))
    }

    pub fn run(&self) -> PathBuf {
        self.stage.join("run")
    }

    pub fn bin(&self) -> PathBuf {
        self.norn.join("bin")
    }
}

/// What a command inherits of norn's environment: never its credentials.
#[derive(Debug, Clone, Default)]
pub struct Environment {
    pub base: BTreeMap<String, String>,
    /// libpq's variables, for `pg_dump` and, without any URL, migrations.
    pub postgres: BTreeMap<String, String>,
}

/// Variables that builds and apps need to find their tools and to speak with the world.
const INHERITED: [&str; 34] = [
    "PATH",
    "HOME",
    "USER",
    "LOGNAME",
    "SHELL",
    "LANG",
    "LC_ALL",
    "LC_CTYPE",
    "TZ",
    "TMPDIR",
    "TERM",
    "CARGO_HOME",
    "RUSTUP_HOME",
    "RUSTUP_TOOLCHAIN",
    "GOPATH",
    "GOROOT",
    "GOCACHE",
    "GOMODCACHE",
    "JAVA_HOME",
    "MAVEN_HOME",
    "M2_HOME",
    "GRADLE_USER_HOME",
    "NVM_DIR",
    "PYENV_ROOT",
    "VOLTA_HOME",
    "XDG_CACHE_HOME",
    "HTTP_PROXY",
    "HTTPS_PROXY",
    "NO_PROXY",
    "ALL_PROXY",
    "http_proxy",
    "https_proxy",
    "no_proxy",
    "all_proxy",
];

impl Environment {
    /// What this process may pass on.
    pub fn of_this_process() -> Self {
        let base = INHERITED.iter().filter_map(|name| Some(((*name).to_owned(), std::env::var(name).ok()?)));
        let postgres =
            std::env::vars_os().filter_map(|(k, v)| Some((k.into_string().ok()?, v.into_string().ok()?)));
        Self { base: base.collect(), postgres: postgres.filter(|(name, _)| name.starts_with("PG")).collect() }
    }
}

/// The passwords of PostgreSQL servers that commands are given; no output may show them.
pub fn passwords(environment: &Environment, server: Option<&Secret>) -> Vec<Secret> {
    // A URL that cannot be read is told of by the step that needs it.
    let named = server.and_then(|server| dump::libpq(server).ok());
    let all = named.iter().chain([&environment.postgres]);
    all.filter_map(|env| env.get("PGPASSWORD")).map(|password| Secret::new(password.as_str())).collect()
}

impl World {
    /// The whole environment of an app's commands and replicas, but for `PORT`.
    pub fn env(&self, app: &AppName, definition: &Definition) -> BTreeMap<String, String> {
        let mut env = self.environment.base.clone();
        let values = self.values.of(app);
        for (name, value) in &definition.env {
            match value {
                EnvValue::Literal(text) => {
                    env.insert(name.clone(), text.clone());
                }
                EnvValue::Reference(_) => {
                    env.extend(
                        values.and_then(|v| v.get(name)).map(|v| (name.clone(), v.expose().to_owned())),
                    );
                }
            }
        }
        let secrets = definition.secrets.iter();
        env.extend(secrets.filter_map(|name| Some((name.clone(), values?.get(name)?.expose().to_owned()))));
        env
    }

    /// The repository of an app; a path is taken from the root file's folder.
    pub fn repo(&self, app: &AppName, url: &str, reference: Option<&str>, path: Option<&str>) -> Repo {
        repo(&self.root, self.values.url(app, url), reference, path)
    }
}

/// The repository as git is told; a relative path is taken from `root`.
pub fn repo(root: &Path, url: &str, reference: Option<&str>, path: Option<&str>) -> Repo {
    let relative = !url.contains(':') && !url.starts_with('/');
    let url = if relative { root.join(url).display().to_string() } else { url.to_owned() };
    Repo { url, reference: reference.map(str::to_owned), path: path.map(PathBuf::from) }
}

/// What is no part of a local source, as absolute paths.
pub fn skipped(always: &[PathBuf], folder: &Path, ignore: &[String]) -> Vec<PathBuf> {
    always.iter().cloned().chain(ignore.iter().map(|path| folder.join(path))).collect()
}

/// A definition as the supervisor takes it.
pub fn command(command: &Command) -> protocol::Command {
    match command {
        Command::Shell(text) => protocol::Command::Shell(text.clone()),
        Command::Exec(argv) => protocol::Command::Exec(argv.clone()),
    }
}

pub fn front(front: Front) -> protocol::Front {
    match front {
        Front::On(address) => protocol::Front::On(address),
        Front::Off => protocol::Front::Off,
    }
}

/// The command that runs another where a replica is.
pub type Held<'a> = &'a dyn Fn(&str) -> Vec<String>;

/// Health as the supervisor takes it; `held` where a replica is a container.
pub fn health(health: &crate::desired::Health, held: Option<Held<'_>>) -> protocol::Health {
    protocol::Health {
        probe: match &health.probe {
            Probe::Http { path, host } => protocol::Probe::Http { path: path.clone(), host: host.clone() },
            Probe::Tcp if held.is_some() => protocol::Probe::Accepts,
            Probe::Tcp => protocol::Probe::Tcp,
            Probe::Command(line) => match held {
                Some(held) => protocol::Probe::Exec { named: line.clone(), words: held(line) },
                None => protocol::Probe::Command(line.clone()),
            },
            Probe::Lives(time) => protocol::Probe::Lives(*time),
        },
        live: health.live.clone(),
        startup: health.startup,
        interval: health.interval,
        timeout: health.timeout,
    }
}
