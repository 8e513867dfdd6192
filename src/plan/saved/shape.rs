//! A plan in its stored format. Changing a working type never breaks a file that was written.
//!
//! What is a plain word or a part of a stored record is kept as it is.

use std::collections::{BTreeMap, BTreeSet};

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::address::Address;
use crate::desired::{Build, Definition, Rollout, Route, Runtime, Source, Why};
use crate::plan::{
    Action, Back, Blocked, DeployWork, Drift, FieldDiff, ForgeWork, Former, Operation, Plan, PlannedStep,
    Reason, Risk, Roll, TeardownWork, Wait, Work,
};
use crate::spec::name::AppName;
use crate::state::Digests;
use crate::state::format::{DeployV1, ForgeV1, RemoteEngine};

/// A plan as it is stored.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct PlanV1 {
    /// In an order in which they can be done.
    pub operations: Vec<OperationV1>,
    pub drift: Vec<Drift>,
    /// Apps that stay as they are, and why.
    pub untouched: BTreeMap<AppName, Why>,
    /// What would change and is not selected.
    pub left_out: BTreeSet<Address>,
    /// Under `--offline`: apps whose commit is taken to be where the state saw it last.
    pub last_seen: Vec<AppName>,
    /// Apps whose wanted release was live until the user went back from it, and its tag.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub held: BTreeMap<AppName, String>,
    pub unchanged: Vec<AppName>,
}

/// One change of one resource.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct OperationV1 {
    pub address: Address,
    pub action: Action,
    pub reasons: Vec<Reason>,
    pub diff: Vec<FieldDiff>,
    pub steps: Vec<PlannedStep>,
    pub waits: Vec<Wait>,
    pub risk: Risk,
    pub blocked: Option<Blocked>,
    /// SHA-256 of the app's records as the plan found them: what apply compares with.
    pub before: Digests,
    pub work: WorkV1,
}

/// What apply does.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub enum WorkV1 {
    Forge(Box<ForgeWorkV1>),
    Deploy(Box<DeployWorkV1>),
    Teardown(TeardownWorkV1),
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct ForgeWorkV1 {
    pub renamed_from: Option<AppName>,
    #[serde(default, skip_serializing_if = "Runtime::is_process")]
    pub runtime: Runtime,
    pub protected: bool,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub route: Option<Route>,
    pub live: Option<ForgeV1>,
    pub roll: Option<RollV1>,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct RollV1 {
    pub release: DeployV1,
    pub definition: Definition,
    pub rollout: Rollout,
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub restart: bool,
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub adopt: bool,
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub force: bool,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct DeployWorkV1 {
    pub source: Source,
    pub commit: String,
    pub tag: String,
    pub build: Build,
    pub migrate: Option<String>,
    pub snapshot: Option<String>,
    pub definition: Definition,
    pub rollout: Rollout,
    pub protected: bool,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub route: Option<Route>,
    pub record_only: Option<DeployV1>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub back: Option<Back>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub former: Option<Former>,
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub adopt: bool,
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub force: bool,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct TeardownWorkV1 {
    pub release: Option<String>,
    #[serde(default, skip_serializing_if = "Runtime::is_process")]
    pub runtime: Runtime,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub namespace: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub engine: Option<RemoteEngine>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub spares: Vec<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub route: Option<Box<Route>>,
    pub keeps: Vec<String>,
}

impl PlanV1 {
    /// The stored format of a plan.
    pub fn of(plan: &Plan) -> Self {
        let Plan { operations, drift, untouched, left_out, last_seen, held, unchanged } = plan.clone();
        let operations = operations.into_iter().map(OperationV1::from).collect();
        Self { operations, drift, untouched, left_out, last_seen, held, unchanged }
    }

    /// The plan that is stored.
    pub fn plan(&self) -> Plan {
        let Self { operations, drift, untouched, left_out, last_seen, held, unchanged } = self.clone();
        let operations = operations.into_iter().map(Operation::from).collect();
        Plan { operations, drift, untouched, left_out, last_seen, held, unchanged }
    }
}

/// Both ways between a stored type and the working one of the same fields.
macro_rules! same_fields {
    ($stored:ident, $working:ident { $($field:ident),* }) => {
        impl From<$working> for $stored {
            fn from(value: $working) -> Self {
                let $working { $($field),* } = value;
                Self { $($field),* }
            }
        }

        impl From<$stored> for $working {
            fn from(value: $stored) -> Self {
                let $stored { $($field),* } = value;
                Self { $($field),* }
            }
        }
    };
}

same_fields! { RollV1, Roll { release, definition, rollout, restart, adopt, force } }
same_fields! { DeployWorkV1, DeployWork {
    source, commit, tag, build, migrate, snapshot, definition, rollout, protected, route,
    record_only, back, former, adopt, force
} }
same_fields! { TeardownWorkV1, TeardownWork { release, runtime, namespace, engine, spares, route, keeps } }

impl From<Operation> for OperationV1 {
    fn from(operation: Operation) -> Self {
        let Operation { address, action, reasons, diff, steps, waits, risk, blocked, before, work } =
            operation;
        let work = match work {
            Work::Forge(work) => {
                let ForgeWork { renamed_from, runtime, protected, route, live, roll } = *work;
                let roll = roll.map(RollV1::from);
                WorkV1::Forge(Box::new(ForgeWorkV1 { renamed_from, runtime, protected, route, live, roll }))
            }
            Work::Deploy(work) => WorkV1::Deploy(Box::new((*work).into())),
            Work::Teardown(work) => WorkV1::Teardown(work.into()),
        };
        Self { address, action, reasons, diff, steps, waits, risk, blocked, before, work }
    }
}

impl From<OperationV1> for Operation {
    fn from(operation: OperationV1) -> Self {
        let OperationV1 { address, action, reasons, diff, steps, waits, risk, blocked, before, work } =
            operation;
        let work = match work {
            WorkV1::Forge(work) => {
                let ForgeWorkV1 { renamed_from, runtime, protected, route, live, roll } = *work;
                let roll = roll.map(Roll::from);
                Work::Forge(Box::new(ForgeWork { renamed_from, runtime, protected, route, live, roll }))
            }
            WorkV1::Deploy(work) => Work::Deploy(Box::new((*work).into())),
            WorkV1::Teardown(work) => Work::Teardown(work.into()),
        };
        Self { address, action, reasons, diff, steps, waits, risk, blocked, before, work }
    }
}
