//! `norn guard -- PROGRAM ARGS...`: runs a program and leaves nothing of it behind.
//!
//! Here: the guard process. Elsewhere: norn's side of it (`child`).
//!
//! norn holds the other end of the guard's stdin, a socket, and both talk in lines over it:
//!
//! - norn: `lease NS` (the end of its lease on CLOCK_BOOTTIME), `start`, `end MS` (SIGTERM, and
//!   SIGKILL when MS milliseconds have passed);
//! - guard: `held PID`, then after `start` one of `exited CODE`, `signalled NUMBER`, `ended`
//!   (it was told to), `expired` (the lease passed), `failed TEXT` (the program did not start),
//!   `stuck PID...` (these live on in spite of SIGKILL).
//!
//! Invariants: the program does not run before `start`; when norn's end closes or the lease passes
//! everything below the guard is ended; the guard ends after everything below it, unless it is stuck.

use std::ffi::OsString;
use std::io::{self, BufRead, BufReader, PipeReader, PipeWriter, Read, Write};
use std::os::fd::AsFd;
use std::os::unix::net::UnixStream;
use std::os::unix::process::CommandExt;
use std::process::{Command, ExitCode, Stdio};
use std::sync::mpsc::{self, Receiver, RecvTimeoutError, Sender};
use std::thread;
use std::time::{Duration, Instant};

use rustix::process::{
    Pid, Signal, WaitOptions, WaitStatus, set_child_subreaper, set_parent_process_death_signal, wait,
};

use super::{machine, tree};

/// How long what is left may take after SIGTERM.
const GRACE: Duration = Duration::from_secs(5);
/// How long the kernel may take to end what was killed.
const KILL_LIMIT: Duration = Duration::from_secs(10);
/// How often the lease is compared with the clock: no timer of std counts suspended time.
const TICK: Duration = Duration::from_millis(500);
/// How often SIGKILL is repeated, for what was started between looking and killing.
const REPEAT: Duration = Duration::from_millis(10);

/// The whole of `norn guard`: `args` are the program and its arguments. Ends with the program's
/// code, 128 + signal where a signal ended it, 127 where it did not start.
pub fn run(args: &[OsString]) -> ExitCode {
    match guard(args) {
        Ok(code) => ExitCode::from(code),
        // norn hears of it by the closed socket, a person by the code; the output is the program's.
        Err(_) => ExitCode::from(125),
    }
}

/// What the guard waits for.
enum Event {
    Lease(Duration),
    Start,
    End(Duration),
    /// norn is gone.
    Closed,
    /// The program could not be started, or was told not to.
    Failed(io::Error),
    /// The program ended; what it started may still live.
    Ended(WaitStatus),
    /// Nothing lives below the guard.
    Gone,
}

fn guard(args: &[OsString]) -> io::Result<u8> {
    let (program, args) = args.split_first().ok_or(io::ErrorKind::InvalidInput)?;
    let norn = UnixStream::from(io::stdin().as_fd().try_clone_to_owned()?);
    // Fails where stdin is no socket: this command is norn's own.
    norn.local_addr()?;
    set_child_subreaper(Some(rustix::process::getpid()))?;

    let (events, queue) = mpsc::channel();
    let (mut held, go) = launch(program, args, events.clone())?;
    let mut pid = [0; 4];
    let held = held.read_exact(&mut pid).is_ok().then(|| u32::from_ne_bytes(pid));
    let reader = norn.try_clone()?;
    thread::spawn(move || listen(reader, &events));
    let mut guard = Guard { norn, queue, lease: None, go: Some(go) };
    if let Some(pid) = held {
        guard.say(&format!("held {pid}"));
    }
    guard.watch()
}

struct Guard {
    norn: UnixStream,
    queue: Receiver<Event>,
    lease: Option<Duration>,
    /// What the held program waits for; taken when it was told.
    go: Option<PipeWriter>,
}

/// Why the guard ends what runs.
#[derive(Clone, Copy)]
enum Cause {
    Told,
    Expired,
}

