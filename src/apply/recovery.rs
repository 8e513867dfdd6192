//! What dead runs left: settled in memory by a plan, written by the next run.
//!
//! Here: [`settle`], which both use, and ending the children and the renames of dead runs. Elsewhere: asking what
//! serves (`provider::supervise`).

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use serde::Deserialize;
use tokio::time::{Duration, Instant, sleep};

use super::forge::{BUSY, busy};
use crate::address::{Address, Kind};
use crate::failpoint;
use crate::plan::{Running, Step};
use crate::provider::child::{self, ChildError, Identities};
use crate::provider::supervise::client::Home;
use crate::spec::name::AppName;
use crate::state::format::{self, DeployV1, ForgeV1, Host};
use crate::state::lock::{ProcessIdentity, TTL};
use crate::state::record::{DEPLOYMENT_INTERRUPTED, FORGE_INTERRUPTED};
use crate::state::{
    Change, DeploymentStatus, ForgeStatus, Held, Journaled, Lease, PendingStep, Record, Snapshot,
};

/// How long a guard may take to see that its lease has ended, and to end its command.
const GUARD: Duration = child::GUARD_GRACE.saturating_add(child::KILL_LIMIT);
/// How often a supervisor that is busy is asked again.
const AGAIN: Duration = Duration::from_millis(200);

/// Who is at work on the state, unless its process is known to be gone.
pub fn holder<'a>(
    snapshot: &'a Snapshot,
    alive: &dyn Fn(&ProcessIdentity) -> Option<bool>,
) -> Option<&'a Held> {
    snapshot.lock.as_ref().filter(|held| alive(&held.holder.process) != Some(false))
}

