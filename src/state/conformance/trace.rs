//! The words of the scripts: changes of few words, and what a script did and saw as text.

use std::fmt::Write as _;
use std::time::Duration;

use jiff::Timestamp;
use serde_json::json;

use super::Backend;
use crate::address::Address;
use crate::spec::name::AppName;
use crate::state::lock::{Holder, Lease, ProcessIdentity};
use crate::state::{Artifact, ArtifactKind, Change, Record, Scope, Snapshot, StepLog, Store, StoreError};

pub fn scope(project: &str, stage: Option<&str>) -> Scope {
    let name = "the tests' names are names";
    Scope { project: project.parse().expect(name), stage: stage.map(|stage| stage.parse().expect(name)) }
}

pub fn shop(backend: &dyn Backend) -> Box<dyn Store> {
    backend.open(scope("shop", None))
}

pub fn app(name: &str) -> AppName {
    name.parse().expect("the tests' names are names")
}

/// A holder on another machine: nobody here can see whether it lives.
pub fn holder(run: &str) -> Holder {
    Holder {
        run: run.into(),
        who: "ana@box".into(),
        process: ProcessIdentity {
            machine_id: "elsewhere".into(),
            boot_id: "b".into(),
            pid_namespace: "n".into(),
            pid: 7,
            start_time: 8,
        },
        job_url: Some(format!("https://ci.example/{run}")),
        reason: "norn apply".into(),
    }
}

pub fn kept(id: &str, name: &str) -> Change {
    let tag = format!("{name}:{id}");
    let body = json!({ "tag": tag });
    Change::ArtifactKept { id: id.into(), app: app(name), kind: ArtifactKind::Release, name: tag, body }
}

pub fn put(name: &str, version: u64) -> Change {
    let record =
        Record { body: json!({ "version": version }), digest: version.to_string(), protected: version > 1 };
    Change::RecordPut { address: Address::forge(&app(name)), record }
}

pub fn queued(id: &str, name: &str) -> Change {
    Change::DeploymentQueued {
        id: id.into(),
        app: app(name),
        commit_sha: "c0ffee".into(),
        image_tag: "web:c0ffee".into(),
    }
}

pub fn operation(id: &str) -> Change {
    Change::OperationStarted {
        id: id.into(),
        address: Address::deploy(&app("web")),
        action: "deploy".into(),
        intent: json!({"tag": "web:c0ffee"}),
        plan: None,
    }
}

/// An operation of a saved plan.
pub fn planned(id: &str, address: Address, plan: &str) -> Change {
    Change::OperationStarted {
        id: id.into(),
        address,
        action: "update".into(),
        intent: json!({}),
        plan: Some(plan.into()),
    }
}

pub fn step_started(id: &str, operation: &str) -> Change {
    Change::StepStarted {
        id: id.into(),
        operation: operation.into(),
        step: "build".into(),
        key: format!("key-{id}"),
        detail: json!({"deadline": 30}),
    }
}

pub fn step(id: &str, log: StepLog) -> Change {
    Change::DeploymentStep { id: id.into(), log }
}

pub fn log(step: &str, status: &str) -> StepLog {
    StepLog { step: step.into(), status: status.into(), duration_ms: 12, output: format!("of {step:?}\n") }
}

/// What a script did and saw, a line each.
#[derive(Default)]
pub struct Trace(String);

impl Trace {
    pub async fn lock(&mut self, backend: &dyn Backend, run: &str) -> (Lease, Box<dyn Store>) {
        let store = shop(backend);
        let lease = store.lock(&holder(run), Duration::ZERO).await.expect("nobody holds the lease");
        self.line(&format!("lock {run}: token {}", lease.token));
        (lease, store)
    }

    pub fn did(&mut self, what: &str, result: impl Outcome) {
        let text = format!("{what}: {}", result.text());
        self.line(&text);
    }

    pub async fn show(&mut self, store: &dyn Store) {
        let snapshot = store.snapshot().await.expect("the store is readable");
        let text = show(&snapshot);
        self.line(text.trim_end());
    }

    fn line(&mut self, text: &str) {
        self.0.push_str(text);
        self.0.push('\n');
    }

    #[track_caller]
    pub fn expect(self, expected: &str) {
        let lines =
            expected.trim_matches('\n').lines().map(|line| line.strip_prefix("        ").unwrap_or(line));
        let mut expected = lines.collect::<Vec<_>>().join("\n");
        expected.truncate(expected.trim_end_matches([' ', '\n']).len());
        assert_eq!(self.text(), expected);
    }

    pub fn text(&self) -> String {
        ordinal_tokens(self.0.trim_end())
    }
}

/// A result as a trace shows it: without what differs from run to run.
pub trait Outcome {
    fn text(self) -> String;
}

impl Outcome for bool {
    fn text(self) -> String {
        self.to_string()
    }
}

