//! What would change.
//!
//! Here: the plan and [`plan`], which makes it of what should exist, what is known and what was
//! looked up. Elsewhere: looking up (`cli`, `provider`), making it so (`apply`).
//! Invariants: pure; same input, same plan; a plan holds all that apply needs but the values
//! behind references and secrets, and none of those.

pub mod diff;
mod facts;
mod forge;
mod release;
mod restart;
pub mod select;
mod waits;

#[cfg(test)]
mod tests;

use std::collections::BTreeMap;

pub use diff::{Difference, FieldDiff};
pub use facts::{Facts, Running, SourceFact};
use serde::{Deserialize, Serialize};

use crate::address::Address;
use crate::desired::{Build, Definition, Desired, Rollout, Source};
use crate::spec::name::AppName;
use crate::state::Snapshot;
use crate::state::format::{DeployV1, ForgeV1};

/// Everything that would be done, in an order in which it can be done.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Plan {
    pub operations: Vec<Operation>,
    /// What is not as norn left it, apart from what the spec wants.
    pub drift: Vec<Drift>,
    /// Apps that stay as they are, and why.
    pub untouched: BTreeMap<AppName, String>,
    /// Apps that are as the spec wants them.
    pub unchanged: Vec<AppName>,
}

/// One change of one resource.
#[derive(Debug, Clone, PartialEq)]
pub struct Operation {
    pub address: Address,
    pub action: Action,
    pub reasons: Vec<Reason>,
    pub diff: Vec<FieldDiff>,
    pub steps: Vec<PlannedStep>,
    pub waits: Vec<Wait>,
    pub risk: Risk,
    /// Why apply refuses it.
    pub blocked: Option<Blocked>,
    /// Digests of the records as the plan found them.
    pub before: Before,
    pub work: Work,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Action {
    Forge,
    Update,
    Teardown,
    Deploy,
}

impl Action {
    pub fn as_str(self) -> &'static str {
        match self {
            Action::Forge => "forge",
            Action::Update => "update",
            Action::Teardown => "teardown",
            Action::Deploy => "deploy",
        }
    }
}

/// Why an operation is planned: for the reader, never for apply.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Reason {
    NewInSpec,
    NotInSpec,
    /// The user asked for it by `norn destroy`.
    Destroyed,
    RenamedFrom(AppName),
    DefinitionChanged,
    ProtectionChanged {
        now: bool,
    },
    /// Nothing was ever put live.
    NoRelease,
    Commit {
        from: String,
        to: String,
    },
    BuildChanged,
    SourceChanged,
    Redeploy,
    Restart,
    /// What is recorded does not run here.
    NotRunning {
        found: String,
    },
    /// The release's folder is gone.
    ReleaseMissing,
    /// A run died after this release went live: it only has to be written down.
    LiveUnrecorded,
    /// The last attempt failed.
    LastFailed {
        error: String,
    },
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Risk {
    Safe,
    /// Clients notice: there is no front that keeps connections.
    Interrupts,
    Destroys,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Blocked {
    /// The app's `protected: true` is remembered.
    Protected,
    /// Under `--offline` no commit is known.
    CommitNotLookedUp,
    /// Another machine runs the app.
    ElsewhereRunning { host: String },
}

/// The steps of all operations, by their names in the step logs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Step {
    CreateDeployment,
    DeleteDeployment,
    Clone,
    Build,
    Test,
    Snapshot,
    Migrate,
    Deploy,
    Cleanup,
}

impl Step {
    pub fn as_str(self) -> &'static str {
        match self {
            Step::CreateDeployment => "create-deployment",
            Step::DeleteDeployment => "delete-deployment",
            Step::Clone => "clone",
            Step::Build => "build",
            Step::Test => "test",
            Step::Snapshot => "snapshot",
            Step::Migrate => "migrate",
            Step::Deploy => "deploy",
            Step::Cleanup => "cleanup",
        }
    }
}

/// A step, or why it is skipped.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PlannedStep {
    pub step: Step,
    pub skip: Option<&'static str>,
}

/// `step` of this operation starts after `of` has done `until`, or after all of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Wait {
    pub step: Step,
    pub of: Address,
    pub until: Option<Step>,
}

/// Digests of an app's records; none where there is no record.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Before {
    pub forge: Option<String>,
    pub deploy: Option<String>,
}

/// What apply does.
#[derive(Debug, Clone, PartialEq)]
pub enum Work {
    Forge(ForgeWork),
    Deploy(Box<DeployWork>),
    Teardown(TeardownWork),
}

#[derive(Debug, Clone, PartialEq)]
pub struct ForgeWork {
    pub renamed_from: Option<AppName>,
    pub protected: bool,
    /// What is live now, which stays where nothing is rolled.
    pub live: Option<ForgeV1>,
    /// The running release and the definition to which it is rolled; absent where a deploy does it.
    pub roll: Option<Roll>,
}

