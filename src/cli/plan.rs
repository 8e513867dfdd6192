//! `norn plan`: what would change.

use std::collections::BTreeSet;

use super::args::{Global, Part, Plan, Selection};
use super::clusters;
use super::engines;
use super::facts;
use super::failure::{Exit, Failure};
use super::plan_file;
use super::project::Project;
use super::refresh;
use super::shown::Shown;
use super::workspace::Variables;
use crate::apply::{leavings, recovery};
use crate::desired::{Desired, GitRef, Source};
use crate::plan::saved::SavedV1;
use crate::plan::{self, Options, select};
use crate::provider::machine;
use crate::render::Printer;
use crate::render::plan::Header;
use crate::scrub::visible;
use crate::spec::name::AppName;
use crate::state::Snapshot;
use crate::state::format::Host;

pub fn run(global: &Global, options: &Plan, printer: Printer) -> Result<Exit, Failure> {
    let out = options.out.iter().map(|path| ("--out", path.as_path()));
    options.output.must_differ(&out.collect::<Vec<_>>())?;
    super::runtime()?.block_on(async {
        let mut project = Project::open(global, printer).await?;
        if let Some(path) = &options.out {
            plan_file::may_be_written(&project, path)?;
        }
        options.output.must_replace_nothing(&project)?;
        let out = options.out.iter().filter_map(|path| std::path::absolute(path).ok());
        project.plan_files = out.chain(options.output.files()).collect();
        let variables = Variables::read(global)?;
        let desired = if options.destroy {
            project.desired_to_destroy(&variables)?
        } else {
            project.desired(&variables, printer)?
        };
        project.warn(printer).await;
        facts::warn_of_shallow(&project, &desired, printer).await?;
        let plan_options = Options { destroy: options.destroy, ..Options::default() };
        let made = Made::new(&project, desired, &options.selection, &plan_options).await?;
        let saved = match &options.out {
            Some(path) => Some(plan_file::save(&project, &made, options, path).await?),
            None => None,
        };
        let shown = made.shown(&project, saved.as_ref());
        shown.write(&options.output)?;
        shown.print(global, printer);
        made.warn(printer);
        shown.tell_github()?;
        if let Some(holder) = recovery::holder(&made.stored, &machine::alive) {
            printer.talk(&format!("warning: {holder} is at work, so this plan may be out of date soon"));
        }
        if let (Some(path), Some(saved)) = (&options.out, &saved) {
            let (path, command) = (path.display(), plan_file::command(path));
            printer.talk(&format!("Saved in {path}, valid until {:.0}: {command}", saved.expires_at));
        }
        Ok(if options.detailed_exitcode && !made.plan.is_empty() { Exit::Changes } else { Exit::Ok })
    })
}

/// A plan with all it was made of.
pub struct Made {
    pub desired: Desired,
    pub stored: Snapshot,
    pub facts: plan::Facts,
    pub plan: plan::Plan,
    /// Why objects were not tried out in a cluster.
    pub untried: Vec<String>,
    /// What recovery would write first.
    pub settles: usize,
    /// Machines that the user says are gone for good.
    pub lost: Vec<String>,
}

impl Made {
    /// Reads the state, looks up what is needed, and plans.
    pub async fn new(
        project: &Project,
        mut desired: Desired,
        selection: &Selection,
        options: &Options,
    ) -> Result<Self, Failure> {
        override_references(&mut desired, selection)?;
        let mut stored = project.stored().await?;
        check_selection(&desired, &stored, selection)?;
        check_lost(&stored, &selection.part.lost)?;
        let app = options.restart.as_ref().or(options.rollback.as_ref().map(|wanted| &wanted.app));
        if let Some(app) = app {
            known(app, &desired, &stored)?;
        }
        let running =
            facts::running(project, &stored, &desired, &selection.part.lost, selection.offline).await?;
        let busy = recovery::holder(&stored, &machine::alive).is_some();
        let mut settles = recovery::settle(&mut stored, &running, None, &machine::alive).len();
        if !busy {
            settles += leavings::find(&project.folders, &desired, &stored, &running).len();
        }
        let lost = engines::lost(&stored, &selection.part.lost);
        let facts = if let Some(wanted) = &options.rollback {
            let facts = facts::to_go_back(project, &desired, &stored, &wanted.app).await?;
            plan::Facts { running, lost, ..facts }
        } else if options.destroy || options.restart.is_some() {
            plan::Facts { running, lost, ..plan::Facts::default() }
        } else {
            facts::gather(project, &desired, &stored, running, lost, selection).await?
        };
        let mut made = Self {
            desired,
            stored,
            facts,
            plan: plan::Plan::default(),
            untried: Vec::new(),
            settles,
            lost: selection.part.lost.clone(),
        };
        made.plan(selection, options);
        if selection.refresh {
            made.untried = refresh::try_out(
                &project.clusters,
                &project.scope,
                &made.desired,
                &made.stored,
                &mut made.plan,
            )
            .await?;
        }
        Ok(made)
    }

    /// What a reader of the plan should know that the plan cannot say.
    pub fn warn(&self, printer: Printer) {
        for why in &self.untried {
            printer.talk(&format!("warning: not tried out: {why}"));
        }
    }

