//! `norn apply`: shows the plan, asks, makes it so. `norn destroy` is its mirror.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::mpsc;
use uuid::Uuid;

use super::args::{Apply, Doing, Global};
use super::ask::{Agreed, Question, ask};
use super::facts;
use super::failure::{Exit, Failure};
use super::plan::Made;
use super::project::{Project, store_failure};
use super::talker::Talker;
use super::workspace::Variables;
use crate::address::Address;
use crate::apply::events::Sender;
use crate::apply::lease::Keeper;
use crate::apply::world::{self, Environment, World};
use crate::apply::{self, Control, Event, Outcome, Run, recovery};
use crate::desired::Desired;
use crate::plan::{Operation, Options, Work};
use crate::provider::machine;
use crate::provider::source::Git;
use crate::render::events_json::EventV1;
use crate::render::{Printer, summary, words};
use crate::scrub::{SHORTEST, Scrub};
use crate::spec::name::AppName;
use crate::state::lock::ProcessIdentity;
use crate::state::{Change, Holder, Lease};

/// What the user asked to be done.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Request {
    Apply,
    Destroy,
    Restart(AppName),
}

impl Request {
    fn command(&self) -> String {
        match self {
            Request::Apply => "apply".into(),
            Request::Destroy => "destroy".into(),
            Request::Restart(app) => format!("restart {app}"),
        }
    }
}

pub fn run(global: &Global, options: &Apply, request: Request, printer: Printer) -> Result<Exit, Failure> {
    super::runtime()?.block_on(async {
        let project = Project::open(global, printer)?;
        let variables = Variables::read(global)?;
        // What is torn down needs no values: a run without them must be able to take it away.
        let desired = match request {
            Request::Destroy => project.desired_without_values(),
            Request::Apply | Request::Restart(_) => project.desired(&variables, printer)?,
        };
        project.warn(printer);
        facts::warn_of_shallow(&project, &desired, printer).await?;
        warn_of_short_secrets(&desired, printer);
        if request == Request::Destroy && desired.locked {
            let stage = desired.stage.as_ref().map(ToString::to_string).unwrap_or_default();
            return Err(Failure::new(format!("stage `{stage}` is locked: its state cannot be deleted"))
                .help("take `locked: true` out of the stage first"));
        }
        let work = Applying {
            global,
            options,
            doing: &options.doing,
            printer,
            project: &project,
            plan_options: Options {
                destroy: request == Request::Destroy,
                restart: match &request {
                    Request::Restart(app) => Some(app.clone()),
                    Request::Apply | Request::Destroy => None,
                },
                ..Options::default()
            },
            request,
            desired,
        };
        work.run().await
    })
}

/// One apply, from plan to outcome.
struct Applying<'a> {
    global: &'a Global,
    options: &'a Apply,
    doing: &'a Doing,
    request: Request,
    printer: Printer,
    project: &'a Project,
    plan_options: Options,
    desired: Desired,
}

/// How far a plan came before anything is done.
enum Step {
    /// There is nothing to do.
    Ended(Exit),
    Agreed {
        made: Box<Made>,
        how: Agreed,
    },
}

