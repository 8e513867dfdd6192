//! One case: a change that is struck, and applied again.

use std::collections::BTreeSet;
use std::fmt;
use std::fs;
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus, Stdio};
use std::sync::OnceLock;
use std::time::{Duration, Instant};

use rustix::process::Signal;

use super::table::Outcome;
use super::world::{Difference, World};
use super::{Change, Stage};
use crate::sandbox::{Ran, Sandbox, kill};

/// How long one command may take, on a machine that has much else to do.
const LIMIT: Duration = Duration::from_secs(300);
/// How long what an apply has ended may take to be gone.
const SETTLED: Duration = Duration::from_secs(30);

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
#[derive(Clone)]
pub struct Case<'a> {
    pub change: &'a dyn Change,
    pub strikes: Vec<Strike>,
}

impl fmt::Display for Case<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.change.name())?;
        self.strikes.iter().try_for_each(|strike| write!(f, " | {}:{}", strike.point, strike.fault))
    }
}

impl Case<'_> {
    /// What the change makes of the project where nothing happens, and the points it reaches.
    pub fn undisturbed(&self) -> (World, Vec<Point>) {
        let stage = self.change.stage();
        let applied = stage.apply(None, self.change.heartbeat());
        assert!(self.ended(&applied), "{self}: {}", applied.story());
        let points = stage.reached();
        stage.settle();
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
        if let Some(plan) = self.unfinished(&*stage) {
            panic!("{self}: the plan is not empty: {}", plan.story());
        }
        let kinds: BTreeSet<&String> = points.iter().map(|point| &point.name).collect();
        assert_eq!(kinds.len(), points.len(), "{self}: a point was reached twice: {points:#?}");
        (seen, points)
    }

    /// The points that the apply after this case reaches before it begins with its own plan.
    pub fn recovery(&self) -> Vec<String> {
        let stage = self.change.stage();
        for strike in &self.strikes {
            stage.apply(Some(strike), self.change.heartbeat());
        }
        fs::remove_file(stage.trace()).expect("it was struck");
        stage.apply(None, self.change.heartbeat());
        let names = stage.reached().into_iter().map(|point| point.name);
        // When a lease is renewed depends on the clock.
        let settled = names.take_while(|name| !name.starts_with("write: run started/after"));
        settled.filter(|name| !name.starts_with(RENEWAL)).collect()
    }

    /// Runs the case, and compares the end with the undisturbed one.
    pub fn run(&self, expected: &World) -> Outcome {
        let stage = self.change.stage();
        let mut story = String::new();
        let mut missed = false;
        for strike in &self.strikes {
            let struck = stage.apply(Some(strike), self.change.heartbeat());
            story += &format!("struck at {}:{}: {}\n", strike.point, strike.fault, struck.story());
            // What is under way when the first one hits, and so what there is to recover, is not the same each
            // time; nor is whether a call meets a conflict and is made again.
            if !stage.has_reached(strike) && self.ended(&struck) {
                missed = true;
                continue;
            }
            if let Some(failure) = stage.unexpected(strike, &struck, self.change.succeeds()) {
                return Outcome::failed(format!("{failure}\n{story}"));
            }
        }
        let applied = stage.apply(None, self.change.heartbeat());
        story += &format!("applied again: {}\n", applied.story());
        if !self.ended(&applied) {
            return Outcome::failed(format!("it cannot be applied again\n{story}"));
        }
        stage.settle();
        let end = Instant::now() + SETTLED;
        let difference = loop {
            let difference = Difference::of(&stage.look(), expected);
            if difference.none() || Instant::now() > end {
                break difference;
            }
            std::thread::sleep(Duration::from_millis(50));
        };
        if difference.none()
            && let Some(plan) = self.unfinished(&*stage)
        {
            return Outcome::failed(format!("the plan is not empty: {}\n{story}", plan.story()));
        }
        Outcome { failure: None, difference: Some(difference), story, missed }
    }

    /// Whether an apply that nothing disturbed ended as it is to.
    fn ended(&self, applied: &Applied) -> bool {
        if self.change.succeeds() { applied.ran.code == 0 } else { matches!(applied.ran.code, 1 | 3) }
    }

    /// The plan after the change, if there is one that should be empty and is not.
    fn unfinished(&self, stage: &dyn Stage) -> Option<Applied> {
        if !self.change.succeeds() {
            return None;
        }
        let plan = stage.norn("plan --detailed-exitcode", &[]);
        (!plan.status.success()).then_some(plan)
    }
}

