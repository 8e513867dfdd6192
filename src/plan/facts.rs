//! What had to be looked up before planning.

use std::collections::{BTreeMap, BTreeSet};

use super::drift::FieldDrift;
use crate::spec::name::AppName;

/// What the world says, as far as a plan needs it.
#[derive(Debug, Clone, Default)]
pub struct Facts {
    pub sources: BTreeMap<AppName, SourceFact>,
    /// What runs on this machine; apps that nothing is known of are absent.
    pub running: BTreeMap<AppName, Running>,
    /// Fields in clusters that are not as norn put them, where that was looked up.
    pub fields: BTreeMap<AppName, Vec<FieldDrift>>,
    /// Apps whose engine on another host is lost, as the user says.
    pub lost: BTreeSet<AppName>,
    /// Tags whose folder of the release is there.
    pub releases: BTreeSet<String>,
    /// For a rollback: the deployments whose migration ran.
    pub migrated: BTreeSet<String>,
    /// For a rollback: the names of the snapshots that are there.
    pub snapshots: Vec<String>,
}

/// Which version of an app's code is asked for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum SourceFact {
    /// 40 hex digits, or `local:` and 64.
    Version(String),
    /// `--offline`: the version that the store saw last.
    LastSeen(String),
    /// `--offline`, and never seen.
    NotLookedUp,
}

/// What runs of an app on this machine or in its cluster.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Running {
    /// Nothing is supervised.
    Nothing,
    /// The machine was started anew since.
    Rebooted,
    /// Supervised.
    Serving {
        tag: Option<String>,
        definition: Option<String>,
        wanted: u32,
        healthy: u32,
        /// Whether it is reached as its definition says, and nothing serves beside it that an exchange left;
        /// where a cluster or an engine of another host tells.
        reached: bool,
        /// By its digest, where a cluster pulled it.
        image: Option<String>,
    },
    /// The supervisor is gone; processes of it may live.
    Unsupervised { replicas: usize },
    /// The supervisor lives and does not answer.
    Silent { why: String },
    /// The app is supervised on another machine.
    Elsewhere { host: String },
}
