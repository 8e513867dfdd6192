//! Each change as SQL. What a change means is said at [`Change`].

use rusqlite::{Params, Transaction};
use serde_json::Value;

use super::failure::Failure;
use super::row::now;
use crate::address::{Address, Kind};
use crate::spec::name::AppName;
use crate::state::change::{Change, DEAD, add_detail};
use crate::state::lock::Lease;
use crate::state::{DeploymentStatus, ForgeStatus, Record, StepLog, seed};

/// The digests of the app's records, for an operation that ends: the app is its address without
/// the kind.
macro_rules! after {
    () => {
        concat!(after!("forge"), after!("deploy"))
    };
    ($kind:literal) => {
        concat!(
            ", ",
            $kind,
            "_after = (SELECT digest FROM norn_resources r WHERE r.address = '",
            $kind,
            "' || substr(norn_operations.address, instr(norn_operations.address, '/')))"
        )
    };
}

pub fn make(tx: &Transaction<'_>, lease: &Lease, change: &Change) -> Result<(), Failure> {
    match change {
        Change::RunStarted { command } => run_started(tx, command),
        Change::RunEnded { outcome } => one(
            tx,
            concat!(
                "UPDATE norn_runs SET ended_at = ",
                now!(),
                ", outcome = ?2 WHERE id = ?1 AND ended_at IS NULL"
            ),
            (&lease.run, outcome),
            ("unended run", &lease.run),
        ),
        Change::RunBuried { run } => run_buried(tx, run),
        Change::OperationStarted { id, address, action, intent, plan } => all(
            tx,
            concat!(
                "INSERT INTO norn_operations (id, run, address, action, intent, plan, started_at) ",
                "VALUES (?1, ?2, ?3, ?4, ?5, ?6, ",
                now!(),
                ")"
            ),
            (
                id,
                &lease.run,
                address.to_string(),
                action,
                intent.to_string(),
                plan.as_deref().unwrap_or_default(),
            ),
        ),
        Change::OperationEnded { id, outcome } => one(
            tx,
            concat!(
                "UPDATE norn_operations SET ended_at = ",
                now!(),
                ", outcome = ?2",
                after!(),
                " WHERE id = ?1 AND ended_at IS NULL"
            ),
            (id, outcome),
            ("unended operation", id),
        ),
        Change::StepStarted { id, operation, step, key, detail } => all(
            tx,
            concat!(
                "INSERT INTO norn_steps (id, operation, step, key, detail, started_at) ",
                "VALUES (?1, ?2, ?3, ?4, ?5, ",
                now!(),
                ")"
            ),
            (id, operation, step, key, detail.to_string()),
        ),
        Change::StepDetail { id, detail } => step_detail(tx, id, detail),
        Change::StepEnded { id, outcome } => one(
            tx,
            concat!(
                "UPDATE norn_steps SET ended_at = ",
                now!(),
                ", outcome = ?2 WHERE id = ?1 AND ended_at IS NULL"
            ),
            (id, outcome),
            ("unended step", id),
        ),
        Change::RecordPut { address, record } => record_put(tx, address, record),
        Change::RecordRemoved { address } => {
            all(tx, "DELETE FROM norn_resources WHERE address = ?1", [address.to_string()])
        }
        Change::ArtifactKept { id, app, kind, name, body } => all(
            tx,
            concat!(
                "INSERT INTO norn_artifacts (id, app, kind, name, body, created_at) SELECT ?1, ?2, ?3, ?4, ?5, ",
                now!(),
                " WHERE NOT EXISTS (SELECT 1 FROM norn_artifacts WHERE app = ?2 AND kind = ?3 AND name = ?4)"
            ),
            (id, app.as_str(), kind.as_str(), name, body.to_string()),
        ),
        Change::ArtifactsForgotten { app, kind } => {
            all(tx, "DELETE FROM norn_artifacts WHERE app = ?1 AND kind = ?2", (app.as_str(), kind.as_str()))
        }
        Change::DeploymentQueued { id, app, commit_sha, image_tag } => all(
            tx,
            concat!(
                "INSERT INTO deployments (id, app, commit_sha, image_tag, status, steps, error, started_at) ",
                "VALUES (?1, ?2, ?3, ?4, ?5, '[]', '', ",
                now!(),
                ")"
            ),
            (id, app.as_str(), commit_sha, image_tag, DeploymentStatus::Queued.as_str()),
        ),
        Change::DeploymentStatus { id, status, error } => one(
            tx,
            concat!(
                "UPDATE deployments SET status = ?2, error = ?3, ",
                "finished_at = CASE WHEN ?4 THEN coalesce(finished_at, ",
                now!(),
                ") ELSE finished_at END WHERE id = ?1"
            ),
            (id, status.as_str(), error, status.settled()),
            ("deployment", id),
        ),
        Change::DeploymentStep { id, log } => one(
            tx,
            "UPDATE deployments SET steps = json_insert(steps, '$[#]', json(?2)) WHERE id = ?1",
            (id, entry(log)),
            ("deployment", id),
        ),
        Change::ForgeStarted { app, status } => forge_started(tx, app, *status),
        Change::ForgeStep { app, log } => one(
            tx,
            concat!(
                "UPDATE forge_states SET steps = CASE WHEN json_extract(steps, '$[#-1].step') = ?2 ",
                "THEN json_replace(steps, '$[#-1]', json(?3)) ELSE json_insert(steps, '$[#]', json(?3)) END ",
                "WHERE app = ?1"
            ),
            (app.as_str(), &log.step, entry(log)),
            ("forge", app.as_str()),
        ),
        Change::ForgeEnded { app, status, error, resources } => one(
            tx,
            concat!(
                "UPDATE forge_states SET status = ?2, error = ?3, resources = coalesce(?4, resources), finished_at = ",
                now!(),
                " WHERE app = ?1"
            ),
            (app.as_str(), status.as_str(), error, resources.as_ref().map(Value::to_string)),
            ("forge", app.as_str()),
        ),
        Change::AppRenamed { from, to } => app_renamed(tx, from, to),
    }
}

