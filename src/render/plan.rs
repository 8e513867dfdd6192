//! A plan as a person reads it at a terminal.

use super::printer::Paint;
use super::words;
use crate::plan::saved::SavedV1;
use crate::plan::{Action, Difference, FieldDiff, Operation, Plan, Reason};
use crate::scrub::visible;
use crate::state::Scope;

/// What stands above every plan.
pub struct Header<'a> {
    pub scope: &'a Scope,
    /// Where the state is.
    pub state: String,
    pub resources: usize,
    /// Machines that the user says are gone for good.
    pub lost: &'a [String],
    /// The file that the plan is saved in, if it is.
    pub saved: Option<&'a SavedV1>,
}

impl<'a> Header<'a> {
    /// Of a plan that is not saved, with the state where it mostly is.
    #[cfg(any(test, fuzzing))]
    pub fn usual(scope: &'a Scope, resources: usize) -> Self {
        Self { scope, state: ".norn/state.db".into(), resources, lost: &[], saved: None }
    }

    /// Such as `project shop · stage prod · state .norn/state.db (2 resources)`.
    pub fn line(&self) -> String {
        let stage = self.scope.stage.as_ref().map(|stage| format!(" · stage {stage}")).unwrap_or_default();
        let resources = words::count(self.resources, "resource", "resources");
        let state = visible(&self.state);
        let lost = match self.lost {
            [] => String::new(),
            lost => format!(" · taken to be gone for good: {}", visible(&lost.join(", "))),
        };
        format!("project {}{stage} · state {state} ({resources}){lost}", self.scope.project)
    }
}

/// What is said of a saved plan below it.
pub fn stamp(saved: &SavedV1) -> String {
    let SavedV1 { created_at, expires_at, .. } = saved;
    let norn = visible(&saved.norn);
    format!(
        "Saved at {created_at:.0} by norn {norn}, valid until {expires_at:.0}. Its seal is not checked here: `norn apply` does.\n"
    )
}

/// How wide the addresses may make their column.
const WIDEST: usize = 32;

/// The whole plan.
pub fn human(header: &Header<'_>, plan: &Plan, color: bool) -> String {
    let paint = Paint(color);
    let mut out = format!("{}\n", paint.bold(&header.line()));
    if !plan.drift.is_empty() {
        out += "\nDrift: not as norn left it\n";
        let width = width(plan.drift.iter().map(|drift| drift.app.as_str().len()));
        for drift in &plan.drift {
            let mended = if drift.repaired { "this plan repairs it" } else { "not repaired by this plan" };
            let found = visible(&words::found(&drift.found));
            out +=
                &format!("  {} {:<width$}  {found} ({mended})\n", paint.yellow("!"), drift.app.to_string());
            for part in words::parts(&drift.found) {
                out += &format!("      {}\n", visible(&part));
            }
        }
    }
    if !plan.operations.is_empty() {
        let width = width(plan.operations.iter().map(|operation| operation.address.to_string().len()));
        let actions = plan.operations.iter().map(|operation| operation.action.as_str().len());
        let widths = (width, actions.max().unwrap_or(0));
        let mut app = None;
        for operation in &plan.operations {
            if app.replace(&operation.address.name) != Some(&operation.address.name) {
                out.push('\n');
            }
            out += &self::operation(operation, widths, paint);
        }
    }
    out += &footnotes(plan);
    let unchanged = plan.unchanged.len();
    out += &match (plan.operations.is_empty(), unchanged) {
        (true, 0) => "\nNo changes.\n".to_owned(),
        (true, n) => format!("\nNo changes: {} as the spec wants.\n", words::count(n, "app is", "apps are")),
        (false, 0) => format!("\nPlan: {}.\n", words::counts(plan)),
        (false, n) => {
            format!("\nPlan: {}; {} unchanged.\n", words::counts(plan), words::count(n, "app", "apps"))
        }
    };
    out
}

fn width(lengths: impl Iterator<Item = usize>) -> usize {
    lengths.filter(|length| *length <= WIDEST).max().unwrap_or(0)
}

