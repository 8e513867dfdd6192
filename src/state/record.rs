//! The records of a store, as the rest of norn works with them.

use std::collections::BTreeMap;

use jiff::Timestamp;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::lock::{Held, ProcessIdentity};
use crate::address::Address;
use crate::secret::Secret;
use crate::spec::name::AppName;

/// Everything one plan compares with.
#[derive(Debug, Clone, Default)]
pub struct Snapshot {
    /// Whether a store was there at all.
    pub exists: bool,
    /// The store's random key, for HMACs of values that are not kept (64 hex digits).
    pub key: Option<Secret>,
    pub resources: BTreeMap<Address, Record>,
    /// Every deployment without its step logs, oldest first.
    pub deployments: Vec<Deployment>,
    pub forges: BTreeMap<AppName, Forge>,
    /// What deploys made and norn keeps, oldest first.
    pub artifacts: Vec<Artifact>,
    /// Runs that have not ended, oldest first.
    pub runs: Vec<Run>,
    /// Unfinished operations of runs that have not ended, oldest first.
    pub operations: Vec<Journaled>,
    /// Steps whose intent is written and whose outcome is not, oldest first.
    pub pending: Vec<PendingStep>,
    /// Who holds the lock; nobody where the lease ran out.
    pub lock: Option<Held>,
    /// The database's clock when this was read.
    pub now: Timestamp,
}

impl Snapshot {
    /// Notes a release that is kept, if none of its tag is.
    pub fn keep(&mut self, app: &AppName, id: &str, tag: &str, body: &serde_json::Value) {
        if !self.artifacts.iter().any(|kept| kept.app == *app && kept.name == tag) {
            self.artifacts.push(Artifact {
                id: id.to_owned(),
                app: app.clone(),
                kind: ArtifactKind::Release,
                name: tag.to_owned(),
                body: body.clone(),
                created_at: self.now,
            });
        }
    }
}

/// What is known of one resource: the definition or release that was put live last.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Record {
    /// The body in its stored format (`state::format`).
    pub body: serde_json::Value,
    /// SHA-256 of the body's canonical JSON; a plan's precondition.
    pub digest: String,
    /// Whether destroying it is refused.
    pub protected: bool,
}

impl Record {
    /// The body in a stored format; `None` where it is not of that format.
    pub fn read<'a, T: Deserialize<'a>>(&'a self) -> Option<T> {
        T::deserialize(&self.body).ok()
    }
}

/// The published words for a deployment that a dead norn left.
pub const DEPLOYMENT_INTERRUPTED: &str = "norn restarted during deployment";
/// The error of what a user stopped between two steps.
pub const CANCELLED: &str = "cancelled";
/// The published words for a forge that a dead norn left.
pub const FORGE_INTERRUPTED: &str = "norn restarted during operation";

macro_rules! statuses {
    ($(#[$doc:meta])* $name:ident { $($variant:ident = $text:literal,)* }) => {
        $(#[$doc])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
        #[serde(rename_all = "snake_case")]
        pub enum $name {
            $($variant,)*
        }

        impl $name {
            pub fn as_str(self) -> &'static str {
                match self {
                    $($name::$variant => $text,)*
                }
            }

            pub fn parse(text: &str) -> Option<Self> {
                match text {
                    $($text => Some($name::$variant),)*
                    _ => None,
                }
            }
        }
    };
}

statuses! {
    /// The seed's statuses of a `deployments` row.
    DeploymentStatus {
        Queued = "queued",
        Building = "building",
        Testing = "testing",
        Snapshotting = "snapshotting",
        Migrating = "migrating",
        Deploying = "deploying",
        Deployed = "deployed",
        Failed = "failed",
        RolledBack = "rolled_back",
    }
}

impl DeploymentStatus {
    /// Whether the attempt has ended.
    pub fn settled(self) -> bool {
        matches!(self, Self::Deployed | Self::Failed | Self::RolledBack)
    }
}

statuses! {
    /// The seed's statuses of a `forge_states` row.
    ForgeStatus {
        Unforged = "unforged",
        Forging = "forging",
        Forged = "forged",
        ForgeFailed = "forge_failed",
        TearingDown = "tearing_down",
    }
}

statuses! {
    /// What an artifact is.
    ArtifactKind {
        Release = "release",
    }
}

/// One `norn_artifacts` row: what a deploy made and norn keeps.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Artifact {
    /// Of a release the deployment that made it.
    pub id: String,
    pub app: AppName,
    pub kind: ArtifactKind,
    /// Of a release its tag.
    pub name: String,
    /// What is known of it, in its stored format (`state::format`).
    pub body: serde_json::Value,
    pub created_at: Timestamp,
}

impl Artifact {
    /// The body in a stored format; `None` where it is not of that format.
    pub fn read<'a, T: Deserialize<'a>>(&'a self) -> Option<T> {
        T::deserialize(&self.body).ok()
    }
}

/// One `deployments` row.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Deployment {
    pub id: String,
    pub app: AppName,
    pub commit_sha: String,
    pub image_tag: String,
    pub status: DeploymentStatus,
    /// Empty where the caller did not ask for logs.
    pub steps: Vec<StepLog>,
    /// Empty where there is none, as in v1.
    pub error: String,
    pub started_at: Timestamp,
    pub finished_at: Option<Timestamp>,
}

/// One `forge_states` row.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Forge {
    pub status: ForgeStatus,
    pub resources: serde_json::Value,
    pub error: String,
    pub started_at: Option<Timestamp>,
    pub finished_at: Option<Timestamp>,
}

/// One entry of a `steps` column, in the seed's format. An entry that v1 wrote may lack the last
/// two where they are zero and empty.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct StepLog {
    pub step: String,
    /// Deploys: `deployed`, `failed`, `skipped`. Forges: `running`, `completed`, `skipped`, `failed`.
    pub status: String,
    #[serde(default)]
    pub duration_ms: u64,
    #[serde(default)]
    pub output: String,
}

/// One `norn_runs` row: a process that changes, or changed, this store.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Run {
    pub id: String,
    pub who: String,
    pub process: ProcessIdentity,
    pub reason: String,
    pub token: u64,
    pub started_at: Timestamp,
    pub heartbeat_at: Timestamp,
}

/// One `norn_operations` row.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Journaled {
    pub id: String,
    pub run: String,
    pub address: Address,
    /// What was being done, such as `deploy`.
    pub action: String,
    /// What the operation would make current, in the stored format; recovery records it where
    /// the world shows that it came to pass.
    pub intent: serde_json::Value,
}

/// Digests of an app's two records; none where there is no record.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Digests {
    pub forge: Option<String>,
    pub deploy: Option<String>,
}

/// What became of an operation of a saved plan.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Applied {
    pub address: Address,
    pub action: String,
    /// Such as `done`; empty while it is unfinished.
    pub outcome: String,
    /// The app's records when it ended.
    pub after: Digests,
}

/// A `norn_operations` row and whose it was.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Operated {
    pub action: String,
    /// `user@host` of the run.
    pub who: String,
    /// What the run's user typed.
    pub command: String,
    pub started_at: Timestamp,
    /// `None` while it is unfinished.
    pub ended_at: Option<Timestamp>,
    /// Empty while it is unfinished; `dead` where its run died.
    pub outcome: String,
}

/// A `norn_steps` row that has no outcome yet.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PendingStep {
    pub id: String,
    pub operation: String,
    pub step: String,
    /// The idempotency key that the call carries.
    pub key: String,
    /// What recovery must look for, such as a child's process group.
    pub detail: serde_json::Value,
}