/// Settles in `snapshot` what dead runs left, and returns the changes that make it so. `own` is
/// the run that holds the lease now, if one does.
pub fn settle(
    snapshot: &mut Snapshot,
    running: &BTreeMap<AppName, Running>,
    own: Option<&str>,
    alive: &dyn Fn(&ProcessIdentity) -> Option<bool>,
) -> Vec<Change> {
    let live = own.or(holder(snapshot, alive).map(|held| held.holder.run.as_str()));
    if own.is_none() && live.is_some() {
        // A run is under way: its rows are its own.
        return Vec::new();
    }
    let dead: Vec<String> =
        snapshot.runs.iter().map(|run| run.id.clone()).filter(|id| Some(id.as_str()) != live).collect();
    let mut changes = Vec::new();
    for row in snapshot.deployments.iter_mut().filter(|row| !row.status.settled()) {
        row.status = DeploymentStatus::Failed;
        row.error = DEPLOYMENT_INTERRUPTED.into();
        changes.push(Change::DeploymentStatus {
            id: row.id.clone(),
            status: DeploymentStatus::Failed,
            error: DEPLOYMENT_INTERRUPTED.into(),
        });
    }
    for (app, forge) in &mut snapshot.forges {
        if matches!(forge.status, ForgeStatus::Forging | ForgeStatus::TearingDown) {
            forge.status = ForgeStatus::ForgeFailed;
            forge.error = FORGE_INTERRUPTED.into();
            changes.push(Change::ForgeEnded {
                app: app.clone(),
                status: ForgeStatus::ForgeFailed,
                error: FORGE_INTERRUPTED.into(),
                resources: None,
            });
        }
    }
    for (app, host) in meant(snapshot) {
        if let Some(Running::Elsewhere { .. }) = running.get(&app)
            && let Some((address, record)) = elsewhere(snapshot, &app, host)
        {
            snapshot.resources.insert(address.clone(), record.clone());
            changes.push(Change::RecordPut { address, record });
        }
    }
    let operations = std::mem::take(&mut snapshot.operations);
    for operation in operations.iter().filter(|operation| dead.contains(&operation.run)) {
        let live = came_to_pass(&operation.address.name, &operation.intent, running);
        if let Some(left) = operation.intent["leaves"].as_str().filter(|_| !live.is_empty())
            && let Some(row) = snapshot.deployments.iter_mut().find(|row| row.id == left)
            && row.status != DeploymentStatus::RolledBack
        {
            (row.status, row.error) = (DeploymentStatus::RolledBack, String::new());
            let (id, status, error) = (row.id.clone(), row.status, String::new());
            changes.push(Change::DeploymentStatus { id, status, error });
        }
        for (address, record) in live {
            if snapshot.resources.get(&address) != Some(&record) {
                if let Some(release) = record.read::<DeployV1>().filter(|_| address.kind == Kind::Deploy) {
                    // It was live, whatever becomes of it.
                    changes.push(format::kept(&address.name, &release, &record));
                    snapshot.keep(&address.name, &release.deployment, &release.tag, &record.body);
                }
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

/// Where apps were put live, or may have been by a run that did not end.
pub fn hosts(snapshot: &Snapshot) -> BTreeMap<AppName, Host> {
    let forged = |(address, record): (&Address, &Record)| {
        let is_forge = address.kind == Kind::Forge;
        let host = is_forge.then(|| Host::deserialize(&record.body["host"]))?.ok()?;
        Some((address.name.clone(), host))
    };
    snapshot.resources.iter().filter_map(forged).chain(meant(snapshot)).collect()
}

/// Where runs that did not end may have put apps live.
fn meant(snapshot: &Snapshot) -> BTreeMap<AppName, Host> {
    let meant = |operation: &Journaled| {
        let host = Host::deserialize(&operation.intent["forge"]["host"]).ok()?;
        Some((operation.address.name.clone(), host))
    };
    left_in(snapshot, &[Step::CreateDeployment, Step::Deploy]).filter_map(meant).collect()
}

/// The operations that did not end and were in one of these steps.
pub fn left_in<'a>(snapshot: &'a Snapshot, steps: &'a [Step]) -> impl Iterator<Item = &'a Journaled> {
    let was_in = |operation: &&Journaled| {
        let of_it = |step: &PendingStep| {
            step.operation == operation.id && steps.iter().any(|known| known.as_str() == step.step)
        };
        snapshot.pending.iter().any(of_it)
    };
    snapshot.operations.iter().filter(was_in)
}

/// The record of an app that a dead run may have put live where it cannot be seen from here.
fn elsewhere(snapshot: &Snapshot, app: &AppName, host: Host) -> Option<(Address, Record)> {
    let address = Address::forge(app);
    let known = snapshot.resources.get(&address)?;
    let forge = ForgeV1 { host: Some(host), ..known.read()? };
    let record = format::record(&forge, known.protected);
    (record != *known).then_some((address, record))
}

/// The records of an intent of which the world shows that it went live: what serves is current.
fn came_to_pass(
    app: &AppName,
    intent: &serde_json::Value,
    running: &BTreeMap<AppName, Running>,
) -> Vec<(Address, Record)> {
    let Some(Running::Serving { tag, definition, image, .. }) = running.get(app) else { return Vec::new() };
    let forge = serde_json::from_value::<ForgeV1>(intent["forge"].clone());
    let deploy = serde_json::from_value::<DeployV1>(intent["deploy"].clone());
    let (Ok(forge), Ok(deploy)) = (forge, deploy) else { return Vec::new() };
    let serves = tag.as_deref() == Some(deploy.tag.as_str())
        && definition.as_deref() == Some(forge.definition_digest().as_str());
    if !serves {
        return Vec::new();
    }
    // Before a build nobody knows its digest.
    let deploy = DeployV1 { image: deploy.image.clone().or_else(|| image.clone()), ..deploy };
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

/// Ends the commands that dead runs left here, before anything is done again. Those of other
/// machines end by themselves: see [`unseen`].
///
/// # Errors
/// What cannot be ended.
pub async fn end_children(snapshot: &Snapshot) -> Result<usize, ChildError> {
    let mut ended = 0;
    for (step, identities) in children(snapshot) {
        failpoint::talk("end what is left of", Path::new(&step.step)).map_err(ChildError::List)?;
        match child::end_group(&identities).await {
            Ok(()) => ended += 1,
            Err(ChildError::OutOfSight { .. }) => {}
            Err(error) => return Err(error),
        }
        failpoint::talk("ended what was left of", Path::new(&step.step)).map_err(ChildError::List)?;
    }
    Ok(ended)
}

/// How long a command that a dead run left on another machine may still run after the snapshot was
/// read: its guard ends it with the lease, which was prolonged no later than the run's last
/// heartbeat was written. Zero where there is none.
pub fn unseen(snapshot: &Snapshot, own: &ProcessIdentity) -> Duration {
    let away = children(snapshot).filter(|(_, identities)| child::out_of_sight(identities, own));
    let left = away.map(|(step, _)| {
        let of_step = |operation: &&Journaled| operation.id == step.operation;
        let run = snapshot.operations.iter().find(of_step).map(|operation| &operation.run);
        let run = snapshot.runs.iter().find(|known| Some(&known.id) == run);
        let silent = run.map_or(Duration::ZERO, |run| {
            Duration::try_from(snapshot.now.duration_since(run.heartbeat_at)).unwrap_or_default()
        });
        (TTL + GUARD).saturating_sub(silent)
    });
    left.max().unwrap_or_default()
}

/// The commands of steps whose outcome is not known.
fn children(snapshot: &Snapshot) -> impl Iterator<Item = (&PendingStep, Identities)> {
    snapshot.pending.iter().filter_map(|step| {
        let identities = serde_json::from_value(step.detail["child"].clone()).ok()?;
        Some((step, identities))
    })
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::provider::machine;
    use crate::state::Run;

    fn own() -> ProcessIdentity {
        machine::own_identity().expect("this process lives")
    }

    /// A command that a run on another machine left, `since` seconds before the snapshot was read.
    fn left(since: i64) -> Snapshot {
        let own = own();
        let there = ProcessIdentity { machine_id: "another".into(), ..own };
        let now = jiff::Timestamp::UNIX_EPOCH;
        let beat = now - jiff::SignedDuration::from_secs(since);
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
            now,
            ..Snapshot::default()
        }
    }

    #[tokio::test]
    async fn a_command_on_another_machine_is_given_the_time_its_guard_has() {
        for (since, wait) in [(0, 76), (50, 26), (76, 0), (3600, 0), (-5, 76)] {
            assert_eq!(unseen(&left(since), &own()).as_secs(), wait, "{since} s after its last beat");
        }
        assert_eq!(end_children(&left(3600)).await.expect("there is nothing to end here"), 0);
    }

    #[test]
    fn an_app_that_a_dead_run_was_putting_live_elsewhere_is_taken_to_be_there() {
        let web: AppName = "web".parse().expect("a name");
        let there = Host { machine: "another".into(), name: "far".into(), folder: "/srv/run".into() };
        let forge = |host| ForgeV1 {
            route: None,
            version: 1,
            definition: None,
            values: BTreeMap::new(),
            protected: false,
            host,
            namespace: None,
            engine: None,
        };
        let mut stored = left(3600);
        stored.operations[0].intent = json!({ "forge": forge(Some(there.clone())) });
        stored.resources.insert(Address::forge(&web), format::record(&forge(None), false));
        assert_eq!(hosts(&stored), BTreeMap::new(), "a build puts nothing live");

        stored.pending[0].step = "deploy".into();
        assert_eq!(hosts(&stored), BTreeMap::from([(web.clone(), there.clone())]));
        let running = BTreeMap::from([(web.clone(), Running::Elsewhere { host: there.to_string() })]);
        let changes = settle(&mut stored, &running, None, &|_| Some(false));
        let record = format::record(&forge(Some(there.clone())), false);
        assert_eq!(changes[0], Change::RecordPut { address: Address::forge(&web), record });
        assert_eq!(hosts(&stored), BTreeMap::from([(web, there)]), "the next plan knows it too");
    }
}