fn footnotes(plan: &Plan) -> String {
    let mut out = String::new();
    if !plan.untouched.is_empty() {
        out += "\nLeft as they are\n";
        let width = width(plan.untouched.keys().map(|app| app.as_str().len()));
        for (app, why) in &plan.untouched {
            out += &format!("  · {:<width$}  {}\n", app.to_string(), visible(&words::untouched(why)));
        }
    }
    let list = |names: Vec<String>| names.join(", ");
    if !plan.left_out.is_empty() {
        let names = list(plan.left_out.iter().map(ToString::to_string).collect());
        out += &format!("\nNot selected, though due: {names}\n");
    }
    if !plan.held.is_empty() {
        out += "\nHeld back, as they were gone back from\n";
        for (app, tag) in &plan.held {
            out += &format!("  · {tag}  `norn apply --redeploy {app}` deploys it again\n");
        }
    }
    if !plan.last_seen.is_empty() {
        let names = list(plan.last_seen.iter().map(ToString::to_string).collect());
        out += &format!("\nNot looked up (--offline), taken at the commit seen last: {names}\n");
    }
    out
}

fn operation(operation: &Operation, (width, actions): (usize, usize), paint: Paint) -> String {
    let sign = words::sign(operation);
    let painted = match sign {
        "+" | ">" => paint.green(sign),
        "-" => paint.red(sign),
        _ => paint.yellow(sign),
    };
    // A failure has a line of its own, unless nothing else is to be said.
    let alone = operation.reasons.len() == 1;
    let failed = |reason: &&Reason| !alone && matches!(reason, Reason::LastFailed { .. });
    let others = operation.reasons.iter().filter(|reason| !failed(reason)).map(words::reason);
    let reasons: Vec<String> = others.map(|text| visible(&text)).collect();
    let address = paint.bold(&format!("{:<width$}", operation.address.to_string()));
    let head =
        format!("{painted} {address}  {:<actions$}  {}", operation.action.as_str(), reasons.join("; "));
    let mut out = format!("{}\n", head.trim_end());
    let mut line = |text: &str| out += &format!("    {}\n", text.trim_end());
    if let Some(blocked) = &operation.blocked {
        line(&paint.red(&format!("BLOCKED: {}", visible(&words::blocked(blocked)))));
    }
    if let Some(failure) = operation.reasons.iter().find(failed) {
        line(&paint.yellow(&visible(&words::reason(failure))));
    }
    // What was never live is told by the deploy, as a whole.
    let first = operation.action == Action::Forge || operation.reasons.contains(&Reason::NoRelease);
    for field in operation.diff.iter().filter(|_| !first) {
        for text in difference(field, paint) {
            line(&text);
        }
    }
    let effects = words::effects(operation);
    let labels = effects.iter().map(|(label, _)| label.len()).max().unwrap_or(0);
    for (label, text) in effects {
        let painted = match label {
            "interrupts" => paint.yellow(&format!("{label:<labels$}")),
            _ => paint.dim(&format!("{label:<labels$}")),
        };
        line(&format!("{painted}  {}", visible(&text)));
    }
    out
}

/// How much of a value is shown on its line.
const SHOWN: usize = 160;

/// One field's difference, a line each.
fn difference(field: &FieldDiff, paint: Paint) -> Vec<String> {
    let name = visible(&field.field);
    let whole = |sign: char, text: &str| -> Vec<String> {
        let mut lines = text.trim_end().lines();
        let head = match text.trim_end().contains('\n') {
            true => format!("{sign} {name}:"),
            false => {
                let only = lines.next().unwrap_or_default();
                format!("{sign} {name}: {}", words::cut(&visible(only), SHOWN))
            }
        };
        let rest = lines.map(|line| format!("    {sign}{}", visible(line)));
        std::iter::once(head).chain(rest).collect()
    };
    let painted = |lines: Vec<String>, color: fn(Paint, &str) -> String| -> Vec<String> {
        lines.iter().map(|line| color(paint, line)).collect()
    };
    match &field.difference {
        Difference::Added(text) => painted(whole('+', text), Paint::green),
        Difference::Removed(text) => painted(whole('-', text), Paint::red),
        Difference::Changed { from, to } => {
            vec![format!("~ {name}: {} → {}", visible(from), visible(to))]
        }
        Difference::Value { spelling } => {
            vec![format!("~ {name}: {}", visible(&words::value_changed(spelling)))]
        }
        Difference::Text(lines) => {
            let shown = lines.iter().map(|text| {
                let line = format!("    {}", visible(text));
                match text.chars().next() {
                    Some('+') => paint.green(&line),
                    Some('-') => paint.red(&line),
                    _ => line,
                }
            });
            std::iter::once(format!("~ {name}:")).chain(shown).collect()
        }
    }
}
