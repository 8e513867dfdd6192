//! Stopping a run: first gently, then at once.

use tokio::sync::watch;

/// The two switches of a run. Both only ever go on.
#[derive(Clone)]
pub struct Control {
    stop: watch::Sender<bool>,
    cancel: watch::Sender<bool>,
}

impl Default for Control {
    fn default() -> Self {
        Self { stop: watch::channel(false).0, cancel: watch::channel(false).0 }
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
