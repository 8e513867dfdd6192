//! Work under the lock on a project's state: taking it, settling what dead runs left, walking what
//! is due, telling of it.
//!
//! Elsewhere: what is due, and whether the user agreed (`apply`, `apply_file`).

use std::collections::BTreeMap;
use std::sync::Arc;

use jiff::Timestamp;
use tokio::sync::Mutex;
use uuid::Uuid;

use super::args::{Doing, Global};
use super::clusters;
use super::engines;
use super::facts;
use super::failure::{Exit, Failure};
use super::project::{Project, store_failure};
use super::signals::{self, Listening};
use super::talker::Talker;
use crate::address::Address;
use crate::apply::events::{Receiver, Sender};
use crate::apply::lease::{self, Keeper, Waiting};
use crate::apply::leavings::{self, Leavings};
use crate::apply::world::{self, Environment, World};
use crate::apply::{self, Control, Event, Outcome, Run, recovery};
use crate::desired::Desired;
use crate::plan::{Operation, Plan, Running, Work};
use crate::provider::docker::address as docker;
use crate::provider::docker::registry::Logins;
use crate::provider::machine;
use crate::provider::source::Git;
use crate::render::events_json::EventV1;
use crate::render::{Printer, summary};
use crate::scrub::Scrub;
use crate::spec::name::AppName;
use crate::state::format;
use crate::state::lock::ProcessIdentity;
use crate::state::{Applied, Change, Holder, Lease, Snapshot, StoreError};

/// What work under the lock is about.
pub struct Locked<'a> {
    pub global: &'a Global,
    pub doing: &'a Doing,
    pub printer: Printer,
    pub project: &'a Project,
    pub desired: &'a Desired,
    /// What goes on with the work if it ends early, such as `norn apply`.
    pub command: String,
    /// The id of the saved plan that is applied, if it is one.
    pub saved: Option<&'a str>,
    /// Machines that are gone for good, by their host names.
    pub lost: &'a [String],
}

/// What stands once nothing of a dead run is left to settle.
pub struct Settled {
    pub stored: Snapshot,
    pub running: BTreeMap<AppName, Running>,
    /// What the saved plan's runs did.
    pub applied: Vec<Applied>,
}

/// The lock that is held, and by whom.
struct Lock<'a> {
    lease: &'a Lease,
    own: &'a ProcessIdentity,
    keeper: &'a Keeper,
    control: Control,
}

/// What is to be done.
pub struct Due {
    pub plan: Plan,
    /// What a saved plan did before.
    pub done: Vec<Address>,
}

