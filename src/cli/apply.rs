//! `norn apply`: shows the plan, asks, makes it so. `norn destroy` is its mirror.

use std::collections::{BTreeMap, BTreeSet};

use jiff::Timestamp;

use super::args::{Apply, Doing, Global};
use super::ask::{Agreed, Protection, Question, ask};
use super::facts;
use super::failure::{Exit, Failure};
use super::locked::{Due, Locked, Settled, finished};
use super::plan::Made;
use super::project::Project;
use super::shown::Shown;
use super::workspace::Variables;
use crate::address::Address;
use crate::desired::Desired;
use crate::plan::rollback::{self, NoTarget};
use crate::plan::{Operation, Options, Plan, Rollback};
use crate::render::events_json::EventV1;
use crate::render::{Printer, words};
use crate::scrub::{SHORTEST, visible};
use crate::spec::name::AppName;

/// How often a plan is made where the user agreed beforehand and what is there keeps changing.
const ROUNDS: u32 = 3;

/// What the user asked to be done.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Request {
    Apply,
    Destroy,
    Restart(AppName),
    Rollback(Rollback),
}

impl Request {
    fn command(&self) -> String {
        match self {
            Request::Apply => "apply".into(),
            Request::Destroy => "destroy".into(),
            Request::Restart(app) => format!("restart {app}"),
            Request::Rollback(Rollback { app, to: None }) => format!("rollback {app}"),
            Request::Rollback(Rollback { app, to: Some(to) }) => {
                format!("rollback {app} --to {}", visible(to))
            }
        }
    }
}

