//! The processes below a process, found in `/proc`, and signals to them.
//!
//! Here: who they are and signalling them. Elsewhere: when (`guard`, `child`).

use std::collections::BTreeMap;
use std::fs;
use std::io;

use rustix::process::{Pid, Signal, kill_process};

use super::machine;

/// The environment variable that marks a guard and everything below it, so that processes whose
/// guard was killed are still known.
pub const MARK: &str = "NORN_TASK";

/// A living process as it was when looked at; the start time tells it from a later one of its pid.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Process {
    pub pid: u32,
    pub start_time: u64,
}

impl Process {
    /// Sends the signal if the process is still the one that was looked at. It cannot become
    /// another in between: pids come around only after all others were used.
    pub fn signal(self, signal: Signal) {
        let same = machine::stat(self.pid).is_ok_and(|now| now.start_time == self.start_time);
        let pid = i32::try_from(self.pid).ok().and_then(Pid::from_raw);
        if let (true, Some(pid)) = (same, pid) {
            // A process that has ended meanwhile needs no signal.
            let _ = kill_process(pid, signal);
        }
    }
}

/// Every living process below one of `roots`, without the roots themselves.
///
/// # Errors
/// When `/proc` cannot be listed.
pub fn below(roots: &[u32]) -> io::Result<Vec<Process>> {
    let mut children: BTreeMap<u32, Vec<(Process, bool)>> = BTreeMap::new();
    for pid in pids()? {
        // What ended since the listing is not there any more.
        let Ok(stat) = machine::stat(pid) else { continue };
        let process = Process { pid, start_time: stat.start_time };
        children.entry(stat.parent).or_default().push((process, stat.ended));
    }
    let mut found = Vec::new();
    let mut open = roots.to_vec();
    while let Some(parent) = open.pop() {
        for (process, ended) in children.remove(&parent).unwrap_or_default() {
            // A thread group whose leader has ended can still have children.
            open.push(process.pid);
            if !ended {
                found.push(process);
            }
        }
    }
    Ok(found)
}

/// Every living process, of those this user may look at, that carries the mark.
///
/// # Errors
/// When `/proc` cannot be listed.
pub fn marked(mark: &str) -> io::Result<Vec<Process>> {
    let wanted = format!("{MARK}={mark}");
    let mut found = Vec::new();
    for pid in pids()? {
        let Ok(environment) = fs::read(format!("/proc/{pid}/environ")) else { continue };
        if !environment.split(|&byte| byte == 0).any(|entry| entry == wanted.as_bytes()) {
            continue;
        }
        match machine::stat(pid) {
            Ok(stat) if !stat.ended => found.push(Process { pid, start_time: stat.start_time }),
            _ => {}
        }
    }
    Ok(found)
}

fn pids() -> io::Result<Vec<u32>> {
    let entries = fs::read_dir("/proc")?;
    Ok(entries.filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok()).collect())
}
