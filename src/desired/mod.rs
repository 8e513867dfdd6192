//! What should exist: the apps of one stage, with nothing left to look up in the spec.
//!
//! Here: the types, and [`from_spec`]. Elsewhere: what the user wrote (`spec`), what differs from
//! what is there (`plan`).
//! Invariant: pure.

mod from_spec;

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::net::IpAddr;
use std::time::Duration;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

pub use from_spec::from_spec;

use crate::secret::Secret;
use crate::spec;
use crate::spec::engine::Site;
use crate::spec::name::{AppName, ProjectName, StageName};
use crate::spec::reference::{self, Part, Reference};

/// Everything that should exist.
#[derive(Debug, Clone)]
pub struct Desired {
    pub project: ProjectName,
    pub stage: Option<StageName>,
    /// Whether every change to this stage wants its name typed.
    pub protected: bool,
    /// Whether the stage may not be destroyed.
    pub locked: bool,
    /// Whether apps that the spec does not name are removed; a root in the app form speaks for its
    /// own app only.
    pub whole: bool,
    pub apps: BTreeMap<AppName, App>,
    /// Apps that stay as they are.
    pub untouched: BTreeMap<AppName, Untouched>,
    pub values: Values,
    /// What no log may show: secrets, and what norn's environment gave for references.
    pub sensitive: Vec<Secret>,
    /// The Docker engine; absent, `DOCKER_HOST` and the usual place say.
    pub docker: Option<String>,
    /// The registry of the spec.
    pub registry: Option<Registry>,
    pub kubernetes: Kubernetes,
    /// How the world reaches the apps of the cluster that have a `hosts.external`.
    pub cloudflare: Option<Cloudflare>,
    /// Where norn takes snapshots; absent, libpq's own variables say.
    pub postgres: Option<Secret>,
}

/// Where images are pushed, and who opens it.
#[derive(Debug, Clone)]
pub struct Registry {
    /// Host, port and perhaps a path, without a scheme.
    pub url: String,
    /// Absent, Docker's own configuration says.
    pub login: Option<Login>,
}

/// Who opens a registry.
#[derive(Debug, Clone)]
pub struct Login {
    pub username: String,
    pub password: Secret,
}

/// The cluster of the runtime kubernetes.
#[derive(Debug, Clone)]
pub struct Kubernetes {
    /// Absent, the current one of the kubeconfig, or the cluster that norn runs in.
    pub context: Option<String>,
    pub namespace: String,
}

/// A zone and a tunnel of Cloudflare.
#[derive(Debug, Clone)]
pub struct Cloudflare {
    /// The zone that every `hosts.external` lies in.
    pub zone: String,
    /// The id of the tunnel.
    pub tunnel: String,
    /// In no state, plan or output.
    pub token: Secret,
    /// What configures the tunnel's own program, in its text `config.yaml`.
    pub config_map: ObjectName,
    /// The Deployment of that program.
    pub deployment: ObjectName,
}

/// Where an object of a cluster is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ObjectName {
    pub namespace: String,
    pub name: String,
}

/// How the world reaches an app of a cluster: a name of a zone that leads through a tunnel.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Route {
    pub zone: String,
    pub host: String,
    /// The id of the tunnel.
    pub tunnel: String,
    /// What configures the tunnel's own program.
    pub config_map: ObjectName,
    /// The Deployment of that program.
    pub deployment: ObjectName,
}

/// Such as `shop.example.com through tunnel 5f0cb0fe-0d3f-4b0c-8f6c-0a4d6f9e1a77`.
impl fmt::Display for Route {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} through tunnel {}", self.host, self.tunnel)
    }
}

/// An app that stays as it is, under its name or a former one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Untouched {
    pub why: Why,
    /// Former names: what is known by them is left alone too.
    pub was: Vec<AppName>,
}

/// Why an app stays as it is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub enum Why {
    /// It has `deploy: false`.
    DeployFalse,
    /// This version cannot run it, and what it lacks, such as `runtime docker`.
    LeftOut(String),
}

/// One app.
#[derive(Debug, Clone)]
pub struct App {
    pub name: AppName,
    pub definition: Definition,
    pub route: Option<Route>,
    pub source: Source,
    pub build: Build,
    /// Run in the new release before it goes live; safe to repeat.
    pub migrate: Option<String>,
    /// The database that is dumped before a migration.
    pub snapshot: Option<String>,
    pub rollout: Rollout,
    /// Apps that are put live before this one.
    pub depends_on: BTreeSet<AppName>,
    /// Former names.
    pub was: Vec<AppName>,
    pub protected: bool,
}

