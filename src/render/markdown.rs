//! A plan as a comment of a pull request, below the size that GitHub takes.

use super::plan::Header;
use super::words;
use crate::plan::{Difference, Operation, Plan, Risk};

/// GitHub takes 65,536 characters; the rest is left to what a workflow puts around it.
const MOST: usize = 65_000;

/// The plan in Markdown.
pub fn plan(header: &Header<'_>, plan: &Plan) -> String {
    let mut out = format!("### norn plan: {}\n\n{}\n", words::counts(plan), code(&header.line()));
    if !plan.drift.is_empty() {
        out += "\n**Drift**\n\n";
        for drift in &plan.drift {
            let mended = if drift.repaired { "repaired by this plan" } else { "nothing is planned for it" };
            out += &format!("- `{}`: {} ({mended})\n", drift.app, text(&drift.found));
        }
    }
    if !plan.operations.is_empty() {
        out += "\n| | resource | action | why | risk |\n|---|---|---|---|---|\n";
        let mut left = plan.operations.len();
        for operation in &plan.operations {
            let row = row(operation);
            if out.len() + row.len() > MOST / 2 {
                break;
            }
            out += &row;
            left -= 1;
        }
        if left > 0 {
            out += &format!("\n… and {left} more; see the log of the plan.\n");
        }
    }
    let mut details = String::new();
    for operation in plan.operations.iter().filter(|operation| !operation.diff.is_empty()) {
        let detail = detail(operation);
        if out.len() + details.len() + detail.len() > MOST {
            details += "\nThe other differences are too long for a comment; see the log of the plan.\n";
            break;
        }
        details += &detail;
    }
    if !plan.untouched.is_empty() {
        let names: Vec<String> = plan.untouched.keys().take(100).map(|app| format!("`{app}`")).collect();
        out += &format!("\nLeft as they are: {}.\n", names.join(", "));
    }
    out + &details
}

fn row(operation: &Operation) -> String {
    let mut why: Vec<String> = operation.reasons.iter().map(|reason| text(&words::reason(reason))).collect();
    if let Some(blocked) = &operation.blocked {
        why.insert(0, format!("**blocked**: {}", text(&words::blocked(blocked))));
    }
    let risk = match operation.risk {
        Risk::Safe => "safe".to_owned(),
        Risk::Interrupts | Risk::Destroys => format!("**{}**", words::risk(operation.risk)),
    };
    format!(
        "| `{}` | `{}` | {} | {} | {risk} |\n",
        words::sign(operation),
        operation.address,
        operation.action.as_str(),
        why.join("<br>")
    )
}

fn detail(operation: &Operation) -> String {
    let mut lines = Vec::new();
    for diff in &operation.diff {
        match &diff.difference {
            Difference::Added(to) => lines.push(format!("+ {}: {to}", diff.field)),
            Difference::Removed(from) => lines.push(format!("- {}: {from}", diff.field)),
            Difference::Changed { from, to } => {
                lines.push(format!("- {}: {from}", diff.field));
                lines.push(format!("+ {}: {to}", diff.field));
            }
            Difference::Value { spelling } => lines.push(format!("! {}: {spelling} changed", diff.field)),
            Difference::Text(text) => {
                lines.push(format!("  {}:", diff.field));
                lines.extend(text.iter().cloned());
            }
        }
    }
    let body = lines.join("\n");
    let fence = fence(&body);
    format!(
        "\n<details><summary><code>{}</code>: {} fields</summary>\n\n{fence}diff\n{body}\n{fence}\n\n</details>\n",
        operation.address,
        operation.diff.len()
    )
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

/// Text inside a table's cell.
fn text(text: &str) -> String {
    let escaped = text.replace('\\', "\\\\").replace('|', "\\|").replace('<', "&lt;").replace('@', "&#64;");
    escaped.split_whitespace().collect::<Vec<_>>().join(" ")
}