impl Guard {
    fn watch(&mut self) -> io::Result<u8> {
        let mut cause = None;
        let mut status = None;
        // When SIGKILL is due, once SIGTERM was sent.
        let mut kill_at: Option<Instant> = None;
        loop {
            // A held program does nothing: norn may look at it until it says what to do.
            if self.go.is_none() && cause.is_none() && status.is_none() && self.expired() {
                cause = Some(Cause::Expired);
            }
            let now = Instant::now();
            if (cause.is_some() || status.is_some()) && self.expired() {
                kill_at = Some(kill_at.map_or(now, |at| at.min(now)));
            }
            let killing = kill_at.is_some_and(|at| at <= now);
            if killing {
                signal_all(Signal::KILL)?;
            }
            if kill_at.is_some_and(|at| at + KILL_LIMIT < now) {
                return self.give_up();
            }
            match self.next(if killing { REPEAT } else { TICK }, kill_at) {
                None => {}
                Some(Event::Lease(end)) => self.lease = Some(end),
                Some(Event::Start) if self.expired() => {
                    cause = cause.or(Some(Cause::Expired));
                    self.tell(b'x');
                }
                Some(Event::Start) => self.tell(b'g'),
                Some(Event::End(grace)) => {
                    cause = cause.or(status.is_none().then_some(Cause::Told));
                    self.end(grace, &mut kill_at)?;
                }
                Some(Event::Closed) => {
                    cause = cause.or(status.is_none().then_some(Cause::Told));
                    self.end(GRACE, &mut kill_at)?;
                }
                Some(Event::Failed(error)) => {
                    match cause {
                        Some(cause) => self.say(cause.word()),
                        None => self.say(&format!("failed {error}")),
                    }
                    return Ok(127);
                }
                Some(Event::Ended(ended)) => {
                    status = Some(ended);
                    if cause.is_none() {
                        self.end(GRACE, &mut kill_at)?;
                    }
                }
                Some(Event::Gone) => {
                    let status = status.expect("the program is waited for before nothing is left");
                    return Ok(self.report(status, cause));
                }
            }
        }
    }

    /// The next event, if one comes within `pause` and before `kill_at`.
    fn next(&self, pause: Duration, kill_at: Option<Instant>) -> Option<Event> {
        let until_kill = kill_at.map(|at| at.saturating_duration_since(Instant::now()));
        let pause = until_kill.filter(|left| !left.is_zero()).map_or(pause, |left| left.min(pause));
        match self.queue.recv_timeout(pause) {
            Ok(event) => Some(event),
            Err(RecvTimeoutError::Timeout) => None,
            // Both threads have ended: norn is gone, and so is everything below.
            Err(RecvTimeoutError::Disconnected) => unreachable!("the last event was Failed or Gone"),
        }
    }

    fn expired(&self) -> bool {
        self.lease.is_some_and(|end| machine::since_boot() >= end)
    }

    /// SIGTERM to everything now, SIGKILL after `grace` or earlier where that was promised.
    fn end(&mut self, grace: Duration, kill_at: &mut Option<Instant>) -> io::Result<()> {
        self.tell(b'x');
        let due = Instant::now() + grace;
        *kill_at = Some(kill_at.map_or(due, |at| at.min(due)));
        if grace.is_zero() { Ok(()) } else { signal_all(Signal::TERM) }
    }

    /// Lets the held program run or give up; what was told first counts.
    fn tell(&mut self, word: u8) {
        if let Some(mut go) = self.go.take() {
            // A program that was killed meanwhile reads nothing, and is waited for anyway.
            let _ = go.write_all(&[word]);
        }
    }

    fn report(&mut self, status: WaitStatus, cause: Option<Cause>) -> u8 {
        let signal = status.terminating_signal();
        let code = status.exit_status().unwrap_or_default();
        match (cause, signal) {
            (Some(cause), _) => self.say(cause.word()),
            (None, Some(signal)) => self.say(&format!("signalled {signal}")),
            (None, None) => self.say(&format!("exited {code}")),
        }
        let code = signal.map_or(code, |signal| 128 + signal);
        u8::try_from(code).unwrap_or(u8::MAX)
    }

