//! Each change as SQL. What a change means is said at [`Change`].

use std::borrow::Cow;

use serde_json::Value;

use super::session::Statement;
use crate::address::{Address, Kind};
use crate::state::change::{Change, DEAD};
use crate::state::lock::Lease;
use crate::state::{DeploymentStatus, StepLog, seed};

/// A statement of a write.
pub struct Making {
    pub statement: Statement,
    /// The one row that it must change, and what that is; it fails by a division by zero
    /// where there is none.
    pub one: Option<(&'static str, String)>,
}

/// An update of the one row there must be.
macro_rules! one {
    ($update:expr) => {
        concat!("WITH done AS (", $update, " RETURNING 1) SELECT (1 / (SELECT count(*) FROM done))::text")
    };
}

/// Ends operations, and keeps the digests of the records of their apps.
macro_rules! ended_operations {
    () => {
        "UPDATE @norn_operations o SET ended_at = clock_timestamp(), outcome = $2, \
         forge_after = (SELECT digest FROM @norn_resources WHERE address = 'forge/' || split_part(o.address, '/', 2)), \
         deploy_after = (SELECT digest FROM @norn_resources WHERE address = 'deploy/' || split_part(o.address, '/', 2))"
    };
}

/// The statements that make a change.
pub fn make(lease: &Lease, change: &Change) -> Vec<Making> {
    let run = || Some(lease.run.clone());
    let made = match change {
        Change::RunStarted { command } => all(
            "INSERT INTO @norn_runs (id, who, machine_id, boot_id, pid_namespace, pid, start_time, job_url, \
             reason, command, token, started_at, heartbeat_at) \
             SELECT run, who, machine_id, boot_id, pid_namespace, pid, start_time, job_url, reason, $1, token, \
             clock_timestamp(), clock_timestamp() FROM @norn_locks WHERE id = 1",
            [text(command)],
        ),
        Change::RunEnded { outcome } => one(
            one!(
                "UPDATE @norn_runs SET ended_at = clock_timestamp(), outcome = $2 WHERE id = $1 AND ended_at IS NULL"
            ),
            [run(), text(outcome)],
            ("unended run", &lease.run),
        ),
        Change::RunBuried { run } => return run_buried(run),
        Change::OperationStarted { id, address, action, intent, plan } => all(
            "INSERT INTO @norn_operations (id, run, address, action, intent, plan, started_at) \
             VALUES ($1, $2, $3, $4, $5, $6, clock_timestamp())",
            [
                text(id),
                run(),
                text(&address.to_string()),
                text(action),
                json(intent),
                text(plan.as_deref().unwrap_or_default()),
            ],
        ),
        Change::OperationEnded { id, outcome } => one(
            one!(concat!(ended_operations!(), " WHERE id = $1 AND ended_at IS NULL")),
            [text(id), text(outcome)],
            ("unended operation", id),
        ),
        Change::StepStarted { id, operation, step, key, detail } => all(
            "INSERT INTO @norn_steps (id, operation, step, key, detail, started_at) \
             VALUES ($1, $2, $3, $4, $5, clock_timestamp())",
            [text(id), text(operation), text(step), text(key), json(detail)],
        ),
        Change::StepDetail { id, detail } => one(
            one!(
                "UPDATE @norn_steps SET detail = CASE WHEN jsonb_typeof(detail) = 'object' \
                 AND jsonb_typeof($2::jsonb) = 'object' THEN detail || $2::jsonb ELSE $2::jsonb END \
                 WHERE id = $1 AND ended_at IS NULL"
            ),
            [text(id), json(detail)],
            ("unended step", id),
        ),
        Change::StepEnded { id, outcome } => one(
            one!(
                "UPDATE @norn_steps SET ended_at = clock_timestamp(), outcome = $2 WHERE id = $1 AND ended_at IS NULL"
            ),
            [text(id), text(outcome)],
            ("unended step", id),
        ),
        Change::RecordPut { address, record } => all(
            "INSERT INTO @norn_resources (address, body, digest, protected, updated_at) \
             VALUES ($1, $2, $3, $4, clock_timestamp()) ON CONFLICT (address) DO UPDATE SET \
             body = excluded.body, digest = excluded.digest, protected = excluded.protected, \
             updated_at = excluded.updated_at",
            [
                text(&address.to_string()),
                json(&record.body),
                text(&record.digest),
                text(&record.protected.to_string()),
            ],
        ),
        Change::RecordRemoved { address } => {
            all("DELETE FROM @norn_resources WHERE address = $1", [text(&address.to_string())])
        }
        Change::ArtifactKept { id, app, kind, name, body } => all(
            "INSERT INTO @norn_artifacts (id, app, kind, name, body, created_at) \
             SELECT $1, $2, $3, $4, $5, clock_timestamp() \
             WHERE NOT EXISTS (SELECT 1 FROM @norn_artifacts WHERE app = $2 AND kind = $3 AND name = $4)",
            [text(id), text(app.as_str()), text(kind.as_str()), text(name), json(body)],
        ),
        Change::ArtifactsForgotten { app, kind } => all(
            "DELETE FROM @norn_artifacts WHERE app = $1 AND kind = $2",
            [text(app.as_str()), text(kind.as_str())],
        ),
        Change::DeploymentQueued { id, app, commit_sha, image_tag } => all(
            "INSERT INTO @deployments (id, app, commit_sha, image_tag, status, steps, error, started_at) \
             VALUES ($1, $2, $3, $4, $5, '[]', '', clock_timestamp())",
            [
                text(id),
                text(app.as_str()),
                text(commit_sha),
                text(image_tag),
                text(DeploymentStatus::Queued.as_str()),
            ],
        ),
        Change::DeploymentStatus { id, status, error } => one(
            one!(
                "UPDATE @deployments SET status = $2, error = $3, finished_at = CASE WHEN $4::boolean \
                 THEN coalesce(finished_at, clock_timestamp()) ELSE finished_at END WHERE id = $1"
            ),
            [text(id), text(status.as_str()), text(error), text(&status.settled().to_string())],
            ("deployment", id),
        ),
        Change::DeploymentStep { id, log } => one(
            one!("UPDATE @deployments SET steps = steps || $2::jsonb WHERE id = $1"),
            [text(id), entry(log)],
            ("deployment", id),
        ),
        Change::ForgeStarted { app, status } => all(
            "INSERT INTO @forge_states AS f (app, status, steps, resources, error, started_at) \
             VALUES ($1, $2, '[]', '{}', '', clock_timestamp()) ON CONFLICT (app) DO UPDATE SET \
             status = excluded.status, steps = '[]', error = '', started_at = excluded.started_at, \
             finished_at = NULL",
            [text(app.as_str()), text(status.as_str())],
        ),
        Change::ForgeStep { app, log } => one(
            one!(
                "UPDATE @forge_states SET steps = CASE WHEN steps -> -1 ->> 'step' = $2 \
                 THEN (steps - -1) || $3::jsonb ELSE steps || $3::jsonb END WHERE app = $1"
            ),
            [text(app.as_str()), text(&log.step), entry(log)],
            ("forge", app.as_str()),
        ),
        Change::ForgeEnded { app, status, error, resources } => one(
            one!(
                "UPDATE @forge_states SET status = $2, error = $3, resources = coalesce($4::jsonb, resources), \
                 finished_at = clock_timestamp() WHERE app = $1"
            ),
            [text(app.as_str()), text(status.as_str()), text(error), resources.as_ref().and_then(json)],
            ("forge", app.as_str()),
        ),
        Change::AppRenamed { from, to } => {
            let gone = all(
                "DELETE FROM @forge_states WHERE app = $1 AND NOT EXISTS \
                 (SELECT 1 FROM @norn_resources WHERE address = $2)",
                [text(to.as_str()), text(&Address::forge(to).to_string())],
            );
            let addresses = Kind::ALL.into_iter().map(|kind| {
                let [from, to] = [from, to].map(|name| Address { kind, name: name.clone() }.to_string());
                all("UPDATE @norn_resources SET address = $2 WHERE address = $1", [text(&from), text(&to)])
            });
            let rows = seed::tables_of_apps().map(|table| {
                let sql = format!("UPDATE @{table} SET app = $2 WHERE app = $1");
                all(sql, [text(from.as_str()), text(to.as_str())])
            });
            return [gone].into_iter().chain(addresses).chain(rows).collect();
        }
    };
    vec![made]
}

fn run_buried(run: &str) -> Vec<Making> {
    let buried = [
        "UPDATE @norn_steps SET ended_at = clock_timestamp(), outcome = $2 WHERE ended_at IS NULL AND operation IN \
         (SELECT id FROM @norn_operations WHERE run = $1)",
        concat!(ended_operations!(), " WHERE run = $1 AND ended_at IS NULL"),
        "UPDATE @norn_runs SET ended_at = clock_timestamp(), outcome = $2 WHERE id = $1 AND ended_at IS NULL",
    ];
    buried.map(|sql| all(sql, [text(run), text(DEAD)])).into()
}

fn all(sql: impl Into<Cow<'static, str>>, params: impl IntoIterator<Item = Option<String>>) -> Making {
    Making { statement: Statement::new(sql, params), one: None }
}

fn one(
    sql: &'static str,
    params: impl IntoIterator<Item = Option<String>>,
    (what, id): (&'static str, &str),
) -> Making {
    Making { statement: Statement::new(sql, params), one: Some((what, id.to_owned())) }
}

/// A text as the database takes it, which knows no NUL.
fn text(value: &str) -> Option<String> {
    Some(value.replace('\0', ""))
}

fn json(value: &Value) -> Option<String> {
    Some(value.to_string())
}

fn entry(log: &StepLog) -> Option<String> {
    Some(serde_json::to_string(log).expect("a step log is texts and a number"))
}
