//! What norn and a supervisor say to each other.
//!
//! The channel is a Unix socket of mode 0600. The client sends one [`Order`] as one line of JSON,
//! the supervisor answers with [`Report`] lines and ends with exactly one of `Status`, `Known`,
//! `Done`, `Failed` or `Refused`. Values of `env` travel here and stay in memory: no type of
//! this module writes them to a log.

use std::collections::BTreeMap;
use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::time::Duration;

use serde::{Deserialize, Serialize};

/// The version of this protocol; a supervisor refuses any other.
pub const PROTOCOL: u32 = 1;

/// One line from norn.
#[derive(Debug, Serialize, Deserialize)]
pub struct Envelope {
    pub protocol: u32,
    pub order: Order,
}

impl Envelope {
    /// The order in this version of the protocol.
    pub fn new(order: Order) -> Self {
        Self { protocol: PROTOCOL, order }
    }
}

#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", tag = "kind")]
pub enum Order {
    /// What runs here now?
    Status,
    /// Put this release live under this definition.
    Roll(Box<Roll>),
    /// What became of the roll with this key?
    Ask { key: String },
    /// Drain, stop every replica and end.
    Stop { fence: u64 },
    /// From a successor whose replicas are ready to serve: answer `Moved`, with the front's
    /// listening socket if there is one, and change nothing until `Taken` follows. Where that
    /// never comes, the supervisor goes on as before.
    Handover {
        fence: u64,
        /// Stop the replicas before answering: the successor cannot start its own beside them.
        stop: bool,
    },
    /// From a successor, after `Handover` on the same connection: it serves. Drain for at most
    /// this long, stop and end.
    Taken { drain: Duration },
}

/// A release and its definition, put live together.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Roll {
    /// The operation's idempotency key: the same key is never rolled twice.
    pub key: String,
    /// The fencing token of the lease that sends this; an older one than seen is refused.
    pub fence: u64,
    pub release: Release,
    /// The digest of the definition, kept to compare with the stored one.
    pub definition: String,
    pub command: Command,
    /// The whole environment of a replica but `PORT`.
    pub env: Env,
    /// Where clients reach the app, in TCP; none for a worker.
    pub port: Option<u16>,
    pub front: Front,
    /// How many processes; zero means that nothing runs.
    pub replicas: u32,
    pub health: Health,
    /// How long the new replicas may take until all are healthy.
    pub timeout: Duration,
    /// How long old connections may go on after traffic moved.
    pub drain: Duration,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Release {
    /// `app:<sha12>` or `app:<sha12>-<n>`.
    pub tag: String,
    pub commit: String,
    /// The folder in which the command starts; absolute.
    pub dir: PathBuf,
}

/// How a replica is started.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Command {
    /// Through `sh -c`.
    Shell(String),
    /// A program and its arguments, without a shell; never empty.
    Exec(Vec<String>),
}

impl Roll {
    /// Where the front listens for this roll; `None` where no front is or nothing runs.
    pub fn listen(&self) -> Option<SocketAddr> {
        match (self.front, self.port) {
            (Front::On(ip), Some(port)) if self.replicas > 0 => Some(SocketAddr::new(ip, port)),
            (Front::On(_) | Front::Off, _) => None,
        }
    }

    /// Whether the app itself listens on its port, so that two of its releases cannot run at once.
    pub fn insists(&self) -> bool {
        self.front == Front::Off && self.port.is_some()
    }
}

/// Environment variables whose values are never printed.
#[derive(Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Env(pub BTreeMap<String, String>);

impl fmt::Debug for Env {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_set().entries(self.0.keys()).finish()
    }
}

/// Who listens on the app's port.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Front {
    /// The supervisor, on this address; replicas get a private `PORT` each.
    On(IpAddr),
    /// The app itself: `PORT` is the port; a roll stops the old replicas, then starts the new.
    Off,
}

