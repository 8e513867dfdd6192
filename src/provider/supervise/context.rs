//! What every part of one supervisor shares.

use std::path::PathBuf;

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

use super::journal::Journal;
use super::record::Ledger;

#[derive(Debug)]
pub struct Context {
    /// The value of the marker variable of every replica.
    pub marker: PathBuf,
    /// The folder of this app's logs.
    pub logs: PathBuf,
    pub ledger: Ledger,
    pub journal: Journal,
    /// For probes: no proxy, no redirects, a new connection each.
    pub http: reqwest::Client,
    pub files: FileLimit,
}

impl Context {
    pub fn log(&self, replica: u32) -> PathBuf {
        self.logs.join(format!("{replica}.log"))
    }
}

/// How many files processes may open.
#[derive(Debug, Clone, Copy)]
pub struct FileLimit {
    /// What this process was started with, and replicas are started with.
    pub inherited: Rlimit,
    /// What this process may open.
    pub own: u64,
}

impl FileLimit {
    /// Lets this process open as many files as it may: every connection takes two.
    pub fn raise() -> Self {
        let inherited = getrlimit(Resource::Nofile);
        let raised = Rlimit { current: inherited.maximum, maximum: inherited.maximum };
        let own = if setrlimit(Resource::Nofile, raised).is_ok() { raised } else { inherited };
        Self { inherited, own: own.current.unwrap_or(u64::MAX) }
    }
}