/// What a command of norn gave.
pub struct Applied {
    status: ExitStatus,
    ran: Ran,
}

impl Applied {
    fn story(&self) -> String {
        format!("{}\n{}{}", self.status, self.ran.out, self.ran.err)
    }
}

impl dyn Stage + '_ {
    fn trace(&self) -> PathBuf {
        self.sandbox().path("home/trace")
    }

    fn apply(&self, strike: Option<&Strike>, heartbeat: u32) -> Applied {
        let mut more = vec![
            ("NORN_FAILPOINT_TRACE".to_owned(), self.trace().display().to_string()),
            ("NORN_FAILPOINT_HEARTBEAT".to_owned(), heartbeat.to_string()),
        ];
        if let Some(Strike { point, fault }) = strike {
            more.push(("NORN_FAILPOINT".to_owned(), format!("{point}:{fault}")));
        }
        let apply = format!("apply --yes --confirm {}", self.project());
        self.norn(self.command().unwrap_or(&apply), &more)
    }

    /// The apply that comes one day after a change that is none: it clears up what was left to it.
    fn settle(&self) {
        if self.command().is_some() {
            self.norn(&format!("apply --yes --confirm {}", self.project()), &[]);
        }
    }

    fn norn(&self, arguments: &str, more: &[(String, String)]) -> Applied {
        let sandbox = self.sandbox();
        let mut command = sandbox.command(arguments);
        command.envs(more.iter().map(|(name, value)| (name, value)));
        let files = ["out", "err"].map(|name| sandbox.path(&format!("home/{name}")));
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

    fn has_reached(&self, strike: &Strike) -> bool {
        self.reached().iter().any(|point| point.name == strike.point)
    }

    /// Why the strike did not do what it should, if it did not.
    fn unexpected(&self, strike: &Strike, struck: &Applied, succeeds: bool) -> Option<String> {
        if !self.has_reached(strike) {
            return Some("the point was not reached".to_owned());
        }
        let killed = struck.status.signal() == Some(Signal::KILL.as_raw());
        let fine = match strike.fault.as_str() {
            "kill" => killed,
            "late" if succeeds => struck.ran.code == 0,
            _ => matches!(struck.ran.code, 0 | 1 | 3),
        };
        (!fine || struck.ran.err.contains("panicked")).then(|| "norn ended as it must not".to_owned())
    }
}

/// Has a project use a norn without its debug information, which is a third in size, and puts a copy where
/// supervisors run from: that is most of a first apply's time.
pub fn equip(sandbox: &mut Sandbox) {
    sandbox.norn = stripped().to_owned();
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
    let binary = sandbox.dir.path().join(binary);
    fs::create_dir_all(binary.parent().expect("it is in a folder")).expect("the folder is made");
    let linked = fs::hard_link(stripped(), &binary);
    linked.or_else(|_| fs::copy(stripped(), &binary).map(drop)).expect("its folder is writable");
}

fn stripped() -> &'static Path {
    static STRIPPED: OnceLock<PathBuf> = OnceLock::new();
    STRIPPED.get_or_init(|| {
        let (norn, small) = (env!("CARGO_BIN_EXE_norn"), Path::new(env!("CARGO_TARGET_TMPDIR")).join("norn"));
        // Another test process may have it in use: it is put there whole.
        let own = small.with_extension(std::process::id().to_string());
        let stripped = Command::new("strip").arg("-o").arg(&own).arg(norn).status();
        let there = stripped.is_ok_and(|status| status.success()) && fs::rename(&own, &small).is_ok();
        if there { small } else { PathBuf::from(norn) }
    })
}
