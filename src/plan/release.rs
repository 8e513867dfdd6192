//! When an app is deployed, and from which commit.

use super::{
    Action, Blocked, Context, DeployWork, Operation, PlannedStep, Reason, Risk, Skip, SourceFact, Step, Work,
    forge,
};
use crate::address::Address;
use crate::desired::{Build, Source};
use crate::state::Artifact;
use crate::state::format::{DeployV1, short};

/// The deploy of an app, if one is due.
pub fn plan(context: &Context<'_>) -> Option<Operation> {
    let app = context.app;
    let known = context.known.deploy.as_ref();
    let fact = context.facts().sources.get(&app.name).unwrap_or(&SourceFact::NotLookedUp);
    let commit = match fact {
        SourceFact::Version(commit) | SourceFact::LastSeen(commit) => Some(commit.as_str()),
        SourceFact::NotLookedUp => None,
    };
    let mut reasons = Vec::new();
    match (known, commit) {
        (None, _) => reasons.push(Reason::NoRelease),
        (Some(_), None) => reasons.push(Reason::CommitUnknown),
        (Some(known), Some(commit)) if known.commit != commit => {
            reasons.push(Reason::Commit { from: known.commit.clone(), to: commit.to_owned() });
            reasons.extend(other_ref(&known.source, &app.source));
        }
        (Some(_), Some(_)) => {}
    }
    if let Some(known) = known {
        if same_release_differs(&known.build, &app.build) {
            reasons.push(Reason::BuildChanged);
        }
        if moved(&known.source, &app.source) {
            reasons.push(Reason::SourceChanged);
        }
    }
    if held(context).is_some() {
        // Not in place of a release whose folder is gone, either: the user decides.
        reasons.clear();
    } else if context.missing_release().is_some() {
        reasons.push(Reason::ReleaseMissing);
    }
    if context.base.options.redeploy.contains(&app.name) {
        reasons.push(Reason::Redeploy);
    }
    let history = context.base.history;
    if context.adopts() && !reasons.is_empty() {
        reasons.push(Reason::Adopted);
    }
    let record_only = known.filter(|known| reasons.is_empty() && history.unrecorded(known)).cloned();
    if record_only.is_some() {
        reasons.push(Reason::LiveUnrecorded);
    }
    if reasons.is_empty() {
        return None;
    }
    let failure = history.last_failure(context.stored_name()).filter(|_| record_only.is_none());
    reasons.extend(failure.map(|error| Reason::LastFailed { error: error.to_owned() }));
    let commit = commit.unwrap_or_default();
    let (source, commit, tag, build) = match &record_only {
        Some(live) => (&live.source, live.commit.as_str(), live.tag.clone(), &live.build),
        None => (&app.source, commit, next_tag(context, commit), &app.build),
    };
    let interrupts = if record_only.is_some() { None } else { forge::interruption(context) };
    Some(Operation {
        address: Address::deploy(&app.name),
        action: Action::Deploy,
        reasons,
        diff: Vec::new(),
        steps: steps(context, record_only.is_some()),
        waits: Vec::new(),
        risk: interrupts.map_or(Risk::Safe, Risk::Interrupts),
        blocked: match fact {
            SourceFact::NotLookedUp => Some(Blocked::CommitNotLookedUp),
            SourceFact::Version(_) | SourceFact::LastSeen(_) => {
                context.elsewhere().or_else(|| context.volumes_stay())
            }
        },
        before: context.known.before.clone(),
        work: Work::Deploy(Box::new(DeployWork {
            source: source.clone(),
            commit: commit.to_owned(),
            tag,
            build: build.clone(),
            migrate: app.migrate.clone(),
            snapshot: app.snapshot.clone(),
            definition: app.definition.clone(),
            rollout: app.rollout,
            protected: app.protected,
            route: app.route.clone(),
            record_only,
            back: None,
            former: context.known.former(),
            adopt: context.adopts(),
            force: context.forces(),
        })),
    })
}

