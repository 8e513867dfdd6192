//! norn's side: finds an app's supervisor, starts or replaces it, sends it orders.

use std::collections::BTreeSet;
use std::fmt;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use tokio::sync::OnceCell;
use tokio::time::{Instant, sleep, timeout};

use super::launch::{self, Launch};
use super::place::{Place, Seat};
use super::procfs;
use super::protocol::{Envelope, Failure, Order, Outcome, Refusal, Report, Roll, Status};
use super::record::Record;
use super::server::ended;
use super::sweep::{self, Reach};
use super::wire::Channel;
use crate::failpoint;
use crate::provider::machine;
use crate::spec::name::AppName;
use crate::state::lock::ProcessIdentity;

/// How long a supervisor may take to say what runs.
const ANSWER: Duration = Duration::from_secs(5);

/// How long a successor may take to end the replicas of a roll that was given up.
const GIVEN_UP: Duration = Duration::from_secs(20);

/// Where a project's supervisors live.
#[derive(Debug)]
pub struct Home {
    /// Sockets and records.
    pub run: PathBuf,
    /// A folder of logs an app.
    pub logs: PathBuf,
    /// The copies of norn that supervise.
    pub bin: PathBuf,
    /// The binary that new supervisors run.
    pub executable: PathBuf,
    /// The SHA-256 of the binary, computed when it is first needed.
    digest: OnceCell<String>,
}

/// What supervises an app.
#[derive(Debug, Clone, PartialEq)]
pub enum Observation {
    Absent,
    Running(Status),
    /// The supervisor is dead; these processes of its replicas live.
    Unsupervised {
        replicas: Vec<ProcessIdentity>,
    },
    /// The record is from before the machine's last start: nothing of it can live.
    Rebooted,
    /// Another machine, or another container on it, supervises; it cannot be seen from here.
    OtherMachine {
        who: String,
    },
    /// The supervisor lives and does not answer.
    Silent {
        why: String,
    },
}

/// A roll that is complete; `cut` connections were closed at the drain's end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Done {
    pub cut: usize,
}

#[derive(Debug, thiserror::Error)]
pub enum RollError {
    #[error("{0}")]
    Failed(Box<Failure>),
    #[error("{0}")]
    Refused(Refusal),
    #[error("the connection to the supervisor broke {}", if *.moved {
        "after traffic had moved: the supervisor finishes the roll, ask for its outcome by its key"
    } else {
        "before traffic moved: the new replicas are stopped, ask for the outcome by its key"
    })]
    Lost { moved: bool },
    #[error("no supervisor for {app}: {why}")]
    NotStarted { app: AppName, why: String },
    #[error(
        "{app} is supervised by {who}, which cannot be seen from here: run norn there, or remove {} if that \
         machine is gone",
        record.display()
    )]
    OtherMachine { app: AppName, who: String, record: PathBuf },
}

impl Home {
    /// A home whose supervisors run the binary of this process.
    pub fn new(run: PathBuf, logs: PathBuf, bin: PathBuf) -> Self {
        // This name holds even where the binary was replaced since the process began.
        Self::with_executable(run, logs, bin, PathBuf::from("/proc/self/exe"))
    }

    pub fn with_executable(run: PathBuf, logs: PathBuf, bin: PathBuf, executable: PathBuf) -> Self {
        Self { run, logs, bin, executable, digest: OnceCell::new() }
    }

    /// The names of which anything stands in the folder of sockets and records; of all others
    /// nothing is supervised. `None` where the folder cannot be read.
    pub fn present(&self) -> Option<BTreeSet<String>> {
        let entries = match fs::read_dir(&self.run) {
            Ok(entries) => entries,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Some(BTreeSet::new()),
            Err(_) => return None,
        };
        // A name has no dot: what stands before the first is the app.
        let name = |entry: io::Result<fs::DirEntry>| {
            let file = entry.ok()?.file_name().into_string().ok()?;
            Some(file.split('.').next().unwrap_or_default().to_owned())
        };
        entries.map(name).collect()
    }

