//! Forging, updating and tearing down; putting a release and a definition live together.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use serde_json::json;
use tokio::time::{Instant, sleep};

use super::Run;
use super::cluster::{self, Pods};
use super::container;
use super::events::{Event, StepError};
use super::files::{blocking, folder_error};
use super::journal::{Done, InStep, Journal, Row};
use super::reached::{reached, runs};
use super::remote::{self, Remote};
use super::route;
use super::volumes;
use super::walk::{Gate, Stopped};
use super::world::{self, World};
use crate::address::Address;
use crate::desired::{Definition, Rollout, Route, Runtime};
use crate::failpoint;
use crate::plan::{ForgeWork, Former, Operation, Roll, Step, TeardownWork};
use crate::provider::releases;
use crate::provider::supervise::client::{self as roll, RollError};
use crate::provider::supervise::protocol::{self, Env, Failure, FailureReason, Outcome, Refusal, Report};
use crate::spec::name::AppName;
use crate::state::format::{self, DeployV1, ForgeV1};
use crate::state::{ArtifactKind, Change, ForgeStatus};

/// How long the end of the old replicas may take after their drain.
const AFTER_DRAIN: Duration = Duration::from_secs(60);
/// How long an earlier roll may go on draining.
pub const BUSY: Duration = Duration::from_secs(15 * 60);
/// How often a supervisor is asked for a roll's outcome.
const LOOK: Duration = Duration::from_millis(100);

/// Creates or updates what an app stands on.
pub async fn forge(
    run: &Arc<Run>,
    operation: &Operation,
    gate: &Gate,
    work: &ForgeWork,
) -> Result<Option<String>, Stopped> {
    let app = &operation.address.name;
    let after = work.roll.as_ref().map(|roll| rolled(run, app, work, roll));
    let put = |part: Part| move |step: InStep| put_stored(step, app, work, part);
    let intent = json!({ "forge": after, "deploy": work.roll.as_ref().map(|roll| &roll.release) });
    let mut begin = Vec::new();
    if let Some(from) = &work.renamed_from {
        // Before the state knows the new name: what runs is never lost from sight.
        follow(run, app, from).map_err(|error| {
            let (address, step) = (operation.address.clone(), Step::CreateDeployment);
            let (took, told) = (Duration::ZERO, error.clone());
            run.events.send(Event::StepFailed { address, step, took, error: told });
            Stopped::Failed { step: None, error }
        })?;
        begin.push(Change::AppRenamed { from: from.clone(), to: app.clone() });
    }
    begin.push(Change::ForgeStarted { app: app.clone(), status: ForgeStatus::Forging });
    // Before the world has anything of it: what is made of a route is never lost from sight.
    let former = work.live.as_ref().and_then(|live| live.route.clone());
    if former.is_none() && work.route.is_some() {
        begin.push(remembered(run, operation, work, work.live.as_ref(), work.route.clone()));
    }
    let row = Row::Forge { failed: ForgeStatus::ForgeFailed };
    let journal = Journal::open(run, operation, gate, row, intent, begin).await?;
    journal.step(Step::CreateSecret, put(Part::Secret)).await?;
    journal.step(Step::CreateVolumes, put(Part::Volumes)).await?;
    journal.step(Step::CreateService, put(Part::Service)).await?;
    journal.step(Step::CreateDeployment, put(Part::Deployment)).await?;
    let ways = route::Ways { app, wanted: work.route.as_ref(), former: former.as_ref(), namespace: None };
    ways.make(&journal).await?;
    ways.remove(&journal).await?;
    if work.roll.is_none() && work.live.as_ref().is_some_and(|live| live.engine.is_some()) {
        // What cannot be ended is in the next plan.
        let _ = remote::tidy(app, run).await;
    }
    let mut end = vec![Change::ForgeEnded {
        app: app.clone(),
        status: ForgeStatus::Forged,
        error: String::new(),
        resources: Some(json!({ "runtime": work.runtime, "deploymentName": app })),
    }];
    if work.roll.is_none() || former != work.route {
        end.push(remembered(run, operation, work, after.as_ref().or(work.live.as_ref()), work.route.clone()));
    }
    journal.close(end).await?;
    Ok(work.roll.as_ref().and_then(|roll| reached(&roll.definition)))
}

