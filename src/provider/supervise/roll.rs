//! One roll: new replicas are started, become healthy, get the traffic; the old ones drain and
//! end.
//!
//! Invariant: until the new replicas have the traffic everything can be taken back, and is.

use std::net::SocketAddr;
use std::sync::Arc;

use tokio::net::TcpListener;
use tokio::sync::watch;

use super::drain::Pool;
use super::fleet::{Fleet, Reports, failure};
use super::front::{self, Front};
use super::handover::Predecessor;
use super::protocol::{Failure, FailureReason, Outcome, Report, Roll};
use super::server::Supervisor;

/// What a supervisor has live.
#[derive(Debug)]
pub struct Live {
    pub fleet: Fleet,
    pub pool: Arc<Pool>,
    pub front: Option<Arc<Front>>,
}

impl Live {
    /// Takes the app down; returns how many connections were cut.
    pub async fn stop(&self, drain: std::time::Duration, reports: &Reports) -> usize {
        if let Some(front) = &self.front {
            front.close().await;
        }
        let cut = self.pool.drain(drain, reports).await;
        self.fleet.stop().await;
        cut
    }
}

/// What a roll replaces.
enum Old {
    Nothing,
    Mine(Arc<Live>),
    /// What the supervisor before this one has.
    Theirs(Box<Predecessor>),
}

/// New replicas that are healthy.
struct Ready {
    fleet: Fleet,
    /// Where they are to be reached, unless that is open already.
    listener: Option<TcpListener>,
    /// A predecessor's other port, open until its connections are drained.
    handed: Option<TcpListener>,
}

/// Carries out a roll. Returns how many connections to old replicas were cut.
pub async fn roll(
    supervisor: &Arc<Supervisor>,
    roll: &Arc<Roll>,
    reports: &Reports,
    gone: watch::Receiver<bool>,
) -> Result<usize, Failure> {
    let mut old = Old::find(supervisor).map_err(failure)?;
    let conflict = old.conflicts(roll);
    let mut cut = if conflict { old.clear(supervisor, roll, reports).await? } else { 0 };
    let former = old.listen();
    let Ready { fleet, listener, handed } =
        match prepare(supervisor, roll, reports, gone, &mut old, conflict).await {
            Ok(ready) => ready,
            Err(mut failure) => {
                if conflict {
                    failure.restored = Some(old.restore(supervisor).await);
                }
                return Err(failure);
            }
        };

    fleet.settle();
    let pool = Pool::of(&fleet);
    let files = supervisor.context.files.own;
    // Until the drain is over a predecessor's port leads to the new replicas.
    let second = handed.zip(former).filter(|_| roll.listen().is_some());
    let second = second.map(|(listener, address)| Front::serve(listener, address, Arc::clone(&pool), files));
    let front = match (roll.listen(), listener, old.front()) {
        (None, _, _) => None,
        (Some(address), Some(listener), _) => {
            Some(Arc::new(Front::serve(listener, address, Arc::clone(&pool), files)))
        }
        (Some(_), None, front) => front.inspect(|front| drop(front.swap(Arc::clone(&pool)))),
    };
    supervisor.set_live(Live { fleet, pool: Arc::clone(&pool), front: front.clone() });
    supervisor.note(|record| {
        record.release = Some(roll.release.clone());
        record.definition = Some(roll.definition.clone());
        record.port = roll.port;
        record.listen = roll.listen();
        record.set_outcome(&roll.key, Outcome::Moved);
    });
    reports.say(Report::Moved);
    cut += old.retire(supervisor, roll, reports, front, &pool).await;
    if let Some(second) = second {
        second.close().await;
    }
    Ok(cut)
}

/// Opens the port, where a new one is needed, and starts the new replicas. When this returns they
/// are healthy and the traffic can move; on failure nothing of them is left.
async fn prepare(
    supervisor: &Arc<Supervisor>,
    roll: &Arc<Roll>,
    reports: &Reports,
    mut gone: watch::Receiver<bool>,
    old: &mut Old,
    conflict: bool,
) -> Result<Ready, Failure> {
    let inherit = !conflict && roll.listen().is_some() && roll.listen() == old.listen();
    let mut listener = match roll.listen().filter(|_| !inherit) {
        Some(address) => Some(front::open(address).map_err(failure)?),
        None => None,
    };
    let fleet = Fleet::start(&supervisor.context, roll);
    let mut leaving = supervisor.leaving.subscribe();
    let ready = tokio::select! {
        ready = fleet.healthy(reports) => ready,
        _ = gone.wait_for(|gone| *gone) => Err(failure(FailureReason::Abandoned)),
        _ = leaving.wait_for(|leaving| *leaving) => Err(failure(FailureReason::Abandoned)),
    };
    let ready = match ready {
        Ok(()) => old.give(supervisor).await,
        Err(failure) => Err(failure),
    };
    match ready {
        Ok(given) => {
            // An inherited port that could not be handed over is opened instead.
            if inherit && given.is_none() && old.front().is_none() {
                listener = open_inherited(&fleet, roll.listen()).await?;
            }
            let (listener, handed) = if inherit { (given.or(listener), None) } else { (listener, given) };
            Ok(Ready { fleet, listener, handed })
        }
        Err(failure) => {
            fleet.stop().await;
            Err(failure)
        }
    }
}

