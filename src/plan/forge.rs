//! What an app stands on: creating and updating it, and repairing what stopped.

use std::collections::BTreeMap;

use super::{
    Action, Blocked, Context, FieldDiff, ForgeWork, Found, Interruption, Operation, PlannedStep, Reason,
    Risk, Roll, Skip, Step, Work, diff,
};
use crate::address::Address;
use crate::desired::{Definition, Front, Runtime};
use crate::state::ForgeStatus;
use crate::state::format;

/// The forge or update of an app, if one is due. `deploy` is the app's deploy in the same plan.
pub fn plan(context: &Context<'_>, deploy: Option<&Operation>) -> Option<Operation> {
    let app = context.app;
    let known = context.known.forge.as_ref();
    let mut diff = context.diff();
    // A deploy that only writes down what serves puts nothing live.
    let deploy = deploy.filter(|deploy| deploy.puts_live().is_some());
    let former = known.and_then(|known| known.route.as_ref());
    let route = diff::route(former, app.route.as_ref());
    let mut reasons = Vec::new();
    match known {
        None => reasons.push(Reason::NewInSpec),
        Some(known) => {
            if let Some(old) = context.renamed_from {
                reasons.push(Reason::RenamedFrom(old.clone()));
            }
            // What was never live is put live by its first deploy: there is nothing to update.
            if !diff.is_empty() && known.definition.is_some() {
                reasons.push(Reason::DefinitionChanged);
            }
            if route.is_some() {
                reasons.push(Reason::RouteChanged);
            }
            if known.protected != app.protected {
                reasons.push(Reason::ProtectionChanged { now: app.protected });
            }
            // Before anything of it is there: what a dead run made is never lost from sight.
            let unseen = app.definition.runtime.is_kubernetes() && known.namespace.is_none();
            let unseen = unseen || app.definition.engine.is_some() && known.engine.is_none();
            if unseen && context.moves().is_none() {
                let to = match app.definition.runtime {
                    Runtime::Kubernetes => Runtime::Kubernetes.as_str().to_owned(),
                    Runtime::Process | Runtime::Docker => context.wanted_place(),
                };
                reasons.push(Reason::Moved { from: Runtime::Process.as_str().to_owned(), to });
            }
            if let (Some(Blocked::Moves { from, to }), true) = (context.moves(), reasons.is_empty()) {
                reasons.push(Reason::Moved { from, to });
            }
            if context.adopts() && deploy.is_none() {
                reasons.push(Reason::Adopted);
            }
            let drift = context.found.as_ref().filter(|found| found.mended_by_a_roll() && deploy.is_none());
            reasons.extend(drift.map(|found| Reason::NotRunning { found: found.clone() }));
            let forge = context.base.stored.forges.get(context.stored_name());
            if let Some(forge) = forge.filter(|forge| forge.status == ForgeStatus::ForgeFailed) {
                reasons.push(Reason::LastFailed { error: forge.error.clone() });
            }
        }
    }
    if reasons.is_empty() {
        return None;
    }
    // The rest is only remembered.
    let rolls = |reason: &Reason| {
        let remembered = matches!(reason, Reason::ProtectionChanged { .. } | Reason::LastFailed { .. });
        !remembered && *reason != Reason::RouteChanged
    };
    let roll = match (&context.known.deploy, deploy) {
        (Some(release), None) if reasons.iter().any(rolls) => {
            let (release, definition) = (release.clone(), app.definition.clone());
            Some(Roll {
                release,
                definition,
                rollout: app.rollout,
                restart: false,
                adopt: context.adopts(),
                force: context.forces(),
            })
        }
        _ => None,
    };
    let skip = match (&roll, deploy, &context.known.deploy) {
        (Some(_), _, _) => None,
        (None, Some(_), _) => Some(Skip::DeployPutsLive),
        (None, None, None) => Some(Skip::NothingLive),
        (None, None, Some(_)) => Some(Skip::NothingChanges),
    };
    let failed = reasons.iter().any(|reason| matches!(reason, Reason::LastFailed { .. }));
    let mut steps = steps(&app.definition, skip);
    // What an attempt that failed made is found by its marks.
    steps.extend(route_steps(app.route.is_some(), former.is_some() && (route.is_some() || failed)));
    diff.extend(route);
    let interrupts = roll.as_ref().and_then(|_| interruption(context));
    Some(Operation {
        address: Address::forge(&app.name),
        action: if known.is_some() { Action::Update } else { Action::Forge },
        reasons,
        diff,
        steps,
        waits: Vec::new(),
        risk: interrupts.map_or(Risk::Safe, Risk::Interrupts),
        blocked: context.moves().or_else(|| context.volumes_stay()).or_else(|| {
            let missing = || context.missing_release().map(|_| Blocked::ReleaseMissing);
            roll.as_ref().and_then(|_| context.elsewhere().or_else(missing))
        }),
        before: context.known.before.clone(),
        work: Work::Forge(Box::new(ForgeWork {
            renamed_from: context.renamed_from.cloned(),
            runtime: app.definition.runtime,
            protected: app.protected,
            route: app.route.clone(),
            live: context.known.forge.clone(),
            roll,
        })),
    })
}

