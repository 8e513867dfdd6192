//! Reading a dump's file, whoever wrote it: every value is checked before anything uses it.
//!
//! Invariants: memory grows with the file's size, which is bounded, and not with what it says; a
//! dump that is read can be written to a store, and what is written there can be read.

use std::collections::HashSet;
use std::fmt;
use std::io::Read;

use serde::de::{self, DeserializeSeed, Deserializer, MapAccess, SeqAccess, Visitor};
use serde_json::{Map, Value};

use super::{Cell, Dump, FORMAT, MOST, Rows};
use crate::address::Address;
use crate::secret::Secret;
use crate::spec::name::AppName;
use crate::state::format::digest;
use crate::state::schema::KNOWN;
use crate::state::seed::{self, Column, Kind, Table};
use crate::state::{ArtifactKind, DeploymentStatus, ForgeStatus, Scope, StepLog};

/// The most values that one JSON column of a row may have: far beyond what norn writes.
const MOST_PARTS: usize = 1 << 20;
/// The largest token: a store counts on from it.
const MOST_TOKEN: u64 = 1 << 53;

/// Why a file is no dump of a state.
#[derive(Debug, thiserror::Error)]
pub enum DumpError {
    #[error("it is larger than {} MiB, the most that is read; `norn state migrate` has no such bound", MOST >> 20)]
    TooLarge,
    #[error("{0}")]
    Unreadable(serde_json::Error),
    #[error("it ends too early, as a file that was cut off does")]
    CutOff,
    #[error("row {} of {table} cannot be: {why}", at + 1)]
    Row { table: &'static str, at: usize, why: String },
}

impl Dump {
    /// Reads a file to its end, but for the processes that it says are left.
    ///
    /// # Errors
    /// What is wrong, with its line and column or its row.
    pub fn read(file: impl Read) -> Result<Self, DumpError> {
        let mut bytes = Vec::new();
        file.take(MOST + 1)
            .read_to_end(&mut bytes)
            .map_err(|error| DumpError::Unreadable(serde_json::Error::io(error)))?;
        if bytes.len() as u64 > MOST {
            return Err(DumpError::TooLarge);
        }
        let mut json = serde_json::Deserializer::from_slice(&bytes);
        let dump = json.deserialize_map(File).and_then(|dump| json.end().map(|()| dump));
        let mut dump = dump
            .map_err(|error| if error.is_eof() { DumpError::CutOff } else { DumpError::Unreadable(error) })?;
        drop(bytes);
        check(&dump)?;
        forget_children(&mut dump);
        Ok(dump)
    }
}

/// What is live can be gone back to, as in a store that is brought to this norn's schema.
fn keep_what_is_live(dump: &mut Dump, schema: u32) {
    let of = |name: &str| dump.tables.iter().find(|rows| rows.table.name == name);
    let Some(Rows { table, rows }) = of("norn_resources") else { return };
    let at = |name: &str| table.column(name).expect("it is a column");
    let mut ids = HashSet::new();
    let kept = rows.iter().filter_map(|row| {
        let app = row[at("address")].text().strip_prefix("deploy/")?;
        let Cell::Json(body) = &row[at("body")] else { return None };
        let body: Value = serde_json::from_str(body).ok()?;
        let said = |name: &str| body[name].as_str().filter(|text| !text.is_empty()).map(str::to_owned);
        let (id, name) = (said("deployment")?, said("tag")?);
        let text = |text: &str| Cell::Text(text.to_owned());
        let kind = text(ArtifactKind::Release.as_str());
        let (body, since) = (row[at("body")].clone(), row[at("updated_at")].clone());
        ids.insert(id.clone()).then(|| vec![text(&id), text(app), kind, text(&name), body, Cell::Null, since])
    });
    let kept: Vec<Vec<Cell>> = kept.collect();
    let artifacts = dump.tables.iter_mut().find(|rows| rows.table.name == "norn_artifacts");
    if let Some(artifacts) = artifacts.filter(|rows| rows.table.since() > schema) {
        artifacts.rows = kept;
    }
}

/// Takes out which processes the steps left: recovery ends those, and a file could name any.
fn forget_children(dump: &mut Dump) {
    for Rows { table, rows } in dump.tables.iter_mut().filter(|rows| rows.table.name == "norn_steps") {
        let detail = table.column("detail").expect("a step has a detail");
        for row in rows {
            let Cell::Json(text) = &row[detail] else { continue };
            let mut value: Value = serde_json::from_str(text).expect("it was JSON when it was read");
            if let Some(known) = value.as_object_mut()
                && known.remove("child").is_some()
            {
                row[detail] = Cell::json(value);
            }
        }
    }
}

/// What a single row cannot show.
fn check(dump: &Dump) -> Result<(), DumpError> {
    let mut before: Vec<(&str, HashSet<String>)> = Vec::new();
    for Rows { table, rows } in &dump.tables {
        let cell = |row: &'_ [Cell], name: &str| table.column(name).map(|at| row[at].clone());
        let key = table.column(table.key).expect("a table has its key");
        let mut keys = HashSet::with_capacity(rows.len());
        for (at, row) in rows.iter().enumerate() {
            let wrong = |why: String| DumpError::Row { table: table.name, at, why };
            if !keys.insert(row[key].to_string()) {
                return Err(wrong(format!("another has the {} {}", table.key, row[key])));
            }
            for (column, of) in [("run", "norn_runs"), ("operation", "norn_operations")] {
                let Some(reference) = cell(row, column) else { continue };
                let known = before.iter().find(|(name, _)| *name == of).expect("tables come in order");
                if !known.1.contains(&reference.to_string()) {
                    return Err(wrong(format!("there is no {column} {reference} in {of}")));
                }
            }
            readable(table, row).map_err(wrong)?;
        }
        before.push((table.name, keys));
    }
    Ok(())
}

/// Whether a store that holds the row could read it.
fn readable(table: &Table, row: &[Cell]) -> Result<(), String> {
    let at = |name: &str| &row[table.column(name).expect("the table has it")];
    let steps = || match at("steps") {
        Cell::Json(text) => serde_json::from_str::<Option<Vec<StepLog>>>(text)
            .map(drop)
            .map_err(|error| format!("its steps are no step logs: {error}")),
        _ => Ok(()),
    };
    let app = || at("app").text().parse::<AppName>().map(drop).map_err(|error| format!("its app: {error}"));
    let address =
        || at("address").text().parse::<Address>().map(drop).map_err(|error| format!("its address: {error}"));
    let status = |known: bool| if known { Ok(()) } else { Err(format!("its status is {}", at("status"))) };
    match table.name {
        "deployments" => {
            app()?;
            status(DeploymentStatus::parse(at("status").text()).is_some())?;
            steps()
        }
        "forge_states" => {
            app()?;
            status(ForgeStatus::parse(at("status").text()).is_some())?;
            steps()
        }
        "norn_runs" => ["pid", "start_time", "token"].into_iter().try_for_each(|name| match at(name) {
            Cell::Integer(0..) if name != "pid" => Ok(()),
            Cell::Integer(pid) if u32::try_from(*pid).is_ok() => Ok(()),
            other => Err(format!("its {name} is {other}")),
        }),
        "norn_operations" => address(),
        "norn_artifacts" => {
            app()?;
            match ArtifactKind::parse(at("kind").text()) {
                Some(_) => Ok(()),
                None => Err(format!("its kind is {}", at("kind"))),
            }
        }
        "norn_resources" => {
            address()?;
            let Cell::Json(body) = at("body") else { return Ok(()) };
            let body: Value = serde_json::from_str(body).expect("it was JSON when it was read");
            if digest(&body) == at("digest").text() {
                Ok(())
            } else {
                Err("its digest is not that of its body".into())
            }
        }
        _ => Ok(()),
    }
}

/// The whole file.
struct File;

/// The file's parts but for the tables.
#[derive(Default)]
struct Head {
    format: Option<u32>,
    norn: Option<String>,
    schema: Option<u32>,
    project: Option<String>,
    stage: Option<Option<String>>,
    key: Option<String>,
    token: Option<u64>,
}

impl<'de> Visitor<'de> for File {
    type Value = Dump;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a state that `norn state export` wrote")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Dump, A::Error> {
        let mut head = Head::default();
        let mut tables = None;
        while let Some(name) = map.next_key::<String>()? {
            match name.as_str() {
                "format" => newer::<A::Error>("format", once(&mut head.format, &mut map, &name)?, FORMAT)?,
                "schema" => newer::<A::Error>("schema", once(&mut head.schema, &mut map, &name)?, KNOWN)?,
                "norn" => drop(once(&mut head.norn, &mut map, &name)?),
                "project" => drop(once(&mut head.project, &mut map, &name)?),
                "stage" => drop(once(&mut head.stage, &mut map, &name)?),
                "key" => drop(once(&mut head.key, &mut map, &name)?),
                "token" => drop(once(&mut head.token, &mut map, &name)?),
                "tables" if tables.is_none() => tables = Some(map.next_value_seed(Tables)?),
                "tables" => return Err(de::Error::custom("`tables` stands there twice")),
                _ => return Err(unknown("the file", &name)),
            }
        }
        let lacking =
            |name: &str| de::Error::custom(format!("it has no `{name}`, so it is no export of a state"));
        head.format.ok_or_else(|| lacking("format"))?;
        let schema = head.schema.ok_or_else(|| lacking("schema"))?;
        let project = head.project.ok_or_else(|| lacking("project"))?;
        let stage = head.stage.ok_or_else(|| lacking("stage"))?;
        let key = head.key.ok_or_else(|| lacking("key"))?;
        let token = head.token.ok_or_else(|| lacking("token"))?;
        let read: Vec<Option<Vec<Row>>> = tables.ok_or_else(|| lacking("tables"))?;
        let project = project.parse().map_err(|error| de::Error::custom(format!("`project`: {error}")))?;
        let stage = stage.map(|name| name.parse()).transpose();
        let stage = stage.map_err(|error| de::Error::custom(format!("`stage`: {error}")))?;
        if key.len() != 64 || !key.bytes().all(|byte| byte.is_ascii_hexdigit()) {
            return Err(de::Error::custom("`key` is not 64 hex digits"));
        }
        if token > MOST_TOKEN {
            return Err(de::Error::custom("`token` is larger than any that norn gives"));
        }
        let mut dump = Dump::empty(Scope { project, stage }, Secret::new(key), token);
        for (into, read) in dump.tables.iter_mut().zip(read) {
            let table = into.table;
            let rows = match read {
                // Its norn did not know it yet.
                None if table.since() > schema => Vec::new(),
                read => read.ok_or_else(|| de::Error::custom(format!("`tables` has no {}", table.name)))?,
            };
            let rows = rows.into_iter().enumerate().map(|(at, row)| {
                whole(table, row, schema).map_err(|name| {
                    de::Error::custom(format!("row {} of {} has no `{name}`", at + 1, table.name))
                })
            });
            into.rows = rows.collect::<Result<_, A::Error>>()?;
        }
        keep_what_is_live(&mut dump, schema);
        Ok(dump)
    }
}

