//! `norn hold`: a process that is a container to whoever started it. It makes the container, passes
//! its output on, ends it on SIGTERM, and ends as it ended.
//!
//! So a supervisor's replicas, tests and migrations are processes whatever runs them: what ends,
//! watches and logs a process needs to know of no engine.

use std::collections::{BTreeMap, HashMap};
use std::io::Write;
use std::time::Duration;

use bollard::container::LogOutput;
use bollard::errors::Error;
use bollard::exec::{StartExecOptions, StartExecResults};
use bollard::models::{self, ContainerCreateBody, ExecConfig, HostConfig, MountType, PortBinding};
use bollard::query_parameters::{
    AttachContainerOptionsBuilder, CreateContainerOptionsBuilder, InspectContainerOptions,
    KillContainerOptionsBuilder, ListContainersOptionsBuilder, StartContainerOptions, WaitContainerOptions,
};
use futures_util::StreamExt;
use serde::{Deserialize, Serialize};
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::time::{sleep, timeout};
use uuid::Uuid;

use super::address::Address;
use super::{Engine, EngineError, HOLDER, Labels};
use crate::desired::Command;
use crate::provider::machine;
use crate::provider::supervise::process::REPLICA;

/// How long an engine that broke off is looked for, until its containers are taken to be gone.
const AWAY: Duration = Duration::from_secs(30);
/// The exit code of a holder whose container could not be made, as docker's.
pub const NOT_STARTED: i32 = 125;
/// The signal that ends a container without a word, plus 128, as shells have it.
const KILLED: i64 = 137;

/// A container to hold. The values of its environment are the holder's own.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Hold {
    pub engine: Address,
    /// `sha256:...`.
    pub image: String,
    pub labels: BTreeMap<String, String>,
    /// Names of variables that it gets; `PORT` is its own.
    pub env: Vec<String>,
    /// Names by which it finds the machine that it is on.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub hosts: Vec<String>,
    /// Instead of the image's own command.
    pub command: Option<Command>,
    /// What outlives it.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub mounts: Vec<Mount>,
    /// Where it listens; it is published on the loopback address at the holder's `PORT`.
    pub port: Option<u16>,
    /// In bytes.
    pub memory: Option<u64>,
    /// In thousandths of a processor.
    pub cpu: Option<u64>,
    /// How long it may take to end after SIGTERM.
    pub grace: Duration,
}

/// A folder that a container sees and that outlives it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Mount {
    /// A folder of the host, from its `/` on; else the name of a volume, which is made where there is
    /// none.
    pub from: String,
    /// Where the container sees it; absolute.
    pub path: String,
}

impl Mount {
    fn is_volume(&self) -> bool {
        !self.from.starts_with('/')
    }
}

impl Hold {
    /// The command line of the holder, which is this program.
    pub fn command_line(&self) -> Vec<String> {
        let text = serde_json::to_string(self).expect("a container has text keys only");
        command_line(text)
    }

    /// Makes the container and lives as long as it does; returns its exit code.
    pub async fn run(&self) -> Result<i32, EngineError> {
        // Before there is a container that nobody else would end.
        let mut ending = Ending::listen()?;
        let engine = Engine::connect(&self.engine).await?;
        engine.sweep(&self.own()).await?;
        self.volumes(&engine).await?;
        let container = self.create(&engine).await?;
        let held = self.hold(&engine, &container, &mut ending).await;
        let removed = engine.remove(&container).await;
        let code = held?;
        removed?;
        Ok(code)
    }

    /// Whose it is, and which store knows of it.
    fn own(&self) -> Labels {
        self.labelled(&["project", "stage", "app", "store"])
    }

    /// Whose it is. A volume goes on where the store is lost.
    fn whose(&self) -> Labels {
        self.labelled(&["project", "stage", "app"])
    }

    /// Those of its labels that have these names behind `dev.norn.`.
    fn labelled(&self, parts: &[&str]) -> Labels {
        let named = |name: &str| parts.iter().any(|part| name == format!("dev.norn.{part}"));
        let labels = self.labels.iter().filter(|(name, _)| named(name));
        Labels(labels.map(|(name, value)| (name.clone(), value.clone())).collect())
    }