/// Lets a new name go on from what stands under the former one.
fn follow(run: &Run, app: &AppName, from: &AppName) -> Result<(), StepError> {
    let World { home, folders, .. } = &run.world;
    volumes::follow(folders, app, from)?;
    home.succeed(app, from).map_err(|error| folder_error(&home.run, &error))?;
    let (old, new) = (folders.cache(from), folders.cache(app));
    if old.is_dir() && !new.exists() {
        let follow = || {
            failpoint::before("follow", &new)?;
            std::fs::rename(&old, &new)?;
            failpoint::after("follow", &new)
        };
        follow().map_err(|error| folder_error(&new, &error))?;
    }
    Ok(())
}

/// What a roll is made of, in a cluster.
#[derive(Clone, Copy)]
enum Part {
    Secret,
    Volumes,
    Service,
    Deployment,
}

/// Rolls a stored release to a definition, or does a part of it.
async fn put_stored(step: InStep, app: &AppName, work: &ForgeWork, part: Part) -> Result<Done, StepError> {
    let Some(roll) = &work.roll else { return Ok(Done::default()) };
    let forge = &rolled(&step.run, app, work, roll);
    let former = work.live.as_ref().and_then(|live| {
        let replicas = live.definition.as_ref()?.replicas;
        Some(Former { tag: roll.release.tag.clone(), definition: live.definition_digest(), replicas })
    });
    let Roll { release, definition, rollout, restart, adopt, force } = roll;
    let (rollout, former, adopt, force) = (*rollout, former.as_ref(), *adopt, *force);
    let live = LiveRoll { app, forge, release, definition, rollout, former, adopt, force };
    let mut done = if definition.runtime.is_kubernetes() {
        let pods = Pods::new(&live, &step).await?;
        match part {
            Part::Secret => return pods.secret().await,
            Part::Volumes => return pods.volumes().await,
            Part::Service => return pods.service().await,
            Part::Deployment => pods.deployment(*restart).await?,
        }
    } else if definition.engine.is_some() {
        Remote::new(&live, &step).await?.put(*restart).await?
    } else {
        live.put(&step).await?
    };
    done.changes.push(Change::RecordPut {
        address: Address::forge(app),
        record: format::record(forge, work.protected),
    });
    Ok(done)
}

/// What is current once a roll is: the former route stays until its own steps are done.
fn rolled(run: &Run, app: &AppName, work: &ForgeWork, roll: &Roll) -> ForgeV1 {
    let former = work.live.as_ref().and_then(|live| live.route.clone());
    stored(run, app, &roll.definition, work.protected, former.or_else(|| work.route.clone()))
}

/// What is remembered of an app: its protection, its route, and that it was forged. Its live
/// definition stays.
fn remembered(
    run: &Run,
    operation: &Operation,
    work: &ForgeWork,
    live: Option<&ForgeV1>,
    route: Option<Route>,
) -> Change {
    let body = ForgeV1 {
        version: 1,
        definition: live.and_then(|forge| forge.definition.clone()),
        values: live.map(|forge| forge.values.clone()).unwrap_or_default(),
        protected: work.protected,
        host: live.and_then(|forge| forge.host.clone()),
        // Where it is said to be it stays: what is remembered moves nothing.
        namespace: live
            .and_then(|forge| forge.namespace.clone())
            .or_else(|| work.runtime.is_kubernetes().then(|| run.world.namespace())),
        engine: live
            .and_then(|forge| forge.engine.clone())
            .or_else(|| run.world.remote.clone().filter(|_| work.runtime == Runtime::Docker)),
        route,
    };
    let record = format::record(&body, work.protected);
    Change::RecordPut { address: operation.address.clone(), record }
}

