//! What a Deployment says of itself: which release serves, under which definition, how well; and what
//! its pods add to it.

use std::collections::BTreeMap;

use jiff::Timestamp;
use k8s_openapi::api::core::v1::Pod;
use kube::api::ListParams;
use serde_json::Value;

use super::apply::Live;
use super::kinds::{Address, Kind};
use super::objects::{DEFINITION, REACHED_BY, RELEASE, joined};
use super::ownership::is_norns;
use super::reasons::reason;
use super::{Cluster, ClusterError};
use crate::provider::labels::APP;

/// What serves of an app.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Serving {
    /// The release that it is, once no other serves beside it.
    pub release: Option<String>,
    pub definition: Option<String>,
    /// The image by its digest.
    pub image: Option<String>,
    pub wanted: u32,
    pub ready: u32,
    /// Whether it is reached by what its Deployment says, and by nothing else of norn's.
    pub reached: bool,
    /// Where a rollout goes on, what it says.
    pub why: Option<String>,
}

/// The pods of an app.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Pods {
    /// When the oldest was started.
    pub since: Option<Timestamp>,
    /// How often their containers were started anew.
    pub restarts: u32,
    /// Why one does not serve, if one does not.
    pub why: Option<String>,
}

impl Cluster {
    /// The pods with these labels by their app, from one list.
    ///
    /// # Errors
    /// What every call can meet.
    pub async fn pods_by_app(
        &self,
        labels: &BTreeMap<String, String>,
    ) -> Result<BTreeMap<String, Pods>, ClusterError> {
        let found: Vec<Pod> = self.list(ListParams::default().labels(&joined(labels))).await?;
        let mut pods: BTreeMap<String, Pods> = BTreeMap::new();
        for pod in found {
            let Some(app) = pod.metadata.labels.as_ref().and_then(|labels| labels.get(APP)) else { continue };
            // One that is going says nothing of what serves.
            if pod.metadata.deletion_timestamp.is_some() {
                continue;
            }
            let of_app = pods.entry(app.clone()).or_default();
            let status = pod.status.as_ref();
            let since = status.and_then(|status| status.start_time.as_ref()).map(|time| time.0);
            of_app.since = [of_app.since, since].into_iter().flatten().min();
            let containers = status.and_then(|status| status.container_statuses.as_ref());
            let restarts = containers.into_iter().flatten().map(|one| one.restart_count).sum::<i32>();
            of_app.restarts += u32::try_from(restarts).unwrap_or(0);
            of_app.why = of_app.why.take().or_else(|| reason(&pod).map(|reason| reason.to_string()));
        }
        Ok(pods)
    }
}

/// The kinds of which [`serving`] wants to know all objects.
pub const KINDS: [Kind; 3] = [Kind::Deployment, Kind::Service, Kind::Ingress];

/// What serves of an app, read from its objects of [`KINDS`] among others.
pub fn serving(app: &str, live: &Live) -> Option<Serving> {
    let deployment = live.get(&Address { kind: Kind::Deployment, name: app.to_owned() })?;
    Some(Serving { reached: reached(app, deployment, live), ..deployed(deployment) })
}

/// Whether an app is reached by what its Deployment says and by nothing else. An Ingress follows the
/// Deployment once that serves, so it can be one of the definition before. A Deployment that says nothing
/// of it was put by an earlier norn.
fn reached(app: &str, deployment: &Value, live: &Live) -> bool {
    let annotation = |object: &Value, name: &str| object["metadata"]["annotations"][name].clone();
    let ways = live.iter().filter(|(address, object)| {
        let own = object["metadata"]["labels"][APP].as_str() == Some(app) && is_norns(object);
        address.kind != Kind::Deployment && own
    });
    let wanted = annotation(deployment, REACHED_BY);
    let Some(wanted) = wanted.as_str() else { return true };
    let mut found = Vec::new();
    for (address, object) in ways {
        let older = address.kind == Kind::Ingress
            && annotation(object, DEFINITION) != annotation(deployment, DEFINITION);
        if older || address.name != app {
            return false;
        }
        found.push(address.kind.as_str());
    }
    let mut wanted: Vec<&str> = wanted.split(',').filter(|kind| !kind.is_empty()).collect();
    wanted.sort_unstable();
    found.sort_unstable();
    wanted == found
}

/// Whether a Deployment says that an Ingress leads to it.
pub fn reached_by_ingress(deployment: &Value) -> bool {
    let ways = deployment["metadata"]["annotations"][REACHED_BY].as_str().unwrap_or_default();
    ways.split(',').any(|kind| kind == Kind::Ingress.as_str())
}

/// Reads a Deployment.
fn deployed(deployment: &Value) -> Serving {
    let (metadata, spec, status) = (&deployment["metadata"], &deployment["spec"], &deployment["status"]);
    let number = |value: &Value| value.as_u64().and_then(|n| u32::try_from(n).ok()).unwrap_or(0);
    let conditions = || status["conditions"].as_array().into_iter().flatten();
    let progressing = conditions().find(|condition| condition["type"] == "Progressing");
    let reason = progressing.and_then(|condition| condition["reason"].as_str()).unwrap_or_default();
    let looked_at = status["observedGeneration"].as_u64() >= metadata["generation"].as_u64();
    // The controller says so once, and takes it back with the next version only.
    let complete = looked_at && reason == "NewReplicaSetAvailable";
    let annotation = |name: &str| metadata["annotations"][name].as_str().map(str::to_owned);
    let image = spec["template"]["spec"]["containers"][0]["image"].as_str().map(str::to_owned);
    let said = progressing.and_then(|condition| condition["message"].as_str()).map(str::to_owned);
    Serving {
        release: annotation(RELEASE).filter(|_| complete),
        definition: annotation(DEFINITION).filter(|_| complete),
        image,
        wanted: spec["replicas"].as_u64().map_or(1, |_| number(&spec["replicas"])),
        ready: number(&status["availableReplicas"]),
        reached: true,
        why: said.filter(|_| !complete),
    }
}

/// The labels by which a Deployment finds its pods.
pub fn match_labels(deployment: &Value) -> Option<BTreeMap<String, String>> {
    serde_json::from_value(deployment["spec"]["selector"]["matchLabels"].clone()).ok()
}

/// Whether the pods of a Deployment are pulled with what a Secret holds.
pub fn pulls_with(deployment: &Value, secret: &str) -> bool {
    let named = deployment["spec"]["template"]["spec"]["imagePullSecrets"].as_array().into_iter().flatten();
    named.into_iter().any(|one| one["name"] == secret)
}
