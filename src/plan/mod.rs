//! What would change.
//!
//! Here: the plan and [`plan`], which makes it of what should exist, what is known and what was
//! looked up. Elsewhere: looking up (`cli`, `provider`), making it so (`apply`), words (`render`).
//! Invariants: pure; same input, same plan; a plan holds all that apply needs but the values
//! behind references and secrets, and none of those; time grows with the number of resources.

pub mod diff;
mod drift;
mod facts;
mod forge;
#[cfg(any(test, fuzzing))]
pub mod fuzz;
mod known;
mod operation;
mod release;
mod restart;
pub mod resume;
pub mod rollback;
pub mod saved;
pub mod select;
mod teardown;
mod volumes;
mod waits;

#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet};

pub use diff::{Difference, FieldDiff};
pub use drift::{Drift, FieldDrift, Found};
pub use facts::{Facts, Running, SourceFact};
use known::{History, Known};
pub use operation::{
    Action, Back, Blocked, DeployWork, ForgeWork, Former, Interruption, Operation, PlannedStep, Reason, Risk,
    Roll, Skip, Step, TeardownWork, Wait, Work,
};
pub use rollback::Rollback;
pub use select::Selection;

use crate::address::Address;
use crate::desired::{App, Desired, Runtime, Untouched, Why};
use crate::spec::name::AppName;
use crate::state::Snapshot;

/// Everything that would be done, in an order in which it can be done.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Plan {
    pub operations: Vec<Operation>,
    /// What is not as norn left it, apart from what the spec wants.
    pub drift: Vec<Drift>,
    /// Apps that stay as they are, and why.
    pub untouched: BTreeMap<AppName, Why>,
    /// What would change and is not selected.
    pub left_out: BTreeSet<Address>,
    /// Under `--offline`: apps whose commit is taken to be where the store saw it last.
    pub last_seen: Vec<AppName>,
    /// Apps whose wanted release was live until the user went back from it, and its tag.
    pub held: BTreeMap<AppName, String>,
    /// Apps that are as the spec wants them.
    pub unchanged: Vec<AppName>,
}

/// How the user bends a plan.
#[derive(Debug, Clone, Default)]
pub struct Options {
    pub redeploy: Vec<AppName>,
    /// Apps whose objects are taken over from others.
    pub adopt: Vec<AppName>,
    /// Plan the removal of everything instead.
    pub destroy: bool,
    /// Plan instead that this app's live release is started again.
    pub restart: Option<AppName>,
    /// Plan instead that a release is live again which was before.
    pub rollback: Option<Rollback>,
    pub selection: Selection,
}

/// Makes the plan.
pub fn plan(desired: &Desired, stored: &Snapshot, facts: &Facts, options: &Options) -> Plan {
    if let Some(app) = &options.restart {
        let rollout = desired.apps.get(app).map(|app| app.rollout).unwrap_or_default();
        return restart::plan(app, rollout, desired, stored, facts);
    }
    if let Some(wanted) = &options.rollback {
        let rollout = desired.apps.get(&wanted.app).map(|app| app.rollout).unwrap_or_default();
        return rollback::plan(wanted, rollout, desired, stored, facts);
    }
    let mut plan = Plan::default();
    let renames = known::renames(desired, stored);
    if !options.destroy {
        let history = History::of(stored);
        for app in desired.apps.values() {
            let base = Base { desired, stored, facts, options, history: &history };
            let renamed_from = renames.get(&app.name);
            plan.app(&Context::new(base, app, renamed_from));
        }
    }
    for (name, untouched) in &desired.untouched {
        plan.leave(name, untouched, stored, facts, options);
    }
    for app in teardown::removed(desired, stored, &renames, options) {
        let operation = teardown::plan(&app, stored, facts, options);
        plan.add_selected(operation, &options.selection);
    }
    waits::order(&mut plan.operations, desired, stored, &renames);
    plan
}

impl Plan {
    /// Plans one app.
    ///
    /// A deploy puts the definition live together with the release, so it brings the app's forge
    /// along where that is not targeted, and is left out where it is excluded.
    fn app(&mut self, context: &Context<'_>) {
        let selection = &context.base.options.selection;
        let due = release::plan(context);
        let deploy = due.clone().filter(|deploy| selection.takes(&deploy.address));
        let forge = forge::plan(context, deploy.as_ref());
        let excluded = forge.as_ref().is_some_and(|forge| selection.excludes(&forge.address));
        let taken = match &forge {
            Some(forge) => !excluded && (deploy.is_some() || selection.takes(&forge.address)),
            None => false,
        };
        let mut deploy = deploy.filter(|_| !excluded);
        if let Some(deploy) = deploy.as_mut().filter(|deploy| forge.is_none() && deploy.puts_live().is_some())
        {
            deploy.diff = context.diff();
        }
        let name = &context.app.name;
        if due.is_some() && deploy.is_none() {
            self.left_out.insert(Address::deploy(name));
        }
        if forge.is_some() && !taken {
            self.left_out.insert(Address::forge(name));
        }
        let held = release::held(context)
            .filter(|_| deploy.as_ref().is_none_or(|deploy| deploy.puts_live().is_none()));
        if let Some(tag) = held {
            self.held.insert(name.clone(), tag.to_owned());
        } else if due.is_none() && forge.is_none() {
            self.unchanged.push(name.clone());
        }
        if matches!(context.facts().sources.get(name), Some(SourceFact::LastSeen(_))) {
            self.last_seen.push(name.clone());
        }
        let forge = forge.filter(|_| taken);
        self.note_drift(context, forge.as_ref(), deploy.as_ref());
        self.operations.extend(forge);
        self.operations.extend(deploy);
    }