impl Locked<'_> {
    /// Takes the lock, lets `decide` say what is due, and does that.
    pub async fn run(
        &self,
        decide: impl AsyncFnOnce(Settled) -> Result<Due, Failure>,
    ) -> Result<Exit, Failure> {
        self.project.prepare()?;
        let holder = holder(&self.command)?;
        let wait = self.doing.waiting.time();
        let store = Arc::clone(&self.project.store);
        let control = Control::default();
        let mut signals = signals::listen(&control);
        let taken = lease::take(&*store, &holder, wait, &control, &mut tell_waiting(self.printer)).await;
        let Some((lease, taken)) = taken.map_err(store_failure)? else {
            return Err(self.stopped(&control));
        };
        let keeper = Keeper::start(Arc::clone(&store), lease.clone(), taken, control.clone());
        let lock = Lock { lease: &lease, own: &holder.process, keeper: &keeper, control: control.clone() };
        let result = self.locked(decide, lock, &mut signals).await;
        drop(keeper);
        if !control.lost() {
            let _ = store.unlock(&lease).await;
        }
        result
    }

    async fn locked(
        &self,
        decide: impl AsyncFnOnce(Settled) -> Result<Due, Failure>,
        lock: Lock<'_>,
        signals: &mut Listening,
    ) -> Result<Exit, Failure> {
        let (events, received) = Sender::channel();
        let settled = self.settle(&lock, &events).await?;
        let key = settled.stored.key.clone().expect("a store that was locked has a key");
        let left = self.left(&settled);
        let Due { plan, done } = self.unless_stopped(&lock.control, decide(settled)).await??;
        self.sweep(leavings::taken_up_by(left, &plan), &events).await;
        for address in &done {
            events.send(Event::OperationSkipped { address: address.clone() });
        }
        if plan.is_empty() {
            self.nothing_left(received, !done.is_empty());
            return Ok(Exit::Ok);
        }
        let Lock { lease, keeper, control, .. } = lock;
        let store = format::store_id(&key);
        let run = Arc::new(Run {
            store: Arc::clone(&self.project.store),
            lease: lease.clone(),
            lease_end: keeper.end.clone(),
            key,
            world: self.world(&plan, store).await?,
            control: control.clone(),
            events,
            plan: self.saved.map(str::to_owned),
            parallelism: self.doing.parallelism.get().into(),
        });
        let outcome = self.walk(run, &plan, received, signals).await?;
        Ok(self.conclude(&plan, &outcome))
    }

    /// What comes before the walk and may take long, unless the run is stopped meanwhile.
    async fn unless_stopped<T>(
        &self,
        control: &Control,
        work: impl Future<Output = T>,
    ) -> Result<T, Failure> {
        tokio::select! {
            biased;
            () = control.stopped() => Err(self.stopped(control)),
            done = work => Ok(done),
        }
    }

    /// Why a run ends that was stopped before its walk.
    fn stopped(&self, control: &Control) -> Failure {
        if control.lost() {
            let reason = control.unrenewed().unwrap_or_else(|| "it was not renewed in time".into());
            return store_failure(StoreError::LeaseLost { reason });
        }
        finished(self.global, self.printer, "cancelled");
        Failure::new("norn was stopped before anything of the plan was begun").exit(Exit::Cancelled)
    }

    /// Settles what dead runs left.
    async fn settle(&self, lock: &Lock<'_>, events: &Sender) -> Result<Settled, Failure> {
        let Lock { lease, own, control, .. } = lock;
        let (store, home) = (&self.project.store, self.project.home());
        let mut stored = store.snapshot().await.map_err(store_failure)?;
        // A place that refused its lock is none to remember.
        self.project.place.remember(stored.key.as_ref().expect("a store that was locked has a key"))?;
        let unseen = recovery::unseen(&stored, own);
        if !unseen.is_zero() {
            let seconds = unseen.as_secs() + 1;
            self.printer.talk(&format!(
                "waiting {seconds} s, until the commands of a dead run on another machine have ended"
            ));
            self.unless_stopped(control, tokio::time::sleep(unseen)).await?;
        }
        let ended = self.unless_stopped(control, recovery::end_children(&stored)).await?;
        let mut ended = ended.map_err(|error| Failure::new(error.to_string()))?;
        let project = self.project;
        let jobs = clusters::end_jobs(&project.clusters, &project.scope, &self.desired.kubernetes, &stored);
        ended += self.unless_stopped(control, jobs).await??;
        let commands = engines::end_commands(&project.scope, &stored, self.lost);
        ended += self.unless_stopped(control, commands).await??;
        self.unless_stopped(control, recovery::finish_renames(&stored, &home, lease)).await?;
        let look = facts::running(self.project, &stored, self.desired, self.lost, false);
        let running = self.unless_stopped(control, look).await??;
        let changes = recovery::settle(&mut stored, &running, Some(&lease.run), &machine::alive);
        if !changes.is_empty() {
            store.write(lease, &changes).await.map_err(store_failure)?;
            let runs = changes.iter().filter(|change| matches!(change, Change::RunBuried { .. })).count();
            let what = match runs {
                // Such as an attempt that v1 left.
                0 => "settled what an earlier norn left".to_owned(),
                1 => "settled what 1 dead run left".to_owned(),
                _ => format!("settled what {runs} dead runs left"),
            };
            events.send(Event::Recovered { what });
        }
        if ended > 0 {
            let commands = if ended == 1 { "command" } else { "commands" };
            events.send(Event::Recovered { what: format!("ended {ended} {commands} that a dead run left") });
        }
        let applied = match self.saved {
            Some(plan) => store.operations_of(plan).await.map_err(store_failure)?,
            None => Vec::new(),
        };
        Ok(Settled { stored, running, applied })
    }

    /// What attempts left here.
    fn left(&self, settled: &Settled) -> BTreeMap<AppName, Leavings> {
        leavings::find(&self.project.folders, self.desired, &settled.stored, &settled.running)
    }

    /// Removes what attempts left. What cannot be removed keeps nothing from being done.
    async fn sweep(&self, left: BTreeMap<AppName, Leavings>, events: &Sender) {
        for (app, left) in left {
            let swept = tokio::task::spawn_blocking(move || left.sweep()).await;
            match swept.expect("removing folders does not panic") {
                Ok(0) => {}
                Ok(_) => {
                    let what = format!("removed what attempts to deploy {app} left");
                    events.send(Event::Recovered { what });
                }
                Err(error) => self
                    .printer
                    .talk(&format!("warning: what attempts to deploy {app} left cannot be removed: {error}")),
            }
        }
    }

    /// Tells of a run that has nothing to do but what was settled.
    fn nothing_left(&self, mut received: Receiver, done: bool) {
        let mut talker = Talker::new(self.global, self.doing.log_format, self.printer);
        while let Some(event) = received.try_recv() {
            talker.say(&event);
        }
        talker.finish();
        if done {
            self.printer.talk("Nothing left to do: all of this plan is done.");
        }
        finished(self.global, self.printer, "unchanged");
    }

    /// Walks the plan, telling of it as it goes.
    async fn walk(
        &self,
        run: Arc<Run>,
        plan: &Plan,
        mut received: Receiver,
        signals: &mut Listening,
    ) -> Result<Outcome, Failure> {
        let mut talker = Talker::new(self.global, self.doing.log_format, self.printer);
        let (plan, command) = (plan.clone(), self.command.clone());
        let mut applying = tokio::spawn(async move { apply::apply(run, &plan, &command).await });
        let outcome = loop {
            tokio::select! {
                event = received.recv() => match event {
                    Some(event) => talker.say(&event),
                    None => break (&mut applying).await,
                },
                Some(notice) = signals.notices.recv() => talker.alert(notice),
                outcome = &mut applying => {
                    while let Some(event) = received.try_recv() {
                        talker.say(&event);
                    }
                    break outcome;
                }
            }
        };
        talker.finish();
        let outcome = outcome.unwrap_or_else(|error| std::panic::resume_unwind(error.into_panic()));
        outcome.map_err(store_failure)
    }

    async fn world(&self, plan: &Plan, store: String) -> Result<World, Failure> {
        let project = self.project;
        let environment = Environment::of_this_process();
        let docker = docker::Address::of(self.desired.docker.as_deref());
        let passwords = world::passwords(&environment, self.desired.postgres.as_ref());
        let secrets = self.desired.sensitive.iter().chain(self.desired.postgres.as_ref()).chain(&passwords);
        let secrets = secrets.chain(project.place.password());
        Ok(World {
            root: project.root.folder.clone(),
            folders: project.folders.clone(),
            home: project.home(),
            git: Git::new().await.map_err(|error| Failure::new(error.to_string()))?,
            skip: project.skip(),
            environment,
            scope: project.scope.clone(),
            store,
            remote: engines::of(plan, &docker, self.lost).await?,
            docker,
            logins: Logins { own: self.desired.registry.clone() },
            clusters: clusters::of(&project.clusters, plan, &self.desired.kubernetes).await?,
            namespace: self.desired.kubernetes.namespace.clone(),
            names: Mutex::default(),
            cloudflare: clusters::cloudflare(plan, self.desired)?,
            postgres: self.desired.postgres.clone(),
            values: self.desired.values.clone(),
            scrub: Scrub::new(secrets),
        })
    }

    fn conclude(&self, plan: &Plan, outcome: &Outcome) -> Exit {
        let (exit, result) = if outcome.succeeded() {
            (Exit::Ok, "applied")
        } else if outcome.cancelled {
            (Exit::Cancelled, "cancelled")
        } else if outcome.done.is_empty() {
            (Exit::Error, "failed")
        } else {
            (Exit::Partly, "partly")
        };
        finished(self.global, self.printer, result);
        let text = summary::text(outcome, &self.command, &urls(plan, outcome), self.printer.err_color);
        if outcome.succeeded() {
            self.printer.talk(&text)
        } else {
            self.printer.alert(&text)
        }
        exit
    }
}

