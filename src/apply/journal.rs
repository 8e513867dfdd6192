//! Intent, act, outcome: one operation's way through the store.

use std::sync::Arc;
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use uuid::Uuid;

use super::Run;
use super::events::{Event, StepError};
use super::walk::{Gate, Stopped};
use crate::plan::{Operation, Step};
use crate::render::words;
use crate::state::record::CANCELLED;
use crate::state::{Change, DeploymentStatus, ForgeStatus, StepLog, StoreError};

/// What a step gave.
#[derive(Debug, Default)]
pub struct Done {
    /// For the step's log.
    pub output: String,
    /// A word for the reader, such as where the app is reached.
    pub note: String,
    /// What becomes true with the step, written with its outcome.
    pub changes: Vec<Change>,
}

impl Done {
    pub fn said(output: impl Into<String>) -> Self {
        let output = output.into();
        Self { note: output.lines().next().unwrap_or_default().to_owned(), output, changes: Vec::new() }
    }
}

/// One operation under way.
pub struct Journal<'a> {
    pub run: &'a Arc<Run>,
    pub operation: &'a Operation,
    gate: &'a Gate,
    /// The id of the `norn_operations` row.
    id: String,
    row: Row,
}

/// The seed's row that the operation writes its step logs to.
pub enum Row {
    Deployment { id: String },
    Forge { failed: ForgeStatus },
}

/// What a step can use while it runs.
pub struct InStep {
    pub run: Arc<Run>,
    pub address: crate::address::Address,
    pub step: Step,
    /// The id of the `norn_steps` row, and the key that calls to the world carry.
    pub id: String,
}

impl InStep {
    /// Tells a line of progress, without what it may not show.
    pub fn output(&self, line: &str) {
        self.run.events.send(Event::Output {
            address: self.address.clone(),
            step: self.step,
            line: self.run.world.scrub.text(line).into_owned(),
        });
    }

    /// Makes durable what recovery must look for, before it is there.
    pub async fn record(&self, detail: Value) -> Result<(), StepError> {
        let change = Change::StepDetail { id: self.id.clone(), detail };
        self.run.store.write(&self.run.lease, &[change]).await.map_err(|e| StepError::new(e.to_string()))
    }
}

impl<'a> Journal<'a> {
    /// Opens the operation: its row and the seed's.
    pub async fn open(
        run: &'a Arc<Run>,
        operation: &'a Operation,
        gate: &'a Gate,
        row: Row,
        intent: Value,
        mut with: Vec<Change>,
    ) -> Result<Self, Stopped> {
        let id = Uuid::now_v7().to_string();
        let mut changes = vec![Change::OperationStarted {
            id: id.clone(),
            address: operation.address.clone(),
            action: operation.action.as_str().into(),
            intent,
            plan: run.plan.clone(),
        }];
        changes.append(&mut with);
        let journal = Self { run, operation, gate, id, row };
        journal.write(changes).await.map_err(|error| journal.failure(None, error))?;
        run.events
            .send(Event::OperationStarted { address: operation.address.clone(), action: operation.action });
        Ok(journal)
    }

