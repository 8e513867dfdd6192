//! The shapes of an infraspec, field by field.
//!
//! Here: what may be written, as types; the JSON Schema and the checks of `shape` are made from
//! them. Elsewhere: rules between fields (`check`), what is accepted but not done yet (`pending`).

mod platform;
mod services;

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::Deserialize;

pub use platform::{Cloudflare, DockerEngine, Kubernetes, PostgresServer, Registry, StateLocation};
pub use services::{EventsService, KvService, PostgresService, Services, StorageService};

use super::name::{AppName, ProjectName, StageName};
use super::value::{
    AbsolutePath, Cpu, CronText, DatabaseName, EnvName, Glob, HostName, ImageName, InnerPath, Label, Memory,
    RefName, RepoUrl, TimeSpan, UrlPath, Zone,
};

/// A whole project: its apps and what they stand on.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Project {
    /// The version of this format: 1.
    #[schemars(range(min = 1, max = 1))]
    pub version: u32,
    /// The project's name, a lowercase DNS label; it names the lock and the labels.
    pub project: ProjectName,
    /// Where norn keeps what it knows. Absent: SQLite in `.norn` beside this file.
    pub state: Option<StateLocation>,
    /// What runs the apps that do not say it themselves.
    pub runtime: Option<Runtime>,
    /// The stage that is taken when none is named.
    pub default_stage: Option<StageName>,
    /// The Docker engine of the runtime docker.
    pub docker: Option<DockerEngine>,
    /// The registry that images are pushed to, and pulled from where it wants a login.
    pub registry: Option<Registry>,
    /// The cluster of the runtime kubernetes.
    pub kubernetes: Option<Kubernetes>,
    /// The tunnel to the apps of the cluster that have a `hosts.external`.
    pub cloudflare: Option<Cloudflare>,
    /// The PostgreSQL server of `services.postgres`, for norn's own snapshots.
    pub postgres: Option<PostgresServer>,
    /// Merged under every app, included ones too.
    #[schemars(with = "Option<App>")]
    pub defaults: Option<serde_json::Value>,
    /// Files in the app form, as patterns below this file's folder.
    #[serde(default)]
    pub include: Vec<Glob>,
    /// The apps by name.
    #[serde(default)]
    pub apps: BTreeMap<AppName, App>,
    /// The stages by name, each a merge patch (RFC 7396) over all of the above.
    #[serde(default)]
    #[schemars(with = "BTreeMap<StageName, StageRules>")]
    pub stages: BTreeMap<StageName, serde_json::Value>,
    /// What the chosen stage says of itself, taken out of `stages`.
    #[serde(skip)]
    #[schemars(skip)]
    pub stage: StageRules,
}

/// What a stage says of itself, beside its patch.
#[derive(Debug, Clone, Default, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct StageRules {
    /// What the stage is for.
    pub description: Option<String>,
    /// Whether every change wants the stage's name typed.
    #[serde(default)]
    pub protected: bool,
    /// Whether `norn destroy` is refused.
    #[serde(default)]
    pub locked: bool,
    /// What must be set before anything is applied.
    pub secrets: Option<Secrets>,
}

