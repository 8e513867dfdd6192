//! A plan that starts an app's live release again under its live definition.

use std::collections::BTreeMap;

use super::{
    Action, Blocked, Facts, ForgeWork, Interruption, Known, Operation, Plan, Reason, Risk, Roll, Running,
    Work, forge, on_kubernetes,
};
use crate::address::Address;
use crate::desired::{Definition, Desired, EnvValue, Front, Rollout};
use crate::secret::Secret;
use crate::spec::name::AppName;
use crate::state::Snapshot;
use crate::state::format::ForgeV1;

/// The restart of an app; an empty plan where nothing of it is live.
pub fn plan(app: &AppName, rollout: Rollout, desired: &Desired, stored: &Snapshot, facts: &Facts) -> Plan {
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
        blocked: blocked(app, &live, desired, facts),
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
pub fn blocked(app: &AppName, live: &ForgeV1, desired: &Desired, facts: &Facts) -> Option<Blocked> {
    let namespace = desired.kubernetes.namespace.as_str();
    if let Some(there) = live.namespace.as_ref().filter(|there| there.name != namespace) {
        return Some(Blocked::Moves { from: on_kubernetes(&there.name), to: on_kubernetes(namespace) });
    }
    if let Some(Running::Elsewhere { host }) = facts.running.get(app) {
        return Some(Blocked::ElsewhereRunning { host: host.clone() });
    }
    let names = missing(live.definition.as_ref()?, desired.values.of(app));
    (!names.is_empty()).then_some(Blocked::ValuesMissing { names })
}

/// The values that a live definition needs and that are not at hand: those of an app that the spec leaves
/// alone or has no more, and of a secret that the spec has dropped since.
fn missing(live: &Definition, values: Option<&BTreeMap<String, Secret>>) -> Vec<String> {
    let referred = live.env.iter().filter(|(_, value)| matches!(value, EnvValue::Reference(_)));
    let needed = referred.map(|(name, _)| name).chain(&live.secrets);
    needed.filter(|name| values.is_none_or(|values| !values.contains_key(*name))).cloned().collect()
}
