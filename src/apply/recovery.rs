//! What dead runs left: settled in memory by a plan, written by the next run.
//!
//! Here: [`settle`], which both use, and ending the children and the renames of dead runs. Elsewhere: asking what
//! serves (`provider::supervise`).

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use tokio::time::{Duration, Instant, sleep, sleep_until};

use super::forge::{BUSY, busy};
use crate::address::Address;
use crate::failpoint;
use crate::plan::Running;
use crate::provider::child::{self, ChildError, Identities};
use crate::provider::supervise::client::Home;
use crate::spec::name::AppName;
use crate::state::format::{self, DeployV1, ForgeV1};
use crate::state::lock::{ProcessIdentity, TTL};
use crate::state::{Change, DeploymentStatus, ForgeStatus, Lease, PendingStep, Record, Snapshot};

/// The seed's words for a deploy that a dead norn left.
const DEPLOY_ERROR: &str = "norn restarted during deployment";
/// The seed's words for a forge that a dead norn left.
const FORGE_ERROR: &str = "norn restarted during operation";

/// How often a supervisor that is busy is asked again.
const AGAIN: Duration = Duration::from_millis(200);

/// Settles in `snapshot` what dead runs left, and returns the changes that make it so. `own` is
/// the run that holds the lease now, if one does.
pub fn settle(
    snapshot: &mut Snapshot,
    running: &BTreeMap<AppName, Running>,
    own: Option<&str>,
    alive: &dyn Fn(&ProcessIdentity) -> Option<bool>,
) -> Vec<Change> {
    let holder = snapshot.lock.as_ref().filter(|held| alive(&held.holder.process) != Some(false));
    let live = own.or(holder.map(|held| held.holder.run.as_str()));
    if own.is_none() && live.is_some() {
        // A run is under way: its rows are its own.
        return Vec::new();
    }
    let dead: Vec<String> =
        snapshot.runs.iter().map(|run| run.id.clone()).filter(|id| Some(id.as_str()) != live).collect();
    let mut changes = Vec::new();
    for row in snapshot.deployments.iter_mut().filter(|row| !row.status.settled()) {
        row.status = DeploymentStatus::Failed;
        row.error = DEPLOY_ERROR.into();
        changes.push(Change::DeploymentStatus {
            id: row.id.clone(),
            status: DeploymentStatus::Failed,
            error: DEPLOY_ERROR.into(),
        });
    }
    for (app, forge) in &mut snapshot.forges {
        if matches!(forge.status, ForgeStatus::Forging | ForgeStatus::TearingDown) {
            forge.status = ForgeStatus::ForgeFailed;
            forge.error = FORGE_ERROR.into();
            changes.push(Change::ForgeEnded {
                app: app.clone(),
                status: ForgeStatus::ForgeFailed,
                error: FORGE_ERROR.into(),
                resources: None,
            });
        }
    }
    let operations = std::mem::take(&mut snapshot.operations);
    for operation in operations.iter().filter(|operation| dead.contains(&operation.run)) {
        for (address, record) in came_to_pass(&operation.address.name, &operation.intent, running) {
            if snapshot.resources.get(&address) != Some(&record) {
                snapshot.resources.insert(address.clone(), record.clone());
                changes.push(Change::RecordPut { address, record });
            }
        }
    }
    changes.extend(dead.iter().map(|run| Change::RunBuried { run: run.clone() }));
    snapshot.runs.retain(|run| !dead.contains(&run.id));
    snapshot.pending.clear();
    changes
}

/// The records of an intent of which the world shows that it went live: what serves is current.
fn came_to_pass(
    app: &AppName,
    intent: &serde_json::Value,
    running: &BTreeMap<AppName, Running>,
) -> Vec<(Address, Record)> {
    let Some(Running::Serving { tag, definition, .. }) = running.get(app) else { return Vec::new() };
    let forge = serde_json::from_value::<ForgeV1>(intent["forge"].clone());
    let deploy = serde_json::from_value::<DeployV1>(intent["deploy"].clone());
    let (Ok(forge), Ok(deploy)) = (forge, deploy) else { return Vec::new() };
    let serves = tag.as_deref() == Some(deploy.tag.as_str())
        && definition.as_deref() == Some(forge.definition_digest().as_str());
    if !serves {
        return Vec::new();
    }
    let protected = forge.protected;
    vec![
        (Address::forge(app), format::record(&forge, protected)),
        (Address::deploy(app), format::record(&deploy, protected)),
    ]
}

