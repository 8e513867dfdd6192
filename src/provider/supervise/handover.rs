//! A newer norn takes over: one supervisor hands the app to another.
//!
//! The successor starts its replicas first. Then it asks for the listening socket, takes the
//! record and the socket's name, begins to accept, and says `Taken`. Until that word both accept
//! from one queue, so no connection is refused; where the word never comes, the old supervisor
//! takes its names back and goes on.

use std::sync::Arc;
use std::time::Duration;

use rustix::process::Signal;
use tokio::net::TcpListener;
use tokio::time::{Instant, sleep, timeout};

use super::fleet::{Reports, failure};
use super::front;
use super::place::Seat;
use super::protocol::{Envelope, Failure, FailureReason, Order, Refusal, Report, Roll};
use super::record::Record;
use super::roll::restore;
use super::server::{Supervisor, ended};
use super::sweep::{self, Reach};
use super::wire::Channel;
use crate::provider::machine;

/// The longest time that new replicas are waited for.
const LONGEST: Duration = Duration::from_secs(24 * 3600);
/// How long an answer between two supervisors may take.
const ANSWER: Duration = Duration::from_secs(10);

/// The supervisor in office, as its successor sees it.
pub struct Predecessor {
    /// What its record said when the roll began.
    pub record: Record,
    fence: u64,
    patience: Duration,
    /// Open from the hand-over on; none where the predecessor is dead.
    channel: Option<Channel>,
    asked: bool,
}

impl Predecessor {
    /// The predecessor of a supervisor that has no office yet; `None` for one that has.
    pub fn find(supervisor: &Supervisor) -> Result<Option<Self>, FailureReason> {
        if supervisor.seat() == Seat::Office {
            return Ok(None);
        }
        let record = Record::read(&supervisor.before().record(Seat::Office));
        let record = record.map_err(|error| refusal(format!("its record: {error}")))?;
        let record = record.ok_or_else(|| refusal("its record cannot be read".to_owned()))?;
        let fence = supervisor.context.ledger.read(|record| record.fence);
        Ok(Some(Self { record, fence, patience: ANSWER, channel: None, asked: false }))
    }

    /// Asks for the hand-over. With `stop` the predecessor stops its replicas first. The socket is
    /// returned where there is one; a dead predecessor's replicas are ended where they must be.
    pub async fn ask(
        &mut self,
        supervisor: &Supervisor,
        roll: &Roll,
        stop: bool,
    ) -> Result<Option<TcpListener>, Failure> {
        self.patience = roll.timeout.min(LONGEST);
        self.hand_over(supervisor, stop).await
    }

    async fn hand_over(
        &mut self,
        supervisor: &Supervisor,
        stop: bool,
    ) -> Result<Option<TcpListener>, Failure> {
        self.asked = true;
        let end = Instant::now() + self.patience.max(ANSWER);
        loop {
            let stream = match supervisor.before().connect(Seat::Office).await {
                Ok(stream) => stream,
                Err(_) if ended(&self.record.supervisor).await => {
                    self.refresh(supervisor);
                    if stop || self.record.listen.is_some() {
                        self.sweep(supervisor).await;
                    }
                    return Ok(None);
                }
                Err(error) => return Err(not_handed_over(format!("its socket: {error}"))),
            };
            let mut channel = Channel::new(stream);
            let order = Envelope::new(Order::Handover { fence: self.fence, stop });
            // Stopping may take as long as connections drain.
            let limit = if stop { self.patience + Duration::from_secs(600) } else { ANSWER };
            let ask = async {
                channel.send(&order).await?;
                channel.receive::<Report>().await
            };
            match timeout(limit, ask).await {
                Ok(Ok(Some(Report::Moved))) => {
                    self.refresh(supervisor);
                    let listener = channel.take_descriptor().map(front::adopt).transpose();
                    self.channel = Some(channel);
                    return listener.map_err(|error| not_handed_over(error.to_string()));
                }
                // A roll before this one still drains.
                Ok(Ok(Some(Report::Refused(Refusal::Busy { .. })))) if Instant::now() < end => {
                    sleep(Duration::from_millis(100)).await;
                }
                Ok(Ok(Some(other))) => return Err(not_handed_over(format!("it answered {other:?}"))),
                // It may have been killed just now; then the next round finds nobody.
                Ok(Ok(None) | Err(_)) if ended(&self.record.supervisor).await => {}
                Ok(Ok(None)) => return Err(not_handed_over("it closed the connection".to_owned())),
                Ok(Err(error)) => return Err(not_handed_over(error.to_string())),
                Err(_) => return Err(not_handed_over(format!("no answer within {} s", limit.as_secs()))),
            }
        }
    }

    /// Gets the listening socket, unless it was cleared before, then takes the office.
    pub async fn give(&mut self, supervisor: &Supervisor) -> Result<Option<TcpListener>, Failure> {
        let listener = if self.asked { None } else { self.hand_over(supervisor, false).await? };
        supervisor.take_office().map_err(|error| not_handed_over(error.to_string()))?;
        Ok(listener)
    }

