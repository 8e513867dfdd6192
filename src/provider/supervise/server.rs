//! A supervisor: one process an app, behind a Unix socket, that owns the app's replicas and front.
//!
//! Here: its life from start to end. Elsewhere: its orders (`orders`), and what they do (`roll`,
//! `handover`).

use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use tokio::net::UnixListener;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::{Semaphore, mpsc, watch};
use tokio::time::{Instant, interval, sleep, timeout};

use super::context::{Context, FileLimit};
use super::fleet::Reports;
use super::journal::Journal;
use super::launch::digest;
use super::place::{Place, Seat, private_folder};
use super::protocol::{Outcome, Release, Status};
use super::record::{Ledger, Record};
use super::roll::Live;
use super::sweep::{self, Reach};
use super::{logs, orders, probe};
use crate::provider::machine;
use crate::spec::name::AppName;
use crate::state::lock::ProcessIdentity;

/// How many clients are listened to at once.
const CLIENTS: usize = 128;
/// How often logs are looked at.
const TICK: Duration = Duration::from_secs(5);
/// How long a process may take to end once it has closed its connections.
const LAST_BREATH: Duration = Duration::from_secs(5);
/// How long a supervisor without anything to supervise waits for its first order.
const UNUSED: Duration = Duration::from_secs(30);

/// What `norn supervise` is told.
#[derive(Debug, Clone)]
pub struct Options {
    pub app: AppName,
    /// The folder of sockets and records.
    pub run: PathBuf,
    /// The folder in which each app has a folder of logs.
    pub logs: PathBuf,
    /// Whether a supervisor is in office that this one is to relieve.
    pub next: bool,
    /// The name under which that one supervises, where it is another.
    pub after: Option<AppName>,
}

#[derive(Debug, thiserror::Error)]
pub enum SuperviseError {
    #[error("a supervisor of {app} listens in {} already", run.display())]
    Occupied { app: AppName, run: PathBuf },
    #[error("the supervisor of {app} cannot use {}: {error}", path.display())]
    Folder { app: AppName, path: PathBuf, error: io::Error },
    #[error("the supervisor cannot be set up: {0}")]
    Setup(io::Error),
}

/// A supervisor at work.
#[derive(Debug)]
pub struct Supervisor {
    pub context: Arc<Context>,
    pub place: Place,
    /// Where the supervisor sits that this one is to relieve, if not here.
    former: Option<Place>,
    desk: Mutex<Desk>,
    /// Becomes true when the process was told to end.
    pub leaving: watch::Sender<bool>,
    /// Becomes true when there is nothing left to do.
    pub ended: watch::Sender<bool>,
    /// Where a socket goes that this supervisor is to listen on.
    listeners: mpsc::UnboundedSender<UnixListener>,
}

/// What changes while a supervisor is at work.
#[derive(Debug)]
pub struct Desk {
    live: Option<Arc<Live>>,
    /// The key of the roll under way, or what else is.
    pub busy: Option<String>,
    /// Whether any order ever came.
    pub heard: bool,
    seat: Seat,
    /// The inode of the socket this supervisor bound.
    socket: Option<u64>,
}

/// Supervises an app until it is told to stop or is relieved by a successor.
///
/// # Errors
/// Only where the supervisor cannot begin: see [`SuperviseError`].
pub async fn run(options: Options) -> Result<(), SuperviseError> {
    let (supervisor, mut listeners) = set_up(&options).await?;
    supervisor.context.journal.say(&format!("supervises {} (pid {})", options.app, std::process::id()));

    let mut terminate = signal(SignalKind::terminate()).map_err(SuperviseError::Setup)?;
    // Listened to and never obeyed: replicas must not inherit that they are ignored.
    let _interrupt = signal(SignalKind::interrupt()).map_err(SuperviseError::Setup)?;
    let _hangup = signal(SignalKind::hangup()).map_err(SuperviseError::Setup)?;
    let mut ended = supervisor.ended.subscribe();
    let mut tick = interval(TICK);
    let begin = Instant::now();
    loop {
        tokio::select! {
            _ = ended.wait_for(|ended| *ended) => break,
            Some(listener) = listeners.recv() => drop(tokio::spawn(attend(Arc::clone(&supervisor), listener))),
            _ = terminate.recv() => {
                supervisor.leave().await;
                break;
            }
            _ = tick.tick() => {
                supervisor.rotate_logs().await;
                if begin.elapsed() >= UNUSED && supervisor.unused() {
                    supervisor.clear_place();
                    break;
                }
            }
        }
    }
    supervisor.context.journal.say(&format!("ends (pid {})", std::process::id()));
    Ok(())
}

