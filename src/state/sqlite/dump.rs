//! All of a store at once: out of it, into an empty one, and the mark of one that was left.

use rusqlite::types::ValueRef;
use rusqlite::{Connection, OptionalExtension, ToSql, params_from_iter};

use super::failure::Failure;
use super::{lease, open, schema};
use crate::state::dump::{Cell, Rows, written};
use crate::state::lock::Lease;
use crate::state::schema::{Found, Place, unknown};
use crate::state::seed::{self, Table};
use crate::state::{Dump, StoreError};

/// Reads all of it at one moment; `None` where nothing was ever written.
pub fn export(conn: &Connection, place: &Place) -> Result<Option<Dump>, Failure> {
    let _tx = conn.unchecked_transaction()?;
    let found = schema::inspect(conn, place)?;
    let rows = place.has_rows(found)?;
    if found == Found::Empty {
        return Ok(None);
    }
    let mut dump = Dump::empty(place.scope.clone(), schema::key(conn)?, lease::row(conn)?.token);
    if rows {
        for Rows { table, rows } in &mut dump.tables {
            *rows = read(conn, table)?;
        }
        dump.left_out = unknown(&schema::tables(conn)?);
    }
    Ok(Some(dump))
}

fn read(conn: &Connection, table: &Table) -> Result<Vec<Vec<Cell>>, Failure> {
    let order = table.by.map_or_else(|| table.key.to_owned(), |by| format!("{by}, rowid"));
    let sql = format!("SELECT {} FROM {} ORDER BY {order}", columns(table), table.name);
    let mut statement = conn.prepare(&sql)?;
    let mut rows = statement.query([])?;
    let mut all = Vec::new();
    while let Some(row) = rows.next()? {
        let cells = table.columns.iter().enumerate().map(|(at, column)| {
            let text = text(row.get_ref(at)?).ok_or_else(|| "something that is no text".to_owned());
            text.and_then(|text| Cell::of(column, text)).map_err(|value| {
                Failure::Data(format!("a row of {} has the {} {value}", table.name, column.name))
            })
        });
        all.push(cells.collect::<Result<_, _>>()?);
    }
    Ok(all)
}

/// A value as text; `None` where it is none.
fn text(value: ValueRef<'_>) -> Option<Option<String>> {
    match value {
        ValueRef::Null => Some(None),
        ValueRef::Integer(number) => Some(Some(number.to_string())),
        ValueRef::Text(text) => String::from_utf8(text.to_vec()).ok().map(Some),
        ValueRef::Real(_) | ValueRef::Blob(_) => None,
    }
}

/// Fills a store that holds nothing, and gives the lease back.
pub fn import(conn: &mut Connection, place: &Place, lease: &Lease, dump: &Dump) -> Result<(), Failure> {
    let tx = lease::begin(conn, lease)?;
    if dump.scope != place.scope {
        let (theirs, ours) = (dump.scope.to_string(), place.scope.to_string());
        return Err(StoreError::OtherScope { place: "the export".into(), theirs, ours }.into());
    }
    for table in seed::all() {
        let rows =
            tx.query_row(&format!("SELECT 1 FROM {} LIMIT 1", table.name), [], |_| Ok(())).optional()?;
        if rows.is_some() {
            return Err(StoreError::NotEmpty { place: place.name.clone(), table: table.name }.into());
        }
    }
    for Rows { table, rows } in &dump.tables {
        let values = vec!["?"; table.columns.len()].join(", ");
        let sql = format!("INSERT INTO {} ({}) VALUES ({values})", table.name, columns(table));
        let mut statement = tx.prepare(&sql)?;
        for row in rows {
            statement.execute(params_from_iter(row.iter().map(value)))?;
        }
    }
    tx.execute("UPDATE norn_meta SET value = ?1 WHERE key = 'key'", [dump.key.expose()])?;
    let token = i64::try_from(dump.token).map_err(|_| Failure::Data("the token is too large".into()))?;
    tx.execute("UPDATE norn_locks SET run = NULL, token = max(token, ?1) WHERE id = 1", [token])?;
    Ok(tx.commit()?)
}

fn value(cell: &Cell) -> Box<dyn ToSql> {
    match cell {
        Cell::Null => Box::new(rusqlite::types::Null),
        Cell::Text(text) | Cell::Json(text) => Box::new(text.clone()),
        Cell::Integer(number) => Box::new(*number),
        Cell::Boolean(truth) => Box::new(*truth),
        Cell::Time(time) => Box::new(written(*time)),
    }
}

/// Says where the store went; the lease is given back.
pub fn mark_moved(conn: &mut Connection, lease: &Lease, to: &str) -> Result<(), Failure> {
    let tx = lease::begin(conn, lease)?;
    tx.execute("INSERT INTO norn_meta (key, value) VALUES ('moved', ?1)", [to])?;
    lease::free(&tx, lease.token)?;
    Ok(tx.commit()?)
}

/// Where the store in a file went; `None` where it is no store, or stayed.
pub fn moved(path: &std::path::Path) -> Option<String> {
    let sql = "SELECT value FROM norn_meta WHERE key = 'moved'";
    open::read(path, |conn| Ok(conn.query_row(sql, [], |row| row.get(0))?)).ok().flatten()
}

fn columns(table: &Table) -> String {
    table.columns.iter().map(|column| column.name).collect::<Vec<_>>().join(", ")
}