    /// Puts a release live: through the supervisor that runs, through a new one where none does,
    /// or through a successor where the one that runs is of another binary. Dropping the future
    /// gives the roll up, unless traffic has moved.
    pub async fn roll(
        &self,
        app: &AppName,
        roll: Roll,
        mut on_report: impl FnMut(Report),
    ) -> Result<Done, RollError> {
        let fence = roll.fence;
        let done = self.roll_own(app, roll, &mut on_report).await?;
        // The supervisor of a former name was relieved, and is left only where something died.
        self.leave_former(app, fence, |_| {}).await?;
        Ok(done)
    }

    async fn roll_own(
        &self,
        app: &AppName,
        roll: Roll,
        on_report: impl FnMut(Report),
    ) -> Result<Done, RollError> {
        let not_started = |why: String| RollError::NotStarted { app: app.clone(), why };
        let place = self.place(app, true).map_err(|error| not_started(self.unusable(&error)))?;
        let digest = self.digest().await.map_err(|error| not_started(self.no_binary(&error)))?;
        let (seen, record) = self.look(app).await;
        self.sweep_successor(app, &place, roll.fence).await?;
        let mut after = None;
        let mut seat = match seen {
            // One without a record cannot be relieved, only used.
            Observation::Running(_) if record.as_ref().is_none_or(|record| record.executable == digest) => {
                return self.order(app, &place, Seat::Office, Order::Roll(Box::new(roll)), on_report).await;
            }
            Observation::Running(_) => Seat::Next,
            Observation::Absent | Observation::Rebooted => Seat::Office,
            Observation::Unsupervised { .. } => {
                let recorded = record.map(|record| record.replicas).unwrap_or_default();
                self.sweep(app, &place, &recorded).await?;
                Seat::Office
            }
            Observation::OtherMachine { who } => return Err(self.other_machine(app, &place, who)),
            Observation::Silent { why } => return Err(not_started(why)),
        };
        if seat == Seat::Office {
            after = self.make_way(app, roll.fence).await?;
            seat = if after.is_some() { Seat::Next } else { Seat::Office };
        }
        let executable = launch::copy(self.executable.clone(), digest, self.bin.clone()).await;
        let executable = executable.map_err(|error| not_started(self.no_binary(&error)))?;
        let [run, logs] = [&self.run, &self.logs].map(std::path::absolute);
        let run = run.map_err(|error| not_started(error.to_string()))?;
        let logs = logs.map_err(|error| not_started(error.to_string()))?;
        let launch = Launch { executable: &executable, run: &run, logs: &logs, seat, after: after.as_ref() };
        launch::start(&launch, &place).await.map_err(not_started)?;
        self.order(app, &place, seat, Order::Roll(Box::new(roll)), on_report).await
    }

    /// What became of the roll with this key. A dead supervisor's record answers for it; a roll
    /// it left before traffic moved counts as unknown, as nothing will come of it.
    ///
    /// # Errors
    /// A supervisor that lives and does not answer, or that cannot be seen from here.
    pub async fn ask(&self, app: &AppName, key: &str) -> Result<Outcome, RollError> {
        let not_started = |why: String| RollError::NotStarted { app: app.clone(), why };
        let (seen, record) = self.look(app).await;
        match seen {
            Observation::Absent => {
                // The first supervisor of a new name has no office until it has taken over.
                let Ok(place) = self.place(app, false) else { return Ok(Outcome::Unknown) };
                match question(&place, Seat::Next, Order::Ask { key: key.to_owned() }).await {
                    Ok(Report::Known { outcome }) => Ok(outcome),
                    Ok(_) | Err(_) => Ok(self.ask_record(&place, key).unwrap_or(Outcome::Unknown)),
                }
            }
            Observation::Rebooted | Observation::Unsupervised { .. } => {
                Ok(match record.map_or(Outcome::Unknown, |record| record.outcome(key)) {
                    Outcome::Running => Outcome::Unknown,
                    known => known,
                })
            }
            Observation::Running(_) => {
                let place = self.place(app, false).map_err(|error| not_started(self.unusable(&error)))?;
                let mut last = Outcome::Unknown;
                // A successor may know the roll, or take the office between two questions.
                for seat in [Seat::Office, Seat::Next, Seat::Office] {
                    let order = Order::Ask { key: key.to_owned() };
                    match question(&place, seat, order).await {
                        Ok(Report::Known { outcome: Outcome::Unknown }) => {}
                        Ok(Report::Known { outcome }) => return Ok(outcome),
                        Ok(Report::Refused(refusal)) => return Err(RollError::Refused(refusal)),
                        Ok(other) => return Err(not_started(format!("it answered {other:?}"))),
                        Err(_) if seat == Seat::Next => {}
                        Err(why) => last = self.ask_record(&place, key).ok_or(not_started(why))?,
                    }
                }
                Ok(last)
            }
            Observation::OtherMachine { who } => {
                let place = self.place(app, false).map_err(|error| not_started(self.unusable(&error)))?;
                Err(self.other_machine(app, &place, who))
            }
            Observation::Silent { why } => Err(not_started(why)),
        }
    }

