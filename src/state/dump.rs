//! All that a store holds, the same whatever the database, and as a file.
//!
//! Here: the cells of rows, and writing the file. In `read`: a file of unknown origin, checked to
//! its last value. Elsewhere: which tables and columns there are (`seed`), reading and writing them
//! (the stores).
//! Invariants: two dumps of one state are the same bytes; a dump holds the store's key, so its file
//! is as secret as the values whose fingerprints the state has.

mod read;
#[cfg(test)]
mod tests;

use std::fmt;
use std::io::{self, Write};

use jiff::fmt::temporal::DateTimePrinter;
use jiff::{RoundMode, Timestamp, TimestampRound, Unit};
use serde_json::Value;

use super::Scope;
use super::schema::KNOWN;
use super::seed::{self, Column, Kind, Table};
use crate::secret::Secret;

pub use read::DumpError;

/// The version of the file's format.
pub const FORMAT: u32 = 1;
/// The largest file that is read, in bytes.
pub const MOST: u64 = 256 << 20;

/// All that a store holds.
#[derive(Debug, Clone, PartialEq)]
pub struct Dump {
    pub scope: Scope,
    /// The store's key: without it, the fingerprints in the records say nothing.
    pub key: Secret,
    /// The token of the newest lease, so that tokens go on growing elsewhere.
    pub token: u64,
    /// Every table of [`seed::all`], in that order.
    pub tables: Vec<Rows>,
    /// What the database has beside norn's columns, such as `deployments.capabilities`: it is no
    /// part of the dump.
    pub left_out: Vec<String>,
}

/// The rows of a table, in the table's order.
#[derive(Debug, Clone)]
pub struct Rows {
    pub table: &'static Table,
    /// One cell a column.
    pub rows: Vec<Vec<Cell>>,
}

impl PartialEq for Rows {
    fn eq(&self, other: &Self) -> bool {
        self.table.name == other.table.name && self.rows == other.rows
    }
}

/// The value of a column in a row.
#[derive(Debug, Clone, PartialEq)]
pub enum Cell {
    Null,
    Text(String),
    Integer(i64),
    Boolean(bool),
    /// JSON with sorted keys and no spaces.
    Json(String),
    /// Whole microseconds.
    Time(Timestamp),
}

impl Cell {
    /// What a database's text for a column means: a number in decimal, a boolean as `0` or `1`, a
    /// time in RFC 3339. Where a text or JSON must not be null, null is the empty text and `null`.
    ///
    /// # Errors
    /// A text that the column cannot hold.
    pub fn of(column: &Column, text: Option<String>) -> Result<Cell, String> {
        let Some(text) = text.filter(|text| column.kind != Kind::Time || !text.is_empty()) else {
            return match column.kind {
                _ if column.nullable => Ok(Cell::Null),
                Kind::Text => Ok(Cell::Text(String::new())),
                Kind::Json => Ok(Cell::Json("null".into())),
                Kind::Integer | Kind::Boolean | Kind::Time => Err("nothing".into()),
            };
        };
        let cell = match column.kind {
            Kind::Text => Some(Cell::Text(text.clone())),
            Kind::Integer => text.parse().ok().map(Cell::Integer),
            Kind::Boolean => match text.as_str() {
                "0" => Some(Cell::Boolean(false)),
                "1" => Some(Cell::Boolean(true)),
                _ => None,
            },
            Kind::Json => serde_json::from_str(&text).ok().map(Cell::json),
            Kind::Time => text.parse().ok().map(Cell::time),
        };
        cell.ok_or_else(|| format!("{:?}", text.chars().take(80).collect::<String>()))
    }

    fn json(mut value: Value) -> Cell {
        value.sort_all_objects();
        Cell::Json(value.to_string())
    }

    fn time(time: Timestamp) -> Cell {
        let whole = TimestampRound::new().smallest(Unit::Microsecond).mode(RoundMode::Trunc);
        Cell::Time(time.round(whole).expect("a microsecond divides every time"))
    }

