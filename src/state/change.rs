//! The writes there are. A step is one write of a few changes; all of them cost O(1).

use serde_json::Value;

use crate::address::Address;
use crate::spec::name::AppName;

use super::record::{ArtifactKind, DeploymentStatus, ForgeStatus, Record, StepLog};

/// The outcome of what a dead run left unfinished.
pub const DEAD: &str = "dead";

/// One change of a store. Every time in a row (`started_at`, `finished_at`, ...) is set by the
/// store from the database's clock.
///
/// A change of a row that is not there, or that has ended where it must not have, is an error,
/// and so is a new row whose id is taken: nothing of the write is made then.
#[derive(Debug, Clone, PartialEq)]
pub enum Change {
    /// Inserts a `norn_runs` row from the lease's holder; `command` is what the user typed.
    RunStarted {
        command: String,
    },
    /// Ends the lease's own run. Its operations must have ended before.
    RunEnded {
        outcome: String,
    },
    /// Ends the run of a dead process, with its unfinished operations and steps, all with outcome
    /// [`DEAD`]; an operation keeps the digests of its app's records, as where it ends by itself.
    /// What has ended stays as it is, so burying twice does nothing.
    RunBuried {
        run: String,
    },

    /// A new operation of the lease's own run, which must have started.
    OperationStarted {
        id: String,
        address: Address,
        action: String,
        intent: Value,
        /// The id of the saved plan that it is of.
        plan: Option<String>,
    },
    /// Ends an operation, and keeps with it the digests of its app's records as they stand then:
    /// what it makes of them comes before.
    OperationEnded {
        id: String,
        outcome: String,
    },

    /// The intent of a step, durable before the world changes.
    StepStarted {
        id: String,
        operation: String,
        step: String,
        key: String,
        detail: Value,
    },
    /// Adds what became known while the step runs, such as its child's identity: see [`add_detail`].
    StepDetail {
        id: String,
        detail: Value,
    },
    StepEnded {
        id: String,
        outcome: String,
    },

    /// Makes `record` what is known of the address.
    RecordPut {
        address: Address,
        record: Record,
    },
    /// Nothing is known of the address any more; it is no error if nothing was.
    RecordRemoved {
        address: Address,
    },

    /// Keeps what a deploy made; what is kept under that name already stays as it is.
    ArtifactKept {
        id: String,
        app: AppName,
        kind: ArtifactKind,
        name: String,
        body: Value,
    },
    /// Nothing of that kind is kept of the app any more; it is no error if nothing was.
    ArtifactsForgotten {
        app: AppName,
        kind: ArtifactKind,
    },

    /// A new `deployments` row in status `queued`.
    DeploymentQueued {
        id: String,
        app: AppName,
        commit_sha: String,
        image_tag: String,
    },
    /// Sets the status and the error of a row. A settled status also sets `finished_at`, unless it
    /// is set: a row that becomes `rolled_back` keeps the time when its deploy completed.
    DeploymentStatus {
        id: String,
        status: DeploymentStatus,
        error: String,
    },
    /// Appends to the row's step logs.
    DeploymentStep {
        id: String,
        log: StepLog,
    },

    /// Sets the app's `forge_states` row, clearing its step logs, error and `finished_at`;
    /// `started_at` is now. `resources` is left alone.
    ForgeStarted {
        app: AppName,
        status: ForgeStatus,
    },
    /// Appends a step log, or replaces the last one if it is of the same step.
    ForgeStep {
        app: AppName,
        log: StepLog,
    },
    /// Sets the end status, with `finished_at` now. `resources` is left alone when absent.
    ForgeEnded {
        app: AppName,
        status: ForgeStatus,
        error: String,
        resources: Option<Value>,
    },
    /// Renames every row of an app: records, artifacts, deployments, forge, health, cron and function rows.
    /// The journal keeps the old name: it says what was done then. Of all changes this alone
    /// costs what the app has. An error if `to` is known already; what is left of the forge of an app
    /// that is gone gives way.
    AppRenamed {
        from: AppName,
        to: AppName,
    },
}

/// What a step's detail becomes when `more` is known: its keys are added to the object, replacing
/// those of the same name. Where one of the two is no object, `more` takes the place.
pub fn add_detail(known: Value, more: &Value) -> Value {
    match (known, more) {
        (Value::Object(mut known), Value::Object(more)) => {
            known.extend(more.clone());
            Value::Object(known)
        }
        (_, more) => more.clone(),
    }
}