/// A key's value, which must not have come before.
fn once<'de, A: MapAccess<'de>, T: de::Deserialize<'de> + Clone>(
    into: &mut Option<T>,
    map: &mut A,
    name: &str,
) -> Result<T, A::Error> {
    if into.is_some() {
        return Err(de::Error::custom(format!("`{name}` stands there twice")));
    }
    let value: T = map.next_value()?;
    *into = Some(value.clone());
    Ok(value)
}

fn newer<E: de::Error>(what: &str, found: u32, known: u32) -> Result<(), E> {
    match found {
        0 => Err(E::custom(format!("there is no {what} 0"))),
        _ if found <= known => Ok(()),
        _ => Err(E::custom(format!(
            "a newer norn wrote it ({what} {found}, this one knows {known}): import it with that one"
        ))),
    }
}

fn unknown<E: de::Error>(place: &str, name: &str) -> E {
    let name: String = name.chars().take(80).collect();
    E::custom(format!("{place} has `{name}`, which this norn does not know"))
}

/// A row as it was read: a column may be missing.
type Row = Vec<Option<Cell>>;

/// A row with what its norn could not know yet.
fn whole(table: &'static Table, row: Row, schema: u32) -> Result<Vec<Cell>, &'static str> {
    let cells = table.columns.iter().zip(row).map(|(column, cell)| match (cell, column.kind) {
        (Some(cell), _) => Ok(cell),
        (None, _) if column.since <= schema => Err(column.name),
        (None, _) if column.nullable => Ok(Cell::Null),
        (None, Kind::Text) => Ok(Cell::Text(String::new())),
        (None, Kind::Integer) => Ok(Cell::Integer(0)),
        (None, Kind::Boolean) => Ok(Cell::Boolean(false)),
        (None, Kind::Json) => Ok(Cell::Json("{}".into())),
        (None, Kind::Time) => Err(column.name),
    });
    cells.collect()
}

/// The rows of every table that is there, in the order of [`seed::all`].
struct Tables;

impl<'de> DeserializeSeed<'de> for Tables {
    type Value = Vec<Option<Vec<Row>>>;

    fn deserialize<D: Deserializer<'de>>(self, from: D) -> Result<Self::Value, D::Error> {
        from.deserialize_map(self)
    }
}

