//! What a supervisor did and why, in `logs/<app>/supervisor.log`.

use std::io::Write;
use std::path::PathBuf;

use super::logs;

#[derive(Debug)]
pub struct Journal {
    path: PathBuf,
}

impl Journal {
    pub fn new(path: PathBuf) -> Self {
        Self { path }
    }

    /// Adds a line. A full disk must not end a supervisor, so a line that cannot be written is lost.
    pub fn say(&self, text: &str) {
        let line = format!("{:.3} {text}\n", jiff::Timestamp::now());
        let _lost = logs::append(&self.path).and_then(|mut file| file.write_all(line.as_bytes()));
    }
}
