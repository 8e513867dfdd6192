//! What a database file holds, and bringing it to this norn's schema.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::fs::File;
use std::io::{self, Read};

use rusqlite::{Connection, TransactionBehavior};

use super::failure::Failure;
use super::lease;
use super::place::Place;
use crate::secret::Secret;
use crate::state::lock::Lease;
use crate::state::{StoreError, seed};

/// The migrations in order; the schema's number is how many of them ran. A published one never
/// changes.
const MIGRATIONS: [&str; 2] = [
    include_str!("../migrations/sqlite/0001-meta.sql"),
    include_str!("../migrations/sqlite/0002-tables.sql"),
];

/// The schema that this norn writes.
pub const KNOWN: u32 = MIGRATIONS.len() as u32;

/// What a database is to norn.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Found {
    /// Nothing was ever written.
    Empty,
    /// Tables that v1 made, complete.
    V1,
    /// Only the first migration ran, on an empty database: there is a key and a lease.
    Founded,
    /// A schema before this norn's.
    Older(u32),
    Current,
}

/// Looks at a database.
///
/// # Errors
/// `Foreign`, `Newer` and `OtherScope`, where it is not for this store to touch.
pub fn inspect(conn: &Connection, place: &Place) -> Result<Found, Failure> {
    let names =
        column(conn, "SELECT name FROM sqlite_schema WHERE type = 'table' AND name NOT LIKE 'sqlite_%'")?;
    let published: Vec<&seed::Table> =
        seed::TABLES.iter().filter(|table| names.iter().any(|name| name == table.name)).collect();
    if names.iter().any(|name| name == "norn_meta") {
        let schema = read_meta(conn, place)?;
        return Ok(match schema {
            KNOWN => Found::Current,
            1 if published.is_empty() => Found::Founded,
            older => Found::Older(older),
        });
    }
    for table in &published {
        let columns = columns_of(conn, table.name)?;
        if let Some(lacking) = table.columns.iter().find(|column| !columns.iter().any(|c| c == column.name)) {
            let why = format!("its table {} lacks the column {}", table.name, lacking.name);
            return Err(place.foreign(why).into());
        }
    }
    match (names.as_slice(), published.is_empty()) {
        ([], _) => Ok(Found::Empty),
        (_, false) => Ok(Found::V1),
        ([first, ..], true) => {
            Err(place.foreign(format!("it is a database of something else, with a table {first}")).into())
        }
    }
}

/// Makes the first tables in an empty database or beside v1's, with a new key.
pub fn found(conn: &mut Connection, place: &Place) -> Result<(), Failure> {
    let tx = conn.transaction_with_behavior(TransactionBehavior::Immediate)?;
    match inspect(&tx, place)? {
        Found::Empty | Found::V1 => {}
        Found::Founded | Found::Older(_) | Found::Current => return Ok(()),
    }
    tx.execute_batch(MIGRATIONS[0])?;
    let stage = place.scope.stage.as_ref().map_or("", |stage| stage.as_str());
    let key = random_key()?;
    for (name, value) in
        [("schema", "1"), ("project", place.scope.project.as_str()), ("stage", stage), ("key", key.expose())]
    {
        tx.execute("INSERT INTO norn_meta (key, value) VALUES (?1, ?2)", (name, value))?;
    }
    Ok(tx.commit()?)
}

/// Runs the migrations after the first, each in a transaction that proves the lease.
pub fn upgrade(conn: &mut Connection, place: &Place, lease: &Lease) -> Result<(), Failure> {
    loop {
        let tx = conn.transaction_with_behavior(TransactionBehavior::Immediate)?;
        lease::row(&tx)?.prove(lease)?;
        let schema = read_meta(&tx, place)?;
        let Some(migration) = MIGRATIONS.get(schema as usize) else { return Ok(()) };
        tx.execute_batch(migration)?;
        tx.execute("UPDATE norn_meta SET value = ?1 WHERE key = 'schema'", [(schema + 1).to_string()])?;
        tx.commit()?;
    }
}

pub fn key(conn: &Connection) -> Result<Secret, Failure> {
    let key =
        conn.query_row("SELECT value FROM norn_meta WHERE key = 'key'", [], |row| row.get::<_, String>(0))?;
    Ok(Secret::new(key))
}

/// The schema's number, once the store is known to be this scope's and of no newer norn.
fn read_meta(conn: &Connection, place: &Place) -> Result<u32, Failure> {
    let columns = columns_of(conn, "norn_meta")?;
    if columns != ["key", "value"] {
        return Err(place.foreign("its norn_meta is not norn's".into()).into());
    }
    let mut statement = conn.prepare("SELECT key, value FROM norn_meta WHERE key <> 'key'")?;
    let meta = statement
        .query_map([], |row| Ok((row.get(0)?, row.get(1)?)))?
        .collect::<Result<BTreeMap<String, String>, _>>()?;
    let meta = |name: &str| meta.get(name).map_or("", |value| value.as_str());
    let found: u32 = match meta("schema").parse() {
        Ok(found) if found > 0 => found,
        _ => return Err(place.foreign(format!("its schema is {:?}", meta("schema"))).into()),
    };
    if found > KNOWN {
        return Err(StoreError::Newer { place: place.name.clone(), found, known: KNOWN }.into());
    }
    let (project, stage) = (meta("project"), meta("stage"));
    let ours = (place.scope.project.as_str(), place.scope.stage.as_ref().map_or("", |stage| stage.as_str()));
    if (project, stage) != ours {
        let theirs = match stage {
            "" => format!("project {project} without a stage"),
            stage => format!("project {project}, stage {stage}"),
        };
        let ours = place.scope.to_string();
        return Err(StoreError::OtherScope { place: place.name.clone(), theirs, ours }.into());
    }
    match meta("moved") {
        "" => Ok(found),
        to => Err(StoreError::Moved { place: place.name.clone(), to: to.into() }.into()),
    }
}

/// The tables and columns of others, such as v1's, as `table` and `table.column`.
pub fn unknown(conn: &Connection) -> Result<Vec<String>, Failure> {
    let names = column(
        conn,
        "SELECT name FROM sqlite_schema WHERE type = 'table' AND name NOT LIKE 'sqlite_%' \
         AND name NOT IN ('norn_meta', 'norn_locks') ORDER BY name",
    )?;
    let mut unknown = Vec::new();
    for name in names {
        let Some(table) = seed::all().find(|table| table.name == name) else {
            unknown.push(name);
            continue;
        };
        let more = columns_of(conn, &name)?.into_iter().filter(|column| table.column(column).is_none());
        unknown.extend(more.map(|column| format!("{name}.{column}")));
    }
    Ok(unknown)
}

fn columns_of(conn: &Connection, table: &str) -> Result<Vec<String>, Failure> {
    let mut statement = conn.prepare("SELECT name FROM pragma_table_info(?1)")?;
    Ok(statement.query_map([table], |row| row.get(0))?.collect::<Result<_, _>>()?)
}

fn column(conn: &Connection, sql: &str) -> Result<Vec<String>, Failure> {
    Ok(conn.prepare(sql)?.query_map([], |row| row.get(0))?.collect::<Result<_, _>>()?)
}

/// 32 bytes from the operating system, as 64 hex digits.
fn random_key() -> io::Result<Secret> {
    let mut bytes = [0; 32];
    File::open("/dev/urandom")?.read_exact(&mut bytes)?;
    let mut hex = String::with_capacity(64);
    for byte in bytes {
        write!(hex, "{byte:02x}").expect("a string takes every text");
    }
    Ok(Secret::new(hex))
}
