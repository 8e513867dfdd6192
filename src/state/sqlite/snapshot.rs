//! Reading: rows to records.

use std::collections::BTreeMap;

use jiff::Timestamp;
use rusqlite::{Connection, ToSql};

use super::failure::Failure;
use super::{lease, schema};
use crate::address::Address;
use crate::secret::Secret;
use crate::spec::name::AppName;
use crate::state::row::{self, Named, Unreadable};
use crate::state::schema::{Found, Place};
use crate::state::{Applied, Deployment, LeaseRow, Operated, Snapshot};

/// Reads everything a plan compares with, at one moment.
pub fn load(conn: &Connection, place: &Place) -> Result<Snapshot, Failure> {
    // A read transaction: everything below is of the moment of its first statement.
    let _tx = conn.unchecked_transaction()?;
    let found = schema::inspect(conn, place)?;
    let rows = place.has_rows(found)?;
    if found == Found::Empty {
        return Ok(Snapshot::default());
    }
    let lease = lease::row(conn)?;
    let mut snapshot = Snapshot {
        exists: true,
        key: Some(schema::key(conn)?),
        now: lease.now,
        lock: lease.holder(),
        ..Snapshot::default()
    };
    if rows {
        let all = |table, sql| Table { conn, name: table, key: "id", sql };
        snapshot.resources =
            Table { key: "address", ..all("norn_resources", "SELECT * FROM norn_resources") }
                .rows(&[], row::resource)?
                .into_iter()
                .collect();
        snapshot.deployments = all("deployments", DEPLOYMENTS).rows(&[], row::deployment)?;
        snapshot.forges =
            Table { key: "app", ..all("forge_states", FORGES) }.rows(&[], row::forge)?.into_iter().collect();
        snapshot.artifacts = all("norn_artifacts", ARTIFACTS).rows(&[], row::artifact)?;
        snapshot.runs = all("norn_runs", RUNS).rows(&[], row::run)?;
        snapshot.operations = all("norn_operations", OPERATIONS).rows(&[], row::operation)?;
        snapshot.pending = all("norn_steps", PENDING).rows(&[], row::pending)?;
    }
    Ok(snapshot)
}

/// The store's key; `None` where the first tables are not made yet.
pub fn key(conn: &Connection, place: &Place) -> Result<Option<Secret>, Failure> {
    if schema::inspect(conn, place)?.is_founded() { schema::key(conn).map(Some) } else { Ok(None) }
}

/// The newest deployments with their step logs, newest first.
pub fn history(
    conn: &Connection,
    place: &Place,
    app: Option<&AppName>,
    limit: u32,
) -> Result<Vec<Deployment>, Failure> {
    let _tx = conn.unchecked_transaction()?;
    if !place.has_rows(schema::inspect(conn, place)?)? {
        return Ok(Vec::new());
    }
    let read = row::deployment_with_steps;
    let (sql, params): (_, &[&dyn ToSql]) = match app {
        None => ("SELECT * FROM deployments ORDER BY started_at DESC, rowid DESC LIMIT ?1", &[&limit]),
        Some(app) => (
            "SELECT * FROM deployments WHERE app = ?2 ORDER BY started_at DESC, rowid DESC LIMIT ?1",
            &[&limit, &app.as_str()],
        ),
    };
    Table { conn, name: "deployments", key: "id", sql }.rows(params, read)
}

/// The operations of a saved plan, in the order in which they ended.
pub fn operations_of(conn: &Connection, place: &Place, plan: &str) -> Result<Vec<Applied>, Failure> {
    let _tx = conn.unchecked_transaction()?;
    if !place.has_rows(schema::inspect(conn, place)?)? {
        return Ok(Vec::new());
    }
    let sql = "SELECT id, address, action, outcome, forge_after, deploy_after FROM norn_operations \
               WHERE plan = ?1 AND plan <> '' ORDER BY ended_at IS NULL, ended_at, started_at, rowid";
    Table { conn, name: "norn_operations", key: "id", sql }.rows(&[&plan], row::applied)
}

/// The lease row; `None` where the first tables are not made yet.
pub fn lease(conn: &Connection, place: &Place) -> Result<Option<LeaseRow>, Failure> {
    let _tx = conn.unchecked_transaction()?;
    if schema::inspect(conn, place)?.is_founded() { lease::row(conn).map(Some) } else { Ok(None) }
}

/// When each record was last put.
pub fn updated(conn: &Connection, place: &Place) -> Result<BTreeMap<Address, Timestamp>, Failure> {
    let _tx = conn.unchecked_transaction()?;
    if !place.has_rows(schema::inspect(conn, place)?)? {
        return Ok(BTreeMap::new());
    }
    let sql = "SELECT address, updated_at FROM norn_resources";
    let times = Table { conn, name: "norn_resources", key: "address", sql }.rows(&[], row::updated)?;
    Ok(times.into_iter().collect())
}

/// The newest operations on an address, newest first.
pub fn operated(
    conn: &Connection,
    place: &Place,
    address: &Address,
    limit: u32,
) -> Result<Vec<Operated>, Failure> {
    let _tx = conn.unchecked_transaction()?;
    if !place.has_rows(schema::inspect(conn, place)?)? {
        return Ok(Vec::new());
    }
    let sql = "SELECT o.id, o.action, o.started_at, o.ended_at, o.outcome, r.who, r.command \
               FROM norn_operations o JOIN norn_runs r ON r.id = o.run WHERE o.address = ?1 \
               ORDER BY o.started_at DESC, o.rowid DESC LIMIT ?2";
    Table { conn, name: "norn_operations", key: "id", sql }
        .rows(&[&address.to_string(), &limit], row::operated)
}

const DEPLOYMENTS: &str = "SELECT id, app, commit_sha, image_tag, status, error, started_at, finished_at \
                           FROM deployments ORDER BY started_at, rowid";
const FORGES: &str = "SELECT app, status, resources, error, started_at, finished_at FROM forge_states";
const ARTIFACTS: &str = "SELECT * FROM norn_artifacts ORDER BY created_at, rowid";
const RUNS: &str = "SELECT * FROM norn_runs WHERE ended_at IS NULL ORDER BY started_at, rowid";
const OPERATIONS: &str = "SELECT o.id, o.run, o.address, o.action, o.intent FROM norn_runs r \
                          JOIN norn_operations o ON o.run = r.id AND o.ended_at IS NULL \
                          WHERE r.ended_at IS NULL ORDER BY o.started_at, o.rowid";
const PENDING: &str = "SELECT id, operation, step, key, detail FROM norn_steps WHERE ended_at IS NULL \
                       ORDER BY started_at, rowid";

/// A query of rows of one table.
struct Table<'a> {
    conn: &'a Connection,
    name: &'static str,
    /// The column that names a row.
    key: &'static str,
    sql: &'a str,
}

impl Table<'_> {
    fn rows<T>(
        &self,
        params: &[&dyn ToSql],
        read: impl Fn(Named<'_>) -> Result<T, Unreadable>,
    ) -> Result<Vec<T>, Failure> {
        let mut statement = self.conn.prepare_cached(self.sql)?;
        let mut rows = statement.query(params)?;
        let mut all = Vec::new();
        while let Some(row) = rows.next()? {
            all.push(read(Named { table: self.name, key: self.key, row })?);
        }
        Ok(all)
    }
}
