//! One case: a change that is struck, and applied again.

use std::collections::BTreeSet;
use std::fmt;
use std::fs;
use std::net::TcpListener;
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus, Stdio};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU16, Ordering};
use std::time::{Duration, Instant};

use rustix::process::Signal;

use super::scenario::{self, Scenario};
use super::table::Outcome;
use super::world::{self, Difference, Kind, Lent, World};
use crate::supervise::world::kill;
use crate::support::{Ran, Sandbox};

/// How long one command may take.
const LIMIT: Duration = Duration::from_secs(90);
/// How long what an apply has ended may take to be gone.
const SETTLED: Duration = Duration::from_secs(15);

/// The one point that is not reached by what is done, but in the course of time.
pub const RENEWAL: &str = "store: renew";

/// A boundary that an apply reached, and what can happen there.
#[derive(Debug, Clone)]
pub struct Point {
    pub name: String,
    pub faults: Vec<String>,
}

#[derive(Debug, Clone)]
pub struct Strike {
    pub point: String,
    pub fault: String,
}

/// The first strike hits the change, the second the apply after it.
#[derive(Debug, Clone)]
pub struct Case {
    pub kind: &'static Kind,
    pub scenario: &'static Scenario,
    pub strikes: Vec<Strike>,
}

impl fmt::Display for Case {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} | {}", self.kind.name, self.scenario.name)?;
        self.strikes.iter().try_for_each(|strike| write!(f, " | {}:{}", strike.point, strike.fault))
    }
}

impl Case {
    /// What the change makes of the project where nothing happens, and the points it reaches.
    pub fn undisturbed(&self) -> (World, Vec<Point>) {
        let stage = Stage::new(self);
        let applied = stage.apply(None);
        assert!(applied.status.success(), "{self}: {}{}", applied.ran.out, applied.ran.err);
        let points = stage.reached();
        let mut seen = stage.look();
        // What an apply has ended may take a moment to be gone.
        let end = Instant::now() + SETTLED;
        loop {
            std::thread::sleep(Duration::from_millis(300));
            let again = stage.look();
            if again == seen || Instant::now() > end {
                break;
            }
            seen = again;
        }
        let plan = stage.norn("plan --detailed-exitcode", &[]);
        assert!(plan.status.success(), "{self}: the plan is not empty: {}{}", plan.ran.out, plan.ran.err);
        let kinds: BTreeSet<&String> = points.iter().map(|point| &point.name).collect();
        assert_eq!(kinds.len(), points.len(), "{self}: a point was reached twice: {points:#?}");
        (seen, points)
    }

    /// The points that the apply after this case reaches before it begins with its own plan.
    pub fn recovery(&self) -> Vec<String> {
        let stage = Stage::new(self);
        for strike in &self.strikes {
            stage.apply(Some(strike));
        }
        fs::remove_file(stage.trace()).expect("it was struck");
        stage.apply(None);
        let names = stage.reached().into_iter().map(|point| point.name);
        // When a lease is renewed depends on the clock.
        let settled = names.take_while(|name| !name.starts_with("write: run started/after"));
        settled.filter(|name| !name.starts_with(RENEWAL)).collect()
    }

    /// Runs the case, and compares the end with the undisturbed one.
    pub fn run(&self, expected: &World) -> Outcome {
        let stage = Stage::new(self);
        let mut story = String::new();
        for strike in &self.strikes {
            let struck = stage.apply(Some(strike));
            story += &format!("struck at {}:{}: {}\n", strike.point, strike.fault, struck.story());
            if let Some(failure) = stage.unexpected(strike, &struck) {
                return Outcome::failed(format!("{failure}\n{story}"));
            }
        }
        let applied = stage.apply(None);
        story += &format!("applied again: {}\n", applied.story());
        if !applied.status.success() {
            return Outcome::failed(format!("it cannot be applied again\n{story}"));
        }
        let end = Instant::now() + SETTLED;
        let difference = loop {
            let difference = Difference::of(&stage.look(), expected);
            if difference.none() || Instant::now() > end {
                break difference;
            }
            std::thread::sleep(Duration::from_millis(50));
        };
        let plan = stage.norn("plan --detailed-exitcode", &[]);
        if difference.none() && !plan.status.success() {
            return Outcome::failed(format!("the plan is not empty: {}\n{story}", plan.story()));
        }
        Outcome { failure: None, difference: Some(difference), story }
    }
}

/// What a command of norn gave.
struct Applied {
    status: ExitStatus,
    ran: Ran,
}

impl Applied {
    fn story(&self) -> String {
        format!("{}\n{}{}", self.status, self.ran.out, self.ran.err)
    }
}

/// A project about to be changed.
struct Stage {
    sandbox: Sandbox,
    _database: Option<Lent>,
    port: u16,
    kind: &'static Kind,
}

