//! What happens during a run, as data. `render` makes words of it.

use std::time::Duration;

use tokio::sync::mpsc;

use crate::address::Address;
use crate::plan::{Action, Step};

/// Where events go. A reader that went away is no reason to stop.
#[derive(Clone)]
pub struct Sender(mpsc::UnboundedSender<Event>);

impl Sender {
    pub fn channel() -> (Self, mpsc::UnboundedReceiver<Event>) {
        let (sender, receiver) = mpsc::unbounded_channel();
        (Self(sender), receiver)
    }

    pub fn send(&self, event: Event) {
        let _ = self.0.send(event);
    }
}

#[derive(Debug, Clone)]
pub enum Event {
    /// What recovery did before the walk, in words.
    Recovered {
        what: String,
    },
    Started {
        operations: Vec<(Address, Action)>,
    },
    OperationStarted {
        address: Address,
        action: Action,
    },
    /// The step waits for others, and for what.
    Waiting {
        address: Address,
        step: Step,
        on: String,
    },
    StepStarted {
        address: Address,
        step: Step,
    },
    /// A line that a step's command wrote, or a word of its progress.
    Output {
        address: Address,
        step: Step,
        line: String,
    },
    StepSkipped {
        address: Address,
        step: Step,
        why: String,
    },
    StepDone {
        address: Address,
        step: Step,
        took: Duration,
        note: String,
    },
    StepFailed {
        address: Address,
        step: Step,
        took: Duration,
        error: StepError,
    },
    /// A step failed and the operation goes on.
    Warning {
        address: Address,
        step: Step,
        message: String,
    },
    OperationDone {
        address: Address,
        took: Duration,
        note: Option<String>,
    },
    OperationFailed {
        address: Address,
    },
    OperationNotStarted {
        address: Address,
        why: String,
    },
}

/// Why a step failed: what, the evidence, how to mend it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct StepError {
    pub message: String,
    /// Such as the last lines of a log.
    pub evidence: Vec<String>,
    pub help: Option<String>,
    /// What the step's log keeps, where it is more than the message.
    pub output: String,
}

impl StepError {
    pub fn new(message: impl Into<String>) -> Self {
        Self { message: message.into(), ..Self::default() }
    }

    pub fn help(mut self, help: impl Into<String>) -> Self {
        self.help = Some(help.into());
        self
    }
}
