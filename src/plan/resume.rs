//! Going on with a saved plan: what of it is done, what is still to do, what moved meanwhile.
//!
//! An app's records may stand as planned, or as the plan's own runs and their recovery left them.
//! Elsewhere: what those runs did (`state`), refusing or walking the rest (`cli`, `apply`).

use std::collections::{BTreeMap, HashMap};

use super::known::Known;
use super::{Blocked, DeployWork, ForgeWork, Operation, Plan, Risk, Running, Skip, Work};
use crate::address::{Address, Kind};
use crate::desired::Definition;
use crate::spec::name::AppName;
use crate::state::format::DeployV1;
use crate::state::{Applied, Digests, Snapshot};

/// The outcome of an operation that came to its end.
const DONE: &str = "done";

/// The fingerprints of what definitions do not hold, by app.
pub type Fingerprints = BTreeMap<AppName, BTreeMap<String, String>>;

/// A saved plan as far as it is done.
#[derive(Debug, Clone, PartialEq)]
pub struct Resumed {
    /// What is still to do; an operation that is left is as planned, or only writes down what a
    /// dead run brought about.
    pub rest: Plan,
    /// What this plan did already, untouched since.
    pub done: Vec<Address>,
}

/// A record that is neither as planned nor as the plan's own runs left it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Moved {
    pub address: Address,
    /// Whether there should be a record.
    pub expected: bool,
    pub now: Now,
}

/// What is there instead.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Now {
    Nothing,
    /// A definition, or a mark on it.
    Definition,
    Release {
        tag: String,
    },
}

/// What the plan is resumed from, as it stands under the lock.
pub struct At<'a> {
    pub stored: &'a Snapshot,
    /// What the plan's runs did, in the order in which it ended.
    pub applied: &'a [Applied],
    /// Those that the plan was made with.
    pub values: &'a Fingerprints,
    pub running: &'a BTreeMap<AppName, Running>,
}

/// Goes on with a plan.
///
/// # Errors
/// Every record that moved, by address.
pub fn resume(plan: &Plan, at: &At<'_>) -> Result<Resumed, Vec<Moved>> {
    let mut rest = Vec::new();
    let mut done = Vec::new();
    let mut moved = BTreeMap::new();
    let renames = renames(plan);
    let mut ended: HashMap<&AppName, Vec<&Applied>> = HashMap::new();
    for applied in at.applied.iter().filter(|applied| !applied.outcome.is_empty()) {
        ended.entry(&applied.address.name).or_default().push(applied);
    }
    for operation in &plan.operations {
        let app = &operation.address.name;
        let former = renames.get(app).filter(|_| !at.stored.resources.contains_key(&Address::forge(app)));
        let name = former.copied().unwrap_or(app);
        let known = Known::of(name, at.stored);
        let own = ended.get(app).map_or(&[][..], Vec::as_slice);
        let last = own.iter().rposition(|applied| applied.address == operation.address);
        let stands = |from: usize| own[from..].iter().any(|applied| applied.after == known.before);
        let ended_well = last.filter(|last| own[*last].outcome == DONE);
        if ended_well.is_some_and(stands) {
            done.push(operation.address.clone());
        // What was undone since it was done was not approved to be done twice.
        } else if ended_well.is_none() && (known.before == operation.before || stands(0)) {
            rest.push(at.rest_of(operation, name, &known, former.is_none()));
        } else {
            let expected = own.last().map_or(&operation.before, |applied| &applied.after);
            for change in differing(name, expected, &known) {
                moved.insert(change.address.clone(), change);
            }
        }
    }
    if moved.is_empty() {
        Ok(Resumed { rest: Plan { operations: rest, ..plan.clone() }, done })
    } else {
        Err(moved.into_values().collect())
    }
}

/// The former names of the apps that the plan renames.
fn renames(plan: &Plan) -> BTreeMap<&AppName, &AppName> {
    let pairs = plan.operations.iter().filter_map(|operation| match &operation.work {
        Work::Forge(work) => Some((&operation.address.name, work.renamed_from.as_ref()?)),
        Work::Deploy(_) | Work::Teardown(_) => None,
    });
    pairs.collect()
}

/// The records of an app that are not as expected.
fn differing(app: &AppName, expected: &Digests, known: &Known) -> Vec<Moved> {
    let forge = (Kind::Forge, &expected.forge, &known.before.forge, Now::Definition);
    let tag = known.deploy.as_ref().map(|release| release.tag.clone()).unwrap_or_default();
    let deploy = (Kind::Deploy, &expected.deploy, &known.before.deploy, Now::Release { tag });
    let all = [forge, deploy].into_iter().filter(|(_, expected, now, _)| expected != now);
    all.map(|(kind, expected, now, there)| Moved {
        address: Address { kind, name: app.clone() },
        expected: expected.is_some(),
        now: if now.is_some() { there } else { Now::Nothing },
    })
    .collect()
}

impl At<'_> {
    /// An operation that is to be done, less what a dead run of the plan did of it.
    fn rest_of(&self, operation: &Operation, name: &AppName, known: &Known, renamed: bool) -> Operation {
        let mut rest = operation.clone();
        let as_planned = known.before == operation.before;
        let live = |definition: &Definition, protected: bool| {
            let values = self.values.get(&operation.address.name).cloned().unwrap_or_default();
            known.forge.as_ref().is_some_and(|live| {
                live.definition.as_ref() == Some(definition)
                    && (&live.values, live.protected) == (&values, protected)
            })
        };
        match &mut rest.work {
            Work::Forge(work) => {
                let ForgeWork { renamed_from, runtime: _, protected, route: _, live: stored, roll } =
                    &mut **work;
                if renamed {
                    *renamed_from = None;
                }
                stored.clone_from(&known.forge);
                let rolled = |roll: &super::Roll| {
                    !as_planned
                        && known.deploy.as_ref() == Some(&roll.release)
                        && live(&roll.definition, *protected)
                };
                if roll.take_if(|roll| rolled(roll)).is_some() {
                    rest.risk = Risk::Safe;
                    let done = rest.steps.iter_mut().filter(|planned| !planned.step.is_of_route());
                    done.for_each(|planned| planned.skip = Some(Skip::NothingChanges));
                }
            }
            Work::Deploy(work) => {
                let serves = known.deploy.as_ref().filter(|release| {
                    known.before.deploy != operation.before.deploy
                        && is_of(release, work)
                        && live(&work.definition, work.protected)
                });
                if let (None, Some(release)) = (&work.record_only, serves) {
                    work.record_only = Some(release.clone());
                    rest.risk = Risk::Safe;
                    rest.steps.iter_mut().for_each(|step| step.skip = Some(Skip::Serves));
                }
            }
            Work::Teardown(_) => {}
        }
        let here = match &rest.work {
            // What is only remembered can be written down anywhere.
            Work::Forge(work) => work.roll.is_some(),
            Work::Deploy(_) | Work::Teardown(_) => true,
        };
        if let (true, Some(Running::Elsewhere { host })) = (here, self.running.get(name)) {
            rest.blocked = Some(Blocked::ElsewhereRunning { host: host.clone() });
        }
        rest
    }
}

/// Whether a release is the one that a deploy makes.
fn is_of(release: &DeployV1, work: &DeployWork) -> bool {
    release.tag == work.tag
        && release.commit == work.commit
        && release.source == work.source
        && release.build == work.build
}