async fn open_inherited(fleet: &Fleet, address: Option<SocketAddr>) -> Result<Option<TcpListener>, Failure> {
    match address.map(front::open).transpose() {
        Ok(listener) => Ok(listener),
        Err(reason) => {
            fleet.stop().await;
            Err(failure(reason))
        }
    }
}

impl Old {
    fn find(supervisor: &Supervisor) -> Result<Self, FailureReason> {
        if let Some(live) = supervisor.live() {
            return Ok(Old::Mine(live));
        }
        let predecessor = Predecessor::find(supervisor)?;
        Ok(predecessor.map_or(Old::Nothing, |predecessor| Old::Theirs(Box::new(predecessor))))
    }

    /// Whether the new replicas cannot run, or the port cannot be opened, beside the old ones.
    fn conflicts(&self, roll: &Roll) -> bool {
        let (port, listen) = match self {
            Old::Nothing => return false,
            Old::Mine(live) if live.fleet.roll.replicas == 0 => return false,
            Old::Mine(live) => (live.fleet.roll.port, self.listen()),
            Old::Theirs(predecessor) => (predecessor.record.port, self.listen()),
        };
        // The same port on another address, or without a front, is open only once.
        let taken = port.is_some() && port == roll.port && listen != roll.listen();
        roll.insists() || (taken && roll.replicas > 0)
    }

    fn listen(&self) -> Option<SocketAddr> {
        match self {
            Old::Nothing => None,
            Old::Mine(live) => live.front.as_ref().map(|front| front.address),
            Old::Theirs(predecessor) => predecessor.record.listen,
        }
    }

    fn front(&self) -> Option<Arc<Front>> {
        match self {
            Old::Mine(live) => live.front.clone(),
            Old::Nothing | Old::Theirs(_) => None,
        }
    }

    /// Stops the old replicas before the new ones start.
    async fn clear(
        &mut self,
        supervisor: &Supervisor,
        roll: &Roll,
        reports: &Reports,
    ) -> Result<usize, Failure> {
        match self {
            Old::Nothing => Ok(0),
            Old::Mine(live) => Ok(live.stop(roll.drain, reports).await),
            Old::Theirs(predecessor) => predecessor.ask(supervisor, roll, true).await.map(|_| 0),
        }
    }

    /// Starts again what [`clear`](Self::clear) stopped; returns whether it serves.
    async fn restore(self, supervisor: &Arc<Supervisor>) -> bool {
        match self {
            Old::Nothing => false,
            Old::Mine(live) => restore(supervisor, &live).await,
            Old::Theirs(predecessor) => predecessor.restore().await,
        }
    }

    /// At the point of moving the traffic: gets the listening socket of a predecessor, and its
    /// office.
    async fn give(&mut self, supervisor: &Supervisor) -> Result<Option<TcpListener>, Failure> {
        match self {
            Old::Nothing | Old::Mine(_) => Ok(None),
            Old::Theirs(predecessor) => predecessor.give(supervisor).await,
        }
    }

    /// Drains and ends the old replicas.
    async fn retire(
        self,
        supervisor: &Supervisor,
        roll: &Roll,
        reports: &Reports,
        front: Option<Arc<Front>>,
        pool: &Arc<Pool>,
    ) -> usize {
        let live = match self {
            Old::Nothing => return 0,
            Old::Theirs(predecessor) => return predecessor.retire(supervisor, roll, reports).await,
            Old::Mine(live) => live,
        };
        let left = live.front.as_ref().filter(|old| !front.as_ref().is_some_and(|new| Arc::ptr_eq(old, new)));
        match (left, &front) {
            // Until the drain is over the old port leads to the new replicas.
            (Some(old), Some(_)) => drop(old.swap(Arc::clone(pool))),
            (Some(old), None) => old.close().await,
            (None, _) => {}
        }
        let cut = live.pool.drain(roll.drain, reports).await;
        live.fleet.stop().await;
        if let Some(old) = left {
            old.close().await;
        }
        cut
    }
}

/// Starts a release again that was stopped; returns whether it is healthy. It stays live either
/// way.
pub async fn restore(supervisor: &Arc<Supervisor>, stopped: &Live) -> bool {
    let roll = &stopped.fleet.roll;
    let fleet = Fleet::start(&supervisor.context, roll);
    let pool = Pool::of(&fleet);
    let listener = roll.listen().map(front::open).transpose();
    let opened = listener.is_ok();
    let front = listener.ok().flatten().zip(roll.listen()).map(|(listener, address)| {
        Arc::new(Front::serve(listener, address, Arc::clone(&pool), supervisor.context.files.own))
    });
    let (silent, _) = Reports::new();
    let healthy = fleet.healthy(&silent).await.is_ok();
    fleet.settle();
    supervisor.set_live(Live { fleet, pool, front });
    healthy && opened
}
