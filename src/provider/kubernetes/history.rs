//! What a Deployment ran before, which its ReplicaSets know: going back to it, and what only it needs.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use k8s_openapi::api::apps::v1::{Deployment, ReplicaSet};
use kube::api::ListParams;
use tokio::time::sleep;

use super::kinds::{Address, Kind};
use super::objects::{DEFINITION, REACHED_BY, RELEASE, joined};
use super::ownership::as_norn;
use super::{Cluster, ClusterError};

/// The label by which a Deployment tells the pods of its ReplicaSets apart; its own.
const HASH: &str = "pod-template-hash";
/// The annotation that counts the versions of a Deployment.
pub(super) const REVISION: &str = "deployment.kubernetes.io/revision";
/// How many replicas a ReplicaSet's Deployment wanted while it was the newest.
const DESIRED: &str = "deployment.kubernetes.io/desired-replicas";
/// The label of the commit that a release is of.
const COMMIT: &str = "dev.norn.commit";
/// How often a Deployment that changes meanwhile is read again.
pub(super) const TRIES: usize = 10;
/// The time between two tries.
pub(super) const PAUSE: Duration = Duration::from_millis(200);

/// A release under a definition.
#[derive(Debug, Clone, Copy)]
pub struct Version<'a> {
    pub release: &'a str,
    pub definition: &'a str,
    pub replicas: u32,
}

impl Cluster {
    /// Has a Deployment run a version again that one of its ReplicaSets ran, else what still serves beside
    /// the newest; gives the release that it is, if there is one to go back to. What was `adopted` ran
    /// what its newest older set did, even where that had to stop first.
    ///
    /// # Errors
    /// What every call can meet.
    pub async fn go_back(
        &self,
        name: &str,
        version: Option<Version<'_>>,
        adopted: bool,
    ) -> Result<Option<String>, ClusterError> {
        let address = Address { kind: Kind::Deployment, name: name.to_owned() };
        let doing = format!("put {address} back");
        let deployments = self.typed::<Deployment>();
        let mut tries = 0;
        self.talk("ask to", &doing)?;
        loop {
            let mut found = self.answer(&doing, deployments.get(name)).await?;
            let Some(former) = self.former(&found, version, adopted).await? else { return Ok(None) };
            let known = former.metadata.annotations.unwrap_or_default();
            let of_set = |name: &str| known.get(name).cloned();
            let release = version.map(|version| version.release.to_owned()).or_else(|| of_set(RELEASE));
            let definition =
                version.map(|version| version.definition.to_owned()).or_else(|| of_set(DEFINITION));
            let replicas = version.map(|version| i32::try_from(version.replicas).unwrap_or(i32::MAX));
            let mut template = former.spec.and_then(|spec| spec.template).unwrap_or_default();
            let labels = template.metadata.get_or_insert_default().labels.get_or_insert_default();
            labels.remove(HASH);
            let commit = labels.get(COMMIT).cloned();
            let spec = found.spec.as_mut().expect("a Deployment has a spec");
            spec.template = template;
            spec.replicas = replicas.or_else(|| known.get(DESIRED)?.parse().ok()).or(spec.replicas);
            let said = found.metadata.annotations.get_or_insert_default();
            put(said, RELEASE, release.clone());
            put(said, DEFINITION, definition);
            put(said, REACHED_BY, of_set(REACHED_BY));
            put(found.metadata.labels.get_or_insert_default(), COMMIT, commit);
            found.metadata.managed_fields = None;
            tries += 1;
            match self.in_time(&doing, deployments.replace(name, &as_norn(), &found)).await? {
                // A controller wrote into it meanwhile.
                Err(kube::Error::Api(status)) if status.is_conflict() && tries < TRIES => sleep(PAUSE).await,
                Err(error) => return Err(self.refusal(&doing, error)),
                Ok(_) => {
                    self.talk("asked to", &doing)?;
                    self.claim_as_applied(&address).await?;
                    return Ok(Some(release.unwrap_or_else(|| "what was there".to_owned())));
                }
            }
        }
    }

    async fn former(
        &self,
        deployment: &Deployment,
        version: Option<Version<'_>>,
        adopted: bool,
    ) -> Result<Option<ReplicaSet>, ClusterError> {
        let labels = deployment.spec.as_ref().and_then(|spec| spec.selector.match_labels.clone());
        let sets: Vec<ReplicaSet> =
            self.list(ListParams::default().labels(&joined(&labels.unwrap_or_default()))).await?;
        let said = |set: &ReplicaSet, name: &str| {
            set.metadata.annotations.as_ref().and_then(|all| all.get(name)).cloned()
        };
        let available =
            |set: &ReplicaSet| set.status.as_ref().and_then(|status| status.available_replicas).unwrap_or(0);
        // A restart makes another set of the same version: what serves, else what was there first.
        let worth = |set: &ReplicaSet| {
            let revision = said(set, REVISION).and_then(|revision| revision.parse::<i64>().ok());
            let newest_first = adopted && version.is_none();
            (available(set), revision.map(|revision| if newest_first { revision } else { -revision }))
        };
        let newest = deployment.metadata.annotations.as_ref().and_then(|all| all.get(REVISION));
        let rank = |set: &ReplicaSet| match version {
            Some(version)
                if said(set, RELEASE).as_deref() == Some(version.release)
                    && said(set, DEFINITION).as_deref() == Some(version.definition) =>
            {
                3
            }
            None if adopted && available(set) == 0 && said(set, REVISION).as_ref() != newest => 1,
            _ if available(set) == 0 => 0,
            _ if said(set, REVISION).as_ref() != newest => 2,
            // Nothing of the pods changed, and they serve.
            Some(_) => 1,
            None => 0,
        };
        let best = sets.into_iter().filter(|set| rank(set) > 0);
        Ok(best.max_by_key(|set| (rank(set), worth(set))))
    }

    /// The Secrets with these labels that no version of an app names, which the cluster still has.
    ///
    /// # Errors
    /// What every call can meet.
    pub async fn unnamed_secrets(
        &self,
        labels: &BTreeMap<String, String>,
    ) -> Result<Vec<Address>, ClusterError> {
        let sets: Vec<ReplicaSet> = self.list(ListParams::default().labels(&joined(labels))).await?;
        let named: BTreeSet<String> = sets.iter().flat_map(named).collect();
        let found = self.found(&[Kind::Secret], labels).await?;
        Ok(found.into_keys().filter(|secret| !named.contains(&secret.name)).collect())
    }
}

/// The Secrets that a ReplicaSet's pods need.
fn named(set: &ReplicaSet) -> Vec<String> {
    let template = set.spec.as_ref().and_then(|spec| spec.template.as_ref());
    let Some(pod) = template.and_then(|template| template.spec.as_ref()) else { return Vec::new() };
    let sources = pod.containers.iter().flat_map(|container| container.env_from.iter().flatten());
    let given = sources.filter_map(|source| Some(source.secret_ref.as_ref()?.name.clone()));
    let pulled = pod.image_pull_secrets.iter().flatten().map(|secret| secret.name.clone());
    given.chain(pulled).collect()
}

fn put(all: &mut BTreeMap<String, String>, name: &str, value: Option<String>) {
    match value {
        Some(value) => drop(all.insert(name.to_owned(), value)),
        None => drop(all.remove(name)),
    }
}
