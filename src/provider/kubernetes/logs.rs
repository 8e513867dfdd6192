//! What the pods of an app write, and starting them anew.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use futures_util::{AsyncBufReadExt, StreamExt};
use jiff::Timestamp;
use k8s_openapi::api::core::v1::Pod;
use kube::api::{ListParams, LogParams, Patch, PatchParams};
use serde_json::json;
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio::time::sleep;

use super::kinds::Kind;
use super::{Cluster, ClusterError};

/// How often is looked for new pods while logs are followed.
const LOOK: Duration = Duration::from_secs(1);
/// Not norn's own fields: the next apply leaves what was restarted as it is.
const RESTARTER: &str = "norn-restart";

/// A line, and the pod that wrote it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Line {
    pub pod: String,
    pub text: String,
}

impl Cluster {
    /// The last lines of each pod with these labels, by pod.
    ///
    /// # Errors
    /// What every call can meet.
    pub async fn last_lines(&self, selector: &str, lines: u32) -> Result<Vec<Line>, ClusterError> {
        let mut all = Vec::new();
        for pod in self.writers(selector).await? {
            let params = LogParams { tail_lines: Some(i64::from(lines)), ..LogParams::default() };
            let log = self.answer("read a log", self.typed::<Pod>().logs(&pod, &params)).await?;
            all.extend(log.lines().map(|text| Line { pod: pod.clone(), text: text.to_owned() }));
        }
        Ok(all)
    }

    /// The last lines of each pod with these labels and all that they and later ones write, until it is
    /// called off.
    ///
    /// # Errors
    /// What every call can meet. A log that breaks off is taken up again, from the moment it did.
    pub async fn follow(
        &self,
        selector: &str,
        lines: u32,
        cancelled: impl Future<Output = ()>,
        mut sink: impl FnMut(Line),
    ) -> Result<(), ClusterError> {
        let (sender, mut receiver) = mpsc::channel(64);
        let mut readers = JoinSet::new();
        let mut read: BTreeSet<String> = BTreeSet::new();
        let mut ends: BTreeMap<String, Timestamp> = BTreeMap::new();
        let mut tail = Some(i64::from(lines));
        tokio::pin!(cancelled);
        let mut next = Box::pin(sleep(Duration::ZERO));
        loop {
            tokio::select! {
                () = &mut cancelled => return Ok(()),
                Some(line) = receiver.recv() => sink(line),
                Some(ended) = readers.join_next() => {
                    if let Ok(pod) = ended {
                        read.remove(&pod);
                        ends.insert(pod, Timestamp::now());
                    }
                }
                () = &mut next => {
                    for pod in self.writers(selector).await? {
                        if read.insert(pod.clone()) {
                            let since_time = ends.get(&pod).copied();
                            let tail_lines = tail.filter(|_| since_time.is_none());
                            let params =
                                LogParams { follow: true, tail_lines, since_time, ..LogParams::default() };
                            readers.spawn(self.clone().copy(pod, params, sender.clone()));
                        }
                    }
                    // What comes later is read from where it begins.
                    tail = None;
                    next = Box::pin(sleep(LOOK));
                }
            }
        }
    }

    async fn copy(self, pod: String, params: LogParams, sender: mpsc::Sender<Line>) -> String {
        if let Ok(stream) = self.typed::<Pod>().log_stream(&pod, &params).await {
            let mut lines = stream.lines();
            while let Some(Ok(text)) = lines.next().await {
                if sender.send(Line { pod: pod.clone(), text }).await.is_err() {
                    break;
                }
            }
        }
        pod
    }

    /// The pods with these labels that have begun, by name.
    async fn writers(&self, selector: &str) -> Result<Vec<String>, ClusterError> {
        let pods: Vec<Pod> = self.list(ListParams::default().labels(selector)).await?;
        let mut names: Vec<String> =
            pods.iter().filter(|pod| begun(pod)).filter_map(|pod| pod.metadata.name.clone()).collect();
        names.sort();
        Ok(names)
    }

    /// Has a Deployment start all its pods anew, as a rollout; `now` tells this time from others.
    ///
    /// # Errors
    /// What every call can meet.
    pub async fn restart(&self, name: &str, now: Timestamp) -> Result<(), ClusterError> {
        self.annotate_pods(name, "norn/restartedAt", &now.to_string()).await
    }

    /// Gives the pods of a Deployment an annotation, by which they are made anew.
    ///
    /// # Errors
    /// What every call can meet.
    pub async fn annotate_pods(&self, name: &str, key: &str, value: &str) -> Result<(), ClusterError> {
        let annotations = json!({key: value});
        let patch = json!({"spec": {"template": {"metadata": {"annotations": annotations}}}});
        let params = PatchParams { field_manager: Some(RESTARTER.to_owned()), ..PatchParams::default() };
        let deployments = self.of(Kind::Deployment);
        let patch = Patch::Merge(&patch);
        self.change(&format!("restart deployment/{name}"), deployments.patch(name, &params, &patch)).await?;
        Ok(())
    }
}

/// Whether a container of a pod runs, or did.
pub(super) fn begun(pod: &Pod) -> bool {
    let containers = pod.status.as_ref().and_then(|status| status.container_statuses.as_ref());
    containers.into_iter().flatten().any(|container| {
        let state = container.state.as_ref();
        state.is_some_and(|state| state.running.is_some() || state.terminated.is_some())
    })
}
