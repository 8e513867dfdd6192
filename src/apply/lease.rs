//! Keeping the lease while a run goes on.

use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::sync::watch;
use tokio::time::{MissedTickBehavior, interval};

use super::Control;
use crate::failpoint;
use crate::provider::machine;
use crate::state::lock::{HEARTBEAT, TTL};
use crate::state::{Held, Holder, Lease, Store, StoreError};

/// How long whoever waits for the lease is deaf to being stopped.
const DEAF: Duration = Duration::from_millis(500);

/// What is told of waiting for the lease, each once.
pub enum Waiting<'a> {
    /// It is this one's; it is waited for as long as this.
    For(&'a Held, Duration),
    /// It was got after that time.
    Over(Duration),
}

/// Takes the lease, waiting for another holder as long as `wait`. With it comes the time since boot from
/// which its end is counted, which never lies behind the database's. `None` where the run was stopped
/// before it got the lease.
///
/// # Errors
/// As [`Store::lock`] and [`Store::renew`].
pub async fn take(
    store: &dyn Store,
    holder: &Holder,
    wait: Duration,
    control: &Control,
    tell: &mut (dyn FnMut(Waiting<'_>) + Send),
) -> Result<Option<(Lease, Duration)>, StoreError> {
    let began = Instant::now();
    let mut waits = false;
    let (asked, lease) = loop {
        let left = wait.saturating_sub(began.elapsed());
        let asked = machine::since_boot();
        // Asking is never broken off: a lease that was given by then would be nobody's.
        match store.lock(holder, if waits { left.min(DEAF) } else { Duration::ZERO }).await {
            Ok(lease) => break (asked, lease),
            Err(StoreError::Locked { .. }) if control.stopping() => return Ok(None),
            Err(StoreError::Locked { held, .. }) if began.elapsed() < wait => {
                if !waits {
                    tell(Waiting::For(&held, wait));
                }
                waits = true;
            }
            Err(error) => return Err(error),
        }
    };
    if waits {
        tell(Waiting::Over(began.elapsed()));
    }
    let taken = machine::since_boot();
    if taken.saturating_sub(asked) < HEARTBEAT {
        return Ok(Some((lease, asked)));
    }
    // Counted from before it was asked for, it would have ended already.
    store.renew(&lease).await?;
    Ok(Some((lease, taken)))
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