fn run_started(tx: &Transaction<'_>, command: &str) -> Result<(), Failure> {
    all(
        tx,
        concat!(
            "INSERT INTO norn_runs (id, who, machine_id, boot_id, pid_namespace, pid, start_time, job_url, reason, ",
            "command, token, started_at, heartbeat_at) ",
            "SELECT run, who, machine_id, boot_id, pid_namespace, pid, start_time, job_url, reason, ?1, token, ",
            now!(),
            ", ",
            now!(),
            " FROM norn_locks WHERE id = 1"
        ),
        [command],
    )
}

fn run_buried(tx: &Transaction<'_>, run: &str) -> Result<(), Failure> {
    all(
        tx,
        concat!(
            "UPDATE norn_steps SET ended_at = ",
            now!(),
            ", outcome = ?2 WHERE ended_at IS NULL AND operation IN ",
            "(SELECT id FROM norn_operations WHERE run = ?1)"
        ),
        (run, DEAD),
    )?;
    all(
        tx,
        concat!(
            "UPDATE norn_operations SET ended_at = ",
            now!(),
            ", outcome = ?2",
            after!(),
            " WHERE run = ?1 AND ended_at IS NULL"
        ),
        (run, DEAD),
    )?;
    all(
        tx,
        concat!(
            "UPDATE norn_runs SET ended_at = ",
            now!(),
            ", outcome = ?2 WHERE id = ?1 AND ended_at IS NULL"
        ),
        (run, DEAD),
    )
}

fn step_detail(tx: &Transaction<'_>, id: &str, detail: &Value) -> Result<(), Failure> {
    let mut statement =
        tx.prepare_cached("SELECT detail FROM norn_steps WHERE id = ?1 AND ended_at IS NULL")?;
    let mut rows = statement.query([id])?;
    let row = rows.next()?.ok_or_else(|| absent("unended step", id))?;
    let known = serde_json::from_str(&row.get::<_, String>(0)?)
        .map_err(|error| Failure::Data(format!("the detail of step {id:?}: {error}")))?;
    all(tx, "UPDATE norn_steps SET detail = ?2 WHERE id = ?1", (id, add_detail(known, detail).to_string()))
}

fn record_put(tx: &Transaction<'_>, address: &Address, record: &Record) -> Result<(), Failure> {
    all(
        tx,
        concat!(
            "INSERT INTO norn_resources (address, body, digest, protected, updated_at) VALUES (?1, ?2, ?3, ?4, ",
            now!(),
            ") ON CONFLICT (address) DO UPDATE SET body = excluded.body, digest = excluded.digest, ",
            "protected = excluded.protected, updated_at = excluded.updated_at"
        ),
        (address.to_string(), record.body.to_string(), &record.digest, record.protected),
    )
}

fn forge_started(tx: &Transaction<'_>, app: &AppName, status: ForgeStatus) -> Result<(), Failure> {
    all(
        tx,
        concat!(
            "INSERT INTO forge_states (app, status, steps, resources, error, started_at) VALUES (?1, ?2, '[]', '{}', '', ",
            now!(),
            ") ON CONFLICT (app) DO UPDATE SET status = excluded.status, steps = '[]', error = '', ",
            "started_at = excluded.started_at, finished_at = NULL"
        ),
        (app.as_str(), status.as_str()),
    )
}

fn app_renamed(tx: &Transaction<'_>, from: &AppName, to: &AppName) -> Result<(), Failure> {
    all(
        tx,
        "DELETE FROM forge_states WHERE app = ?1 AND NOT EXISTS (SELECT 1 FROM norn_resources WHERE address = ?2)",
        (to.as_str(), Address::forge(to).to_string()),
    )?;
    for kind in Kind::ALL {
        let [from, to] = [from, to].map(|name| Address { kind, name: name.clone() }.to_string());
        all(tx, "UPDATE norn_resources SET address = ?2 WHERE address = ?1", (from, to))?;
    }
    for table in seed::tables_of_apps() {
        all(tx, &format!("UPDATE {table} SET app = ?2 WHERE app = ?1"), (from.as_str(), to.as_str()))?;
    }
    Ok(())
}

/// A step log as the column holds it: the keys in the published order.
fn entry(log: &StepLog) -> String {
    serde_json::to_string(log).expect("a step log is texts and a number")
}

/// Changes the rows that there are.
fn all(tx: &Transaction<'_>, sql: &str, params: impl Params) -> Result<(), Failure> {
    tx.prepare_cached(sql)?.execute(params)?;
    Ok(())
}

/// Changes the one row that there must be.
fn one(
    tx: &Transaction<'_>,
    sql: &str,
    params: impl Params,
    (what, id): (&str, &str),
) -> Result<(), Failure> {
    match tx.prepare_cached(sql)?.execute(params)? {
        0 => Err(absent(what, id)),
        _ => Ok(()),
    }
}

fn absent(what: &str, id: &str) -> Failure {
    Failure::Data(format!("there is no {what} {id:?}"))
}
