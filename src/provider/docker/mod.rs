//! A Docker engine: images made of code, containers that live as long as the process that holds them,
//! and on another host such as serve by themselves.
//!
//! Here: what an engine's errors mean. Elsewhere: reaching it (`address`), what a build is sent
//! (`context`), images (`image`), registries (`registry`, `push`, `refusal`), containers that are held
//! (`hold`) and those that serve by themselves (`served`).
//! Invariants: every container, image and volume that norn makes carries its labels; a container has a
//! holder, and one whose holder is dead may be removed, or it says which release it serves.

pub mod address;
pub mod context;
pub mod hold;
pub mod image;
pub mod push;
pub mod refusal;
pub mod registry;
pub mod served;

use std::collections::{BTreeMap, HashMap};
use std::path::Path;

use bollard::Docker;
use bollard::errors::Error;
use bollard::models::VolumeCreateRequest;
use bollard::query_parameters::{ListContainersOptionsBuilder, RemoveContainerOptionsBuilder};

use address::Address;

use crate::failpoint;
use crate::provider::{labels, machine};
use crate::spec::engine::Site;
use crate::spec::name::AppName;
use crate::state::Scope;
use crate::state::lock::ProcessIdentity;

/// How long a call may go without an answer, in seconds; a build and a push say something all along.
const PATIENCE: u64 = 120;

/// The label that holds a container's holder, as JSON.
pub const HOLDER: &str = "dev.norn.holder";

/// An engine that answered.
#[derive(Debug, Clone)]
pub struct Engine {
    docker: Docker,
    address: Address,
}

