//! What went wrong inside the store, before it is told what was being done and where.

use std::io;

use rusqlite::ErrorCode;
use rusqlite::ffi;

use crate::state::StoreError;
use crate::state::row::Unreadable;

/// How a file that cannot be written is mended.
const ACCESS: &str = "give this user write access to the file and its folder";

#[derive(Debug)]
pub enum Failure {
    Sql(rusqlite::Error),
    /// Creating the store's file or folder failed.
    Io(io::Error),
    /// Something that is there, or is missing, makes the work impossible.
    Data(String),
    /// Already in the words of the store's user.
    Store(StoreError),
}

impl From<rusqlite::Error> for Failure {
    fn from(error: rusqlite::Error) -> Self {
        Failure::Sql(error)
    }
}

impl From<io::Error> for Failure {
    fn from(error: io::Error) -> Self {
        Failure::Io(error)
    }
}

impl From<StoreError> for Failure {
    fn from(error: StoreError) -> Self {
        Failure::Store(error)
    }
}

impl From<Unreadable> for Failure {
    fn from(Unreadable(why): Unreadable) -> Self {
        Failure::Data(why)
    }
}

impl Failure {
    pub fn at(self, place: &str, doing: &'static str) -> StoreError {
        let place = place.to_owned();
        match self {
            Failure::Store(error) => error,
            Failure::Data(why) => StoreError::Broken { place, doing, why },
            Failure::Io(error) => match error.kind() {
                io::ErrorKind::PermissionDenied | io::ErrorKind::ReadOnlyFilesystem => {
                    StoreError::ReadOnly { place, why: error.to_string(), mend: ACCESS }
                }
                io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => StoreError::Full { place },
                _ => StoreError::Broken { place, doing, why: error.to_string() },
            },
            Failure::Sql(error) => {
                let why = error.to_string();
                match error.sqlite_error_code() {
                    Some(ErrorCode::DiskFull) => StoreError::Full { place },
                    // A write-ahead log's index that cannot grow has no code of its own for a full disk.
                    _ if extended(&error) == Some(ffi::SQLITE_IOERR_SHMSIZE) => StoreError::Full { place },
                    Some(ErrorCode::ReadOnly | ErrorCode::PermissionDenied) => {
                        StoreError::ReadOnly { place, why, mend: ACCESS }
                    }
                    Some(ErrorCode::NotADatabase) => {
                        StoreError::Foreign { place, why: "it is no SQLite database".into() }
                    }
                    Some(ErrorCode::DatabaseBusy) => {
                        let why = format!("another process has not ended its write to it ({why})");
                        StoreError::Broken { place, doing, why }
                    }
                    _ => StoreError::Broken { place, doing, why },
                }
            }
        }
    }

    /// Whether SQLite could not open a file, or could not use a write-ahead log's index as it is.
    pub fn is_transient_open(&self) -> bool {
        let Failure::Sql(error) = self else { return false };
        error.sqlite_error_code() == Some(ErrorCode::CannotOpen)
            || extended(error) == Some(ffi::SQLITE_READONLY_CANTINIT)
            || extended(error) == Some(ffi::SQLITE_READONLY_RECOVERY)
    }

    /// Whether SQLite gave up waiting for somebody to set up a write-ahead log.
    pub fn is_stuck_log(&self) -> bool {
        matches!(self, Failure::Sql(error)
            if error.sqlite_error_code() == Some(ErrorCode::FileLockingProtocolFailed))
    }

    pub fn is_busy(&self) -> bool {
        matches!(self, Failure::Sql(error) if error.sqlite_error_code() == Some(ErrorCode::DatabaseBusy))
    }
}

fn extended(error: &rusqlite::Error) -> Option<i32> {
    error.sqlite_error().map(|error| error.extended_code)
}
