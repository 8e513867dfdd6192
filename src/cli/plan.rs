//! `norn plan`: what would change.

use std::collections::BTreeSet;
use std::fs;
use std::io::Write;
use std::path::Path;

use super::args::{Global, Plan, Selection};
use super::facts;
use super::failure::{Exit, Failure};
use super::project::{Project, store_failure};
use super::workspace::Variables;
use crate::apply::recovery;
use crate::desired::{Desired, GitRef, Source};
use crate::plan::{self, Options, select};
use crate::provider::machine;
use crate::render::plan::Header;
use crate::render::{Printer, markdown, plan_json};
use crate::spec::name::AppName;
use crate::state::Snapshot;

pub fn run(global: &Global, options: &Plan, printer: Printer) -> Result<Exit, Failure> {
    super::runtime()?.block_on(async {
        let project = Project::open(global, printer)?;
        let variables = Variables::read(global)?;
        let desired = project.desired(&variables, printer)?;
        project.warn(printer);
        facts::warn_of_shallow(&project, &desired, printer).await?;
        let made = Made::new(&project, desired, &options.selection, &Options::default()).await?;
        made.show(&project, options.output.markdown_out.as_deref(), options.output.json_out.as_deref())?;
        if global.json {
            printer.data(&made.json(&project));
        } else {
            printer.data(&made.human(&project, printer.out_color));
        }
        made.tell_github(&project)?;
        Ok(if options.detailed_exitcode && !made.plan.is_empty() { Exit::Changes } else { Exit::Ok })
    })
}

/// A plan with all it was made of.
pub struct Made {
    pub desired: Desired,
    pub stored: Snapshot,
    pub facts: plan::Facts,
    pub plan: plan::Plan,
    /// What recovery would write first.
    pub settles: usize,
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
        let mut stored = project.store.snapshot().await.map_err(store_failure)?;
        check_selection(&desired, &stored, selection)?;
        if let Some(app) = &options.restart {
            known(app, &desired, &stored)?;
        }
        let running = facts::running(project.home(), &stored, &desired).await;
        let settles = recovery::settle(&mut stored, &running, None, &machine::alive).len();
        let facts = if options.destroy || options.restart.is_some() {
            plan::Facts { running, ..plan::Facts::default() }
        } else {
            facts::gather(project, &desired, &stored, running, selection.offline).await?
        };
        let mut made = Self { desired, stored, facts, plan: plan::Plan::default(), settles };
        made.plan(selection, options);
        Ok(made)
    }

    /// Plans anew from what is at hand.
    pub fn plan(&mut self, selection: &Selection, options: &Options) {
        let options = Options {
            redeploy: selection.redeploy.clone(),
            selection: select::Selection {
                targets: selection.part.target.clone(),
                excluded: selection.part.exclude.clone(),
            },
            ..options.clone()
        };
        self.plan = plan::plan(&self.desired, &self.stored, &self.facts, &options);
    }

    pub fn human(&self, project: &Project, color: bool) -> String {
        let state = project.state_label();
        crate::render::plan::human(&self.header(project, &state), &self.plan, color)
    }

    pub fn json(&self, project: &Project) -> String {
        format!("{:#}\n", self.document(project))
    }

    pub fn document(&self, project: &Project) -> serde_json::Value {
        let state = project.state_label();
        let document = plan_json::document(&self.header(project, &state), &self.plan);
        serde_json::to_value(document).expect("a plan has text keys only")
    }

    fn markdown(&self, project: &Project) -> String {
        let state = project.state_label();
        markdown::plan(&self.header(project, &state), &self.plan)
    }

    fn header<'a>(&self, project: &'a Project, state: &'a str) -> Header<'a> {
        Header { scope: &project.scope, state, resources: self.stored.resources.len() }
    }

    /// Writes the files that were asked for.
    pub fn show(
        &self,
        project: &Project,
        markdown: Option<&Path>,
        json: Option<&Path>,
    ) -> Result<(), Failure> {
        let write = |path: &Path, text: String| {
            fs::write(path, text).map_err(|error| {
                Failure::new(format!("{} cannot be written: {error}", path.display()))
                    .help("name another file")
            })
        };
        if let Some(path) = markdown {
            write(path, self.markdown(project))?;
        }
        if let Some(path) = json {
            write(path, self.json(project))?;
        }
        Ok(())
    }

    /// On GitHub Actions: the step's summary and its outputs.
    pub fn tell_github(&self, project: &Project) -> Result<(), Failure> {
        if std::env::var_os("GITHUB_ACTIONS").is_none() {
            return Ok(());
        }
        let append = |variable: &str, text: &str| -> Result<(), Failure> {
            let Some(path) = std::env::var_os(variable).filter(|path| !path.is_empty()) else {
                return Ok(());
            };
            let file = fs::OpenOptions::new().append(true).create(true).open(&path);
            file.and_then(|mut file| file.write_all(text.as_bytes())).map_err(|error| {
                Failure::new(format!(
                    "{variable} ({}) cannot be written: {error}",
                    Path::new(&path).display()
                ))
            })
        };
        append("GITHUB_STEP_SUMMARY", &self.markdown(project))?;
        let document = self.document(project);
        let outputs = ["changes", "destroys", "plan_id"].map(|name| {
            let value = if name == "plan_id" { &document["planId"] } else { &document[name] };
            format!("{name}={}\n", value.as_str().map_or_else(|| value.to_string(), str::to_owned))
        });
        append("GITHUB_OUTPUT", &outputs.concat())
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
    let selectors = selection.part.target.iter().chain(&selection.part.exclude);
    selectors.map(select::Selector::app).try_for_each(|name| known(name, desired, stored))
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