/// Stops an app and forgets it. What holds data stays.
pub async fn teardown(
    run: &Arc<Run>,
    operation: &Operation,
    gate: &Gate,
    work: &TeardownWork,
) -> Result<Option<String>, Stopped> {
    let app = &operation.address.name;
    let begin = vec![Change::ForgeStarted { app: app.clone(), status: ForgeStatus::TearingDown }];
    let row = Row::Forge { failed: ForgeStatus::ForgeFailed };
    let journal = Journal::open(run, operation, gate, row, json!({}), begin).await?;
    let there = work.namespace.as_deref();
    let ways = route::Ways { app, wanted: None, former: work.route.as_deref(), namespace: there };
    ways.remove(&journal).await?;
    journal
        .step(Step::DeleteService, |step| async move {
            cluster::remove_service(&step, there.expect("the step is of a cluster"), app).await
        })
        .await?;
    journal
        .step(Step::DeleteDeployment, |step| async move {
            let done = match there {
                Some(namespace) => cluster::remove_pods(&step, namespace, app).await?,
                None if work.engine.is_some() => remote::remove(&step.run, app).await?,
                None => stop(&step, app).await?,
            };
            let folders = &step.run.world.folders;
            let spared: Vec<PathBuf> =
                work.spares.iter().map(|folder| releases::root(&folders.stage, folder)).collect();
            let mut gone = releases::all_but(&folders.releases(app), &spared)
                .map_err(|error| folder_error(&folders.releases(app), &error))?;
            gone.push(folders.cache(app));
            // A release that was made under a former name lies with that name's.
            gone.extend(work.release.as_ref().map(|folder| releases::root(&folders.stage, folder)));
            for folder in gone {
                let removed = blocking({
                    let folder = folder.clone();
                    move || releases::remove(&folder)
                });
                removed.await.map_err(|error| folder_error(&folder, &error))?;
            }
            // Nothing runs any more that knows the app by a former name.
            let _ = volumes::forget(folders, app);
            match work.runtime {
                Runtime::Docker => container::remove(&step.run.world, app, &work.spares).await?,
                // What it ran may have been built elsewhere: here there need not be an engine.
                Runtime::Kubernetes if step.run.world.engine().await.is_err() => {}
                Runtime::Kubernetes => container::remove(&step.run.world, app, &work.spares).await?,
                Runtime::Process => {}
            }
            Ok(done)
        })
        .await?;
    let end = vec![
        Change::ArtifactsForgotten { app: app.clone(), kind: ArtifactKind::Release },
        Change::RecordRemoved { address: Address::deploy(app) },
        Change::RecordRemoved { address: Address::forge(app) },
        Change::ForgeEnded {
            app: app.clone(),
            status: ForgeStatus::Unforged,
            error: String::new(),
            resources: Some(json!({})),
        },
    ];
    journal.close(end).await?;
    Ok((!work.keeps.is_empty()).then(|| format!("kept: {}", work.keeps.join(", "))))
}

async fn stop(step: &InStep, app: &AppName) -> Result<Done, StepError> {
    let home = &step.run.world.home;
    let end = Instant::now() + BUSY;
    let done = loop {
        match home.stop(app, step.run.lease.token, |report| say(step, &report)).await {
            Err(error) if busy(&error) && Instant::now() < end => wait(step).await?,
            other => break other.map_err(|error| roll_error(&error, step))?,
        }
    };
    Ok(Done::said(match done.cut {
        0 => "stopped".to_owned(),
        cut => format!("stopped; {cut} connections were cut at the end of the drain"),
    }))
}

/// A release under a definition, about to be put live.
pub struct LiveRoll<'a> {
    pub app: &'a AppName,
    pub forge: &'a ForgeV1,
    pub release: &'a DeployV1,
    pub definition: &'a Definition,
    pub rollout: Rollout,
    /// What is live before.
    pub former: Option<&'a Former>,
    /// Whether objects of others are taken over, in a cluster, and fields that they have set.
    pub adopt: bool,
    pub force: bool,
}