impl<'de> Visitor<'de> for Tables {
    type Value = Vec<Option<Vec<Row>>>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the tables of a state")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
        let mut read: Self::Value = seed::all().map(|_| None).collect();
        while let Some(name) = map.next_key::<String>()? {
            let (at, table) = seed::all()
                .enumerate()
                .find(|(_, table)| table.name == name)
                .ok_or_else(|| unknown("`tables`", &name))?;
            if read[at].is_some() {
                return Err(de::Error::custom(format!("the table {name} stands there twice")));
            }
            read[at] = Some(map.next_value_seed(OfTable(table))?);
        }
        Ok(read)
    }
}

struct OfTable(&'static Table);

impl<'de> DeserializeSeed<'de> for OfTable {
    type Value = Vec<Row>;

    fn deserialize<D: Deserializer<'de>>(self, from: D) -> Result<Vec<Row>, D::Error> {
        from.deserialize_seq(self)
    }
}

impl<'de> Visitor<'de> for OfTable {
    type Value = Vec<Row>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "the rows of {}", self.0.name)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Vec<Row>, A::Error> {
        let mut rows = Vec::new();
        while let Some(row) = seq.next_element_seed(OfRow(self.0))? {
            rows.push(row);
        }
        Ok(rows)
    }
}

struct OfRow(&'static Table);

impl<'de> DeserializeSeed<'de> for OfRow {
    type Value = Row;

    fn deserialize<D: Deserializer<'de>>(self, from: D) -> Result<Row, D::Error> {
        from.deserialize_map(self)
    }
}