/// A supervisor in its place, without its loop; and the sockets that it is to listen on.
pub async fn set_up(
    options: &Options,
) -> Result<(Arc<Supervisor>, mpsc::UnboundedReceiver<UnixListener>), SuperviseError> {
    let app = &options.app;
    let at = |path: &Path| {
        let (app, path) = (app.clone(), path.to_owned());
        move |error| SuperviseError::Folder { app, path, error }
    };
    let files = FileLimit::raise();
    let place = Place::open(&options.run, app, true).map_err(at(&options.run))?;
    let logs = options.logs.join(app.as_str());
    private_folder(&logs).map_err(at(&logs))?;
    let seat = if options.next { Seat::Next } else { Seat::Office };
    let executable = digest(PathBuf::from("/proc/self/exe")).await.map_err(SuperviseError::Setup)?;
    // One that a killed norn started may be as far as this one: the second finds the seat taken.
    let turn = place.turn().map_err(at(&options.run))?;
    let held = Record::read(&place.record(Seat::Office)).map_err(at(&options.run))?;
    // Or that one has taken the office meanwhile, and there is nobody left to relieve.
    let late = seat == Seat::Next
        && held.as_ref().is_some_and(|held| {
            let relieved = options.after.is_some() || held.executable == executable;
            relieved && machine::alive(&held.supervisor) != Some(false)
        });
    if late || place.connect(seat).await.is_ok() {
        return Err(SuperviseError::Occupied { app: app.clone(), run: options.run.clone() });
    }
    let mut record = Record::new(machine::own_identity().map_err(SuperviseError::Setup)?, executable);
    let former = options.after.as_ref().map(|former| Place::open(&options.run, former, false)).transpose();
    let former = former.map_err(at(&options.run))?;
    let before = former.as_ref().unwrap_or(&place);
    if let Some(prior) = Record::read(&before.record(Seat::Office)).map_err(at(&options.run))? {
        record.fence = prior.fence;
        // What a dead supervisor rolled does not run any more, and may be rolled again.
        if seat == Seat::Next {
            record.rolls = prior.rolls;
        }
    }
    let ledger = Ledger::create(place.record(seat), record).map_err(at(&options.run))?;
    let listener = place.bind(seat).map_err(at(&options.run))?;
    drop(turn);
    let context = Context {
        marker: place.marker(),
        journal: Journal::new(logs.join("supervisor.log")),
        logs,
        ledger,
        http: probe::client().map_err(|error| SuperviseError::Setup(io::Error::other(error)))?,
        files,
    };
    let socket = place.socket_inode(seat);
    let (listeners, received) = mpsc::unbounded_channel();
    let supervisor = Supervisor {
        context: Arc::new(context),
        place,
        former,
        desk: Mutex::new(Desk { live: None, busy: None, heard: false, seat, socket }),
        leaving: watch::channel(false).0,
        ended: watch::channel(false).0,
        listeners,
    };
    supervisor.listen(listener);
    Ok((Arc::new(supervisor), received))
}

/// Waits a moment for a process to end; returns whether it has.
pub async fn ended(process: &ProcessIdentity) -> bool {
    let end = Instant::now() + LAST_BREATH;
    while machine::alive(process) == Some(true) {
        if Instant::now() >= end {
            return false;
        }
        sleep(Duration::from_millis(10)).await;
    }
    true
}

/// Accepts clients for ever.
async fn attend(supervisor: Arc<Supervisor>, listener: UnixListener) {
    let room = Arc::new(Semaphore::new(CLIENTS));
    loop {
        let permit = Arc::clone(&room).acquire_owned().await.expect("the semaphore is never closed");
        match listener.accept().await {
            Ok((stream, _)) => {
                let serving = orders::serve(Arc::clone(&supervisor), stream);
                tokio::spawn(async move {
                    serving.await;
                    drop(permit);
                });
            }
            // Files have run out; connections that end give some back.
            Err(_) => sleep(Duration::from_millis(50)).await,
        }
    }
}

