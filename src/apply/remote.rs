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
use crate::desired::Probe;
use crate::failpoint;
use crate::provider::docker::hold::Hold;
use crate::provider::docker::served::{Container, Serves, Sorted, State, sort};
use crate::provider::docker::{Engine, EngineError, Labels};
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
/// How long an engine may be away while the new containers are waited for, and while the former ones are
/// started again.
const AWAY: Duration = Duration::from_secs(30);
const BACK: Duration = Duration::from_secs(120);
/// How long what was started again is asked whether it serves.
const PROBED: Duration = Duration::from_secs(30);
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
    pub async fn new(live: &'a LiveRoll<'a>, step: &'a InStep) -> Result<Self, StepError> {
        let http = probe::client().map_err(|error| StepError::new(error.to_string()))?;
        let world = &step.run.world;
        let there = world.remote.as_ref().expect("the run connected to the engine of its plan");
        let (engine, host) = (world.engine().await?, host_name(&there.address).to_owned());
        Ok(Self { live, step, engine, host, http })
    }

    /// Exchanges what serves, and waits until the new containers are healthy. What serves as it is to is
    /// exchanged only where that is asked for: `anew`.
    pub async fn put(&self, anew: bool) -> Result<Done, StepError> {
        let live = self.live;
        let found = of_app(&self.engine, &self.step.run, live.app).await?;
        let Sorted { live: old, left, whole } = sort(&found);
        for container in left {
            end(&self.engine, &self.step.run, container).await?;
        }
        let digest = live.forge.definition_digest();
        let as_wanted = |container: &&Container| {
            container.runs && container.release == live.release.tag && container.definition == digest
        };
        if whole && !anew && old.iter().all(as_wanted) {
            return Ok(Done::said(runs(live.definition)));
        }
        // What cannot be made interrupts nothing.
        let new = self.make().await?;
        let held = live.definition.port.is_some();
        if held {
            self.talk("stop")?;
            for container in old.iter().filter(|container| container.is_up()) {
                self.step.output(&format!("{} stops", container.name));
                if let Err(why) = self.stop(container).await {
                    return Err(self.go_back(why, &new, &old).await);
                }
            }
            self.talk("stopped")?;
        }
        if let Err(why) = self.prove(&new).await {
            return Err(self.go_back(why, &new, &old).await);
        }
        // From here on the new ones are what serves.
        self.talk("exchange")?;
        for made in &new {
            self.step.run.alive().map_err(StepError::open)?;
            let kept = async {
                self.engine.keep(&made.id).await?;
                self.engine.prove(&made.id, &made.name).await
            };
            kept.await.map_err(|error| StepError::from(error).open())?;
        }
        self.talk("exchanged")?;
        // Each may take all of its time.
        let ended = old.iter().map(async |container| {
            if let Err(error) = end(&self.engine, &self.step.run, container).await {
                self.step.output(&format!("{} is left to the next apply: {}", container.name, error.message));
            }
        });
        futures_util::future::join_all(ended).await;
        Ok(Done::said(runs(live.definition)))
    }

    async fn stop(&self, container: &Container) -> Result<(), Unfit> {
        self.step.run.alive().map_err(|_| Unfit::Lost)?;
        Ok(self.engine.stop(&container.id, GRACE).await?)
    }

    /// A boundary.
    fn talk(&self, act: &str) -> Result<(), StepError> {
        let app = std::path::Path::new(self.live.app.as_str());
        failpoint::talk(act, app).map_err(|error| StepError::new(error.to_string()).open())
    }

    /// The new containers, none of which runs.
    async fn make(&self) -> Result<Vec<Made>, StepError> {
        let (live, run) = (self.live, &self.step.run);
        let hold = self.hold()?;
        let values = run.world.env_with_volumes(live.app, live.definition)?;
        let digest = live.forge.definition_digest();
        let (store, replicas) = (&run.world.store, live.definition.replicas);
        let serves = Serves { store, release: &live.release.tag, definition: &digest, replicas };
        let mut made = Vec::new();
        for replica in 0..replicas {
            run.alive()?;
            match self.engine.make(&hold, &values, serves, replica).await {
                Ok((id, name)) => made.push(Made { id, name, replica }),
                Err(error) => {
                    for made in &made {
                        // What cannot be removed now is removed by the next roll.
                        let _ = self.engine.remove(&made.id).await;
                    }
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

    /// Starts the new containers and waits until all of them are healthy.
    async fn prove(&self, new: &[Made]) -> Result<(), Unfit> {
        for made in new {
            self.step.run.alive().map_err(|_| Unfit::Lost)?;
            self.engine.start(&made.id).await?;
            self.step.output(&format!("replica {} started", made.replica));
        }
        let limit = self.live.definition.health.startup.min(self.live.rollout.timeout);
        futures_util::future::try_join_all(new.iter().map(|made| self.healthy(made, limit))).await?;
        // The first to be healthy may have ended since.
        for made in new {
            if let State::Ended(how) = self.engine.state(&made.id, None).await? {
                let what = format!("replica {} was healthy and then {how}", made.replica);
                return Err(Unfit::Failed(what, self.evidence(&made.id, None).await));
            }
        }
        Ok(())
    }

    /// Waits until a container is healthy.
    async fn healthy(&self, made: &Made, limit: Duration) -> Result<(), Unfit> {
        let Made { id, replica, .. } = made;
        let memory = self.live.definition.resources.memory;
        let (began, mut started, mut seen) = (Instant::now(), Instant::now(), Instant::now());
        let (mut exits, mut told) = (0, None);
        loop {
            let answer = match self.engine.state(id, memory).await {
                Ok(State::Runs) => match self.probe(id, started).await {
                    Ok(()) => {
                        self.step.output(&format!("replica {replica} is healthy"));
                        return Ok(());
                    }
                    Err(answer) => answer,
                },
                Ok(State::Ended(how)) => {
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
                // The engine broke off, as it does where it is started anew.
                Err(error) if is_away(&error) && seen.elapsed() < AWAY => {
                    self.pause(LOOK).await?;
                    continue;
                }
                Err(error) => return Err(error.into()),
            };
            seen = Instant::now();
            if began.elapsed() >= limit {
                let what = format!("replica {replica} was not healthy after {} s", limit.as_secs());
                return Err(Unfit::Failed(what, self.evidence(id, Some(&answer)).await));
            }
            if told.as_ref() != Some(&answer) {
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
    async fn go_back(&self, why: Unfit, new: &[Made], old: &[&Container]) -> StepError {
        let lost = StepError::new("the lock on the state was lost while containers were exchanged").open();
        let (message, mut evidence) = match why {
            Unfit::Cancelled if self.step.run.alive().is_ok() => {
                ("cancelled before the new release was live".to_owned(), Vec::new())
            }
            Unfit::Failed(message, evidence) if self.step.run.alive().is_ok() => (message, evidence),
            // Another run may be at work there.
            Unfit::Lost | Unfit::Cancelled | Unfit::Failed(..) => return lost,
        };
        let mut open = false;
        match self.restored(new, old).await {
            Ok(_) | Err(Unfit::Failed(..)) if old.is_empty() => {}
            Ok(None) => evidence.push("the release before it was started again and serves".to_owned()),
            Ok(Some(answer)) => {
                evidence.push(format!(
                    "the release before it was started again; it does not pass the new check: {answer}"
                ));
            }
            Err(Unfit::Lost | Unfit::Cancelled) => return lost,
            Err(Unfit::Failed(error, _)) => {
                open = true;
                evidence.push(format!("the release before it could NOT be started again: {error}"));
            }
        }
        let scrub = &self.step.run.world.scrub;
        let message = scrub.text(&message).into_owned();
        let evidence: Vec<String> = evidence.iter().map(|line| scrub.text(line).into_owned()).collect();
        let said: Vec<String> = std::iter::once(message.clone()).chain(evidence.iter().cloned()).collect();
        let taken = ["port is already allocated", "address already in use"];
        let help = if taken.iter().any(|words| message.contains(words)) {
            "stop what holds the port on the engine's host, or give the app another `port`".to_owned()
        } else {
            format!("mend the app and apply again; `norn logs {}` shows what it writes", self.live.app)
        };
        StepError { message, evidence, help: Some(help), output: said.join("\n"), open }
    }

    /// Removes what is new, starts what was stopped, and looks whether it runs; the answer of the new
    /// health check where that does not pass.
    async fn restored(&self, new: &[Made], old: &[&Container]) -> Result<Option<String>, Unfit> {
        let end = Instant::now() + BACK;
        for made in new {
            self.again(Act::Remove, &made.id, end).await?;
        }
        for container in old {
            self.again(Act::Start, &container.id, end).await?;
        }
        let mut answer = None;
        for container in old {
            let started = Instant::now();
            while started.elapsed() < PROBED {
                answer = match self.engine.state(&container.id, None).await? {
                    State::Runs => self.probe(&container.id, started).await.err(),
                    State::Ended(how) => Some(how),
                };
                if answer.is_none() {
                    break;
                }
                sleep(LOOK).await;
            }
        }
        Ok(answer)
    }
}

/// What is done to a container until it is done.
#[derive(Debug, Clone, Copy)]
enum Act {
    Start,
    Remove,
}

impl Remote<'_> {
    /// Does it once the engine is there, until `end`.
    async fn again(&self, act: Act, container: &str, end: Instant) -> Result<(), Unfit> {
        loop {
            // The lease may have run out while the engine was away.
            self.step.run.alive().map_err(|_| Unfit::Lost)?;
            let done = match act {
                Act::Start => self.engine.start(container).await,
                Act::Remove => self.engine.remove(container).await,
            };
            match done {
                Err(error) if is_away(&error) && Instant::now() < end => sleep(RETRY).await,
                done => return Ok(done?),
            }
        }
    }
}

/// Whether an engine is not there for a moment.
fn is_away(error: &EngineError) -> bool {
    matches!(error, EngineError::Lost { .. } | EngineError::Unreachable { .. })
}

/// The containers of an app.
async fn of_app(engine: &Engine, run: &Run, app: &AppName) -> Result<Vec<Container>, StepError> {
    // Those of another state, too.
    let found = engine.serving(&Labels::new(&run.world.scope, app)).await?;
    match found.iter().find(|container| container.store != run.world.store) {
        Some(other) => Err(StepError::new(format!("the container {} is of another state", other.name))
            .help("apply from where that state is, or give this project or app another name")),
        None => Ok(found),
    }
}

/// Removes what an exchange that died at its very end left beside what serves.
pub async fn tidy(app: &AppName, run: &Run) -> Result<(), StepError> {
    let engine = run.world.engine().await?;
    for container in sort(&of_app(&engine, run, app).await?).left {
        end(&engine, run, container).await?;
    }
    Ok(())
}

/// Ends and removes a container.
async fn end(engine: &Engine, run: &Run, container: &Container) -> Result<(), StepError> {
    run.alive()?;
    if container.is_up() {
        engine.stop(&container.id, GRACE).await?;
    }
    Ok(engine.remove(&container.id).await?)
}

/// Removes all containers of an app.
pub async fn remove(run: &Run, app: &AppName) -> Result<Done, StepError> {
    let engine = run.world.engine().await?;
    let containers = of_app(&engine, run, app).await?;
    for container in &containers {
        end(&engine, run, container).await?;
    }
    Ok(Done::said(match containers.len() {
        0 => "nothing was there".to_owned(),
        1 => "1 container removed".to_owned(),
        n => format!("{n} containers removed"),
    }))
}
