//! Reading: rows to records.

use std::collections::BTreeMap;

use jiff::Timestamp;
use rusqlite::{Connection, ToSql};

use super::failure::Failure;
use super::lease;
use super::place::Place;
use super::row::Named;
use super::schema::{self, Found, KNOWN};
use crate::address::Address;
use crate::secret::Secret;
use crate::spec::name::AppName;
use crate::state::{
    Deployment, DeploymentStatus, Forge, ForgeStatus, Journaled, LeaseRow, Operated, PendingStep, Record,
    Run, Snapshot, StepLog, StoreError,
};

/// Reads everything a plan compares with, at one moment.
pub fn load(conn: &Connection, place: &Place) -> Result<Snapshot, Failure> {
    // A read transaction: everything below is of the moment of its first statement.
    let _tx = conn.unchecked_transaction()?;
    let tables = match schema::inspect(conn, place)? {
        Found::Empty => return Ok(Snapshot::default()),
        Found::V1 => return Err(older(place, 0)),
        Found::Older(found) => return Err(older(place, found)),
        Found::Founded => false,
        Found::Current => true,
    };
    let mut snapshot = Snapshot {
        exists: true,
        key: Some(schema::key(conn)?),
        lock: lease::row(conn)?.held,
        ..Snapshot::default()
    };
    if tables {
        snapshot.resources = resources(conn)?.into_iter().collect();
        snapshot.deployments = deployments(conn)?;
        snapshot.forges = forges(conn)?;
        snapshot.runs = runs(conn)?;
        snapshot.operations = operations(conn)?;
        snapshot.pending = pending(conn)?;
    }
    Ok(snapshot)
}

/// The store's key; `None` where the first tables are not made yet.
pub fn key(conn: &Connection, place: &Place) -> Result<Option<Secret>, Failure> {
    match schema::inspect(conn, place)? {
        Found::Empty | Found::V1 => Ok(None),
        Found::Founded | Found::Older(_) | Found::Current => schema::key(conn).map(Some),
    }
}

/// The newest deployments with their step logs, newest first.
pub fn history(
    conn: &Connection,
    place: &Place,
    app: Option<&AppName>,
    limit: u32,
) -> Result<Vec<Deployment>, Failure> {
    let _tx = conn.unchecked_transaction()?;
    if !recorded(conn, place)? {
        return Ok(Vec::new());
    }
    const NEWEST: &str = "ORDER BY started_at DESC, rowid DESC LIMIT ?1";
    let read = |row: Named<'_>| {
        // An attempt that v1 never brought to a step has the log `null`.
        let steps: Option<Vec<StepLog>> = row.json("steps")?;
        Ok(Deployment { steps: steps.unwrap_or_default(), ..deployment(row)? })
    };
    match app {
        None => {
            rows(conn, "deployments", "id", &format!("SELECT * FROM deployments {NEWEST}"), &[&limit], read)
        }
        Some(app) => {
            let sql = format!("SELECT * FROM deployments WHERE app = ?2 {NEWEST}");
            rows(conn, "deployments", "id", &sql, &[&limit, &app.as_str()], read)
        }
    }
}

/// The lease row; `None` where the first tables are not made yet.
pub fn lease(conn: &Connection, place: &Place) -> Result<Option<LeaseRow>, Failure> {
    let _tx = conn.unchecked_transaction()?;
    match schema::inspect(conn, place)? {
        Found::Empty | Found::V1 => Ok(None),
        Found::Founded | Found::Older(_) | Found::Current => lease::row(conn).map(Some),
    }
}

/// When each record was last put.
pub fn updated(conn: &Connection, place: &Place) -> Result<BTreeMap<Address, Timestamp>, Failure> {
    let _tx = conn.unchecked_transaction()?;
    if !recorded(conn, place)? {
        return Ok(BTreeMap::new());
    }
    let sql = "SELECT address, updated_at FROM norn_resources";
    let times = rows(conn, "norn_resources", "address", sql, &[], |row| {
        Ok((row.parse("address")?, row.parse("updated_at")?))
    })?;
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
    if !recorded(conn, place)? {
        return Ok(Vec::new());
    }
    let sql = "SELECT o.id, o.action, o.started_at, o.ended_at, o.outcome, r.who, r.command \
               FROM norn_operations o JOIN norn_runs r ON r.id = o.run WHERE o.address = ?1 \
               ORDER BY o.started_at DESC, o.rowid DESC LIMIT ?2";
    rows(conn, "norn_operations", "id", sql, &[&address.to_string(), &limit], |row| {
        Ok(Operated {
            action: row.text("action")?,
            who: row.text("who")?,
            command: row.text("command")?,
            started_at: row.parse("started_at")?,
            ended_at: row.maybe_time("ended_at")?,
            outcome: row.text("outcome")?,
        })
    })
}

