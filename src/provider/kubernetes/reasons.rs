//! Why an app does not run: what its pods, their events and their logs say.

use std::fmt;

use k8s_openapi::api::apps::v1::{Deployment, ReplicaSet};
use k8s_openapi::api::core::v1::{ContainerStatus, Event, Pod};
use kube::api::{ListParams, LogParams};

use super::Cluster;
use super::history::REVISION;

/// How many lines of a log, events and reasons are shown.
const LINES: i64 = 20;
const EVENTS: usize = 5;
const REASONS: usize = 5;

/// What keeps an app from running.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Reason {
    /// No node takes the pod.
    Unschedulable { pod: String, why: String },
    /// A container does not start; `reason` is such as `ImagePullBackOff`.
    Waiting { pod: String, reason: String, why: String },
    /// A container ended; `reason` is such as `OOMKilled`.
    Ended { pod: String, reason: String, code: i32, restarts: i32 },
    /// It runs and its probes do not pass.
    NotReady { pod: String },
    /// Its pods cannot be made, such as by a quota.
    NoPods { why: String },
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Reason::Unschedulable { pod, why } => write!(f, "{pod}: no node takes it: {why}"),
            Reason::Waiting { pod, reason, why } if why.is_empty() => write!(f, "{pod}: {reason}"),
            Reason::Waiting { pod, reason, why } => write!(f, "{pod}: {reason}: {why}"),
            Reason::Ended { pod, reason, code, restarts } => {
                write!(f, "{pod}: ended with {code} ({reason}), started anew {restarts} times")
            }
            Reason::NotReady { pod } => write!(f, "{pod}: it runs, but it is not ready"),
            Reason::NoPods { why } => write!(f, "its pods cannot be made: {why}"),
        }
    }
}

/// All that is known of why something does not run. What could not be looked at is left out.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Story {
    pub reasons: Vec<Reason>,
    /// The newest warnings, the last one last.
    pub events: Vec<String>,
    /// What the failing container wrote last.
    pub log: Vec<String>,
}

impl fmt::Display for Story {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let reasons = self.reasons.iter().map(ToString::to_string);
        let events = self.events.iter().map(|event| format!("event: {event}"));
        let log = self.log.iter().map(|line| format!("| {line}"));
        let lines: Vec<String> = reasons.chain(events).chain(log).collect();
        f.write_str(&lines.join("\n"))
    }
}

impl Cluster {
    /// The pods of a Deployment's newest version.
    pub(super) async fn newest(&self, deployment: &Deployment) -> Vec<Pod> {
        let labels = deployment.spec.as_ref().and_then(|spec| spec.selector.match_labels.clone());
        let selector = super::objects::joined(&labels.unwrap_or_default());
        let uid = deployment.metadata.uid.clone().unwrap_or_default();
        let versions = self.list(ListParams::default().labels(&selector)).await;
        let versions: Vec<ReplicaSet> = versions.unwrap_or_default();
        let number = |version: &ReplicaSet| -> Option<u64> {
            version.metadata.annotations.as_ref()?.get(REVISION)?.parse().ok()
        };
        let owned = |version: &&ReplicaSet| {
            version.metadata.owner_references.iter().flatten().any(|owner| owner.uid == uid)
        };
        let newest = versions.iter().filter(owned).max_by_key(|version| number(version));
        let hash = newest.and_then(|version| version.metadata.labels.as_ref()?.get("pod-template-hash"));
        let Some(hash) = hash else { return Vec::new() };
        self.pods(&format!("{selector},pod-template-hash={hash}")).await
    }

    pub(super) async fn pods(&self, selector: &str) -> Vec<Pod> {
        self.list(ListParams::default().labels(selector)).await.unwrap_or_default()
    }

    /// Why pods do not run, with the events of them and of `owner`.
    pub(super) async fn story(&self, owner: &str, mut reasons: Vec<Reason>, pods: &[Pod]) -> Story {
        reasons.extend(pods.iter().filter_map(reason).take(REASONS));
        // One that is still being made has its reason in its events.
        let worst = pods.iter().find(|pod| reason(pod).is_some()).or(pods.first());
        let mut story = Story { reasons, ..Story::default() };
        let about: Vec<&str> =
            worst.and_then(|pod| pod.metadata.name.as_deref()).into_iter().chain([owner]).collect();
        story.events = self.warnings(&about).await;
        if let Some(pod) = worst {
            story.log = self.last_words(pod).await;
        }
        story
    }

