//! Ends what a dead supervisor left.
//!
//! A process is ended only if a record names its group's leader, told apart by its whole identity,
//! or if it carries this app's marker. This process and those above it are spared: norn may itself
//! run under a supervisor.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};
use tokio::time::{Instant, sleep};

use super::place::MARKER;
use super::process::PATIENCE;
use super::procfs::{self, Process};
use crate::provider::machine;
use crate::state::lock::ProcessIdentity;

/// What is looked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reach {
    /// The groups that a record names, and those that the dead supervisor with this pid had not
    /// recorded yet: it led the session of its replicas. Another supervisor of the app may live.
    Of(u32),
    /// Every process with the marker, too: no supervisor of the app lives.
    All,
}

/// Ends the processes: SIGTERM, and SIGKILL where that was not enough. Returns those that outlived
/// even this.
pub async fn sweep(marker: &Path, recorded: &[ProcessIdentity], reach: Reach) -> Vec<u32> {
    let mut left = find(marker, recorded, reach).await;
    for (sent, patience) in [(Signal::TERM, PATIENCE), (Signal::KILL, Duration::from_secs(5))] {
        let end = Instant::now() + patience;
        let mut told = BTreeSet::new();
        while !left.is_empty() && Instant::now() < end {
            // Each is told once, those that were started in between as well.
            for pid in &left {
                if told.insert(*pid) {
                    kill(*pid, sent);
                }
            }
            sleep(Duration::from_millis(20)).await;
            left = find(marker, recorded, reach).await;
        }
    }
    left
}

/// The processes that [`sweep`] would end.
pub async fn find(marker: &Path, recorded: &[ProcessIdentity], reach: Reach) -> Vec<u32> {
    let (marker, recorded) = (marker.to_owned(), recorded.to_vec());
    // Reading every process's environment is some milliseconds of file access.
    let look = tokio::task::spawn_blocking(move || look(&marker, &recorded, reach));
    look.await.unwrap_or_default()
}

fn look(marker: &Path, recorded: &[ProcessIdentity], reach: Reach) -> Vec<u32> {
    let processes = procfs::processes();
    let spared = own_line(&processes);
    let leaders: BTreeMap<u32, bool> =
        recorded.iter().map(|leader| (leader.pid, machine::alive(leader) == Some(true))).collect();
    // A pid in use again leads another session now.
    let session = match reach {
        Reach::Of(supervisor) if !processes.iter().any(|process| process.pid == supervisor) => {
            Some(supervisor)
        }
        Reach::Of(_) | Reach::All => None,
    };
    let doomed = |process: &&Process| {
        let recorded = leaders.get(&process.group);
        if recorded == Some(&true) {
            return true;
        }
        // The leader is gone: its number may lead another group by now, so the marker decides.
        let suspect = recorded.is_some() || session == Some(process.session) || reach == Reach::All;
        suspect && procfs::has_variable(process.pid, MARKER, marker)
    };
    let others = processes.iter().filter(|process| !spared.contains(&process.pid));
    others.filter(doomed).map(|process| process.pid).collect()
}

/// This process and every one above it.
fn own_line(processes: &[Process]) -> BTreeSet<u32> {
    let parents: BTreeMap<u32, u32> = processes.iter().map(|process| (process.pid, process.parent)).collect();
    let mut line = BTreeSet::new();
    let mut next = Some(std::process::id());
    while let Some(pid) = next.filter(|pid| line.insert(*pid)) {
        next = parents.get(&pid).copied();
    }
    line
}

/// Sends a signal to one process.
pub fn kill(pid: u32, signal: Signal) {
    let pid = i32::try_from(pid).ok().and_then(Pid::from_raw);
    // A process that has ended already is what the signal is for.
    let _gone = pid.map(|pid| kill_process(pid, signal));
}