    /// Runs a step as planned: skipped, or between its intent and its outcome.
    pub async fn step<W>(&self, step: Step, work: impl FnOnce(InStep) -> W) -> Result<(), Stopped>
    where
        W: Future<Output = Result<Done, StepError>>,
    {
        let planned = self.operation.steps.iter().find(|planned| planned.step == step);
        let Some(planned) = planned else { return Ok(()) };
        if let Some(why) = planned.skip {
            return self.skip(step, words::skip(why)).await;
        }
        if let Err(stopped) = self.gate.pass(self.run, self.operation, step).await {
            return Err(self.close_early(stopped).await);
        }
        let slot = self.gate.slot().await;
        if self.run.control.stopping() {
            return match step {
                // What serves stays deployed; what is left over is swept by the next deploy.
                Step::Cleanup => self.skip(step, "the run was stopped").await,
                _ => Err(self.close_early(Stopped::Cancelled).await),
            };
        }
        let id = Uuid::now_v7().to_string();
        let mut intent = vec![Change::StepStarted {
            id: id.clone(),
            operation: self.id.clone(),
            step: step.as_str().into(),
            key: id.clone(),
            detail: json!({}),
        }];
        intent.extend(self.running(step));
        if let Err(error) = self.write(intent).await {
            return Err(self.failure(Some(step), error));
        }
        let address = self.operation.address.clone();
        self.run.events.send(Event::StepStarted { address: address.clone(), step });
        let begun = Instant::now();
        let in_step = InStep { run: Arc::clone(self.run), address: address.clone(), step, id: id.clone() };
        // This process may have stood still since the intent was written.
        let result = match self.run.alive() {
            Ok(()) => work(in_step).await,
            Err(error) => Err(error),
        };
        let took = begun.elapsed();
        drop(slot);
        match result {
            Ok(done) => {
                let log = self.log(step, true, took, &done.output);
                let mut outcome = vec![Change::StepEnded { id, outcome: "done".into() }, log];
                outcome.extend(done.changes);
                if let Err(error) = self.write(outcome).await {
                    return Err(self.failure(Some(step), error));
                }
                self.gate.done(&self.operation.address, step);
                self.run.events.send(Event::StepDone { address, step, took, note: done.note });
                Ok(())
            }
            Err(error) if step == Step::Cleanup => {
                let log = self.log(step, false, took, &error.message);
                let outcome = vec![Change::StepEnded { id, outcome: "failed".into() }, log];
                if let Err(error) = self.write(outcome).await {
                    return Err(self.failure(Some(step), error));
                }
                self.run.events.send(Event::Warning { address, step, message: error.message });
                Ok(())
            }
            Err(error) if error.open => {
                // Written as failed, it would be nobody's: recovery looks at what has not ended.
                self.run.control.leave_open();
                self.run.events.send(Event::StepFailed { address, step, took, error: error.clone() });
                Err(Stopped::Failed { step: Some(step), error })
            }
            Err(error) => {
                let words = if error.output.is_empty() { &error.message } else { &error.output };
                let log = self.log(step, false, took, words);
                let mut outcome = vec![Change::StepEnded { id, outcome: "failed".into() }, log];
                outcome.extend(self.ended(Some(&error.message)));
                // What cannot be written is settled by the next run's recovery.
                let written = self.write(outcome).await;
                let error = match written {
                    Ok(()) => error,
                    Err(lost) if self.run.control.lost() => {
                        StepError { message: lost.message, evidence: vec![error.message], ..error }
                    }
                    Err(lost) => StepError { help: error.help.or(Some(lost.message)), ..error },
                };
                let cancelled = self.run.control.cancelling() && self.run.control.stopped_by_user();
                self.run.events.send(Event::StepFailed { address, step, took, error: error.clone() });
                Err(if cancelled { Stopped::Cancelled } else { Stopped::Failed { step: Some(step), error } })
            }
        }
    }

    async fn skip(&self, step: Step, why: &str) -> Result<(), Stopped> {
        let log = self.log_entry(step, "skipped", Duration::ZERO, why);
        self.write(vec![log]).await.map_err(|error| self.failure(Some(step), error))?;
        self.gate.done(&self.operation.address, step);
        let address = self.operation.address.clone();
        self.run.events.send(Event::StepSkipped { address, step, why: why.to_owned() });
        Ok(())
    }

    /// Closes the operation as done.
    pub async fn close(self, mut with: Vec<Change>) -> Result<(), Stopped> {
        with.extend(self.ended(None));
        self.write(with).await.map_err(|error| self.failure(None, error))
    }

    /// Closes an operation that failed between two steps, the fault being the earlier one's.
    pub async fn fail(&self, step: Step, error: StepError) -> Stopped {
        let address = self.operation.address.clone();
        let took = Duration::ZERO;
        self.run.events.send(Event::StepFailed { address, step, took, error: error.clone() });
        self.close_early(Stopped::Failed { step: Some(step), error }).await
    }

    /// Closes an operation that goes no further.
    async fn close_early(&self, stopped: Stopped) -> Stopped {
        let why = match &stopped {
            Stopped::Cancelled => CANCELLED.to_owned(),
            Stopped::NotStarted { why } => why.clone(),
            Stopped::Failed { error, .. } => error.message.clone(),
        };
        match self.write(self.ended(Some(&why))).await {
            Ok(()) => stopped,
            Err(error) => self.failure(None, error),
        }
    }