    /// Makes the volumes that it sees.
    pub(super) async fn volumes(&self, engine: &Engine) -> Result<(), EngineError> {
        for mount in self.mounts.iter().filter(|mount| mount.is_volume()) {
            engine.volume(&mount.from, &self.whose()).await?;
        }
        Ok(())
    }

    async fn create(&self, engine: &Engine) -> Result<String, EngineError> {
        let holder = machine::own_identity().ok().and_then(|own| serde_json::to_string(&own).ok());
        let mut labels: HashMap<String, String> = self.labels.clone().into_iter().collect();
        labels.insert(HOLDER.to_owned(), holder.unwrap_or_default());
        labels.extend(replica());
        let mut env: Vec<String> = self
            .env
            .iter()
            .filter_map(|name| Some(format!("{name}={}", std::env::var(name).ok()?)))
            .collect();
        let mut published = HashMap::new();
        if let Some(port) = self.port {
            env.push(format!("PORT={port}"));
            if let Ok(outside) = std::env::var("PORT") {
                let binding = PortBinding { host_ip: Some("127.0.0.1".into()), host_port: Some(outside) };
                published.insert(format!("{port}/tcp"), Some(vec![binding]));
            }
        }
        let body = self.body(env, labels, published);
        let options = CreateContainerOptionsBuilder::new().name(&self.name()).build();
        let created = engine.docker.create_container(Some(options), body).await;
        created.map(|created| created.id).map_err(|error| engine.failed("make a container", &error))
    }

    /// What tells it from others of the app; people see it in the engine's own lists.
    pub(super) fn name(&self) -> String {
        let part = |name: &str| self.labels.get(&format!("dev.norn.{name}")).filter(|part| !part.is_empty());
        let parts: Vec<&str> =
            ["project", "stage", "app"].iter().filter_map(|name| Some(part(name)?.as_str())).collect();
        let end: String = Uuid::new_v4().simple().to_string().chars().take(8).collect();
        format!("{}-{end}", parts.join("-"))
    }

    /// The container as the engine is told of it; `env` is `NAME=value` each.
    pub(super) fn body(
        &self,
        env: Vec<String>,
        labels: HashMap<String, String>,
        published: HashMap<String, Option<Vec<PortBinding>>>,
    ) -> ContainerCreateBody {
        let limit = |amount: Option<u64>| amount.map(|amount| i64::try_from(amount).unwrap_or(i64::MAX));
        let (command, entrypoint) = match &self.command {
            None => (None, None),
            // The image's entry point may be a program that a shell's words mean nothing to.
            Some(Command::Shell(line)) => {
                let shell = vec!["/bin/sh".to_owned(), "-c".to_owned(), line.clone()];
                (Some(shell), Some(Vec::new()))
            }
            Some(Command::Exec(words)) => (Some(words.clone()), None),
        };
        ContainerCreateBody {
            image: Some(self.image.clone()),
            env: Some(env),
            cmd: command,
            entrypoint,
            labels: Some(labels),
            exposed_ports: Some(published.keys().cloned().collect()),
            attach_stdout: Some(true),
            attach_stderr: Some(true),
            host_config: Some(HostConfig {
                memory: limit(self.memory),
                memory_swap: limit(self.memory),
                nano_cpus: limit(self.cpu.map(|cpu| cpu.saturating_mul(1_000_000))),
                port_bindings: Some(published),
                extra_hosts: Some(self.hosts.iter().map(|name| format!("{name}:host-gateway")).collect()),
                mounts: Some(self.mounts.iter().map(mount).collect()),
                ..HostConfig::default()
            }),
            ..ContainerCreateBody::default()
        }
    }

