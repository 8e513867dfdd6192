//! What dead runs left: settled in memory by a plan, written by the next run.
//!
//! Here: [`settle`], which both use, and ending the children and the renames of dead runs. Elsewhere: asking what
//! serves (`provider::supervise`).

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use tokio::time::{Duration, Instant, sleep};

use super::forge::{BUSY, busy};
use crate::address::Address;
use crate::failpoint;
use crate::plan::Running;
use crate::provider::child::{self, ChildError, Identities};
use crate::provider::supervise::client::Home;
use crate::spec::name::AppName;
use crate::state::format::{self, DeployV1, ForgeV1};
use crate::state::lock::ProcessIdentity;
use crate::state::{Change, DeploymentStatus, ForgeStatus, Lease, Record, Snapshot};

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

/// Ends the commands that dead runs left, before anything is done again.
///
/// # Errors
/// [`ChildError::OutOfSight`] where one ran on another machine, which only that machine can end.
pub async fn end_children(snapshot: &Snapshot) -> Result<usize, ChildError> {
    let mut ended = 0;
    for step in &snapshot.pending {
        let Ok(identities) = serde_json::from_value::<Identities>(step.detail["child"].clone()) else {
            continue;
        };
        failpoint::talk("end what is left of", Path::new(&step.step)).map_err(ChildError::List)?;
        child::end_group(&identities).await?;
        failpoint::talk("ended what was left of", Path::new(&step.step)).map_err(ChildError::List)?;
        ended += 1;
    }
    Ok(ended)
}