/// How a release runs. It is put live together with a release, as one thing.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Definition {
    pub role: Role,
    #[serde(default, skip_serializing_if = "Runtime::is_process")]
    pub runtime: Runtime,
    /// The address of the engine that runs it, where that is on another host.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub engine: Option<String>,
    /// Absent, an image's own.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub command: Option<Command>,
    /// What the app gets beside `secrets`, `PORT` and norn's base environment.
    pub env: BTreeMap<String, EnvValue>,
    /// Names; their values are in [`Values`].
    pub secrets: BTreeSet<String>,
    pub port: Option<u16>,
    pub front: Front,
    pub replicas: u32,
    pub health: Health,
    #[serde(default, skip_serializing_if = "Resources::is_unlimited")]
    pub resources: Resources,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub volumes: Vec<Volume>,
    /// How the world reaches it, on Kubernetes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ingress: Option<Ingress>,
}

impl Desired {
    /// Says where the Docker engine is. On another host nothing of norn's stays: there an app holds its
    /// port itself.
    pub fn on_engine(&mut self, address: String) {
        let there = Site::at(&address).elsewhere();
        for app in self.apps.values_mut().filter(|app| app.definition.runtime == Runtime::Docker) {
            app.definition.engine = there.map(str::to_owned);
            if there.is_some() {
                app.definition.front = Front::Off;
            }
        }
        self.docker = Some(address);
    }
}

impl Definition {
    /// The apps to which its references lead.
    pub fn referred(&self) -> impl Iterator<Item = AppName> + '_ {
        let spellings = self.env.values().filter_map(|value| match value {
            EnvValue::Reference(spelling) => Some(spelling),
            EnvValue::Literal(_) => None,
        });
        let parts = spellings.flat_map(|spelling| reference::parse(spelling).unwrap_or_default());
        parts.filter_map(|part| match part {
            Part::Reference(Reference::App { app, .. }) => Some(app),
            Part::Reference(Reference::Variable { .. }) | Part::Text(_) => None,
        })
    }
}

/// A folder that outlives a release.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Volume {
    pub name: String,
    /// Where a container sees it; absolute.
    pub path: String,
    /// In bytes, on Kubernetes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub size: Option<u64>,
    /// A folder of the host instead.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub host_path: Option<String>,
    /// The storage class, on Kubernetes; absent, the cluster's own.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub class: Option<String>,
}

impl Volume {
    /// The environment variable that says where it is.
    pub fn variable(&self) -> String {
        spec::model::Volume::variable(&self.name)
    }
}

/// An Ingress of a Kubernetes cluster.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Ingress {
    pub class: String,
    pub host: String,
}

/// What runs an app.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub enum Runtime {
    /// Processes of this machine, supervised.
    #[default]
    Process,
    /// Containers: of this machine, each held by a supervised process, or of an engine on another host,
    /// which keeps them itself.
    Docker,
    /// Pods of a cluster.
    Kubernetes,
}

impl Runtime {
    pub fn as_str(self) -> &'static str {
        match self {
            Runtime::Process => "process",
            Runtime::Docker => "docker",
            Runtime::Kubernetes => "kubernetes",
        }
    }

    /// Whether a cluster runs it, and nothing here does.
    pub fn is_kubernetes(self) -> bool {
        self == Runtime::Kubernetes
    }

    /// Whether it is the usual one, which records leave out.
    pub(crate) fn is_process(&self) -> bool {
        *self == Runtime::Process
    }
}

/// What one replica may use.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Resources {
    /// Thousandths of a processor.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cpu: Option<u64>,
    /// Bytes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub memory: Option<u64>,
}

impl Resources {
    fn is_unlimited(&self) -> bool {
        *self == Self::default()
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub enum Role {
    Webserver,
    Worker,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(untagged)]
pub enum Command {
    /// Through `sh -c`.
    Shell(String),
    /// Without a shell; never empty.
    Exec(Vec<String>),
}

/// A value as state and plans may hold it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub enum EnvValue {
    Literal(String),
    /// As it was spelled, such as `${TOKEN}`; the value is in [`Values`].
    Reference(String),
}

/// Who listens on an app's port.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub enum Front {
    On(IpAddr),
    Off,
}