impl Applying<'_> {
    async fn run(self) -> Result<Exit, Failure> {
        loop {
            let (made, agreed) = match self.agree().await? {
                Step::Ended(exit) => return Ok(exit),
                Step::Agreed { made, how } => (made, how),
            };
            match self.under_lock(*made).await {
                // Who sits at a terminal can look at the new plan at once.
                Err(failure) if failure.exit == Exit::Outdated && agreed == Agreed::AtTerminal => {
                    self.printer.alert(&format!("{}: here is the new plan", failure.message));
                }
                ended => return ended,
            }
        }
    }

    /// Shows the plan, and gets the user's word for it.
    async fn agree(&self) -> Result<Step, Failure> {
        let selection = &self.options.selection;
        let made = Made::new(self.project, self.desired.clone(), selection, &self.plan_options).await?;
        let output = &self.options.output;
        made.show(self.project, output.markdown_out.as_deref(), output.json_out.as_deref())?;
        self.show(&made);
        made.tell_github(self.project)?;
        if let (Request::Restart(app), true) = (&self.request, made.plan.is_empty()) {
            return Err(Failure::new(format!("app `{app}` has no live release to restart"))
                .help("`norn status` shows what runs; `norn apply` deploys"));
        }
        if made.plan.is_empty() && made.settles == 0 {
            self.finished("unchanged");
            return Ok(Step::Ended(Exit::Ok));
        }
        self.refuse_blocked(&made)?;
        // What a dead run left is settled without a question.
        let how = if made.plan.is_empty() { Agreed::Beforehand } else { self.ask(&made)? };
        Ok(Step::Agreed { made: Box::new(made), how })
    }

    fn show(&self, made: &Made) {
        if self.global.json {
            let mut line = EventV1::new("plan", Timestamp::now());
            line.plan = Some(made.document(self.project));
            self.printer.data(&line.line());
        } else {
            self.printer.data(&made.human(self.project, self.printer.out_color));
        }
    }

    fn finished(&self, result: &'static str) {
        if self.global.json {
            let line = EventV1 { result: Some(result), ..EventV1::new("finished", Timestamp::now()) };
            self.printer.data(&line.line());
        }
    }

    fn refuse_blocked(&self, made: &Made) -> Result<(), Failure> {
        let blocked: Vec<String> = made
            .plan
            .operations
            .iter()
            .filter_map(|o| Some(format!("{}: {}", o.address, words::blocked(o.blocked.as_ref()?))))
            .collect();
        if blocked.is_empty() {
            return Ok(());
        }
        let mut failure = Failure::new("the plan has operations that cannot be applied");
        failure.details = blocked;
        Err(failure.help("mend them, or leave them out with --exclude"))
    }

    /// The user's word, as the plan's weight asks for it.
    fn ask(&self, made: &Made) -> Result<Agreed, Failure> {
        let stage = self.project.stage.as_ref().map(ToString::to_string);
        ask(&Question {
            command: &self.request.command(),
            name: &stage.unwrap_or_else(|| self.project.scope.project.to_string()),
            destroys: made.plan.destroys().count(),
            protected: self.desired.protected,
            said: self.doing,
        })
    }

    async fn under_lock(&self, mut made: Made) -> Result<Exit, Failure> {
        self.project.prepare()?;
        let command = format!("norn {}", self.request.command());
        let holder = holder(&command)?;
        let mut asked = machine::since_boot();
        let wait = self.doing.lock_wait.as_ref().map_or(Duration::ZERO, |wait| *wait.value());
        let store = Arc::clone(&self.project.store);
        let lease = store.lock(&holder, wait).await.map_err(store_failure)?;
        if !wait.is_zero() {
            // The wait was no part of the lease, whose end is counted from here.
            asked = machine::since_boot();
            if let Err(error) = store.renew(&lease).await {
                let _ = store.unlock(&lease).await;
                return Err(store_failure(error));
            }
        }
        let control = Control::default();
        let keeper = Keeper::start(Arc::clone(&store), lease.clone(), asked, control.clone());
        let result =
            self.locked(&mut made, &lease, &holder.process, &keeper, control.clone(), &command).await;
        drop(keeper);
        if !control.lost() {
            let _ = store.unlock(&lease).await;
        }
        result
    }

    async fn locked(
        &self,
        made: &mut Made,
        lease: &Lease,
        own: &ProcessIdentity,
        keeper: &Keeper,
        control: Control,
        command: &str,
    ) -> Result<Exit, Failure> {
        self.project.remember()?;
        let (events, mut received) = Sender::channel();
        self.recover(made, lease, own, &events).await?;
        if made.plan.is_empty() {
            self.finished("unchanged");
            return Ok(Exit::Ok);
        }
        let run = Arc::new(Run {
            store: Arc::clone(&self.project.store),
            lease: lease.clone(),
            lease_end: keeper.end.clone(),
            key: made.stored.key.clone().expect("a store that was locked has a key"),
            world: self.world().await?,
            control: control.clone(),
            events,
            plan: None,
            parallelism: self.doing.parallelism.get().into(),
        });
        let (notices, mut noticed) = mpsc::unbounded_channel();
        let signals = tokio::spawn(listen(control, notices));
        let mut talker = Talker::new(self.global, self.doing.log_format, self.printer);
        let plan = made.plan.clone();
        let command = command.to_owned();
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
        let outcome = outcome.map_err(store_failure)?;
        Ok(self.conclude(made, &outcome))
    }

    /// Settles what dead runs left and plans again under the lock: what was shown must still hold.
    async fn recover(
        &self,
        made: &mut Made,
        lease: &Lease,
        own: &ProcessIdentity,
        events: &Sender,
    ) -> Result<(), Failure> {
        let store = &self.project.store;
        let mut stored = store.snapshot().await.map_err(store_failure)?;
        let unseen = recovery::unseen(&stored, own);
        if !unseen.is_zero() {
            let seconds = unseen.as_secs() + 1;
            self.printer.talk(&format!(
                "waiting {seconds} s, until the commands of a dead run on another machine have ended"
            ));
            tokio::time::sleep(unseen).await;
        }
        let ended = recovery::end_children(&stored).await.map_err(|error| Failure::new(error.to_string()))?;
        let running = facts::running(self.project.home(), &stored, &self.desired).await;
        let changes = recovery::settle(&mut stored, &running, Some(&lease.run), &machine::alive);
        if !changes.is_empty() {
            store.write(lease, &changes).await.map_err(store_failure)?;
            let runs = changes.iter().filter(|change| matches!(change, Change::RunBuried { .. })).count();
            let what = format!("settled what {runs} dead {} left", if runs == 1 { "run" } else { "runs" });
            events.send(Event::Recovered { what });
        }
        if ended > 0 {
            let commands = if ended == 1 { "command" } else { "commands" };
            events.send(Event::Recovered { what: format!("ended {ended} {commands} that a dead run left") });
        }
        let shown = std::mem::take(&mut made.plan.operations);
        made.stored = stored;
        made.facts.running = running;
        made.plan(&self.options.selection, &self.plan_options);
        let moved = moved(&shown, &made.plan.operations);
        if moved.is_empty() {
            return Ok(());
        }
        let mut failure = Failure::new("what is there changed since the plan was shown").exit(Exit::Outdated);
        failure.details =
            moved.iter().map(|address| format!("{address} is not as planned any more")).collect();
        Err(failure.help(format!(
            "nothing was applied: run `norn {}` again and look at the new plan",
            self.request.command()
        )))
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

    fn conclude(&self, made: &Made, outcome: &Outcome) -> Exit {
        let (exit, result) = if outcome.succeeded() {
            (Exit::Ok, "applied")
        } else if outcome.cancelled {
            (Exit::Cancelled, "cancelled")
        } else if outcome.done.is_empty() {
            (Exit::Error, "failed")
        } else {
            (Exit::Partly, "partly")
        };
        self.finished(result);
        let command = format!("norn {}", self.request.command());
        let text = summary::text(outcome, &command, &urls(made, outcome), self.printer.err_color);
        if outcome.succeeded() {
            self.printer.talk(&text)
        } else {
            self.printer.alert(&text)
        }
        exit
    }
}

