//! Keeps one replica running: starts it, probes it, restarts it, ends it.

use std::sync::Arc;
use std::time::{Duration, Instant};

use rustix::process::Signal;
use tokio::process::Child;
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio::time::sleep;

use super::context::Context;
use super::process::{end_group, free_port, signal_group, start};
use super::protocol::{Front, Roll};
use super::{logs, probe, procfs};
use crate::provider::machine;

/// The time between probes until a replica is healthy.
const EAGER: Duration = Duration::from_millis(100);
/// How many exits in a row a replica on trial may make.
pub const EXITS: u32 = 3;
/// The pause before a replica on trial is started again.
const RETRY: Duration = Duration::from_millis(300);
/// The longest pause between restarts; a replica that lived this long starts over at 1 s.
const BACKOFF: Duration = Duration::from_secs(60);
/// How many failed probes of the `live` path restart a replica.
const LIVE_FAILURES: u32 = 3;

/// A replica as others see it.
#[derive(Debug, Clone)]
pub struct View {
    /// The leader of the process group while it runs.
    pub pid: Option<u32>,
    pub port: Option<u16>,
    pub healthy: bool,
    /// The last probe's answer while it is not healthy.
    pub answer: Option<String>,
    pub started: Instant,
    /// Restarts since it was first healthy.
    pub restarts: u32,
    /// Exits in a row.
    pub exits: u32,
    pub last_exit: Option<String>,
    /// Why the process could not be started at all.
    pub not_started: Option<String>,
    /// Where the log stood when the process was started.
    pub log_from: u64,
}

/// Whether the roll of a replica is still to be decided.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Phase {
    /// Exits count, and after a few the replica stays down.
    Trial,
    /// It serves: it is restarted for ever.
    Settled,
    Stopping,
}

#[derive(Debug)]
pub struct Replica {
    pub index: u32,
    pub view: watch::Receiver<View>,
    pub task: JoinHandle<()>,
}

impl Replica {
    /// Runs a replica until its phase becomes `Stopping` or the sender of the phase is gone.
    pub fn run(context: Arc<Context>, roll: Arc<Roll>, index: u32, phase: watch::Receiver<Phase>) -> Self {
        let (sender, view) = watch::channel(View {
            pid: None,
            port: None,
            healthy: false,
            answer: None,
            started: Instant::now(),
            restarts: 0,
            exits: 0,
            last_exit: None,
            not_started: None,
            log_from: 0,
        });
        let keeper = Keeper { context, roll, index, phase, view: sender };
        Self { index, view, task: tokio::spawn(keeper.keep()) }
    }
}

struct Keeper {
    context: Arc<Context>,
    roll: Arc<Roll>,
    index: u32,
    phase: watch::Receiver<Phase>,
    view: watch::Sender<View>,
}

/// Why a process that was started does not run any longer.
enum Ended {
    Exited(String),
    NotLive(String),
    Stopped,
}

impl Keeper {
    async fn keep(mut self) {
        let mut pause = Duration::ZERO;
        while !self.stopping() {
            let began = Instant::now();
            let ended = match self.start() {
                Ok(child) => self.watch(child).await,
                Err(error) => {
                    self.view.send_modify(|view| view.not_started = Some(error.clone()));
                    Ended::Exited(format!("could not be started: {error}"))
                }
            };
            let why = match ended {
                Ended::Exited(status) => status,
                Ended::NotLive(answer) => format!("was restarted, as it failed its live probe: {answer}"),
                Ended::Stopped => return,
            };
            let settled = *self.phase.borrow() == Phase::Settled;
            pause = match (settled, began.elapsed() >= BACKOFF) {
                (false, _) => RETRY,
                (true, true) => Duration::from_secs(1),
                (true, false) => (pause * 2).clamp(Duration::from_secs(1), BACKOFF),
            };
            self.context.journal.say(&format!("replica {} {why}", self.index));
            self.view.send_modify(|view| {
                view.exits += 1;
                view.last_exit = Some(why);
                view.restarts += u32::from(settled);
            });
            self.rest(pause).await;
        }
    }

