//! Making it so.
//!
//! Here: walking a plan, the journal, recovery, cancelling, the events that tell of it. Elsewhere:
//! deciding what to do (`plan`), doing one thing to the world (`provider`), words (`render`).
//! Invariants: what is done was in the plan; before the world changes its intent is durable, after
//! it the outcome is; a run that lost its lease changes nothing any more.

mod control;
mod deploy;
pub mod events;
mod forge;
mod journal;
pub mod lease;
pub mod recovery;
mod walk;
pub mod world;

use std::sync::Arc;

pub use control::Control;
pub use events::{Event, Sender};
pub use forge::reached;
pub use walk::{Outcome, Stopped};
use world::World;

use crate::plan::Plan;
use crate::secret::Secret;
use crate::state::{Change, Lease, Store, StoreError};

/// What one run of apply works with.
pub struct Run {
    pub store: Arc<dyn Store>,
    pub lease: Lease,
    /// When the lease ends, in time since boot.
    pub lease_end: tokio::sync::watch::Receiver<std::time::Duration>,
    /// The store's key, for fingerprints.
    pub key: Secret,
    pub world: World,
    pub control: Control,
    pub events: Sender,
    /// How many steps work at once; at least 1.
    pub parallelism: usize,
}

/// Applies a plan under a lease that is held. `command` is what the user typed, for the journal.
///
/// # Errors
/// Only where the run could not be journaled at all; what failed in the walk is in the outcome.
pub async fn apply(run: Arc<Run>, plan: &Plan, command: &str) -> Result<Outcome, StoreError> {
    run.store.write(&run.lease, &[Change::RunStarted { command: command.to_owned() }]).await?;
    let outcome = walk::walk(Arc::clone(&run), plan).await;
    let ended = if outcome.succeeded() {
        "done"
    } else if outcome.cancelled {
        "cancelled"
    } else {
        "failed"
    };
    run.store.write(&run.lease, &[Change::RunEnded { outcome: ended.into() }]).await?;
    Ok(outcome)
}
