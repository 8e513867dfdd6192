//! Commands that norn runs: build, test, migrations, git, `pg_dump`.
//!
//! Here: norn's side of a guarded command, its log, ending what a dead norn left. Elsewhere: the
//! guard process (`guard`), which command runs when (`apply`).
//! Invariants: nothing of a command outlives [`run`], nor norn itself; the command starts only
//! after the caller has recorded who it is; nothing secret reaches log or output.

pub mod output;

use std::collections::BTreeMap;
use std::error::Error;
use std::fmt;
use std::fs::OpenOptions;
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process_group};
use serde::{Deserialize, Serialize};
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader, Lines};
use tokio::net::UnixStream;
use tokio::net::unix::pipe;
use tokio::net::unix::{OwnedReadHalf, OwnedWriteHalf};
use tokio::sync::watch;
use tokio::time::{Instant, sleep, sleep_until};
use uuid::Uuid;

use super::machine;
use super::supervise::protocol::Command;
use super::tree;
use crate::failpoint;
use crate::scrub::Scrub;
use crate::state::lock::ProcessIdentity;

pub use output::KEPT;
use output::Writer;

/// How long a command may take from SIGTERM to SIGKILL where it is cancelled or late.
const GRACE: Duration = Duration::from_secs(10);
/// How long a guard may take to end its tree by itself: its own grace and some.
pub const GUARD_GRACE: Duration = Duration::from_secs(6);
/// How long the kernel may take to end what was killed.
pub const KILL_LIMIT: Duration = Duration::from_secs(10);

/// One command.
pub struct Task<'a> {
    pub command: &'a Command,
    /// The folder it starts in.
    pub dir: &'a Path,
    /// Its whole environment, but for one variable that marks its processes.
    pub env: &'a BTreeMap<String, String>,
    /// The file its whole output is appended to, scrubbed; made with mode 0600.
    pub log: &'a Path,
    /// How long it may run.
    pub timeout: Option<Duration>,
    /// How long it may go without writing anything.
    pub silence: Option<Duration>,
}

/// What holds every command of a run.
#[derive(Clone)]
pub struct Leash {
    /// The program whose `guard` command guards; norn itself but in tests.
    pub guard: PathBuf,
    /// When the lease ends, in time since boot; no lease, no limit.
    pub lease: Option<watch::Receiver<Duration>>,
    /// Cancels once it is true.
    pub cancel: watch::Receiver<bool>,
    pub scrub: Scrub,
}

impl Leash {
    /// This very binary, also after its file was replaced by a newer one.
    pub fn own_guard() -> PathBuf {
        PathBuf::from("/proc/self/exe")
    }
}

/// Who a command is, for the intent row: enough for [`end_group`] to find all of it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Identities {
    pub guard: ProcessIdentity,
    /// The leader of the command's process group.
    pub group: ProcessIdentity,
    /// What its processes carry in their environment.
    pub mark: String,
}

/// A command that ran and of which nothing runs any more.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Finished {
    pub ending: Ending,
    /// What it wrote, scrubbed, at most [`KEPT`] bytes, without NUL.
    pub output: String,
}

impl Finished {
    pub fn success(&self) -> bool {
        self.ending == Ending::Exited(0)
    }
}

/// How a command ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ending {
    Exited(i32),
    Signalled(i32),
    Cancelled,
    /// It took longer than it may.
    TimedOut(Duration),
    /// It wrote nothing for longer than it may.
    Silent(Duration),
    /// The lease on the state ran out.
    LeaseEnded,
    /// Its guard was killed, so it was killed too.
    GuardKilled,
}

impl fmt::Display for Ending {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Ending::Exited(code) => write!(f, "exited with code {code}"),
            Ending::Signalled(signal) => write!(f, "was ended by signal {signal}"),
            Ending::Cancelled => f.write_str("was cancelled"),
            Ending::TimedOut(limit) => write!(f, "took longer than {} s and was ended", limit.as_secs_f32()),
            Ending::Silent(limit) => {
                write!(f, "wrote nothing for {} s and was ended", limit.as_secs_f32())
            }
            Ending::LeaseEnded => f.write_str("was ended as the lock on the state ran out"),
            Ending::GuardKilled => f.write_str("was ended as the process that guards it was killed"),
        }
    }
}

