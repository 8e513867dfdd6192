//! What runs in clusters: looked at by one list a kind of object and namespace.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use serde::Deserialize;
use tokio::sync::Mutex;

use super::failure::Failure;
use super::recorded;
use crate::apply::recovery;
use crate::desired::{Desired, Kubernetes};
use crate::plan::{Plan, Running, Step, Work};
use crate::provider::cloudflare::Cloudflare;
use crate::provider::kubernetes::kinds;
use crate::provider::kubernetes::seen::{KINDS, Pods, Serving, reached_by_ingress, serving};
use crate::provider::kubernetes::{Cluster, ClusterError};
use crate::provider::labels;
use crate::spec::name::AppName;
use crate::state::format::Namespace;
use crate::state::{Scope, Snapshot};

/// How long a Job may take to go.
const GONE: Duration = Duration::from_secs(120);

/// The namespaces that a command reached: it logs in once for each.
#[derive(Default)]
pub struct Reached(Mutex<BTreeMap<String, Cluster>>);

impl Reached {
    /// A namespace, and which it is by now: one of its name can be another than before.
    ///
    /// # Errors
    /// As [`Cluster::connect`].
    pub async fn at(&self, spec: &Kubernetes, namespace: &str) -> Result<Cluster, ClusterError> {
        let mut reached = self.0.lock().await;
        let cluster = match reached.get(namespace) {
            Some(cluster) => cluster.again().await?,
            None => Cluster::connect(spec.context.as_deref(), namespace).await?,
        };
        reached.insert(namespace.to_owned(), cluster.clone());
        Ok(cluster)
    }
}

/// What a look at a cluster showed of an app.
#[derive(Debug, Clone)]
pub enum Seen {
    Nothing,
    Serving(Serving),
    /// It is in another cluster.
    Elsewhere(Namespace),
}

impl Seen {
    /// What a plan needs of it.
    pub fn running(self) -> Running {
        match self {
            Seen::Nothing => Running::Nothing,
            Seen::Elsewhere(namespace) => Running::Elsewhere { host: namespace.to_string() },
            Seen::Serving(serving) => Running::Serving {
                tag: serving.release,
                definition: serving.definition,
                wanted: serving.wanted,
                healthy: serving.ready,
                reached: serving.reached,
                image: serving.image,
            },
        }
    }
}

impl From<ClusterError> for Failure {
    fn from(error: ClusterError) -> Self {
        Failure::new(error.to_string())
    }
}

/// Apps, and where they are, as far as that is recorded.
type Apps = BTreeMap<AppName, Option<Namespace>>;

/// The apps that are in a namespace, and where that is, as far as it is recorded.
pub fn recorded(stored: &Snapshot) -> BTreeMap<AppName, Namespace> {
    recorded::places(stored, "namespace")
}

/// The apps that are in a cluster, or are to be.
pub fn apps(stored: &Snapshot, desired: &Desired) -> Apps {
    recorded::with_new(recorded(stored), stored, desired, |definition| definition.runtime.is_kubernetes())
}

/// What runs of these apps; those without a namespace are to be in that of the spec. Nothing is left of
/// what ran in the `lost` clusters.
///
/// # Errors
/// A cluster that cannot be looked at.
pub async fn look(
    reached: &Reached,
    scope: &Scope,
    spec: &Kubernetes,
    apps: Apps,
    lost: &[String],
) -> Result<BTreeMap<AppName, Seen>, ClusterError> {
    let mut seen = BTreeMap::new();
    for (name, apps) in by_namespace(apps, spec) {
        let cluster = reached.at(spec, &name).await?;
        seen.extend(look_at(&cluster, scope, apps, lost).await?);
    }
    Ok(seen)
}

/// Whether a cluster is that of a recorded namespace. Who may not look at the namespace knows the
/// cluster by its URL.
pub fn is_here(namespace: &Namespace, cluster: &Cluster) -> bool {
    match (&namespace.id, &cluster.id) {
        (Some(then), Some(now)) => then == now,
        _ => namespace.server == cluster.server,
    }
}

fn by_namespace(apps: Apps, spec: &Kubernetes) -> BTreeMap<String, Apps> {
    let mut namespaces: BTreeMap<String, Apps> = BTreeMap::new();
    for (app, namespace) in apps {
        let name = namespace.as_ref().map_or(&spec.namespace, |namespace| &namespace.name).clone();
        namespaces.entry(name).or_default().insert(app, namespace);
    }
    namespaces
}

/// What runs of apps that are recorded in one namespace.
async fn look_at(
    cluster: &Cluster,
    scope: &Scope,
    apps: Apps,
    lost: &[String],
) -> Result<BTreeMap<AppName, Seen>, ClusterError> {
    let ours = labels::of_stage(scope);
    let found = match cluster.found(&KINDS, &ours).await {
        // Who has no Ingress need not see any.
        Err(error @ ClusterError::Forbidden { .. }) => {
            let others: Vec<_> = KINDS.into_iter().filter(|kind| *kind != kinds::Kind::Ingress).collect();
            let found = cluster.found(&others, &ours).await?;
            if found.values().any(reached_by_ingress) {
                return Err(error);
            }
            found
        }
        found => found?,
    };
    let mut seen = BTreeMap::new();
    for (app, namespace) in apps {
        let other = namespace
            .filter(|namespace| !lost.contains(&namespace.server))
            .filter(|namespace| !is_here(namespace, cluster));
        let here = || serving(app.as_str(), &found).map_or(Seen::Nothing, Seen::Serving);
        let found = other.map_or_else(here, Seen::Elsewhere);
        seen.insert(app, found);
    }
    Ok(seen)
}

