//! The record file of a supervisor: what the next norn knows of it when it is gone.
//!
//! Invariants: the file is 0600 and replaced as a whole; it holds no value of the environment
//! and nothing that a replica said;
//! a replica is in it before anyone but the supervisor knows of the replica.

use std::collections::VecDeque;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::net::SocketAddr;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard};

use serde::{Deserialize, Serialize};

use super::protocol::{Outcome, PROTOCOL, Release};
use crate::state::lock::ProcessIdentity;

/// How many rolls are remembered.
const OUTCOMES: usize = 100;

#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Record {
    pub supervisor: ProcessIdentity,
    /// `user@host` of the supervisor.
    pub who: String,
    /// norn's version of the binary that supervises.
    pub version: String,
    /// SHA-256 of that binary, in hex.
    pub executable: String,
    pub protocol: u32,
    pub release: Option<Release>,
    pub definition: Option<String>,
    pub port: Option<u16>,
    /// Where the front listens.
    pub listen: Option<SocketAddr>,
    /// The newest fencing token seen.
    pub fence: u64,
    /// The leader of every replica's process group, old and new ones alike.
    pub replicas: Vec<ProcessIdentity>,
    /// What became of the last rolls, oldest first.
    pub rolls: VecDeque<Rolled>,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Rolled {
    pub key: String,
    pub outcome: Outcome,
}

impl Record {
    pub fn new(supervisor: ProcessIdentity, executable: String) -> Self {
        Self {
            supervisor,
            who: crate::provider::machine::user_at_host(),
            version: env!("CARGO_PKG_VERSION").to_owned(),
            executable,
            protocol: PROTOCOL,
            release: None,
            definition: None,
            port: None,
            listen: None,
            fence: 0,
            replicas: Vec::new(),
            rolls: VecDeque::new(),
        }
    }

    /// Reads a record. `None` where there is none, or none that this norn can read.
    pub fn read(path: &Path) -> io::Result<Option<Self>> {
        match fs::read(path) {
            Ok(bytes) => Ok(serde_json::from_slice(&bytes).ok()),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error),
        }
    }

    pub fn outcome(&self, key: &str) -> Outcome {
        let rolled = self.rolls.iter().rev().find(|rolled| rolled.key == key);
        rolled.map_or(Outcome::Unknown, |rolled| rolled.outcome.clone())
    }

    pub fn set_outcome(&mut self, key: &str, outcome: Outcome) {
        self.rolls.retain(|rolled| rolled.key != key);
        self.rolls.push_back(Rolled { key: key.to_owned(), outcome });
        while self.rolls.len() > OUTCOMES {
            self.rolls.pop_front();
        }
    }

    /// Without what replicas said: they may print their secrets, and this lies on a disk.
    fn without_words(&self) -> Self {
        let mut record = self.clone();
        for rolled in &mut record.rolls {
            if let Outcome::Failed(failure) = &mut rolled.outcome {
                failure.log.clear();
                failure.probe = None;
            }
        }
        record
    }

    fn write(&self, path: &Path) -> io::Result<()> {
        let temporary = path.with_extension("json.new");
        let mut options = OpenOptions::new();
        let mut file: File = options.write(true).create(true).truncate(true).mode(0o600).open(&temporary)?;
        file.write_all(&serde_json::to_vec(&self.without_words())?)?;
        file.sync_data()?;
        fs::rename(temporary, path)
    }
}

/// A supervisor's own record, kept equal to its file.
#[derive(Debug)]
pub struct Ledger {
    inner: Mutex<Inner>,
}

#[derive(Debug)]
struct Inner {
    record: Record,
    path: PathBuf,
    /// While a successor may replace the file, this supervisor must not.
    frozen: bool,
}

impl Ledger {
    /// Writes the record for the first time.
    pub fn create(path: PathBuf, record: Record) -> io::Result<Self> {
        record.write(&path)?;
        Ok(Self { inner: Mutex::new(Inner { record, path, frozen: false }) })
    }

    pub fn read<T>(&self, look: impl FnOnce(&Record) -> T) -> T {
        look(&self.lock().record)
    }

    /// Changes the record, then its file. Where the file cannot be written the change stands in
    /// memory, and the next one that can be written takes it along.
    pub fn update(&self, change: impl FnOnce(&mut Record)) -> io::Result<()> {
        let mut inner = self.lock();
        change(&mut inner.record);
        if inner.frozen { Ok(()) } else { inner.record.write(&inner.path) }
    }

    /// Leaves the file alone until [`thaw`](Self::thaw).
    pub fn freeze(&self) {
        self.lock().frozen = true;
    }

    pub fn thaw(&self) -> io::Result<()> {
        let mut inner = self.lock();
        inner.frozen = false;
        inner.record.write(&inner.path)
    }

    /// Goes on in another file, which is replaced at once.
    pub fn move_to(&self, path: PathBuf) -> io::Result<()> {
        let mut inner = self.lock();
        inner.record.write(&inner.path)?;
        fs::rename(&inner.path, &path)?;
        inner.path = path;
        Ok(())
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().expect("no holder of this lock panics")
    }
}
