//! What the store knows, looked up by app.

use std::collections::{BTreeMap, HashMap, HashSet};

use super::Former;
use crate::address::Address;
use crate::desired::{Definition, Front, Runtime};
use crate::spec::name::AppName;
use crate::state::format::{DeployV1, ForgeV1};
use crate::state::{Deployment, DeploymentStatus, Digests, Record, Snapshot};

/// What the store knows of one app.
#[derive(Debug, Default)]
pub struct Known {
    pub before: Digests,
    pub forge: Option<ForgeV1>,
    pub deploy: Option<DeployV1>,
}

impl Known {
    pub fn of(app: &AppName, stored: &Snapshot) -> Self {
        let forge = stored.resources.get(&Address::forge(app));
        let deploy = stored.resources.get(&Address::deploy(app));
        Self {
            before: Digests {
                forge: forge.map(|record| record.digest.clone()),
                deploy: deploy.map(|record| record.digest.clone()),
            },
            forge: forge.and_then(Record::read),
            deploy: deploy.and_then(Record::read),
        }
    }

    /// What runs the app, or is about to.
    pub fn runtime(&self) -> Runtime {
        if self.forge.as_ref().is_some_and(|forge| forge.namespace.is_some()) {
            return Runtime::Kubernetes;
        }
        if self.forge.as_ref().is_some_and(|forge| forge.engine.is_some()) {
            return Runtime::Docker;
        }
        self.live().map(|live| live.runtime).unwrap_or_default()
    }

    /// The release that is live and its definition, as what a change that fails goes back to.
    pub fn former(&self) -> Option<Former> {
        let (forge, release) = (self.forge.as_ref()?, self.deploy.as_ref()?);
        Some(Former {
            tag: release.tag.clone(),
            definition: forge.definition_digest(),
            replicas: forge.definition.as_ref()?.replicas,
        })
    }

    /// The definition that is live.
    pub fn live(&self) -> Option<&Definition> {
        self.forge.as_ref()?.definition.as_ref()
    }
}

/// The definition under which a release of the app is live, if one is.
pub fn live_definition(app: &AppName, stored: &Snapshot) -> Option<Definition> {
    stored.resources.get(&Address::deploy(app))?;
    let record = stored.resources.get(&Address::forge(app))?;
    record.read::<ForgeV1>()?.definition
}

/// A port, and whether it is one of another host's, where an engine is.
pub type HeldPort = (bool, u16);

/// The port that an app under a definition keeps others from opening.
pub fn held_port(definition: &Definition) -> Option<HeldPort> {
    let opens = definition.replicas > 0 || definition.front != Front::Off;
    // A pod's port is its own.
    let port = definition.port.filter(|_| opens && !definition.runtime.is_kubernetes())?;
    Some((definition.engine.is_some(), port))
}

/// The rows of `deployments`, indexed once for all apps.
pub struct History<'a> {
    newest: HashMap<&'a AppName, &'a Deployment>,
    /// By app and commit, oldest first.
    of_commit: HashMap<(&'a AppName, &'a str), Vec<&'a Deployment>>,
    by_id: HashMap<&'a str, DeploymentStatus>,
    /// The tags of what is kept, whatever its rows say.
    kept: HashSet<&'a str>,
    /// Where the first row of a tag stands that says it was live.
    made: HashMap<&'a str, usize>,
}

impl<'a> History<'a> {
    pub fn of(stored: &'a Snapshot) -> Self {
        let rows = &stored.deployments;
        let lived = |row: &&Deployment| {
            matches!(row.status, DeploymentStatus::Deployed | DeploymentStatus::RolledBack)
        };
        let kept = stored.artifacts.iter().map(|kept| kept.name.as_str());
        let mut made = HashMap::new();
        for (at, row) in rows.iter().enumerate().filter(|(_, row)| lived(row)) {
            made.entry(row.image_tag.as_str()).or_insert(at);
        }
        let mut of_commit: HashMap<_, Vec<&Deployment>> = HashMap::new();
        for row in rows {
            of_commit.entry((&row.app, row.commit_sha.as_str())).or_default().push(row);
        }
        Self {
            of_commit,
            newest: rows.iter().map(|row| (&row.app, row)).collect(),
            by_id: rows.iter().map(|row| (row.id.as_str(), row.status)).collect(),
            kept: kept.collect(),
            made,
        }
    }

    /// Why the newest attempt to deploy the app failed, if it did.
    pub fn last_failure(&self, app: &AppName) -> Option<&'a str> {
        let newest = self.newest.get(app)?;
        (newest.status == DeploymentStatus::Failed).then_some(newest.error.as_str())
    }

    /// The newest attempt at a commit, if the user went back from what came of it; `live` is the live release.
    pub fn rolled_back(&self, app: &AppName, commit: &str, live: &DeployV1) -> Option<&'a Deployment> {
        let rows = self.of_commit.get(&(app, commit))?;
        let newest = rows
            .iter()
            .rfind(|row| row.id != live.deployment && row.status != DeploymentStatus::Failed)
            .filter(|row| row.status == DeploymentStatus::RolledBack)?;
        // What was left for a newer one was not gone back from.
        let made = |tag: &str| self.made.get(tag).copied();
        (made(&newest.image_tag) > made(&live.tag)).then_some(*newest)
    }

    /// Whether the live release has no row that says so: a run died between the two.
    pub fn unrecorded(&self, release: &DeployV1) -> bool {
        self.by_id.get(release.deployment.as_str()).is_none_or(|status| *status == DeploymentStatus::Failed)
    }

    /// Whether a row says that a tag was live.
    pub fn was_live(&self, tag: &str) -> bool {
        self.made.contains_key(tag)
    }

    /// Whether a tag ever went live: then it names that build for good. A failed attempt gives its
    /// tag back.
    pub fn lived(&self, tag: &str) -> bool {
        self.was_live(tag) || self.kept.contains(tag)
    }
}

/// The former names that apps take over, by the name that they have now.
pub fn renames(desired: &crate::desired::Desired, stored: &Snapshot) -> BTreeMap<AppName, AppName> {
    let known = |name: &AppName| stored.resources.contains_key(&Address::forge(name));
    let apps = desired.apps.values().map(|app| (&app.name, &app.was));
    let all = apps.chain(desired.untouched.iter().map(|(name, untouched)| (name, &untouched.was)));
    let taken = all.filter(|(name, _)| !known(name)).filter_map(|(name, was)| {
        let old = was.iter().find(|old| known(old))?;
        Some((name.clone(), old.clone()))
    });
    taken.collect()
}