impl<'de> Visitor<'de> for OfRow {
    type Value = Row;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "a row of {}", self.0.name)
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Row, A::Error> {
        let table = self.0;
        let mut row: Row = table.columns.iter().map(|_| None).collect();
        while let Some(name) = map.next_key::<String>()? {
            let at =
                table.column(&name).ok_or_else(|| unknown(&format!("a row of {}", table.name), &name))?;
            if row[at].is_some() {
                return Err(de::Error::custom(format!("a row of {} has `{name}` twice", table.name)));
            }
            let column = &table.columns[at];
            let mut parts = MOST_PARTS;
            let value = map.next_value_seed(Strict(&mut parts))?;
            let cell = cell(column, value).ok_or_else(|| {
                de::Error::custom(format!("`{name}` of {} must be {}", table.name, wanted(column)))
            })?;
            row[at] = Some(cell);
        }
        Ok(row)
    }
}

fn cell(column: &Column, value: Value) -> Option<Cell> {
    match (column.kind, value) {
        (Kind::Json, value) => Some(Cell::json(value)),
        (_, Value::Null) => column.nullable.then_some(Cell::Null),
        (Kind::Text, Value::String(text)) => Some(Cell::Text(text)),
        (Kind::Integer, Value::Number(number)) => number.as_i64().map(Cell::Integer),
        (Kind::Boolean, Value::Bool(truth)) => Some(Cell::Boolean(truth)),
        (Kind::Time, Value::String(text)) => text.parse().ok().map(Cell::time),
        (Kind::Text | Kind::Integer | Kind::Boolean | Kind::Time, _) => None,
    }
}

fn wanted(column: &Column) -> String {
    let kind = match column.kind {
        Kind::Text => "a text",
        Kind::Integer => "a whole number",
        Kind::Boolean => "true or false",
        Kind::Json => "JSON",
        Kind::Time => "a time such as 2026-01-31T12:00:00.000000Z",
    };
    if column.nullable { format!("{kind}, or null") } else { kind.into() }
}

/// A JSON value of bounded size, without a key that stands there twice.
struct Strict<'a>(&'a mut usize);

impl Strict<'_> {
    fn part<E: de::Error>(&mut self) -> Result<(), E> {
        *self.0 = self.0.checked_sub(1).ok_or_else(|| {
            E::custom(format!("a value has more than {MOST_PARTS} parts, which is more than norn writes"))
        })?;
        Ok(())
    }
}

impl<'de> DeserializeSeed<'de> for Strict<'_> {
    type Value = Value;

    fn deserialize<D: Deserializer<'de>>(mut self, from: D) -> Result<Value, D::Error> {
        self.part()?;
        from.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Strict<'_> {
    type Value = Value;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a JSON value")
    }

    fn visit_unit<E>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }

    fn visit_bool<E>(self, value: bool) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_i64<E>(self, value: i64) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_u64<E>(self, value: u64) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_f64<E>(self, value: f64) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_str<E: de::Error>(self, value: &str) -> Result<Value, E> {
        if value.contains('\0') {
            return Err(E::custom("a text has a NUL, which no database keeps"));
        }
        Ok(value.into())
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Value, A::Error> {
        let mut items = Vec::new();
        while let Some(item) = seq.next_element_seed(Strict(&mut *self.0))? {
            items.push(item);
        }
        Ok(Value::Array(items))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Value, A::Error> {
        let mut fields = Map::new();
        while let Some(name) = map.next_key::<String>()? {
            let value = map.next_value_seed(Strict(&mut *self.0))?;
            if fields.insert(name.clone(), value).is_some() {
                return Err(de::Error::custom(format!("`{name}` stands there twice")));
            }
        }
        Ok(Value::Object(fields))
    }
}
