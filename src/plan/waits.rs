//! What waits for what, and an order in which everything can be done.

use std::collections::{BTreeMap, BTreeSet};

use super::known::{self, HeldPort};
use super::{Action, Blocked, Operation, Step, Wait};
use crate::address::{Address, Kind};
use crate::desired::Desired;
use crate::spec::name::AppName;
use crate::state::Snapshot;

/// Joins the operations by waits, and sorts them: by app, what is waited for first, removals last.
pub fn order(
    operations: &mut [Operation],
    desired: &Desired,
    stored: &Snapshot,
    renames: &BTreeMap<AppName, AppName>,
) {
    let mut graph = Graph::of(operations, stored, renames);
    for operation in operations.iter_mut() {
        graph.go_live(operation, desired);
    }
    graph.remove(operations, desired);
    graph.pass_ports_on(operations);
    graph.sort(operations);
}

/// What the operations of one app do to others.
struct Node {
    /// The step that puts it live, or takes it away.
    turns: Option<(Address, Step)>,
    removal: bool,
    /// The apps to which its live definition leads.
    refers: BTreeSet<AppName>,
    /// The port it holds now, and the one it wants.
    holds: Option<HeldPort>,
    wants: Option<HeldPort>,
}

struct Graph {
    nodes: BTreeMap<AppName, Node>,
    forged: BTreeSet<AppName>,
    /// The apps that an app waits for. Without loops.
    before: BTreeMap<AppName, BTreeSet<AppName>>,
}

impl Graph {
    fn of(operations: &[Operation], stored: &Snapshot, renames: &BTreeMap<AppName, AppName>) -> Self {
        let mut nodes: BTreeMap<AppName, Node> = BTreeMap::new();
        let mut forged = BTreeSet::new();
        for operation in operations {
            let name = &operation.address.name;
            let removal = operation.action == Action::Teardown;
            if operation.address.kind == Kind::Forge && !removal {
                forged.insert(name.clone());
            }
            let node = nodes.entry(name.clone()).or_insert_with(|| {
                let live = known::live_definition(renames.get(name).unwrap_or(name), stored);
                let refers = live.as_ref().map(|live| live.referred().collect()).unwrap_or_default();
                let holds = live.as_ref().and_then(known::held_port);
                Node { turns: None, removal, refers, holds, wants: holds.filter(|_| !removal) }
            });
            if let Some(step) = turning_step(operation) {
                node.turns = Some((operation.address.clone(), step));
            }
            if let Some(definition) = operation.puts_live() {
                node.wants = known::held_port(definition);
            }
        }
        Self { nodes, forged, before: BTreeMap::new() }
    }

    /// A deploy starts after its app's forge; an app goes live after those it depends on.
    fn go_live(&mut self, operation: &mut Operation, desired: &Desired) {
        let name = operation.address.name.clone();
        if operation.address.kind == Kind::Deploy && self.forged.contains(&name) {
            operation.waits.push(Wait { step: Step::Clone, of: Address::forge(&name), until: None });
        }
        let Some(app) = desired.apps.get(&name).filter(|_| operation.action != Action::Teardown) else {
            return;
        };
        let turns = self.nodes[&name].turns.as_ref();
        let Some((_, step)) = turns.filter(|(address, _)| *address == operation.address).cloned() else {
            return;
        };
        for other in &app.depends_on {
            let live = self.nodes.get(other).filter(|node| !node.removal);
            if let Some((of, until)) = live.and_then(|node| node.turns.clone()) {
                operation.waits.push(Wait { step, of, until: Some(until) });
                self.before.entry(name.clone()).or_default().insert(other.clone());
            }
        }
    }

