//! The words for what a plan holds, the same in every output.

use crate::desired::Definition;
use crate::plan::{Action, Blocked, Operation, Plan, Reason, Risk, Work};

/// Why an operation is planned.
pub fn reason(reason: &Reason) -> String {
    match reason {
        Reason::NewInSpec => "new in the spec".into(),
        Reason::NotInSpec => "no longer in the spec".into(),
        Reason::Destroyed => "you asked to destroy it".into(),
        Reason::RenamedFrom(name) => format!("renamed from {name}"),
        Reason::DefinitionChanged => "its definition changed".into(),
        Reason::ProtectionChanged { now: true } => "it becomes protected".into(),
        Reason::ProtectionChanged { now: false } => "it is protected no longer".into(),
        Reason::NoRelease => "no release is live yet".into(),
        Reason::Commit { from, to } => format!("commit {} → {}", short(from), short(to)),
        Reason::BuildChanged => "`build.command` changed".into(),
        Reason::SourceChanged => "its source is another place".into(),
        Reason::Redeploy => "you asked to deploy it again".into(),
        Reason::Restart => "you asked to restart it".into(),
        Reason::NotRunning { found } => format!("drift: {found}"),
        Reason::ReleaseMissing => "drift: the folder of its release is gone".into(),
        Reason::LiveUnrecorded => "it serves already, a run died before it wrote that down".into(),
        Reason::LastFailed { error } => {
            format!("the last attempt failed: {}", error.lines().next().unwrap_or_default())
        }
    }
}

/// A stable name of a reason, for scripts.
pub fn reason_code(reason: &Reason) -> &'static str {
    match reason {
        Reason::NewInSpec => "new",
        Reason::NotInSpec => "removed",
        Reason::Destroyed => "destroyed",
        Reason::RenamedFrom(_) => "renamed",
        Reason::DefinitionChanged => "definition",
        Reason::ProtectionChanged { .. } => "protection",
        Reason::NoRelease => "no-release",
        Reason::Commit { .. } => "commit",
        Reason::BuildChanged => "build",
        Reason::SourceChanged => "source",
        Reason::Redeploy => "redeploy",
        Reason::Restart => "restart",
        Reason::NotRunning { .. } => "drift",
        Reason::ReleaseMissing => "release-missing",
        Reason::LiveUnrecorded => "unrecorded",
        Reason::LastFailed { .. } => "last-failed",
    }
}

pub fn blocked(blocked: &Blocked) -> String {
    match blocked {
        Blocked::Protected => "it is protected: set `protected: false` and apply that first".into(),
        Blocked::CommitNotLookedUp => "its commit was not looked up: plan without --offline".into(),
        Blocked::ElsewhereRunning { host } => format!("it runs on {host}: apply there"),
    }
}

/// The sign before an operation.
pub fn sign(operation: &Operation) -> &'static str {
    match (operation.action, &operation.work) {
        (Action::Forge, _) => "+",
        (Action::Teardown, _) => "-",
        (Action::Deploy, Work::Deploy(work)) if work.record_only.is_some() => "=",
        (Action::Deploy, _) => ">",
        (Action::Update, _) => "~",
    }
}

pub fn risk(risk: Risk) -> &'static str {
    match risk {
        Risk::Safe => "safe",
        Risk::Interrupts => "interrupts",
        Risk::Destroys => "destroys",
    }
}

/// `local:` and 12 digits, or 12 digits.
pub fn short(commit: &str) -> String {
    match commit.strip_prefix("local:") {
        Some(hex) => format!("local:{}", hex.get(..12).unwrap_or(hex)),
        None => commit.get(..12).unwrap_or(commit).to_owned(),
    }
}

/// How many of each, such as `1 to create, 2 to update, 3 to deploy, 1 to tear down`.
pub fn counts(plan: &Plan) -> String {
    let count = |action: Action| plan.operations.iter().filter(|o| o.action == action).count();
    let parts: Vec<String> = [
        (count(Action::Forge), "to forge"),
        (count(Action::Update), "to update"),
        (count(Action::Deploy), "to deploy"),
        (count(Action::Teardown), "to tear down"),
    ]
    .into_iter()
    .filter(|(n, _)| *n > 0)
    .map(|(n, what)| format!("{n} {what}"))
    .collect();
    if parts.is_empty() { "no changes".into() } else { parts.join(", ") }
}

/// What a definition is, in one line.
pub fn definition(definition: &Definition) -> String {
    let replicas = match definition.replicas {
        1 => "1 replica".to_owned(),
        n => format!("{n} replicas"),
    };
    match definition.port {
        Some(port) => format!("{replicas} behind port {port}"),
        None => replicas,
    }
}