impl LiveRoll<'_> {
    /// Orders the roll of a supervisor and waits until it is complete.
    pub async fn put(&self, step: &InStep) -> Result<Done, StepError> {
        let world = &step.run.world;
        let definition = self.definition;
        step.run.alive()?;
        let dir = world.folders.stage.join(&self.release.folder);
        let command = match (definition.runtime, &definition.command) {
            (Runtime::Process, Some(command)) => world::command(command),
            (Runtime::Process, None) => return Err(StepError::new("a process needs a command")),
            (Runtime::Docker | Runtime::Kubernetes, _) => {
                world.replica(self.app, definition, &dir, &step.id)?
            }
        };
        let look = |line: &str| world.look(self.app, &step.id, line);
        let held: Option<world::Held<'_>> = match definition.runtime {
            Runtime::Process | Runtime::Kubernetes => None,
            Runtime::Docker => Some(&look),
        };
        let key = step.id.clone();
        let order = protocol::Roll {
            key: key.clone(),
            fence: step.run.lease.token,
            release: protocol::Release {
                tag: self.release.tag.clone(),
                commit: self.release.commit.clone(),
                dir,
            },
            definition: self.forge.definition_digest(),
            command,
            env: Env(world.env_with_volumes(self.app, definition)?),
            port: definition.port,
            front: world::front(definition.front),
            replicas: definition.replicas,
            health: world::health(&definition.health, held),
            timeout: self.rollout.timeout,
            drain: self.rollout.drain,
        };
        let end = Instant::now() + BUSY;
        let rolled = loop {
            let rolled = tokio::select! {
                rolled = world.home.roll(self.app, order.clone(), |report| say(step, &report)) => rolled,
                // Dropping the order gives the roll up unless traffic has moved; by key it is told
                // which.
                () = step.run.control.cancelled() => Err(RollError::Lost { moved: false }),
            };
            match rolled {
                Err(error) if busy(&error) && Instant::now() < end => wait(step).await?,
                other => break other,
            }
        };
        let done = match rolled {
            Err(RollError::Lost { .. }) => {
                let done = self.settled(step, &key).await?;
                let left = world.home.finish_rename(self.app, step.run.lease.token).await;
                // It serves, and its record is what recovery finds.
                left.map_err(|error| roll_error(&error, step).open())?;
                done
            }
            other => other.map_err(|error| roll_error(&error, step))?,
        };
        // What runs now knows the present name; a link that stays is in nobody's way.
        let _ = volumes::forget(&world.folders, self.app);
        let mut said = runs(definition);
        if done.cut > 0 {
            said += &format!("; {} old connections were cut at the end of the drain", done.cut);
        }
        Ok(Done::said(said))
    }
}

impl LiveRoll<'_> {
    /// What became of a roll whose order is not heard any more.
    async fn settled(&self, step: &InStep, key: &str) -> Result<roll::Done, StepError> {
        let limit = self.rollout.timeout + self.rollout.drain + AFTER_DRAIN;
        let end = Instant::now() + limit;
        let mut told = false;
        loop {
            let outcome = step.run.world.home.ask(self.app, key).await;
            match outcome {
                Ok(Outcome::Done { cut }) => return Ok(roll::Done { cut }),
                Ok(Outcome::Failed(failure)) if failure.reason != FailureReason::Abandoned => {
                    return Err(failed(&failure, self.app, &step.run.world.scrub));
                }
                Ok(Outcome::Failed(_)) if step.run.control.cancelling() => {
                    return Err(StepError::new("cancelled before the new release was live"));
                }
                Ok(Outcome::Failed(_) | Outcome::Unknown) => {
                    return Err(StepError::new("the supervisor was lost before the new release was live")
                        .help("apply again"));
                }
                Ok(Outcome::Moved) if !told => {
                    told = true;
                    step.output("traffic has moved, so the roll is finished");
                }
                Ok(Outcome::Running | Outcome::Moved) | Err(_) if Instant::now() < end => {}
                Ok(Outcome::Running | Outcome::Moved) => {
                    let message = format!("the roll was not over after {} s", limit.as_secs());
                    return Err(StepError::new(message).open());
                }
                Err(error) => return Err(roll_error(&error, step).open()),
            }
            sleep(LOOK).await;
        }
    }
}

/// Whether the supervisor still finishes what a run before this one ordered.
pub fn busy(error: &RollError) -> bool {
    matches!(error, RollError::Refused(Refusal::Busy { .. }))
}

