//! The connections to one fleet: counted, and closed when the fleet is to go.
//!
//! Invariant: a connection is counted before its replica is chosen, so a fleet without
//! connections that gets no new ones can be stopped.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use tokio::sync::watch;
use tokio::time::{Instant, sleep};

use super::fleet::{Fleet, Reports};
use super::protocol::Report;
use super::replica::View;

/// How long a connection must be silent to count as idle.
pub const SILENCE: Duration = Duration::from_secs(1);
/// The longest drain; a longer one is taken for this.
const LONGEST: Duration = Duration::from_secs(30 * 24 * 3600);
/// How often connections that drain are looked at.
pub const LOOK: Duration = Duration::from_millis(50);

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Stage {
    Open,
    /// Idle connections close.
    Draining,
    /// All others close, too.
    Cut,
}

/// The replicas of one fleet, as the front uses them.
#[derive(Debug)]
pub struct Pool {
    views: Vec<watch::Receiver<View>>,
    next: AtomicUsize,
    stage: watch::Sender<Stage>,
    open: AtomicUsize,
    cut: AtomicUsize,
}

impl Pool {
    pub fn of(fleet: &Fleet) -> Arc<Self> {
        Arc::new(Self {
            views: fleet.views().cloned().collect(),
            next: AtomicUsize::new(0),
            stage: watch::channel(Stage::Open).0,
            open: AtomicUsize::new(0),
            cut: AtomicUsize::new(0),
        })
    }

    /// The ports to try, in this order: the healthy ones in rotation, then the others.
    pub fn ports(&self) -> Vec<u16> {
        let turn = self.next.fetch_add(1, Ordering::Relaxed) % self.views.len().max(1);
        let (late, early) = self.views.split_at(turn);
        let views = || early.iter().chain(late).map(|view| view.borrow());
        let healthy = views().filter(|view| view.healthy).filter_map(|view| view.port);
        let others = views().filter(|view| !view.healthy).filter_map(|view| view.port);
        healthy.chain(others).collect()
    }

    /// Counts a connection until the guard is dropped.
    pub fn enter(self: &Arc<Self>) -> Guard {
        self.open.fetch_add(1, Ordering::SeqCst);
        Guard(Arc::clone(self))
    }

    /// Closes the connections as they get idle, the rest after `limit`; returns how many those
    /// were. Each is counted once, also where this is called again.
    pub async fn drain(&self, limit: Duration, reports: &Reports) -> usize {
        let end = Instant::now() + limit.min(LONGEST);
        self.stage.send_replace(Stage::Draining);
        let mut told = 0;
        loop {
            let connections = self.open.load(Ordering::SeqCst);
            if connections == 0 {
                break;
            }
            if Instant::now() >= end {
                self.stage.send_replace(Stage::Cut);
            }
            if connections != told {
                told = connections;
                reports.say(Report::Draining { connections });
            }
            sleep(LOOK).await;
        }
        self.cut.swap(0, Ordering::SeqCst)
    }
}

/// One connection's place in the count.
#[derive(Debug)]
pub struct Guard(Arc<Pool>);

impl Guard {
    pub fn pool(&self) -> &Pool {
        &self.0
    }

    pub fn count_cut(&self) {
        self.0.cut.fetch_add(1, Ordering::SeqCst);
    }

    /// Returns when the pool has reached a stage. Safe to cancel.
    pub async fn reached(&self, stage: Stage) {
        let mut stages = self.0.stage.subscribe();
        // The sender lives in the pool, which this guard holds.
        let _stage = stages.wait_for(|now| *now >= stage).await;
    }
}

impl Drop for Guard {
    fn drop(&mut self) {
        self.0.open.fetch_sub(1, Ordering::SeqCst);
    }
}
