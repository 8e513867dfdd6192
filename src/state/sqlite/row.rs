//! From a column to a value: what SQLite cannot say in its own types is parsed here, and an
//! error names the row.

use std::str::FromStr;

use jiff::Timestamp;
use rusqlite::Row;
use serde::de::DeserializeOwned;

use super::failure::Failure;

/// This moment by the database's clock, as SQL. All times are of this width.
macro_rules! now {
    () => {
        "strftime('%Y-%m-%dT%H:%M:%f000Z', 'now')"
    };
}
pub(super) use now;

/// A row that is being read, and its table for errors.
#[derive(Clone, Copy)]
pub struct Named<'r> {
    pub table: &'static str,
    /// The column whose value names the row.
    pub key: &'static str,
    pub row: &'r Row<'r>,
}

impl Named<'_> {
    /// A text; null is the empty one.
    pub fn text(self, column: &str) -> Result<String, Failure> {
        Ok(self.row.get::<_, Option<String>>(column)?.unwrap_or_default())
    }

    pub fn maybe(self, column: &str) -> Result<Option<String>, Failure> {
        Ok(self.row.get(column)?)
    }

    pub fn bool(self, column: &str) -> Result<bool, Failure> {
        Ok(self.row.get(column)?)
    }

    pub fn parse<T: FromStr>(self, column: &str) -> Result<T, Failure> {
        self.read(column, |text| text.parse().ok())
    }

    pub fn json<T: DeserializeOwned>(self, column: &str) -> Result<T, Failure> {
        self.read(column, |text| serde_json::from_str(text).ok())
    }

    pub fn maybe_time(self, column: &str) -> Result<Option<Timestamp>, Failure> {
        match self.maybe(column)? {
            Some(text) if !text.is_empty() => self.parse(column).map(Some),
            _ => Ok(None),
        }
    }

    /// A number that is never negative.
    pub fn count<T: TryFrom<i64>>(self, column: &str) -> Result<T, Failure> {
        let value: i64 = self.row.get(column)?;
        T::try_from(value).map_err(|_| self.unreadable(column, &value.to_string()))
    }

    /// A text that `parse` knows.
    pub fn read<T>(self, column: &str, parse: impl FnOnce(&str) -> Option<T>) -> Result<T, Failure> {
        let text = self.text(column)?;
        parse(&text).ok_or_else(|| self.unreadable(column, &text))
    }

    fn unreadable(self, column: &str, value: &str) -> Failure {
        let row = self.text(self.key).unwrap_or_default();
        let short: String = value.chars().take(80).collect();
        Failure::Data(format!("the row {row:?} of {} has the {column} {short:?}", self.table))
    }
}