/// Ends the renames that dead runs left, so that a former name is free for another app. Waits while
/// what they ordered is being finished.
pub async fn finish_renames(snapshot: &Snapshot, home: &Home, lease: &Lease) {
    let apps: BTreeSet<&AppName> =
        snapshot.operations.iter().map(|operation| &operation.address.name).collect();
    let end = Instant::now() + BUSY;
    for app in apps {
        // What cannot be ended now is tried again with the next order.
        while let Err(error) = home.finish_rename(app, lease.token).await
            && busy(&error)
            && Instant::now() < end
        {
            sleep(AGAIN).await;
        }
    }
}

/// Ends the commands that dead runs left, before anything is done again. One on another machine is
/// ended there by its guard when its run's lease ends, and is waited for until then; `waits` is told how long.
///
/// # Errors
/// What cannot be ended; [`ChildError::OutOfSight`] where nothing tells when it ends.
pub async fn end_children(
    snapshot: &Snapshot,
    waits: &(dyn Fn(Duration) + Sync),
) -> Result<usize, ChildError> {
    let mut ended = 0;
    let begun = Instant::now();
    for step in &snapshot.pending {
        let Ok(identities) = serde_json::from_value::<Identities>(step.detail["child"].clone()) else {
            continue;
        };
        failpoint::talk("end what is left of", Path::new(&step.step)).map_err(ChildError::List)?;
        match child::end_group(&identities).await {
            Err(unseen @ ChildError::OutOfSight { .. }) => {
                let end = begun + guarded(snapshot, step).ok_or(unseen)?;
                let left = end.saturating_duration_since(Instant::now());
                if !left.is_zero() {
                    waits(left);
                }
                sleep_until(end).await;
            }
            result => result?,
        }
        failpoint::talk("ended what was left of", Path::new(&step.step)).map_err(ChildError::List)?;
        ended += 1;
    }
    Ok(ended)
}

/// How long after the lease was taken by this run the guard of a step's command may still let it
/// live. All by the database's clock; `None` where the step's run or this one's lease is not known.
fn guarded(snapshot: &Snapshot, step: &PendingStep) -> Option<Duration> {
    let operation = snapshot.operations.iter().find(|operation| operation.id == step.operation)?;
    let run = snapshot.runs.iter().find(|run| run.id == operation.run)?;
    let since = snapshot.lock.as_ref()?.acquired_at.duration_since(run.heartbeat_at);
    // A beat is written after its lease is, so the lease ends no later than this.
    let end = TTL + child::GUARD_GRACE + child::KILL_LIMIT;
    Some(end.saturating_sub(Duration::try_from(since).unwrap_or_default()))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::provider::machine;
    use crate::state::{Held, Holder, Journaled, Run};

    /// A command that a run on another machine left, `since` seconds before this run took the lease.
    fn left(since: i64) -> Snapshot {
        let own = machine::own_identity().expect("this process lives");
        let there = ProcessIdentity { machine_id: "another".into(), ..own.clone() };
        let taken = jiff::Timestamp::UNIX_EPOCH;
        let beat = taken - jiff::SignedDuration::from_secs(since);
        let holder =
            Holder { run: "r2".into(), who: "me".into(), process: own, job_url: None, reason: "test".into() };
        Snapshot {
            runs: vec![Run {
                id: "r1".into(),
                who: "you".into(),
                process: there.clone(),
                reason: "test".into(),
                token: 1,
                started_at: beat,
                heartbeat_at: beat,
            }],
            operations: vec![Journaled {
                id: "o1".into(),
                run: "r1".into(),
                address: Address::deploy(&"web".parse().expect("a name")),
                action: "deploy".into(),
                intent: json!({}),
            }],
            pending: vec![PendingStep {
                id: "s1".into(),
                operation: "o1".into(),
                step: "build".into(),
                key: "s1".into(),
                detail: json!({ "child": Identities { guard: there.clone(), group: there, mark: "m".into() } }),
            }],
            lock: Some(Held { holder, token: 2, acquired_at: taken, expires_at: taken }),
            ..Snapshot::default()
        }
    }

    #[tokio::test]
    async fn a_command_on_another_machine_is_given_the_time_its_guard_has() {
        for (since, wait) in [(0, 76), (50, 26), (76, 0), (3600, 0), (-5, 76)] {
            let left = left(since);
            let time = guarded(&left, &left.pending[0]).expect("its run is known");
            assert_eq!(time.as_secs(), wait, "{since} s after its last beat");
        }
        assert_eq!(end_children(&left(3600), &|_| ()).await.expect("its guard ended it"), 1);
    }

    #[tokio::test]
    async fn a_command_on_another_machine_of_an_unknown_run_may_still_run() {
        let unknown = Snapshot { runs: Vec::new(), ..left(3600) };
        let error = end_children(&unknown, &|_| ()).await.expect_err("nothing says when it ends");
        assert!(matches!(error, ChildError::OutOfSight { .. }), "{error}");
    }
}
