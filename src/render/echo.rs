//! Keeping a terminal from printing `^C` where bars are drawn: it would push a line of them up.

use std::io;

use rustix::process::getpgrp;
use rustix::termios::{LocalModes, OptionalActions, Termios, tcgetattr, tcgetpgrp, tcsetattr};

/// Control keys are not echoed while this lives.
pub struct Muted {
    /// The terminal as it was.
    before: Option<Termios>,
}

impl Muted {
    pub fn new() -> Self {
        let before = in_foreground().then(|| tcgetattr(io::stderr()).ok()).flatten();
        if let Some(before) = &before {
            let mut muted = before.clone();
            muted.local_modes.remove(LocalModes::ECHOCTL);
            // A terminal that cannot do it prints the key: that harms nothing.
            let _ = tcsetattr(io::stderr(), OptionalActions::Now, &muted);
        }
        Self { before }
    }
}

impl Drop for Muted {
    fn drop(&mut self) {
        if let Some(before) = &self.before
            && in_foreground()
        {
            let _ = tcsetattr(io::stderr(), OptionalActions::Now, before);
        }
    }
}

/// A process in the background that changes its terminal is stopped.
fn in_foreground() -> bool {
    tcgetpgrp(io::stderr()).is_ok_and(|group| group == getpgrp())
}