/// Why a command did not run, or not to an end that can be told.
#[derive(Debug, thiserror::Error)]
pub enum ChildError {
    #[error("the log {} cannot be written: {why}", log.display())]
    Log { log: PathBuf, why: io::Error },
    #[error("{program} cannot be started in {}: {why}", dir.display())]
    Start { program: String, dir: PathBuf, why: String },
    #[error("the command was not started, as its start could not be recorded: {0}")]
    NotRecorded(Box<dyn Error + Send + Sync>),
    #[error("the guard of the command cannot be spoken to: {0}")]
    Guard(io::Error),
    #[error("processes cannot be listed: {0}")]
    List(io::Error),
    #[error("processes {0:?} cannot be ended: they run as another user or hang in the kernel")]
    Unkillable(Vec<u32>),
    #[error("pid {pid} belongs to another machine or container ({machine}) and may still run there")]
    OutOfSight { pid: u32, machine: String },
}

/// Runs a command to its end. `record` is called before it starts and must make the identities
/// durable; `on_line` is called for each scrubbed line. When this future is dropped the guard ends
/// the command.
///
/// # Errors
/// Where the command did not start or its log could not be written; how it ended is no error.
pub async fn run<R>(
    task: &Task<'_>,
    leash: &Leash,
    record: impl FnOnce(Identities) -> R,
    mut on_line: impl FnMut(&str),
) -> Result<Finished, ChildError>
where
    R: Future<Output = Result<(), Box<dyn Error + Send + Sync>>>,
{
    let log = OpenOptions::new().append(true).create(true).mode(0o600).open(task.log);
    let log = log.map_err(|why| ChildError::Log { log: task.log.to_owned(), why })?;
    let mut guarded = Guarded::spawn(task, leash)?;
    let mut writer = Writer::new(log, task.log, &leash.scrub);
    let ending = async {
        let talk = |act| failpoint::talk(act, task.log).map_err(ChildError::Guard);
        talk("guard holds")?;
        let identities = guarded.held(task, leash).await?;
        record(identities).await.map_err(ChildError::NotRecorded)?;
        let ending = guarded.watch(task, leash, &mut writer, &mut on_line).await;
        talk("guard ended")?;
        ending
    };
    let ending = ending.await;
    guarded.close().await;
    Ok(Finished { ending: ending?, output: writer.finish(&mut on_line)? })
}

/// Ends what is left of a command whose norn has died, and returns when it is gone: the guard does
/// it by itself, and is helped where it does not.
///
/// # Errors
/// [`ChildError::OutOfSight`] where the command ran on another machine or in another container.
pub async fn end_group(left: &Identities) -> Result<(), ChildError> {
    let own = machine::own_identity().map_err(ChildError::List)?;
    if out_of_sight(left, &own) {
        let machine = left.guard.machine_id.clone();
        return Err(ChildError::OutOfSight { pid: left.guard.pid, machine });
    }
    if !own.shares_host(&left.guard) {
        return Ok(());
    }
    let look = || survivors(left).map_err(ChildError::List);
    let patience = Instant::now() + GUARD_GRACE;
    while Instant::now() < patience {
        // Without its guard nobody else ends it.
        if look()?.is_empty() || machine::alive(&left.guard) != Some(true) {
            break;
        }
        sleep(Duration::from_millis(20)).await;
    }
    kill_all(look).await
}

/// Whether a command may run where `own`, a process of this machine, cannot see it.
pub fn out_of_sight(left: &Identities, own: &ProcessIdentity) -> bool {
    // No process outlives a boot.
    let before = own.machine_id == left.guard.machine_id && own.boot_id != left.guard.boot_id;
    !before && !own.shares_host(&left.guard)
}

async fn kill_all(look: impl Fn() -> Result<Vec<tree::Process>, ChildError>) -> Result<(), ChildError> {
    let limit = Instant::now() + KILL_LIMIT;
    loop {
        let left = look()?;
        if left.is_empty() {
            return Ok(());
        }
        if Instant::now() > limit {
            return Err(ChildError::Unkillable(left.iter().map(|process| process.pid).collect()));
        }
        for process in left {
            process.signal(Signal::KILL);
        }
        sleep(Duration::from_millis(10)).await;
    }
}

