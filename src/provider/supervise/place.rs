//! Where an app's supervisor keeps its socket and its record.
//!
//! A Unix socket's address holds at most 107 bytes, so sockets are reached through a descriptor
//! of their folder: the depth of the project does not matter.

use std::fs::{self, DirBuilder, File, Permissions};
use std::io;
use std::os::fd::AsRawFd;
use std::os::unix::fs::{DirBuilderExt, MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};

use rustix::fs::{FlockOperation, flock};
use tokio::net::{UnixListener, UnixStream};

use crate::failpoint;
use crate::spec::name::AppName;

/// The variable every replica carries: the path of its supervisor's socket.
pub const MARKER: &str = "NORN_SUPERVISOR";

/// Which of an app's supervisors: the one in office, or a successor that has not taken over.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Seat {
    Office,
    Next,
}

/// The run folder as one app's supervisors use it.
#[derive(Debug)]
pub struct Place {
    app: AppName,
    run: PathBuf,
    folder: File,
}

impl Place {
    /// Opens the run folder. With `create` it is made where it is absent, and always 0700.
    pub fn open(run: &Path, app: &AppName, create: bool) -> io::Result<Self> {
        if create {
            private_folder(run)?;
        }
        let run = run.canonicalize()?;
        let folder = File::open(&run)?;
        Ok(Self { app: app.clone(), run, folder })
    }

    pub fn app(&self) -> &AppName {
        &self.app
    }

    /// The value of [`MARKER`]: the same for a successor, which will sit here.
    pub fn marker(&self) -> PathBuf {
        self.run.join(self.name(Seat::Office, "sock"))
    }

    pub fn record(&self, seat: Seat) -> PathBuf {
        self.run.join(self.name(seat, "json"))
    }

    /// Waits until no other supervisor takes its seat here; that is a moment. Dropping it ends the turn.
    pub fn turn(&self) -> io::Result<File> {
        let turn = File::open(&self.run)?;
        flock(&turn, FlockOperation::LockExclusive)?;
        Ok(turn)
    }

    /// Listens at the seat's socket, mode 0600, in place of whatever had the name.
    pub fn bind(&self, seat: Seat) -> io::Result<UnixListener> {
        let name = self.name(seat, "sock");
        let temporary = self.reach(&format!(".{name}.new"));
        let _absent = fs::remove_file(&temporary);
        let listener = UnixListener::bind(&temporary)?;
        fs::set_permissions(&temporary, Permissions::from_mode(0o600))?;
        fs::rename(&temporary, self.reach(&name))?;
        Ok(listener)
    }

    pub async fn connect(&self, seat: Seat) -> io::Result<UnixStream> {
        UnixStream::connect(self.reach(&self.name(seat, "sock"))).await
    }

    /// Renames a successor's socket over that of the supervisor in office.
    pub fn promote_socket(&self) -> io::Result<()> {
        fs::rename(self.reach(&self.name(Seat::Next, "sock")), self.reach(&self.name(Seat::Office, "sock")))
    }

    /// What tells a socket file from every other that had its name.
    pub fn socket_inode(&self, seat: Seat) -> Option<u64> {
        fs::metadata(self.reach(&self.name(seat, "sock"))).ok().map(|file| file.ino())
    }

    /// Removes the seat's socket and record; absent is fine.
    pub fn clear(&self, seat: Seat) -> io::Result<()> {
        for path in [self.reach(&self.name(seat, "sock")), self.record(seat)] {
            failpoint::before("clear", &self.record(seat))?;
            match fs::remove_file(path) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
                Ok(()) | Err(_) => {}
            }
        }
        Ok(())
    }

    fn name(&self, seat: Seat, suffix: &str) -> String {
        match seat {
            Seat::Office => format!("{}.{suffix}", self.app),
            Seat::Next => format!("{}.next.{suffix}", self.app),
        }
    }

    fn reach(&self, name: &str) -> PathBuf {
        PathBuf::from(format!("/proc/self/fd/{}/{name}", self.folder.as_raw_fd()))
    }
}

/// Makes a folder, and those above it, for norn's user alone.
pub fn private_folder(path: &Path) -> io::Result<()> {
    DirBuilder::new().recursive(true).mode(0o700).create(path)?;
    fs::set_permissions(path, Permissions::from_mode(0o700))
}