async fn wait(step: &InStep) -> Result<(), StepError> {
    step.output("an earlier roll is being finished");
    tokio::select! {
        () = sleep(Duration::from_secs(1)) => step.run.alive(),
        () = step.run.control.cancelled() => Err(StepError::new("cancelled before the new release was live")),
    }
}

/// A definition as it is stored, with fingerprints of the values that it only names.
pub fn stored(
    run: &Run,
    app: &AppName,
    definition: &Definition,
    protected: bool,
    route: Option<Route>,
) -> ForgeV1 {
    let values = format::fingerprints(definition, run.world.values.of(app), &run.key);
    let (host, namespace, engine) = if definition.runtime.is_kubernetes() {
        (None, Some(run.world.namespace()), None)
    } else if definition.engine.is_some() {
        (None, None, run.world.remote.clone())
    } else {
        (Some(run.world.home.host()), None, None)
    };
    let definition = Some(definition.clone());
    ForgeV1 { version: 1, definition, values, protected, host, namespace, engine, route }
}

/// A supervisor's report as a word of progress.
fn say(step: &InStep, report: &Report) {
    let line = match report {
        Report::Started { replica, port: Some(port), .. } => {
            format!("replica {replica} started, PORT={port}")
        }
        Report::Started { replica, .. } => format!("replica {replica} started"),
        Report::Waiting { replica, answer } => format!("replica {replica} is not healthy yet: {answer}"),
        Report::Healthy { replica } => format!("replica {replica} is healthy"),
        Report::Moved => "traffic goes to the new release".to_owned(),
        Report::Draining { connections } => format!("{connections} connections to the old release are open"),
        Report::Done { .. }
        | Report::Failed(_)
        | Report::Status(_)
        | Report::Known { .. }
        | Report::Refused(_) => {
            return;
        }
    };
    step.output(&line);
}

fn roll_error(error: &RollError, step: &InStep) -> StepError {
    let scrub = &step.run.world.scrub;
    match error {
        RollError::Failed(failure) => failed(failure, &step.address.name, scrub),
        other => StepError::new(scrub.text(&other.to_string())),
    }
}

/// Everything a reader needs to mend an app that did not become healthy.
fn failed(failure: &Failure, app: &AppName, scrub: &crate::scrub::Scrub) -> StepError {
    let mut evidence = Vec::new();
    if let Some(probe) = &failure.probe {
        evidence.push(format!("the last probe: {probe}"));
    }
    if !failure.listens.is_empty() {
        let places: Vec<String> = failure.listens.iter().map(ToString::to_string).collect();
        evidence.push(format!("it listens on {}, and not where $PORT says", places.join(", ")));
    }
    if !failure.log.is_empty() {
        evidence.push("the last lines of its log:".into());
        evidence.extend(failure.log.iter().map(|line| format!("  {line}")));
    }
    match failure.restored {
        Some(true) => evidence.push("the release before it was started again and serves".into()),
        Some(false) => evidence.push("the release before it was started again and is NOT healthy".into()),
        None => {}
    }
    let help = if failure.listens.is_empty() {
        match &failure.reason {
            FailureReason::NeverHealthy { .. }
            | FailureReason::Exited { .. }
            | FailureReason::NotStarted { .. } => {
                format!("mend the app and apply again; `norn logs {app}` shows the whole log")
            }
            FailureReason::PortUnavailable { .. } => {
                "stop what holds the port, or give the app another `port`".into()
            }
            FailureReason::Abandoned | FailureReason::NotHandedOver { .. } => "apply again".into(),
        }
    } else {
        "let the app listen on $PORT, or set `front: false` and `port` to where it listens".to_owned()
    };
    let evidence: Vec<String> = evidence.iter().map(|line| scrub.text(line).into_owned()).collect();
    let message = scrub.text(&failure.reason.to_string()).into_owned();
    let output =
        std::iter::once(message.clone()).chain(evidence.iter().cloned()).collect::<Vec<_>>().join("\n");
    StepError { message, evidence, help: Some(help), output, open: false }
}
