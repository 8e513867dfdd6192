//! The commands of steps: guarded, logged, and told of with their last words where they fail.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use serde_json::json;

use super::Run;
use super::events::StepError;
use super::files::folder_error;
use super::journal::{Done, InStep};
use crate::failpoint;
use crate::provider::child::{self, Ending, Leash, Task};
use crate::provider::releases;
use crate::provider::supervise::protocol::Command;

/// How many lines of a failed command's output are told.
const LAST_WORDS: usize = 20;

/// Runs a shell command of the spec.
pub async fn shell(
    step: &InStep,
    command: &str,
    dir: &Path,
    env: &BTreeMap<String, String>,
) -> Result<Done, StepError> {
    let output = run(step, &Command::Shell(command.to_owned()), command, dir, env).await?;
    Ok(Done { output, ..Done::default() })
}

/// Runs a command to its good end, and returns what it wrote. It is told of by the first line of `named`.
pub async fn run(
    step: &InStep,
    command: &Command,
    named: &str,
    dir: &Path,
    env: &BTreeMap<String, String>,
) -> Result<String, StepError> {
    let log = log(step)?;
    let task = Task { command, dir, env, log: &log, timeout: None, silence: None };
    let record = |identities: child::Identities| async move {
        let detail = json!({ "child": identities });
        step.record(detail).await.map_err(|error| error.message.into())
    };
    let finished = child::run(&task, &leash(&step.run), record, |line| step.output(line)).await;
    let finished = finished.map_err(|error| StepError::new(error.to_string()))?;
    if finished.success() {
        return Ok(finished.output);
    }
    let shown = named.lines().next().unwrap_or_default();
    let error = StepError::new(format!("`{}` {}", step.run.world.scrub.text(shown), finished.ending));
    let error = match finished.ending {
        Ending::Cancelled => error,
        _ => error.help(whole_output(&log)),
    };
    Err(with_last_words(error, finished.output))
}

/// An error with the last lines of what was written until then.
pub fn with_last_words(error: StepError, output: String) -> StepError {
    let lines: Vec<&str> = output.lines().collect();
    let last = &lines[lines.len().saturating_sub(LAST_WORDS)..];
    StepError { evidence: last.iter().map(|line| (*line).to_owned()).collect(), output, ..error }
}

/// Where all of it is.
pub fn whole_output(log: &Path) -> String {
    format!("the whole output is in {}", log.display())
}

/// What ends a command with its run.
pub fn leash(run: &Run) -> Leash {
    Leash {
        guard: Leash::own_guard(),
        lease: Some(run.lease_end.clone()),
        cancel: run.control.cancel_switch(),
        scrub: run.world.scrub.clone(),
    }
}

/// The log of a step, begun anew; the one before is kept beside it.
pub fn log(step: &InStep) -> Result<PathBuf, StepError> {
    let log = step.run.world.folders.step_log(&step.address.name, step.step.as_str());
    let folder = log.parent().expect("a log is in a folder");
    releases::private_folder(folder).map_err(|error| folder_error(folder, &error))?;
    if log.exists() {
        let aside = || {
            failpoint::before("set aside", &log)?;
            std::fs::rename(&log, log.with_extension("old.log"))?;
            failpoint::after("set aside", &log)
        };
        aside().map_err(|error| folder_error(&log, &error))?;
    }
    Ok(log)
}
