//! Stopping a run: first gently, then at once.

use tokio::sync::watch;

/// The switches of a run, which only ever go on, and what is known of its lease.
#[derive(Clone)]
pub struct Control {
    stop: watch::Sender<bool>,
    cancel: watch::Sender<bool>,
    lost: watch::Sender<bool>,
    broken: watch::Sender<bool>,
    open: watch::Sender<bool>,
    unrenewed: watch::Sender<Option<String>>,
}

impl Default for Control {
    fn default() -> Self {
        let off = || watch::channel(false).0;
        let unrenewed = watch::channel(None).0;
        Self { stop: off(), cancel: off(), lost: off(), broken: off(), open: off(), unrenewed }
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

    /// The end of an operation is not known. What does not hang on it goes on.
    pub fn leave_open(&self) {
        self.open.send_replace(true);
    }

    /// Whether something could not be written, so that only recovery can say how the run ended.
    pub fn unwritten(&self) -> bool {
        self.lost() || *self.broken.borrow() || *self.open.borrow()
    }

    /// What became of prolonging the lease: why it failed, if it did.
    pub fn renewed(&self, failed: Option<String>) {
        self.unrenewed.send_replace(failed);
    }

    /// Why the lease could not be prolonged when that was last tried.
    pub fn unrenewed(&self) -> Option<String> {
        self.unrenewed.borrow().clone()
    }

    /// Whether the run was stopped by the user, and not by what befell it.
    pub fn stopped_by_user(&self) -> bool {
        self.stopping() && !self.lost() && !*self.broken.borrow()
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