    /// An app goes away after those that depend on it have, or need it no longer.
    fn remove(&mut self, operations: &mut [Operation], desired: &Desired) {
        let mut dependents: BTreeMap<AppName, BTreeSet<AppName>> = BTreeMap::new();
        for (name, node) in &self.nodes {
            let depends_on = desired.apps.get(name).filter(|_| node.removal).map(|app| &app.depends_on);
            for other in node.refers.iter().chain(depends_on.into_iter().flatten()) {
                dependents.entry(other.clone()).or_default().insert(name.clone());
            }
        }
        for operation in operations.iter_mut().filter(|operation| operation.action == Action::Teardown) {
            let name = operation.address.name.clone();
            for other in dependents.get(&name).into_iter().flatten().filter(|other| **other != name) {
                let Some((of, until)) = self.nodes[other].turns.clone() else { continue };
                if self.join(&name, other) {
                    let step = operation.steps.first().map_or(Step::DeleteDeployment, |planned| planned.step);
                    operation.waits.push(Wait { step, of, until: Some(until) });
                }
            }
        }
    }

    /// A port is opened after the app that holds it has let it go.
    fn pass_ports_on(&mut self, operations: &mut [Operation]) {
        let leaving = self.nodes.iter().filter(|(_, node)| node.turns.is_some() && node.holds != node.wants);
        let leaving: BTreeMap<HeldPort, AppName> =
            leaving.filter_map(|(name, node)| Some((node.holds?, name.clone()))).collect();
        for operation in operations {
            let name = operation.address.name.clone();
            let node = &self.nodes[&name];
            let Some((address, step)) = node.turns.clone() else { continue };
            let wanted = node.wants.filter(|_| node.wants != node.holds && address == operation.address);
            let Some((port, holder)) = wanted.and_then(|port| Some((port, leaving.get(&port)?.clone())))
            else {
                continue;
            };
            let Some((of, until)) = self.nodes[&holder].turns.clone().filter(|_| holder != name) else {
                continue;
            };
            if self.join(&name, &holder) {
                operation.waits.push(Wait { step, of, until: Some(until) });
            } else if operation.blocked.is_none() {
                operation.blocked = Some(Blocked::PortHeld { port: port.1, by: holder });
            }
        }
    }

    /// Lets `name` wait for `other`, unless that waits for `name` already.
    fn join(&mut self, name: &AppName, other: &AppName) -> bool {
        let mut seen = BTreeSet::new();
        let mut left = vec![other];
        while let Some(next) = left.pop() {
            if next == name {
                return false;
            }
            if seen.insert(next) {
                left.extend(self.before.get(next).into_iter().flatten());
            }
        }
        self.before.entry(name.clone()).or_default().insert(other.clone());
        true
    }

    /// By app, the first in the alphabet whose turn it can be, removals as late as they can.
    fn sort(&self, operations: &mut [Operation]) {
        let mut after: BTreeMap<&AppName, Vec<&AppName>> = BTreeMap::new();
        let mut waiting: BTreeMap<&AppName, usize> = BTreeMap::new();
        for (name, others) in &self.before {
            waiting.insert(name, others.len());
            for other in others {
                after.entry(other).or_default().push(name);
            }
        }
        let key = |name: &'_ AppName| (self.nodes[name].removal, name.clone());
        let mut ready: BTreeSet<(bool, AppName)> =
            self.nodes.keys().filter(|name| !waiting.contains_key(name)).map(key).collect();
        let mut place: BTreeMap<AppName, usize> = BTreeMap::new();
        while let Some((_, name)) = ready.pop_first() {
            for next in after.get(&name).into_iter().flatten() {
                let left = waiting.get_mut(next).expect("what comes after something waits");
                *left -= 1;
                if *left == 0 {
                    ready.insert(key(next));
                }
            }
            place.insert(name, place.len());
        }
        operations.sort_by_cached_key(|operation| (place[&operation.address.name], operation.address.kind));
    }
}

/// The step that puts an app live in this plan, or takes it away.
fn turning_step(operation: &Operation) -> Option<Step> {
    let turning = |step| matches!(step, Step::Deploy | Step::CreateDeployment | Step::DeleteDeployment);
    operation.steps.iter().find(|planned| planned.skip.is_none() && turning(planned.step)).map(|p| p.step)
}
