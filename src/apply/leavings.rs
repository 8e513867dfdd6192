//! What attempts left in the folders of releases that came to nothing: finding it, removing it.
//!
//! Elsewhere: the folders (`provider::releases`), taking up a finished attempt (`deploy`).
//! Invariant: what is recorded, and what a process works in, is not removed.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::path::{Path, PathBuf};
use std::thread::sleep;
use std::time::{Duration, Instant};

use serde_json::json;

use super::world::Folders;
use crate::address::Kind;
use crate::desired::{Build, Desired, Source};
use crate::plan::{DeployWork, Plan, Running, Work};
use crate::provider::{machine, releases};
use crate::spec::name::AppName;
use crate::state::format::{self, DeployV1, ForgeV1};
use crate::state::{Artifact, Snapshot};

/// How long the replicas of a roll that was given up may take to end before they count as at work.
const ENDING: Duration = Duration::from_secs(2);

/// What attempts at one app left.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Leavings {
    releases: PathBuf,
    cache: PathBuf,
    cached: Vec<String>,
    /// The app's folder in its source.
    inner: PathBuf,
    /// The folders of releases that are no attempts, whatever a word beside them says.
    kept: BTreeSet<PathBuf>,
    /// Those of them that were live and are kept for a rollback.
    lived: BTreeSet<PathBuf>,
    /// Whether a deploy takes up what is whole, and sweeps the rest.
    taken_up: bool,
}

impl Leavings {
    pub fn new(folders: &Folders, app: &AppName, made_of: Option<(&Source, &Build)>) -> Self {
        let (inner, cached) = match made_of {
            Some((source, build)) => (inner(source), build.cache.clone()),
            // Whose build is not known has no cache to go on with.
            None => (PathBuf::new(), Vec::new()),
        };
        let (releases, cache) = (folders.releases(app), folders.cache(app));
        let (kept, lived) = (BTreeSet::new(), BTreeSet::new());
        Self { releases, cache, cached, inner, kept, lived, taken_up: false }
    }

    pub fn keep(mut self, folders: impl IntoIterator<Item = PathBuf>) -> Self {
        self.kept.extend(folders);
        self
    }

    /// Removes it, and says how many folders that were.
    ///
    /// # Errors
    /// Where a folder cannot be removed.
    pub fn sweep(&self) -> io::Result<usize> {
        for lived in releases::attempts(&self.releases)?.iter().filter(|folder| self.lived.contains(*folder))
        {
            releases::forget_attempt(lived)?;
        }
        if self.taken_up {
            return Ok(0);
        }
        let mut swept = releases::sweep(&self.releases, &self.cache, &self.cached, &self.inner)?;
        for folder in releases::attempts(&self.releases)? {
            if self.kept.contains(&folder) {
                releases::forget_attempt(&folder)?;
            } else if comes_to_rest(&folder) {
                releases::remove_attempt(&folder)?;
                swept += 1;
            }
        }
        // One that nothing else is in is of an app that never lived.
        let _ = std::fs::remove_dir(&self.releases);
        Ok(swept)
    }
}

/// Whether nothing works in a folder, or what does ends in a moment: a supervisor that a dead norn gave its order
/// stops what came of it.
fn comes_to_rest(folder: &Path) -> bool {
    let end = Instant::now() + ENDING;
    while machine::works_in(folder) {
        if Instant::now() >= end {
            return false;
        }
        sleep(Duration::from_millis(20));
    }
    true
}

/// What attempts left here, by app, of those too that neither the spec nor the state knows. An app that
/// another machine supervises, or of which nothing can be learned, is left alone.
pub fn find(
    folders: &Folders,
    desired: &Desired,
    stored: &Snapshot,
    running: &BTreeMap<AppName, Running>,
) -> BTreeMap<AppName, Leavings> {
    let attempted = releases::attempted(&folders.all_releases());
    // Every plan asks, and mostly nothing is left: no record is read for it.
    if attempted.is_empty() {
        return BTreeMap::new();
    }
    let records = stored.resources.iter().filter(|(address, _)| address.kind == Kind::Deploy);
    let recorded = records.filter_map(|(_, record)| record.read::<DeployV1>());
    let recorded: Vec<PathBuf> =
        recorded.map(|release| releases::root(&folders.stage, &release.folder)).collect();
    let lived = stored.artifacts.iter().filter_map(Artifact::read::<DeployV1>);
    let lived: BTreeSet<PathBuf> =
        lived.map(|release| releases::root(&folders.stage, &release.folder)).collect();
    let mut found = BTreeMap::new();
    for name in attempted {
        let Ok(app) = name.parse::<AppName>() else { continue };
        let serves = match running.get(&app) {
            Some(Running::Elsewhere { .. } | Running::Silent { .. }) => continue,
            Some(Running::Serving { tag: Some(tag), .. }) => tag.rsplit(':').next(),
            Some(Running::Serving { tag: None, .. } | Running::Unsupervised { .. }) => None,
            Some(Running::Nothing | Running::Rebooted) | None => None,
        };
        let own = serves.map(|name| folders.releases(&app).join(name));
        let made_of = desired.apps.get(&app).map(|app| (&app.source, &app.build));
        let leavings = Leavings::new(folders, &app, made_of).keep(recorded.iter().cloned()).keep(own);
        let leavings = leavings.keep(lived.iter().cloned());
        found.insert(app, Leavings { lived: lived.clone(), ..leavings });
    }
    found
}

/// Of the apps that a plan deploys, a deploy takes up what is whole, and sweeps the rest.
pub fn taken_up_by(mut found: BTreeMap<AppName, Leavings>, plan: &Plan) -> BTreeMap<AppName, Leavings> {
    for operation in &plan.operations {
        if let Work::Deploy(work) = &operation.work
            && work.record_only.is_none()
            && let Some(leavings) = found.get_mut(&operation.address.name)
        {
            leavings.taken_up = true;
        }
    }
    found
}

/// Where in its source an app is.
pub fn inner(source: &Source) -> PathBuf {
    match source {
        Source::Git { path: Some(path), .. } => Path::new(path).to_owned(),
        Source::Git { path: None, .. } | Source::Local { .. } | Source::Image { .. } => PathBuf::new(),
    }
}

/// What tells one release from another: code, build and the environment it was built in. A folder
/// that was written before the machine's last start may not be whole.
pub fn recipe(work: &DeployWork, forge: &ForgeV1) -> String {
    let definition = &work.definition;
    format::digest(&json!({
        "commit": work.commit,
        "source": work.source,
        "build": work.build,
        "env": definition.env,
        "secrets": definition.secrets,
        "values": forge.values,
        "boot": machine::own_identity().map(|own| own.boot_id).unwrap_or_default(),
    }))
}