    /// A text, and nothing of what is none.
    fn text(&self) -> &str {
        match self {
            Cell::Text(text) => text,
            Cell::Null | Cell::Integer(_) | Cell::Boolean(_) | Cell::Json(_) | Cell::Time(_) => "",
        }
    }
}

/// The value as JSON. A time is RFC 3339 in UTC with six digits of a second.
impl fmt::Display for Cell {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Cell::Null => f.write_str("null"),
            Cell::Text(text) => write!(f, "{}", Value::from(text.as_str())),
            Cell::Integer(number) => write!(f, "{number}"),
            Cell::Boolean(truth) => write!(f, "{truth}"),
            Cell::Json(text) => f.write_str(text),
            Cell::Time(time) => write!(f, "\"{}\"", written(*time)),
        }
    }
}

/// A time as stores and dumps write it: all of one width.
pub fn written(time: Timestamp) -> String {
    const PRINTER: DateTimePrinter = DateTimePrinter::new().precision(Some(6));
    PRINTER.timestamp_to_string(&time)
}

impl Dump {
    /// An empty store's, whose tables are there and without rows.
    pub fn empty(scope: Scope, key: Secret, token: u64) -> Self {
        let tables = seed::all().map(|table| Rows { table, rows: Vec::new() });
        Self { scope, key, token, tables: tables.collect(), left_out: Vec::new() }
    }

    /// Whether nothing was ever recorded.
    pub fn is_empty(&self) -> bool {
        self.tables.iter().all(|table| table.rows.is_empty())
    }

    /// Whether another store holds the same, but for how often it was locked since. Databases order
    /// rows of one moment each in their own way.
    pub fn same_as(&self, other: &Dump) -> bool {
        let keyed = |dump: &Dump| -> Vec<Vec<Vec<Cell>>> {
            let sorted = dump.tables.iter().map(|Rows { table, rows }| {
                let mut rows = rows.clone();
                let key = table.column(table.key).expect("the key is a column");
                rows.sort_by_key(|row| row[key].to_string());
                rows
            });
            sorted.collect()
        };
        self.scope == other.scope && self.key == other.key && keyed(self) == keyed(other)
    }

    /// How many rows a table has.
    pub fn count(&self, table: &str) -> usize {
        self.tables.iter().find(|rows| rows.table.name == table).map_or(0, |rows| rows.rows.len())
    }

    /// Writes the file: one JSON document with a row a line.
    pub fn write(&self, out: &mut dyn Write) -> io::Result<()> {
        let text = |text: &str| Value::from(text);
        let Scope { project, stage } = &self.scope;
        let stage = stage.as_ref().map_or(Value::Null, |stage| text(stage.as_str()));
        write!(out, "{{\"format\":{FORMAT},\"norn\":\"{}\",\"schema\":{KNOWN},", env!("CARGO_PKG_VERSION"))?;
        write!(out, "\"project\":{},\"stage\":{stage},", text(project.as_str()))?;
        write!(out, "\"key\":{},\"token\":{},\n\"tables\":{{", text(self.key.expose()), self.token)?;
        for (at, Rows { table, rows }) in self.tables.iter().enumerate() {
            write!(out, "{}\n\"{}\":[", if at == 0 { "" } else { "," }, table.name)?;
            for (at, row) in rows.iter().enumerate() {
                out.write_all(if at == 0 { b"\n{" } else { b",\n{" })?;
                for (at, (column, cell)) in table.columns.iter().zip(row).enumerate() {
                    write!(out, "{}\"{}\":{cell}", if at == 0 { "" } else { "," }, column.name)?;
                }
                out.write_all(b"}")?;
            }
            out.write_all(b"]")?;
        }
        out.write_all(b"\n}}\n")
    }

    /// The file's bytes.
    pub fn bytes(&self) -> Vec<u8> {
        let mut bytes = Vec::new();
        self.write(&mut bytes).expect("memory takes every byte");
        bytes
    }
}