#[derive(Debug, thiserror::Error)]
pub enum EngineError {
    #[error(
        "`{host}` is no address of a Docker engine: write unix:///path/to/docker.sock, or tcp://host:port for one on another host"
    )]
    NoAddress { host: String },
    #[error(
        "the Docker engine at {host} cannot be reached by ssh: write tcp://host:port, with DOCKER_TLS_VERIFY and DOCKER_CERT_PATH for TLS"
    )]
    Ssh { host: String },
    #[error(
        "the Docker engine at {host} is reached by TLS: set DOCKER_TLS_VERIFY=1, and DOCKER_CERT_PATH to the folder of its certificates"
    )]
    NoCertificates { host: String },
    #[error(
        "there is no {file}, by which the Docker engine at {host} is reached: set DOCKER_CERT_PATH to the folder of ca.pem, cert.pem and key.pem, or DOCKER_TLS_VERIFY to nothing"
    )]
    NoCertificate { host: String, file: String },
    #[error(
        "there is no Docker engine at {host}: start it, or name another with `docker.host` or DOCKER_HOST ({why})"
    )]
    Unreachable { host: String, why: String },
    #[error(
        "this user may not use the Docker engine at {host}: add it to the group `docker`, then log in again"
    )]
    Forbidden { host: String },
    #[error("the Docker engine at {host} broke off when it was asked to {doing}: {why}")]
    Lost { host: String, doing: String, why: String },
    #[error("the Docker engine could not {doing}: {why}")]
    Refused { doing: String, why: String },
    #[error(
        "the registry {registry} has no image {image}, or this user may not see it: {why}; see that its name and tag are right, and mend `registry.username` and `registry.password` in the spec, or log in with `docker login {registry}`"
    )]
    NoImage { image: String, registry: String, why: String },
    #[error("the login for the registry {registry} is not to be had: {why}")]
    Login { registry: String, why: String },
    #[error("{0}")]
    Context(#[from] context::ContextError),
    #[error("{0}")]
    Registry(#[from] refusal::RegistryError),
}

impl Engine {
    /// Where it is.
    pub fn site(&self) -> Site<'_> {
        Site::at(&self.address.host)
    }

    /// What went wrong while the engine was asked to do something.
    fn failed(&self, doing: &str, error: &Error) -> EngineError {
        match error {
            Error::DockerResponseServerError { message, .. } => {
                EngineError::Refused { doing: doing.to_owned(), why: message.trim().to_owned() }
            }
            Error::DockerStreamError { error } => {
                EngineError::Refused { doing: doing.to_owned(), why: error.trim().to_owned() }
            }
            other => EngineError::Lost {
                host: self.address.host.clone(),
                doing: doing.to_owned(),
                why: cause(other),
            },
        }
    }

    /// A boundary of an act on a container or an image: where tests strike.
    fn talk(&self, act: &str, on: &str) -> Result<(), EngineError> {
        // What stands before it is of the project's name, or the registry's.
        let on = on.rsplit('/').next().unwrap_or_default();
        failpoint::talk(act, Path::new(on)).map_err(|error| EngineError::Lost {
            host: self.address.host.clone(),
            doing: act.to_owned(),
            why: error.to_string(),
        })
    }

    /// Removes the containers of an app whose holders are dead; how many there were.
    ///
    /// # Errors
    /// What cannot be listed or removed.
    pub async fn sweep(&self, labels: &Labels) -> Result<usize, EngineError> {
        let options = ListContainersOptionsBuilder::new().all(true).filters(&labels.filter()).build();
        let found = self.docker.list_containers(Some(options)).await;
        let found = found.map_err(|error| self.failed("list its containers", &error))?;
        let mut removed = 0;
        for container in found {
            let labels = container.labels.unwrap_or_default();
            if labels.contains_key(served::RELEASE) {
                continue;
            }
            let holder = labels.get(HOLDER);
            let holder = holder.and_then(|text| serde_json::from_str::<ProcessIdentity>(text).ok());
            // Where the holder cannot be seen, it may live. On an engine of another host it is one of a run
            // that is dead, for the lock is this run's.
            if holder.is_some_and(|holder| match machine::alive(&holder) {
                Some(alive) => alive,
                None => self.site().elsewhere().is_none(),
            }) {
                continue;
            }
            self.talk("remove", "a container that was left")?;
            self.remove(&container.id.unwrap_or_default()).await?;
            self.talk("removed", "a container that was left")?;
            removed += 1;
        }
        Ok(removed)
    }

    /// Makes a volume, unless it is there.
    ///
    /// # Errors
    /// One of that name that has not these labels, and what the engine cannot do.
    async fn volume(&self, name: &str, labels: &Labels) -> Result<(), EngineError> {
        let doing = format!("use the volume {name}");
        let wanted = VolumeCreateRequest {
            name: Some(name.to_owned()),
            labels: Some(labels.map()),
            ..VolumeCreateRequest::default()
        };
        let made = self.docker.create_volume(wanted).await.map_err(|error| self.failed(&doing, &error))?;
        match labels.0.iter().find(|(name, value)| made.labels.get(*name) != Some(value)) {
            Some((name, value)) => {
                let why = format!("it is there and not norn's, for it has no label {name}={value}");
                Err(EngineError::Refused { doing, why })
            }
            None => Ok(()),
        }
    }

    /// Removes a container with its anonymous volumes; one that is gone is as wanted.
    pub async fn remove(&self, container: &str) -> Result<(), EngineError> {
        let options = RemoveContainerOptionsBuilder::new().force(true).v(true).build();
        match self.docker.remove_container(container, Some(options)).await {
            Ok(()) | Err(Error::DockerResponseServerError { status_code: 404 | 409, .. }) => Ok(()),
            Err(error) => Err(self.failed("remove a container", &error)),
        }
    }
}

/// Whose a container, an image or a volume is.
#[derive(Debug, Clone)]
pub struct Labels(BTreeMap<String, String>);

impl Labels {
    pub fn new(scope: &Scope, app: &AppName) -> Self {
        Self(labels::of_app(scope, app))
    }

    /// Those of all apps of a stage.
    pub fn of_scope(scope: &Scope) -> Self {
        Self(labels::of_stage(scope))
    }

    /// Those that one store knows of.
    #[must_use]
    pub fn of_store(mut self, store: &str) -> Self {
        self.0.insert(labels::STORE.to_owned(), store.to_owned());
        self
    }

    /// With one more, such as `commit`.
    #[must_use]
    pub fn and(mut self, name: &str, value: &str) -> Self {
        self.0.insert(format!("dev.norn.{name}"), value.to_owned());
        self
    }

    fn map(&self) -> HashMap<String, String> {
        self.0.clone().into_iter().collect()
    }

    fn filter(&self) -> HashMap<String, Vec<String>> {
        let all = self.0.iter().map(|(name, value)| format!("{name}={value}"));
        HashMap::from([("label".to_owned(), all.collect())])
    }
}

impl From<Labels> for BTreeMap<String, String> {
    fn from(labels: Labels) -> Self {
        labels.0
    }
}

/// The innermost reason: the outer ones only say that there was an error.
fn cause(error: &Error) -> String {
    let mut text = error.to_string();
    let mut source = std::error::Error::source(error);
    while let Some(inner) = source {
        text = inner.to_string();
        source = inner.source();
    }
    text
}
