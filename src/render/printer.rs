//! The two streams, and what the terminal can show.

use std::io::{self, IsTerminal, Write};

/// How norn writes to its reader.
#[derive(Debug, Clone, Copy)]
pub struct Printer {
    /// Whether stdout takes colour.
    pub out_color: bool,
    /// Whether stderr takes colour.
    pub err_color: bool,
    /// Nothing but errors on stderr.
    pub quiet: bool,
    /// The width of the terminal, or 100 without one.
    pub width: usize,
}

impl Printer {
    /// `color` is what the user asked for; `None` leaves it to the streams.
    pub fn new(color: Option<bool>, quiet: bool) -> Self {
        Self {
            out_color: color.unwrap_or_else(|| io::stdout().is_terminal()),
            err_color: color.unwrap_or_else(|| io::stderr().is_terminal()),
            quiet,
            width: width(),
        }
    }

    /// Writes data to stdout. A closed pipe is the reader's choice and no error.
    pub fn data(&self, text: &str) {
        forgive_closed(write(&mut io::stdout().lock(), text));
    }

    /// Writes talk to stderr, unless the user wants quiet.
    pub fn talk(&self, text: &str) {
        if !self.quiet {
            self.alert(text);
        }
    }

    /// Writes to stderr what even a quiet user must see.
    pub fn alert(&self, text: &str) {
        forgive_closed(write(&mut io::stderr().lock(), text));
    }
}

fn write(stream: &mut dyn Write, text: &str) -> io::Result<()> {
    stream.write_all(text.as_bytes())?;
    if !text.ends_with('\n') {
        stream.write_all(b"\n")?;
    }
    stream.flush()
}

fn forgive_closed(result: io::Result<()>) {
    // There is no one left to tell: a full disk behind a redirect shows in the next command.
    let _ = result;
}

fn width() -> usize {
    let asked = std::env::var("COLUMNS").ok().and_then(|columns| columns.parse().ok());
    asked
        .or_else(|| rustix::termios::tcgetwinsize(io::stderr()).ok().map(|size| usize::from(size.ws_col)))
        .filter(|width| *width >= 40)
        .unwrap_or(100)
}

/// Paints text where colour is wanted.
#[derive(Debug, Clone, Copy)]
pub struct Paint(pub bool);

impl Paint {
    pub fn red(self, text: &str) -> String {
        self.code("31", text)
    }

    pub fn green(self, text: &str) -> String {
        self.code("32", text)
    }

    pub fn yellow(self, text: &str) -> String {
        self.code("33", text)
    }

    pub fn cyan(self, text: &str) -> String {
        self.code("36", text)
    }

    pub fn bold(self, text: &str) -> String {
        self.code("1", text)
    }

    pub fn dim(self, text: &str) -> String {
        self.code("2", text)
    }

    fn code(self, code: &str, text: &str) -> String {
        if self.0 { format!("\u{1b}[{code}m{text}\u{1b}[0m") } else { text.to_owned() }
    }
}