/// The guard, the leader, everything below them and everything that carries the mark.
fn survivors(left: &Identities) -> io::Result<Vec<tree::Process>> {
    let mut found = tree::marked(&left.mark)?;
    for root in [&left.guard, &left.group] {
        if machine::alive(root) == Some(true) {
            found.push(tree::Process { pid: root.pid, start_time: root.start_time });
        }
    }
    let roots: Vec<u32> = found.iter().map(|process| process.pid).collect();
    found.extend(tree::below(&roots)?);
    Ok(found)
}

/// A guard that was started, and norn's ends of its socket and of the output.
struct Guarded {
    process: tokio::process::Child,
    said: Lines<BufReader<OwnedReadHalf>>,
    to: OwnedWriteHalf,
    output: pipe::Receiver,
    mark: String,
    /// The command's process group, once it is there.
    group: Option<Pid>,
}

impl Guarded {
    fn spawn(task: &Task<'_>, leash: &Leash) -> Result<Self, ChildError> {
        let argv: Vec<&str> = match task.command {
            Command::Shell(text) => vec!["sh", "-c", text],
            Command::Exec(argv) => argv.iter().map(String::as_str).collect(),
        };
        let mark = Uuid::new_v4().to_string();
        let start = || -> io::Result<Self> {
            let (ours, theirs) = std::os::unix::net::UnixStream::pair()?;
            ours.set_nonblocking(true)?;
            let (reader, writer) = io::pipe()?;
            let mut command = tokio::process::Command::new(&leash.guard);
            command.arg0("norn").args(["guard", "--"]).args(argv.iter());
            command.env_clear().envs(task.env).env(tree::MARK, &mark).current_dir(task.dir);
            command.stdin(OwnedFd::from(theirs)).stdout(writer.try_clone()?).stderr(writer);
            // A session of its own: no signal of the terminal reaches it, and no prompt can wait there.
            // SAFETY: between fork and exec this makes one system call.
            unsafe { command.pre_exec(|| Ok(rustix::process::setsid().map(drop)?)) };
            let process = command.spawn()?;
            let (said, to) = UnixStream::from_std(ours)?.into_split();
            let said = BufReader::new(said).lines();
            let output = pipe::Receiver::from_owned_fd(reader.into())?;
            Ok(Self { process, said, to, output, mark, group: None })
        };
        start().map_err(|why| start_error(task, why.to_string()))
    }

    /// Waits until the program is held, and says who it is.
    async fn held(&mut self, task: &Task<'_>, leash: &Leash) -> Result<Identities, ChildError> {
        if let Some(lease) = &leash.lease {
            let end = *lease.borrow();
            self.say(&lease_line(end)).await;
        }
        let line = self.said.next_line().await.map_err(ChildError::Guard)?.unwrap_or_default();
        let Some(pid) = line.strip_prefix("held ") else {
            return Err(start_error(task, line.strip_prefix("failed ").unwrap_or("its guard ended").into()));
        };
        self.group = pid.parse().ok().and_then(Pid::from_raw);
        let guard = self.process.id().and_then(|pid| machine::identity_of(pid).ok());
        let group = pid.parse().ok().and_then(|pid| machine::identity_of(pid).ok());
        // Nothing runs unrecorded: what cannot be told apart from others is not started.
        let (Some(guard), Some(group)) = (guard, group) else {
            return Err(start_error(task, "it ended while it was held".into()));
        };
        Ok(Identities { guard, group, mark: self.mark.clone() })
    }