/// What puts a definition live; `skip` is why another operation does, or none.
pub fn steps(definition: &Definition, skip: Option<Skip>) -> Vec<PlannedStep> {
    let steps: &[Step] = match definition.runtime {
        Runtime::Process | Runtime::Docker => &[Step::CreateDeployment],
        Runtime::Kubernetes => {
            &[Step::CreateSecret, Step::CreateVolumes, Step::CreateService, Step::CreateDeployment]
        }
    };
    let needed = |step: &&Step| match step {
        Step::CreateVolumes => definition.volumes.iter().any(|volume| volume.host_path.is_none()),
        Step::CreateService => definition.port.is_some(),
        _ => true,
    };
    steps.iter().filter(needed).map(|step| PlannedStep { step: *step, skip }).collect()
}

/// What has the world reach an app, `made`, and what takes a former way from it, `removed`. These
/// steps are never skipped: each looks at what is there.
pub fn route_steps(made: bool, removed: bool) -> impl Iterator<Item = PlannedStep> {
    let steps = [
        (Step::PatchCloudflared, made),
        (Step::CreateDnsRoute, made),
        (Step::RemoveDnsRoute, removed),
        (Step::UnpatchCloudflared, removed),
        (Step::RestartCloudflared, made || removed),
    ];
    let steps = steps.into_iter().filter(|(_, needed)| *needed);
    steps.map(|(step, _)| PlannedStep { step, skip: None })
}

/// Why clients notice when the app's definition is put live, if they do. Where nothing serves they
/// have noticed already.
pub fn interruption(context: &Context<'_>) -> Option<Interruption> {
    let live = context.known.live().filter(|live| live.replicas > 0)?;
    context.known.deploy.as_ref()?;
    if let Some(Found::NothingRuns | Found::Rebooted | Found::SupervisorGone { replicas: 0 }) = context.found
    {
        return None;
    }
    let new = &context.app.definition;
    if new.replicas == 0 {
        return Some(Interruption::NoReplicas);
    }
    if new.runtime.is_kubernetes() {
        let claimed = new.volumes.iter().any(|volume| volume.host_path.is_none());
        return claimed.then_some(Interruption::OnePodAtATime);
    }
    new.port?;
    match (new.front, live.front) {
        (Front::Off, _) => Some(Interruption::NoFront),
        (front, old) if front != old && new.port == live.port => Some(Interruption::PortReopened),
        _ => None,
    }
}

impl Context<'_> {
    /// Whether what others made of the app is taken over: the user asked for it.
    pub fn adopts(&self) -> bool {
        self.base.options.adopt.contains(&self.app.name)
    }

    /// Whether what others have set is set again: the plan shows it, and that it repairs it.
    pub fn forces(&self) -> bool {
        let changed = |found: &Found| {
            matches!(found, Found::Fields { .. } | Found::OtherRelease { .. } | Found::OtherDefinition)
        };
        // A supervisor's fields are nobody else's, and what it says changes while it is at work.
        let there = self.app.definition.runtime.is_kubernetes();
        self.adopts() || there && self.found.as_ref().is_some_and(changed)
    }

    /// What differs between the live definition and the wanted one.
    pub fn diff(&self) -> Vec<FieldDiff> {
        let app = self.app;
        let values = self.base.desired.values.of(&app.name);
        let wanted = match &self.base.stored.key {
            Some(key) => format::fingerprints(&app.definition, values, key),
            None => BTreeMap::new(),
        };
        let live =
            self.known.forge.as_ref().and_then(|known| Some((known.definition.as_ref()?, &known.values)));
        // Most apps are as they were: naming every field of theirs would be most of the work.
        if live == Some((&app.definition, &wanted)) {
            return Vec::new();
        }
        diff::definitions(live, (&app.definition, &wanted))
    }
}