    /// Stops the app and its supervisor, or ends what a dead one left. Absent is fine.
    pub async fn stop(
        &self,
        app: &AppName,
        fence: u64,
        mut on_report: impl FnMut(Report),
    ) -> Result<Done, RollError> {
        let done = self.stop_own(app, fence, &mut on_report).await?;
        self.leave_former(app, fence, on_report).await?;
        Ok(done)
    }

    pub(super) async fn stop_own(
        &self,
        app: &AppName,
        fence: u64,
        on_report: impl FnMut(Report),
    ) -> Result<Done, RollError> {
        let not_started = |why: String| RollError::NotStarted { app: app.clone(), why };
        let (seen, record) = self.look(app).await;
        let place = match self.place(app, false) {
            Ok(place) => place,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Done { cut: 0 }),
            Err(error) => return Err(not_started(self.unusable(&error))),
        };
        self.sweep_successor(app, &place, fence).await?;
        match seen {
            Observation::Absent => return Ok(Done { cut: 0 }),
            Observation::Running(_) => {
                let order = Order::Stop { fence };
                let done = self.order(app, &place, Seat::Office, order, on_report).await?;
                if let Some(record) = record {
                    ended(&record.supervisor).await;
                }
                return Ok(done);
            }
            Observation::Rebooted => {}
            Observation::Unsupervised { .. } => {
                if let Some(seen) = record.as_ref().map(|record| record.fence).filter(|seen| *seen > fence) {
                    return Err(RollError::Refused(Refusal::Fenced { seen }));
                }
                let recorded = record.map(|record| record.replicas).unwrap_or_default();
                self.sweep(app, &place, &recorded).await?;
            }
            Observation::OtherMachine { who } => return Err(self.other_machine(app, &place, who)),
            Observation::Silent { why } => return Err(not_started(why)),
        }
        place.clear(Seat::Office).map_err(|error| not_started(self.unusable(&error)))?;
        Ok(Done { cut: 0 })
    }

    /// Observes, and returns the record that was looked at.
    pub(super) async fn look(&self, app: &AppName) -> (Observation, Option<Record>) {
        let silent = |why: String| Observation::Silent { why };
        let place = match self.place(app, false) {
            Ok(place) => place,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return (Observation::Absent, None),
            Err(error) => return (silent(self.unusable(&error)), None),
        };
        let mut last = None;
        loop {
            let record = match Record::read(&place.record(Seat::Office)) {
                Ok(record) => record,
                Err(error) => return (silent(self.unusable(&error)), None),
            };
            let seen = self.look_at(&place, record.as_ref()).await;
            // Between two looks a successor may have taken the office: only a record that stays
            // the same tells the truth about a supervisor that is dead.
            let who = record.as_ref().map(|record| record.supervisor.clone());
            if matches!(seen, Observation::Running(_)) || last == Some(who.clone()) {
                return (seen, record);
            }
            last = Some(who);
        }
    }

    async fn look_at(&self, place: &Place, record: Option<&Record>) -> Observation {
        let own = match machine::own_identity() {
            Ok(own) => own,
            Err(error) => return Observation::Silent { why: format!("/proc cannot be read: {error}") },
        };
        let Some(record) = record else {
            // A record can be lost while its supervisor lives; the next change writes it again.
            if let Ok(Report::Status(status)) = question(place, Seat::Office, Order::Status).await {
                return Observation::Running(status);
            }
            let replicas = left(place, &[]).await;
            return if replicas.is_empty() {
                Observation::Absent
            } else {
                Observation::Unsupervised { replicas }
            };
        };
        let supervisor = &record.supervisor;
        if supervisor.machine_id != own.machine_id {
            return Observation::OtherMachine { who: record.who.clone() };
        }
        if supervisor.boot_id != own.boot_id {
            return Observation::Rebooted;
        }
        let alive = machine::alive(supervisor);
        if alive == Some(false) {
            return Observation::Unsupervised { replicas: left(place, &record.replicas).await };
        }
        match question(place, Seat::Office, Order::Status).await {
            Ok(Report::Status(status)) => Observation::Running(status),
            // In another pid namespace only the socket can tell that it lives.
            Err(_) if alive.is_none() => Observation::OtherMachine {
                who: format!("{} (pid namespace {})", record.who, supervisor.pid_namespace),
            },
            Ok(other) => Observation::Silent { why: mend(supervisor.pid, &format!("it answered {other:?}")) },
            Err(why) => Observation::Silent { why: mend(supervisor.pid, &why) },
        }
    }

    /// Sends an order and follows it to its end.
    async fn order(
        &self,
        app: &AppName,
        place: &Place,
        seat: Seat,
        order: Order,
        mut on_report: impl FnMut(Report),
    ) -> Result<Done, RollError> {
        let not_started = |why: String| RollError::NotStarted { app: app.clone(), why };
        let stream = place.connect(seat).await.map_err(|error| not_started(error.to_string()))?;
        let mut channel = Channel::new(stream);
        let mut moved = false;
        let lost = |moved| RollError::Lost { moved };
        let talk = |act, moved| failpoint::talk(act, Path::new(app.as_str())).map_err(|_| lost(moved));
        talk("order to the supervisor of", moved)?;
        channel.send(&Envelope::new(order)).await.map_err(|_| lost(moved))?;
        talk("order sent to the supervisor of", moved)?;
        loop {
            let report = channel.receive::<Report>().await.map_err(|_| lost(moved))?.ok_or(lost(moved))?;
            if let Some(point) = point(&report) {
                talk(point, matches!(report, Report::Moved) || moved)?;
            }
            match report {
                Report::Done { cut } => return Ok(Done { cut }),
                Report::Failed(failure) => return Err(RollError::Failed(Box::new(failure))),
                Report::Refused(refusal) => return Err(RollError::Refused(refusal)),
                Report::Moved => {
                    moved = true;
                    on_report(Report::Moved);
                }
                other => on_report(other),
            }
        }
    }

    pub(super) async fn sweep(
        &self,
        app: &AppName,
        place: &Place,
        recorded: &[ProcessIdentity],
    ) -> Result<(), RollError> {
        let left = sweep::sweep(&place.marker(), recorded, Reach::All).await;
        if left.is_empty() {
            return Ok(());
        }
        let why = format!("processes of a dead supervisor do not end, even after SIGKILL: {left:?}");
        Err(RollError::NotStarted { app: app.clone(), why })
    }

    /// Ends what a successor left that died before it had the office. One that lives was given up
    /// by its client and is about to end, or never had an order and is told to end.
    pub(super) async fn sweep_successor(
        &self,
        app: &AppName,
        place: &Place,
        fence: u64,
    ) -> Result<(), RollError> {
        let not_started = |why: String| RollError::NotStarted { app: app.clone(), why };
        let read = || Record::read(&place.record(Seat::Next)).ok().flatten();
        let end = Instant::now() + GIVEN_UP;
        while let Some(record) = read() {
            if machine::alive(&record.supervisor) != Some(true) {
                sweep::sweep(&place.marker(), &record.replicas, Reach::Of(record.supervisor.pid)).await;
                return place.clear(Seat::Next).map_err(|error| not_started(self.unusable(&error)));
            }
            if Instant::now() >= end {
                let pid = record.supervisor.pid;
                return Err(not_started(format!("a newer supervisor (pid {pid}) is about to take over")));
            }
            // One at work refuses, as it is busy.
            let _busy = question(place, Seat::Next, Order::Stop { fence }).await;
            sleep(Duration::from_millis(20)).await;
        }
        Ok(())
    }

    fn ask_record(&self, place: &Place, key: &str) -> Option<Outcome> {
        let record = Record::read(&place.record(Seat::Office)).ok().flatten()?;
        Some(record.outcome(key))
    }

    pub(super) fn place(&self, app: &AppName, create: bool) -> io::Result<Place> {
        Place::open(&self.run, app, create)
    }

    async fn digest(&self) -> io::Result<String> {
        let digest = self.digest.get_or_try_init(|| launch::digest(self.executable.clone()));
        digest.await.cloned()
    }

    pub(super) fn unusable(&self, error: &io::Error) -> String {
        format!("{} cannot be used: {error}", self.run.display())
    }

    fn no_binary(&self, error: &io::Error) -> String {
        format!("norn cannot be copied from {} to {}: {error}", self.executable.display(), self.bin.display())
    }

    pub(super) fn other_machine(&self, app: &AppName, place: &Place, who: String) -> RollError {
        RollError::OtherMachine { app: app.clone(), who, record: place.record(Seat::Office) }
    }
}

