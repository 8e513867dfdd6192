//! Boundaries at which tests strike norn: where one part of a change is made and the next is not.
//!
//! Here: reaching a point, and what may happen there. Elsewhere: the points themselves, which stand
//! where the world is changed (`provider`, `apply`), and around every call to a store
//! (`state::faulty`).
//!
//! Without the cargo feature `failpoints` every function here is empty. With it, a process appends
//! each point it reaches to the file `NORN_FAILPOINT_TRACE`, as `NUMBER TAB NAME#TIME TAB FAULTS`, and
//! is struck where `NORN_FAILPOINT` says `NAME#TIME:FAULT` or `NUMBER:FAULT`.
//! Invariant: the name of a point and how often it was reached do not depend on what else is under
//! way at the time; its number does.

use std::io;
use std::path::Path;
use std::time::Duration;

/// Reached before a file or folder changes: this process is killed, or its disk is full.
///
/// # Errors
/// Only what a test asked for.
#[inline(always)]
pub fn before(act: &str, place: &Path) -> io::Result<()> {
    at_place(act, place, "before", Fault::Full)
}

/// Reached after a file or folder changed: this process is killed, or is told of an error.
///
/// # Errors
/// Only what a test asked for.
#[inline(always)]
pub fn after(act: &str, place: &Path) -> io::Result<()> {
    at_place(act, place, "after", Fault::Lost)
}

/// Reached between two words with another process: this one is killed, the connection is lost, or
/// it is slow. `with` is the app or the file that tells the process from others.
///
/// # Errors
/// Only what a test asked for.
#[inline(always)]
pub fn talk(act: &str, with: &Path) -> io::Result<()> {
    #[cfg(feature = "failpoints")]
    return armed::act(&format!("{act} {}", armed::shown(with)), &[Fault::Kill, Fault::Lost, Fault::Late]);
    #[cfg(not(feature = "failpoints"))]
    {
        let _ = (act, with);
        Ok(())
    }
}

#[inline(always)]
fn at_place(act: &str, place: &Path, when: &str, fault: Fault) -> io::Result<()> {
    #[cfg(feature = "failpoints")]
    return armed::act(&format!("{act} {}/{when}", armed::shown(place)), &[Fault::Kill, fault]);
    #[cfg(not(feature = "failpoints"))]
    {
        let _ = (act, place, when, fault);
        Ok(())
    }
}

/// How often the lease is renewed: as `usual`, unless a test is in a hurry.
#[inline(always)]
pub fn heartbeat(usual: Duration) -> Duration {
    #[cfg(feature = "failpoints")]
    return armed::heartbeat(usual);
    #[cfg(not(feature = "failpoints"))]
    usual
}

/// What can happen at a point.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    /// SIGKILL to this process.
    Kill,
    /// What was asked for is done, and the answer is an error.
    Lost,
    /// The answer takes its time.
    Late,
    /// Nothing is done, as no space is left.
    Full,
    /// The connection to the database ends in the middle of the call.
    Cut,
}

#[cfg(feature = "failpoints")]
pub use armed::{LATE, strike};

#[cfg(feature = "failpoints")]
mod armed {
    use std::collections::BTreeMap;
    use std::fs::OpenOptions;
    use std::io::{self, Write};
    use std::os::unix::fs::OpenOptionsExt;
    use std::path::Path;
    use std::sync::{LazyLock, Mutex, PoisonError};
    use std::time::Duration;

    use rustix::process::{Signal, getpid, kill_process};

    use super::Fault;

    /// How long an answer takes that is late.
    pub const LATE: Duration = Duration::from_millis(1500);

    /// How often each name was reached, and how many points there were.
    #[derive(Default)]
    struct Reached {
        times: BTreeMap<String, u32>,
        number: u32,
    }

    static REACHED: LazyLock<Mutex<Reached>> = LazyLock::new(Mutex::default);

    impl Fault {
        const ALL: [Fault; 5] = [Fault::Kill, Fault::Lost, Fault::Late, Fault::Full, Fault::Cut];

        fn as_str(self) -> &'static str {
            match self {
                Fault::Kill => "kill",
                Fault::Lost => "lost",
                Fault::Late => "late",
                Fault::Full => "full",
                Fault::Cut => "cut",
            }
        }
    }

    /// Reaches a point and returns what strikes there, but for [`Fault::Kill`], from which there is
    /// no return. `possible` is what makes sense there.
    ///
    /// # Panics
    /// Where a test wants a fault that makes no sense at the point.
    pub fn strike(name: &str, possible: &[Fault]) -> Option<Fault> {
        let mut reached = REACHED.lock().unwrap_or_else(PoisonError::into_inner);
        reached.number += 1;
        let number = reached.number;
        let times = reached.times.entry(name.to_owned()).or_default();
        *times += 1;
        let name = format!("{name}#{times}");
        trace(number, &name, possible);
        drop(reached);
        let wanted = std::env::var("NORN_FAILPOINT").ok()?;
        let (point, fault) = wanted.rsplit_once(':')?;
        if point != name && point != number.to_string() {
            return None;
        }
        let fault = Fault::ALL.into_iter().find(|known| known.as_str() == fault);
        let fault = fault.filter(|fault| possible.contains(fault)).unwrap_or_else(|| panic!("no {wanted}"));
        if fault == Fault::Kill {
            // It fails for no process that may signal itself.
            let _ = kill_process(getpid(), Signal::KILL);
            std::thread::sleep(Duration::MAX);
        }
        Some(fault)
    }

    fn trace(number: u32, name: &str, possible: &[Fault]) {
        let Some(file) = std::env::var_os("NORN_FAILPOINT_TRACE") else { return };
        let faults: Vec<&str> = possible.iter().map(|fault| fault.as_str()).collect();
        let line = format!("{number}\t{name}\t{}\n", faults.join(","));
        let file = OpenOptions::new().append(true).create(true).mode(0o600).open(file);
        file.and_then(|mut file| file.write_all(line.as_bytes())).expect("a test gives a file it can write");
    }

    /// A point of a call that may wait where it stands.
    pub fn act(name: &str, possible: &[Fault]) -> io::Result<()> {
        match strike(name, possible) {
            None => Ok(()),
            Some(Fault::Full) => Err(io::ErrorKind::StorageFull.into()),
            Some(Fault::Late) => {
                std::thread::sleep(LATE);
                Ok(())
            }
            Some(Fault::Kill | Fault::Lost | Fault::Cut) => Err(io::Error::other("the answer was lost")),
        }
    }

    /// The last two parts of a path, without what no two runs have in common.
    pub fn shown(path: &Path) -> String {
        let parts: Vec<_> = path.iter().rev().take(2).map(|part| part.to_string_lossy()).collect();
        let mut shown = String::new();
        for part in parts.iter().rev() {
            if !shown.is_empty() {
                shown.push('/');
            }
            let digits = part.chars().rev().take_while(char::is_ascii_hexdigit).count();
            let (name, number) = part.split_at(part.len() - digits);
            shown.push_str(name);
            shown.push_str(if digits < 12 { number } else { "*" });
        }
        shown
    }

    /// What `NORN_FAILPOINT_HEARTBEAT` says, in milliseconds.
    pub fn heartbeat(usual: Duration) -> Duration {
        let wanted = std::env::var("NORN_FAILPOINT_HEARTBEAT").ok().and_then(|text| text.parse().ok());
        wanted.map_or(usual, Duration::from_millis)
    }
}