pub fn run(global: &Global, options: &Apply, request: Request, printer: Printer) -> Result<Exit, Failure> {
    options.output.must_differ(&[])?;
    super::runtime()?.block_on(async {
        let mut project = Project::open(global, printer).await?;
        options.output.must_replace_nothing(&project)?;
        project.plan_files = options.output.files();
        let variables = Variables::read(global)?;
        let desired = match request {
            Request::Destroy => project.desired_to_destroy(&variables)?,
            Request::Apply | Request::Restart(_) | Request::Rollback(_) => {
                project.desired(&variables, printer)?
            }
        };
        project.warn(printer).await;
        facts::warn_of_shallow(&project, &desired, printer).await?;
        if request != Request::Destroy {
            warn_of_short_secrets(&desired, printer);
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
                    Request::Apply | Request::Destroy | Request::Rollback(_) => None,
                },
                rollback: match &request {
                    Request::Rollback(wanted) => Some(wanted.clone()),
                    Request::Apply | Request::Destroy | Request::Restart(_) => None,
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
    async fn run(mut self) -> Result<Exit, Failure> {
        let mut rounds = 0;
        loop {
            rounds += 1;
            let (made, agreed) = match self.agree().await? {
                Step::Ended(exit) => return Ok(exit),
                Step::Agreed { made, how } => (made, how),
            };
            if let Some(wanted) = &mut self.plan_options.rollback
                && let Ok(release) = rollback::target(wanted, &made.stored, &made.facts)
            {
                // Should a dead run turn out to have gone back there, this one goes no further.
                wanted.to = Some(release.tag);
            }
            // Who sits at a terminal can look at the new plan at once. Who agreed beforehand agrees
            // to that one too, by the same options; what never comes to rest is not gone after.
            let again = agreed == Agreed::AtTerminal || rounds < ROUNDS;
            match self.under_lock(*made).await {
                Err(failure) if failure.exit == Exit::Outdated && again => {
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
        let target = self.plan_options.rollback.as_ref().filter(|_| made.plan.is_empty());
        let target = target.map(|wanted| rollback::target(wanted, &made.stored, &made.facts));
        let live = match target {
            Some(Err(why @ NoTarget::Live { .. })) => Some(why),
            Some(Err(why)) => return Err(Failure::new(why.to_string()).help(why.help())),
            Some(Ok(_)) | None => None,
        };
        let shown = made.shown(self.project, None);
        shown.write(&self.options.output)?;
        print(&shown, self.global, self.printer);
        made.warn(self.printer);
        shown.tell_github()?;
        if let (Request::Restart(app), true) = (&self.request, made.plan.is_empty()) {
            return Err(Failure::new(format!("app `{app}` has no live release to restart"))
                .help("`norn status` shows what runs; `norn apply` deploys"));
        }
        if let Some(live) = live {
            self.printer.talk(&live.to_string());
        }
        if made.plan.is_empty() && made.settles == 0 {
            finished(self.global, self.printer, "unchanged");
            return Ok(Step::Ended(Exit::Ok));
        }
        refuse_blocked(&made.plan, "mend them, or leave them out with --exclude")?;
        // What a dead run left is settled without a question.
        let how = if made.plan.is_empty() { Agreed::Beforehand } else { self.ask(&made)? };
        Ok(Step::Agreed { made: Box::new(made), how })
    }

    /// The user's word, as the plan's weight asks for it.
    fn ask(&self, made: &Made) -> Result<Agreed, Failure> {
        let stage = self.project.stage.as_ref().map(ToString::to_string);
        ask(&Question {
            command: &self.request.command(),
            name: &stage.unwrap_or_else(|| self.project.scope.project.to_string()),
            destroys: made.plan.destroys().count(),
            protection: match &self.request {
                _ if !self.desired.protected => Protection::None,
                Request::Apply => Protection::SavedPlan("norn plan"),
                Request::Destroy => Protection::SavedPlan("norn plan --destroy"),
                Request::Restart(_) | Request::Rollback(_) => Protection::Name,
            },
            said: self.doing,
        })
    }

    async fn under_lock(&self, mut made: Made) -> Result<Exit, Failure> {
        let locked = Locked {
            global: self.global,
            doing: self.doing,
            printer: self.printer,
            project: self.project,
            desired: &self.desired,
            command: format!("norn {}", self.request.command()),
            saved: None,
            lost: &self.options.selection.part.lost,
        };
        locked.run(async |settled| self.still_holds(&mut made, settled)).await
    }

    /// Plans again under the lock: what was shown must still hold.
    fn still_holds(&self, made: &mut Made, settled: Settled) -> Result<Due, Failure> {
        let shown = std::mem::take(&mut made.plan.operations);
        made.stored = settled.stored;
        made.facts.running = settled.running;
        made.plan(&self.options.selection, &self.plan_options);
        let moved = moved(&shown, &made.plan.operations);
        if moved.is_empty() {
            return Ok(Due { plan: made.plan.clone(), done: Vec::new() });
        }
        let mut failure = Failure::new("what is there changed since the plan was shown").exit(Exit::Outdated);
        failure.details =
            moved.iter().map(|address| format!("{address} is not as planned any more")).collect();
        Err(failure.help(format!(
            "nothing was applied: run `norn {}` again and look at the new plan",
            self.request.command()
        )))
    }
}

/// Shows the plan of an apply, which is the first of its events.
pub fn print(shown: &Shown<'_>, global: &Global, printer: Printer) {
    if global.json {
        let mut line = EventV1::new("plan", Timestamp::now());
        line.plan = Some(shown.document());
        printer.data(&line.line());
    } else {
        printer.data(&shown.human(printer.out_color));
    }
}

/// Refuses a plan with operations that are blocked; `mend` is what to do about them.
pub fn refuse_blocked(plan: &Plan, mend: &str) -> Result<(), Failure> {
    let blocked: Vec<String> = plan
        .operations
        .iter()
        .filter_map(|o| Some(format!("{}: {}", o.address, words::blocked(o.blocked.as_ref()?))))
        .collect();
    if blocked.is_empty() {
        return Ok(());
    }
    let mut failure = Failure::new("the plan has operations that cannot be applied");
    failure.details = blocked;
    Err(failure.help(mend))
}

/// The addresses of which two plans do not want the same.
fn moved<'a>(shown: &'a [Operation], now: &'a [Operation]) -> Vec<String> {
    let same = |a: &Operation, b: &Operation| {
        a.action == b.action
            && a.before == b.before
            && a.work == b.work
            && a.steps == b.steps
            && a.blocked == b.blocked
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

/// A secret that is too short to be found in a log is told of once.
pub fn warn_of_short_secrets(desired: &Desired, printer: Printer) {
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::desired::Runtime;
    use crate::plan::{Action, Blocked, Risk, TeardownWork, Work};
    use crate::state::Digests;

    #[test]
    fn a_plan_that_is_blocked_by_now_is_not_what_was_shown() {
        let teardown = |blocked| Operation {
            address: Address::forge(&"web".parse().expect("a name")),
            action: Action::Teardown,
            reasons: Vec::new(),
            diff: Vec::new(),
            steps: Vec::new(),
            waits: Vec::new(),
            risk: Risk::Destroys,
            blocked,
            before: Digests::default(),
            work: Work::Teardown(TeardownWork {
                release: None,
                runtime: Runtime::Kubernetes,
                namespace: Some("default".to_owned()),
                engine: None,
                spares: Vec::new(),
                route: None,
                keeps: Vec::new(),
            }),
        };
        let shown = [teardown(None)];
        assert_eq!(moved(&shown, &[teardown(None)]), Vec::<String>::new());
        let elsewhere = Blocked::ElsewhereRunning { host: "another cluster".to_owned() };
        assert_eq!(moved(&shown, &[teardown(Some(elsewhere))]), ["forge/web"]);
    }
}