/// Whether there are tables of records.
fn recorded(conn: &Connection, place: &Place) -> Result<bool, Failure> {
    match schema::inspect(conn, place)? {
        Found::Empty | Found::Founded => Ok(false),
        Found::V1 => Err(older(place, 0)),
        Found::Older(found) => Err(older(place, found)),
        Found::Current => Ok(true),
    }
}

fn older(place: &Place, found: u32) -> Failure {
    StoreError::Older { place: place.name.clone(), found, known: KNOWN }.into()
}

fn resources(conn: &Connection) -> Result<Vec<(Address, Record)>, Failure> {
    rows(conn, "norn_resources", "address", "SELECT * FROM norn_resources", &[], |row| {
        let record = Record {
            body: row.json("body")?,
            digest: row.text("digest")?,
            protected: row.bool("protected")?,
        };
        Ok((row.parse("address")?, record))
    })
}

fn deployments(conn: &Connection) -> Result<Vec<Deployment>, Failure> {
    let sql = "SELECT id, app, commit_sha, image_tag, status, error, started_at, finished_at FROM deployments \
               ORDER BY started_at, rowid";
    rows(conn, "deployments", "id", sql, &[], deployment)
}

fn deployment(row: Named<'_>) -> Result<Deployment, Failure> {
    Ok(Deployment {
        id: row.text("id")?,
        app: row.parse("app")?,
        commit_sha: row.text("commit_sha")?,
        image_tag: row.text("image_tag")?,
        status: row.read("status", DeploymentStatus::parse)?,
        steps: Vec::new(),
        error: row.text("error")?,
        started_at: row.parse("started_at")?,
        finished_at: row.maybe_time("finished_at")?,
    })
}

fn forges(conn: &Connection) -> Result<BTreeMap<AppName, Forge>, Failure> {
    let sql = "SELECT app, status, resources, error, started_at, finished_at FROM forge_states";
    let forges = rows(conn, "forge_states", "app", sql, &[], |row| {
        let forge = Forge {
            status: row.read("status", ForgeStatus::parse)?,
            resources: row.json("resources")?,
            error: row.text("error")?,
            started_at: row.maybe_time("started_at")?,
            finished_at: row.maybe_time("finished_at")?,
        };
        Ok((row.parse("app")?, forge))
    })?;
    Ok(forges.into_iter().collect())
}

fn runs(conn: &Connection) -> Result<Vec<Run>, Failure> {
    let sql = "SELECT * FROM norn_runs WHERE ended_at IS NULL ORDER BY started_at, rowid";
    rows(conn, "norn_runs", "id", sql, &[], |row| {
        Ok(Run {
            id: row.text("id")?,
            who: row.text("who")?,
            process: lease::process(row)?,
            reason: row.text("reason")?,
            token: row.count("token")?,
            started_at: row.parse("started_at")?,
            heartbeat_at: row.parse("heartbeat_at")?,
        })
    })
}

fn operations(conn: &Connection) -> Result<Vec<Journaled>, Failure> {
    let sql = "SELECT o.id, o.run, o.address, o.action, o.intent FROM norn_runs r \
               JOIN norn_operations o ON o.run = r.id AND o.ended_at IS NULL \
               WHERE r.ended_at IS NULL ORDER BY o.started_at, o.rowid";
    rows(conn, "norn_operations", "id", sql, &[], |row| {
        Ok(Journaled {
            id: row.text("id")?,
            run: row.text("run")?,
            address: row.parse("address")?,
            action: row.text("action")?,
            intent: row.json("intent")?,
        })
    })
}

fn pending(conn: &Connection) -> Result<Vec<PendingStep>, Failure> {
    let sql = "SELECT id, operation, step, key, detail FROM norn_steps WHERE ended_at IS NULL \
               ORDER BY started_at, rowid";
    rows(conn, "norn_steps", "id", sql, &[], |row| {
        Ok(PendingStep {
            id: row.text("id")?,
            operation: row.text("operation")?,
            step: row.text("step")?,
            key: row.text("key")?,
            detail: row.json("detail")?,
        })
    })
}

/// Every row of `sql`, read by `read`.
fn rows<T>(
    conn: &Connection,
    table: &'static str,
    key: &'static str,
    sql: &str,
    params: &[&dyn ToSql],
    read: impl Fn(Named<'_>) -> Result<T, Failure>,
) -> Result<Vec<T>, Failure> {
    let mut statement = conn.prepare_cached(sql)?;
    let mut rows = statement.query(params)?;
    let mut all = Vec::new();
    while let Some(row) = rows.next()? {
        all.push(read(Named { table, key, row })?);
    }
    Ok(all)
}