    fn note_drift(&mut self, context: &Context<'_>, forge: Option<&Operation>, deploy: Option<&Operation>) {
        let goes = |operation: Option<&Operation>| {
            operation.is_some_and(|operation| operation.blocked.is_none() && operation.puts_live().is_some())
        };
        let app = &context.app.name;
        if let Some(tag) = context.missing_release() {
            let found = Found::ReleaseMissing { tag: tag.to_owned() };
            self.drift.push(Drift { app: app.clone(), found, repaired: goes(deploy) });
        }
        if let Some(found) = &context.found {
            let repaired = found.mended_by_a_roll() && (goes(forge) || goes(deploy));
            self.drift.push(Drift { app: app.clone(), found: found.clone(), repaired });
        }
    }

    /// Notes an app that stays as it is, and what is found of it nonetheless.
    fn leave(
        &mut self,
        name: &AppName,
        untouched: &Untouched,
        stored: &Snapshot,
        facts: &Facts,
        options: &Options,
    ) {
        if options.destroy && untouched.why != Why::DeployFalse {
            return;
        }
        self.untouched.insert(name.clone(), untouched.why.clone());
        if let Some(found) = drift::found(&Known::of(name, stored), facts, name) {
            self.drift.push(Drift { app: name.clone(), found, repaired: false });
        }
    }

    fn add_selected(&mut self, operation: Operation, selection: &Selection) {
        if selection.takes(&operation.address) {
            self.operations.push(operation);
        } else {
            self.left_out.insert(operation.address);
        }
    }

    pub fn is_empty(&self) -> bool {
        self.operations.is_empty()
    }

    pub fn destroys(&self) -> impl Iterator<Item = &Operation> {
        self.operations.iter().filter(|operation| operation.risk == Risk::Destroys)
    }

    pub fn blocked(&self) -> impl Iterator<Item = &Operation> {
        self.operations.iter().filter(|operation| operation.blocked.is_some())
    }
}

/// What the rules for all apps look at.
#[derive(Clone, Copy)]
struct Base<'a> {
    desired: &'a Desired,
    stored: &'a Snapshot,
    facts: &'a Facts,
    options: &'a Options,
    history: &'a History<'a>,
}

/// What the rules for one app look at.
struct Context<'a> {
    base: Base<'a>,
    app: &'a App,
    /// The former name under which it is known.
    renamed_from: Option<&'a AppName>,
    known: Known,
    /// How what runs differs from what is recorded.
    found: Option<Found>,
}

impl<'a> Context<'a> {
    fn new(base: Base<'a>, app: &'a App, renamed_from: Option<&'a AppName>) -> Self {
        let known = Known::of(renamed_from.unwrap_or(&app.name), base.stored);
        let found = drift::found(&known, base.facts, renamed_from.unwrap_or(&app.name));
        Self { base, app, renamed_from, known, found }
    }

    fn facts(&self) -> &'a Facts {
        self.base.facts
    }

    /// The name under which the app's rows are.
    fn stored_name(&self) -> &'a AppName {
        self.renamed_from.unwrap_or(&self.app.name)
    }

    /// What keeps the app from being where it is to be: what is elsewhere would stay there. Another engine
    /// is found by a look ([`elsewhere`](Self::elsewhere)): one may have several addresses.
    fn moves(&self) -> Option<Blocked> {
        let forge = self.known.forge.as_ref();
        let namespace = forge.and_then(|forge| forge.namespace.as_ref());
        let engine = forge.and_then(|forge| forge.engine.as_ref());
        let wanted = &self.app.definition;
        let from = match (namespace, engine) {
            (Some(namespace), _) => on_kubernetes(&namespace.name),
            (None, Some(engine)) => on_engine(&engine.address),
            (None, None) => self.known.live()?.runtime.as_str().to_owned(),
        };
        let stays = match engine {
            Some(_) if wanted.engine.is_some() => true,
            // It was lost, and the user said so.
            Some(_) => self.facts().lost.contains(self.stored_name()),
            None => namespace.is_none() && wanted.engine.is_none() && !wanted.runtime.is_kubernetes(),
        };
        let renamed = self.renamed_from.cloned();
        match renamed {
            Some(from) if namespace.is_some() => Some(Blocked::RenamedInCluster { from }),
            Some(from) if engine.is_some() => Some(Blocked::RenamedOnEngine { from }),
            _ if stays => None,
            _ => Some(self.wanted_place()).filter(|to| *to != from).map(|to| Blocked::Moves { from, to }),
        }
    }

    /// Where the app is to be.
    fn wanted_place(&self) -> String {
        let definition = &self.app.definition;
        match (definition.runtime, &definition.engine) {
            (Runtime::Kubernetes, _) => on_kubernetes(&self.base.desired.kubernetes.namespace),
            (Runtime::Docker, Some(address)) => on_engine(address),
            (runtime @ (Runtime::Process | Runtime::Docker), _) => runtime.as_str().to_owned(),
        }
    }

    /// The live release, if its folder is gone and something is to run of it.
    fn missing_release(&self) -> Option<&str> {
        let tag = &self.known.deploy.as_ref()?.tag;
        let gone = !self.facts().releases.contains(tag) && self.app.definition.replicas > 0;
        gone.then_some(tag.as_str())
    }

    /// Why the app cannot be put live from here, or where it is to be.
    fn elsewhere(&self) -> Option<Blocked> {
        if let Some(moves) = self.moves() {
            return Some(moves);
        }
        match self.facts().running.get(self.stored_name()) {
            Some(Running::Elsewhere { host }) => Some(Blocked::ElsewhereRunning { host: host.clone() }),
            _ => None,
        }
    }
}

fn on_kubernetes(namespace: &str) -> String {
    format!("kubernetes, namespace {namespace}")
}

fn on_engine(address: &str) -> String {
    format!("docker at {address}")
}
