//! Keeping the lease while a run goes on.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;
use tokio::time::{MissedTickBehavior, interval};

use super::Control;
use crate::failpoint;
use crate::provider::machine;
use crate::state::lock::{HEARTBEAT, TTL};
use crate::state::{Holder, Lease, Store, StoreError};

/// Takes the lease, waiting for another holder as long as `wait`. With it comes the time since boot from
/// which its end is counted, which never lies behind the database's.
///
/// # Errors
/// As [`Store::lock`] and [`Store::renew`].
pub async fn take(
    store: &dyn Store,
    holder: &Holder,
    wait: Duration,
) -> Result<(Lease, Duration), StoreError> {
    let asked = machine::since_boot();
    let lease = store.lock(holder, wait).await?;
    let taken = machine::since_boot();
    if taken.saturating_sub(asked) < HEARTBEAT {
        return Ok((lease, asked));
    }
    // Counted from before the wait, it would have ended already.
    store.renew(&lease).await?;
    Ok((lease, taken))
}

/// Renews the lease until dropped; ends the run when the lease is lost.
pub struct Keeper {
    task: tokio::task::JoinHandle<()>,
    pub end: watch::Receiver<Duration>,
}

impl Keeper {
    /// `taken` is the time since boot from before the lease was asked for, so that the end counted
    /// from it never lies behind the database's.
    pub fn start(store: Arc<dyn Store>, lease: Lease, taken: Duration, control: Control) -> Self {
        let (sender, end) = watch::channel(taken + TTL);
        let task = tokio::spawn(async move {
            let mut beats = interval(failpoint::heartbeat(HEARTBEAT));
            beats.set_missed_tick_behavior(MissedTickBehavior::Delay);
            beats.tick().await;
            loop {
                beats.tick().await;
                let asked = machine::since_boot();
                match store.renew(&lease).await {
                    Ok(()) => {
                        control.renewed(None);
                        sender.send_replace(asked + TTL);
                    }
                    Err(StoreError::LeaseLost { reason }) => {
                        control.renewed(Some(reason));
                        break;
                    }
                    // A store that cannot be reached now may be at the next beat; the lease's end
                    // stands, and what hangs on it ends by itself.
                    Err(error) => {
                        control.renewed(Some(error.to_string()));
                        if machine::since_boot() >= *sender.borrow() {
                            break;
                        }
                    }
                }
            }
            control.lose();
        });
        Self { task, end }
    }
}

impl Drop for Keeper {
    fn drop(&mut self) {
        self.task.abort();
    }
}
