//! What norn last knew.
//!
//! Here: the records, the [`Store`] that keeps them, the [`Change`]s that are its only writes.
//! Elsewhere: deciding what to write (`apply::journal`, `apply::recovery`).
//! Invariants: a store holds one project and one stage; every write is one transaction that
//! fails unless the lease it names is current; a write costs the same whatever the store holds.

pub mod change;
#[cfg(test)]
mod conformance;
pub mod dump;
#[cfg(feature = "failpoints")]
pub mod faulty;
pub mod format;
#[cfg(any(test, fuzzing))]
pub mod fuzz;
pub mod lock;
pub mod postgres;
pub mod record;
mod row;
mod schema;
pub mod seed;
pub mod sqlite;

use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;

use async_trait::async_trait;
use jiff::Timestamp;

pub use change::Change;
pub use dump::Dump;
pub use lock::{Held, Holder, Lease, LeaseRow};
pub use record::{
    Applied, Artifact, ArtifactKind, Deployment, DeploymentStatus, Digests, Forge, ForgeStatus, Journaled,
    Operated, PendingStep, Record, Run, Snapshot, StepLog,
};

use crate::address::Address;
use crate::secret::Secret;
use crate::spec::name::{AppName, ProjectName, StageName};

/// What a store belongs to: one project, one stage.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Scope {
    pub project: ProjectName,
    pub stage: Option<StageName>,
}

impl fmt::Display for Scope {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "project {}", self.project)?;
        match &self.stage {
            Some(stage) => write!(f, ", stage {stage}"),
            None => f.write_str(" without a stage"),
        }
    }
}

/// Where records are kept. The two implementations give identical traces.
#[async_trait]
pub trait Store: Send + Sync {
    /// Everything a plan compares with, read in one transaction. A store that was never
    /// written reads as empty.
    async fn snapshot(&self) -> Result<Snapshot, StoreError>;

    /// Brings the schema to this norn's version, names the scope, and takes the lease.
    /// Waits at most `wait` for another holder; zero means try once.
    ///
    /// # Errors
    /// [`StoreError::Locked`] names the holder.
    async fn lock(&self, holder: &Holder, wait: Duration) -> Result<Lease, StoreError>;

    /// Prolongs the lease by its time to live.
    ///
    /// # Errors
    /// [`StoreError::LeaseLost`] when another took it over or it ran out.
    async fn renew(&self, lease: &Lease) -> Result<(), StoreError>;

    /// Gives the lease back. A lease that was lost already is no error.
    async fn unlock(&self, lease: &Lease) -> Result<(), StoreError>;

    /// Makes all `changes` or none, in one transaction that first proves the lease. Times are
    /// the database's clock.
    async fn write(&self, lease: &Lease, changes: &[Change]) -> Result<(), StoreError>;

    /// The store's key (64 hex digits). Where there is no store yet, its first tables are made, which
    /// hold the key and nothing else; such a store reads as empty.
    async fn key(&self) -> Result<Secret, StoreError>;

    /// The store's key, of a store of whatever schema; `None` where there is no store. Makes nothing.
    async fn known_key(&self) -> Result<Option<Secret>, StoreError>;

    /// Takes the lease of that token away from whoever holds it, and says whether it was held.
    /// Its holder's next write fails.
    async fn break_lock(&self, token: u64) -> Result<bool, StoreError>;

    /// The newest deployments with their step logs, newest first.
    async fn history(&self, app: Option<&AppName>, limit: u32) -> Result<Vec<Deployment>, StoreError>;

    /// The operations of a saved plan, in the order in which they ended, unfinished ones last.
    async fn operations_of(&self, plan: &str) -> Result<Vec<Applied>, StoreError>;

    /// The lease row, of a store of whatever schema; `None` where there is no store.
    async fn lease(&self) -> Result<Option<LeaseRow>, StoreError>;

    /// When each record was last put.
    async fn updated(&self) -> Result<BTreeMap<Address, Timestamp>, StoreError>;

    /// The newest operations on an address, newest first.
    async fn operations(&self, address: &Address, limit: u32) -> Result<Vec<Operated>, StoreError>;

    /// All that the store holds, read in one transaction; `None` where there is no store.
    async fn export(&self) -> Result<Option<Dump>, StoreError>;

    /// Fills the store with a dump, its key too, and gives the lease back with a token no smaller
    /// than the dump's, all in one transaction.
    ///
    /// # Errors
    /// [`StoreError::NotEmpty`] where anything is recorded, [`StoreError::OtherScope`].
    async fn import(&self, lease: &Lease, dump: &Dump) -> Result<(), StoreError>;

    /// Marks the store as moved to a place, and gives the lease back. From then on every use of it
    /// is [`StoreError::Moved`].
    async fn mark_moved(&self, lease: &Lease, to: &str) -> Result<(), StoreError>;
    /// Cuts the connection to the database, as a network does, where there is one.
    #[cfg(feature = "failpoints")]
    fn sever(&self) {}
}

/// What can go wrong with a store. Each names the store and how to go on.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    #[error("the state in {place} is locked by {held}")]
    Locked { place: String, held: Box<Held> },
    #[error("the lock on the state was lost: {reason}")]
    LeaseLost { reason: String },
    #[error("the state in {place} belongs to {theirs}, not to {ours}; name another place with --state")]
    OtherScope { place: String, theirs: String, ours: String },
    #[error(
        "the state in {place} was written by a newer norn (schema {found}, this one knows {known}); use that norn, or a newer one"
    )]
    Newer { place: String, found: u32, known: u32 },
    #[error(
        "the state in {place} has an older schema ({found}, this norn writes {known}); run `norn state upgrade`"
    )]
    Older { place: String, found: u32, known: u32 },
    #[error(
        "the state in {place} was moved to {to}; write that into the spec's `state`, or name it with --state"
    )]
    Moved { place: String, to: String },
    #[error("the state in {place} has records already: {table} has rows; name a place where no state is")]
    NotEmpty { place: String, table: &'static str },
    #[error("{place} is no state of norn: {why}; name another place with --state")]
    Foreign { place: String, why: String },
    #[error("the state in {place} cannot be written: {why}; {mend}, or name another place with --state")]
    ReadOnly { place: String, why: String, mend: &'static str },
    #[error("the state in {place} cannot be reached: {why}")]
    Unreachable { place: String, why: String },
    #[error("no space is left for the state in {place}; free some on its disk and run the command again")]
    Full { place: String },
    #[error("the state in {place} cannot be used while {doing}: {why}")]
    Broken { place: String, doing: &'static str, why: String },
}
