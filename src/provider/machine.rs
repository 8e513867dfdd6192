//! This machine and its processes, as Linux shows them under `/proc`.
//!
//! Here: who a process is, and whether it still lives. Elsewhere: starting and ending processes.

use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::time::Duration;

use rustix::time::{ClockId, clock_gettime};

use crate::state::lock::ProcessIdentity;

/// The identity of a process of this machine.
///
/// # Errors
/// `NotFound` where there is no such process, or it is a zombie.
pub fn identity_of(pid: u32) -> io::Result<ProcessIdentity> {
    let start_time = start_time(pid)?;
    Ok(ProcessIdentity {
        machine_id: id(),
        boot_id: read_trimmed("/proc/sys/kernel/random/boot_id")?,
        pid_namespace: fs::metadata("/proc/self/ns/pid")?.ino().to_string(),
        pid,
        start_time,
    })
}

/// The identity of this process.
pub fn own_identity() -> io::Result<ProcessIdentity> {
    identity_of(std::process::id())
}

/// Whether the process lives; `None` where this process cannot see it (another machine, boot or
/// pid namespace).
pub fn alive(process: &ProcessIdentity) -> Option<bool> {
    let own = own_identity().ok()?;
    if !own.shares_host(process) {
        return None;
    }
    Some(start_time(process.pid).is_ok_and(|start| start == process.start_time))
}

/// The time since boot, counting suspended time, which no change of the wall clock moves.
pub fn since_boot() -> Duration {
    let now = clock_gettime(ClockId::Boottime);
    let seconds = u64::try_from(now.tv_sec).expect("the boot clock starts at zero");
    let nanos = u32::try_from(now.tv_nsec).expect("a timespec has less than a second of nanoseconds");
    Duration::new(seconds, nanos)
}

/// `user@host` of this process.
pub fn user_at_host() -> String {
    let user = std::env::var("USER").or_else(|_| std::env::var("LOGNAME"));
    let user = user.unwrap_or_else(|_| {
        let id = rustix::process::getuid().as_raw();
        user_of(id).unwrap_or_else(|| format!("uid{id}"))
    });
    format!("{user}@{}", host_name())
}

/// The name of a user, as `/etc/passwd` has it.
fn user_of(id: u32) -> Option<String> {
    let users = fs::read_to_string("/etc/passwd").ok()?;
    let of = |line: &str| {
        let mut fields = line.split(':');
        let name = fields.next()?;
        (fields.nth(1)?.parse() == Ok(id)).then(|| name.to_owned())
    };
    users.lines().find_map(of)
}

/// The name by which this machine calls itself.
pub fn host_name() -> String {
    rustix::system::uname().nodename().to_string_lossy().into_owned()
}

/// Whether some process that this user may look at works in a folder, or below it.
pub fn works_in(folder: &Path) -> bool {
    let Ok(folder) = folder.canonicalize() else { return false };
    let works =
        |entry: fs::DirEntry| fs::read_link(entry.path().join("cwd")).is_ok_and(|at| at.starts_with(&folder));
    fs::read_dir("/proc").is_ok_and(|mut all| all.any(|entry| entry.is_ok_and(works)))
}

fn start_time(pid: u32) -> io::Result<u64> {
    let stat = stat(pid)?;
    // A zombie has ended: only its parent has not looked yet.
    if stat.ended { Err(io::ErrorKind::NotFound.into()) } else { Ok(stat.start_time) }
}

/// What `/proc/<pid>/stat` says of a process.
pub(super) struct Stat {
    /// A zombie, or about to be gone.
    pub ended: bool,
    pub parent: u32,
    /// Clock ticks from boot to the process's start.
    pub start_time: u64,
}

/// Reads fields 3, 4 and 22, behind the command name, which may hold spaces and brackets.
pub(super) fn stat(pid: u32) -> io::Result<Stat> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat"))?;
    let fields = stat.rsplit_once(')').map(|(_, rest)| rest.split_ascii_whitespace());
    let mut fields = fields.ok_or(io::ErrorKind::InvalidData)?;
    let ended = matches!(fields.next(), Some("Z" | "X"));
    let parent = fields.next().and_then(|field| field.parse().ok());
    let start_time = fields.nth(17).and_then(|field| field.parse().ok());
    match (parent, start_time) {
        (Some(parent), Some(start_time)) => Ok(Stat { ended, parent, start_time }),
        _ => Err(io::ErrorKind::InvalidData.into()),
    }
}

/// `/etc/machine-id`; a machine without one (many containers) is told by its host name.
pub fn id() -> String {
    read_trimmed("/etc/machine-id").ok().filter(|id| !id.is_empty()).unwrap_or_else(host_name)
}

fn read_trimmed(path: &str) -> io::Result<String> {
    fs::read_to_string(path).map(|text| text.trim().to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_user_has_the_name_of_its_line() {
        assert_eq!(user_of(0).as_deref(), Some("root"));
        assert_eq!(user_of(u32::MAX - 7), None);
    }

    #[test]
    fn a_process_lives_until_it_ends_and_its_pid_alone_proves_nothing() {
        let mut child = std::process::Command::new("sleep").arg("60").spawn().expect("sleep starts");
        let identity = identity_of(child.id()).expect("the child lives");
        assert_eq!(alive(&identity), Some(true));
        let recycled = ProcessIdentity { start_time: identity.start_time + 1, ..identity.clone() };
        assert_eq!(alive(&recycled), Some(false));
        let elsewhere = ProcessIdentity { boot_id: "another".into(), ..identity.clone() };
        assert_eq!(alive(&elsewhere), None);
        child.kill().expect("the child is ours");
        // Not waited for yet: a zombie counts as ended.
        while alive(&identity) == Some(true) {
            std::thread::sleep(Duration::from_millis(1));
        }
        child.wait().expect("the child is ours");
        assert_eq!(alive(&identity), Some(false));
    }
}