    /// Waiting on would keep norn from saying what is wrong.
    fn give_up(&mut self) -> io::Result<u8> {
        let stuck = tree::below(&[std::process::id()])?;
        let pids: Vec<String> = stuck.iter().map(|process| process.pid.to_string()).collect();
        self.say(&format!("stuck {}", pids.join(" ")));
        Ok(125)
    }

    fn say(&mut self, line: &str) {
        // norn may be gone; then nobody wants to know.
        let _ = self.norn.write_all(format!("{}\n", line.replace('\n', " ")).as_bytes());
    }
}

impl Cause {
    fn word(self) -> &'static str {
        match self {
            Cause::Told => "ended",
            Cause::Expired => "expired",
        }
    }
}

fn signal_all(signal: Signal) -> io::Result<()> {
    for process in tree::below(&[std::process::id()])? {
        process.signal(signal);
    }
    Ok(())
}

/// Starts the program in a thread, held until a `g` is written to the pipe given back; the other
/// pipe carries its pid. The thread waits for it and for everything the guard adopts.
fn launch(
    program: &OsString,
    args: &[OsString],
    events: Sender<Event>,
) -> io::Result<(PipeReader, PipeWriter)> {
    let (held, report) = io::pipe()?;
    let (gate, go) = io::pipe()?;
    let mut command = Command::new(program);
    command.args(args).stdin(Stdio::null()).process_group(0);
    let hold = move || {
        // A guard that is killed takes the program along.
        set_parent_process_death_signal(Some(Signal::KILL))?;
        let pid = rustix::process::getpid().as_raw_nonzero().get().to_ne_bytes();
        rustix::io::write(&report, &pid)?;
        let mut word = [0];
        loop {
            match rustix::io::read(&gate, &mut word) {
                Err(rustix::io::Errno::INTR) => {}
                Ok(1) if word == *b"g" => return Ok(()),
                Ok(_) => return Err(rustix::io::Errno::CANCELED.into()),
                Err(error) => return Err(error.into()),
            }
        }
    };
    // SAFETY: between fork and exec the closure makes only system calls on values it owns: it
    // takes no lock and allocates nothing.
    unsafe { command.pre_exec(hold) };
    thread::spawn(move || {
        let spawned = command.spawn();
        drop(command);
        let child = match spawned {
            Ok(child) => i32::try_from(child.id()).ok().and_then(Pid::from_raw),
            Err(error) => {
                let _ = events.send(Event::Failed(error));
                return;
            }
        };
        // The guard's main thread outlives this one only to exit.
        loop {
            let event = match wait(WaitOptions::empty()) {
                Ok(Some((pid, status))) if Some(pid) == child => Event::Ended(status),
                Ok(_) | Err(rustix::io::Errno::INTR) => continue,
                // The guard adopts whatever lives below it, so without a child nothing does.
                Err(_) => Event::Gone,
            };
            let gone = matches!(event, Event::Gone);
            if events.send(event).is_err() || gone {
                return;
            }
        }
    });
    Ok((held, go))
}

/// Turns norn's lines into events until norn is gone.
fn listen(norn: UnixStream, events: &Sender<Event>) {
    for line in BufReader::new(norn).lines() {
        let event = match line.as_deref().map(parse) {
            Ok(Some(event)) => event,
            // Unknown words come from no norn: this guard is of the same binary.
            Ok(None) | Err(_) => break,
        };
        if events.send(event).is_err() {
            return;
        }
    }
    let _ = events.send(Event::Closed);
}

fn parse(line: &str) -> Option<Event> {
    match line.split_once(' ') {
        None if line == "start" => Some(Event::Start),
        Some(("lease", nanos)) => Some(Event::Lease(Duration::from_nanos(nanos.parse().ok()?))),
        Some(("end", millis)) => Some(Event::End(Duration::from_millis(millis.parse().ok()?))),
        _ => None,
    }
}
