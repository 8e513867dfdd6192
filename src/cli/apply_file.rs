//! `norn apply FILE`: makes a saved plan so, as it was approved, or says why not any more.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use jiff::Timestamp;

use super::apply::{print, refuse_blocked, warn_of_short_secrets};
use super::args::{Apply, Global};
use super::facts;
use super::failure::{Exit, Failure};
use super::locked::{Due, Locked, Settled};
use super::plan_file;
use super::project::Project;
use super::shown::Shown;
use super::workspace::{Root, Variables};
use crate::desired::{Desired, Source};
use crate::plan::resume::{At, Resumed, resume};
use crate::plan::saved::{Saved, SavedV1};
use crate::plan::{Plan, Work};
use crate::render::plan::Header;
use crate::render::{Printer, words};
use crate::scrub::visible;
use crate::secret::Secret;
use crate::spec::load::Document;
use crate::state::format;

pub fn run(global: &Global, options: &Apply, path: &Path, printer: Printer) -> Result<Exit, Failure> {
    options.output.must_differ(&[("the plan", path)])?;
    let saved = plan_file::load(path)?;
    let global = &at_its_stage(global, &saved.file)?;
    super::runtime()?.block_on(async {
        let opened = Project::open(global, printer).await;
        // A spec that has no such stage any more, or none that can be read, is another one first.
        let mut project = opened.map_err(|failure| other_spec(global, &saved.file).unwrap_or(failure))?;
        options.output.must_replace_nothing(&project)?;
        let key = check(&project, &saved).await?;
        project.plan_files = plan_files(&project, &saved.file, &options.output.files(), path);
        // The spec is read for the values that the plan does not hold, and for nothing else.
        let variables = Variables::read(global)?;
        let desired = if saved.file.options.destroy {
            project.desired_to_destroy(&variables)?
        } else {
            let desired = project.desired(&variables, printer)?;
            warn_of_short_secrets(&desired, printer);
            desired
        };
        check_values(&saved.file, &desired, &key)?;
        let plan = saved.file.plan.plan();
        let shown = Shown {
            header: Header {
                scope: &project.scope,
                state: project.state_label(),
                resources: saved.file.store.resources,
                lost: &saved.file.options.lost,
                saved: Some(&saved.file),
            },
            plan: &plan,
        };
        shown.write(&options.output)?;
        print(&shown, global, printer);
        shown.tell_github()?;
        refuse_blocked(&plan, BLOCKED)?;
        let locked = Locked {
            global,
            doing: &options.doing,
            printer,
            project: &project,
            desired: &desired,
            command: plan_file::command(path),
            saved: Some(&saved.file.plan_id),
            lost: &saved.file.options.lost,
        };
        let due = async |settled: Settled| {
            let due = due(&plan, &saved.file, &project, &settled)?;
            check_sources(&project, &desired, &due.plan, printer).await.map(|()| due)
        };
        locked.run(due).await
    })
}

/// What is done about a saved plan that holds blocked operations.
const BLOCKED: &str = "mend them, or leave them out with `norn plan --exclude`, and plan again";
/// How every refusal of a plan that is out of date ends.
const AGAIN: &str = "nothing was applied: plan again, and look at the new plan";

fn outdated(message: impl Into<String>) -> Failure {
    Failure::new(message).exit(Exit::Outdated).help(AGAIN)
}

/// The plan says of which stage it is; who names one must name that.
fn at_its_stage(global: &Global, saved: &SavedV1) -> Result<Global, Failure> {
    let named = global.stage()?;
    let stage = |stage: &Option<_>| match stage {
        Some(stage) => format!("stage `{stage}`"),
        None => "no stage".to_owned(),
    };
    if named.is_some() && named != saved.stage {
        let (its, named) = (stage(&saved.stage), stage(&named));
        return Err(outdated(format!("the plan is for {its}, and {named} is named"))
            .help("leave --stage (or NORN_STAGE) out, or plan for that stage"));
    }
    Ok(Global { stage: saved.stage.as_ref().map(ToString::to_string), ..global.clone() })
}

/// Whether the plan is norn's own, still valid, and of this project, state and spec. Gives the key of
/// the state.
async fn check(project: &Project, saved: &Saved) -> Result<Secret, Failure> {
    let file = &saved.file;
    if file.project != project.scope.project {
        let (theirs, ours) = (&file.project, &project.scope.project);
        return Err(outdated(format!("the plan is for project {theirs}, and the spec is of {ours}")));
    }
    let here = project.stored().await?.key;
    let key = its_key(here, project, file)?;
    if !saved.sealed_with(&key) {
        return Err(Failure::new("the plan was changed after it was saved: its seal is broken")
            .help("fetch it again as `norn plan --out` wrote it, or plan again"));
    }
    must_be_valid(file)?;
    is_of(&project.document, file).map(|()| key)
}

/// The key of the state, if the plan was made with that state.
fn its_key(key: Option<Secret>, project: &Project, file: &SavedV1) -> Result<Secret, Failure> {
    key.filter(|key| format::store_id(key) == file.store.id).ok_or_else(|| {
        let (theirs, here) = (visible(&file.store.place), project.state_label());
        outdated(format!("the plan is for another state than {here}: it was made with {theirs}"))
            .help("name the state that it was made with by --state, or plan again")
    })
}

