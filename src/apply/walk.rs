//! Walking the graph of a plan: what can run runs, what depends on a failure does not.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Instant;

use tokio::sync::{Semaphore, SemaphorePermit, watch};
use tokio::task::JoinSet;

use super::events::{Event, StepError};
use super::{Run, deploy, forge};
use crate::address::Address;
use crate::plan::{Operation, Plan, Step, Work};

/// Why an operation was not done.
#[derive(Debug, Clone)]
pub enum Stopped {
    Failed {
        step: Option<Step>,
        error: StepError,
    },
    /// What it waited for did not come to pass.
    NotStarted {
        why: String,
    },
    Cancelled,
}

/// What became of every operation.
#[derive(Debug, Default)]
pub struct Outcome {
    pub done: Vec<Address>,
    pub stopped: Vec<(Address, Stopped)>,
    pub cancelled: bool,
    /// Why the end of the run could not be written; what was done stands.
    pub unwritten: Option<String>,
}

impl Outcome {
    pub fn succeeded(&self) -> bool {
        self.stopped.is_empty() && !self.cancelled && self.unwritten.is_none()
    }
}

/// How far an operation is.
#[derive(Debug, Clone, Default)]
struct Progress {
    done: BTreeSet<Step>,
    /// Set when it has ended, and whether well.
    ended: Option<bool>,
}

/// Where operations wait for each other, and for a slot to work in.
pub struct Gate {
    progress: BTreeMap<Address, watch::Sender<Progress>>,
    slots: Semaphore,
}

impl Gate {
    fn new(plan: &Plan, slots: usize) -> Self {
        let addresses = plan.operations.iter().map(|operation| operation.address.clone());
        let progress = addresses.map(|address| (address, watch::channel(Progress::default()).0));
        Self { progress: progress.collect(), slots: Semaphore::new(slots.max(1)) }
    }

    /// Waits for all that the step waits for.
    pub async fn pass(&self, run: &Run, operation: &Operation, step: Step) -> Result<(), Stopped> {
        for wait in operation.waits.iter().filter(|wait| wait.step == step) {
            let Some(sender) = self.progress.get(&wait.of) else { continue };
            let mut other = sender.subscribe();
            let reached = |progress: &Progress| match wait.until {
                Some(until) => progress.done.contains(&until) || progress.ended.is_some(),
                None => progress.ended.is_some(),
            };
            // That an app's deploy follows its forge goes without saying.
            if wait.of.name != operation.address.name && !reached(&other.borrow()) {
                run.events.send(Event::Waiting {
                    address: operation.address.clone(),
                    step,
                    on: wait.of.to_string(),
                });
            }
            let progress = tokio::select! {
                progress = other.wait_for(reached) => progress.expect("the gate outlives its walk").clone(),
                () = run.control.stopped() => return Err(Stopped::Cancelled),
            };
            let well = match wait.until {
                Some(until) => progress.done.contains(&until),
                None => progress.ended == Some(true),
            };
            if !well {
                return Err(Stopped::NotStarted { why: format!("{} did not succeed", wait.of) });
            }
        }
        Ok(())
    }

    /// A slot to work in; a step that waits holds none.
    pub async fn slot(&self) -> SemaphorePermit<'_> {
        self.slots.acquire().await.expect("the slots are never closed")
    }

    /// A step is done, or was skipped.
    pub fn done(&self, address: &Address, step: Step) {
        self.progress[address].send_modify(|progress| {
            progress.done.insert(step);
        });
    }

    fn ended(&self, address: &Address, well: bool) {
        self.progress[address].send_modify(|progress| progress.ended = Some(well));
    }
}

/// Walks the plan to its end, or as far as it goes.
pub async fn walk(run: Arc<Run>, plan: &Plan) -> Outcome {
    let operations = plan.operations.iter().map(|o| (o.address.clone(), o.action)).collect();
    run.events.send(Event::Started { operations });
    let gate = Arc::new(Gate::new(plan, run.parallelism));
    let mut tasks = JoinSet::new();
    for operation in &plan.operations {
        let (run, gate, operation) = (Arc::clone(&run), Arc::clone(&gate), operation.clone());
        tasks.spawn(async move {
            let begun = Instant::now();
            let result = operate(&run, &operation, &gate).await;
            gate.ended(&operation.address, result.is_ok());
            let address = operation.address.clone();
            run.events.send(match &result {
                Ok(note) => Event::OperationDone { address, took: begun.elapsed(), note: note.clone() },
                Err(Stopped::Failed { .. }) => Event::OperationFailed { address },
                Err(Stopped::NotStarted { why }) => Event::OperationNotStarted { address, why: why.clone() },
                Err(Stopped::Cancelled) => {
                    let by_user = run.control.stopped_by_user();
                    let why = if by_user { "the run was cancelled" } else { "the run cannot go on" };
                    Event::OperationNotStarted { address, why: why.into() }
                }
            });
            (operation.address, result.map(drop))
        });
    }
    let mut results = BTreeMap::new();
    while let Some(joined) = tasks.join_next().await {
        let (address, result) = joined.unwrap_or_else(|error| std::panic::resume_unwind(error.into_panic()));
        results.insert(address, result);
    }
    let mut outcome = Outcome { cancelled: run.control.stopped_by_user(), ..Outcome::default() };
    // In the plan's order, whatever order they ended in.
    for operation in &plan.operations {
        match results.remove(&operation.address).expect("every operation was walked") {
            Ok(()) => outcome.done.push(operation.address.clone()),
            Err(stopped) => outcome.stopped.push((operation.address.clone(), stopped)),
        }
    }
    outcome.cancelled &= !outcome.stopped.is_empty();
    outcome
}

/// Does one operation, and gives a word for the reader.
async fn operate(run: &Arc<Run>, operation: &Operation, gate: &Gate) -> Result<Option<String>, Stopped> {
    // What the first step waits for is waited for before anything is written.
    if let Some(first) = operation.steps.first() {
        gate.pass(run, operation, first.step).await?;
    }
    if run.control.stopping() {
        return Err(Stopped::Cancelled);
    }
    match &operation.work {
        Work::Forge(work) => forge::forge(run, operation, gate, work).await,
        Work::Teardown(work) => forge::teardown(run, operation, gate, work).await,
        Work::Deploy(work) => deploy::deploy(run, operation, gate, work).await,
    }
}
