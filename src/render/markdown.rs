//! A plan as a comment of a pull request, below the size that GitHub takes.

use super::plan::Header;
use super::words;
use crate::plan::{Action, Difference, FieldDiff, Operation, Plan, Reason, Risk, Work};
use crate::scrub::visible;

/// GitHub takes 65,536 characters; the rest is left to what a workflow puts around it. Counted are
/// bytes, which are never fewer.
const MOST: usize = 60_000;
/// What one section may take, so that none takes the others' place.
const OF_DRIFT: usize = 8_000;
const OF_THE_TABLE: usize = 36_000;
const OF_A_LIST: usize = 4_000;

/// The plan in Markdown.
pub fn plan(header: &Header<'_>, plan: &Plan) -> String {
    let mut out = format!("### norn plan: {}\n\n{}\n", words::counts(plan), code(&header.line()));
    if !plan.drift.is_empty() {
        let lines = plan.drift.iter().map(|drift| {
            let mended = if drift.repaired { "repaired by this plan" } else { "not repaired by this plan" };
            let parts = words::parts(&drift.found).into_iter();
            let parts: String = parts.map(|part| format!("  - {}\n", text(&part))).collect();
            format!("- `{}`: {} ({mended})\n{parts}", drift.app, text(&words::found(&drift.found)))
        });
        out += &format!("\n**Drift**: not as norn left it\n\n{}", fitting(lines, OF_DRIFT));
    }
    if !plan.operations.is_empty() {
        out += "\n| | resource | action | why | risk |\n|---|---|---|---|---|\n";
        out += &fitting(plan.operations.iter().map(row), OF_THE_TABLE);
    }
    if !plan.untouched.is_empty() {
        let lines =
            plan.untouched.iter().map(|(app, why)| format!("- `{app}`: {}\n", text(&words::untouched(why))));
        out += &format!("\nLeft as they are:\n\n{}", fitting(lines, OF_A_LIST));
    }
    if !plan.left_out.is_empty() {
        let lines = plan.left_out.iter().map(|address| format!("- `{address}`\n"));
        out += &format!("\nNot selected, though due:\n\n{}", fitting(lines, OF_A_LIST));
    }
    if !plan.held.is_empty() {
        let line = |(app, tag): (_, &String)| {
            format!("- `{}`: `norn apply --redeploy {app}` deploys it again\n", text(tag))
        };
        out += &format!(
            "\nHeld back, as they were gone back from:\n\n{}",
            fitting(plan.held.iter().map(line), OF_A_LIST)
        );
    }
    if !plan.last_seen.is_empty() {
        let lines = plan.last_seen.iter().map(|app| format!("- `{app}`\n"));
        let lines = fitting(lines, OF_A_LIST);
        out += &format!("\nNot looked up (`--offline`), taken at the commit seen last:\n\n{lines}");
    }
    if !plan.unchanged.is_empty() {
        out += &format!("\n{} unchanged.\n", words::count(plan.unchanged.len(), "app", "apps"));
    }
    let left = MOST.saturating_sub(out.len());
    out + &fitting(plan.operations.iter().filter_map(detail), left)
}

/// As many of the parts as `most` bytes hold, and how many do not fit.
fn fitting(parts: impl Iterator<Item = String>, most: usize) -> String {
    let mut out = String::new();
    let mut left = 0;
    for part in parts {
        if left > 0 || out.len() + part.len() > most {
            left += 1;
        } else {
            out += &part;
        }
    }
    if left > 0 {
        out += &format!("\n… and {left} more, which the log of the plan shows.\n");
    }
    out
}

fn row(operation: &Operation) -> String {
    let mut why: Vec<String> =
        operation.reasons.iter().map(|reason| text(&words::cut(&words::reason(reason), 500))).collect();
    if let Some(blocked) = &operation.blocked {
        why.insert(0, format!("**blocked**: {}", text(&words::blocked(blocked))));
    }
    if let Work::Teardown(work) = &operation.work {
        why.push(format!("keeps its {}", text(&words::kept(work))));
    }
    let risk = match operation.risk {
        Risk::Safe => "safe".to_owned(),
        Risk::Interrupts(why) => format!("**interrupts**: {}", words::interruption(why)),
        Risk::Destroys => "**destroys**".to_owned(),
    };
    format!(
        "| `{}` | `{}` | {} | {} | {risk} |\n",
        words::sign(operation),
        operation.address,
        operation.action.as_str(),
        why.join("<br>")
    )
}

/// The fields that differ and what is done, folded away.
fn detail(operation: &Operation) -> Option<String> {
    if operation.action == Action::Teardown {
        return None;
    }
    // What was never live is told by the deploy, as a whole.
    let first = operation.action == Action::Forge || operation.reasons.contains(&Reason::NoRelease);
    let mut lines: Vec<String> = operation.diff.iter().filter(|_| !first).flat_map(difference).collect();
    let effects = words::effects(operation);
    let width = effects.iter().map(|(label, _)| label.len()).max().unwrap_or(0);
    lines.extend(effects.iter().map(|(label, text)| format!("  {label:<width$}  {text}")));
    if lines.is_empty() {
        return None;
    }
    let body = lines.iter().map(|line| visible(line)).collect::<Vec<_>>().join("\n");
    let fence = fence(&body);
    let address = &operation.address;
    let fields = match operation.diff.len() {
        _ if first => String::new(),
        0 => String::new(),
        n => format!(", {}", words::count(n, "field", "fields")),
    };
    Some(format!(
        "\n<details><summary><code>{address}</code>{fields}</summary>\n\n{fence}diff\n{body}\n{fence}\n\n</details>\n"
    ))
}

/// A field's difference as the lines of a diff, which GitHub paints.
fn difference(diff: &FieldDiff) -> Vec<String> {
    let name = &diff.field;
    let whole = |sign: char, text: &str| -> Vec<String> {
        text.trim_end().lines().map(|line| format!("{sign} {name}: {line}")).collect()
    };
    match &diff.difference {
        Difference::Added(to) => whole('+', to),
        Difference::Removed(from) => whole('-', from),
        Difference::Changed { from, to } => vec![format!("- {name}: {from}"), format!("+ {name}: {to}")],
        Difference::Value { spelling } => vec![format!("! {name}: {}", words::value_changed(spelling))],
        Difference::Text(lines) => {
            std::iter::once(format!("  {name}:")).chain(lines.iter().cloned()).collect()
        }
    }
}

/// A fence that the text itself does not hold.
fn fence(text: &str) -> String {
    let mut fence = "```".to_owned();
    while text.contains(&fence) {
        fence.push('`');
    }
    fence
}

fn code(line: &str) -> String {
    format!("`{}`", line.replace('`', "'"))
}

/// Text that means itself, inside a table's cell or a list.
fn text(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.split_whitespace().collect::<Vec<_>>().join(" ").chars() {
        match c {
            '\\' | '`' | '*' | '_' | '[' | ']' | '|' | '~' => {
                out.push('\\');
                out.push(c);
            }
            '<' => out += "&lt;",
            '>' => out += "&gt;",
            '&' => out += "&amp;",
            // Neither a mention nor a link to an issue.
            '@' => out += "&#64;",
            '#' => out += "&#35;",
            c if c.is_control() => out.extend(c.escape_default()),
            c => out.push(c),
        }
    }
    out
}
