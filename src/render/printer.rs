//! The two streams, and what the terminal can show.

use std::io::{self, IsTerminal, Write};
use std::sync::atomic::{AtomicBool, Ordering};

/// Set once data could not be written.
static LOST: AtomicBool = AtomicBool::new(false);

/// Whether anyone reads stdout still.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reader {
    There,
    Gone,
}

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

    /// Writes data to stdout. A closed pipe is the reader's choice and no error; what else keeps
    /// data from its file is told, and remembered for [`lost_data`](Self::lost_data).
    pub fn data(&self, text: &str) {
        if let Err(error) = self.follow(text)
            && !LOST.swap(true, Ordering::Relaxed)
        {
            self.alert(&format!(
                "{} the output cannot be written: {error}",
                Paint(self.err_color).red("error:")
            ));
        }
    }

    /// Writes data that goes on until the reader has enough.
    ///
    /// # Errors
    /// [`io::ErrorKind::BrokenPipe`] never is one: see [`Reader::Gone`].
    pub fn follow(&self, text: &str) -> io::Result<Reader> {
        match write(&mut io::stdout().lock(), text) {
            Ok(()) => Ok(Reader::There),
            Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(Reader::Gone),
            Err(error) => Err(error),
        }
    }

    /// Whether data was not written although its reader wanted it.
    pub fn lost_data() -> bool {
        LOST.load(Ordering::Relaxed)
    }

    /// Writes talk to stderr, unless the user wants quiet.
    pub fn talk(&self, text: &str) {
        if !self.quiet {
            self.alert(text);
        }
    }

    /// Writes to stderr what even a quiet user must see.
    pub fn alert(&self, text: &str) {
        // Where stderr cannot be written there is no one to tell.
        let _ = write(&mut io::stderr().lock(), text);
    }
}

fn write(stream: &mut dyn Write, text: &str) -> io::Result<()> {
    stream.write_all(text.as_bytes())?;
    if !text.ends_with('\n') {
        stream.write_all(b"\n")?;
    }
    stream.flush()
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
