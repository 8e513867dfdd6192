//! A plan as a person reads it at a terminal.

use super::printer::Paint;
use super::words;
use crate::plan::{Difference, Operation, Plan, Risk, Work};
use crate::state::Scope;

/// What stands above every plan.
pub struct Header<'a> {
    pub scope: &'a Scope,
    /// Where the state is.
    pub state: &'a str,
    pub resources: usize,
}

impl Header<'_> {
    /// Such as `project shop · stage prod · state .norn/state.db (2 resources)`.
    pub fn line(&self) -> String {
        let stage = self.scope.stage.as_ref().map(|stage| format!(" · stage {stage}")).unwrap_or_default();
        let resources = match self.resources {
            1 => "1 resource".to_owned(),
            n => format!("{n} resources"),
        };
        format!("project {}{stage} · state {} ({resources})", self.scope.project, self.state)
    }
}

/// The whole plan.
pub fn human(header: &Header<'_>, plan: &Plan, color: bool) -> String {
    let paint = Paint(color);
    let mut out = format!("{}\n", paint.bold(&header.line()));
    if !plan.drift.is_empty() {
        out += "\nDrift, found here and not in the spec:\n";
        for drift in &plan.drift {
            let mended = if drift.repaired { "the plan repairs it" } else { "nothing is planned for it" };
            out += &format!("  ! {}: {} ({mended})\n", drift.app, drift.found);
        }
    }
    if !plan.operations.is_empty() {
        out.push('\n');
        for operation in &plan.operations {
            out += &self::operation(operation, paint);
        }
    }
    if !plan.untouched.is_empty() {
        out += "\nLeft as they are:\n";
        for (app, why) in &plan.untouched {
            out += &format!("  · {app}: {why}\n");
        }
    }
    out += &match (plan.operations.is_empty(), plan.unchanged.len()) {
        (true, 0) => "\nNo changes.\n".to_owned(),
        (true, n) => {
            format!("\nNo changes: {n} {} as the spec wants.\n", if n == 1 { "app is" } else { "apps are" })
        }
        (false, 0) => format!("\nPlan: {}.\n", words::counts(plan)),
        (false, n) => format!("\nPlan: {}; {n} unchanged.\n", words::counts(plan)),
    };
    out
}

fn operation(operation: &Operation, paint: Paint) -> String {
    let sign = words::sign(operation);
    let painted = match sign {
        "+" | ">" => paint.green(sign),
        "-" => paint.red(sign),
        _ => paint.yellow(sign),
    };
    let reasons: Vec<String> = operation.reasons.iter().map(words::reason).collect();
    let address = paint.bold(&format!("{:<22}", operation.address.to_string()));
    let mut out = format!("{painted} {address} {:<9} {}\n", operation.action.as_str(), reasons.join("; "));
    let mut line = |text: &str| out += &format!("    {text}\n");
    if let Some(blocked) = &operation.blocked {
        line(&paint.red(&format!("BLOCKED: {}", words::blocked(blocked))));
    }
    match &operation.work {
        Work::Deploy(work) => {
            if work.record_only.is_none() {
                let from = match &work.source {
                    crate::desired::Source::Local { folder, .. } => format!("folder {folder}"),
                    crate::desired::Source::Git { url, reference, .. } => {
                        format!("{} {}", redact(url), reference.as_str())
                    }
                };
                line(&format!("{} from {from} as {}", words::short(&work.commit), work.tag));
            }
        }
        Work::Forge(work) => {
            if let Some(roll) = &work.roll {
                line(&format!("rolls {} to {}", roll.release.tag, words::definition(&roll.definition)));
            }
        }
        Work::Teardown(work) => line(&format!("keeps {}", work.keeps.join(" and "))),
    }
    match operation.risk {
        Risk::Interrupts => {
            line(&paint.yellow("interrupts: clients lose their connections while it restarts"))
        }
        Risk::Safe | Risk::Destroys => {}
    }
    for field in &operation.diff {
        match &field.difference {
            Difference::Added(text) => {
                line(&paint.green(&format!("+ {}: {}", field.field, first_line(text))))
            }
            Difference::Removed(text) => {
                line(&paint.red(&format!("- {}: {}", field.field, first_line(text))))
            }
            Difference::Changed { from, to } => line(&format!("~ {}: {from} → {to}", field.field)),
            Difference::Value { spelling } => line(&format!("~ {}: {spelling} changed", field.field)),
            Difference::Text(lines) => {
                line(&format!("~ {}:", field.field));
                for text in lines {
                    let text = format!("    {text}");
                    line(&match text.trim_start().chars().next() {
                        Some('+') => paint.green(&text),
                        Some('-') => paint.red(&text),
                        _ => text,
                    });
                }
            }
        }
    }
    let steps: Vec<&str> =
        operation.steps.iter().filter(|s| s.skip.is_none()).map(|planned| planned.step.as_str()).collect();
    if !steps.is_empty() {
        line(&paint.dim(&format!("steps {}", steps.join(", "))));
    }
    let waits: Vec<String> = operation
        .waits
        .iter()
        .filter(|wait| wait.of.name != operation.address.name)
        .map(|wait| wait.of.to_string())
        .collect();
    if !waits.is_empty() {
        line(&paint.dim(&format!("goes live after {}", waits.join(", "))));
    }
    out
}

fn first_line(text: &str) -> String {
    match text.split_once('\n') {
        Some((first, _)) => format!("{first} …"),
        None => text.to_owned(),
    }
}

/// A URL without its password.
pub fn redact(url: &str) -> String {
    match url::Url::parse(url) {
        Ok(mut parsed)
            if parsed.password().is_some()
                || (!parsed.username().is_empty() && parsed.scheme().starts_with("http")) =>
        {
            let _ = parsed.set_password(None);
            let _ = parsed.set_username("");
            parsed.to_string()
        }
        _ => url.to_owned(),
    }
}
