//! Reading: rows to records.

use std::array;
use std::collections::BTreeMap;

use jiff::Timestamp;
use tokio_postgres::Row;

use super::failure::Failure;
use super::lease::{self, time};
use super::schema;
use super::session::{READ, Statement, Turn};
use crate::address::Address;
use crate::secret::Secret;
use crate::spec::name::AppName;
use crate::state::row::{self, Named, Unreadable};
use crate::state::schema::{Found, Place};
use crate::state::{Applied, Deployment, LeaseRow, Operated, Snapshot};

/// One moment for every statement until the transaction ends.
pub const BEGIN: &str = "BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY";

const RESOURCES: &str =
    "SELECT address, body::text, digest, protected::int::text AS protected FROM @norn_resources";

macro_rules! deployments {
    ($more:literal, $rest:literal) => {
        concat!(
            "SELECT id::text, app, commit_sha, image_tag, status, error, ",
            $more,
            time!("started_at"),
            " AS started_at, ",
            time!("finished_at"),
            " AS finished_at FROM @deployments ",
            $rest
        )
    };
}

const DEPLOYMENTS: &str = deployments!("", "ORDER BY deployments.started_at, id");
const HISTORY: &str = deployments!("steps::text, ", "ORDER BY deployments.started_at DESC, id DESC LIMIT $1");
const HISTORY_OF: &str =
    deployments!("steps::text, ", "WHERE app = $2 ORDER BY deployments.started_at DESC, id DESC LIMIT $1");

const FORGES: &str = concat!(
    "SELECT app, status, resources::text, error, ",
    time!("started_at"),
    " AS started_at, ",
    time!("finished_at"),
    " AS finished_at FROM @forge_states"
);

const ARTIFACTS: &str = concat!(
    "SELECT id, app, kind, name, body::text, ",
    time!("created_at"),
    " AS created_at FROM @norn_artifacts ORDER BY norn_artifacts.created_at, id"
);

const RUNS: &str = concat!(
    "SELECT id, who, machine_id, boot_id, pid_namespace, pid::text, start_time::text, reason, token::text, ",
    time!("started_at"),
    " AS started_at, ",
    time!("heartbeat_at"),
    " AS heartbeat_at FROM @norn_runs WHERE ended_at IS NULL ORDER BY norn_runs.started_at, id"
);

const OPERATIONS: &str = "SELECT o.id, o.run, o.address, o.action, o.intent::text FROM @norn_runs r \
                          JOIN @norn_operations o ON o.run = r.id AND o.ended_at IS NULL \
                          WHERE r.ended_at IS NULL ORDER BY o.started_at, o.id";
const PENDING: &str = "SELECT id, operation, step, key, detail::text FROM @norn_steps WHERE ended_at IS NULL \
                       ORDER BY started_at, id";

/// Reads everything a plan compares with, at one moment.
pub async fn load(turn: &Turn<'_>, place: &Place, found: Found) -> Result<Snapshot, Failure> {
    if !place.has_rows(found)? {
        if found == Found::Empty {
            return Ok(Snapshot::default());
        }
        let [key, lock] = moment(turn, [schema::KEY, lease::ROW].map(Statement::plain)).await?;
        let (key, lease) = (Some(schema::key(&key)?), lease::read(&lock)?);
        let (now, lock) = (lease.now, lease.holder());
        return Ok(Snapshot { exists: true, key, lock, now, ..Snapshot::default() });
    }
    let all = [schema::KEY, lease::ROW, RESOURCES, DEPLOYMENTS, FORGES, ARTIFACTS, RUNS, OPERATIONS, PENDING];
    let [key, lock, resources, deployments, forges, artifacts, runs, operations, pending] =
        moment(turn, all.map(Statement::plain)).await?;
    let lease = lease::read(&lock)?;
    Ok(Snapshot {
        exists: true,
        key: Some(schema::key(&key)?),
        now: lease.now,
        lock: lease.holder(),
        resources: read("norn_resources", "address", &resources, row::resource)?.into_iter().collect(),
        deployments: read("deployments", "id", &deployments, row::deployment)?,
        forges: read("forge_states", "app", &forges, row::forge)?.into_iter().collect(),
        artifacts: read("norn_artifacts", "id", &artifacts, row::artifact)?,
        runs: read("norn_runs", "id", &runs, row::run)?,
        operations: read("norn_operations", "id", &operations, row::operation)?,
        pending: read("norn_steps", "id", &pending, row::pending)?,
    })
}

