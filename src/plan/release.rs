//! When an app is deployed, and from which commit.

use super::{
    Action, Blocked, Context, DeployWork, Drift, Operation, PlannedStep, Reason, Risk, Running, SourceFact,
    Step, Work,
};
use crate::address::Address;
use crate::desired::{Build, Front, Source};
use crate::state::{DeploymentStatus, Snapshot};

/// The deploy of an app, if one is due.
pub fn plan(context: &Context<'_>, drift: &mut Vec<Drift>) -> Option<Operation> {
    let app = context.app;
    let known = context.known.deploy.as_ref();
    let fact = context.facts.sources.get(&app.name).unwrap_or(&SourceFact::NotLookedUp);
    let commit = match fact {
        SourceFact::Version(commit) | SourceFact::LastSeen(commit) => Some(commit.as_str()),
        SourceFact::NotLookedUp => None,
    };
    let mut reasons = Vec::new();
    match (known, commit) {
        (None, _) => reasons.push(Reason::NoRelease),
        (Some(known), Some(commit)) if known.commit != commit => {
            reasons.push(Reason::Commit { from: known.commit.clone(), to: commit.to_owned() });
        }
        (Some(_), _) => {}
    }
    if let Some(known) = known {
        if same_release_differs(&known.build, &app.build) {
            reasons.push(Reason::BuildChanged);
        }
        if moved(&known.source, &app.source) {
            reasons.push(Reason::SourceChanged);
        }
        if !context.facts.releases.contains(&known.tag) && app.definition.replicas > 0 {
            reasons.push(Reason::ReleaseMissing);
            drift.push(Drift {
                app: app.name.clone(),
                found: format!("the folder of release {} is gone", known.tag),
                repaired: true,
            });
        }
    }
    if context.options.redeploy.contains(&app.name) {
        reasons.push(Reason::Redeploy);
    }
    let record_only = known.filter(|known| reasons.is_empty() && unrecorded(known, context.stored)).cloned();
    if record_only.is_some() {
        reasons.push(Reason::LiveUnrecorded);
    }
    if reasons.is_empty() {
        return None;
    }
    if let Some(error) = context.last_failure().filter(|_| record_only.is_none()) {
        reasons.push(Reason::LastFailed { error: error.to_owned() });
    }
    let commit = commit.unwrap_or_default();
    let tag = match &record_only {
        Some(release) => release.tag.clone(),
        None => next_tag(context, commit),
    };
    let interrupts = app.definition.port.is_some() && app.definition.front == Front::Off && known.is_some();
    Some(Operation {
        address: Address::deploy(&app.name),
        action: Action::Deploy,
        reasons,
        diff: Vec::new(),
        steps: steps(context, record_only.is_some()),
        waits: Vec::new(),
        risk: if interrupts && record_only.is_none() { Risk::Interrupts } else { Risk::Safe },
        blocked: blocked(context, fact),
        before: context.known.before.clone(),
        work: Work::Deploy(Box::new(DeployWork {
            source: app.source.clone(),
            commit: commit.to_owned(),
            tag,
            build: app.build.clone(),
            migrate: app.migrate.clone(),
            snapshot: app.snapshot.clone(),
            definition: app.definition.clone(),
            rollout: app.rollout,
            protected: app.protected,
            record_only,
        })),
    })
}

fn blocked(context: &Context<'_>, fact: &SourceFact) -> Option<Blocked> {
    match (fact, context.facts.running.get(&context.app.name)) {
        (SourceFact::NotLookedUp, _) => Some(Blocked::CommitNotLookedUp),
        (_, Some(Running::Elsewhere { host })) => Some(Blocked::ElsewhereRunning { host: host.clone() }),
        _ => None,
    }
}

/// What makes another release of the same commit. Tests and caches do not.
fn same_release_differs(old: &Build, new: &Build) -> bool {
    old.command != new.command
}

/// Whether the code is another folder or repository; another branch with the same commit is not.
fn moved(old: &Source, new: &Source) -> bool {
    match (old, new) {
        (Source::Local { folder: old, .. }, Source::Local { folder: new, .. }) => old != new,
        (Source::Git { url: old, path: old_path, .. }, Source::Git { url: new, path: new_path, .. }) => {
            old != new || old_path != new_path
        }
        (Source::Local { .. }, Source::Git { .. }) | (Source::Git { .. }, Source::Local { .. }) => true,
    }
}

/// Whether the live release has no row that says so: a run died between the two.
fn unrecorded(known: &crate::state::format::DeployV1, stored: &Snapshot) -> bool {
    let row = stored.deployments.iter().rev().find(|row| row.id == known.deployment);
    row.is_none_or(|row| row.status == DeploymentStatus::Failed)
}

/// `app:<first 12>` of a commit, or the next free `-<n>` of it.
fn next_tag(context: &Context<'_>, commit: &str) -> String {
    let short: String = commit.trim_start_matches("local:").chars().take(12).collect();
    let name = &context.app.name;
    let base = format!("{name}:{short}");
    // A tag that ever went live names that build for good; a failed attempt gives its tag back.
    let taken = |tag: &str| {
        context.known.deploy.as_ref().is_some_and(|release| release.tag == tag)
            || context.stored.deployments.iter().any(|row| {
                row.image_tag == tag
                    && matches!(row.status, DeploymentStatus::Deployed | DeploymentStatus::RolledBack)
            })
    };
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
    let unless = |there: bool, why: &'static str| (!there).then_some(why);
    let plan = [
        (Step::Clone, None),
        (Step::Build, unless(app.build.command.is_some(), "no `build.command`: the code is the release")),
        (Step::Test, unless(app.build.test.is_some(), "no `build.test`")),
        (Step::Snapshot, unless(app.snapshot.is_some(), "no `services.postgres`")),
        (Step::Migrate, unless(app.migrate.is_some(), "no `migrations.command`")),
        (Step::Deploy, None),
        (Step::Cleanup, None),
    ];
    let steps = plan.into_iter().map(|(step, skip)| PlannedStep {
        step,
        skip: if record_only { Some("the release serves already") } else { skip },
    });
    steps.collect()
}
