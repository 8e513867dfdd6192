//! Containers that serve by themselves, on an engine of another host: nothing of norn's stays there, so
//! the engine starts them again, and their labels say which release they are under which definition.
//!
//! Elsewhere: what they are made of (`hold`), in which order they are exchanged (`apply::remote`).
//! Invariant: one whose name ends in `.new` has not proved fit, and the next roll removes it.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::time::Duration;

use bollard::container::LogOutput;
use bollard::errors::Error;
use bollard::models::{
    ContainerSummary, ContainerSummaryStateEnum, ContainerUpdateBody, PortBinding, RestartPolicy,
    RestartPolicyNameEnum,
};
use bollard::query_parameters::{
    CreateContainerOptionsBuilder, InspectContainerOptions, ListContainersOptionsBuilder, LogsOptionsBuilder,
    RenameContainerOptionsBuilder, StartContainerOptions, StopContainerOptionsBuilder,
};
use futures_util::{Stream, StreamExt};

use super::hold::{Hold, out_of_memory};
use super::{Engine, EngineError, Labels};
use crate::provider::labels::{APP, STORE};

/// The labels that say which release a container serves, and under which definition.
pub const RELEASE: &str = "dev.norn.release";
const DEFINITION: &str = "dev.norn.definition";
/// How many of them serve it together.
const REPLICAS: &str = "dev.norn.replicas";
const REPLICA: &str = "dev.norn.replica";
/// The operation that made them.
const ROLL: &str = "dev.norn.operation";
/// The end of the name of one that has not proved fit.
const NEW: &str = ".new";

/// A container that serves an app, or is to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Container {
    pub id: String,
    pub name: String,
    pub app: String,
    /// The store that knows of it.
    pub store: String,
    /// The operation that made it and the others of its kind.
    pub roll: String,
    pub release: String,
    pub definition: String,
    pub replica: u32,
    pub replicas: u32,
    /// The id of its image.
    pub image: String,
    pub created: i64,
    /// Whether it has proved fit.
    pub fit: bool,
    pub runs: bool,
    /// Whether the engine starts it again, as it keeps ending.
    pub restarting: bool,
    /// Such as `Up 3 minutes`, in the engine's words.
    pub status: String,
}

/// What tells the containers of one roll from those of others.
#[derive(Debug, Clone, Copy)]
pub struct Serves<'a> {
    pub store: &'a str,
    pub release: &'a str,
    pub definition: &'a str,
    pub replicas: u32,
}

/// How a container is, at a closer look.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum State {
    Runs,
    /// It ended, and how.
    Ended(String),
}

impl Engine {
    /// What tells this engine from all others; none where it gives itself another name at each call.
    ///
    /// # Errors
    /// An engine that does not answer.
    pub async fn id(&self) -> Result<Option<String>, EngineError> {
        let mut ids = Vec::new();
        for _ in 0..2 {
            let info = self.docker.info().await.map_err(|error| self.failed("say who it is", &error))?;
            ids.push(info.id.filter(|id| !id.is_empty()));
        }
        let id = ids.pop().flatten();
        Ok(id.filter(|id| ids == [Some(id.clone())]))
    }

    /// The containers with these labels that serve, served or are to, the oldest first.
    ///
    /// # Errors
    /// What cannot be listed.
    pub async fn serving(&self, labels: &Labels) -> Result<Vec<Container>, EngineError> {
        let mut filter = labels.filter();
        filter.entry("label".to_owned()).or_default().push(RELEASE.to_owned());
        let options = ListContainersOptionsBuilder::new().all(true).filters(&filter).build();
        let found = self.docker.list_containers(Some(options)).await;
        let found = found.map_err(|error| self.failed("list its containers", &error))?;
        let mut containers: Vec<Container> = found.into_iter().map(Container::of).collect();
        containers.sort_by(|a, b| (a.created, a.replica, &a.id).cmp(&(b.created, b.replica, &b.id)));
        Ok(containers)
    }

