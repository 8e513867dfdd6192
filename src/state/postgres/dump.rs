//! All of a store at once: out of it, into an empty one, and the mark of one that was left.

use tokio_postgres::Row;

use super::failure::Failure;
use super::lease::{self, TIME};
use super::schema;
use super::session::{READ, Statement, Turn};
use super::snapshot::BEGIN;
use crate::state::dump::{Cell, Rows};
use crate::state::lock::Lease;
use crate::state::row::Cells;
use crate::state::schema::{Found, Place, unknown};
use crate::state::seed::{self, Column, Kind, Table};
use crate::state::{Dump, StoreError};

/// How many rows are written with one statement.
const AT_ONCE: usize = 1000;

/// Reads all of it at one moment; `None` where nothing was ever written.
pub async fn export(turn: &Turn<'_>, place: &Place) -> Result<Option<Dump>, Failure> {
    let found = schema::inspect(turn, place).await?;
    let there = place.has_rows(found)?;
    if found == Found::Empty {
        return Ok(None);
    }
    let tables: Vec<&'static Table> = if there { seed::all().collect() } else { Vec::new() };
    let mut all = vec![Statement::plain(BEGIN), Statement::plain(schema::KEY), Statement::plain(lease::ROW)];
    all.extend(tables.iter().map(|table| Statement::new(reading(table), [])));
    all.push(Statement::plain("COMMIT"));
    let mut replies = turn.all(&all, READ).await?.into_iter();
    let mut next = || replies.next().expect("each statement has a reply");
    next()?;
    let key = schema::key(&next()?)?;
    let token = lease::read(&next()?)?.token;
    let mut dump = Dump::empty(place.scope.clone(), key, token);
    for Rows { table, rows } in dump.tables.iter_mut().filter(|_| there) {
        *rows = next()?.iter().map(|row| cells(table, row)).collect::<Result<_, _>>()?;
    }
    if there {
        dump.left_out = unknown(&schema::all_tables(turn, place).await?);
    }
    Ok(Some(dump))
}

fn reading(table: &Table) -> String {
    let columns = table.columns.iter().map(|Column { name, kind, .. }| match kind {
        Kind::Time => format!("{} AS {name}", TIME.replace("COLUMN", name)),
        Kind::Boolean => format!("{name}::int::text AS {name}"),
        Kind::Text | Kind::Integer | Kind::Json => format!("{name}::text AS {name}"),
    });
    let columns = columns.collect::<Vec<_>>().join(", ");
    // A column that is named in the order would else be the text of before.
    let order = table.by.map(|by| format!("{}.{by}, ", table.name)).unwrap_or_default();
    format!("SELECT {columns} FROM @{} ORDER BY {order}{} COLLATE \"C\"", table.name, key_of(table))
}

/// The key in the order of its bytes, as every store orders it; a number in its own.
fn key_of(table: &Table) -> String {
    match table.columns[0].kind {
        Kind::Integer => format!("lpad({}.{}::text, 20, '0')", table.name, table.key),
        _ => format!("{}.{}::text", table.name, table.key),
    }
}

fn cells(table: &Table, row: &Row) -> Result<Vec<Cell>, Failure> {
    let cells = table.columns.iter().map(|column| {
        let text = row.cell(column.name).map_err(Failure::Data)?;
        Cell::of(column, text).map_err(|value| {
            Failure::Data(format!("a row of {} has the {} {value}", table.name, column.name))
        })
    });
    cells.collect()
}

/// Fills a store that holds nothing, and gives the lease back.
pub async fn import(turn: &Turn<'_>, place: &Place, lease: &Lease, dump: &Dump) -> Result<(), Failure> {
    if dump.scope != place.scope {
        let (theirs, ours) = (dump.scope.to_string(), place.scope.to_string());
        return Err(StoreError::OtherScope { place: "the export".into(), theirs, ours }.into());
    }
    turn.begin(lease).await?;
    for table in seed::all() {
        let some = Statement::new(format!("SELECT 1::text FROM @{} LIMIT 1", table.name), []);
        if !turn.rows(some).await?.is_empty() {
            return Err(StoreError::NotEmpty { place: place.name.clone(), table: table.name }.into());
        }
    }
    for Rows { table, rows } in &dump.tables {
        let columns = table.columns.iter().map(|column| column.name).collect::<Vec<_>>().join(", ");
        let name = table.name;
        let sql = format!(
            "INSERT INTO @{name} ({columns}) SELECT {columns} FROM jsonb_populate_recordset(NULL::@{name}, $1)"
        );
        for rows in rows.chunks(AT_ONCE) {
            let rows: Vec<String> = rows.iter().map(|row| object(table, row)).collect();
            turn.rows(Statement::new(sql.clone(), [Some(format!("[{}]", rows.join(",")))])).await?;
        }
        if table.columns[0].kind == Kind::Integer {
            // The numbers of new rows go on behind those.
            let sql = format!(
                "SELECT setval(pg_get_serial_sequence('@{name}', '{key}'), max({key}))::text FROM @{name} \
                 HAVING max({key}) IS NOT NULL",
                key = table.key
            );
            turn.rows(Statement::new(sql, [])).await?;
        }
    }
    let key = [Some(dump.key.expose().to_owned())];
    turn.rows(Statement::new("UPDATE @norn_meta SET value = $1 WHERE key = 'key'", key)).await?;
    let token = [Some(dump.token.to_string())];
    let sql = "UPDATE @norn_locks SET run = NULL, token = greatest(token, $1) WHERE id = 1";
    turn.rows(Statement::new(sql, token)).await?;
    turn.script("COMMIT").await
}

/// A row as a JSON object.
fn object(table: &Table, row: &[Cell]) -> String {
    let fields = table.columns.iter().zip(row).map(|(column, cell)| format!("\"{}\":{cell}", column.name));
    format!("{{{}}}", fields.collect::<Vec<_>>().join(","))
}

/// Says where the store went; the lease is given back.
pub async fn mark_moved(turn: &Turn<'_>, lease: &Lease, to: &str) -> Result<(), Failure> {
    turn.begin(lease).await?;
    let sql = "INSERT INTO @norn_meta (key, value) VALUES ('moved', $1)";
    turn.rows(Statement::new(sql, [Some(to.to_owned())])).await?;
    lease::free(turn, lease.token).await?;
    turn.script("COMMIT").await
}