    /// Starts the held program and reads until it has ended and all it wrote was read.
    async fn watch(
        &mut self,
        task: &Task<'_>,
        leash: &Leash,
        writer: &mut Writer<'_>,
        on_line: &mut impl FnMut(&str),
    ) -> Result<Ending, ChildError> {
        let started = Instant::now();
        let mut heard = started;
        let mut lease = leash.lease.clone();
        let mut cancel = leash.cancel.clone();
        let mut asked: Option<Ending> = None;
        let mut ending: Option<Ending> = None;
        let mut reading = true;
        let mut buffer = vec![0; 64 << 10];
        let far = started + Duration::from_secs(60 * 60 * 24 * 365);
        if !*cancel.borrow() {
            self.say("start\n").await;
        }
        while ending.is_none() || reading {
            let ending_itself = asked.is_none() && ending.is_none();
            let late = task.timeout.map_or(far, |limit| started + limit);
            let silent = task.silence.map_or(far, |limit| heard + limit);
            tokio::select! {
                read = self.output.read(&mut buffer), if reading => {
                    // An unreadable pipe has ended.
                    let bytes = &buffer[..read.unwrap_or(0)];
                    reading = !bytes.is_empty();
                    heard = Instant::now();
                    writer.push(bytes, on_line)?;
                }
                line = self.said.next_line(), if ending.is_none() => match line {
                    Ok(Some(line)) => ending = Some(outcome(&line, asked, task)?),
                    Ok(None) | Err(_) => {
                        // Some of it may have cleared its environment and with it the mark.
                        if let Some(group) = self.group {
                            let _ = kill_process_group(group, Signal::KILL);
                        }
                        let look = || tree::marked(&self.mark).map_err(ChildError::List);
                        kill_all(look).await?;
                        ending = Some(Ending::GuardKilled);
                    }
                },
                end = changed(&mut lease), if ending.is_none() => self.say(&lease_line(end)).await,
                () = cancelled(&mut cancel), if ending_itself => {
                    asked = Some(Ending::Cancelled);
                    self.end().await;
                }
                () = sleep_until(late), if ending_itself => {
                    asked = Some(Ending::TimedOut(late - started));
                    self.end().await;
                }
                () = sleep_until(silent), if ending_itself => {
                    asked = Some(Ending::Silent(silent - heard));
                    self.end().await;
                }
            }
        }
        Ok(ending.expect("the loop ends with an ending"))
    }

    /// Makes the guard end what still runs, and waits until it has.
    async fn close(mut self) {
        drop((self.said, self.to, self.output));
        // Waiting fails only where somebody else has waited for it.
        let _ = self.process.wait().await;
    }

    async fn end(&mut self) {
        self.say(&format!("end {}\n", GRACE.as_millis())).await;
    }

    async fn say(&mut self, line: &str) {
        // A guard that is gone is noticed by its silence.
        let _ = self.to.write_all(line.as_bytes()).await;
    }
}

fn start_error(task: &Task<'_>, why: String) -> ChildError {
    let program = match task.command {
        Command::Shell(_) => "sh".to_owned(),
        Command::Exec(argv) => argv.first().cloned().unwrap_or_default(),
    };
    ChildError::Start { program, dir: task.dir.to_owned(), why }
}

fn lease_line(end: Duration) -> String {
    format!("lease {}\n", u64::try_from(end.as_nanos()).unwrap_or(u64::MAX))
}

/// What the guard's last line means.
fn outcome(line: &str, asked: Option<Ending>, task: &Task<'_>) -> Result<Ending, ChildError> {
    let broken = || ChildError::Guard(io::ErrorKind::InvalidData.into());
    let number = |text: &str| text.parse().map_err(|_| broken());
    match line.split_once(' ').unwrap_or((line, "")) {
        ("exited", code) => Ok(Ending::Exited(number(code)?)),
        ("signalled", signal) => Ok(Ending::Signalled(number(signal)?)),
        ("ended", _) => Ok(asked.unwrap_or(Ending::GuardKilled)),
        ("expired", _) => Ok(Ending::LeaseEnded),
        ("stuck", pids) => {
            let pids =
                pids.split(' ').map(|pid| pid.parse().map_err(|_| broken())).collect::<Result<_, _>>()?;
            Err(ChildError::Unkillable(pids))
        }
        ("failed", why) => Err(start_error(task, why.to_owned())),
        _ => Err(broken()),
    }
}

/// The next end of the lease; never where there is none, or nobody renews it.
async fn changed(lease: &mut Option<watch::Receiver<Duration>>) -> Duration {
    if let Some(lease) = lease
        && lease.changed().await.is_ok()
    {
        return *lease.borrow_and_update();
    }
    std::future::pending().await
}

async fn cancelled(cancel: &mut watch::Receiver<bool>) {
    if cancel.wait_for(|cancel| *cancel).await.is_err() {
        std::future::pending().await
    }
}