/// The failpoint of a report that every order has as often.
fn point(report: &Report) -> Option<&'static str> {
    match report {
        Report::Started { .. } => Some("replica started by the supervisor of"),
        Report::Healthy { .. } => Some("replica healthy, says the supervisor of"),
        Report::Moved => Some("traffic moved, says the supervisor of"),
        Report::Done { .. } => Some("order done, says the supervisor of"),
        Report::Waiting { .. }
        | Report::Draining { .. }
        | Report::Failed(_)
        | Report::Refused(_)
        | Report::Status(_)
        | Report::Known { .. } => None,
    }
}

/// Asks for something that is known at once.
async fn question(place: &Place, seat: Seat, order: Order) -> Result<Report, String> {
    let ask = async {
        let stream = place.connect(seat).await.map_err(|error| format!("its socket: {error}"))?;
        let mut channel = Channel::new(stream);
        channel.send(&Envelope::new(order)).await.map_err(|error| error.to_string())?;
        let answer = channel.receive().await.map_err(|error| error.to_string())?;
        answer.ok_or_else(|| "it closed the connection".to_owned())
    };
    timeout(ANSWER, ask).await.map_err(|_| format!("no answer within {} s", ANSWER.as_secs()))?
}

fn mend(pid: u32, why: &str) -> String {
    format!(
        "the supervisor lives (pid {pid}) and cannot be asked ({why}): end it with `kill {pid}`, then again"
    )
}

/// The processes of an app that no supervisor looks after. Those of a successor that lives are its
/// own, and it is about to take over or to end them.
async fn left(place: &Place, recorded: &[ProcessIdentity]) -> Vec<ProcessIdentity> {
    let successor = Record::read(&place.record(Seat::Next)).ok().flatten();
    let successor = successor.filter(|record| machine::alive(&record.supervisor) != Some(false));
    let session = successor.map(|record| record.supervisor.pid);
    let pids = sweep::find(&place.marker(), recorded, Reach::All).await;
    let alone =
        |pid: &u32| session.is_none() || procfs::process(*pid).map(|process| process.session) != session;
    pids.into_iter().filter(alone).filter_map(|pid| machine::identity_of(pid).ok()).collect()
}

impl fmt::Display for Done {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "done, {} connections cut", self.cut)
    }
}
