//! Apps on a Docker engine of another host: putting a release and a definition live there, taking them
//! away.
//!
//! Elsewhere: the containers and the calls (`provider::docker::served`), when and for what (`forge`,
//! `deploy`). Invariants: where the app has a port the old containers stop before the new ones start;
//! where those never become healthy, the old ones are started again. Until a container has proved fit
//! its name says so, so that recovery takes none for live that was killed on the way.

use std::time::{Duration, Instant};

use tokio::time::sleep;

use super::Run;
use super::events::StepError;
use super::forge::LiveRoll;
use super::journal::{Done, InStep};
use super::reached::runs;
use super::world::World;
use crate::desired::Probe;
use crate::failpoint;
use crate::plan::Former;
use crate::provider::docker::hold::Hold;
use crate::provider::docker::served::{Container, Serves, State};
use crate::provider::docker::{Engine, EngineError};
use crate::provider::supervise::probe;
use crate::spec::engine::host_name;
use crate::spec::name::AppName;

/// How long a container may take to end after SIGTERM.
const GRACE: Duration = Duration::from_secs(10);
/// The time between two looks at what is not healthy yet.
const LOOK: Duration = Duration::from_millis(250);
/// How often a container that is to prove fit may end.
const EXITS: u32 = 3;
/// The pause before it is started again.
const RETRY: Duration = Duration::from_millis(500);
/// How long the former version may take to be healthy again.
const BACK: Duration = Duration::from_secs(120);
/// How many lines of a log a reader is shown.
const LINES: u32 = 20;

/// A release and a definition that are put live on an engine elsewhere.
pub struct Remote<'a> {
    live: &'a LiveRoll<'a>,
    step: &'a InStep,
    engine: Engine,
    /// The engine's host, as it is reached from here.
    host: String,
    http: reqwest::Client,
}

/// A container that was made for this roll.
struct Made {
    id: String,
    /// Its name once it has proved fit.
    name: String,
    replica: u32,
}

/// Why what was started does not serve.
enum Unfit {
    /// One sentence, and its evidence.
    Failed(String, Vec<String>),
    Cancelled,
    /// Another run may be at work by now.
    Lost,
}

impl From<EngineError> for Unfit {
    fn from(error: EngineError) -> Self {
        Unfit::Failed(error.to_string(), Vec::new())
    }
}

impl<'a> Remote<'a> {
    pub async fn new(live: &'a LiveRoll<'a>, step: &'a InStep, address: &str) -> Result<Self, StepError> {
        let http = probe::client().map_err(|error| StepError::new(error.to_string()))?;
        let engine = step.run.world.engine().await?;
        Ok(Self { live, step, engine, host: host_name(address).to_owned(), http })
    }

    /// Exchanges what serves, and waits until the new containers are healthy.
    pub async fn put(&self) -> Result<Done, StepError> {
        let (run, live) = (&self.step.run, self.live);
        run.alive()?;
        let labels = run.world.labels(live.app);
        let (old, left) = split(self.engine.serving(&labels).await?, live.former);
        for container in left {
            self.engine.remove(&container.id).await?;
        }
        // What cannot be made interrupts nothing.
        let new = self.make().await?;
        let held = live.definition.port.is_some();
        if held {
            self.talk("stop")?;
            for container in old.iter().filter(|container| container.runs || container.restarting) {
                self.step.output(&format!("{} stops", container.name));
                if let Err(error) = self.engine.stop(&container.id, GRACE).await {
                    return Err(self.go_back(Unfit::from(error), &new, &old).await);
                }
            }
            self.talk("stopped")?;
        }
        if let Err(why) = self.prove(&new).await {
            return Err(self.go_back(why, &new, &old).await);
        }
        self.talk("exchange")?;
        // From here on the new ones are what serves, and no two versions at once.
        for container in old.iter().filter(|_| !held) {
            self.engine.stop(&container.id, GRACE).await.map_err(|error| StepError::from(error).open())?;
        }
        for made in &new {
            let kept = async {
                self.engine.keep(&made.id).await?;
                self.engine.prove(&made.id, &made.name).await
            };
            kept.await.map_err(|error| StepError::from(error).open())?;
        }
        self.talk("exchanged")?;
        for container in &old {
            if let Err(error) = self.engine.remove(&container.id).await {
                self.step.output(&format!("{} is left: {error}", container.name));
            }
        }
        Ok(Done::said(runs(live.definition)))
    }

