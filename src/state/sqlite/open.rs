//! Opening the database file.
//!
//! Here: a connection that writes, with its files made private and durable; and reading without
//! leaving a trace, whatever a writer left or is doing.
//! Invariants: reading makes, changes and removes no file beside the database. A connection that
//! writes is in write-ahead mode before the gate opens again, so while a reader looks, the files
//! beside the database tell whether this process has it open.

use std::ffi::OsString;
use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::Duration;

use rusqlite::{Connection, OpenFlags};
use rustix::fs::{Access, access};

use super::failure::Failure;

/// How long a statement waits for another process's transaction.
const BUSY: Duration = Duration::from_secs(10);
/// How often reading starts again because a writer came in between.
const ATTEMPTS: u32 = 20;
const PAUSE: Duration = Duration::from_millis(20);
/// The length of a write-ahead log's head, in bytes.
const HEAD: u64 = 32;

/// Held while this process opens a database to write, and while it reads one without a lock.
///
/// Closing any descriptor of a file drops all locks that the process has on it, and a read-only
/// index of the log is shared with every connection the process opens meanwhile; so the two must
/// not overlap.
static GATE: Mutex<()> = Mutex::new(());

fn gate() -> MutexGuard<'static, ()> {
    GATE.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Opens the database to write in write-ahead mode, making its folder (0700) and an empty file
/// (0600) where they are absent. SQLite gives the files beside it the same mode. `inspect` looks
/// at the database before anything in it changes.
pub fn writer(
    path: &Path,
    inspect: impl FnOnce(&Connection) -> Result<(), Failure>,
) -> Result<Connection, Failure> {
    let _gate = gate();
    create(path)?;
    let folder = folder_of(path);
    for place in [path, folder] {
        access(place, Access::WRITE_OK).map_err(io::Error::from)?;
    }
    let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let conn = Connection::open_with_flags(path, flags)?;
    conn.busy_timeout(BUSY)?;
    conn.pragma_update(None, "foreign_keys", true)?;
    conn.pragma_update(None, "synchronous", "FULL")?;
    conn.set_prepared_statement_cache_capacity(64);
    inspect(&conn)?;
    turn_on_wal(&conn)?;
    // The first look in this mode makes the log and its index.
    conn.query_row("SELECT count(*) FROM sqlite_schema", [], |_| Ok(()))?;
    Ok(conn)
}

fn turn_on_wal(conn: &Connection) -> Result<(), Failure> {
    for attempt in 0.. {
        // SQLite does not wait where two processes turn it on at once: one is refused.
        let answer = conn.pragma_update_and_check(None, "journal_mode", "WAL", |row| row.get::<_, String>(0));
        match answer.map_err(Failure::from) {
            Ok(mode) if mode == "wal" => break,
            Ok(mode) => {
                return Err(Failure::Data(format!(
                    "its file system allows no write-ahead log (the journal mode stays {mode:?}); keep it on a local disk"
                )));
            }
            Err(failure) if failure.is_busy() && attempt < ATTEMPTS => thread::sleep(PAUSE),
            Err(failure) => return Err(failure),
        }
    }
    Ok(())
}

fn create(path: &Path) -> Result<(), Failure> {
    let folder = folder_of(path);
    if !folder.exists() {
        DirBuilder::new().recursive(true).mode(0o700).create(folder)?;
        File::open(folder_of(folder))?.sync_all()?;
    }
    // An existing file is not opened here: closing it would drop the locks that SQLite holds
    // for this process.
    match OpenOptions::new().write(true).create_new(true).mode(0o600).open(path) {
        // What apply does must not outlive the file that says so.
        Ok(_) => Ok(File::open(folder)?.sync_all()?),
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(()),
        Err(error) => Err(error.into()),
    }
}

/// What tells a file from every other that had its name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Identity {
    device: u64,
    inode: u64,
}

pub fn identity(path: &Path) -> Result<Identity, Failure> {
    let file = fs::metadata(path)?;
    Ok(Identity { device: file.dev(), inode: file.ino() })
}

/// Fails unless the path still leads to that file: SQLite goes on in one that lost its name.
pub fn same(path: &Path, file: Identity) -> Result<(), Failure> {
    match identity(path) {
        Ok(now) if now == file => Ok(()),
        Ok(_) => Err(Failure::Data("its file was replaced while it was in use".into())),
        Err(_) => Err(Failure::Data("its file was removed while it was in use".into())),
    }
}

fn folder_of(path: &Path) -> &Path {
    path.parent().unwrap_or(path)
}

/// How the database's files lie there.
enum Rest {
    Absent,
    /// All of it is in the one file.
    Still(Stamp),
    /// A writer is at work, or left its log and the log's index behind.
    Logged,
    /// A log without an index, or a rollback journal.
    Leftover(Stamp),
}

/// What changes when the file is written to.
#[derive(PartialEq, Eq)]
struct Stamp {
    inode: u64,
    size: u64,
    modified: (i64, i64),
}

