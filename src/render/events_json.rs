//! What `norn apply --json` prints: one JSON object a line.

use jiff::Timestamp;
use schemars::JsonSchema;
use serde::Serialize;

use crate::apply::Event;

/// One line of `norn apply --json`.
#[derive(Debug, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(title = "norn apply")]
pub struct EventV1 {
    /// The version of this format: 1.
    pub format_version: u32,
    /// When it happened, in UTC.
    pub time: String,
    /// What happened: `plan`, `recovered`, `operation-skipped`, `started`, `operation-started`, `waiting`,
    /// `step-started`, `output`, `step-skipped`, `step-done`, `step-failed`, `warning`,
    /// `operation-done`, `operation-failed`, `operation-not-started`, `finished`.
    pub event: &'static str,
    /// Such as `deploy/web`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub address: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub step: Option<&'static str>,
    /// A line of output, a reason, an error's message or a word of the result.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub message: Option<String>,
    /// The evidence of an error.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub evidence: Vec<String>,
    /// How to mend an error.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub help: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub duration_ms: Option<u64>,
    /// With `plan`: the plan in the format of `norn plan --json`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub plan: Option<serde_json::Value>,
    /// With `finished`: `applied`, `partly`, `failed`, `cancelled` or `unchanged`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub result: Option<&'static str>,
}

impl EventV1 {
    pub fn new(event: &'static str, now: Timestamp) -> Self {
        Self {
            format_version: 1,
            time: now.to_string(),
            event,
            address: None,
            step: None,
            message: None,
            evidence: Vec::new(),
            help: None,
            duration_ms: None,
            plan: None,
            result: None,
        }
    }

    pub fn line(&self) -> String {
        serde_json::to_string(self).expect("an event has text keys only")
    }
}

/// An event in its published format.
pub fn event(event: &Event, now: Timestamp) -> EventV1 {
    let millis = |took: &std::time::Duration| u64::try_from(took.as_millis()).ok();
    let new = |name| EventV1::new(name, now);
    match event {
        Event::Recovered { what } => EventV1 { message: Some(what.clone()), ..new("recovered") },
        Event::OperationSkipped { address } => EventV1 {
            address: Some(address.to_string()),
            message: Some("done already by this plan".into()),
            ..new("operation-skipped")
        },
        Event::Started { operations } => {
            EventV1 { message: Some(format!("{} operations", operations.len())), ..new("started") }
        }
        Event::OperationStarted { address, action } => EventV1 {
            address: Some(address.to_string()),
            message: Some(action.as_str().into()),
            ..new("operation-started")
        },
        Event::Waiting { address, step, on } => EventV1 {
            address: Some(address.to_string()),
            step: Some(step.as_str()),
            message: Some(on.clone()),
            ..new("waiting")
        },
        Event::StepStarted { address, step } => {
            EventV1 { address: Some(address.to_string()), step: Some(step.as_str()), ..new("step-started") }
        }
        Event::Output { address, step, line } => EventV1 {
            address: Some(address.to_string()),
            step: Some(step.as_str()),
            message: Some(line.clone()),
            ..new("output")
        },
        Event::StepSkipped { address, step, why } => EventV1 {
            address: Some(address.to_string()),
            step: Some(step.as_str()),
            message: Some(why.clone()),
            ..new("step-skipped")
        },
        Event::StepDone { address, step, took, note } => EventV1 {
            address: Some(address.to_string()),
            step: Some(step.as_str()),
            message: (!note.is_empty()).then(|| note.clone()),
            duration_ms: millis(took),
            ..new("step-done")
        },
        Event::StepFailed { address, step, took, error } => EventV1 {
            address: Some(address.to_string()),
            step: Some(step.as_str()),
            message: Some(error.message.clone()),
            evidence: error.evidence.clone(),
            help: error.help.clone(),
            duration_ms: millis(took),
            ..new("step-failed")
        },
        Event::Warning { address, step, message } => EventV1 {
            address: Some(address.to_string()),
            step: Some(step.as_str()),
            message: Some(message.clone()),
            ..new("warning")
        },
        Event::OperationDone { address, took, note } => EventV1 {
            address: Some(address.to_string()),
            message: note.clone(),
            duration_ms: millis(took),
            ..new("operation-done")
        },
        Event::OperationFailed { address } => {
            EventV1 { address: Some(address.to_string()), ..new("operation-failed") }
        }
        Event::OperationNotStarted { address, why } => EventV1 {
            address: Some(address.to_string()),
            message: Some(why.clone()),
            ..new("operation-not-started")
        },
    }
}
