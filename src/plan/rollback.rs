//! A plan that puts a release live again which was live before.
//!
//! Here: which one that is ([`target`]), and the operation. Elsewhere: what keeps the next plan from
//! deploying what was left (`release`). Invariants: nothing is built or migrated; the definition that is
//! live stays live.

use std::collections::BTreeMap;

use super::{
    Action, Back, DeployWork, Facts, History, Known, Operation, Plan, PlannedStep, Reason, Risk, Skip, Step,
    Work, restart,
};
use crate::address::Address;
use crate::desired::{Desired, Rollout};
use crate::provider::dump;
use crate::scrub::visible;
use crate::spec::name::AppName;
use crate::state::format::{DeployV1, digits, short};
use crate::state::{Artifact, ArtifactKind, Deployment, DeploymentStatus, Snapshot};

/// How many digits of a commit name one at least.
const FEWEST: usize = 7;

/// A rollback that the user asks for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rollback {
    pub app: AppName,
    /// A tag, the part of it behind the colon, or a commit; else what was live before.
    pub to: Option<String>,
}

/// Why there is nothing to go back to.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum NoTarget {
    #[error("app `{app}` has no live release, so there is nothing to go back from")]
    NothingLive { app: AppName },
    #[error("no release of app `{app}` was live before {live}")]
    NothingBefore { app: AppName, live: String },
    #[error("the releases of app `{app}` before {live} are not kept any more")]
    NothingKept { app: AppName, live: String },
    #[error("app `{app}` has no release `{}`", visible(to))]
    Unknown { app: AppName, to: String, kept: Vec<String> },
    #[error("`{}` names several releases of app `{app}`: {}", visible(to), tags.join(", "))]
    Ambiguous { app: AppName, to: String, tags: Vec<String> },
    #[error("{live} is live already")]
    Live { live: String },
    #[error("{tag} never went live: every attempt at it failed")]
    NeverLive { tag: String },
    #[error("the release {tag} is not kept any more")]
    Pruned { tag: String, kept: Vec<String> },
}

impl NoTarget {
    /// What to do about it.
    pub fn help(&self) -> String {
        let kept = |kept: &[String]| match kept {
            [] => "no other release of it is kept".to_owned(),
            kept => format!("those kept are {}", kept.join(", ")),
        };
        match self {
            NoTarget::NothingLive { .. } => "`norn status` shows what runs; `norn apply` deploys".to_owned(),
            NoTarget::NothingBefore { app, .. } => {
                format!("`norn history {app}` shows what was deployed; `--to TAG` names a release")
            }
            NoTarget::NothingKept { .. } => {
                "check out the commit, or pin `repo.ref` to it, and run `norn apply`".to_owned()
            }
            NoTarget::Unknown { to, kept: all, .. } if digits(to).len() < FEWEST => {
                format!("{}; a commit is named by {FEWEST} digits at least", kept(all))
            }
            NoTarget::Unknown { kept: all, .. } => kept(all),
            NoTarget::Ambiguous { .. } => "name one by its tag".to_owned(),
            NoTarget::Live { .. } => "nothing is to be done".to_owned(),
            NoTarget::NeverLive { .. } => "name one that was live: `norn history` shows them".to_owned(),
            NoTarget::Pruned { kept: all, .. } => {
                format!("{}; deploy its commit again to have it built again", kept(all))
            }
        }
    }
}

/// What is known of one tag.
struct OfTag<'a> {
    /// Its newest row that did not fail, and where it stands among all rows.
    lived: Option<(usize, &'a Deployment)>,
    commit: &'a str,
    release: Option<&'a Artifact>,
}

/// The release that is to be live again.
///
/// # Errors
/// Why there is none.
pub fn target(wanted: &Rollback, stored: &Snapshot, facts: &Facts) -> Result<DeployV1, NoTarget> {
    let app = &wanted.app;
    let known = Known::of(app, stored);
    let Some(live) = known.deploy.filter(|_| known.forge.is_some_and(|forge| forge.definition.is_some()))
    else {
        return Err(NoTarget::NothingLive { app: app.clone() });
    };
    let tags = tags(app, stored, facts);
    let kept = || -> Vec<String> {
        let there = tags.iter().filter(|(tag, known)| **tag != live.tag && known.release.is_some());
        there.map(|(tag, _)| (*tag).to_owned()).collect()
    };
    let history = History::of(stored);
    let Some(to) = &wanted.to else {
        if history.unrecorded(&live) && history.was_live(&live.tag) {
            // A rollback put it live and died: this one goes on with it. No deploy makes a tag that lived.
            return Ok(live);
        }
        let before = |(tag, known): &(&&str, &OfTag<'_>)| {
            **tag != live.tag && known.lived.is_some_and(|(_, row)| row.status == DeploymentStatus::Deployed)
        };
        let mut before: Vec<_> = tags.iter().filter(before).collect();
        before.sort_by_key(|(_, known)| std::cmp::Reverse(known.lived.map(|(at, _)| at)));
        let there = before.iter().find_map(|(_, known)| known.release?.read::<DeployV1>());
        return there.ok_or(match before.is_empty() {
            true => NoTarget::NothingBefore { app: app.clone(), live: live.tag },
            false => NoTarget::NothingKept { app: app.clone(), live: live.tag },
        });
    };
    let named: Vec<&str> =
        tags.keys().copied().filter(|tag| *tag == to || tag.rsplit(':').next() == Some(to)).collect();
    let sha = digits(to).to_ascii_lowercase();
    let named = match named.is_empty() && sha.len() >= FEWEST {
        true => tags
            .iter()
            .filter(|(_, known)| digits(known.commit).starts_with(&sha))
            .map(|(tag, _)| *tag)
            .collect(),
        false => named,
    };
    let tag = match named.as_slice() {
        [] => return Err(NoTarget::Unknown { app: app.clone(), to: to.clone(), kept: kept() }),
        [tag] => *tag,
        several => {
            let tags = several.iter().map(|tag| (*tag).to_owned()).collect();
            return Err(NoTarget::Ambiguous { app: app.clone(), to: to.clone(), tags });
        }
    };
    let known = &tags[tag];
    let tag = tag.to_owned();
    match (known.lived, known.release.and_then(Artifact::read::<DeployV1>)) {
        // Of one that a run put live and died, that is still to be written down.
        _ if tag == live.tag && history.unrecorded(&live) => Ok(live),
        _ if tag == live.tag => Err(NoTarget::Live { live: tag }),
        (None, _) => Err(NoTarget::NeverLive { tag }),
        (Some(_), None) => Err(NoTarget::Pruned { tag, kept: kept() }),
        (Some(_), Some(release)) => Ok(release),
    }
}

