//! What happens during a run, as data. `render` makes words of it.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use tokio::sync::mpsc;

use crate::address::Address;
use crate::plan::{Action, Step};

/// Where events go. A reader that went away is no reason to stop.
#[derive(Clone)]
pub struct Sender {
    events: mpsc::UnboundedSender<Event>,
    waiting: Arc<AtomicUsize>,
}

/// Where events come from.
pub struct Receiver {
    events: mpsc::UnboundedReceiver<Event>,
    waiting: Arc<AtomicUsize>,
}

/// How many events may wait for a slow reader before lines of output are left out; the logs have
/// them. All other events are told.
const WAITING: usize = 10_000;

impl Sender {
    pub fn channel() -> (Self, Receiver) {
        let (sender, events) = mpsc::unbounded_channel();
        let waiting = Arc::new(AtomicUsize::new(0));
        (Self { events: sender, waiting: Arc::clone(&waiting) }, Receiver { events, waiting })
    }

    pub fn send(&self, event: Event) {
        if matches!(event, Event::Output { .. }) && self.waiting.load(Ordering::Relaxed) >= WAITING {
            return;
        }
        self.waiting.fetch_add(1, Ordering::Relaxed);
        let _ = self.events.send(event);
    }
}

impl Receiver {
    /// The next event; `None` when all senders are gone.
    pub async fn recv(&mut self) -> Option<Event> {
        let event = self.events.recv().await;
        self.took(event)
    }

    /// The next event that is there already.
    pub fn try_recv(&mut self) -> Option<Event> {
        let event = self.events.try_recv().ok();
        self.took(event)
    }

    fn took(&self, event: Option<Event>) -> Option<Event> {
        self.waiting.fetch_sub(usize::from(event.is_some()), Ordering::Relaxed);
        event
    }
}

#[derive(Debug, Clone)]
pub enum Event {
    /// What recovery did before the walk, in words.
    Recovered {
        what: String,
    },
    /// The saved plan did it before, and it stands as it was left.
    OperationSkipped {
        address: Address,
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
    /// Whether what was asked for may come to pass, or has: only a look at the world can tell.
    pub open: bool,
}

impl StepError {
    pub fn new(message: impl Into<String>) -> Self {
        Self { message: message.into(), ..Self::default() }
    }

    /// An end that only the next run's recovery can tell.
    pub fn open(mut self) -> Self {
        self.open = true;
        self.help("what became of it is not known: apply again, which looks first")
    }

    pub fn help(mut self, help: impl Into<String>) -> Self {
        self.help = Some(help.into());
        self
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_reader_that_stands_still_costs_lines_and_no_other_event() {
        let (sender, mut receiver) = Sender::channel();
        let address = Address::deploy(&"web".parse().expect("a name"));
        let line = || Event::Output { address: address.clone(), step: Step::Build, line: "x".into() };
        for _ in 0..2 * WAITING {
            sender.send(line());
        }
        sender.send(Event::OperationFailed { address: address.clone() });
        let mut seen = 0;
        while let Some(event) = receiver.try_recv() {
            seen += 1;
            assert_eq!(matches!(event, Event::OperationFailed { .. }), seen == WAITING + 1);
        }
        assert_eq!(seen, WAITING + 1);
        sender.send(line());
        assert!(matches!(receiver.recv().await, Some(Event::Output { .. })));
    }
}
