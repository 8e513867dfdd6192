//! Waiting until an app runs, or a Job has ended, and why it has not.

use std::fmt;
use std::time::Duration;

use jiff::Timestamp;
use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::batch::v1::Job;
use tokio::time::{Instant, sleep};

use super::reasons::{Reason, Story, reason};
use super::{Cluster, ClusterError};

/// How often is looked, at first and at most.
const FIRST: Duration = Duration::from_millis(200);
const SLOWEST: Duration = Duration::from_secs(2);
/// How long the apiserver may be away while is waited.
const AWAY: Duration = Duration::from_secs(30);

#[derive(Debug)]
pub enum WaitError {
    /// It ran out of time, or it says itself that it failed.
    Failed {
        what: String,
        why: String,
        story: Story,
    },
    /// It was called off; the cluster goes on by itself.
    Cancelled,
    Cluster(ClusterError),
}

impl fmt::Display for WaitError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            WaitError::Failed { what, why, story } => {
                let story = story.to_string();
                let parts = [format!("{what} {why}"), story];
                f.write_str(parts.join("\n").trim_end())
            }
            WaitError::Cancelled => f.write_str("cancelled before the new release was live"),
            WaitError::Cluster(error) => error.fmt(f),
        }
    }
}

impl std::error::Error for WaitError {}

/// What a look at something showed.
enum Seen {
    Done,
    /// What is still missing.
    Not(String),
    Failed(String),
}

impl Cluster {
    /// Waits until every replica of a Deployment runs its newest version and no other is left.
    /// `progress` is told of each change. A version that fails stays as it is, beside the old one.
    ///
    /// # Errors
    /// [`WaitError`].
    pub async fn rolled_out(
        &self,
        name: &str,
        within: Duration,
        cancelled: impl Future<Output = ()>,
        mut progress: impl FnMut(&str),
    ) -> Result<(), WaitError> {
        let what = format!("deployment/{name}");
        let waiting = async {
            let began = Instant::now();
            let mut pause = Pause::new();
            let mut told = String::new();
            // What it said of the attempt before, where the same pods are tried once more.
            let mut stale = None;
            loop {
                // The controller takes a moment to look at it.
                pause.wait(within.saturating_sub(began.elapsed())).await;
                let look =
                    self.answer(&format!("look at {what}"), self.typed::<Deployment>().get(name)).await;
                let Some(deployment) = pause.seen(look)? else { continue };
                let late = no_progress(&deployment);
                let stale = stale.get_or_insert(late);
                let fresh = late.is_some() && late != *stale;
                let (failed, missing) = match deployed(&deployment) {
                    _ if fresh => (Some("made no progress within its deadline".to_owned()), String::new()),
                    Seen::Done => return Ok(()),
                    Seen::Failed(why) => (Some(why), String::new()),
                    Seen::Not(missing) => (None, missing),
                };
                let late = || format!("is not live after {} s: {missing}", within.as_secs());
                let failed = failed.or_else(|| (began.elapsed() >= within).then(late));
                // Before the controller looked at it, none of the pods is of this version.
                let pods = if observed(&deployment) { self.newest(&deployment).await } else { Vec::new() };
                if let Some(why) = failed {
                    let story = self.story(name, no_pods(&deployment), &pods).await;
                    return Err(WaitError::Failed { what: what.clone(), why, story });
                }
                let reasons = no_pods(&deployment).into_iter().chain(pods.iter().filter_map(reason));
                let line = reasons.take(1).fold(missing, |line, reason| format!("{line}; {reason}"));
                if line != told {
                    progress(&line);
                    told = line;
                }
            }
        };
        tokio::select! {
            outcome = waiting => outcome,
            () = cancelled => Err(WaitError::Cancelled),
        }
    }