    /// A boundary.
    fn talk(&self, act: &str) -> Result<(), StepError> {
        let app = std::path::Path::new(self.live.app.as_str());
        failpoint::talk(act, app).map_err(|error| StepError::new(error.to_string()).open())
    }

    /// The new containers, none of which runs.
    async fn make(&self) -> Result<Vec<Made>, StepError> {
        let (live, world) = (self.live, &self.step.run.world);
        let hold = self.hold()?;
        let values = world.env_with_volumes(live.app, live.definition)?;
        let digest = live.forge.definition_digest();
        let replicas = live.definition.replicas;
        let serves = Serves { release: &live.release.tag, definition: &digest, replicas };
        let mut made = Vec::new();
        for replica in 0..replicas {
            match self.engine.make(&hold, &values, serves, replica).await {
                Ok((id, name)) => made.push(Made { id, name, replica }),
                Err(error) => {
                    self.discard(&made).await;
                    return Err(error.into());
                }
            }
        }
        Ok(made)
    }

    fn hold(&self) -> Result<Hold, StepError> {
        let (live, world) = (self.live, &self.step.run.world);
        let image = live.release.image.clone();
        let image = image.ok_or_else(|| StepError::new("the release names no image").help("redeploy it"))?;
        Ok(world.container(live.app, live.definition, image, &self.step.id))
    }

    async fn discard(&self, new: &[Made]) {
        for made in new {
            // What cannot be removed now is removed by the next roll.
            let _ = self.engine.remove(&made.id).await;
        }
    }

    /// Starts the new containers and waits until all of them are healthy.
    async fn prove(&self, new: &[Made]) -> Result<(), Unfit> {
        for made in new {
            self.engine.start(&made.id).await?;
            self.step.output(&format!("replica {} started", made.replica));
        }
        let health = &self.live.definition.health;
        let limit = health.startup.min(self.live.rollout.timeout);
        for made in new {
            self.healthy(&made.id, made.replica, limit, true).await?;
            self.step.output(&format!("replica {} is healthy", made.replica));
        }
        // One that was the first to be healthy may have ended since.
        for made in new {
            self.healthy(&made.id, made.replica, limit, true).await?;
        }
        Ok(())
    }

    /// Waits until a container is healthy.
    async fn healthy(&self, id: &str, replica: u32, limit: Duration, tells: bool) -> Result<(), Unfit> {
        let memory = self.live.definition.resources.memory;
        let (began, mut started) = (Instant::now(), Instant::now());
        let (mut exits, mut told) = (0, None);
        loop {
            let answer = match self.engine.state(id, memory).await? {
                State::Runs => match self.probe(id, started).await {
                    Ok(()) => return Ok(()),
                    Err(answer) => answer,
                },
                State::Ended(how) => {
                    exits += 1;
                    if exits >= EXITS {
                        let what = format!("replica {replica} {how}, {exits} times in a row");
                        return Err(Unfit::Failed(what, self.evidence(id, None).await));
                    }
                    self.pause(RETRY).await?;
                    self.engine.start(id).await?;
                    started = Instant::now();
                    how
                }
            };
            if began.elapsed() >= limit {
                let what = format!("replica {replica} was not healthy after {} s", limit.as_secs());
                return Err(Unfit::Failed(what, self.evidence(id, Some(&answer)).await));
            }
            if tells && told.as_ref() != Some(&answer) {
                self.step.output(&format!("replica {replica} is not healthy yet: {answer}"));
                told = Some(answer);
            }
            self.pause(LOOK).await?;
        }
    }

    async fn pause(&self, time: Duration) -> Result<(), Unfit> {
        let control = &self.step.run.control;
        tokio::select! {
            () = sleep(time) => Ok(()),
            () = control.cancelled() => Err(if control.lost() { Unfit::Lost } else { Unfit::Cancelled }),
        }
    }

    /// Probes a container from here, or within itself. The error is the answer.
    async fn probe(&self, id: &str, started: Instant) -> Result<(), String> {
        let health = &self.live.definition.health;
        let place = || {
            let port = self.live.definition.port.ok_or("the app has no port to probe")?;
            let host = if self.host.contains(':') { format!("[{}]", self.host) } else { self.host.clone() };
            Ok::<_, &str>(format!("{host}:{port}"))
        };
        match &health.probe {
            Probe::Http { path, host } => probe::get(&self.http, &place()?, path, host, health.timeout).await,
            Probe::Tcp => probe::accepts(&place()?, health.timeout).await,
            Probe::Command(line) => match tokio::time::timeout(health.timeout, self.engine.check(id, line))
                .await
            {
                Ok(answer) => answer,
                Err(_) => Err(format!("`{line}`: not finished within {:.1} s", health.timeout.as_secs_f64())),
            },
            Probe::Lives(span) if started.elapsed() >= *span => Ok(()),
            Probe::Lives(span) => {
                let lived = started.elapsed().as_secs_f64();
                Err(format!("it has lived {lived:.1} s of {:.1} s", span.as_secs_f64()))
            }
        }
    }

