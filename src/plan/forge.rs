//! What an app stands on: creating, updating and tearing it down, and repairing what stopped.

use std::collections::BTreeMap;

use super::{
    Action, Before, Blocked, Context, Drift, Facts, FieldDiff, ForgeWork, Operation, Options, PlannedStep,
    Reason, Risk, Roll, Running, Step, TeardownWork, Work, diff,
};
use crate::address::{Address, Kind};
use crate::desired::{Desired, Front};
use crate::spec::name::AppName;
use crate::state::format::{self, ForgeV1};
use crate::state::{ForgeStatus, Snapshot};

/// The forge or update of an app, if one is due. `deploy` is the app's deploy in the same plan.
pub fn plan(context: &Context<'_>, deploy: Option<&Operation>, drift: &mut Vec<Drift>) -> Option<Operation> {
    let app = context.app;
    let known = context.known.forge.as_ref();
    let diff = changes(context);
    let mut reasons = Vec::new();
    if known.is_none() {
        reasons.push(Reason::NewInSpec);
    } else {
        if let Some(old) = &context.renamed_from {
            reasons.push(Reason::RenamedFrom(old.clone()));
        }
        // What was never live is put live by its first deploy: there is nothing to update.
        if !diff.is_empty() && known.is_some_and(|known| known.definition.is_some()) {
            reasons.push(Reason::DefinitionChanged);
        }
        if known.is_some_and(|known| known.protected != app.protected) {
            reasons.push(Reason::ProtectionChanged { now: app.protected });
        }
        let forge = context.stored.forges.get(context.renamed_from.as_ref().unwrap_or(&app.name));
        if let Some(forge) = forge.filter(|forge| forge.status == ForgeStatus::ForgeFailed) {
            reasons.push(Reason::LastFailed { error: forge.error.clone() });
        }
    }
    let stopped = not_running(context, deploy, drift);
    reasons.extend(stopped.map(|found| Reason::NotRunning { found }));
    // A failure alone is told with what is tried again, and is nothing to do by itself.
    if reasons.iter().all(|reason| matches!(reason, Reason::LastFailed { .. })) {
        let nothing_left = deploy.is_some() || context.known.deploy.is_some();
        if reasons.is_empty() || nothing_left {
            return None;
        }
    }
    let only_words = reasons.iter().all(|reason| matches!(reason, Reason::ProtectionChanged { .. }));
    let roll = match (&context.known.deploy, deploy) {
        (Some(release), None) if !only_words => {
            Some(Roll { release: release.clone(), definition: app.definition.clone(), rollout: app.rollout })
        }
        _ => None,
    };
    let skip = match (&roll, deploy) {
        (Some(_), _) => None,
        (None, Some(_)) => Some("the deploy puts both live"),
        (None, None) => Some("nothing that runs changes"),
    };
    let interrupts = roll.is_some() && app.definition.port.is_some() && app.definition.front == Front::Off;
    let elsewhere = elsewhere(context.facts, &app.name).filter(|_| roll.is_some());
    Some(Operation {
        address: Address::forge(&app.name),
        action: if known.is_some() { Action::Update } else { Action::Forge },
        reasons,
        diff,
        steps: vec![PlannedStep { step: Step::CreateDeployment, skip }],
        waits: Vec::new(),
        risk: if interrupts { Risk::Interrupts } else { Risk::Safe },
        blocked: elsewhere,
        before: context.known.before.clone(),
        work: Work::Forge(ForgeWork {
            renamed_from: context.renamed_from.clone(),
            protected: app.protected,
            live: context.known.forge.clone(),
            roll,
        }),
    })
}

/// What another machine runs is that machine's.
pub fn elsewhere(facts: &Facts, app: &AppName) -> Option<Blocked> {
    match facts.running.get(app) {
        Some(Running::Elsewhere { host }) => Some(Blocked::ElsewhereRunning { host: host.clone() }),
        _ => None,
    }
}

/// What differs between the live definition and the wanted one.
fn changes(context: &Context<'_>) -> Vec<FieldDiff> {
    let app = context.app;
    let values = context.desired.values.of(&app.name);
    let wanted = match &context.stored.key {
        Some(key) => format::fingerprints(&app.definition, values, key),
        None => BTreeMap::new(),
    };
    let live =
        context.known.forge.as_ref().and_then(|known| Some((known.definition.as_ref()?, &known.values)));
    diff::definitions(live, (&app.definition, &wanted))
}