    /// Waits until a Job has ended well. It is to have a pod at work within `start`; `progress` is told
    /// why it has none.
    ///
    /// # Errors
    /// [`WaitError`], with what it wrote last.
    pub async fn job_done(
        &self,
        name: &str,
        start: Duration,
        cancelled: impl Future<Output = ()>,
        mut progress: impl FnMut(&str),
    ) -> Result<(), WaitError> {
        let what = format!("job/{name}");
        let selector = format!("batch.kubernetes.io/job-name={name}");
        let waiting = async {
            let began = Instant::now();
            let mut pause = Pause::new();
            let (mut begun, mut told) = (false, String::new());
            loop {
                let look = self.answer(&format!("look at {what}"), self.typed::<Job>().get(name)).await;
                let Some(job) = pause.seen(look)? else {
                    sleep(FIRST).await;
                    continue;
                };
                let mut failed = match ended(&job) {
                    Seen::Done => return Ok(()),
                    Seen::Failed(why) => Some(why),
                    Seen::Not(_) => None,
                };
                if failed.is_none() && !begun {
                    let pods = self.pods(&selector).await;
                    begun = pods.iter().any(super::logs::begun);
                    let line = pods.iter().find_map(reason).map(|reason| reason.to_string());
                    if let Some(line) = line.filter(|line| !begun && *line != told) {
                        progress(&line);
                        told = line;
                    }
                    let late = !begun && began.elapsed() >= start;
                    failed = late.then(|| format!("has not started after {} s", start.as_secs()));
                }
                if let Some(why) = failed {
                    let story = self.story(name, Vec::new(), &self.pods(&selector).await).await;
                    return Err(WaitError::Failed { what: what.clone(), why, story });
                }
                pause.wait(SLOWEST).await;
            }
        };
        tokio::select! {
            outcome = waiting => outcome,
            () = cancelled => Err(WaitError::Cancelled),
        }
    }
}

/// The time between looks, and how long nothing could be seen.
struct Pause {
    next: Duration,
    away: Option<Instant>,
}

impl Pause {
    fn new() -> Self {
        Self { next: FIRST, away: None }
    }

    async fn wait(&mut self, left: Duration) {
        sleep(self.next.min(left).max(Duration::from_millis(10))).await;
        self.next = (self.next * 3 / 2).min(SLOWEST);
    }

    /// What was seen; none where the apiserver is away for a moment, as while it is upgraded.
    fn seen<T>(&mut self, look: Result<T, ClusterError>) -> Result<Option<T>, WaitError> {
        match look {
            Ok(seen) => {
                self.away = None;
                Ok(Some(seen))
            }
            Err(ClusterError::Unreachable { .. })
                if self.away.get_or_insert_with(Instant::now).elapsed() < AWAY =>
            {
                Ok(None)
            }
            Err(error) => Err(WaitError::Cluster(error)),
        }
    }
}

/// Whether the controller has seen the newest definition.
fn observed(deployment: &Deployment) -> bool {
    let seen = deployment.status.as_ref().and_then(|status| status.observed_generation);
    seen.is_some() && seen >= deployment.metadata.generation
}

/// As kubectl tells it: the controller has seen the newest definition, and nothing else is left.
fn deployed(deployment: &Deployment) -> Seen {
    let Some(status) = deployment.status.as_ref().filter(|_| observed(deployment)) else {
        return Seen::Not("it was not looked at yet".to_owned());
    };
    let wanted = deployment.spec.as_ref().and_then(|spec| spec.replicas).unwrap_or(1);
    let (all, new, ready) = (
        status.replicas.unwrap_or(0),
        status.updated_replicas.unwrap_or(0),
        status.available_replicas.unwrap_or(0),
    );
    if new < wanted {
        return Seen::Not(format!("{new} of {wanted} new replicas are there"));
    }
    if all > new {
        let (n, serve) = (all - new, if all - new == 1 { "replica serves" } else { "replicas serve" });
        return Seen::Not(format!("{n} old {serve} on until the new are ready"));
    }
    if ready < new {
        return Seen::Not(format!("{ready} of {new} new replicas are ready"));
    }
    Seen::Done
}

/// When the controller said that the newest version makes no progress, if it did.
fn no_progress(deployment: &Deployment) -> Option<Option<Timestamp>> {
    let mut conditions = deployment.status.as_ref()?.conditions.iter().flatten();
    let late = conditions.find(|one| one.reason.as_deref() == Some("ProgressDeadlineExceeded"))?;
    Some(late.last_update_time.as_ref().map(|time| time.0))
}

fn ended(job: &Job) -> Seen {
    let conditions = job.status.as_ref().and_then(|status| status.conditions.as_ref());
    let holds =
        |kind: &str| conditions.into_iter().flatten().find(|one| one.type_ == kind && one.status == "True");
    if holds("Complete").is_some() {
        return Seen::Done;
    }
    match holds("Failed") {
        Some(one) => Seen::Failed(format!("failed: {}", one.message.as_deref().unwrap_or_default())),
        None => Seen::Not(String::new()),
    }
}

/// Why no pods are made at all.
fn no_pods(deployment: &Deployment) -> Vec<Reason> {
    let conditions = deployment.status.as_ref().and_then(|status| status.conditions.as_ref());
    let failure =
        conditions.into_iter().flatten().find(|one| one.type_ == "ReplicaFailure" && one.status == "True");
    failure.map(|one| Reason::NoPods { why: one.message.clone().unwrap_or_default() }).into_iter().collect()
}
