//! The lease on a store: who holds it, and what proves it.

use std::fmt;
use std::time::Duration;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

/// How long a lease lasts unless it is renewed.
pub const TTL: Duration = Duration::from_secs(60);
/// How often a holder renews it.
pub const HEARTBEAT: Duration = Duration::from_secs(20);

/// A process, told apart from every other there was: on this machine, since this boot.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ProcessIdentity {
    pub machine_id: String,
    pub boot_id: String,
    /// The inode of the process's pid namespace.
    pub pid_namespace: String,
    pub pid: u32,
    /// Clock ticks from boot to the process's start (`/proc/<pid>/stat`, field 22).
    pub start_time: u64,
}

impl ProcessIdentity {
    /// Whether the two processes can see each other's pid: same machine, boot and namespace.
    pub fn shares_host(&self, other: &ProcessIdentity) -> bool {
        self.machine_id == other.machine_id
            && self.boot_id == other.boot_id
            && self.pid_namespace == other.pid_namespace
    }
}

/// Who asks for a lease, and why.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Holder {
    /// The run that asks; also the id of its `norn_runs` row.
    pub run: String,
    /// `user@host`.
    pub who: String,
    pub process: ProcessIdentity,
    /// The page of the CI job, where there is one.
    pub job_url: Option<String>,
    /// Such as `norn apply`.
    pub reason: String,
}

/// A lease that was taken. Its token grows with every taking, so a late writer is told apart.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Lease {
    pub token: u64,
    pub run: String,
}

/// The lease row of a store.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Held {
    pub holder: Holder,
    pub token: u64,
    pub acquired_at: Timestamp,
    pub expires_at: Timestamp,
}

impl fmt::Display for Held {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{} (pid {}, {}, since {}",
            self.holder.who, self.holder.process.pid, self.holder.reason, self.acquired_at
        )?;
        if let Some(url) = &self.holder.job_url {
            write!(f, ", {url}")?;
        }
        f.write_str(")")
    }
}
