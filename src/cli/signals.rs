//! The signals that end norn: to whom they go.
//!
//! Invariant: while no run listens, a signal ends norn at once, as if norn had never heard of it.

use std::sync::{Mutex, MutexGuard, Once};

use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::mpsc;

use super::failure::Exit;
use crate::apply::Control;

/// Who listens now. Signals come to the process, whatever is under way in it.
static EAR: Mutex<Option<Ear>> = Mutex::new(None);
static HEARING: Once = Once::new();

struct Ear {
    control: Control,
    notices: mpsc::UnboundedSender<&'static str>,
    /// How many signals came.
    heard: u32,
}

/// A run that listens, until this is dropped.
pub struct Listening {
    /// What is to be said of the signals that came.
    pub notices: mpsc::UnboundedReceiver<&'static str>,
}

/// From here on the first signal stops a run gently, the second at once. Needs a runtime.
pub fn listen(control: &Control) -> Listening {
    let (sender, notices) = mpsc::unbounded_channel();
    *ear() = Some(Ear { control: control.clone(), notices: sender, heard: 0 });
    HEARING.call_once(|| {
        let signals =
            (signal(SignalKind::interrupt()), signal(SignalKind::terminate()), signal(SignalKind::hangup()));
        if let (Ok(interrupt), Ok(terminate), Ok(hangup)) = signals {
            tokio::spawn(hear([interrupt, terminate, hangup]));
        }
    });
    Listening { notices }
}

impl Drop for Listening {
    fn drop(&mut self) {
        *ear() = None;
    }
}

async fn hear([mut interrupt, mut terminate, mut hangup]: [Signal; 3]) {
    loop {
        tokio::select! {
            _ = interrupt.recv() => {}
            _ = terminate.recv() => {}
            _ = hangup.recv() => {}
        }
        match &mut *ear() {
            Some(ear) => ear.hears(),
            None => std::process::exit(Exit::Cancelled as i32),
        }
    }
}

impl Ear {
    fn hears(&mut self) {
        let notice = if self.heard == 0 {
            self.control.stop();
            "stopping: running steps are finished, nothing new is started; again to cancel them"
        } else {
            self.control.cancel();
            "cancelling: running steps are ended"
        };
        self.heard += 1;
        // The receiver lives as long as the run that would be stopped.
        let _ = self.notices.send(notice);
    }
}

fn ear() -> MutexGuard<'static, Option<Ear>> {
    EAR.lock().expect("nothing panics while it holds this")
}