    async fn warnings(&self, about: &[&str]) -> Vec<String> {
        let found = self.list(ListParams::default().fields("type=Warning")).await;
        let mut found: Vec<Event> = found.unwrap_or_default();
        found.retain(|event| event.involved_object.name.as_deref().is_some_and(|name| about.contains(&name)));
        // One that was seen again has the time of the last.
        found.sort_by_key(|event| {
            let last = event.last_timestamp.as_ref().map(|time| time.0);
            last.or(event.event_time.as_ref().map(|time| time.0))
        });
        let told = |event: &Event| {
            let reason = event.reason.clone().unwrap_or_default();
            format!("{reason}: {}", event.message.as_deref().unwrap_or_default().trim())
        };
        let mut lines: Vec<String> = found.iter().map(told).collect();
        lines.dedup();
        lines.split_off(lines.len().saturating_sub(EVENTS))
    }

    /// The log of a pod's container as it is now, else of the one before.
    pub(super) async fn last_words(&self, pod: &Pod) -> Vec<String> {
        let Some(name) = &pod.metadata.name else { return Vec::new() };
        for previous in [false, true] {
            let params = LogParams { tail_lines: Some(LINES), previous, ..LogParams::default() };
            let log = self.answer("read a log", self.typed::<Pod>().logs(name, &params)).await;
            let log = log.unwrap_or_default();
            // So a node says, as if it were a log, that it has none of a container that is gone.
            let lines =
                log.lines().filter(|line| !line.starts_with("unable to retrieve container logs for "));
            let lines: Vec<String> = lines.map(str::to_owned).collect();
            if !lines.is_empty() {
                return lines;
            }
        }
        Vec::new()
    }
}

/// Why a pod does not serve; none where it does, or is on its way and nothing is the matter.
pub(super) fn reason(pod: &Pod) -> Option<Reason> {
    let name = pod.metadata.name.clone().unwrap_or_default();
    let status = pod.status.as_ref()?;
    let condition = |kind: &str| status.conditions.iter().flatten().find(|one| one.type_ == kind);
    if let Some(why) = condition("PodScheduled").filter(|one| one.status == "False") {
        return Some(Reason::Unschedulable { pod: name, why: why.message.clone().unwrap_or_default() });
    }
    let failing = status.container_statuses.iter().flatten().find(|container| !container.ready)?;
    Some(stopped(&name, failing).unwrap_or(Reason::NotReady { pod: name }))
        .filter(|reason| !matches!(reason, Reason::Waiting { reason, .. } if reason == "ContainerCreating"))
}

fn stopped(pod: &str, container: &ContainerStatus) -> Option<Reason> {
    let state = container.state.as_ref()?;
    let waiting = state.waiting.as_ref();
    let ended = state.terminated.as_ref();
    let before = container.last_state.as_ref().and_then(|state| state.terminated.as_ref());
    // That it waits to be started anew, or was and is not ready yet, says less than how it ended.
    let backing_off = waiting.is_some_and(|waiting| waiting.reason.as_deref() == Some("CrashLoopBackOff"));
    if let Some(end) = ended.or(before.filter(|_| backing_off || state.running.is_some())) {
        let reason = match (&end.reason, backing_off) {
            (Some(reason), true) => format!("{reason}, CrashLoopBackOff"),
            (reason, _) => reason.clone().unwrap_or_default(),
        };
        let (code, restarts) = (end.exit_code, container.restart_count);
        return Some(Reason::Ended { pod: pod.to_owned(), reason, code, restarts });
    }
    let waiting = waiting?;
    Some(Reason::Waiting {
        pod: pod.to_owned(),
        reason: waiting.reason.clone().unwrap_or_default(),
        why: waiting.message.clone().unwrap_or_default(),
    })
}