impl Stage {
    fn new(case: &Case) -> Self {
        let mut sandbox = Sandbox::new();
        sandbox.norn = stripped().to_owned();
        let database = (case.kind.database)();
        let url = database.as_ref().map(|database| (world::VARIABLE.to_owned(), database.url()));
        sandbox.env.extend(url);
        // A commit's name tells when it was made.
        for date in ["GIT_AUTHOR_DATE", "GIT_COMMITTER_DATE"] {
            sandbox.env.insert(date.to_owned(), "2026-01-01T00:00:00Z".to_owned());
        }
        let stage = Self { sandbox, _database: database, port: own_port(), kind: case.kind };
        stage.copy();
        if let Some(before) = case.scenario.before {
            scenario::write(&stage.sandbox, before, stage.port);
            let applied = stage.norn("apply --yes", &[]);
            assert!(applied.status.success(), "{case}: {}", applied.story());
        }
        scenario::write(&stage.sandbox, case.scenario.after, stage.port);
        if case.scenario.copies {
            fs::remove_dir_all(stage.sandbox.path(".norn/bin")).expect("supervisors run from there");
        }
        stage
    }

    /// Puts norn's binary where supervisors run from, which is most of a first apply's time.
    fn copy(&self) {
        static NAME: OnceLock<PathBuf> = OnceLock::new();
        let binary = NAME.get_or_init(|| {
            let bytes = fs::read(stripped()).expect("it is readable");
            let digest: String = <sha2::Sha256 as sha2::Digest>::digest(bytes)
                .iter()
                .take(6)
                .map(|byte| format!("{byte:02x}"))
                .collect();
            PathBuf::from(format!(".norn/bin/{}-{digest}/norn", env!("CARGO_PKG_VERSION")))
        });
        let binary = self.sandbox.dir.path().join(binary);
        fs::create_dir_all(binary.parent().expect("it is in a folder")).expect("the folder is made");
        let linked = fs::hard_link(stripped(), &binary);
        linked.or_else(|_| fs::copy(stripped(), &binary).map(drop)).expect("its folder is writable");
    }

    fn trace(&self) -> PathBuf {
        self.sandbox.path("home/trace")
    }

    fn apply(&self, strike: Option<&Strike>) -> Applied {
        let mut more = vec![
            ("NORN_FAILPOINT_TRACE".to_owned(), self.trace().display().to_string()),
            ("NORN_FAILPOINT_HEARTBEAT".to_owned(), "20".to_owned()),
        ];
        if let Some(Strike { point, fault }) = strike {
            more.push(("NORN_FAILPOINT".to_owned(), format!("{point}:{fault}")));
        }
        self.norn("apply --yes --confirm shop", &more)
    }

    fn norn(&self, arguments: &str, more: &[(String, String)]) -> Applied {
        let mut command = self.sandbox.command(arguments);
        command.envs(more.iter().map(|(name, value)| (name, value)));
        let files = ["out", "err"].map(|name| self.sandbox.path(&format!("home/{name}")));
        let open = |path: &Path| Stdio::from(fs::File::create(path).expect("it is made"));
        let mut norn = command.stdout(open(&files[0])).stderr(open(&files[1])).spawn().expect("norn starts");
        let end = Instant::now() + LIMIT;
        let status = loop {
            if let Some(status) = norn.try_wait().expect("it is ours") {
                break status;
            }
            if Instant::now() > end {
                kill(norn.id());
            }
            std::thread::sleep(Duration::from_millis(5));
        };
        let [out, err] = files.map(|path| fs::read_to_string(path).expect("norn writes UTF-8"));
        Applied { status, ran: Ran { code: status.code().unwrap_or(-1), out, err } }
    }

    /// The points that were reached since the trace was begun.
    fn reached(&self) -> Vec<Point> {
        let text = fs::read_to_string(self.trace()).unwrap_or_default();
        let point = |line: &str| {
            let mut parts = line.split('\t').skip(1);
            let mut next = || parts.next().expect("a trace has three columns").to_owned();
            let (name, faults) = (next(), next());
            Point { name, faults: faults.split(',').map(str::to_owned).collect() }
        };
        text.lines().map(point).collect()
    }

    /// Why the strike did not do what it should, if it did not.
    fn unexpected(&self, strike: &Strike, struck: &Applied) -> Option<String> {
        if !self.reached().iter().any(|point| point.name == strike.point) {
            return Some("the point was not reached".to_owned());
        }
        let killed = struck.status.signal() == Some(Signal::KILL.as_raw());
        let fine = match strike.fault.as_str() {
            "kill" => killed,
            "late" => struck.ran.code == 0,
            _ => matches!(struck.ran.code, 0 | 1 | 3),
        };
        (!fine || struck.ran.err.contains("panicked")).then(|| "norn ended as it must not".to_owned())
    }

    fn look(&self) -> World {
        world::look(self.kind, &self.sandbox, self.port)
    }
}

/// norn without its debug information: a third in size, and each project has a copy of its own.
fn stripped() -> &'static Path {
    static STRIPPED: OnceLock<PathBuf> = OnceLock::new();
    STRIPPED.get_or_init(|| {
        let (norn, small) = (env!("CARGO_BIN_EXE_norn"), Path::new(env!("CARGO_TARGET_TMPDIR")).join("norn"));
        let stripped = Command::new("strip").arg("-o").arg(&small).arg(norn).status();
        if stripped.is_ok_and(|status| status.success()) { small } else { PathBuf::from(norn) }
    })
}

/// A port that no other case has. It is above those of outgoing connections, and supervisors take
/// theirs from below.
fn own_port() -> u16 {
    static NEXT: AtomicU16 = AtomicU16::new(0);
    loop {
        let port = 61_000 + NEXT.fetch_add(1, Ordering::Relaxed) % 4_500;
        if TcpListener::bind(("127.0.0.1", port)).is_ok() {
            return port;
        }
    }
}
