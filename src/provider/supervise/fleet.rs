//! The replicas of one release under one definition.

use std::net::{IpAddr, SocketAddr};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::sync::{mpsc, watch};
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep};

use super::context::Context;
use super::protocol::{self, Failure, FailureReason, Report, Roll};
use super::replica::{EXITS, Phase, Replica, View};
use super::{logs, procfs};

/// How many lines of a replica's log a failure shows.
const LINES: usize = 20;
/// How often the replicas are looked at while they are waited for.
const LOOK: Duration = Duration::from_millis(25);

/// Where the reports of an order go.
#[derive(Debug, Clone)]
pub struct Reports(mpsc::Sender<Report>);

impl Reports {
    pub fn new() -> (Self, mpsc::Receiver<Report>) {
        let (sender, receiver) = mpsc::channel(256);
        (Self(sender), receiver)
    }

    /// Tells the client, if it listens: a client that does not read must not hold up a roll.
    pub fn say(&self, report: Report) {
        let _unread = self.0.try_send(report);
    }
}

#[derive(Debug)]
pub struct Fleet {
    pub roll: Arc<Roll>,
    context: Arc<Context>,
    phase: watch::Sender<Phase>,
    replicas: Vec<(u32, watch::Receiver<View>)>,
    tasks: Mutex<Vec<JoinHandle<()>>>,
}

impl Fleet {
    /// Starts the replicas; they are on trial until [`settle`](Self::settle).
    pub fn start(context: &Arc<Context>, roll: &Arc<Roll>) -> Self {
        let (phase, on) = watch::channel(Phase::Trial);
        let started = (0..roll.replicas).map(|index| {
            let Replica { index, view, task } =
                Replica::run(Arc::clone(context), Arc::clone(roll), index, on.clone());
            ((index, view), task)
        });
        let (replicas, tasks) = started.unzip();
        let (roll, context) = (Arc::clone(roll), Arc::clone(context));
        Self { roll, context, phase, replicas, tasks: Mutex::new(tasks) }
    }

    /// Waits until every replica is healthy at once.
    pub async fn healthy(&self, reports: &Reports) -> Result<(), Failure> {
        let begin = Instant::now();
        let limit = self.roll.health.startup.min(self.roll.timeout);
        let mut told: Vec<Told> = vec![Told::default(); self.replicas.len()];
        loop {
            let mut waiting = None;
            for ((index, view), told) in self.replicas.iter().zip(&mut told) {
                let view = view.borrow().clone();
                told.tell(*index, &view, reports);
                if view.exits >= EXITS {
                    return Err(self.failure(*index, &view, exited(*index, &view)).await);
                }
                if !view.healthy {
                    waiting = waiting.or(Some((*index, view)));
                }
            }
            let Some((index, view)) = waiting else { return Ok(()) };
            // Startup ends for a replica that never was healthy; one that was may come back
            // until the whole roll's time is over.
            let ever = told.get(index as usize).is_some_and(|told| told.healthy);
            let waited = begin.elapsed();
            if waited >= if ever { self.roll.timeout } else { limit } {
                let reason = match &view.not_started {
                    Some(_) => exited(index, &view),
                    None => FailureReason::NeverHealthy { replica: index, waited },
                };
                return Err(self.failure(index, &view, reason).await);
            }
            sleep(LOOK).await;
        }
    }

    /// From here on the replicas are restarted for ever.
    pub fn settle(&self) {
        self.phase.send_if_modified(|phase| {
            let on_trial = *phase == Phase::Trial;
            if on_trial {
                *phase = Phase::Settled;
            }
            on_trial
        });
    }

    /// Ends every replica, with its group, and waits for that. Again is fine.
    pub async fn stop(&self) {
        self.phase.send_replace(Phase::Stopping);
        let tasks = std::mem::take(&mut *self.tasks.lock().expect("no holder of this lock panics"));
        for task in tasks {
            // A task that panicked has let go of its replica; the marker still finds that one.
            if let Err(error) = task.await {
                self.context.journal.say(&format!("a replica's keeper failed: {error}"));
            }
        }
    }

    pub fn views(&self) -> impl Iterator<Item = &watch::Receiver<View>> {
        self.replicas.iter().map(|(_, view)| view)
    }

    pub fn status(&self) -> Vec<protocol::Replica> {
        let status = |(index, view): &(u32, watch::Receiver<View>)| {
            let view = view.borrow();
            protocol::Replica {
                index: *index,
                pid: view.pid,
                port: view.port,
                healthy: view.healthy,
                restarts: view.restarts,
                age_seconds: view.pid.map_or(0, |_| view.started.elapsed().as_secs()),
                answer: view.answer.clone().or_else(|| view.pid.map_or(view.last_exit.clone(), |_| None)),
            }
        };
        self.replicas.iter().map(status).collect()
    }

    /// All that a reader needs to mend a failed replica.
    async fn failure(&self, index: u32, view: &View, reason: FailureReason) -> Failure {
        let (pid, wanted) = (view.pid, view.port);
        let (path, from) = (self.context.log(index), view.log_from);
        let look = move || {
            let listens = match (pid, wanted) {
                (Some(pid), Some(port)) => elsewhere(procfs::listens(pid), port),
                (None, _) | (_, None) => Vec::new(),
            };
            (listens, logs::tail(&path, from, LINES))
        };
        let (listens, log) = tokio::task::spawn_blocking(look).await.unwrap_or_default();
        Failure { reason, probe: view.answer.clone(), listens, log, restored: None }
    }
}

/// A failure that no replica is to blame for.
pub fn failure(reason: FailureReason) -> Failure {
    Failure { reason, probe: None, listens: Vec::new(), log: Vec::new(), restored: None }
}

/// The addresses of a group, unless the port is reached at one of them.
fn elsewhere(listens: Vec<SocketAddr>, port: u16) -> Vec<SocketAddr> {
    let reached = |address: &SocketAddr| {
        let here = match address.ip() {
            IpAddr::V4(ip) => ip.is_loopback() || ip.is_unspecified(),
            IpAddr::V6(ip) => ip.is_unspecified(),
        };
        here && address.port() == port
    };
    if listens.iter().any(reached) { Vec::new() } else { listens }
}

fn exited(replica: u32, view: &View) -> FailureReason {
    match &view.not_started {
        Some(error) => FailureReason::NotStarted { replica, error: error.clone() },
        None => FailureReason::Exited {
            replica,
            status: view.last_exit.clone().unwrap_or_default(),
            times: view.exits,
        },
    }
}

/// What was reported of one replica.
#[derive(Debug, Clone, Default)]
struct Told {
    pid: Option<u32>,
    healthy: bool,
    answer: Option<String>,
}

impl Told {
    fn tell(&mut self, replica: u32, view: &View, reports: &Reports) {
        if let Some(pid) = view.pid.filter(|pid| self.pid != Some(*pid)) {
            self.pid = Some(pid);
            reports.say(Report::Started { replica, pid, port: view.port });
        }
        if view.healthy && !self.healthy {
            self.healthy = true;
            reports.say(Report::Healthy { replica });
        }
        if let Some(answer) = view.answer.as_ref().filter(|answer| self.answer.as_ref() != Some(answer)) {
            self.answer = Some(answer.clone());
            reports.say(Report::Waiting { replica, answer: answer.clone() });
        }
    }
}