    /// Makes a container that is to serve, with its volumes, and returns it; it does not run yet.
    ///
    /// # Errors
    /// What the engine refuses.
    pub async fn make(
        &self,
        hold: &Hold,
        values: &BTreeMap<String, String>,
        serves: Serves<'_>,
        replica: u32,
    ) -> Result<(String, String), EngineError> {
        hold.volumes(self).await?;
        let mut env: Vec<String> =
            hold.env.iter().filter_map(|name| Some(format!("{name}={}", values.get(name)?))).collect();
        let mut published = HashMap::new();
        if let Some(port) = hold.port {
            env.push(format!("PORT={port}"));
            let binding = PortBinding { host_ip: None, host_port: Some(port.to_string()) };
            published.insert(format!("{port}/tcp"), Some(vec![binding]));
        }
        let mut labels: HashMap<String, String> = hold.labels.clone().into_iter().collect();
        let own = [
            (STORE, serves.store.to_owned()),
            (RELEASE, serves.release.to_owned()),
            (DEFINITION, serves.definition.to_owned()),
            (REPLICAS, serves.replicas.to_string()),
            (REPLICA, replica.to_string()),
        ];
        labels.extend(own.map(|(name, value)| (name.to_owned(), value)));
        let name = hold.name();
        let options = CreateContainerOptionsBuilder::new().name(&format!("{name}{NEW}")).build();
        let body = hold.body(env, labels, published);
        let app = hold.labels.get(APP).map_or("", String::as_str);
        self.talk("make a container for", app)?;
        let made = self.docker.create_container(Some(options), body).await;
        let id = made.map_err(|error| self.failed("make a container", &error))?.id;
        self.talk("made a container for", app)?;
        Ok((id, name))
    }

    pub async fn start(&self, container: &str) -> Result<(), EngineError> {
        self.talk("start a container", "")?;
        let started = self.docker.start_container(container, None::<StartContainerOptions>).await;
        started.map_err(|error| self.failed("start a container", &error))?;
        self.talk("started a container", "")
    }

    /// Ends a container; one that has ended is as wanted. The engine does not start it again.
    pub async fn stop(&self, container: &str, grace: Duration) -> Result<(), EngineError> {
        let seconds = i32::try_from(grace.as_secs()).unwrap_or(i32::MAX);
        let options = StopContainerOptionsBuilder::new().t(seconds).build();
        self.talk("stop a container", "")?;
        match self.docker.stop_container(container, Some(options)).await {
            Ok(()) | Err(Error::DockerResponseServerError { status_code: 304 | 404, .. }) => {
                self.talk("stopped a container", "")
            }
            Err(error) => Err(self.failed("stop a container", &error)),
        }
    }

    /// Has the engine keep a container running from now on.
    pub async fn keep(&self, container: &str) -> Result<(), EngineError> {
        let policy =
            RestartPolicy { name: Some(RestartPolicyNameEnum::UNLESS_STOPPED), maximum_retry_count: None };
        let update = ContainerUpdateBody { restart_policy: Some(policy), ..ContainerUpdateBody::default() };
        self.talk("keep a container", "")?;
        let kept = self.docker.update_container(container, update).await;
        kept.map_err(|error| self.failed("keep a container running", &error))?;
        self.talk("kept a container", "")
    }

    /// Says of a container that it has proved fit: from now on it is what serves.
    pub async fn prove(&self, container: &str, name: &str) -> Result<(), EngineError> {
        let options = RenameContainerOptionsBuilder::new().name(name).build();
        self.talk("name a container", "")?;
        let named = self.docker.rename_container(container, options).await;
        named.map_err(|error| self.failed("name a container", &error))?;
        self.talk("named a container", "")
    }

