//! Work under the lock on a project's state: taking it, settling what dead runs left, walking what
//! is due, telling of it.
//!
//! Elsewhere: what is due, and whether the user agreed (`apply`, `apply_file`).

use std::collections::BTreeMap;
use std::sync::Arc;

use jiff::Timestamp;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::mpsc;
use uuid::Uuid;

use super::args::{Doing, Global};
use super::facts;
use super::failure::{Exit, Failure};
use super::project::{Project, store_failure};
use super::talker::Talker;
use crate::address::Address;
use crate::apply::events::{Receiver, Sender};
use crate::apply::lease::{self, Keeper};
use crate::apply::world::{self, Environment, World};
use crate::apply::{self, Control, Event, Outcome, Run, recovery};
use crate::desired::Desired;
use crate::plan::{Operation, Plan, Running, Work};
use crate::provider::machine;
use crate::provider::source::Git;
use crate::render::events_json::EventV1;
use crate::render::{Printer, summary};
use crate::scrub::Scrub;
use crate::spec::name::AppName;
use crate::state::lock::ProcessIdentity;
use crate::state::{Applied, Change, Holder, Lease, Snapshot};

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
}

/// What stands once nothing of a dead run is left to settle.
pub struct Settled {
    pub stored: Snapshot,
    pub running: BTreeMap<AppName, Running>,
    /// What the saved plan's runs did.
    pub applied: Vec<Applied>,
}

/// What is to be done.
pub struct Due {
    pub plan: Plan,
    /// What a saved plan did before.
    pub done: Vec<Address>,
}

impl Locked<'_> {
    /// Takes the lock, lets `decide` say what is due, and does that.
    pub async fn run(&self, decide: impl FnOnce(Settled) -> Result<Due, Failure>) -> Result<Exit, Failure> {
        self.project.prepare()?;
        let holder = holder(&self.command)?;
        let wait = self.doing.waiting.time();
        let store = Arc::clone(&self.project.store);
        let (lease, taken) = lease::take(&*store, &holder, wait).await.map_err(store_failure)?;
        let control = Control::default();
        let keeper = Keeper::start(Arc::clone(&store), lease.clone(), taken, control.clone());
        let result = self.locked(decide, &lease, &holder.process, &keeper, control.clone()).await;
        drop(keeper);
        if !control.lost() {
            let _ = store.unlock(&lease).await;
        }
        result
    }

    async fn locked(
        &self,
        decide: impl FnOnce(Settled) -> Result<Due, Failure>,
        lease: &Lease,
        own: &ProcessIdentity,
        keeper: &Keeper,
        control: Control,
    ) -> Result<Exit, Failure> {
        let (events, received) = Sender::channel();
        let settled = self.settle(lease, own, &events).await?;
        let key = settled.stored.key.clone().expect("a store that was locked has a key");
        let Due { plan, done } = decide(settled)?;
        for address in &done {
            events.send(Event::OperationSkipped { address: address.clone() });
        }
        if plan.is_empty() {
            self.nothing_left(received, !done.is_empty());
            return Ok(Exit::Ok);
        }
        let run = Arc::new(Run {
            store: Arc::clone(&self.project.store),
            lease: lease.clone(),
            lease_end: keeper.end.clone(),
            key,
            world: self.world().await?,
            control: control.clone(),
            events,
            plan: self.saved.map(str::to_owned),
            parallelism: self.doing.parallelism.get().into(),
        });
        let outcome = self.walk(run, &plan, received, control).await?;
        Ok(self.conclude(&plan, &outcome))
    }

    /// Settles what dead runs left.
    async fn settle(
        &self,
        lease: &Lease,
        own: &ProcessIdentity,
        events: &Sender,
    ) -> Result<Settled, Failure> {
        let store = &self.project.store;
        let mut stored = store.snapshot().await.map_err(store_failure)?;
        // A place that refused its lock is none to remember.
        self.project.place.remember(stored.key.as_ref().expect("a store that was locked has a key"))?;
        let unseen = recovery::unseen(&stored, own);
        if !unseen.is_zero() {
            let seconds = unseen.as_secs() + 1;
            self.printer.talk(&format!(
                "waiting {seconds} s, until the commands of a dead run on another machine have ended"
            ));
            tokio::time::sleep(unseen).await;
        }
        let ended = recovery::end_children(&stored).await.map_err(|error| Failure::new(error.to_string()))?;
        recovery::finish_renames(&stored, &self.project.home(), lease).await;
        let running = facts::running(self.project.home(), &stored, self.desired).await;
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
        control: Control,
    ) -> Result<Outcome, Failure> {
        let (notices, mut noticed) = mpsc::unbounded_channel();
        let signals = tokio::spawn(listen(control, notices));
        let mut talker = Talker::new(self.global, self.doing.log_format, self.printer);
        let (plan, command) = (plan.clone(), self.command.clone());
        let mut applying = tokio::spawn(async move { apply::apply(run, &plan, &command).await });
        let outcome = loop {
            tokio::select! {
                event = received.recv() => match event {
                    Some(event) => talker.say(&event),
                    None => break (&mut applying).await,
                },
                Some(notice) = noticed.recv() => talker.alert(notice),
                outcome = &mut applying => {
                    while let Some(event) = received.try_recv() {
                        talker.say(&event);
                    }
                    break outcome;
                }
            }
        };
        signals.abort();
        talker.finish();
        let outcome = outcome.unwrap_or_else(|error| std::panic::resume_unwind(error.into_panic()));
        outcome.map_err(store_failure)
    }

    async fn world(&self) -> Result<World, Failure> {
        let project = self.project;
        let environment = Environment::of_this_process();
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

/// The first signal stops the run gently, the second at once.
async fn listen(control: Control, notices: mpsc::UnboundedSender<&'static str>) {
    let signals =
        (signal(SignalKind::interrupt()), signal(SignalKind::terminate()), signal(SignalKind::hangup()));
    let (Ok(mut interrupt), Ok(mut terminate), Ok(mut hangup)) = signals else { return };
    for time in 0.. {
        tokio::select! {
            _ = interrupt.recv() => {}
            _ = terminate.recv() => {}
            _ = hangup.recv() => {}
        }
        let notice = if time == 0 {
            control.stop();
            "stopping: running steps are finished, nothing new is started; again to cancel them"
        } else {
            control.cancel();
            "cancelling: running steps are ended"
        };
        // The receiver lives as long as the run that would be stopped.
        let _ = notices.send(notice);
    }
}