    /// Plans anew from what is at hand.
    pub fn plan(&mut self, selection: &Selection, options: &Options) {
        let options = Options {
            redeploy: selection.redeploy.clone(),
            adopt: selection.adopt.clone(),
            selection: (&selection.part).into(),
            ..options.clone()
        };
        self.plan = plan::plan(&self.desired, &self.stored, &self.facts, &options);
    }

    /// The plan for its readers; `saved` is the file that it stands in.
    pub fn shown<'a>(&'a self, project: &'a Project, saved: Option<&'a SavedV1>) -> Shown<'a> {
        let header = Header {
            scope: &project.scope,
            state: project.state_label(),
            resources: self.stored.resources.len(),
            lost: &self.lost,
            saved,
        };
        Shown { header, plan: &self.plan }
    }
}

/// `--ref APP=REF`: another commit than the spec's, for this plan only.
fn override_references(desired: &mut Desired, selection: &Selection) -> Result<(), Failure> {
    for (name, reference) in &selection.reference {
        let Some(app) = desired.apps.get_mut(name) else {
            return Err(unknown_app(name, desired.apps.keys()));
        };
        match &mut app.source {
            Source::Git { reference: own, .. } => *own = GitRef::Any(reference.clone()),
            Source::Image { .. } => {
                return Err(Failure::new(format!("app `{name}` is an image, which has no refs"))
                    .help("leave --ref out; another tag is another `image` in the spec"));
            }
            Source::Local { .. } => {
                return Err(Failure::new(format!(
                    "app `{name}` comes from a local folder, which has no refs"
                ))
                .help("leave --ref out, or give the app a `repo`"));
            }
        }
    }
    Ok(())
}

/// A selector that names nothing is a slip.
fn check_selection(desired: &Desired, stored: &Snapshot, selection: &Selection) -> Result<(), Failure> {
    for name in &selection.redeploy {
        if !desired.apps.contains_key(name) {
            return Err(unknown_app(name, desired.apps.keys()));
        }
    }
    for name in &selection.adopt {
        let Some(app) = desired.apps.get(name) else {
            return Err(unknown_app(name, desired.apps.keys()));
        };
        if !app.definition.runtime.is_kubernetes() {
            let runtime = app.definition.runtime.as_str();
            return Err(Failure::new(format!("app `{name}` runs on {runtime}, which has nothing of others"))
                .help("leave --adopt out"));
        }
    }
    let selectors = selection.part.target.iter().chain(&selection.part.exclude);
    selectors.map(select::Selector::app).try_for_each(|name| known(name, desired, stored))
}

/// Another machine or cluster that no app was put live on is a slip, and this one is not lost.
fn check_lost(stored: &Snapshot, lost: &[String]) -> Result<(), Failure> {
    if lost.is_empty() {
        return Ok(());
    }
    let (here, others): (Vec<Host>, Vec<Host>) =
        recovery::hosts(stored).into_values().partition(|host| host.machine == machine::id());
    let clusters = clusters::recorded(stored).into_values().map(|namespace| namespace.server);
    let engines = engines::recorded(stored).into_values().map(|engine| engine.address);
    let others: BTreeSet<String> = others
        .into_iter()
        .map(|host| host.name)
        .chain(clusters)
        .chain(engines)
        .map(|name| visible(&name))
        .collect();
    let Some(name) = lost.iter().find(|name| !others.contains(*name)) else { return Ok(()) };
    if *name == machine::host_name() || here.iter().any(|host| host.name == *name) {
        return Err(Failure::new(format!("{name} is this machine"))
            .help("what runs in another folder of it is to be seen: apply there"));
    }
    let others: Vec<String> = others.into_iter().collect();
    Err(Failure::new(format!("no app was put live on another machine or cluster `{}`", visible(name))).help(
        match others.len() {
            0 => "leave --lost out".to_owned(),
            _ => format!("those known are: {}", others.join(", ")),
        },
    ))
}

impl From<&Part> for select::Selection {
    fn from(part: &Part) -> Self {
        Self { targets: part.target.clone(), excluded: part.exclude.clone() }
    }
}

/// An app is known by the spec, or by the state it has not left yet.
fn known(name: &AppName, desired: &Desired, stored: &Snapshot) -> Result<(), Failure> {
    let stored = stored.resources.keys().map(|address| &address.name);
    let all: BTreeSet<&AppName> = desired.apps.keys().chain(desired.untouched.keys()).chain(stored).collect();
    if all.contains(name) { Ok(()) } else { Err(unknown_app(name, all)) }
}

/// The error for an app that no one knows.
pub fn unknown_app<'a>(name: &AppName, known: impl IntoIterator<Item = &'a AppName>) -> Failure {
    let known: Vec<&str> = known.into_iter().map(AppName::as_str).collect();
    let failure = Failure::new(format!("there is no app `{name}`"));
    match known.as_slice() {
        [] => failure,
        [only] => failure.help(format!("the only app is {only}")),
        _ => failure.help(format!("the apps are {}", known.join(", "))),
    }
}