    /// How a container is; `memory` is its limit.
    pub async fn state(&self, container: &str, memory: Option<u64>) -> Result<State, EngineError> {
        let seen = self.docker.inspect_container(container, None::<InspectContainerOptions>).await;
        let seen = seen.map_err(|error| self.failed("look at a container", &error))?;
        let state = seen.state.unwrap_or_default();
        if state.running == Some(true) && state.restarting != Some(true) {
            return Ok(State::Runs);
        }
        if state.oom_killed == Some(true)
            && let Some(why) = out_of_memory(self, container, memory).await
        {
            return Ok(State::Ended(why.trim_start_matches("norn: it ").trim().to_owned()));
        }
        Ok(State::Ended(format!("ended with exit status {}", state.exit_code.unwrap_or_default())))
    }

    /// The last lines that a container wrote.
    pub async fn last_lines(&self, container: &str, lines: u32) -> Result<Vec<String>, EngineError> {
        let options = LogsOptionsBuilder::new().stdout(true).stderr(true).tail(&lines.to_string()).build();
        let mut said = self.docker.logs(container, Some(options));
        let mut text = Vec::new();
        while let Some(part) = said.next().await {
            text.extend_from_slice(part.map_err(|error| self.failed("read a log", &error))?.as_ref());
        }
        Ok(String::from_utf8_lossy(&text).lines().map(str::to_owned).collect())
    }

    /// The last lines that a container wrote and all that it writes, in pieces, until it has ended.
    pub fn follow(
        &self,
        container: &str,
        lines: u32,
    ) -> impl Stream<Item = Result<LogOutput, Error>> + use<> {
        let options =
            LogsOptionsBuilder::new().follow(true).stdout(true).stderr(true).tail(&lines.to_string()).build();
        self.docker.logs(container, Some(options))
    }

    /// Runs the command of a health check in a container. The error is the answer.
    pub async fn check(&self, container: &str, line: &str) -> Result<(), String> {
        let mut said = Vec::new();
        let code = self.exec(container, line, |part| said.extend_from_slice(part.as_ref())).await;
        match code.map_err(|error| error.to_string())? {
            0 => Ok(()),
            code => {
                let said: String = String::from_utf8_lossy(&said).chars().take(512).collect();
                let said = said.split_whitespace().collect::<Vec<_>>().join(" ");
                Err(format!("`{line}`: exit status {code}: {said}").trim_end_matches(": ").to_owned())
            }
        }
    }
}

impl Container {
    fn of(found: ContainerSummary) -> Self {
        let labels = found.labels.unwrap_or_default();
        let label = |name: &str| labels.get(name).cloned().unwrap_or_default();
        let names = found.names.unwrap_or_default();
        let name = names.first().map(|name| name.trim_start_matches('/').to_owned()).unwrap_or_default();
        Self {
            id: found.id.unwrap_or_default(),
            app: label(APP),
            store: label(STORE),
            roll: label(ROLL),
            release: label(RELEASE),
            definition: label(DEFINITION),
            replica: label(REPLICA).parse().unwrap_or_default(),
            replicas: label(REPLICAS).parse().unwrap_or_default(),
            image: found.image_id.unwrap_or_default(),
            created: found.created.unwrap_or_default(),
            fit: !name.ends_with(NEW),
            runs: found.state == Some(ContainerSummaryStateEnum::RUNNING),
            restarting: found.state == Some(ContainerSummaryStateEnum::RESTARTING),
            status: found.status.unwrap_or_default(),
            name,
        }
    }

    /// Whether it runs, or the engine is about to start it again.
    pub fn is_up(&self) -> bool {
        self.runs || self.restarting
    }
}

/// The containers of one app by what became of the rolls that made them.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Sorted<'a> {
    /// Those of the roll that serves, or did before it was stopped; by replica.
    pub live: Vec<&'a Container>,
    /// Whether none of them is missing or has not proved fit.
    pub whole: bool,
    /// All others: what never proved fit, and what an exchange did not come to remove.
    pub left: Vec<&'a Container>,
}