impl Supervisor {
    pub fn desk(&self) -> MutexGuard<'_, Desk> {
        self.desk.lock().expect("no holder of this lock panics")
    }

    /// Where the supervisor sits that this one is to relieve.
    pub fn before(&self) -> &Place {
        self.former.as_ref().unwrap_or(&self.place)
    }

    /// Removes what a relieved supervisor of a former name leaves; under one name it is taken over.
    pub fn clear_former(&self) {
        if let Some(Err(error)) = self.former.as_ref().map(|former| former.clear(Seat::Office)) {
            self.context.journal.say(&format!("the former name's record cannot be removed: {error}"));
        }
    }

    pub fn live(&self) -> Option<Arc<Live>> {
        self.desk().live.clone()
    }

    pub fn set_live(&self, live: Live) {
        self.desk().live = Some(Arc::new(live));
    }

    pub fn seat(&self) -> Seat {
        self.desk().seat
    }

    /// Changes the record; that the file cannot be written is told in the journal.
    pub fn note(&self, change: impl FnOnce(&mut Record)) {
        if let Err(error) = self.context.ledger.update(change) {
            self.context.journal.say(&format!("the record cannot be written: {error}"));
        }
    }

    pub fn outcome(&self, key: &str) -> Outcome {
        self.context.ledger.read(|record| record.outcome(key))
    }

    pub fn status(&self) -> Status {
        let live = self.live();
        let roll = live.as_ref().map(|live| &live.fleet.roll);
        let release: Option<Release> = roll.map(|roll| roll.release.clone());
        Status {
            version: env!("CARGO_PKG_VERSION").to_owned(),
            pid: std::process::id(),
            app: self.place.app().to_string(),
            release,
            definition: roll.map(|roll| roll.definition.clone()),
            port: roll.and_then(|roll| roll.port),
            wanted: roll.map_or(0, |roll| roll.replicas),
            replicas: live.as_ref().map(|live| live.fleet.status()).unwrap_or_default(),
            fence: self.context.ledger.read(|record| record.fence),
        }
    }

    /// Drains, stops every replica and gives up the socket and the record.
    pub async fn stop(&self, reports: &Reports) -> usize {
        let cut = match self.live() {
            Some(live) => live.stop(live.fleet.roll.drain, reports).await,
            None => 0,
        };
        self.clear_place();
        cut
    }

    /// From a successor's seat to the office: record and socket take the predecessor's names.
    pub fn take_office(&self) -> io::Result<()> {
        self.context.ledger.move_to(self.place.record(Seat::Office))?;
        // Where the socket cannot be had, the predecessor stays, and the file is its again.
        self.place.promote_socket().inspect_err(|_| self.context.ledger.freeze())?;
        self.desk().seat = Seat::Office;
        Ok(())
    }

    /// Takes back the names from a successor that failed, and ends what it left.
    pub async fn reclaim(&self) {
        let own = self.context.ledger.read(|record| record.supervisor.clone());
        let taken = Record::read(&self.place.record(Seat::Office)).ok().flatten();
        if let Some(record) = taken.filter(|record| record.supervisor != own)
            && ended(&record.supervisor).await
        {
            sweep::sweep(&self.context.marker, &record.replicas, Reach::Of(record.supervisor.pid)).await;
        }
        if self.place.socket_inode(Seat::Office) != self.desk().socket {
            match self.place.bind(Seat::Office) {
                Ok(listener) => {
                    self.desk().socket = self.place.socket_inode(Seat::Office);
                    self.listen(listener);
                }
                Err(error) => self.context.journal.say(&format!("the socket cannot be taken back: {error}")),
            }
        }
        if let Err(error) = self.context.ledger.thaw() {
            self.context.journal.say(&format!("the record cannot be written: {error}"));
        }
    }

    /// SIGTERM: a roll before its point of no return is given up, another is finished; then all
    /// stops.
    async fn leave(&self) {
        self.leaving.send_replace(true);
        let idle = async {
            while !self.close_desk() {
                sleep(Duration::from_millis(20)).await;
            }
        };
        let mut ended = self.ended.subscribe();
        tokio::select! {
            () = idle => {}
            // Relieved, or stopped by an order: names and replicas are not this one's any more.
            _ = ended.wait_for(|ended| *ended) => return,
        }
        self.stop(&Reports::new().0).await;
    }

    fn listen(&self, listener: UnixListener) {
        self.listeners.send(listener).expect("the receiver lives as long as the process");
    }

    /// Lets no order begin any more, once none is under way.
    fn close_desk(&self) -> bool {
        let mut desk = self.desk();
        let idle = desk.busy.is_none();
        desk.busy.get_or_insert_with(|| "stop".to_owned());
        idle
    }

    /// Nobody ever gave an order, or a successor's only order is over.
    fn unused(&self) -> bool {
        let desk = self.desk();
        desk.live.is_none() && desk.busy.is_none() && (!desk.heard || desk.seat == Seat::Next)
    }

    /// Gives up the socket and the record.
    pub fn clear_place(&self) {
        self.context.ledger.freeze();
        if let Err(error) = self.place.clear(self.seat()) {
            self.context.journal.say(&format!("the socket and the record cannot be removed: {error}"));
        }
    }

    async fn rotate_logs(&self) {
        let folder = self.context.logs.clone();
        let rotate = tokio::task::spawn_blocking(move || logs::rotate_folder(&folder, logs::ROTATE_AT));
        if let Ok(Ok(Err(error))) = timeout(Duration::from_secs(60), rotate).await {
            self.context.journal.say(&format!("a log cannot be rotated: {error}"));
        }
    }
}
