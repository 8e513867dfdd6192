//! How a run ended, and how to go on.

use std::collections::BTreeMap;

use super::printer::Paint;
use crate::address::Address;
use crate::apply::{Outcome, Stopped};

/// The last words of a run. `command` is what goes on with it, such as `norn apply`; `urls` are
/// where apps are reached.
pub fn text(outcome: &Outcome, command: &str, urls: &BTreeMap<String, String>, color: bool) -> String {
    let paint = Paint(color);
    let failed: Vec<&Address> = outcome
        .stopped
        .iter()
        .filter(|(_, stopped)| matches!(stopped, Stopped::Failed { .. }))
        .map(|(address, _)| address)
        .collect();
    let not_started = outcome.stopped.len() - failed.len();
    let mut out = String::new();
    if outcome.succeeded() {
        out += &format!("{} {} done.\n", paint.green("Applied:"), outcome.done.len());
    } else {
        let head = match (outcome.cancelled, outcome.done.is_empty()) {
            (true, _) => "Cancelled:",
            (false, true) => "Not applied:",
            (false, false) => "Applied in part:",
        };
        out += &format!(
            "{} {} done, {} failed, {not_started} not done.\n",
            paint.red(head),
            outcome.done.len(),
            failed.len()
        );
        for address in &failed {
            out += &format!("  failed: {address}\n");
        }
        if let Some(why) = &outcome.unwritten {
            out += &format!("The end of the run could not be written: {why}.\n");
        }
        let mend = if failed.is_empty() { "Run" } else { "Mend what failed and run" };
        out += &format!("What is done stays done. {mend} `{command}` again: it goes on from here.\n");
    }
    for (app, url) in urls {
        out += &format!("  {app}: {}\n", paint.cyan(url));
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_run_that_failed_goes_on_with_its_own_command() {
        let outcome = Outcome { cancelled: true, ..Outcome::default() };
        let text = text(&outcome, "norn destroy", &BTreeMap::new(), false);
        assert!(text.contains("Run `norn destroy` again"), "{text}");
        assert!(!text.contains("norn apply") && !text.contains("failed and"), "{text}");
    }
}