/// When a replica is healthy.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Health {
    pub probe: Probe,
    pub live: Option<String>,
    pub startup: Duration,
    pub interval: Duration,
    pub timeout: Duration,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub enum Probe {
    Http { path: String, host: String },
    Tcp,
    Command(String),
    Lives(Duration),
}

/// How a new release takes over; no part of the definition, as it changes nothing that runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Rollout {
    pub timeout: Duration,
    pub drain: Duration,
}

impl Default for Rollout {
    fn default() -> Self {
        Self { timeout: Duration::from_secs(600), drain: Duration::from_secs(30) }
    }
}

/// Where an app's code is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub enum Source {
    /// A folder relative to the root file's, `.` for that folder itself.
    Local {
        folder: String,
        ignore: Vec<String>,
    },
    Git {
        url: String,
        reference: GitRef,
        path: Option<String>,
    },
    /// An image of a registry, by its name.
    Image {
        name: String,
    },
}

/// Which commit of a repository is asked for.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub enum GitRef {
    Branch(String),
    /// A branch, tag or commit.
    Any(String),
}

impl GitRef {
    pub fn as_str(&self) -> &str {
        match self {
            GitRef::Branch(name) | GitRef::Any(name) => name,
        }
    }
}

/// How a release is made of the code.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Build {
    pub command: Option<String>,
    pub test: Option<String>,
    pub cache: Vec<String>,
    /// How the image is made, where the release is one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub image: Option<ImageBuild>,
}

/// How an image is made of the code. Paths are from the code's folder.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct ImageBuild {
    /// From `context`.
    pub dockerfile: String,
    pub context: String,
    pub target: Option<String>,
    pub args: BTreeMap<String, String>,
}

/// The values behind references and secrets, by app and variable. They are in no plan.
#[derive(Debug, Clone, Default)]
pub struct Values {
    apps: BTreeMap<AppName, BTreeMap<String, Secret>>,
    /// The logins of repositories, by the app whose source they open.
    logins: BTreeMap<AppName, RepoLogin>,
}

/// What stands before the `@` of a repository's URL.
#[derive(Debug, Clone)]
struct RepoLogin {
    /// The URL without it, as state and plans hold it.
    plain: String,
    /// The URL with it.
    whole: Secret,
    /// The login itself, and the password in it.
    words: Vec<Secret>,
}

impl Values {
    pub fn insert(&mut self, app: AppName, values: BTreeMap<String, Secret>) {
        self.apps.insert(app, values);
    }

    pub fn of(&self, app: &AppName) -> Option<&BTreeMap<String, Secret>> {
        self.apps.get(app)
    }

    pub fn by_app(&self) -> impl Iterator<Item = (&AppName, &BTreeMap<String, Secret>)> {
        self.apps.iter()
    }

    /// The logins of repositories, whole and their passwords.
    pub fn logins(&self) -> impl Iterator<Item = &Secret> {
        self.logins.values().flat_map(|login| &login.words)
    }

    /// Takes the login out of the URL of an app's repository and keeps it; returns the rest. The
    /// user of ssh is no secret and stays.
    pub fn keep_login(&mut self, app: &AppName, url: &str) -> String {
        let Some((scheme, rest)) = url.split_once("://") else { return url.to_owned() };
        let end = rest.find(['/', '?', '#']).unwrap_or(rest.len());
        let Some(at) = rest[..end].rfind('@') else { return url.to_owned() };
        let (login, host) = (&rest[..at], &rest[at + 1..]);
        let (user, password) = login.split_once(':').unwrap_or((login, ""));
        let plain = match scheme.to_ascii_lowercase().as_str() {
            "http" | "https" => format!("{scheme}://{host}"),
            _ => format!("{scheme}://{user}@{host}"),
        };
        if plain != url {
            let words = [login, if password.is_empty() { user } else { password }].map(Secret::new).into();
            let login = RepoLogin { plain: plain.clone(), whole: Secret::new(url), words };
            self.logins.insert(app.clone(), login);
        }
        plain
    }

    /// The URL to reach an app's repository by, with its login where it is the one that has it.
    pub fn url<'a>(&'a self, app: &AppName, plain: &'a str) -> &'a str {
        let login = self.logins.get(app).filter(|login| login.plain == plain);
        login.map_or(plain, |login| login.whole.expose())
    }
}