fn must_be_valid(file: &SavedV1) -> Result<(), Failure> {
    if Timestamp::now() < file.expires_at {
        return Ok(());
    }
    let (created, expired) = (file.created_at, file.expires_at);
    Err(outdated(format!("the plan expired at {expired:.0}; it was made at {created:.0}"))
        .help(format!("{AGAIN}; `--valid-for` makes one last longer")))
}

/// Whether the plan was made of this spec.
fn is_of(document: &Document, file: &SavedV1) -> Result<(), Failure> {
    let changed = changed_files(&file.spec, &plan_file::spec(document));
    if changed.is_empty() {
        return Ok(());
    }
    let mut failure = outdated("the spec is another than the plan was made of");
    failure.details = changed;
    Err(failure)
}

/// What is wrong with a spec that cannot be opened, if it is another than the plan's.
fn other_spec(global: &Global, file: &SavedV1) -> Option<Failure> {
    is_of(&Root::find(global).ok()?.read(), file).err()
}

fn changed_files(then: &BTreeMap<String, String>, now: &BTreeMap<String, String>) -> Vec<String> {
    let gone = then
        .keys()
        .filter(|path| !now.contains_key(*path))
        .map(|path| format!("{path} is no part of it any more"));
    let other = now.iter().filter_map(|(path, digest)| match then.get(path) {
        None => Some(format!("{path} is new in it")),
        Some(before) => (before != digest).then(|| format!("{path} changed")),
    });
    gone.chain(other).collect()
}

/// Files of plans, which are no part of an app's source: this one, what is written now, and what
/// was written beside it.
fn plan_files(project: &Project, saved: &SavedV1, written: &[PathBuf], path: &Path) -> Vec<PathBuf> {
    let beside = saved.outputs.iter().map(|path| project.root.folder.join(path));
    std::path::absolute(path).into_iter().chain(written.iter().cloned()).chain(beside).collect()
}

/// Whether every value is the one that the plan was made with.
fn check_values(saved: &SavedV1, desired: &Desired, key: &Secret) -> Result<(), Failure> {
    let now = plan_file::values(&saved.plan.plan(), &desired.values, key);
    let mut others = Vec::new();
    for (app, then) in &saved.values {
        let now = now.get(app).cloned().unwrap_or_default();
        let names = then.keys().chain(now.keys().filter(|name| !then.contains_key(*name)));
        let differ = names.filter(|name| then.get(*name) != now.get(*name));
        others.extend(differ.map(|name| format!("{name} of app `{app}`")));
    }
    if others.is_empty() {
        return Ok(());
    }
    let mut failure = outdated("values are not those that the plan was made with");
    failure.details = others;
    Err(failure.help(format!("{AGAIN}; or set them as they were then")))
}

/// Whether each local source that is still to be deployed is the one that was planned. That is seen
/// here, and not when some of the plan is done; the copy that is made of it is compared again.
async fn check_sources(
    project: &Project,
    desired: &Desired,
    rest: &Plan,
    printer: Printer,
) -> Result<(), Failure> {
    let now = facts::local_versions(project, desired, rest).await?;
    let deploys = rest.operations.iter().filter_map(|operation| match &operation.work {
        Work::Deploy(work) => Some((&operation.address.name, work)),
        Work::Forge(_) | Work::Teardown(_) => None,
    });
    let mut others = Vec::new();
    for (app, work) in deploys {
        match (now.get(app), &work.source) {
            (Some(Err(why)), _) => others.push(format!("{app}: {why}")),
            (Some(Ok(version)), Source::Local { folder, .. }) if *version != work.commit => {
                let folder = project.root.folder.join(folder);
                let (folder, planned) = (folder.display(), &work.commit);
                others.push(format!("{app}: {folder} is {version}, planned was {planned}"));
            }
            (Some(Ok(_)) | None, _) => {}
        }
    }
    if others.is_empty() {
        return Ok(());
    }
    facts::warn_of_shallow(project, desired, printer).await?;
    let mut failure = outdated("local sources are not as planned");
    failure.details = others;
    Err(failure.help(format!("{AGAIN}; or make them again what they were")))
}

/// What is left of the plan, if what it changes stands as planned or as its own runs left it.
fn due(plan: &Plan, saved: &SavedV1, project: &Project, settled: &Settled) -> Result<Due, Failure> {
    let Settled { stored, running, applied } = settled;
    // The lock may have been waited for, and what was checked before it have changed.
    must_be_valid(saved)?;
    its_key(stored.key.clone(), project, saved)?;
    match resume(plan, &At { stored, applied, values: &saved.values, running }) {
        Ok(Resumed { rest, done }) => {
            refuse_blocked(&rest, BLOCKED)?;
            Ok(Due { plan: rest, done })
        }
        Err(moved) => {
            let mut failure = outdated("what is there changed since the plan was saved");
            failure.details = moved.iter().map(words::moved).collect();
            Err(failure)
        }
    }
}
