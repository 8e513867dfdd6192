//! Telling of a run while it goes on: bars, lines or JSON.

use std::io::{self, IsTerminal};

use jiff::Timestamp;

use super::args::{Global, LogFormat};
use crate::apply::Event;
use crate::render::Printer;
use crate::render::bars::Bars;
use crate::render::events_json;
use crate::render::lines::Lines;

/// Tells what happens, in the way that suits the reader.
pub enum Talker {
    Json(Printer),
    Bars(Bars),
    Lines(Lines, Printer),
}

impl Talker {
    pub fn new(global: &Global, format: LogFormat, printer: Printer) -> Self {
        let github = std::env::var_os("GITHUB_ACTIONS").is_some();
        let terminal = io::stderr().is_terminal();
        let lines = |github| Self::Lines(Lines::new(github, global.verbose > 0), printer);
        match format {
            _ if global.json => Self::Json(printer),
            LogFormat::Progress => Self::Bars(Bars::new(printer.err_color, printer.width)),
            LogFormat::Plain => lines(false),
            LogFormat::Github => lines(true),
            LogFormat::Auto if github => lines(true),
            LogFormat::Auto if terminal && !printer.quiet && global.verbose == 0 => {
                Self::Bars(Bars::new(printer.err_color, printer.width))
            }
            LogFormat::Auto => lines(false),
        }
    }

    pub fn say(&mut self, event: &Event) {
        let now = Timestamp::now();
        match self {
            Self::Json(printer) => printer.data(&events_json::event(event, now).line()),
            Self::Bars(bars) => bars.draw(event),
            Self::Lines(lines, printer) => {
                let text = lines.text(event, now);
                match event {
                    _ if text.is_empty() => {}
                    Event::StepFailed { .. } => printer.alert(&text),
                    _ => printer.talk(&text),
                }
            }
        }
    }

    /// Tells what is no event of the run, such as that a signal came.
    pub fn alert(&self, text: &str) {
        match self {
            Self::Json(printer) | Self::Lines(_, printer) => printer.alert(text),
            Self::Bars(bars) => bars.print(text),
        }
    }

    pub fn finish(&mut self) {
        if let Self::Bars(bars) = self {
            bars.finish();
        }
    }
}