/// The release of what the spec wants, where the user went back from it: it is not deployed again unasked.
pub fn held<'a>(context: &Context<'a>) -> Option<&'a str> {
    let app = context.app;
    let Some(SourceFact::Version(commit) | SourceFact::LastSeen(commit)) =
        context.facts().sources.get(&app.name)
    else {
        return None;
    };
    let live = context.known.deploy.as_ref()?;
    let left = context.base.history.rolled_back(context.stored_name(), commit, live)?;
    let kept = |artifact: &&Artifact| artifact.app == left.app && artifact.name == left.image_tag;
    let made = context.base.stored.artifacts.iter().rfind(kept);
    let made: Option<DeployV1> = made.and_then(Artifact::read);
    // Another build of it, or the same commit of another place, is none that was gone back from.
    let same =
        |made: &DeployV1| !same_release_differs(&made.build, &app.build) && !moved(&made.source, &app.source);
    let due = live.commit != *commit
        || same_release_differs(&live.build, &app.build)
        || moved(&live.source, &app.source);
    (due && made.as_ref().is_none_or(same)).then_some(left.image_tag.as_str())
}

/// Whether another branch, tag or commit of the same repository is asked for: the spec says so, or
/// the last one was asked for by hand.
fn other_ref(old: &Source, new: &Source) -> Option<Reason> {
    match (old, new) {
        (Source::Git { url: old_url, reference: old, .. }, Source::Git { url, reference: new, .. })
            if old_url == url && old.as_str() != new.as_str() =>
        {
            Some(Reason::Ref { from: old.as_str().to_owned(), to: new.as_str().to_owned() })
        }
        _ => None,
    }
}

/// What makes another release of the same commit. Tests and caches do not.
fn same_release_differs(old: &Build, new: &Build) -> bool {
    (&old.command, &old.image) != (&new.command, &new.image)
}

/// Whether the code is another folder or repository; another branch with the same commit is not.
fn moved(old: &Source, new: &Source) -> bool {
    match (old, new) {
        (Source::Local { folder: old, .. }, Source::Local { folder: new, .. }) => old != new,
        (Source::Git { url: old, path: old_path, .. }, Source::Git { url: new, path: new_path, .. }) => {
            old != new || old_path != new_path
        }
        // Another name of the same image is the same image.
        (Source::Image { .. }, Source::Image { .. }) => false,
        (Source::Local { .. } | Source::Git { .. } | Source::Image { .. }, _) => true,
    }
}

/// `app:<first 12>` of a commit, or the next free `-<n>` of it.
fn next_tag(context: &Context<'_>, commit: &str) -> String {
    let base = format!("{}:{}", context.app.name, short(commit));
    let live = context.known.deploy.as_ref().map(|release| release.tag.as_str());
    let taken = |tag: &str| live == Some(tag) || context.base.history.lived(tag);
    let mut tag = base.clone();
    let mut n = 2;
    while taken(&tag) {
        tag = format!("{base}-{n}");
        n += 1;
    }
    tag
}

fn steps(context: &Context<'_>, record_only: bool) -> Vec<PlannedStep> {
    let app = context.app;
    let pulled = matches!(app.source, Source::Image { .. });
    let built = app.build.command.is_some() || app.build.image.is_some();
    let there = pulled && app.definition.runtime.is_kubernetes() && app.build.test.is_none();
    let unless = |there: bool, skip: Skip| (!there).then_some(skip);
    let plan = [
        (Step::Clone, unless(!pulled, Skip::NoCode)),
        (Step::Build, if there { Some(Skip::PulledThere) } else { unless(built || pulled, Skip::NoBuild) }),
        (Step::Test, unless(app.build.test.is_some(), Skip::NoTest)),
        (Step::Snapshot, unless(app.snapshot.is_some(), Skip::NoDatabase)),
        (Step::Migrate, unless(app.migrate.is_some(), Skip::NoMigration)),
        (Step::Deploy, None),
        (Step::Cleanup, None),
    ];
    let steps = plan
        .into_iter()
        .map(|(step, skip)| PlannedStep { step, skip: if record_only { Some(Skip::Serves) } else { skip } });
    steps.collect()
}