    /// Starts the process and records it before anyone is told.
    fn start(&self) -> Result<Child, String> {
        let port = self.port().map_err(|error| format!("no free port: {error}"))?;
        let log_from = logs::length(&self.context.log(self.index));
        let child = start(&self.context, &self.roll, self.index, port).map_err(|error| error.to_string())?;
        let pid = child.id().expect("a child that was not waited for has a pid");
        // A child that has ended already is nothing that could be left behind.
        if let Ok(identity) = machine::identity_of(pid)
            && let Err(error) = self.context.ledger.update(|record| record.replicas.push(identity))
        {
            signal_group(pid, Signal::KILL);
            return Err(format!("the record cannot be written: {error}"));
        }
        self.view.send_modify(|view| {
            view.pid = Some(pid);
            view.port = port;
            view.started = Instant::now();
            view.log_from = log_from;
            view.not_started = None;
        });
        Ok(child)
    }

    fn port(&self) -> std::io::Result<Option<u16>> {
        match (self.roll.front, self.roll.port) {
            (_, None) => Ok(None),
            (Front::Off, port) => Ok(port),
            (Front::On(_), Some(_)) => free_port().map(Some),
        }
    }

    /// Watches a process until it has ended, with its group.
    async fn watch(&mut self, mut child: Child) -> Ended {
        let pid = child.id().expect("a child that was not waited for has a pid");
        let mut phase = self.phase.clone();
        let ended = tokio::select! {
            status = child.wait() => Ended::Exited(match status {
                Ok(status) => format!("ended with {status}"),
                Err(error) => format!("could not be waited for: {error}"),
            }),
            answer = self.probe() => Ended::NotLive(answer),
            // A closed channel means that nobody wants the replica any more.
            _ = phase.wait_for(|phase| *phase == Phase::Stopping) => Ended::Stopped,
        };
        self.view.send_modify(|view| view.healthy = false);
        // A leader that was waited for has given its number away, unless others are in its group.
        let waited_for = matches!(ended, Ended::Exited(_));
        if !waited_for || !procfs::members(pid).is_empty() {
            end_group(pid).await;
        }
        let _status = child.wait().await;
        self.view.send_modify(|view| view.pid = None);
        let forget =
            self.context.ledger.update(|record| record.replicas.retain(|replica| replica.pid != pid));
        if let Err(error) = forget {
            self.context.journal.say(&format!("the record cannot be written: {error}"));
        }
        ended
    }

    /// Probes for ever; returns the answer that says that the process must be restarted.
    async fn probe(&self) -> String {
        let (port, started) = {
            let view = self.view.borrow();
            (view.port, view.started)
        };
        let mut ever = false;
        let mut dead = 0;
        loop {
            let answer = probe::healthy(&self.context, &self.roll, self.index, port, started).await;
            ever |= answer.is_ok();
            self.view.send_if_modified(|view| {
                let before = (view.healthy, view.answer.take());
                view.healthy = answer.is_ok();
                view.answer = answer.err();
                view.exits = if view.healthy { 0 } else { view.exits };
                before != (view.healthy, view.answer.clone())
            });
            if ever {
                match probe::live(&self.context, &self.roll, port).await {
                    Ok(()) => dead = 0,
                    Err(_) if dead + 1 < LIVE_FAILURES => dead += 1,
                    Err(answer) => return answer,
                }
            }
            sleep(if ever { self.roll.health.interval.max(EAGER) } else { EAGER }).await;
        }
    }

    /// Waits before the next start. A replica on trial that ended too often waits for the verdict.
    async fn rest(&mut self, pause: Duration) {
        let given_up = self.view.borrow().exits >= EXITS;
        let mut phase = self.phase.clone();
        let now = *phase.borrow();
        tokio::select! {
            () = sleep(pause), if !(given_up && now == Phase::Trial) => {}
            _ = phase.wait_for(|phase| *phase != now) => {}
        }
    }

    fn stopping(&self) -> bool {
        *self.phase.borrow() == Phase::Stopping || self.phase.has_changed().is_err()
    }
}
