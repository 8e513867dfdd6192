//! Making it so.
//!
//! Here: walking a plan, the journal, recovery, cancelling, the events that tell of it. Elsewhere:
//! deciding what to do (`plan`), doing one thing to the world (`provider`), words (`render`).
//! Invariants: what is done was in the plan; before the world changes its intent is durable, after
//! it the outcome is; a run that lost its lease changes nothing any more.

mod cluster;
mod command;
pub mod container;
mod control;
mod deploy;
pub mod events;
mod files;
mod forge;
mod journal;
pub mod lease;
pub mod leavings;
mod reached;
pub mod recovery;
mod remote;
mod route;
mod snapshot;
mod volumes;
mod walk;
pub mod world;

use std::sync::Arc;

pub use control::Control;
use events::StepError;
pub use events::{Event, Sender};
pub use reached::reached;
pub use walk::{Outcome, Stopped};
use world::World;

use crate::plan::Plan;
use crate::provider::machine;
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
    /// The id of the saved plan that is applied, if it is one.
    pub plan: Option<String>,
    /// How many steps work at once; at least 1.
    pub parallelism: usize,
}

impl Run {
    /// Whether the run may change the world now.
    ///
    /// # Errors
    /// Where the lease was lost, or ran out while this process stood still.
    pub fn alive(&self) -> Result<(), StepError> {
        if !self.control.lost() && machine::since_boot() < *self.lease_end.borrow() {
            return Ok(());
        }
        self.control.lose();
        let message = match self.control.unrenewed() {
            Some(why) => format!("the lock on the state was lost: {why}"),
            None => "the lock on the state was lost, so nothing more is changed".to_owned(),
        };
        Err(StepError::new(message)
            .help("`norn status` shows what runs; apply again when no other norn is at work"))
    }
}

/// Applies a plan under a lease that is held. `command` is what the user typed, for the journal.
///
/// # Errors
/// Only where the run could not be journaled at all; what failed in the walk is in the outcome, and
/// that its end could not be written as well: the next run's recovery settles that.
pub async fn apply(run: Arc<Run>, plan: &Plan, command: &str) -> Result<Outcome, StoreError> {
    run.store.write(&run.lease, &[Change::RunStarted { command: command.to_owned() }]).await?;
    let mut outcome = walk::walk(Arc::clone(&run), plan).await;
    if run.control.unwritten() {
        // The journal has gaps that only recovery can close, which looks at runs that have not ended.
        return Ok(outcome);
    }
    let ended = if outcome.succeeded() {
        "done"
    } else if outcome.cancelled {
        "cancelled"
    } else {
        "failed"
    };
    let written = run.store.write(&run.lease, &[Change::RunEnded { outcome: ended.into() }]).await;
    outcome.unwritten = written.err().map(|error| error.to_string());
    Ok(outcome)
}