/// The store's key; `None` where the first tables are not made yet.
pub async fn key(turn: &Turn<'_>, place: &Place) -> Result<Option<Secret>, Failure> {
    if !schema::inspect(turn, place).await?.is_founded() {
        return Ok(None);
    }
    schema::key(&turn.rows(Statement::plain(schema::KEY)).await?).map(Some)
}

/// The lease row; `None` where the first tables are not made yet.
pub async fn lease(turn: &Turn<'_>, place: &Place) -> Result<Option<LeaseRow>, Failure> {
    if !schema::inspect(turn, place).await?.is_founded() {
        return Ok(None);
    }
    lease::read(&turn.rows(Statement::plain(lease::ROW)).await?).map(Some)
}

/// When each record was last put.
pub async fn updated(turn: &Turn<'_>, place: &Place) -> Result<BTreeMap<Address, Timestamp>, Failure> {
    if !place.has_rows(schema::inspect(turn, place).await?)? {
        return Ok(BTreeMap::new());
    }
    let sql = concat!("SELECT address, ", time!("updated_at"), " AS updated_at FROM @norn_resources");
    let rows = turn.rows(Statement::plain(sql)).await?;
    Ok(read("norn_resources", "address", &rows, row::updated)?.into_iter().collect())
}

/// The newest operations on an address, newest first.
pub async fn operated(
    turn: &Turn<'_>,
    place: &Place,
    address: &Address,
    limit: u32,
) -> Result<Vec<Operated>, Failure> {
    if !place.has_rows(schema::inspect(turn, place).await?)? {
        return Ok(Vec::new());
    }
    let sql = concat!(
        "SELECT o.id, o.action, ",
        time!("o.started_at"),
        " AS started_at, ",
        time!("o.ended_at"),
        " AS ended_at, o.outcome, r.who, r.command \
         FROM @norn_operations o JOIN @norn_runs r ON r.id = o.run WHERE o.address = $1 \
         ORDER BY o.started_at DESC, o.id DESC LIMIT $2"
    );
    let rows = turn.rows(Statement::new(sql, [Some(address.to_string()), Some(limit.to_string())])).await?;
    read("norn_operations", "id", &rows, row::operated)
}

/// The newest deployments with their step logs, newest first.
pub async fn history(
    turn: &Turn<'_>,
    place: &Place,
    app: Option<&AppName>,
    limit: u32,
) -> Result<Vec<Deployment>, Failure> {
    if !place.has_rows(schema::inspect(turn, place).await?)? {
        return Ok(Vec::new());
    }
    let limit = Some(limit.to_string());
    let statement = match app {
        None => Statement::new(HISTORY, [limit]),
        Some(app) => Statement::new(HISTORY_OF, [limit, Some(app.to_string())]),
    };
    let [rows] = moment(turn, [statement]).await?;
    read("deployments", "id", &rows, row::deployment_with_steps)
}

/// The operations of a saved plan, in the order in which they ended.
pub async fn operations_of(turn: &Turn<'_>, place: &Place, plan: &str) -> Result<Vec<Applied>, Failure> {
    if !place.has_rows(schema::inspect(turn, place).await?)? {
        return Ok(Vec::new());
    }
    let sql = "SELECT id, address, action, outcome, forge_after, deploy_after FROM @norn_operations \
               WHERE plan = $1 AND plan <> '' ORDER BY ended_at NULLS LAST, started_at, id";
    let rows = turn.rows(Statement::new(sql, [Some(plan.to_owned())])).await?;
    read("norn_operations", "id", &rows, row::applied)
}

/// Runs the queries at one moment: one round trip.
async fn moment<const N: usize>(turn: &Turn<'_>, queries: [Statement; N]) -> Result<[Vec<Row>; N], Failure> {
    let all: Vec<Statement> =
        [Statement::plain(BEGIN)].into_iter().chain(queries).chain([Statement::plain("COMMIT")]).collect();
    let mut found = turn.all(&all, READ).await?.into_iter().collect::<Result<Vec<_>, _>>()?.into_iter();
    found.next();
    Ok(array::from_fn(|_| found.next().expect("each query has a reply")))
}

fn read<T>(
    table: &'static str,
    key: &'static str,
    rows: &[Row],
    read: impl Fn(Named<'_>) -> Result<T, Unreadable>,
) -> Result<Vec<T>, Failure> {
    rows.iter().map(|row| Ok(read(Named { table, key, row })?)).collect()
}
