//! Apps in a cluster: putting a release and a definition live there, migrating, taking them away.
//!
//! Elsewhere: the objects and the calls (`provider::kubernetes`), when and for what (`forge`, `deploy`).
//! Invariants: what serves goes on serving until the new version does; where that never happens, the
//! former one is put back. What holds data is not removed.

use std::fs::File;
use std::time::Duration;

use jiff::Timestamp;
use tokio::time::{sleep, timeout};

use super::command;
use super::events::StepError;
use super::files::folder_error;
use super::forge::LiveRoll;
use super::journal::{Done, InStep};
use super::reached::runs;
use super::world::World;
use crate::desired::Command;
use crate::plan::Former;
use crate::provider::child::output::Writer;
use crate::provider::kubernetes::apply::{Change, How};
use crate::provider::kubernetes::history::Version;
use crate::provider::kubernetes::kinds::{Address, Kind, Object};
use crate::provider::kubernetes::logs::Line;
use crate::provider::kubernetes::objects::{App, Extra, pull_secret};
use crate::provider::kubernetes::ownership::is_norns;
use crate::provider::kubernetes::rollout::WaitError;
use crate::provider::kubernetes::seen::{match_labels, pulls_with};
use crate::provider::kubernetes::{Cluster, ClusterError};
use crate::provider::labels;
use crate::secret::Secret;
use crate::spec::name::AppName;
use crate::state::format::Namespace;

/// How long an object may take to go.
const GONE: Duration = Duration::from_secs(120);
/// How long the former version may take to be whole again.
const BACK: Duration = Duration::from_secs(120);
/// How often is looked whether it is.
const AGAIN: Duration = Duration::from_millis(500);
/// How long one migration may take.
const MIGRATION: Duration = Duration::from_secs(24 * 3600);
/// How many lines of a migration are kept.
const LINES: u32 = 10_000;

impl From<ClusterError> for StepError {
    fn from(error: ClusterError) -> Self {
        StepError::new(error.to_string())
    }
}

impl World {
    /// A namespace that the plan works in.
    pub fn cluster(&self, namespace: &str) -> &Cluster {
        self.clusters.get(namespace).expect("the run connected to every namespace of its plan")
    }

    /// Where apps of the runtime kubernetes are put.
    pub fn namespace(&self) -> Namespace {
        let cluster = self.cluster(&self.namespace);
        Namespace { name: cluster.namespace.clone(), id: cluster.id.clone(), server: cluster.server.clone() }
    }
}

/// A release and a definition that are put live in a cluster.
pub struct Pods<'a> {
    live: &'a LiveRoll<'a>,
    step: &'a InStep,
    cluster: &'a Cluster,
    image: &'a str,
    /// What opens the image's registry, as nodes want it.
    logins: Option<Secret>,
    extra: Extra,
}

impl<'a> Pods<'a> {
    pub async fn new(live: &'a LiveRoll<'a>, step: &'a InStep) -> Result<Self, StepError> {
        let world = &step.run.world;
        let cluster = world.cluster(&world.namespace);
        let image = live.release.image.as_deref();
        let image =
            image.ok_or_else(|| StepError::new("the release is in no registry").help("redeploy it"))?;
        let deployment = cluster.look(&deployment(live.app)).await?;
        // One that others made has its own, which cannot be changed.
        let selector = deployment.as_ref().and_then(match_labels);
        let logins = world.logins.docker_config(image).await?;
        // Who has no login goes on with what somebody gave the cluster who had one.
        let pull = pull_secret(live.app);
        let given = deployment.as_ref().is_some_and(|found| pulls_with(found, &pull));
        let extra = Extra {
            pull_secrets: if logins.is_some() || given { vec![pull] } else { Vec::new() },
            selector,
            commit: Some(live.release.commit.clone()),
            operation: Some(step.id.clone()),
            release: Some(live.release.tag.clone()),
            digest: Some(live.forge.definition_digest()),
        };
        Ok(Self { live, step, cluster, image, logins, extra })
    }