/// Runs `work` on the database without changing a thing; `None` where there is no file.
pub fn read<T>(
    path: &Path,
    mut work: impl FnMut(&Connection) -> Result<T, Failure>,
) -> Result<Option<T>, Failure> {
    let _gate = gate();
    // SQLite keeps its files beside what a link points to.
    let path = &match fs::canonicalize(path) {
        Ok(path) => path,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(Failure::Data(error.to_string())),
    };
    for _ in 0..ATTEMPTS {
        match rest(path)? {
            Rest::Absent => return Ok(None),
            Rest::Still(stamp) => {
                // Nothing locks the file here, so what was read counts only if no writer came.
                let result = reader(path, "immutable=1").and_then(|conn| work(&conn));
                if Stamp::of(path)?.as_ref() == Some(&stamp) {
                    return result.map(Some);
                }
            }
            Rest::Logged => match reader(path, "readonly_shm=1").and_then(|conn| work(&conn)) {
                // The writer is about to set up, or to remove, what is beside the database.
                Err(failure) if failure.is_transient_open() => thread::sleep(PAUSE),
                // A log whose head says nothing, which only one that may write could begin anew.
                // SQLite waits 10 s before it says so: nobody else is at work.
                Err(failure) if failure.is_stuck_log() => {
                    if let Some(stamp) = Stamp::of(path)?
                        && let Some(found) = read_copy(path, &stamp, &mut work)?
                    {
                        return Ok(Some(found));
                    }
                }
                result => return result.map(Some),
            },
            Rest::Leftover(stamp) => {
                if let Some(found) = read_copy(path, &stamp, &mut work)? {
                    return Ok(Some(found));
                }
            }
        }
    }
    // A writer that leaves no pause: read as one of its peers, with SQLite's own locks.
    reader(path, "cache=private").and_then(|conn| work(&conn)).map(Some)
}

fn reader(path: &Path, how: &str) -> Result<Connection, Failure> {
    access(path, Access::READ_OK).map_err(|error| Failure::Data(error.to_string()))?;
    let mut uri = OsString::from("file:").into_vec();
    for byte in path.as_os_str().as_bytes() {
        match byte {
            b'/' | b'.' | b'-' | b'_' | b'0'..=b'9' | b'a'..=b'z' | b'A'..=b'Z' => uri.push(*byte),
            other => uri.extend(format!("%{other:02x}").into_bytes()),
        }
    }
    uri.extend(format!("?mode=ro&{how}").into_bytes());
    let flags =
        OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_URI | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let conn = Connection::open_with_flags(PathBuf::from(OsString::from_vec(uri)), flags)?;
    conn.busy_timeout(BUSY)?;
    Ok(conn)
}

fn rest(path: &Path) -> Result<Rest, Failure> {
    let Some(stamp) = Stamp::of(path)? else { return Ok(Rest::Absent) };
    let size = |suffix: &str| fs::metadata(beside(path, suffix)).ok().map(|file| file.len());
    let (log, index, journal) = (size("-wal"), size("-shm"), size("-journal"));
    Ok(if log == Some(HEAD) && journal.is_none() {
        // A writer was killed, or is at work, before the log's first page: there is nothing in it. Where
        // nobody is at work, SQLite would wait 10 s for somebody to begin it anew.
        Rest::Still(stamp)
    } else if log.is_some() && index.is_some() {
        Rest::Logged
    } else if log > Some(0) || journal > Some(0) {
        Rest::Leftover(stamp)
    } else {
        Rest::Still(stamp)
    })
}

impl Stamp {
    fn of(path: &Path) -> Result<Option<Stamp>, Failure> {
        match fs::metadata(path) {
            Ok(file) if file.is_file() => Ok(Some(Stamp {
                inode: file.ino(),
                size: file.len(),
                modified: (file.mtime(), file.mtime_nsec()),
            })),
            Ok(_) => Err(Failure::Data("it is no file".into())),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(Failure::Data(error.to_string())),
        }
    }
}

/// Runs `work` on a private copy of the database; `None` where a writer came in between.
fn read_copy<T>(
    path: &Path,
    stamp: &Stamp,
    work: &mut impl FnMut(&Connection) -> Result<T, Failure>,
) -> Result<Option<T>, Failure> {
    let private = tempfile::tempdir()?;
    let copy = copy_to(path, private.path())?;
    if Stamp::of(path)?.as_ref() != Some(stamp) {
        return Ok(None);
    }
    let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    work(&Connection::open_with_flags(copy, flags)?).map(Some)
}

/// Copies the database with the log or journal that completes it. No process works on a
/// database in such a state, so the copy is of one moment unless the file's stamp changes.
fn copy_to(path: &Path, folder: &Path) -> Result<PathBuf, Failure> {
    let copy = folder.join("state.db");
    for suffix in ["", "-wal", "-journal"] {
        match fs::copy(beside(path, suffix), beside(&copy, suffix)) {
            Ok(_) => {}
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(Failure::Data(error.to_string())),
        }
    }
    Ok(copy)
}

fn beside(path: &Path, suffix: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(suffix);
    PathBuf::from(name)
}
