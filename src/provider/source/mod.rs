//! Where an app's code comes from: a git repository or a folder of this machine.
//!
//! Here: which version it has, and a copy of exactly that version. Elsewhere: what is made of it
//! (`provider::child` runs the build).
//! Invariants: the version asked for is the version copied; a copy appears under its name when it
//! is complete; a password is never an argument of a process, part of a message or kept in a clone.

mod clone;
mod files;
mod git;
pub mod local;
mod location;

use std::fmt;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::str::FromStr;

use tempfile::TempDir;

use crate::failpoint;

pub use clone::clone;
pub use git::{Git, GitError, resolve};
pub use location::UrlError;

/// A repository as an app names it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Repo {
    /// `https://`, `http://`, `ssh://`, `git://`, `file://`, `user@host:path` or an absolute path.
    pub url: String,
    /// A branch, a tag, `refs/...` or a commit of 7 to 40 hex digits; none: the remote's HEAD.
    pub reference: Option<String>,
    /// The app's folder in it, relative; none: all of it.
    pub path: Option<PathBuf>,
}

/// The full name of a commit: 40 lowercase hex digits.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Commit(String);

impl Commit {
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for Commit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// A text that is no full name of a commit.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is not the full name of a commit, which has 40 hex digits")]
pub struct CommitError(pub String);

impl FromStr for Commit {
    type Err = CommitError;

    fn from_str(text: &str) -> Result<Self, CommitError> {
        if text.len() == 40 && text.bytes().all(|byte| byte.is_ascii_hexdigit()) {
            Ok(Self(text.to_ascii_lowercase()))
        } else {
            Err(CommitError(text.to_owned()))
        }
    }
}

/// The version of a local folder.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Version {
    /// Clean in git: the newest commit that touched it.
    Commit(Commit),
    /// SHA-256 of its files, 64 lowercase hex digits.
    Digest(String),
}

impl Version {
    /// The first 12 digits, for the tag.
    pub fn short(&self) -> &str {
        match self {
            Version::Commit(commit) => &commit.as_str()[..12],
            Version::Digest(hex) => &hex[..12],
        }
    }
}

/// As in `commit_sha`: 40 hex digits, or `local:` and 64.
impl fmt::Display for Version {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Version::Commit(commit) => write!(f, "{commit}"),
            Version::Digest(hex) => write!(f, "local:{hex}"),
        }
    }
}

/// A folder in the making, beside the place it will have. Dropped, it is removed.
struct Staging {
    folder: TempDir,
    dest: PathBuf,
}

impl Staging {
    /// Also removes what an attempt for the same place left that was killed.
    fn beside(dest: &Path) -> io::Result<Self> {
        let (parent, name) = (dest.parent(), dest.file_name());
        let (Some(parent), Some(name)) = (parent, name) else {
            return Err(io::ErrorKind::InvalidInput.into());
        };
        let prefix = format!(".{}.", name.to_string_lossy());
        for entry in fs::read_dir(parent)? {
            let entry = entry?;
            let name = entry.file_name();
            let name = name.to_string_lossy();
            if name.starts_with(&prefix) && name.ends_with(".part") {
                fs::remove_dir_all(entry.path())?;
            }
        }
        let folder = tempfile::Builder::new().prefix(&prefix).suffix(".part").tempdir_in(parent)?;
        Ok(Self { folder, dest: dest.to_owned() })
    }

    fn path(&self) -> &Path {
        self.folder.path()
    }

    /// Gives it its name.
    fn finish(self) -> io::Result<()> {
        failpoint::before("finish the copy", &self.dest)?;
        fs::rename(self.folder.path(), &self.dest)?;
        failpoint::after("finish the copy", &self.dest)?;
        // It is not there under its first name any more, so there is nothing to remove.
        let _ = self.folder.keep();
        Ok(())
    }
}
