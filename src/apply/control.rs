//! Stopping a run: first gently, then at once.

use tokio::sync::watch;

/// The switches of a run. All only ever go on.
#[derive(Clone)]
pub struct Control {
    stop: watch::Sender<bool>,
    cancel: watch::Sender<bool>,
    lost: watch::Sender<bool>,
    broken: watch::Sender<bool>,
}

impl Default for Control {
    fn default() -> Self {
        let off = || watch::channel(false).0;
        Self { stop: off(), cancel: off(), lost: off(), broken: off() }
    }
}

impl Control {
    /// No new step starts; those that run are finished.
    pub fn stop(&self) {
        self.stop.send_replace(true);
    }

    /// Running steps are ended too.
    pub fn cancel(&self) {
        self.stop();
        self.cancel.send_replace(true);
    }

    /// The lock on the state is another's: the run is dead and changes nothing any more.
    pub fn lose(&self) {
        self.lost.send_replace(true);
        self.cancel();
    }

    pub fn lost(&self) -> bool {
        *self.lost.borrow()
    }

    /// The state cannot be written: running steps are finished, nothing new is started.
    pub fn break_off(&self) {
        self.broken.send_replace(true);
        self.stop();
    }

    /// Whether something that was done could not be written down.
    pub fn broken(&self) -> bool {
        *self.broken.borrow()
    }

    /// Whether the run was stopped by the user, and not by what befell it.
    pub fn stopped_by_user(&self) -> bool {
        self.stopping() && !self.lost() && !self.broken()
    }

    pub fn stopping(&self) -> bool {
        *self.stop.borrow()
    }

    pub fn cancelling(&self) -> bool {
        *self.cancel.borrow()
    }

    /// For what ends itself when the run is cancelled.
    pub fn cancel_switch(&self) -> watch::Receiver<bool> {
        self.cancel.subscribe()
    }

    /// Returns once running steps are to end.
    pub async fn cancelled(&self) {
        on(self.cancel.subscribe()).await;
    }

    /// Returns once no new step may start.
    pub async fn stopped(&self) {
        on(self.stop.subscribe()).await;
    }
}

async fn on(mut switch: watch::Receiver<bool>) {
    // The sender lives in the same Control, so waiting cannot fail before it is on.
    let _ = switch.wait_for(|on| *on).await;
}