/// Why the recorded release does not run as recorded, if nothing else in the plan starts it.
fn not_running(context: &Context<'_>, deploy: Option<&Operation>, drift: &mut Vec<Drift>) -> Option<String> {
    let app = context.app;
    let release = context.known.deploy.as_ref()?;
    let live = context.known.forge.as_ref().and_then(|known| known.definition.as_ref())?;
    let name = context.renamed_from.as_ref().unwrap_or(&app.name);
    let found = match context.facts.running.get(name)? {
        // Nothing is to run, so nothing is missing.
        Running::Nothing | Running::Rebooted if live.replicas == 0 => return None,
        Running::Nothing => "nothing runs here".to_owned(),
        Running::Rebooted => "the machine was started anew, nothing runs".into(),
        Running::Unsupervised { replicas: 0 } => "the supervisor is gone".into(),
        Running::Unsupervised { replicas } => format!("the supervisor is gone, {replicas} left without it"),
        Running::Silent { why } => format!("the supervisor does not answer: {why}"),
        Running::Elsewhere { .. } => return None,
        Running::Serving { tag, .. } if tag.as_ref() != Some(&release.tag) => match tag {
            Some(tag) => format!("release {tag} serves instead of {}", release.tag),
            None => "the supervisor has no release".into(),
        },
        Running::Serving { definition, .. } if definition.as_ref() != Some(&recorded_digest(context)) => {
            "it runs under another definition".into()
        }
        Running::Serving { healthy, wanted, .. } if healthy < wanted => {
            // The supervisor restarts what crashes: a plan can only tell.
            let found = format!("{healthy} of {wanted} replicas are healthy");
            drift.push(Drift { app: app.name.clone(), found, repaired: false });
            return None;
        }
        Running::Serving { .. } => return None,
    };
    drift.push(Drift { app: app.name.clone(), found: found.clone(), repaired: true });
    deploy.is_none().then_some(found)
}

/// The digest under which the live definition was handed to the supervisor.
fn recorded_digest(context: &Context<'_>) -> String {
    context.known.forge.as_ref().map(ForgeV1::definition_digest).unwrap_or_default()
}

/// The apps that are known and no longer wanted.
pub fn removed(desired: &Desired, stored: &Snapshot, options: &Options) -> Vec<AppName> {
    let known =
        stored.resources.keys().filter(|address| address.kind == Kind::Forge).map(|address| &address.name);
    let renamed = |name: &AppName| {
        let takes_over =
            |app: &&crate::desired::App| !stored.resources.contains_key(&Address::forge(&app.name));
        desired.apps.values().filter(takes_over).any(|app| app.was.contains(name))
    };
    let wanted = |name: &AppName| {
        desired.apps.contains_key(name) || desired.untouched.contains_key(name) || renamed(name)
    };
    let speaks = |name: &AppName| desired.whole || desired.apps.contains_key(name);
    let leaves =
        |name: &&AppName| if options.destroy { speaks(name) } else { desired.whole && !wanted(name) };
    known.filter(leaves).cloned().collect()
}

/// The teardown of an app.
pub fn teardown(app: &AppName, stored: &Snapshot, facts: &Facts, options: &Options) -> Operation {
    let known = super::Known::of(app, stored);
    let protected = known.forge.as_ref().is_some_and(|forge| forge.protected);
    let elsewhere = elsewhere(facts, app);
    Operation {
        address: Address::forge(app),
        action: Action::Teardown,
        reasons: vec![if options.destroy { Reason::Destroyed } else { Reason::NotInSpec }],
        diff: Vec::new(),
        steps: vec![PlannedStep { step: Step::DeleteDeployment, skip: None }],
        waits: Vec::new(),
        risk: Risk::Destroys,
        blocked: protected.then_some(Blocked::Protected).or(elsewhere),
        before: Before { ..known.before },
        work: Work::Teardown(TeardownWork {
            release: known.deploy.map(|release| release.folder),
            keeps: vec!["its snapshots".into(), "its logs".into()],
            drain: std::time::Duration::from_secs(30),
        }),
    }
}
