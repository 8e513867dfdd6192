//! Progress without a terminal: a plain line with the time for every event, and on GitHub groups
//! and annotations.

use std::collections::BTreeMap;

use jiff::Timestamp;

use super::problems::escape;
use crate::address::Address;
use crate::apply::Event;
use crate::apply::events::StepError;

/// Turns events into lines.
pub struct Lines {
    /// Whether steps are grouped and failures annotated as GitHub Actions reads it.
    github: bool,
    /// Whether every line of output is shown as it comes.
    verbose: bool,
    /// Output held back until its step ends: several steps run at once.
    held: BTreeMap<(Address, &'static str), Vec<String>>,
}

/// The most lines of one step that are held back.
const HELD: usize = 5_000;

impl Lines {
    pub fn new(github: bool, verbose: bool) -> Self {
        Self { github, verbose, held: BTreeMap::new() }
    }

    /// The text for one event; empty where there is nothing to say.
    pub fn text(&mut self, event: &Event, now: Timestamp) -> String {
        let stamp = now.strftime("%H:%M:%S");
        let guard = |text: &str| if self.github { guarded(text) } else { text.to_owned() };
        let line = |text: String| format!("{stamp} {}\n", guard(&text));
        match event {
            Event::Recovered { what } => line(format!("recovered: {what}")),
            Event::OperationSkipped { address } => line(format!("{address}: done already by this plan")),
            Event::Started { operations } => line(match operations.len() {
                1 => "applying 1 operation".to_owned(),
                n => format!("applying {n} operations"),
            }),
            Event::OperationStarted { address, action } => line(format!("{address}: {}", action.as_str())),
            Event::Waiting { address, step, on } => {
                line(format!("{address} {}: waits for {on}", step.as_str()))
            }
            Event::StepStarted { address, step } => line(format!("{address} {}: started", step.as_str())),
            Event::Output { address, step, line: text } => {
                if self.verbose && !self.github {
                    return line(format!("{address} {}: {text}", step.as_str()));
                }
                let held = self.held.entry((address.clone(), step.as_str())).or_default();
                if held.len() < HELD {
                    held.push(text.clone());
                }
                String::new()
            }
            Event::StepSkipped { .. } if !self.verbose => String::new(),
            Event::StepSkipped { address, step, why } => {
                line(format!("{address} {}: skipped, {why}", step.as_str()))
            }
            Event::StepDone { address, step, took, note } => {
                let held = self.held.remove(&(address.clone(), step.as_str())).unwrap_or_default();
                let note = if note.is_empty() { String::new() } else { format!(", {note}") };
                let head = format!("{address} {}: done in {}{note}", step.as_str(), seconds(*took));
                if self.github && !held.is_empty() {
                    return group(&head, &held);
                }
                line(head)
            }
            Event::StepFailed { address, step, took, error } => {
                let held = self.held.remove(&(address.clone(), step.as_str())).unwrap_or_default();
                let head = format!(
                    "{address} {}: FAILED after {}: {}",
                    step.as_str(),
                    seconds(*took),
                    error.message
                );
                let mut out = String::new();
                if self.github {
                    if !held.is_empty() {
                        out += &group(&format!("{address} {}: output", step.as_str()), &held);
                    }
                    let title = format!("{address} {}", step.as_str());
                    out += &format!(
                        "::error title={}::{}\n",
                        escape(&title, true),
                        escape(&error.message, false)
                    );
                }
                out + &line(head) + &guard(&evidence(error))
            }
            Event::Warning { address, step, message } => {
                line(format!("{address} {}: warning: {message}", step.as_str()))
            }
            Event::OperationDone { address, took, note } => {
                let note = note.as_ref().map(|note| format!(", {note}")).unwrap_or_default();
                line(format!("{address}: done in {}{note}", seconds(*took)))
            }
            Event::OperationFailed { address } => line(format!("{address}: failed")),
            Event::OperationNotStarted { address, why } => line(format!("{address}: not done, {why}")),
        }
    }
}

/// Lines that GitHub folds.
fn group(title: &str, lines: &[String]) -> String {
    format!("::group::{}\n{}\n::endgroup::\n", guarded(title), guarded(&lines.join("\n")))
}

/// Text that others wrote, in which nothing is a workflow command: `::` where a line begins, in
/// whatever distance, or the older `##[` anywhere.
fn guarded(text: &str) -> String {
    let mut out = String::new();
    for line in text.split_inclusive(['\n', '\r']) {
        let line = line.replace("##[", "##\u{200b}[");
        match line.trim_start().starts_with("::") {
            true => out += &line.replacen("::", ":\u{200b}:", 1),
            false => out += &line,
        }
    }
    out
}

/// The evidence of a failed step and the way to mend it.
pub fn evidence(error: &StepError) -> String {
    let mut out = String::new();
    for line in &error.evidence {
        out += &format!("    {line}\n");
    }
    if let Some(help) = &error.help {
        out += &format!("    help: {help}\n");
    }
    out
}

/// A duration as readers like it: `0.4 s`, `12 s`, `3m05s`.
pub fn seconds(took: std::time::Duration) -> String {
    let whole = took.as_secs();
    if whole >= 60 {
        format!("{}m{:02}s", whole / 60, whole % 60)
    } else if whole >= 10 {
        format!("{whole} s")
    } else {
        format!("{:.1} s", took.as_secs_f64())
    }
}