    /// The status of the seed's row while a step runs.
    fn running(&self, step: Step) -> Option<Change> {
        let Row::Deployment { id } = &self.row else { return None };
        let status = match step {
            Step::Clone | Step::Build => DeploymentStatus::Building,
            Step::Test => DeploymentStatus::Testing,
            Step::Snapshot => DeploymentStatus::Snapshotting,
            Step::Migrate => DeploymentStatus::Migrating,
            Step::Deploy
            | Step::Cleanup
            | Step::CreateSecret
            | Step::CreateVolumes
            | Step::CreateService
            | Step::CreateDeployment
            | Step::PatchCloudflared
            | Step::CreateDnsRoute
            | Step::RemoveDnsRoute
            | Step::UnpatchCloudflared
            | Step::RestartCloudflared
            | Step::DeleteService
            | Step::DeleteDeployment => DeploymentStatus::Deploying,
        };
        Some(Change::DeploymentStatus { id: id.clone(), status, error: String::new() })
    }

    /// The end of the operation and of the seed's row.
    fn ended(&self, error: Option<&str>) -> Vec<Change> {
        let outcome = if error.is_none() { "done" } else { "failed" };
        let mut changes = Vec::new();
        let text = error.unwrap_or_default().to_owned();
        match &self.row {
            Row::Deployment { id } => {
                let status =
                    if error.is_none() { DeploymentStatus::Deployed } else { DeploymentStatus::Failed };
                changes.push(Change::DeploymentStatus { id: id.clone(), status, error: text });
            }
            // How a forge ends well is its own to say, with the resources it made.
            Row::Forge { failed } => {
                if error.is_some() {
                    changes.push(Change::ForgeEnded {
                        app: self.operation.address.name.clone(),
                        status: *failed,
                        error: text,
                        resources: None,
                    });
                }
            }
        }
        changes.push(Change::OperationEnded { id: self.id.clone(), outcome: outcome.into() });
        changes
    }

    fn log(&self, step: Step, well: bool, took: Duration, output: &str) -> Change {
        let status = match (&self.row, well) {
            (_, false) => "failed",
            (Row::Deployment { .. }, true) => "deployed",
            (Row::Forge { .. }, true) => "completed",
        };
        self.log_entry(step, status, took, output)
    }

    fn log_entry(&self, step: Step, status: &str, took: Duration, output: &str) -> Change {
        let log = StepLog {
            step: step.as_str().into(),
            status: status.into(),
            duration_ms: u64::try_from(took.as_millis()).unwrap_or(u64::MAX),
            output: cap(&self.run.world.scrub.text(output)),
        };
        match &self.row {
            Row::Deployment { id } => Change::DeploymentStep { id: id.clone(), log },
            Row::Forge { .. } => Change::ForgeStep { app: self.operation.address.name.clone(), log },
        }
    }

    async fn write(&self, changes: Vec<Change>) -> Result<(), StepError> {
        // A run whose lease has ended is dead, and need not ask a store that may be out of reach.
        self.run.alive()?;
        self.run.store.write(&self.run.lease, &changes).await.map_err(|error| {
            // Without the store nothing that is done can be known afterwards.
            match error {
                StoreError::LeaseLost { .. } => self.run.control.lose(),
                _ => self.run.control.break_off(),
            }
            StepError::new(error.to_string())
        })
    }

    fn failure(&self, step: Option<Step>, error: StepError) -> Stopped {
        let first = self.operation.steps.first().map(|planned| planned.step);
        if let Some(step) = step.or(first) {
            let address = self.operation.address.clone();
            let (took, error) = (Duration::ZERO, error.clone());
            self.run.events.send(Event::StepFailed { address, step, took, error });
        }
        Stopped::Failed { step, error }
    }
}

/// At most 64 KiB of a step's output, the cut marked, as the seed's `steps` column keeps it.
fn cap(output: &str) -> String {
    const MOST: usize = 64 << 10;
    let output = output.replace('\0', "");
    if output.len() <= MOST {
        return output;
    }
    // The mark takes its place, too.
    let mut from = output.len() - MOST + 64;
    while !output.is_char_boundary(from) {
        from += 1;
    }
    format!("[... {from} bytes cut ...]\n{}", &output[from..])
}
