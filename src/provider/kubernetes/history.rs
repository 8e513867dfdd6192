//! What a Deployment ran before, which its ReplicaSets know: going back to it, and what only it needs.

use std::collections::{BTreeMap, BTreeSet};

use k8s_openapi::api::apps::v1::{Deployment, ReplicaSet};
use kube::api::{ListParams, PostParams};

use super::kinds::{Address, Kind};
use super::objects::{DEFINITION, RELEASE, joined};
use super::refusal::MANAGER;
use super::{Cluster, ClusterError};

/// The label by which a Deployment tells the pods of its ReplicaSets apart; its own.
const HASH: &str = "pod-template-hash";
/// How often a Deployment that changes meanwhile is read again.
const TRIES: usize = 5;

/// A release under a definition.
#[derive(Debug, Clone, Copy)]
pub struct Version<'a> {
    pub release: &'a str,
    pub definition: &'a str,
    pub replicas: u32,
}

impl Cluster {
    /// Has a Deployment run a version again that one of its ReplicaSets ran, and says whether one did.
    ///
    /// # Errors
    /// What every call can meet.
    pub async fn go_back(&self, name: &str, version: Version<'_>) -> Result<bool, ClusterError> {
        let doing = format!("put deployment/{name} back");
        let deployments = self.typed::<Deployment>();
        let mut tries = 0;
        loop {
            let mut found = self.answer(&doing, deployments.get(name)).await?;
            let Some(former) = self.former(&found, version).await? else { return Ok(false) };
            let spec = found.spec.as_mut().expect("a Deployment has a spec");
            let mut template = former.spec.and_then(|spec| spec.template).unwrap_or_default();
            if let Some(labels) = template.metadata.as_mut().and_then(|metadata| metadata.labels.as_mut()) {
                labels.remove(HASH);
            }
            spec.template = template;
            spec.replicas = i32::try_from(version.replicas).ok();
            let said = found.metadata.annotations.get_or_insert_default();
            for (name, value) in [(RELEASE, version.release), (DEFINITION, version.definition)] {
                said.insert(name.to_owned(), value.to_owned());
            }
            found.metadata.managed_fields = None;
            let params = PostParams { field_manager: Some(MANAGER.to_owned()), ..PostParams::default() };
            tries += 1;
            match deployments.replace(name, &params, &found).await {
                // A controller wrote into it meanwhile.
                Err(kube::Error::Api(status)) if status.is_conflict() && tries < TRIES => {}
                other => return other.map(|_| true).map_err(|error| self.refusal(&doing, error)),
            }
        }
    }

    async fn former(
        &self,
        deployment: &Deployment,
        version: Version<'_>,
    ) -> Result<Option<ReplicaSet>, ClusterError> {
        let labels = deployment.spec.as_ref().and_then(|spec| spec.selector.match_labels.clone());
        let sets: Vec<ReplicaSet> =
            self.list(ListParams::default().labels(&joined(&labels.unwrap_or_default()))).await?;
        let said = |set: &ReplicaSet, name: &str, value: &str| {
            let all = set.metadata.annotations.as_ref();
            all.and_then(|all| all.get(name)).is_some_and(|said| said == value)
        };
        let is_it = |set: &ReplicaSet| {
            said(set, RELEASE, version.release) && said(set, DEFINITION, version.definition)
        };
        Ok(sets.into_iter().find(is_it))
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
