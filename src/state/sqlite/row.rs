//! What SQLite gives of a row, and its clock.

use rusqlite::Row;
use rusqlite::types::ValueRef;

use crate::state::row::Cells;

/// This moment by the database's clock, as SQL. All times are of this width.
macro_rules! now {
    () => {
        "strftime('%Y-%m-%dT%H:%M:%f000Z', 'now')"
    };
}
pub(super) use now;

impl Cells for Row<'_> {
    fn cell(&self, column: &str) -> Result<Option<String>, String> {
        match self.get_ref(column).map_err(|error| error.to_string())? {
            ValueRef::Null => Ok(None),
            ValueRef::Integer(number) => Ok(Some(number.to_string())),
            ValueRef::Text(text) => match str::from_utf8(text) {
                Ok(text) => Ok(Some(text.to_owned())),
                Err(_) => Err(format!("the column {column} is no UTF-8")),
            },
            ValueRef::Real(_) | ValueRef::Blob(_) => Err(format!("the column {column} is no text")),
        }
    }
}