    /// Starts the container and stays until it has ended.
    async fn hold(&self, engine: &Engine, container: &str, ending: &mut Ending) -> Result<i32, EngineError> {
        let stream = AttachContainerOptionsBuilder::new().stream(true).stdout(true).stderr(true).build();
        let attached = engine.docker.attach_container(container, Some(stream)).await;
        let attached = attached.map_err(|error| engine.failed("listen to a container", &error))?;
        let passing = tokio::spawn(pass_on(attached.output));
        let started = engine.docker.start_container(container, None::<StartContainerOptions>).await;
        started.map_err(|error| engine.failed("start a container", &error))?;
        let ended = tokio::select! {
            ended = wait(engine, container) => ended,
            () = ending.told() => self.end(engine, container).await,
        };
        // What it said last is on its way.
        let _ = timeout(Duration::from_secs(1), passing).await;
        let code = ended?;
        if let Some(why) = out_of_memory(engine, container, self.memory).await {
            pass(&mut std::io::stderr(), why.as_bytes());
        }
        Ok(i32::try_from(code).unwrap_or(i32::MAX))
    }

    /// Asks the container to end, and ends it.
    async fn end(&self, engine: &Engine, container: &str) -> Result<i64, EngineError> {
        kill(engine, container, "SIGTERM").await;
        if let Ok(ended) = timeout(self.grace, wait(engine, container)).await {
            return ended;
        }
        kill(engine, container, "SIGKILL").await;
        Ok(timeout(self.grace, wait(engine, container)).await.unwrap_or(Ok(KILLED)).unwrap_or(KILLED))
    }
}

fn mount(mount: &Mount) -> models::Mount {
    models::Mount {
        source: Some(mount.from.clone()),
        target: Some(mount.path.clone()),
        typ: Some(if mount.is_volume() { MountType::VOLUME } else { MountType::BIND }),
        ..models::Mount::default()
    }
}

/// The signals that end a holder, and its container with it.
struct Ending {
    terminate: Signal,
    interrupt: Signal,
}

impl Ending {
    fn listen() -> Result<Self, EngineError> {
        let listen = |kind| {
            let why = |error: std::io::Error| EngineError::Refused {
                doing: "hold a container".into(),
                why: format!("no signals can be listened to: {error}"),
            };
            signal(kind).map_err(why)
        };
        Ok(Self { terminate: listen(SignalKind::terminate())?, interrupt: listen(SignalKind::interrupt())? })
    }

    async fn told(&mut self) {
        tokio::select! {
            _ = self.terminate.recv() => {}
            _ = self.interrupt.recv() => {}
        }
    }
}

/// A command to run in a replica's container, which says whether it is well.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Look {
    pub engine: Address,
    /// Those of its container, but for `dev.norn.replica`, which the environment says.
    pub labels: BTreeMap<String, String>,
    /// Through `sh -c`.
    pub line: String,
}

impl Look {
    pub fn command_line(&self) -> Vec<String> {
        command_line(serde_json::to_string(self).expect("a command has text keys only"))
    }

    /// Runs the command and returns its exit code.
    pub async fn run(&self) -> Result<i32, EngineError> {
        let engine = Engine::connect(&self.engine).await?;
        let doing = "run the health check";
        let refused = |why: &str| EngineError::Refused { doing: doing.into(), why: why.into() };
        let mut labels = self.labels.clone();
        labels.extend(replica());
        let options = ListContainersOptionsBuilder::new().filters(&Labels(labels).filter()).build();
        let found = engine.docker.list_containers(Some(options)).await;
        let found = found.map_err(|error| engine.failed(doing, &error))?;
        let container = found.into_iter().find_map(|container| container.id);
        let container = container.ok_or_else(|| refused("there is no container yet"))?;
        engine
            .exec(&container, &self.line, |part| match part {
                LogOutput::StdErr { message } => pass(&mut std::io::stderr(), &message),
                other => pass(&mut std::io::stdout(), other.as_ref()),
            })
            .await
    }
}

