//! How a command ends: the exit codes, and the one error a user sees.

use std::process::ExitCode;

use crate::render::printer::Paint;

/// The exit codes of norn.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum Exit {
    Ok = 0,
    Error = 1,
    /// With `--detailed-exitcode`: there are changes.
    Changes = 2,
    /// Some of the plan was applied, some was not.
    Partly = 3,
    Locked = 4,
    /// The plan is out of date.
    Outdated = 5,
    Cancelled = 130,
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> ExitCode {
        ExitCode::from(exit as u8)
    }
}

/// What went wrong, where, and how to mend it.
#[derive(Debug)]
pub struct Failure {
    pub exit: Exit,
    pub message: String,
    /// Lines of evidence, such as the last of a log.
    pub details: Vec<String>,
    pub help: Option<String>,
}

impl Failure {
    pub fn new(message: impl Into<String>) -> Self {
        Self { exit: Exit::Error, message: message.into(), details: Vec::new(), help: None }
    }

    pub fn help(mut self, help: impl Into<String>) -> Self {
        self.help = Some(help.into());
        self
    }

    pub fn exit(mut self, exit: Exit) -> Self {
        self.exit = exit;
        self
    }

    pub fn render(&self, color: bool) -> String {
        let paint = Paint(color);
        let mut text = format!("{} {}\n", paint.red("error:"), self.message);
        for line in &self.details {
            text += &format!("  {line}\n");
        }
        if let Some(help) = &self.help {
            text += &format!("{} {help}\n", paint.cyan("help:"));
        }
        text
    }
}