impl<T: Shown> Outcome for Result<T, StoreError> {
    fn text(self) -> String {
        let text = match self {
            Ok(value) => value.shown(),
            Err(StoreError::Locked { held, .. }) => format!("locked by {held}"),
            Err(StoreError::LeaseLost { reason }) => format!("lease lost: {reason}"),
            Err(StoreError::OtherScope { theirs, ours, .. }) => format!("of {theirs}, not of {ours}"),
            Err(StoreError::Moved { to, .. }) => format!("moved to {to}"),
            Err(StoreError::NotEmpty { table, .. }) => format!("{table} has rows"),
            Err(StoreError::Broken { why, .. }) => format!("broken: {why}"),
            Err(other) => other.to_string(),
        };
        let words = text.split_inclusive([' ', '"', ',', ')']).map(|word| {
            let time = word.trim_end_matches([' ', '"', ',', ')']);
            if time.parse::<Timestamp>().is_ok() { word.replace(time, "<time>") } else { word.to_owned() }
        });
        words.collect::<String>()
    }
}

pub trait Shown {
    fn shown(self) -> String;
}

impl Shown for () {
    fn shown(self) -> String {
        "ok".into()
    }
}

macro_rules! shown {
    ($($kind:ty)*) => {
        $(impl Shown for $kind {
            fn shown(self) -> String {
                self.to_string()
            }
        })*
    };
}
shown! { bool u64 usize String }

fn show(snapshot: &Snapshot) -> String {
    let mut text = String::new();
    for (address, record) in &snapshot.resources {
        let protected = if record.protected { ", protected" } else { "" };
        push(
            &mut text,
            format_args!("record {address}: {} digest {}{protected}", sorted(&record.body), record.digest),
        );
    }
    for row in &snapshot.deployments {
        assert!(row.steps.is_empty(), "a snapshot has no step logs");
        let end = ending(row.finished_at, &row.error);
        let status = row.status.as_str();
        push(
            &mut text,
            format_args!(
                "deployment {}: {} {} {} {status}{end}",
                row.id, row.app, row.commit_sha, row.image_tag
            ),
        );
    }
    for Artifact { id, app, kind, name, body, .. } in &snapshot.artifacts {
        push(&mut text, format_args!("{} {name} of {app}: {id} {}", kind.as_str(), sorted(body)));
    }
    for (app, row) in &snapshot.forges {
        let start = if row.started_at.is_some() { " started" } else { "" };
        let end = ending(row.finished_at, &row.error);
        let resources = sorted(&row.resources);
        push(&mut text, format_args!("forge {app}: {} {resources}{start}{end}", row.status.as_str()));
    }
    for run in &snapshot.runs {
        let Holder { who, process, reason, .. } = Holder { process: run.process.clone(), ..holder(&run.id) };
        assert_eq!((&run.who, &run.reason, &run.process), (&who, &reason, &process));
        push(
            &mut text,
            format_args!("run {}: {who} pid {}, {reason}, token {}", run.id, process.pid, run.token),
        );
    }
    for row in &snapshot.operations {
        push(
            &mut text,
            format_args!(
                "operation {} of {}: {} {} {}",
                row.id,
                row.run,
                row.action,
                row.address,
                sorted(&row.intent)
            ),
        );
    }
    for row in &snapshot.pending {
        push(
            &mut text,
            format_args!(
                "pending {} of {}: {} {} {}",
                row.id,
                row.operation,
                row.step,
                row.key,
                sorted(&row.detail)
            ),
        );
    }
    if text.is_empty() {
        text = if snapshot.exists { "an empty store\n" } else { "no store\n" }.into();
    }
    if let Some(held) = &snapshot.lock {
        push(&mut text, format_args!("lock: {}, token {}", held.holder.run, held.token));
    }
    assert_eq!(snapshot.key.is_some(), snapshot.exists, "every store has a key");
    text
}

/// JSON with its keys in order: a database may keep them in another.
fn sorted(value: &serde_json::Value) -> serde_json::Value {
    let mut value = value.clone();
    value.sort_all_objects();
    value
}

/// Whether a row has an end, and the error that it has.
pub fn ending(finished: Option<Timestamp>, error: &str) -> String {
    let finished = if finished.is_some() { " finished" } else { "" };
    let error = if error.is_empty() { String::new() } else { format!(", error {error}") };
    format!("{finished}{error}")
}

fn push(text: &mut String, line: std::fmt::Arguments<'_>) {
    writeln!(text, "{line}").expect("a string takes every text");
}

/// Tokens follow the clock: the first that a trace shows is 1, the next 2.
fn ordinal_tokens(trace: &str) -> String {
    let mut seen: Vec<&str> = Vec::new();
    let mut out = String::new();
    for word in trace.split_inclusive(|c: char| !c.is_ascii_digit()) {
        let digits = word.trim_end_matches(|c: char| !c.is_ascii_digit());
        // No other number of a trace is as long.
        if digits.len() < 10 {
            out += word;
            continue;
        }
        let at = seen.iter().position(|known| *known == digits).unwrap_or_else(|| {
            seen.push(digits);
            seen.len() - 1
        });
        out += &format!("{}{}", at + 1, &word[digits.len()..]);
    }
    out
}