/// Where the apps of this run are reached.
fn urls(made: &Made, outcome: &Outcome) -> BTreeMap<String, String> {
    let live = |operation: &&Operation| outcome.done.contains(&operation.address);
    let definitions =
        made.plan.operations.iter().filter(live).filter_map(|operation| match &operation.work {
            Work::Deploy(work) => Some((operation, &work.definition)),
            Work::Forge(work) => work.roll.as_ref().map(|roll| (operation, &roll.definition)),
            Work::Teardown(_) => None,
        });
    let reached = definitions.filter_map(|(operation, definition)| {
        Some((operation.address.name.to_string(), apply::reached(definition)?))
    });
    reached.collect()
}

/// The addresses of which two plans do not want the same.
fn moved<'a>(shown: &'a [Operation], now: &'a [Operation]) -> Vec<String> {
    let same = |a: &Operation, b: &Operation| {
        a.action == b.action && a.before == b.before && a.work == b.work && a.steps == b.steps
    };
    let by_address = |operations: &'a [Operation]| -> BTreeMap<&'a Address, &'a Operation> {
        operations.iter().map(|operation| (&operation.address, operation)).collect()
    };
    let (shown, now) = (by_address(shown), by_address(now));
    let all: BTreeSet<&Address> = shown.keys().chain(now.keys()).copied().collect();
    let differs = |address: &&Address| match (shown.get(*address), now.get(*address)) {
        (Some(a), Some(b)) => !same(a, b),
        (None, _) | (_, None) => true,
    };
    all.into_iter().filter(differs).map(ToString::to_string).collect()
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

/// A secret that is too short to be found in a log is told of once.
fn warn_of_short_secrets(desired: &Desired, printer: Printer) {
    for (app, values) in desired.values.by_app() {
        for (name, value) in values {
            let secret = desired.apps[app].definition.secrets.contains(name);
            if secret && value.expose().trim().len() < SHORTEST {
                printer.talk(&format!(
                    "warning: {name} of app `{app}` has fewer than {SHORTEST} bytes, so logs cannot be scrubbed of it"
                ));
            }
        }
    }
}
