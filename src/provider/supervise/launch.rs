//! Starts supervisors, each from its own copy of norn's binary.
//!
//! The copy lets norn be replaced while supervisors run, and its folder says what runs.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use rustix::fs::{FlockOperation, flock};
use sha2::{Digest, Sha256};
use tokio::process::{Child, Command};
use tokio::time::{Instant, sleep};

use super::logs;
use super::place::{Place, Seat, private_folder};
use crate::failpoint;
use crate::spec::name::AppName;

/// How long a supervisor may take until it listens.
const START: Duration = Duration::from_secs(10);

/// The SHA-256 of a file, in lowercase hex.
pub async fn digest(path: PathBuf) -> io::Result<String> {
    blocking(move || digest_now(&path)).await
}

/// Copies a binary to `<bin>/<version>-<first 12 of its SHA-256>/norn`, unless it is there.
pub async fn copy(executable: PathBuf, digest: String, bin: PathBuf) -> io::Result<PathBuf> {
    blocking(move || copy_now(&executable, &digest, &bin)).await
}

/// What a supervisor is started with.
#[derive(Debug)]
pub struct Launch<'a> {
    pub executable: &'a Path,
    pub run: &'a Path,
    pub logs: &'a Path,
    pub seat: Seat,
    /// The former name of the app, whose supervisor is to be relieved.
    pub after: Option<&'a AppName>,
}

/// Starts a supervisor in a session of its own, and waits until it listens.
///
/// # Errors
/// A text that says why it does not, with what it wrote last.
pub async fn start(launch: &Launch<'_>, place: &Place) -> Result<(), String> {
    let folder = launch.logs.join(place.app().as_str());
    let log = folder.join("supervisor.log");
    let output = private_folder(&folder).and_then(|()| logs::append(&log));
    let output = output.map_err(|error| format!("{}: {error}", log.display()))?;
    let from = logs::length(&log);
    let end = Instant::now() + START;
    let talk = |act| failpoint::talk(act, Path::new(place.app().as_str())).map_err(|error| error.to_string());
    talk("start the supervisor of")?;
    let mut child = loop {
        match spawn(launch, place, &output) {
            // Another thread that forked while the copy was written holds it open until it execs.
            Err(error) if error.kind() == io::ErrorKind::ExecutableFileBusy && Instant::now() < end => {
                sleep(Duration::from_millis(10)).await;
            }
            Err(error) => return Err(format!("{}: {error}", launch.executable.display())),
            Ok(child) => break child,
        }
    };
    talk("started the supervisor of")?;
    loop {
        if place.connect(launch.seat).await.is_ok() {
            return talk("reached the supervisor of");
        }
        let ended = child.try_wait().map_err(|error| error.to_string())?;
        let why = match ended {
            Some(status) => format!("it ended with {status}"),
            None if Instant::now() >= end => format!("it did not listen within {} s", START.as_secs()),
            None => {
                sleep(Duration::from_millis(10)).await;
                continue;
            }
        };
        // One that listens too late must not be left beside the next.
        let _ended = child.start_kill();
        let said = logs::tail(&log, from, 5).join("; ");
        return Err(if said.is_empty() { why } else { format!("{why}: {said}") });
    }
}

fn spawn(launch: &Launch<'_>, place: &Place, output: &File) -> io::Result<Child> {
    let mut command = Command::new(launch.executable);
    command.args(["supervise", "--app", place.app().as_str(), "--run"]).arg(launch.run);
    command.arg("--logs").arg(launch.logs);
    if launch.seat == Seat::Next {
        command.arg("--next");
    }
    if let Some(former) = launch.after {
        command.args(["--after", former.as_str()]);
    }
    // norn's environment holds credentials, perhaps another supervisor's marker, and nothing that
    // a supervisor needs.
    command.env_clear().current_dir("/");
    command.stdin(Stdio::null()).stdout(output.try_clone()?).stderr(output.try_clone()?);
    let detach = || rustix::process::setsid().map(|_| ()).map_err(io::Error::from);
    // SAFETY: between fork and exec only async-signal-safe calls are allowed; `detach` makes one
    // system call and neither allocates nor locks.
    unsafe { command.pre_exec(detach) };
    command.spawn()
}

async fn blocking<T: Send + 'static>(work: impl FnOnce() -> io::Result<T> + Send + 'static) -> io::Result<T> {
    tokio::task::spawn_blocking(work).await.map_err(io::Error::other)?
}

fn digest_now(path: &Path) -> io::Result<String> {
    let mut file = File::open(path)?;
    let mut hasher = Sha256::new();
    let mut buffer = vec![0; 1 << 20];
    loop {
        match file.read(&mut buffer)? {
            0 => break,
            count => hasher.update(&buffer[..count]),
        }
    }
    Ok(hasher.finalize().iter().map(|byte| format!("{byte:02x}")).collect())
}

fn copy_now(executable: &Path, digest: &str, bin: &Path) -> io::Result<PathBuf> {
    let short = digest.get(..12).unwrap_or(digest);
    let folder = bin.join(format!("{}-{short}", env!("CARGO_PKG_VERSION")));
    let target = folder.join("norn");
    if target.exists() {
        return Ok(target);
    }
    private_folder(&folder)?;
    // One copies, and the others find it done; so there is never more than one copy in the making.
    let turn = File::open(&folder)?;
    flock(&turn, FlockOperation::LockExclusive)?;
    if target.exists() {
        return Ok(target);
    }
    let temporary = folder.join(".norn.part");
    let mut copy = OpenOptions::new();
    copy.write(true).create(true).truncate(true).mode(0o700);
    let mut copy = copy.open(&temporary)?;
    io::copy(&mut File::open(executable)?, &mut copy)?;
    copy.sync_all()?;
    // Closed before it has its name: a file open for writing cannot be executed.
    drop(copy);
    failpoint::before("copy", &target)?;
    fs::rename(temporary, &target)?;
    failpoint::after("copy", &target)?;
    Ok(target)
}