    /// Lets the predecessor start again what it stopped; returns whether that serves.
    pub async fn restore(mut self) -> bool {
        let Some(channel) = &mut self.channel else { return false };
        let limit = self.patience + ANSWER;
        channel.finish().is_ok()
            && matches!(timeout(limit, channel.receive()).await, Ok(Ok(Some(Report::Done { .. }))))
    }

    /// Tells the predecessor that it is relieved, and waits for its end.
    pub async fn retire(mut self, supervisor: &Supervisor, roll: &Roll, reports: &Reports) -> usize {
        let mut cut = 0;
        if let Some(channel) = &mut self.channel {
            let _dead = channel.send(&Envelope::new(Order::Taken { drain: roll.drain })).await;
            // Draining, then ending replicas that do not want to.
            let limit = roll.drain.min(LONGEST) + Duration::from_secs(60);
            let _silent = timeout(limit, follow(channel, reports, &mut cut)).await;
        }
        if !ended(&self.record.supervisor).await {
            // It has no office and no name any more: nobody could ever ask it to end.
            supervisor.context.journal.say("the supervisor before this one does not end and is killed");
            sweep::kill(self.record.supervisor.pid, Signal::KILL);
            ended(&self.record.supervisor).await;
        }
        self.sweep(supervisor).await;
        supervisor.clear_former();
        cut
    }

    /// Reads the record again: the supervisor does not change it any more.
    fn refresh(&mut self, supervisor: &Supervisor) {
        if let Ok(Some(record)) = Record::read(&supervisor.before().record(Seat::Office)) {
            self.record = record;
        }
    }

    /// Ends what is left of a predecessor's replicas, itself being dead.
    async fn sweep(&self, supervisor: &Supervisor) {
        if machine::alive(&self.record.supervisor) != Some(true) {
            let reach = Reach::Of(self.record.supervisor.pid);
            sweep::sweep(&supervisor.before().marker(), &self.record.replicas, reach).await;
        }
    }
}

/// Passes reports on until the predecessor is done.
async fn follow(channel: &mut Channel, reports: &Reports, cut: &mut usize) {
    while let Ok(Some(report)) = channel.receive().await {
        match report {
            Report::Done { cut: counted } => {
                *cut = counted;
                return;
            }
            other => reports.say(other),
        }
    }
}

fn refusal(error: String) -> FailureReason {
    FailureReason::NotHandedOver { error }
}

fn not_handed_over(error: String) -> Failure {
    failure(refusal(error))
}

/// The predecessor's side. Returns the last report, and whether this supervisor is relieved.
pub async fn hand_over(supervisor: &Arc<Supervisor>, channel: &mut Channel, stop: bool) -> (Report, bool) {
    supervisor.context.ledger.freeze();
    let live = supervisor.live();
    let (silent, _) = Reports::new();
    let mut cut = 0;
    if let Some(live) = live.as_ref().filter(|_| stop) {
        cut = live.stop(live.fleet.roll.drain, &silent).await;
    }
    let front = live.as_ref().and_then(|live| live.front.as_ref());
    let descriptor = match front.map_or(Ok(None), |front| front.descriptor()) {
        Ok(descriptor) => descriptor,
        Err(error) => {
            supervisor.reclaim().await;
            return (Report::Failed(not_handed_over(error.to_string())), false);
        }
    };
    let told = channel.send_with(&Report::Moved, descriptor.as_ref().map(std::os::fd::AsFd::as_fd)).await;
    drop(descriptor);
    let word = if told.is_ok() { channel.receive::<Envelope>().await } else { Ok(None) };
    if let Ok(Some(Envelope { order: Order::Taken { drain }, .. })) = word {
        cut += match live.filter(|_| !stop) {
            Some(live) => relieved(&live, drain, channel).await,
            None => 0,
        };
        return (Report::Done { cut }, true);
    }

    // The successor failed. What it took, its names included, is taken back.
    supervisor.reclaim().await;
    let serves = match live.filter(|_| stop) {
        Some(live) => restore(supervisor, &live).await,
        None => true,
    };
    let report = if serves {
        Report::Done { cut }
    } else {
        Report::Failed(not_handed_over("the release before is not healthy again".to_owned()))
    };
    (report, false)
}

/// Drains and stops, and reports the draining to the successor while it listens.
async fn relieved(live: &super::roll::Live, drain: Duration, channel: &mut Channel) -> usize {
    let (reports, mut received) = Reports::new();
    let stopping = live.stop(drain, &reports);
    tokio::pin!(stopping);
    loop {
        tokio::select! {
            cut = &mut stopping => return cut,
            Some(report) = received.recv() => {
                let _not_heard = timeout(ANSWER, channel.send(&report)).await;
            }
        }
    }
}