/// Tells of waiting for the lock.
pub fn tell_waiting(printer: Printer) -> impl FnMut(Waiting<'_>) {
    move |waiting| match waiting {
        Waiting::For(held, time) => printer.talk(&format!(
            "waiting for the lock on the state, at most {} s: it is held by {held}",
            time.as_secs()
        )),
        Waiting::Over(time) => printer.talk(&format!("got the lock on the state after {} s", time.as_secs())),
    }
}

/// The last event of an apply.
pub fn finished(global: &Global, printer: Printer, result: &'static str) {
    if global.json {
        let line = EventV1 { result: Some(result), ..EventV1::new("finished", Timestamp::now()) };
        printer.data(&line.line());
    }
}

/// Where the apps of this run are reached.
fn urls(plan: &Plan, outcome: &Outcome) -> BTreeMap<String, String> {
    let live = |operation: &&Operation| outcome.done.contains(&operation.address);
    let definitions = plan.operations.iter().filter(live).filter_map(|operation| match &operation.work {
        Work::Deploy(work) => Some((operation, &work.definition)),
        Work::Forge(work) => work.roll.as_ref().map(|roll| (operation, &roll.definition)),
        Work::Teardown(_) => None,
    });
    let reached = definitions.filter_map(|(operation, definition)| {
        Some((operation.address.name.to_string(), apply::reached(definition)?))
    });
    reached.collect()
}

/// Who this process is, for the lock.
pub fn holder(reason: &str) -> Result<Holder, Failure> {
    let process = machine::own_identity().map_err(|error| {
        Failure::new(format!("this process cannot be told apart: {error}")).help("norn needs /proc")
    })?;
    let variable = |name: &str| std::env::var(name).ok().filter(|value| !value.is_empty());
    let github = || {
        let (server, repository) = (variable("GITHUB_SERVER_URL")?, variable("GITHUB_REPOSITORY")?);
        Some(format!("{server}/{repository}/actions/runs/{}", variable("GITHUB_RUN_ID")?))
    };
    Ok(Holder {
        run: Uuid::now_v7().to_string(),
        who: machine::user_at_host(),
        process,
        job_url: variable("CI_JOB_URL").or_else(github),
        reason: reason.to_owned(),
    })
}
