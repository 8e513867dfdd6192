//! Progress at a terminal: a spinner an operation with its step and last words, a bar for all.

use std::collections::BTreeMap;
use std::time::Duration;

use indicatif::{MultiProgress, ProgressBar, ProgressDrawTarget, ProgressStyle};

use super::echo::Muted;
use super::lines::{evidence, seconds};
use super::printer::Paint;
use crate::address::Address;
use crate::apply::Event;

/// Draws events on stderr.
pub struct Bars {
    all: MultiProgress,
    total: Option<ProgressBar>,
    running: BTreeMap<Address, ProgressBar>,
    paint: Paint,
    width: usize,
    _quiet_keys: Muted,
}

impl Bars {
    pub fn new(color: bool, width: usize) -> Self {
        Self {
            all: MultiProgress::with_draw_target(ProgressDrawTarget::stderr_with_hz(10)),
            total: None,
            running: BTreeMap::new(),
            paint: Paint(color),
            width,
            _quiet_keys: Muted::new(),
        }
    }

    pub fn draw(&mut self, event: &Event) {
        match event {
            Event::Recovered { what } => self.print(&format!("· recovered: {what}")),
            Event::OperationSkipped { address } => {
                self.print(&format!("· {address}: done already by this plan"));
            }
            Event::Started { operations } => {
                let style = ProgressStyle::with_template("[{pos}/{len} done] {elapsed} {bar:20}");
                let bar = ProgressBar::new(operations.len() as u64);
                bar.set_style(style.expect("the template is well formed"));
                let bar = self.all.add(bar);
                bar.enable_steady_tick(Duration::from_millis(200));
                self.total = Some(bar);
            }
            Event::OperationStarted { address, .. } => {
                let style = ProgressStyle::with_template("{spinner} {prefix:22} {elapsed:>4} {wide_msg}");
                let bar = ProgressBar::new_spinner();
                bar.set_style(style.expect("the template is well formed"));
                let bar = match &self.total {
                    Some(total) => self.all.insert_before(total, bar),
                    None => self.all.add(bar),
                };
                bar.set_prefix(address.to_string());
                bar.enable_steady_tick(Duration::from_millis(100));
                self.running.insert(address.clone(), bar);
            }
            Event::Waiting { address, step, on } => {
                self.say(address, &format!("{}: waits for {on}", step.as_str()));
            }
            Event::StepStarted { address, step } => self.say(address, step.as_str()),
            Event::Output { address, step, line } => {
                self.say(address, &format!("{}: {}", step.as_str(), printable(line, self.width)));
            }
            Event::StepSkipped { .. } => {}
            Event::StepDone { address, step, took, .. } => {
                let text = format!("{} done in {}", step.as_str(), seconds(*took));
                self.say(address, &text);
            }
            Event::StepFailed { address, step, took, error } => {
                let head =
                    format!("{address} {} failed after {}: {}", step.as_str(), seconds(*took), error.message);
                let text = format!("{} {head}\n{}", self.paint.red("✗"), evidence(error));
                self.print(text.trim_end());
            }
            Event::Warning { address, step, message } => {
                let text = format!("{} {address} {}: {message}", self.paint.yellow("!"), step.as_str());
                self.print(&text);
            }
            Event::OperationDone { address, took, note } => {
                self.end(address);
                let note = note.as_ref().map(|note| format!("  {note}")).unwrap_or_default();
                let text =
                    format!("{} {:<22} {}{note}", self.paint.green("✓"), address.to_string(), seconds(*took));
                self.print(&text);
            }
            Event::OperationFailed { address } => self.end(address),
            Event::OperationNotStarted { address, why } => {
                self.end(address);
                self.print(&format!("· {address} not done: {why}"));
            }
        }
    }

    /// Takes the bars away; what was printed stays.
    pub fn finish(&mut self) {
        for bar in self.running.values() {
            bar.finish_and_clear();
        }
        if let Some(total) = &self.total {
            total.finish_and_clear();
        }
    }

    fn say(&self, address: &Address, text: &str) {
        if let Some(bar) = self.running.get(address) {
            bar.set_message(text.to_owned());
        }
    }

    fn end(&mut self, address: &Address) {
        if let Some(bar) = self.running.remove(address) {
            bar.finish_and_clear();
            self.all.remove(&bar);
        }
        if let Some(total) = &self.total {
            total.inc(1);
        }
    }

    /// Prints a text above the bars.
    pub fn print(&self, text: &str) {
        // `println` of bars drops the text where the target is hidden; this never does.
        self.all.suspend(|| super::Printer::new(None, false).alert(text));
    }
}

/// A command's line without what would move the cursor, as long as fits.
fn printable(line: &str, width: usize) -> String {
    let mut out = String::new();
    let mut escape = false;
    for c in line.chars() {
        match c {
            '\u{1b}' => escape = true,
            _ if escape => escape = !c.is_ascii_alphabetic(),
            c if c.is_control() => out.push(' '),
            c => out.push(c),
        }
        if out.len() >= width {
            break;
        }
    }
    out
}
