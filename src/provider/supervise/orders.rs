//! What a supervisor does with one connection: reads one order, carries it out, reports.

use std::sync::Arc;
use std::time::Duration;

use serde::Deserialize;
use tokio::net::UnixStream;
use tokio::sync::{mpsc, watch};
use tokio::time::timeout;

use super::fleet::{Reports, failure};
use super::handover::hand_over;
use super::place::Seat;
use super::protocol::{Envelope, FailureReason, Order, Outcome, PROTOCOL, Refusal, Report, Roll};
use super::roll::roll;
use super::server::Supervisor;
use super::wire::{self, Channel, WireError};

/// How long a client may take to send its order, or to read a report.
const PATIENCE: Duration = Duration::from_secs(10);

/// The right to change what runs; one at a time has it.
#[derive(Debug)]
pub struct Claim {
    supervisor: Arc<Supervisor>,
}

impl Claim {
    fn take(supervisor: &Arc<Supervisor>, key: &str) -> Result<Self, Refusal> {
        let mut desk = supervisor.desk();
        if let Some(key) = &desk.busy {
            return Err(Refusal::Busy { key: key.clone() });
        }
        desk.busy = Some(key.to_owned());
        drop(desk);
        Ok(Self { supervisor: Arc::clone(supervisor) })
    }

    /// Never gives it back: nothing may begin between here and the end of the process.
    fn keep(self) {
        std::mem::forget(self);
    }
}

impl Drop for Claim {
    fn drop(&mut self) {
        self.supervisor.desk().busy = None;
    }
}

/// What follows an answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum After {
    GoOn,
    End,
}

/// Serves one connection to its end.
pub async fn serve(supervisor: Arc<Supervisor>, stream: UnixStream) {
    let mut channel = Channel::new(stream);
    let (report, after) = match timeout(PATIENCE, channel.line()).await {
        Ok(Ok(Some(line))) => match read(&line) {
            Ok(order) => obey(&supervisor, &mut channel, order).await,
            Err(refusal) => (Report::Refused(refusal), After::GoOn),
        },
        Ok(Err(error @ (WireError::TooLong | WireError::Json { .. }))) => {
            let refusal = Refusal::Malformed { error: error.to_string() };
            (Report::Refused(refusal), After::GoOn)
        }
        Ok(Ok(None) | Err(WireError::Io(_))) | Err(_) => return,
    };
    if after == After::End && supervisor.seat() == Seat::Next {
        // Before the client hears of the end: it may start the next successor at once.
        supervisor.clear_place();
    }
    let _not_heard = timeout(PATIENCE, channel.send(&report)).await;
    if after == After::End {
        supervisor.ended.send_replace(true);
    }
}

/// The order of a line.
pub fn read(line: &[u8]) -> Result<Order, Refusal> {
    #[derive(Deserialize)]
    struct Version {
        protocol: u32,
    }
    let malformed = |error: WireError| Refusal::Malformed { error: error.to_string() };
    // The version first: an order of another protocol may look like anything.
    let Version { protocol } = wire::parse(line).map_err(malformed)?;
    if protocol != PROTOCOL {
        return Err(Refusal::Protocol { speaks: PROTOCOL });
    }
    wire::parse::<Envelope>(line).map(|envelope| envelope.order).map_err(malformed)
}

async fn obey(supervisor: &Arc<Supervisor>, channel: &mut Channel, order: Order) -> (Report, After) {
    supervisor.desk().heard = true;
    let done = match order {
        Order::Status => Ok((Report::Status(supervisor.status()), After::GoOn)),
        Order::Ask { key } => Ok((Report::Known { outcome: supervisor.outcome(&key) }, After::GoOn)),
        Order::Roll(roll) => obey_roll(supervisor, channel, Arc::new(*roll)).await,
        Order::Stop { fence } => obey_stop(supervisor, channel, fence).await,
        Order::Handover { fence, stop } => obey_handover(supervisor, channel, fence, stop).await,
        Order::Taken { .. } => {
            Err(Refusal::Malformed { error: "`taken` is for the connection of a hand-over".to_owned() })
        }
    };
    done.unwrap_or_else(|refusal| (Report::Refused(refusal), After::GoOn))
}

