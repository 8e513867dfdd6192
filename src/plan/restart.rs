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
    let held = !definition.runtime.is_kubernetes() && definition.front == Front::Off;
    let no_front = definition.port.is_some() && held;
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
        risk: if no_front { Risk::Interrupts(Interruption::NoFront) } else { Risk::Safe },
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
