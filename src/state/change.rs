//! The writes there are. A step is one write of a few changes; all of them cost O(1).

use crate::address::Address;
use crate::spec::name::AppName;

use super::record::{DeploymentStatus, ForgeStatus, Record, StepLog};

/// One change of a store. Every time in a row (`started_at`, `finished_at`, ...) is set by the
/// store from the database's clock.
#[derive(Debug, Clone, PartialEq)]
pub enum Change {
    /// Inserts a `norn_runs` row from the lease's holder; `command` is what the user typed.
    RunStarted {
        command: String,
    },
    /// Ends the lease's own run.
    RunEnded {
        outcome: String,
    },
    /// Ends the runs of dead processes, with their unfinished operations and steps.
    RunBuried {
        run: String,
    },

    OperationStarted {
        id: String,
        address: Address,
        action: String,
        intent: serde_json::Value,
    },
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
        detail: serde_json::Value,
    },
    /// Adds what became known while the step runs, such as its child's identity.
    StepDetail {
        id: String,
        detail: serde_json::Value,
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
    RecordRemoved {
        address: Address,
    },

    /// A new `deployments` row in status `queued`.
    DeploymentQueued {
        id: String,
        app: AppName,
        commit_sha: String,
        image_tag: String,
    },
    /// Sets the status of a row; a settled status also sets `finished_at`.
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

    /// Sets the app's `forge_states` row, clearing its step logs and error; `started_at` is now.
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
        resources: Option<serde_json::Value>,
    },
    /// Renames every row of an app: records, deployments, forge, health, cron and function rows.
    AppRenamed {
        from: AppName,
        to: AppName,
    },
}