/// What `norn status` tells of an app in a cluster.
#[derive(Debug, Clone)]
pub enum Told {
    Seen(Seen, Pods),
    /// Its cluster cannot be looked at, and why.
    Unknown(String),
}

impl Told {
    /// What a plan would need of it.
    pub fn running(&self) -> Running {
        match self {
            Told::Seen(seen, _) => seen.clone().running(),
            Told::Unknown(why) => Running::Silent { why: why.clone() },
        }
    }
}

/// What is told of the apps that are in clusters, from one list a kind of object. A cluster that cannot
/// be looked at says nothing of what others tell.
pub async fn tell(
    reached: &Reached,
    scope: &Scope,
    spec: &Kubernetes,
    stored: &Snapshot,
) -> BTreeMap<AppName, Told> {
    let mut told = BTreeMap::new();
    let apps = recorded(stored).into_iter().map(|(app, namespace)| (app, Some(namespace))).collect();
    for (name, apps) in by_namespace(apps, spec) {
        let names: Vec<AppName> = apps.keys().cloned().collect();
        let looked = async {
            let cluster = reached.at(spec, &name).await?;
            let seen = look_at(&cluster, scope, apps, &[]).await?;
            Ok::<_, ClusterError>((seen, cluster.pods_by_app(&labels::of_stage(scope)).await?))
        };
        match looked.await {
            Ok((seen, mut pods)) => told.extend(seen.into_iter().map(|(app, seen)| {
                let pods = pods.remove(app.as_str()).unwrap_or_default();
                (app, Told::Seen(seen, pods))
            })),
            Err(error) => {
                let why = Told::Unknown(error.to_string());
                told.extend(names.into_iter().map(|app| (app, why.clone())));
            }
        }
    }
    told
}

/// Ends the Jobs that dead runs left, before anything is done again; how many there were.
///
/// # Errors
/// A cluster that cannot be reached, and a Job that does not go.
pub async fn end_jobs(
    reached: &Reached,
    scope: &Scope,
    spec: &Kubernetes,
    stored: &Snapshot,
) -> Result<usize, ClusterError> {
    let mut ended = 0;
    for operation in recovery::left_in(stored, &[Step::Migrate]) {
        let Ok(namespace) = Namespace::deserialize(&operation.intent["forge"]["namespace"]) else { continue };
        let cluster = reached.at(spec, &namespace.name).await?;
        if !is_here(&namespace, &cluster) {
            continue;
        }
        let labels = labels::of_app(scope, &operation.address.name);
        for job in cluster.found(&[kinds::Kind::Job], &labels).await?.into_keys() {
            cluster.delete(scope, &job, GONE).await?;
            ended += 1;
        }
    }
    Ok(ended)
}

/// What opens Cloudflare, where a plan has a route.
///
/// # Errors
/// A token that is not known, and a place that is none.
pub fn cloudflare(plan: &Plan, desired: &Desired) -> Result<Option<Cloudflare>, Failure> {
    let routed = plan
        .operations
        .iter()
        .find(|operation| operation.steps.iter().any(|planned| planned.step.is_of_route()));
    let Some(operation) = routed else { return Ok(None) };
    let Some(tunnel) = desired.cloudflare.as_ref().filter(|tunnel| !tunnel.token.expose().is_empty()) else {
        let app = &operation.address.name;
        return Err(Failure::new(format!("the route to {app} is to change, and norn has no token of Cloudflare"))
            .help("set the variable that `cloudflare.token` names; without `cloudflare` in the spec, put it back until the route is gone"));
    };
    let account = Cloudflare::new(&tunnel.token).map_err(|error| Failure::new(error.to_string()))?;
    Ok(Some(account))
}

/// The namespaces that a plan works in, by name.
///
/// # Errors
/// A cluster that cannot be reached.
pub async fn of(
    reached: &Reached,
    plan: &Plan,
    spec: &Kubernetes,
) -> Result<BTreeMap<String, Cluster>, ClusterError> {
    let there = |runtime: crate::desired::Runtime| runtime.is_kubernetes().then(|| spec.namespace.clone());
    let names = plan.operations.iter().filter_map(|operation| match &operation.work {
        Work::Forge(work) => there(work.runtime),
        Work::Deploy(work) => there(work.definition.runtime),
        Work::Teardown(work) => work.namespace.clone(),
    });
    let mut clusters = BTreeMap::new();
    for name in names.collect::<BTreeSet<_>>() {
        clusters.insert(name.clone(), reached.at(spec, &name).await?);
    }
    Ok(clusters)
}