/// All tags of an app; a release counts where it is there.
fn tags<'a>(app: &AppName, stored: &'a Snapshot, facts: &Facts) -> BTreeMap<&'a str, OfTag<'a>> {
    let mut tags: BTreeMap<&str, OfTag<'_>> = BTreeMap::new();
    let kept = stored.artifacts.iter().filter(|kept| kept.app == *app && kept.kind == ArtifactKind::Release);
    for (at, row) in stored.deployments.iter().enumerate().filter(|(_, row)| row.app == *app) {
        let known = tags.entry(&row.image_tag).or_insert(OfTag { lived: None, commit: "", release: None });
        known.commit = &row.commit_sha;
        // One that is kept was live, whatever became of the run that put it there.
        let was_live = || known.lived.is_none() && kept.clone().any(|kept| kept.name == row.image_tag);
        if row.status != DeploymentStatus::Failed || was_live() {
            known.lived = Some((at, row));
        }
    }
    for artifact in kept.filter(|artifact| facts.releases.contains(&artifact.name)) {
        if let Some(known) = tags.get_mut(artifact.name.as_str()) {
            known.release = Some(artifact);
        }
    }
    tags
}

/// The deploys whose migrations ran since a release was made, oldest first, whatever became of them.
fn migrated_since<'a>(
    release: &DeployV1,
    app: &AppName,
    stored: &'a Snapshot,
    facts: &Facts,
) -> Vec<&'a Deployment> {
    let rows = stored.deployments.iter().filter(|row| row.app == *app);
    let since = rows.skip_while(|row| row.id != release.deployment).skip(1);
    since.filter(|row| facts.migrated.contains(&row.id)).collect()
}

/// The snapshots that a deploy took.
fn snapshots_before(row: &Deployment, facts: &Facts) -> Vec<String> {
    let short = short(&row.commit_sha);
    let of = |name: &&String| dump::parse(name).is_some_and(|(_, commit, _)| commit == short);
    facts.snapshots.iter().filter(of).cloned().collect()
}

/// The rollback of an app; an empty plan where there is nothing to go back to.
pub fn plan(
    wanted: &Rollback,
    rollout: Rollout,
    desired: &Desired,
    stored: &Snapshot,
    facts: &Facts,
) -> Plan {
    let Ok(release) = target(wanted, stored, facts) else { return Plan::default() };
    let app = &wanted.app;
    let known = Known::of(app, stored);
    let former = known.former();
    let (Some(forge), Some(live)) = (known.forge, known.deploy) else { return Plan::default() };
    let Some(definition) = forge.definition.clone() else { return Plan::default() };
    let record_only = (release.tag == live.tag).then(|| release.clone());
    let since = migrated_since(&release, app, stored, facts);
    let leaves = stored.deployments.iter().find(|row| row.id == live.deployment).map(|row| row.id.clone());
    let operation = Operation {
        address: Address::deploy(app),
        action: if record_only.is_some() { Action::Deploy } else { Action::Rollback },
        reasons: vec![match record_only {
            Some(_) => Reason::LiveUnrecorded,
            None => Reason::RolledBack { from: live.tag, to: release.tag.clone() },
        }],
        diff: Vec::new(),
        steps: vec![PlannedStep { step: Step::Deploy, skip: record_only.is_some().then_some(Skip::Serves) }],
        waits: Vec::new(),
        risk: match (&record_only, restart::interruption(&definition)) {
            (None, Some(interruption)) => Risk::Interrupts(interruption),
            (Some(_), _) | (None, None) => Risk::Safe,
        },
        blocked: restart::blocked(app, &forge, desired, facts),
        before: known.before,
        work: Work::Deploy(Box::new(DeployWork {
            source: release.source.clone(),
            commit: release.commit.clone(),
            tag: release.tag.clone(),
            build: release.build.clone(),
            migrate: None,
            snapshot: None,
            definition,
            rollout,
            protected: forge.protected,
            route: forge.route,
            back: record_only.is_none().then(|| Back {
                leaves,
                migrated: since.iter().map(|row| row.image_tag.clone()).collect(),
                snapshots: since.first().map(|row| snapshots_before(row, facts)).unwrap_or_default(),
                release,
            }),
            record_only,
            former,
            adopt: false,
            force: false,
        })),
    };
    Plan { operations: vec![operation], ..Plan::default() }
}