/// One app.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[schemars(extend("x-help" = "write its fields below it, such as `{role: webserver, port: 8080, command: ./server}`"))]
pub struct App {
    /// What kind of app this is.
    pub role: Role,
    /// `false` leaves the app as it is. Default: true.
    pub deploy: Option<bool>,
    /// What runs the app. Default: the project's.
    pub runtime: Option<Runtime>,
    /// The folder of the app's code, below the folder of the file that defines it.
    pub path: Option<InnerPath>,
    /// The git repository of the app's code, instead of a local folder.
    pub repo: Option<Repo>,
    /// How a release is made of the code.
    pub build: Option<Build>,
    /// An image that is pulled, instead of code and a build; its digest is fixed by the plan.
    pub image: Option<ImageName>,
    /// How the app starts: text through `sh -c`, a list without a shell.
    #[schemars(extend("x-command" = true))]
    pub command: Option<Command>,
    /// Where clients reach a webserver. The app itself listens on `$PORT`.
    #[schemars(range(min = 1, max = 65535))]
    pub port: Option<u16>,
    /// Who listens on `port`: norn's front (default), or with `false` the app itself.
    pub front: Option<Front>,
    /// When the app counts as healthy. Default: a webserver's port accepts, a worker lives 5 s.
    pub healthcheck: Option<Healthcheck>,
    /// How many run; 0 is allowed. Default: 1.
    #[schemars(range(min = 0, max = 100))]
    pub replicas: Option<u32>,
    /// What one replica may use.
    pub resources: Option<Resources>,
    /// How a new release takes over.
    pub rollout: Option<Rollout>,
    /// The names under which the app is reached.
    pub hosts: Option<Hosts>,
    /// What the app uses.
    pub services: Option<Services>,
    /// How the database is brought to a new release.
    pub migrations: Option<Migrations>,
    /// The secrets that the app gets as environment variables, taken from norn's environment.
    pub secrets: Option<Secrets>,
    /// Environment variables; `${NAME}` is taken from norn's environment.
    #[serde(default)]
    pub env: BTreeMap<EnvName, String>,
    /// Folders that outlive a release.
    pub volumes: Option<Volumes>,
    /// How many releases are kept.
    pub artifacts: Option<Artifacts>,
    /// When failing health checks are told.
    pub alerts: Option<Alerts>,
    /// Apps that must be live before this one.
    #[serde(default)]
    pub depends_on: Vec<AppName>,
    /// Former names: the app was renamed and is not destroyed.
    #[serde(default)]
    pub was: Vec<AppName>,
    /// Whether destroying the app is refused.
    pub protected: Option<bool>,
    /// When a cron app runs.
    pub schedule: Option<CronText>,
    /// The time zone of `schedule`. Default: UTC.
    pub timezone: Option<Zone>,
    /// How long one run of a cron app may take; a number counts seconds.
    pub timeout: Option<TimeSpan>,
    /// What happens when a run is due while the last one goes on.
    pub overlap: Option<Overlap>,
    /// How a function is called.
    pub function: Option<Function>,
    /// v1: marks a core service. App form only.
    pub core: Option<bool>,
    /// v1: where work is sent. App form only.
    pub target: Option<Target>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
#[schemars(inline)]
pub enum Role {
    Webserver,
    Worker,
    Cron,
    Function,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
#[schemars(inline)]
pub enum Runtime {
    Process,
    Docker,
    Kubernetes,
}

/// A git repository.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Repo {
    /// What `git clone` takes: a path, or a file, ssh, http or https URL.
    pub url: RepoUrl,
    /// The branch whose newest commit is deployed. Default: main.
    pub branch: Option<RefName>,
    /// A branch, tag or commit, instead of `branch`.
    #[serde(rename = "ref")]
    pub reference: Option<RefName>,
    /// The app's folder in the repository.
    pub path: Option<InnerPath>,
    /// v1: deploy on a push.
    pub auto_deploy: Option<bool>,
    /// v1: the repository's page. App form only.
    pub repo_web: Option<String>,
    /// v1: the secret that signs the push.
    pub webhook_secret: Option<String>,
}

/// How a release is made.
#[derive(Debug, Clone, Default, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Build {
    /// The Dockerfile of an image, from `context`. Default: Dockerfile.
    pub dockerfile: Option<InnerPath>,
    /// The folder that an image is built from. Default: the code's.
    pub context: Option<InnerPath>,
    /// The stage of the Dockerfile that is built. Default: the last.
    #[schemars(length(min = 1))]
    pub target: Option<String>,
    /// Arguments of the Dockerfile; they are no place for secrets, as the image's history shows them.
    #[serde(default)]
    pub args: BTreeMap<EnvName, String>,
    /// What makes the release, run in the code's folder by `sh -c`. Absent: the code is the release.
    #[schemars(length(min = 1), extend("x-command" = true))]
    pub command: Option<String>,
    /// What must pass before the release is used, run where the build ran by `sh -c`.
    #[schemars(length(min = 1), extend("x-command" = true))]
    pub test: Option<String>,
    /// Folders that survive from build to build, such as `target`.
    #[serde(default)]
    pub cache: Vec<InnerPath>,
    /// Folders of a local source that are not part of it, such as `uploads/`.
    #[serde(default)]
    pub ignore: Vec<InnerPath>,
}

/// A text goes through `sh -c`, a list starts a program without a shell.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(untagged)]
#[schemars(inline)]
pub enum Command {
    Shell(#[schemars(length(min = 1))] String),
    Exec(#[schemars(length(min = 1))] Vec<String>),
}

/// `false`, or where the front listens.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(untagged)]
#[schemars(inline)]
pub enum Front {
    Switch(bool),
    On(FrontBind),
}

#[derive(Debug, Clone, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct FrontBind {
    /// The address to listen on; 0.0.0.0 publishes the app. Default: 127.0.0.1.
    pub bind: Option<std::net::IpAddr>,
}

/// A path that answers 200 to 399, or more than that.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(untagged)]
#[schemars(inline)]
pub enum Healthcheck {
    Path(UrlPath),
    Probe(Box<HealthProbe>),
}

/// When an app counts as healthy.
#[derive(Debug, Clone, Default, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct HealthProbe {
    /// A path that answers 200 to 399 once the app is ready.
    pub path: Option<UrlPath>,
    /// The Host header. Default: `hosts.external`, `hosts.internal`, localhost.
    pub host: Option<HostName>,
    /// A path that answers as long as the app need not be restarted.
    pub live: Option<UrlPath>,
    /// Instead of a path: a command that ends with 0 when the app is ready.
    #[schemars(length(min = 1), extend("x-command" = true))]
    pub command: Option<String>,
    /// How long the app may take to become healthy. Default: 150s.
    pub startup: Option<TimeSpan>,
    /// The time between two checks. Default: 10s.
    pub interval: Option<TimeSpan>,
    /// How long one check may take. Default: 5s.
    pub timeout: Option<TimeSpan>,
}