/// A stored release under a new definition.
#[derive(Debug, Clone, PartialEq)]
pub struct Roll {
    pub release: DeployV1,
    pub definition: Definition,
    pub rollout: Rollout,
}

#[derive(Debug, Clone, PartialEq)]
pub struct DeployWork {
    pub source: Source,
    /// 40 hex digits, or `local:` and 64.
    pub commit: String,
    pub tag: String,
    pub build: Build,
    pub migrate: Option<String>,
    /// The database to dump.
    pub snapshot: Option<String>,
    pub definition: Definition,
    pub rollout: Rollout,
    pub protected: bool,
    /// A release that serves already: nothing is built, it is written down.
    pub record_only: Option<DeployV1>,
}

#[derive(Debug, Clone, PartialEq)]
pub struct TeardownWork {
    /// The folder of the live release, relative to the stage's.
    pub release: Option<String>,
    /// What is left, for the reader.
    pub keeps: Vec<String>,
    pub drain: std::time::Duration,
}

/// One thing that is not as norn left it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Drift {
    pub app: AppName,
    pub found: String,
    /// Whether the plan has an operation that mends it.
    pub repaired: bool,
}

/// How the user bends a plan.
#[derive(Debug, Clone, Default)]
pub struct Options {
    pub redeploy: Vec<AppName>,
    /// Plan the removal of everything instead.
    pub destroy: bool,
    /// Plan instead that this app's live release is started again.
    pub restart: Option<AppName>,
}

/// Makes the plan.
pub fn plan(desired: &Desired, stored: &Snapshot, facts: &Facts, options: &Options) -> Plan {
    if let Some(app) = &options.restart {
        let rollout = desired.apps.get(app).map_or(Rollout::default(), |app| app.rollout);
        return restart::plan(app, rollout, stored, facts);
    }
    let mut plan = Plan { untouched: desired.untouched.clone(), ..Plan::default() };
    if !options.destroy {
        for app in desired.apps.values() {
            let renamed_from = renamed_from(app, stored);
            let known = Known::of(renamed_from.as_ref().unwrap_or(&app.name), stored);
            let context = Context { desired, stored, facts, options, app, renamed_from, known };
            let deploy = release::plan(&context, &mut plan.drift);
            let forge = forge::plan(&context, deploy.as_ref(), &mut plan.drift);
            if forge.is_none() && deploy.is_none() {
                plan.unchanged.push(app.name.clone());
            }
            plan.operations.extend(forge);
            plan.operations.extend(deploy);
        }
    }
    let gone = forge::removed(desired, stored, options);
    plan.operations.extend(gone.into_iter().map(|app| forge::teardown(&app, stored, facts, options)));
    waits::order(&mut plan.operations, desired);
    plan
}

/// The former name under which an app is known, where its own is not.
fn renamed_from(app: &crate::desired::App, stored: &Snapshot) -> Option<AppName> {
    let known = |name: &AppName| stored.resources.contains_key(&Address::forge(name));
    if known(&app.name) {
        return None;
    }
    app.was.iter().find(|name| known(name)).cloned()
}

/// What the store knows of one app.
struct Known {
    before: Before,
    forge: Option<ForgeV1>,
    deploy: Option<DeployV1>,
}

impl Known {
    fn of(app: &AppName, stored: &Snapshot) -> Self {
        let forge = stored.resources.get(&Address::forge(app));
        let deploy = stored.resources.get(&Address::deploy(app));
        // A body that this version cannot read is no reason to touch what runs: `state::check`
        // refuses such a store before a plan is made.
        let read = |record: &crate::state::Record| record.body.clone();
        Self {
            before: Before {
                forge: forge.map(|record| record.digest.clone()),
                deploy: deploy.map(|record| record.digest.clone()),
            },
            forge: forge.and_then(|record| serde_json::from_value(read(record)).ok()),
            deploy: deploy.and_then(|record| serde_json::from_value(read(record)).ok()),
        }
    }
}

/// What the rules for one app look at.
struct Context<'a> {
    desired: &'a Desired,
    stored: &'a Snapshot,
    facts: &'a Facts,
    options: &'a Options,
    app: &'a crate::desired::App,
    renamed_from: Option<AppName>,
    known: Known,
}

impl Context<'_> {
    /// Why the newest attempt to deploy the app failed, if it did.
    fn last_failure(&self) -> Option<&str> {
        let newest = self.stored.deployments.iter().rev().find(|row| row.app == self.app.name)?;
        (newest.status == crate::state::DeploymentStatus::Failed).then_some(newest.error.as_str())
    }
}

impl Plan {
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
