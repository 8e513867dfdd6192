//! A plan that starts an app's live release again under its live definition.

use super::{Action, Known, Operation, Plan, PlannedStep, Reason, Risk, Roll, Step, Work};
use crate::address::Address;
use crate::desired::{Front, Rollout};
use crate::plan::{Facts, ForgeWork, forge};
use crate::spec::name::AppName;
use crate::state::Snapshot;

/// The restart of an app; an empty plan where nothing of it is live.
pub fn plan(app: &AppName, rollout: Rollout, stored: &Snapshot, facts: &Facts) -> Plan {
    let known = Known::of(app, stored);
    let (Some(live), Some(release)) = (known.forge, known.deploy) else { return Plan::default() };
    let Some(definition) = live.definition.clone() else { return Plan::default() };
    let interrupts = definition.port.is_some() && definition.front == Front::Off;
    let operation = Operation {
        address: Address::forge(app),
        action: Action::Update,
        reasons: vec![Reason::Restart],
        diff: Vec::new(),
        steps: vec![PlannedStep { step: Step::CreateDeployment, skip: None }],
        waits: Vec::new(),
        risk: if interrupts { Risk::Interrupts } else { Risk::Safe },
        blocked: forge::elsewhere(facts, app),
        before: known.before,
        work: Work::Forge(ForgeWork {
            renamed_from: None,
            protected: live.protected,
            live: Some(live),
            roll: Some(Roll { release, definition, rollout }),
        }),
    };
    Plan { operations: vec![operation], ..Plan::default() }
}