    fn app(&self) -> App<'_> {
        let world = &self.step.run.world;
        App {
            scope: &world.scope,
            name: self.live.app,
            definition: self.live.definition,
            image: self.image,
            values: world.values.of(self.live.app),
            key: &self.step.run.key,
            rollout: self.live.rollout,
            extra: &self.extra,
        }
    }

    /// What it is given by value, and what its image is pulled with.
    pub async fn secret(&self) -> Result<Done, StepError> {
        let app = self.app();
        let pull = self.logins.as_ref().map(|logins| app.pull_secret(logins));
        self.put_all(app.secret().into_iter().chain(pull)).await
    }

    /// What its data is in.
    pub async fn volumes(&self) -> Result<Done, StepError> {
        self.put_all(self.app().claims()).await
    }

    /// Where others in the cluster reach it: there before it is live, as what serves is found by its
    /// labels. One that is taken over leads to what others made until the pods are norn's.
    pub async fn service(&self) -> Result<Done, StepError> {
        let app = self.app();
        let Some(service) = app.service() else { return Ok(Done::said("nothing is needed")) };
        let found = if self.live.adopt { self.cluster.look(&service.address).await? } else { None };
        if let Some(found) = found {
            self.try_out(&service).await?;
            if let Some(deployment) = self.cluster.look(&deployment(self.live.app)).await? {
                self.cluster.lead_by_number(&service.address, &found, &deployment).await?;
            }
            return Ok(Done::said(format!("{} is taken over with the pods", service.address)));
        }
        self.put_all([service]).await
    }

    /// The pods, and waits until they serve; then the way to them, which would be there too early or be
    /// left by a version that never served. `restart` has new ones made where nothing of them changes.
    pub async fn deployment(&self, restart: bool) -> Result<Done, StepError> {
        self.step.run.alive()?;
        let app = self.app();
        if let Some(ingress) = app.ingress() {
            // What the cluster refuses is known before anything is changed.
            self.try_out(&ingress).await?;
        }
        self.put(&app.deployment()).await?;
        if restart {
            self.cluster.restart(self.live.app.as_str(), Timestamp::now()).await?;
        }
        let (name, control) = (self.live.app.as_str(), &self.step.run.control);
        let progress = |line: &str| self.step.output(line);
        let waited =
            self.cluster.rolled_out(name, self.live.rollout.timeout, control.cancelled(), progress).await;
        match waited {
            Ok(()) => {}
            // It goes on by itself, and may come to a good end.
            Err(WaitError::Cluster(error)) => return Err(StepError::from(error).open()),
            Err(WaitError::Cancelled) if control.lost() => {
                return Err(StepError::new("the lock on the state was lost while it was rolled out").open());
            }
            Err(error) => return Err(self.put_back(&error).await),
        }
        let taken_over = app.service().filter(|_| self.live.adopt);
        // It serves by now, and is no failure.
        let ways = self.put_all(taken_over.into_iter().chain(app.ingress())).await;
        ways.map_err(StepError::open)?;
        if let Err(error) = self.prune().await {
            self.step.output(&format!("what no version needs any more is left: {}", error.message));
        }
        Ok(Done::said(runs(self.live.definition)))
    }

    /// All of it, in order.
    pub async fn put_live(&self) -> Result<Done, StepError> {
        self.secret().await?;
        self.volumes().await?;
        self.service().await?;
        self.deployment(false).await
    }

    async fn put_all(&self, objects: impl IntoIterator<Item = Object>) -> Result<Done, StepError> {
        let mut said = Vec::new();
        for object in objects {
            let change = self.put(&object).await?;
            said.push(format!("{} {}", object.address, told(change)));
        }
        Ok(if said.is_empty() { Done::said("nothing is needed") } else { Done::said(said.join(", ")) })
    }

    fn how(&self) -> How {
        How { adopt: self.live.adopt, force: self.live.force, ..How::default() }
    }

    /// Puts an object. One of which a field cannot be changed is replaced, unless it holds data.
    async fn put(&self, object: &Object) -> Result<Change, StepError> {
        let (scope, how) = (&self.step.run.world.scope, self.how());
        match self.cluster.apply(scope, object, how).await {
            Err(ClusterError::Immutable { field, .. }) if !object.address.kind.holds_data() => {
                self.step.output(&format!("{} is replaced: its {field} cannot be changed", object.address));
                self.cluster.delete(scope, &object.address, GONE).await?;
                Ok(self.cluster.apply(scope, object, how).await?.change)
            }
            Ok(applied) => Ok(applied.change),
            // What was asked for may come to pass.
            Err(error @ ClusterError::Unreachable { .. })
                if [Kind::Deployment, Kind::Job].contains(&object.address.kind) =>
            {
                Err(self.refused(error).open())
            }
            Err(error) => Err(self.refused(error)),
        }
    }

    /// Has the server say whether it would take an object.
    async fn try_out(&self, object: &Object) -> Result<(), StepError> {
        let tried = self.cluster.try_out(&self.step.run.world.scope, object, self.how()).await;
        tried.map_err(|error| self.refused(error))
    }

    /// Why an object was not taken, and the mend where there is one.
    fn refused(&self, error: ClusterError) -> StepError {
        let help = match &error {
            ClusterError::Immutable { .. } => {
                "it holds data, so norn does not replace it: put the field back, or name another volume"
                    .to_owned()
            }
            ClusterError::Foreign { .. } | ClusterError::Conflict { .. } => {
                format!("to take it over: `norn apply --adopt forge/{}`", self.live.app)
            }
            _ => return error.into(),
        };
        StepError::from(error).help(help)
    }

    /// Has what served before serve again, and tells why the new version did not.
    async fn put_back(&self, why: &WaitError) -> StepError {
        let (cluster, name) = (self.cluster, self.live.app.as_str());
        let former = self.live.former.map(|Former { tag, definition, replicas }| Version {
            release: tag,
            definition,
            replicas: *replicas,
        });
        let said = match cluster.go_back(name, former, self.live.adopt).await {
            Ok(Some(release)) if self.whole_again().await => format!("{release} serves as before"),
            Ok(Some(release)) => format!("{release} was put back and is NOT healthy"),
            Ok(None) if former.is_some() => {
                "the cluster does not have the version before it any more".to_owned()
            }
            // What was taken over was somebody's.
            Ok(None) if self.live.adopt => "what was taken over is left as it is now".to_owned(),
            Ok(None) => {
                let scope = &self.step.run.world.scope;
                match cluster.delete(scope, &deployment(self.live.app), GONE).await {
                    Ok(()) => "it was the first, so its pods were removed again".to_owned(),
                    Err(error) => format!("it was the first, and its pods could not be removed: {error}"),
                }
            }
            Err(error) => format!("the version before it could not be put back: {error}"),
        };
        let text = self.step.run.world.scrub.text(&format!("{why}\n{said}")).into_owned();
        failed(&text, &format!("mend the app and apply again; `norn logs {name}` shows what it writes"))
    }

    /// Waits until what was put back is whole. What the cluster still says of the version that failed is
    /// no answer.
    async fn whole_again(&self) -> bool {
        let name = self.live.app.as_str();
        let whole = async {
            loop {
                match self.cluster.rolled_out(name, BACK, std::future::pending(), |_| {}).await {
                    Ok(()) => return true,
                    Err(WaitError::Failed { .. }) => sleep(AGAIN).await,
                    Err(WaitError::Cancelled | WaitError::Cluster(_)) => return false,
                }
            }
        };
        timeout(BACK, whole).await.unwrap_or(false)
    }

    /// Removes what no version needs any more.
    async fn prune(&self) -> Result<(), StepError> {
        let scope = &self.step.run.world.scope;
        let labels = labels::of_app(scope, self.live.app);
        let app = self.app();
        let wanted: Vec<Address> = app.ways().map(|way| way.address).collect();
        let found = self.cluster.found(&[Kind::Service, Kind::Ingress], &labels).await?;
        let unwanted =
            found.into_iter().filter(|(address, object)| !wanted.contains(address) && is_norns(object));
        for address in
            unwanted.map(|(address, _)| address).chain(self.cluster.unnamed_secrets(&labels).await?)
        {
            self.cluster.delete(scope, &address, GONE).await?;
        }
        Ok(())
    }

    /// Runs a command of the spec once, in the release and with the app's environment.
    pub async fn job(&self, line: &str) -> Result<Done, StepError> {
        let run = &self.step.run;
        let scope = &run.world.scope;
        self.secret().await?;
        self.volumes().await?;
        // What an attempt left is known to have ended before there is another.
        for left in self.cluster.found(&[Kind::Job], &labels::of_app(scope, self.live.app)).await?.into_keys()
        {
            self.cluster.delete(scope, &left, GONE).await?;
        }
        run.alive()?;
        let id = self.step.id.rsplit('-').next().unwrap_or_default();
        // Its pods get it as a label, which is shorter than the longest name of an app.
        let app: String = self.live.app.as_str().chars().take(40).collect();
        let name = format!("{app}-{}-{id}", self.step.step.as_str());
        let object = self.app().job(&name, &Command::Shell(line.to_owned()), MIGRATION);
        self.put(&object).await?;
        let (done, told) = self.watch_job(&name).await;
        let lines = self.cluster.last_lines(&pods_of_job(&name), LINES).await;
        let lines: Vec<_> = lines.unwrap_or_default().into_iter().map(|line| line.text).collect();
        let output = self.log(&lines, told)?;
        match done {
            Ok(()) => Ok(Done { output, ..Done::default() }),
            Err(WaitError::Cluster(error)) => Err(StepError { output, ..StepError::from(error).open() }),
            Err(WaitError::Cancelled) => {
                if !run.control.lost() {
                    self.cluster.delete(scope, &object.address, GONE).await?;
                }
                Err(StepError { output, ..StepError::new("cancelled") })
            }
            Err(error) => {
                // One whose pod never started is not to begin later.
                self.cluster.delete(scope, &object.address, GONE).await?;
                let text = run.world.scrub.text(&error.to_string()).into_owned();
                let log = run.world.folders.step_log(self.live.app, self.step.step.as_str());
                let help = format!("the whole output is in {}", log.display());
                Err(StepError { output, ..failed(&text, &help) })
            }
        }
    }

    /// Waits for the end of a Job, and tells what it writes as it does; how many lines that were.
    async fn watch_job(&self, name: &str) -> (Result<(), WaitError>, usize) {
        let Self { cluster, step, live, .. } = self;
        let progress = |line: &str| step.output(line);
        let mut told = 0;
        let tell = |line: Line| {
            step.output(&line.text);
            told += 1;
        };
        let job = cluster.job_done(name, live.rollout.timeout, step.run.control.cancelled(), progress);
        let pods = pods_of_job(name);
        let follow = cluster.follow(&pods, LINES, std::future::pending(), tell);
        tokio::pin!(job);
        let done = tokio::select! {
            done = &mut job => done,
            // What it writes is read once more at its end.
            _ = follow => job.await,
        };
        (done, told)
    }

    /// Writes the log of the step; the first lines were `told` before.
    fn log(&self, lines: &[String], told: usize) -> Result<String, StepError> {
        let log = command::log(self.step)?;
        let broken = |error: &dyn std::fmt::Display| StepError::new(error.to_string());
        let file = File::create(&log).map_err(|error| folder_error(&log, &error))?;
        let mut writer = Writer::new(file, &log, &self.step.run.world.scrub);
        let mut known = told;
        let mut tell = |line: &str| match known {
            0 => self.step.output(line),
            _ => known -= 1,
        };
        for line in lines {
            writer.push(format!("{line}\n").as_bytes(), &mut tell).map_err(|error| broken(&error))?;
        }
        writer.finish(&mut tell).map_err(|error| broken(&error))
    }
}

