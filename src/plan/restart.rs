//! A plan that starts an app's live release again under its live definition.

use super::{
    Action, Blocked, Facts, ForgeWork, Interruption, Known, Operation, Plan, Reason, Risk, Roll, Running,
    Work, forge,
};
use crate::address::Address;
use crate::desired::{Front, Rollout};
use crate::spec::name::AppName;
use crate::state::Snapshot;

/// The restart of an app; an empty plan where nothing of it is live.
/// `namespace` is that of the spec.
pub fn plan(app: &AppName, rollout: Rollout, namespace: &str, stored: &Snapshot, facts: &Facts) -> Plan {
    let known = Known::of(app, stored);
    let (Some(live), Some(release)) = (known.forge, known.deploy) else { return Plan::default() };
    let Some(definition) = live.definition.clone() else { return Plan::default() };
    let claimed = definition.volumes.iter().any(|volume| volume.host_path.is_none());
    let interruption = match definition.runtime.is_kubernetes() {
        true => claimed.then_some(Interruption::OnePodAtATime),
        false => {
            (definition.port.is_some() && definition.front == Front::Off).then_some(Interruption::NoFront)
        }
    };
    let moved = live.namespace.as_ref().filter(|there| there.name != namespace).map(|there| {
        let shown = |name: &str| format!("kubernetes, namespace {name}");
        Blocked::Moves { from: shown(&there.name), to: shown(namespace) }
    });
    let operation = Operation {
        address: Address::forge(app),
        action: Action::Update,
        reasons: vec![Reason::Restart],
        diff: Vec::new(),
        steps: forge::steps(&definition, None),
        waits: Vec::new(),
        risk: interruption.map_or(Risk::Safe, Risk::Interrupts),
        blocked: match facts.running.get(app) {
            _ if moved.is_some() => moved,
            Some(Running::Elsewhere { host }) => Some(Blocked::ElsewhereRunning { host: host.clone() }),
            _ => None,
        },
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
