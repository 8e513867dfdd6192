//! What a database is to norn, judged by its tables; the same for every database.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::fs::File;
use std::io::{self, Read};

use super::{Scope, StoreError, seed};
use crate::secret::Secret;

/// The schema that this norn writes: how many migrations there are, for each database.
pub const KNOWN: u32 = 4;

/// Which database it is, and whose it must be.
pub struct Place {
    /// As errors name it.
    pub name: String,
    pub scope: Scope,
}

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

impl Found {
    /// Whether there are the first tables: a key and a lease.
    pub fn is_founded(self) -> bool {
        match self {
            Found::Empty | Found::V1 => false,
            Found::Founded | Found::Older(_) | Found::Current => true,
        }
    }
}

/// The tables of a database with their columns in order.
pub type Tables = BTreeMap<String, Vec<String>>;
/// Whether there is a `norn_meta` that is norn's.
pub fn has_meta(tables: &Tables) -> bool {
    tables.get("norn_meta").is_some_and(|columns| columns == &["key", "value"])
}

/// The rows of `norn_meta`.
pub type Meta = BTreeMap<String, String>;

impl Place {
    /// Judges a database. `meta` is empty where there is no such table.
    ///
    /// # Errors
    /// `Foreign`, `Newer` and `OtherScope`, where it is not for this store to touch.
    pub fn judge(&self, tables: &Tables, meta: &Meta) -> Result<Found, StoreError> {
        let published: Vec<&seed::Table> =
            seed::TABLES.iter().filter(|table| tables.contains_key(table.name)).collect();
        if tables.contains_key("norn_meta") {
            if !has_meta(tables) {
                return Err(self.foreign("its norn_meta is not norn's".into()));
            }
            return Ok(match self.schema(meta)? {
                KNOWN => Found::Current,
                1 if published.is_empty() => Found::Founded,
                older => Found::Older(older),
            });
        }
        for table in &published {
            let there = &tables[table.name];
            let lacking = table.columns.iter().find(|column| !there.iter().any(|c| c == column.name));
            if let Some(lacking) = lacking {
                let why = format!("its table {} lacks the column {}", table.name, lacking.name);
                return Err(self.foreign(why));
            }
        }
        match (tables.keys().next(), published.is_empty()) {
            (None, _) => Ok(Found::Empty),
            (Some(_), false) => Ok(Found::V1),
            (Some(first), true) => {
                Err(self.foreign(format!("it is a database of something else, with a table {first}")))
            }
        }
    }

    /// The schema's number, once the store is known to be this scope's and of no newer norn.
    pub fn schema(&self, meta: &Meta) -> Result<u32, StoreError> {
        let meta = |name: &str| meta.get(name).map_or("", |value| value.as_str());
        let found: u32 = match meta("schema").parse() {
            Ok(found) if found > 0 => found,
            _ => return Err(self.foreign(format!("its schema is {:?}", meta("schema")))),
        };
        if found > KNOWN {
            return Err(StoreError::Newer { place: self.name.clone(), found, known: KNOWN });
        }
        let (project, stage) = (meta("project"), meta("stage"));
        if (project, stage) != (self.scope.project.as_str(), self.stage()) {
            let theirs = match stage {
                "" => format!("project {project} without a stage"),
                stage => format!("project {project}, stage {stage}"),
            };
            let ours = self.scope.to_string();
            return Err(StoreError::OtherScope { place: self.name.clone(), theirs, ours });
        }
        match meta("moved") {
            "" => Ok(found),
            to => Err(StoreError::Moved { place: self.name.clone(), to: to.into() }),
        }
    }

    /// What a new store says of itself in `norn_meta`.
    pub fn new_meta(&self) -> io::Result<[(&'static str, Secret); 4]> {
        let plain = |text: &str| Secret::new(text);
        Ok([
            ("schema", plain("1")),
            ("project", plain(self.scope.project.as_str())),
            ("stage", plain(self.stage())),
            ("key", random_key()?),
        ])
    }

    /// Whether there are rows to read.
    ///
    /// # Errors
    /// `Older`, where there are and this norn would have to change the tables first.
    pub fn has_rows(&self, found: Found) -> Result<bool, StoreError> {
        let older = |found| StoreError::Older { place: self.name.clone(), found, known: KNOWN };
        match found {
            Found::Empty | Found::Founded => Ok(false),
            Found::V1 => Err(older(0)),
            Found::Older(found) => Err(older(found)),
            Found::Current => Ok(true),
        }
    }

    /// The stage's name, empty without one.
    fn stage(&self) -> &str {
        self.scope.stage.as_ref().map_or("", |stage| stage.as_str())
    }

    fn foreign(&self, why: String) -> StoreError {
        StoreError::Foreign { place: self.name.clone(), why }
    }
}

/// The tables and columns of others, such as v1's, as `table` and `table.column`.
pub fn unknown(tables: &Tables) -> Vec<String> {
    let mut unknown = Vec::new();
    for (name, columns) in tables {
        if ["norn_meta", "norn_locks"].contains(&name.as_str()) {
            continue;
        }
        match seed::all().find(|table| table.name == name) {
            None => unknown.push(name.clone()),
            Some(table) => {
                let more = columns.iter().filter(|column| table.column(column).is_none());
                unknown.extend(more.map(|column| format!("{name}.{column}")));
            }
        }
    }
    unknown
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
