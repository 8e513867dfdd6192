//! Starting and ending the process groups of replicas.
//!
//! A replica leads a process group of its own, so whatever it starts ends with it.

use std::fs;
use std::io;
use std::net::{Ipv4Addr, TcpListener};
use std::process::Stdio;
use std::time::Duration;

use rustix::process::{Pid, Resource, Signal, kill_process_group, setrlimit};
use tokio::process::{Child, Command};
use tokio::time::{Instant, sleep};

use super::context::{Context, FileLimit};
use super::place::MARKER;
use super::protocol::{self, Roll};
use super::{logs, procfs};

/// The variable that tells the replicas of an app apart, from 1 on.
pub const REPLICA: &str = "NORN_REPLICA";
/// How long a group may take to end after SIGTERM.
pub const PATIENCE: Duration = Duration::from_secs(10);
/// How long the kernel may take to end a group after SIGKILL.
const KILL: Duration = Duration::from_secs(5);

/// Starts one replica. Its output goes to its log without a pipe, so the log is whole even where
/// the supervisor is killed.
pub fn start(context: &Context, roll: &Roll, index: u32, port: Option<u16>) -> io::Result<Child> {
    let log = logs::append(&context.log(index))?;
    let mut command = command(&roll.command);
    surround(&mut command, context, roll, index, port);
    command.stdout(log.try_clone()?).stderr(log);
    command.spawn().map_err(|error| explain(error, roll))
}

/// Gives a command the folder, the environment and the limits of a replica.
pub fn surround(command: &mut Command, context: &Context, roll: &Roll, index: u32, port: Option<u16>) {
    command.current_dir(&roll.release.dir).env_clear().envs(&roll.env.0).env(MARKER, &context.marker);
    command.env(REPLICA, index.to_string());
    if let Some(port) = port {
        command.env("PORT", port.to_string());
    }
    command.stdin(Stdio::null()).process_group(0);
    let FileLimit { inherited, .. } = context.files;
    let limit = move || Ok(setrlimit(Resource::Nofile, inherited)?);
    // SAFETY: between fork and exec only async-signal-safe calls are allowed; `limit` makes one
    // system call and neither allocates nor locks.
    unsafe { command.pre_exec(limit) };
}

/// Ends a process group: SIGTERM, then SIGKILL to what is left after [`PATIENCE`]. The leader
/// must not have been waited for yet, or the group must have other members: else its number may
/// belong to someone else.
pub async fn end_group(group: u32) {
    signal_group(group, Signal::TERM);
    if !gone(group, PATIENCE).await {
        signal_group(group, Signal::KILL);
        gone(group, KILL).await;
    }
}

pub fn signal_group(group: u32, signal: Signal) {
    let leader = i32::try_from(group).ok().and_then(Pid::from_raw);
    // A group that has ended already is what the signal is for.
    let _gone = leader.map(|leader| kill_process_group(leader, signal));
}

/// A port of the loopback address that nobody uses. It lies outside the range from which the
/// kernel takes ports for outgoing connections, so none of those can take it before the replica.
pub fn free_port() -> io::Result<u16> {
    let range = fs::read_to_string("/proc/sys/net/ipv4/ip_local_port_range").unwrap_or_default();
    let mut bounds = range.split_ascii_whitespace().filter_map(|bound| bound.parse::<u16>().ok());
    let lowest = 10_000;
    let end = bounds.next().filter(|first| *first > lowest + 1_000).unwrap_or(32_768);
    for _ in 0..200 {
        let [high, low, ..] = *uuid::Uuid::new_v4().as_bytes();
        let port = lowest + u16::from_be_bytes([high, low]) % (end - lowest);
        if TcpListener::bind((Ipv4Addr::LOCALHOST, port)).is_ok() {
            return Ok(port);
        }
    }
    Ok(TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?.local_addr()?.port())
}

fn command(command: &protocol::Command) -> Command {
    match command {
        protocol::Command::Shell(line) => shell(line),
        protocol::Command::Exec(words) => exec(words),
    }
}

pub fn exec(words: &[String]) -> Command {
    let (program, arguments) = words.split_first().map_or(("", &[][..]), |(p, a)| (p.as_str(), a));
    let mut command = Command::new(program);
    command.args(arguments);
    command
}

pub fn shell(line: &str) -> Command {
    let mut command = Command::new("/bin/sh");
    command.args(["-c", line]);
    command
}

/// The same error number is given for a missing program and a missing folder.
fn explain(error: io::Error, roll: &Roll) -> io::Error {
    let dir = &roll.release.dir;
    let text = if !dir.is_dir() {
        format!("the release's folder {} is not there", dir.display())
    } else {
        match &roll.command {
            protocol::Command::Shell(_) => format!("/bin/sh: {error}"),
            protocol::Command::Exec(words) => {
                format!("`{}`: {error}", words.first().map_or("", String::as_str))
            }
        }
    };
    io::Error::new(error.kind(), text)
}

async fn gone(group: u32, within: Duration) -> bool {
    let end = Instant::now() + within;
    let mut pause = Duration::from_millis(10);
    while !procfs::members(group).is_empty() {
        if Instant::now() >= end {
            return false;
        }
        // A look reads the state of every process: less often, the longer it takes.
        sleep(pause).await;
        pause = (pause * 2).min(Duration::from_millis(200));
    }
    true
}
