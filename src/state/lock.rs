//! The lease on a store: who holds it, and what proves it.

use std::fmt;
use std::time::Duration;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::StoreError;

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

/// The lease row and the database's clock, read at one moment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LeaseRow {
    /// The token of the newest taking; it stays when the lease is given back.
    pub token: u64,
    pub held: Option<Held>,
    pub now: Timestamp,
}

impl LeaseRow {
    /// Who holds the lease, unless it ran out.
    pub fn holder(self) -> Option<Held> {
        self.held.filter(|held| held.expires_at > self.now)
    }

    /// Who keeps the lease from being taken now. A lease that ran out keeps nobody, nor does one
    /// whose process is known to be gone.
    pub fn blocker(self, alive: impl Fn(&ProcessIdentity) -> Option<bool>) -> Option<Held> {
        self.holder().filter(|held| alive(&held.holder.process) != Some(false))
    }

    /// The token of the next taking. It grows with the clock, so that a store that was made anew or
    /// restored from an old copy gives no token that a supervisor has seen already.
    pub fn next_token(&self) -> u64 {
        let clock = u64::try_from(self.now.as_second()).unwrap_or(0);
        (self.token + 1).max(clock)
    }

    /// Proves that `lease` is current.
    ///
    /// # Errors
    /// [`StoreError::LeaseLost`] says what happened to it.
    pub fn prove(&self, lease: &Lease) -> Result<(), StoreError> {
        let reason = match &self.held {
            Some(held) if self.token == lease.token && held.holder.run == lease.run => {
                if held.expires_at > self.now {
                    return Ok(());
                }
                format!("it ran out at {} and was not renewed", held.expires_at)
            }
            Some(held) => format!("it was taken over by {held}"),
            None if self.token == lease.token => "it was given back, or broken".into(),
            None => "another run took it over, and has ended since".into(),
        };
        Err(StoreError::LeaseLost { reason })
    }
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