impl Engine {
    /// Runs a command in a container, through `sh -c`, and returns its exit code.
    pub(super) async fn exec(
        &self,
        container: &str,
        line: &str,
        mut sink: impl FnMut(LogOutput),
    ) -> Result<i32, EngineError> {
        let doing = "run the health check";
        let refused = |why: &str| EngineError::Refused { doing: doing.into(), why: why.into() };
        let body = ExecConfig {
            attach_stdout: Some(true),
            attach_stderr: Some(true),
            cmd: Some(["/bin/sh", "-c", line].map(str::to_owned).into()),
            ..ExecConfig::default()
        };
        let made = self.docker.create_exec(container, body).await;
        let made = made.map_err(|error| self.failed(doing, &error))?;
        let started = self.docker.start_exec(&made.id, None::<StartExecOptions>).await;
        if let StartExecResults::Attached { mut output, .. } =
            started.map_err(|error| self.failed(doing, &error))?
        {
            while let Some(Ok(part)) = output.next().await {
                sink(part);
            }
        }
        let seen = self.docker.inspect_exec(&made.id).await.map_err(|error| self.failed(doing, &error))?;
        let code = seen.exit_code.ok_or_else(|| refused("it has no exit code"))?;
        Ok(i32::try_from(code).unwrap_or(i32::MAX))
    }
}

/// What is held, or looked at.
#[derive(Debug, Deserialize)]
#[serde(untagged)]
pub enum Held {
    Container(Hold),
    Look(Look),
}

impl Held {
    pub async fn run(&self) -> Result<i32, EngineError> {
        match self {
            Held::Container(hold) => hold.run().await,
            Held::Look(look) => look.run().await,
        }
    }
}

/// The label that tells a replica from the others of its app, as the environment says it.
fn replica() -> Option<(String, String)> {
    Some(("dev.norn.replica".to_owned(), std::env::var(REPLICA).ok()?))
}

fn command_line(text: String) -> Vec<String> {
    vec!["/proc/self/exe".into(), "hold".into(), text]
}

/// Waits for the end of a container, through an engine that breaks off and comes back.
async fn wait(engine: &Engine, container: &str) -> Result<i64, EngineError> {
    let mut away = Duration::ZERO;
    loop {
        let ended = engine.docker.wait_container(container, None::<WaitContainerOptions>).next().await;
        match ended {
            Some(Ok(ended)) => return Ok(ended.status_code),
            // This is how an exit code other than 0 is told.
            Some(Err(Error::DockerContainerWaitError { code, .. })) => return Ok(code),
            Some(Err(error @ Error::DockerResponseServerError { .. })) => {
                return Err(engine.failed("wait for a container", &error));
            }
            Some(Err(error)) if away >= AWAY => return Err(engine.failed("wait for a container", &error)),
            Some(Err(_)) | None => {
                let pause = Duration::from_millis(500);
                sleep(pause).await;
                away += pause;
            }
        }
    }
}

async fn kill(engine: &Engine, container: &str, signal: &str) {
    let options = KillContainerOptionsBuilder::new().signal(signal).build();
    // One that has ended is what the signal is for.
    let _ = engine.docker.kill_container(container, Some(options)).await;
}

pub(super) async fn out_of_memory(engine: &Engine, container: &str, limit: Option<u64>) -> Option<String> {
    let seen = engine.docker.inspect_container(container, None::<InspectContainerOptions>).await.ok()?;
    let killed = seen.state?.oom_killed?;
    let limit = limit.map(|bytes| format!(" of {} MiB", bytes / (1 << 20))).unwrap_or_default();
    killed.then(|| format!("norn: it was killed, as it used more than its memory{limit}\n"))
}

async fn pass_on(mut output: impl futures_util::Stream<Item = Result<LogOutput, Error>> + Unpin) {
    while let Some(Ok(part)) = output.next().await {
        match part {
            LogOutput::StdErr { message } => pass(&mut std::io::stderr(), &message),
            LogOutput::StdOut { message } | LogOutput::Console { message } => {
                pass(&mut std::io::stdout(), &message)
            }
            LogOutput::StdIn { .. } => {}
        }
    }
}

/// Nobody reads what cannot be written.
fn pass(to: &mut impl Write, message: &[u8]) {
    let _ = to.write_all(message).and_then(|()| to.flush());
}
