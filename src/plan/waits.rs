//! What waits for what, and an order in which everything can be done.

use std::collections::{BTreeMap, BTreeSet};

use super::{Action, Operation, Step, Wait};
use crate::address::{Address, Kind};
use crate::desired::Desired;
use crate::spec::name::AppName;

/// Joins the operations by waits, and sorts them: what is created first, by app, then removals.
pub fn order(operations: &mut Vec<Operation>, desired: &Desired) {
    let live: BTreeMap<AppName, (Address, Step)> = operations
        .iter()
        .filter_map(|operation| Some((operation.address.name.clone(), live_step(operation)?)))
        .collect();
    let forged: BTreeSet<AppName> = operations
        .iter()
        .filter(|operation| operation.address.kind == Kind::Forge && operation.action != Action::Teardown)
        .map(|operation| operation.address.name.clone())
        .collect();
    for operation in operations.iter_mut() {
        let name = operation.address.name.clone();
        if operation.address.kind == Kind::Deploy && forged.contains(&name) {
            operation.waits.push(Wait { step: Step::Clone, of: Address::forge(&name), until: None });
        }
        let Some(app) = desired.apps.get(&name).filter(|_| operation.action != Action::Teardown) else {
            continue;
        };
        let own = live.get(&name).filter(|(address, _)| *address == operation.address);
        let Some((_, step)) = own else { continue };
        for other in &app.depends_on {
            if let Some((of, until)) = live.get(other) {
                operation.waits.push(Wait { step: *step, of: of.clone(), until: Some(*until) });
            }
        }
    }
    let depth = depths(operations);
    operations.sort_by_cached_key(|operation| {
        let removal = operation.action == Action::Teardown;
        let depth = depth.get(&operation.address.name).copied().unwrap_or(0);
        (removal, depth, operation.address.name.clone(), operation.address.kind)
    });
}

/// The step that puts an app live in this plan.
fn live_step(operation: &Operation) -> Option<(Address, Step)> {
    let step = operation.steps.iter().find(|planned| {
        planned.skip.is_none() && matches!(planned.step, Step::Deploy | Step::CreateDeployment)
    })?;
    Some((operation.address.clone(), step.step))
}

/// How many apps stand one behind the other before each. The spec has no loops.
fn depths(operations: &[Operation]) -> BTreeMap<AppName, usize> {
    let mut before: BTreeMap<&AppName, BTreeSet<&AppName>> = BTreeMap::new();
    for operation in operations {
        let own = &operation.address.name;
        let others = operation.waits.iter().map(|wait| &wait.of.name).filter(|name| *name != own);
        before.entry(own).or_default().extend(others);
    }
    let mut depth: BTreeMap<AppName, usize> = BTreeMap::new();
    let mut left: BTreeSet<&AppName> = before.keys().copied().collect();
    let mut level = 0;
    while !left.is_empty() {
        let ready: Vec<&AppName> = left
            .iter()
            .copied()
            .filter(|name| before[*name].iter().all(|other| !left.contains(other)))
            .collect();
        for name in &ready {
            left.remove(*name);
            depth.insert((*name).clone(), level);
        }
        if ready.is_empty() {
            break;
        }
        level += 1;
    }
    depth
}
