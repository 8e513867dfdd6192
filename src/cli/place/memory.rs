//! The file that remembers where a stage's state was: its place on the first line, and on the second
//! the id of the store there, which an older norn did not write.

use std::fs;
use std::io;
use std::path::Path;

use crate::cli::place::is_url;
use crate::cli::project::private_file;

/// The hex digits of a store's id.
const ID: usize = 16;

/// The most that such a file holds, in bytes: a path, or a URL.
const MOST: u64 = 64 << 10;

/// Where the state was.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Remembered {
    /// As [`StatePlace::name`](super::StatePlace::name) has it.
    pub place: String,
    /// The id of the store there.
    pub id: Option<String>,
}

impl Remembered {
    /// What a file remembers; `None` where it is absent or empty.
    ///
    /// # Errors
    /// What is there and cannot be read as such.
    pub fn read(file: &Path) -> io::Result<Option<Self>> {
        let there = match fs::metadata(file) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            there => there?,
        };
        if !there.is_file() || there.len() > MOST {
            return Err(io::Error::new(io::ErrorKind::InvalidData, "norn did not write it"));
        }
        let text = fs::read_to_string(file)?;
        let text = text.trim();
        let is_id = |line: &str| line.len() == ID && line.bytes().all(|byte| byte.is_ascii_hexdigit());
        // From its end: the path of a file may have lines of its own.
        let (place, id) = match text.rsplit_once('\n') {
            Some((place, id)) if is_id(id) => (place, Some(id.to_owned())),
            _ => (text, None),
        };
        Ok((!place.is_empty()).then(|| Self { place: place.to_owned(), id }))
    }

    /// Writes it down, unless the file says so already.
    pub fn write(&self, file: &Path) -> io::Result<()> {
        if Self::read(file)?.as_ref() == Some(self) {
            return Ok(());
        }
        let id = self.id.iter().map(|id| format!("{id}\n"));
        private_file(file, &format!("{}\n{}", self.place, id.collect::<String>()))
    }

    /// Whether it is a file, and that is there.
    pub fn is_there(&self) -> bool {
        !is_url(&self.place) && Path::new(&self.place).exists()
    }

    /// Whether it is a file, and that is not there any more.
    pub fn is_gone(&self) -> bool {
        !is_url(&self.place) && !Path::new(&self.place).exists()
    }
}