/// What one replica may use; more memory ends it, more processor time is not given.
#[derive(Debug, Clone, Default, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Resources {
    /// Processor time.
    pub cpu: Option<Cpu>,
    /// Memory, at least 6Mi.
    pub memory: Option<Memory>,
}

/// How a new release takes over.
#[derive(Debug, Clone, Default, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Rollout {
    /// How long the whole change may take. Default: 10m.
    pub timeout: Option<TimeSpan>,
    /// How long connections to the old release may go on. Default: 30s.
    pub drain: Option<TimeSpan>,
}

/// The names under which an app is reached.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Hosts {
    /// Inside the platform.
    pub internal: Option<HostName>,
    /// From outside.
    pub external: Option<HostName>,
}

/// How the database is brought to a new release.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Migrations {
    /// Run in the new release's folder by `sh -c` before it goes live. It must be safe to repeat.
    #[schemars(length(min = 1), extend("x-command" = true))]
    pub command: String,
    /// The database it changes.
    pub database: Option<DatabaseName>,
}

/// Names, or a map by name, which stages can merge into.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(untagged)]
#[schemars(inline)]
pub enum Secrets {
    Names(Vec<EnvName>),
    Map(BTreeMap<EnvName, SecretRule>),
}

/// What is known of a secret, but never its value.
#[derive(Debug, Clone, Default, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[schemars(extend("x-help" = "no value of a secret belongs in a spec: write `{}`, and set it in norn's environment"))]
pub struct SecretRule {
    /// What kind of value it is, for readers.
    #[serde(rename = "type")]
    pub kind: Option<SecretKind>,
    /// Whether it must be set. Default: true.
    pub required: Option<bool>,
    /// What it is for.
    pub description: Option<String>,
}

#[derive(Debug, Clone, Copy, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
#[schemars(inline)]
pub enum SecretKind {
    String,
    Password,
    ApiKey,
    ConnectionString,
}

/// A list, or a map by name, which stages can merge into.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(untagged)]
#[schemars(inline)]
pub enum Volumes {
    List(Vec<Volume>),
    Map(BTreeMap<Label, UnnamedVolume>),
}

impl Volumes {
    pub fn by_name(&self) -> Vec<(Label, UnnamedVolume)> {
        match self {
            Volumes::List(list) => list.iter().cloned().map(Volume::named).collect(),
            Volumes::Map(map) => map.clone().into_iter().collect(),
        }
    }
}

/// A folder that outlives releases and the app's removal. `NORN_VOLUME_<NAME>` says where it is. While a
/// release takes over from another, the processes or containers of both see it.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[schemars(extend("x-help" = "write it such as `{name: data, mountPath: /data}`"))]
pub struct Volume {
    /// The volume's name, a lowercase DNS label.
    pub name: Label,
    /// Where a container sees it; a process goes by `NORN_VOLUME_<NAME>`.
    pub mount_path: AbsolutePath,
    /// How much it may hold, on Kubernetes only. Default: 1Gi.
    pub size: Option<Memory>,
    /// A folder of the host instead, which must be there and is never removed.
    pub host_path: Option<AbsolutePath>,
}

impl Volume {
    /// The environment variable that says where a volume is.
    pub fn variable(name: &str) -> String {
        format!("NORN_VOLUME_{}", name.to_uppercase().replace('-', "_"))
    }

    fn named(self) -> (Label, UnnamedVolume) {
        let Self { name, mount_path, size, host_path } = self;
        (name, UnnamedVolume { mount_path, size, host_path })
    }
}

/// A volume whose name is its key.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct UnnamedVolume {
    /// Where a container sees it; a process goes by `NORN_VOLUME_<NAME>`.
    pub mount_path: AbsolutePath,
    /// How much it may hold, on Kubernetes only. Default: 1Gi.
    pub size: Option<Memory>,
    /// A folder of the host instead, which must be there and is never removed.
    pub host_path: Option<AbsolutePath>,
}

/// What is kept for a rollback.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Artifacts {
    /// How many releases. Default: 5.
    #[schemars(range(min = 1, max = 1000))]
    pub retain: Option<u32>,
}

/// When failing health checks are told.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Alerts {
    /// The time looked back. Default: 5m.
    pub window: Option<TimeSpan>,
    /// How many failures in it. Default: 3.
    #[schemars(range(min = 1))]
    pub threshold: Option<u32>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
#[schemars(inline)]
pub enum Overlap {
    Skip,
    Allow,
    Replace,
}

/// How a function is called.
#[derive(Debug, Clone, Default, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Function {
    /// How long one call may take; a number counts seconds. Default: 30.
    pub timeout: Option<TimeSpan>,
    /// What calls it. Default: http.
    pub trigger: Option<String>,
    /// How much memory one call may use. Default: 256m.
    pub memory: Option<Memory>,
    /// How many calls at once. Default: 1.
    #[schemars(range(min = 1, max = 1000))]
    pub concurrency: Option<u32>,
}

/// v1: where work is sent.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Target {
    /// The worker's name.
    pub worker: Option<String>,
    /// What the worker must be able to do.
    #[serde(default)]
    pub capabilities: Vec<String>,
}