    /// What a reader needs to mend a container that does not serve.
    async fn evidence(&self, id: &str, answer: Option<&str>) -> Vec<String> {
        let mut evidence: Vec<String> =
            answer.map(|answer| format!("the last probe: {answer}")).into_iter().collect();
        let lines = self.engine.last_lines(id, LINES).await.unwrap_or_default();
        if !lines.is_empty() {
            evidence.push("the last lines of its log:".into());
            evidence.extend(lines.iter().map(|line| format!("  {line}")));
        }
        evidence
    }

    /// Removes what did not prove fit, starts what served before again, and tells why.
    async fn go_back(&self, why: Unfit, new: &[Made], old: &[Container]) -> StepError {
        let (message, mut evidence) = match why {
            Unfit::Lost => {
                return StepError::new("the lock on the state was lost while containers were exchanged")
                    .open();
            }
            Unfit::Cancelled => ("cancelled before the new release was live".to_owned(), Vec::new()),
            Unfit::Failed(message, evidence) => (message, evidence),
        };
        self.discard(new).await;
        if !old.is_empty() {
            // What a dead run stopped, too.
            evidence.push(match self.restored(old).await {
                Ok(()) => "the release before it was started again and serves".to_owned(),
                Err(why) => format!("the release before it was started again and is NOT healthy: {why}"),
            });
        }
        let scrub = &self.step.run.world.scrub;
        let message = scrub.text(&message).into_owned();
        let evidence: Vec<String> = evidence.iter().map(|line| scrub.text(line).into_owned()).collect();
        let said: Vec<String> = std::iter::once(message.clone()).chain(evidence.iter().cloned()).collect();
        let help =
            if message.contains("port is already allocated") || message.contains("address already in use") {
                "stop what holds the port on the engine's host, or give the app another `port`"
            } else {
                "mend the app and apply again"
            };
        StepError { message, evidence, help: Some(help.into()), output: said.join("\n"), open: false }
    }

    /// Whether what was stopped runs again.
    async fn restored(&self, old: &[Container]) -> Result<(), String> {
        for container in old {
            self.engine.start(&container.id).await.map_err(|error| error.to_string())?;
        }
        let end = Instant::now() + BACK;
        for container in old {
            let started = Instant::now();
            loop {
                let state =
                    self.engine.state(&container.id, None).await.map_err(|error| error.to_string())?;
                let answer = match state {
                    State::Runs => match self.probe(&container.id, started).await {
                        Ok(()) => break,
                        Err(answer) => answer,
                    },
                    State::Ended(how) => how,
                };
                if Instant::now() >= end {
                    return Err(answer);
                }
                sleep(LOOK).await;
            }
        }
        Ok(())
    }
}

/// What serves, or did until a dead run stopped it, and what is left over of other attempts.
fn split(found: Vec<Container>, former: Option<&Former>) -> (Vec<Container>, Vec<Container>) {
    found.into_iter().partition(|container| {
        container.fit && former.is_some_and(|former| container.serves(&former.tag, &former.definition))
    })
}

/// Removes what an exchange that died at its very end left beside what serves.
pub async fn tidy(live: &LiveRoll<'_>, run: &Run) -> Result<(), StepError> {
    let engine = run.world.engine().await?;
    let digest = live.forge.definition_digest();
    for container in engine.serving(&run.world.labels(live.app)).await? {
        if !container.serves(&live.release.tag, &digest) || !container.fit {
            engine.remove(&container.id).await?;
        }
    }
    Ok(())
}

/// Removes all containers of an app, and the images of its releases.
pub async fn remove(world: &World, app: &AppName) -> Result<Done, StepError> {
    let engine = world.engine().await?;
    let containers = engine.serving(&world.labels(app)).await?;
    for container in containers.iter().filter(|container| container.runs || container.restarting) {
        engine.stop(&container.id, GRACE).await?;
    }
    for container in &containers {
        engine.remove(&container.id).await?;
    }
    Ok(Done::said(match containers.len() {
        0 => "nothing was there".to_owned(),
        1 => "1 container removed".to_owned(),
        n => format!("{n} containers removed"),
    }))
}
