//! What a database file holds, and bringing it to this norn's schema.

use rusqlite::{Connection, TransactionBehavior};

use super::failure::Failure;
use super::lease;
use crate::secret::Secret;
use crate::state::lock::Lease;
use crate::state::schema::{Found, KNOWN, Meta, Place, Tables, has_meta};

/// The migrations in order; the schema's number is how many of them ran. A published one never
/// changes.
const MIGRATIONS: [&str; KNOWN as usize] = [
    include_str!("../migrations/sqlite/0001-meta.sql"),
    include_str!("../migrations/sqlite/0002-tables.sql"),
    include_str!("../migrations/sqlite/0003-plans.sql"),
    include_str!("../migrations/sqlite/0004-artifacts.sql"),
];

/// Looks at a database.
///
/// # Errors
/// `Foreign`, `Newer` and `OtherScope`, where it is not for this store to touch.
pub fn inspect(conn: &Connection, place: &Place) -> Result<Found, Failure> {
    let tables = tables(conn)?;
    let meta = if has_meta(&tables) { meta(conn)? } else { Meta::new() };
    Ok(place.judge(&tables, &meta)?)
}

/// Makes the first tables in an empty database or beside v1's, with a new key.
pub fn found(conn: &mut Connection, place: &Place) -> Result<(), Failure> {
    let tx = conn.transaction_with_behavior(TransactionBehavior::Immediate)?;
    if inspect(&tx, place)?.is_founded() {
        return Ok(());
    }
    tx.execute_batch(MIGRATIONS[0])?;
    for (name, value) in place.new_meta()? {
        tx.execute("INSERT INTO norn_meta (key, value) VALUES (?1, ?2)", (name, value.expose()))?;
    }
    Ok(tx.commit()?)
}

/// Runs the migrations after the first, all in one transaction that proves the lease: killed in
/// between, a new store would be one of an older norn.
pub fn upgrade(conn: &mut Connection, place: &Place, lease: &Lease) -> Result<(), Failure> {
    let tx = conn.transaction_with_behavior(TransactionBehavior::Immediate)?;
    lease::row(&tx)?.prove(lease)?;
    let schema = place.schema(&meta(&tx)?)?;
    for migration in &MIGRATIONS[schema as usize..] {
        tx.execute_batch(migration)?;
    }
    tx.execute("UPDATE norn_meta SET value = ?1 WHERE key = 'schema'", [KNOWN.to_string()])?;
    Ok(tx.commit()?)
}

pub fn key(conn: &Connection) -> Result<Secret, Failure> {
    let key =
        conn.query_row("SELECT value FROM norn_meta WHERE key = 'key'", [], |row| row.get::<_, String>(0))?;
    Ok(Secret::new(key))
}

fn meta(conn: &Connection) -> Result<Meta, Failure> {
    let mut statement = conn.prepare("SELECT key, value FROM norn_meta WHERE key <> 'key'")?;
    let meta = statement.query_map([], |row| Ok((row.get(0)?, row.get(1)?)))?;
    Ok(meta.collect::<Result<Meta, _>>()?)
}

/// The tables of the database with their columns.
pub fn tables(conn: &Connection) -> Result<Tables, Failure> {
    let mut tables = Tables::new();
    let mut statement = conn.prepare(
        "SELECT t.name, c.name FROM sqlite_schema t JOIN pragma_table_info(t.name) c \
         WHERE t.type = 'table' AND t.name NOT LIKE 'sqlite_%' ORDER BY t.name, c.cid",
    )?;
    let mut rows = statement.query([])?;
    while let Some(row) = rows.next()? {
        tables.entry(row.get(0)?).or_default().push(row.get(1)?);
    }
    Ok(tables)
}