/// Removes where an app is reached.
pub async fn remove_service(step: &InStep, namespace: &str, app: &AppName) -> Result<Done, StepError> {
    remove(step, namespace, app, &[Kind::Ingress, Kind::Service]).await
}

/// Removes all else of an app, but for what holds its data.
pub async fn remove_pods(step: &InStep, namespace: &str, app: &AppName) -> Result<Done, StepError> {
    remove(step, namespace, app, &[Kind::Deployment, Kind::Job, Kind::Secret]).await
}

async fn remove(step: &InStep, namespace: &str, app: &AppName, kinds: &[Kind]) -> Result<Done, StepError> {
    let (world, run) = (&step.run.world, &step.run);
    let cluster = world.cluster(namespace);
    let found = cluster.found(kinds, &labels::of_app(&world.scope, app)).await?;
    let mut said = Vec::new();
    for kind in kinds {
        for address in found.keys().filter(|address| address.kind == *kind) {
            run.alive()?;
            cluster.delete(&world.scope, address, GONE).await?;
            said.push(format!("{address} deleted"));
        }
    }
    Ok(if said.is_empty() { Done::said("nothing was there") } else { Done::said(said.join(", ")) })
}

fn pods_of_job(name: &str) -> String {
    format!("batch.kubernetes.io/job-name={name}")
}

fn deployment(app: &AppName) -> Address {
    Address { kind: Kind::Deployment, name: app.to_string() }
}

fn told(change: Change) -> &'static str {
    match change {
        Change::Created => "created",
        Change::Changed => "changed",
        Change::Same => "is as it is to be",
    }
}

/// An error of several lines: the first says what, the others are its evidence.
fn failed(text: &str, help: &str) -> StepError {
    let mut lines = text.lines().map(str::to_owned);
    let message = lines.next().unwrap_or_default();
    let evidence: Vec<String> = lines.collect();
    StepError { evidence, output: text.to_owned(), ..StepError::new(message) }.help(help)
}