/// Sorts the containers of one app. A whole roll that runs counts before all others, then what runs, then
/// what is whole; of two the newer one.
pub fn sort(containers: &[Container]) -> Sorted<'_> {
    let mut rolls: BTreeMap<&str, Vec<&Container>> = BTreeMap::new();
    for container in containers {
        rolls.entry(&container.roll).or_default().push(container);
    }
    let whole = |roll: &[&Container]| {
        let replicas: BTreeSet<u32> = roll.iter().filter(|one| one.fit).map(|one| one.replica).collect();
        roll.len() == replicas.len() && replicas.len() == roll[0].replicas as usize
    };
    let worth = |roll: &[&Container]| {
        let runs = roll.iter().any(|one| one.fit && one.is_up());
        let created = roll.iter().map(|one| one.created).max();
        (runs && whole(roll), runs, whole(roll), created)
    };
    let fit = rolls.iter().filter(|(_, roll)| roll.iter().any(|one| one.fit));
    let Some((name, roll)) = fit.max_by_key(|(_, roll)| worth(roll)) else {
        return Sorted { left: containers.iter().collect(), ..Sorted::default() };
    };
    let mut live = roll.clone();
    live.sort_by_key(|container| container.replica);
    let left = containers.iter().filter(|container| container.roll != **name).collect();
    Sorted { whole: whole(roll), live, left }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// `roll replica/replicas state`, the oldest first; `new` has not proved fit.
    fn read(lines: &[&str]) -> Vec<Container> {
        let one = |(created, line): (usize, &&str)| {
            let words: Vec<&str> = line.split(' ').collect();
            let (replica, replicas) = words[1].split_once('/').expect("both are named");
            Container {
                id: line.to_string(),
                name: String::new(),
                app: "web".to_owned(),
                store: String::new(),
                roll: words[0].to_owned(),
                release: String::new(),
                definition: String::new(),
                replica: replica.parse().expect("a number"),
                replicas: replicas.parse().expect("a number"),
                image: String::new(),
                created: i64::try_from(created).expect("a few"),
                fit: !words.contains(&"new"),
                runs: words.contains(&"up"),
                restarting: words.contains(&"restarting"),
                status: String::new(),
            }
        };
        lines.iter().enumerate().map(one).collect()
    }

    fn sorted(lines: &[&str]) -> (Vec<String>, bool) {
        let containers = read(lines);
        let Sorted { live, whole, left } = sort(&containers);
        assert_eq!(live.len() + left.len(), containers.len());
        (live.iter().map(|container| container.id.clone()).collect(), whole)
    }

    #[test]
    fn what_serves_is_known_after_a_kill_at_any_moment() {
        for (there, live, whole) in [
            (&["a 0/1 up", "b 0/1 new"][..], &["a 0/1 up"][..], true),
            // Between the stop and the proof, nothing serves but what can be started again.
            (&["a 0/1 down", "b 0/1 new up"], &["a 0/1 down"], true),
            (&["a 0/1 down", "b 0/1 up"], &["b 0/1 up"], true),
            // Some of the new ones were called fit.
            (&["a 0/2 up", "a 1/2 up", "b 0/2 up", "b 1/2 new up"], &["a 0/2 up", "a 1/2 up"], true),
            (&["a 0/2 up", "a 1/2 up", "b 0/2 up", "b 1/2 up"], &["b 0/2 up", "b 1/2 up"], true),
            // One was taken away by hand.
            (&["a 1/2 up"], &["a 1/2 up"], false),
            (&["a 0/1 restarting"], &["a 0/1 restarting"], true),
            (&["a 0/1 new up"], &[], false),
            (&[], &[], false),
        ] {
            let live: Vec<String> = live.iter().map(|line| line.to_string()).collect();
            assert_eq!(sorted(there), (live, whole), "{there:?}");
        }
    }
}