/// When a replica counts as healthy.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Health {
    pub probe: Probe,
    /// A path that must answer for the replica to be left running; three failures restart it.
    pub live: Option<String>,
    /// How long a replica may take to become healthy for the first time.
    pub startup: Duration,
    /// The time between probes once healthy. Until then norn probes every 100 ms.
    pub interval: Duration,
    /// The time one probe may take.
    pub timeout: Duration,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Probe {
    /// HTTP GET on the replica's port: 200 to 399 is healthy. Redirects are not followed.
    Http { path: String, host: String },
    /// The replica's port accepts a connection.
    Tcp,
    /// A shell command in the release's folder with the replica's environment: exit code 0.
    Command(String),
    /// The replica's port accepts a connection and keeps it for a moment: where a relay stands between,
    /// it accepts for an app that does not listen, and closes.
    Accepts,
    /// A program without a shell, told of by its name for people.
    Exec { named: String, words: Vec<String> },
    /// The replica has lived this long.
    Lives(Duration),
}

/// One line from the supervisor.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", tag = "kind")]
pub enum Report {
    /// A new replica was started.
    Started {
        replica: u32,
        pid: u32,
        port: Option<u16>,
    },
    /// A new replica is not healthy yet; `answer` is its last probe's, sent when it changes.
    Waiting {
        replica: u32,
        answer: String,
    },
    Healthy {
        replica: u32,
    },
    /// Traffic goes to the new replicas from here on: the roll will be finished.
    Moved,
    /// So many connections to old replicas are still open.
    Draining {
        connections: usize,
    },
    /// The roll or the stop is complete; `cut` connections were closed at the drain's end.
    Done {
        cut: usize,
    },
    /// The roll failed and the old replicas serve (or serve again) as before.
    Failed(Failure),
    Status(Status),
    Known {
        outcome: Outcome,
    },
    /// The order was not carried out at all.
    Refused(Refusal),
}

/// What became of a roll.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Outcome {
    /// No roll with that key was ever seen by this supervisor.
    Unknown,
    /// Under way, and traffic has not moved.
    Running,
    /// Under way, and traffic has moved.
    Moved,
    Done {
        cut: usize,
    },
    Failed(Failure),
}

/// Why the new replicas did not take over, with all a reader needs to mend it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Failure {
    pub reason: FailureReason,
    /// The last probe's answer, such as `GET /healthz: 500 Internal Server Error: <body start>`.
    pub probe: Option<String>,
    /// Where the replica's process group listens, if it listens elsewhere than on its `PORT`.
    pub listens: Vec<SocketAddr>,
    /// The last lines of the replica's log, oldest first; at most 20.
    pub log: Vec<String>,
    /// With `front: false`: whether the release stopped for this one was started again.
    pub restored: Option<bool>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum FailureReason {
    /// Not healthy within `startup` or `timeout`.
    NeverHealthy { replica: u32, waited: Duration },
    /// Ended by itself before it was healthy, this often in a row.
    Exited { replica: u32, status: String, times: u32 },
    /// The command could not be started at all.
    NotStarted { replica: u32, error: String },
    /// The app's port could not be opened by the front.
    PortUnavailable { port: u16, error: String, holder: Option<String> },
    /// norn's connection ended before traffic moved.
    Abandoned,
    /// The supervisor before this one did not hand over.
    NotHandedOver { error: String },
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Refusal {
    Protocol {
        speaks: u32,
    },
    /// A newer lease has given orders already.
    Fenced {
        seen: u64,
    },
    /// Another roll is under way.
    Busy {
        key: String,
    },
    /// The line was no order.
    Malformed {
        error: String,
    },
}

/// What runs here.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Status {
    /// norn's version of the binary that supervises.
    pub version: String,
    pub pid: u32,
    pub app: String,
    pub release: Option<Release>,
    pub definition: Option<String>,
    pub port: Option<u16>,
    pub wanted: u32,
    pub replicas: Vec<Replica>,
    /// The newest fencing token seen.
    pub fence: u64,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Replica {
    pub index: u32,
    pub pid: Option<u32>,
    pub port: Option<u16>,
    pub healthy: bool,
    /// Restarts since it was first healthy.
    pub restarts: u32,
    /// Seconds since the process started.
    pub age_seconds: u64,
    /// The last probe's answer where it is not healthy.
    pub answer: Option<String>,
}