async fn obey_roll(
    supervisor: &Arc<Supervisor>,
    channel: &mut Channel,
    roll: Arc<Roll>,
) -> Result<(Report, After), Refusal> {
    admit(supervisor, roll.fence)?;
    if let Some(report) = finished(supervisor.outcome(&roll.key)) {
        return Ok((report, after_roll(supervisor)));
    }
    let claim = Claim::take(supervisor, &roll.key)?;
    supervisor.note(|record| record.set_outcome(&roll.key, Outcome::Running));
    let (reports, received) = Reports::new();
    let (gone, on_gone) = watch::channel(false);
    // A task of its own: it finishes whatever becomes of the connection.
    let task = tokio::spawn(carry_out(Arc::clone(supervisor), roll, reports, on_gone, claim));
    forward(channel, received, &gone).await;
    let report = task.await.unwrap_or_else(|_| Report::Failed(failure(FailureReason::Abandoned)));
    Ok((report, after_roll(supervisor)))
}

async fn carry_out(
    supervisor: Arc<Supervisor>,
    order: Arc<Roll>,
    reports: Reports,
    gone: watch::Receiver<bool>,
    claim: Claim,
) -> Report {
    supervisor.context.journal.say(&format!("rolls {} ({})", order.release.tag, order.key));
    let result = roll(&supervisor, &order, &reports, gone).await;
    let (outcome, report) = match result {
        Ok(cut) => (Outcome::Done { cut }, Report::Done { cut }),
        Err(failure) => (Outcome::Failed(failure.clone()), Report::Failed(failure)),
    };
    supervisor.context.journal.say(&format!("rolled {}: {}", order.release.tag, word(&outcome)));
    supervisor.note(|record| record.set_outcome(&order.key, outcome));
    drop(claim);
    report
}

/// Sends reports until the sender is gone, and tells when the client is.
async fn forward(channel: &mut Channel, mut received: mpsc::Receiver<Report>, gone: &watch::Sender<bool>) {
    let mut listens = true;
    loop {
        tokio::select! {
            biased;
            report = received.recv() => match report {
                Some(report) if listens => {
                    listens = matches!(timeout(PATIENCE, channel.send(&report)).await, Ok(Ok(())));
                }
                Some(_) => {}
                None => return,
            },
            () = channel.closed(), if listens => listens = false,
        }
        if !listens {
            gone.send_replace(true);
        }
    }
}

async fn obey_stop(
    supervisor: &Arc<Supervisor>,
    channel: &mut Channel,
    fence: u64,
) -> Result<(Report, After), Refusal> {
    admit(supervisor, fence)?;
    let claim = Claim::take(supervisor, "stop")?;
    let (reports, received) = Reports::new();
    let stopping = Arc::clone(supervisor);
    let task = tokio::spawn(async move { stopping.stop(&reports).await });
    forward(channel, received, &watch::channel(false).0).await;
    let cut = task.await.unwrap_or_default();
    claim.keep();
    Ok((Report::Done { cut }, After::End))
}

async fn obey_handover(
    supervisor: &Arc<Supervisor>,
    channel: &mut Channel,
    fence: u64,
    stop: bool,
) -> Result<(Report, After), Refusal> {
    admit(supervisor, fence)?;
    let claim = Claim::take(supervisor, "handover")?;
    let (report, relieved) = hand_over(supervisor, channel, stop).await;
    if relieved {
        claim.keep();
    }
    Ok((report, if relieved { After::End } else { After::GoOn }))
}

/// Refuses an order of an older lease than any seen, and remembers a newer one.
fn admit(supervisor: &Supervisor, fence: u64) -> Result<(), Refusal> {
    let seen = supervisor.context.ledger.read(|record| record.fence);
    if fence < seen {
        return Err(Refusal::Fenced { seen });
    }
    if fence > seen {
        supervisor.note(|record| record.fence = record.fence.max(fence));
    }
    Ok(())
}

/// A successor without an office has nothing left to do after its roll.
fn after_roll(supervisor: &Supervisor) -> After {
    match supervisor.seat() {
        Seat::Office => After::GoOn,
        Seat::Next => After::End,
    }
}

fn finished(outcome: Outcome) -> Option<Report> {
    match outcome {
        Outcome::Unknown | Outcome::Running | Outcome::Moved => None,
        Outcome::Done { cut } => Some(Report::Done { cut }),
        Outcome::Failed(failure) => Some(Report::Failed(failure)),
    }
}

fn word(outcome: &Outcome) -> String {
    match outcome {
        Outcome::Unknown | Outcome::Running | Outcome::Moved => "under way".to_owned(),
        Outcome::Done { cut } => format!("done, {cut} connections cut"),
        Outcome::Failed(failure) => format!("failed, {:?}", failure.reason),
    }
}
