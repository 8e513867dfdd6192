//! The stored links: one file with a line `code address` each, which only grows.
//!
//! Several processes may share the file: the replicas of the app, and the old and the new release
//! while norn moves from one to the other. So nothing is kept in memory, a line is appended in
//! one write, and a code follows from its address alone, which needs no agreement.

use std::fmt;
use std::fs::{self, OpenOptions};
use std::io::{self, Write};
use std::path::{Path, PathBuf};

/// An address is at most this many bytes long.
const LONGEST: usize = 2_000;
/// The file stays below this many bytes.
const ROOM: u64 = 1 << 20;

pub struct Links {
    file: PathBuf,
}

#[derive(Debug)]
pub enum AddError {
    NotALink,
    Full,
    Io(io::Error),
}

impl fmt::Display for AddError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NotALink => write!(
                f,
                "a link starts with http:// or https://, has no spaces and at most {LONGEST} characters"
            ),
            Self::Full => write!(f, "there is no room for another link"),
            Self::Io(error) => error.fmt(f),
        }
    }
}

impl From<io::Error> for AddError {
    fn from(error: io::Error) -> Self {
        Self::Io(error)
    }
}

impl Links {
    /// Opens the links in `folder`, which is made where it is missing.
    pub fn open(folder: &Path) -> io::Result<Self> {
        fs::create_dir_all(folder)?;
        let file = folder.join("links.txt");
        // Made now, so that a folder without write permission shows at the start.
        OpenOptions::new().create(true).append(true).open(&file)?;
        Ok(Self { file })
    }

    /// The code for `target`: the same one each time.
    pub fn add(&self, target: &str) -> Result<String, AddError> {
        if !is_link(target) {
            return Err(AddError::NotALink);
        }
        let code = code_of(target);
        if self.find(&code)?.is_none() {
            let mut file = OpenOptions::new().append(true).open(&self.file)?;
            if file.metadata()?.len() > ROOM {
                return Err(AddError::Full);
            }
            file.write_all(format!("{code} {target}\n").as_bytes())?;
        }
        Ok(code)
    }

    pub fn find(&self, code: &str) -> io::Result<Option<String>> {
        let text = fs::read_to_string(&self.file)?;
        let mut lines = text.lines().filter_map(|line| line.split_once(' '));
        Ok(lines.find(|(known, _)| *known == code).map(|(_, target)| target.to_owned()))
    }
}

fn is_link(target: &str) -> bool {
    let rest = target.strip_prefix("https://").or_else(|| target.strip_prefix("http://"));
    rest.is_some_and(|rest| !rest.is_empty())
        && target.len() <= LONGEST
        && target.chars().all(|c| c.is_ascii_graphic())
}

/// The FNV-1a hash of the address, in letters and digits that are hard to confuse.
fn code_of(target: &str) -> String {
    const LETTERS: &[u8; 32] = b"23456789abcdefghijkmnpqrstuvwxyz";
    let mut hash = target.bytes().fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| {
        (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3)
    });
    let mut code = String::new();
    for _ in 0..8 {
        code.push(char::from(LETTERS[(hash % 32) as usize]));
        hash /= 32;
    }
    code
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_link_is_a_web_address_on_one_line() {
        for good in ["http://a", "https://example.com/x?y=z#w"] {
            assert!(is_link(good), "{good}");
        }
        let long = format!("https://{}", "a".repeat(LONGEST));
        for bad in
            ["", "https://", "ftp://a", "javascript:1", "http://a b", "http://a\r\nSet-Cookie: x", &long]
        {
            assert!(!is_link(bad), "{bad}");
        }
    }

    #[test]
    fn a_code_follows_from_its_address_alone() {
        assert_eq!(code_of("https://example.com/"), code_of("https://example.com/"));
        assert_ne!(code_of("https://example.com/"), code_of("https://example.com/a"));
        assert_eq!(code_of("https://example.com/").len(), 8);
    }
}
