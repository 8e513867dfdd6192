//! A plan that starts an app's live release again under its live definition.

use super::{
    Action, Blocked, Facts, ForgeWork, Interruption, Known, Operation, Plan, Reason, Risk, Roll, Running,
    Work, forge,
};
use crate::address::Address;
use crate::desired::{Definition, Front, Rollout};
use crate::spec::name::AppName;
use crate::state::Snapshot;
use crate::state::format::ForgeV1;

/// The restart of an app; an empty plan where nothing of it is live.
/// `namespace` is that of the spec.
pub fn plan(app: &AppName, rollout: Rollout, namespace: &str, stored: &Snapshot, facts: &Facts) -> Plan {
    let known = Known::of(app, stored);
    let (Some(live), Some(release)) = (known.forge, known.deploy) else { return Plan::default() };
    let Some(definition) = live.definition.clone() else { return Plan::default() };
    let operation = Operation {
        address: Address::forge(app),
        action: Action::Update,
        reasons: vec![Reason::Restart],
        diff: Vec::new(),
        steps: forge::steps(&definition, None),
        waits: Vec::new(),
        risk: interruption(&definition).map_or(Risk::Safe, Risk::Interrupts),
        blocked: blocked(app, &live, namespace, facts),
        before: known.before,
        work: Work::Forge(Box::new(ForgeWork {
            renamed_from: None,
            runtime: definition.runtime,
            protected: live.protected,
            route: live.route.clone(),
            live: Some(live),
            roll: Some(Roll { release, definition, rollout, restart: true, adopt: false, force: false }),
        })),
    };
    Plan { operations: vec![operation], ..Plan::default() }
}

/// Why clients notice that what is live is put live again.
pub fn interruption(definition: &Definition) -> Option<Interruption> {
    if definition.runtime.is_kubernetes() {
        let claimed = definition.volumes.iter().any(|volume| volume.host_path.is_none());
        return claimed.then_some(Interruption::OnePodAtATime);
    }
    (definition.port.is_some() && definition.front == Front::Off).then_some(Interruption::NoFront)
}

/// Why what is live cannot be put live again from here.
pub fn blocked(app: &AppName, live: &ForgeV1, namespace: &str, facts: &Facts) -> Option<Blocked> {
    if let Some(there) = live.namespace.as_ref().filter(|there| there.name != namespace) {
        let shown = |name: &str| format!("kubernetes, namespace {name}");
        return Some(Blocked::Moves { from: shown(&there.name), to: shown(namespace) });
    }
    match facts.running.get(app) {
        Some(Running::Elsewhere { host }) => Some(Blocked::ElsewhereRunning { host: host.clone() }),
        _ => None,
    }
}
