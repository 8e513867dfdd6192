//! The SQLite store: the shared conformance traces, and what is its own.

use std::path::PathBuf;

use tempfile::TempDir;

use super::*;

mod files;
mod locking;
mod tables;

use crate::state::conformance::{Backend, conformance};

/// A folder for one store.
pub struct Folder {
    dir: TempDir,
}

impl Folder {
    pub fn new() -> Self {
        Self { dir: tempfile::tempdir().expect("there is a temporary folder") }
    }

    fn path(&self) -> PathBuf {
        self.dir.path().join(".norn/state.db")
    }

    fn conn(&self) -> Connection {
        Connection::open(self.path()).expect("it is a database")
    }
}

#[async_trait]
impl Backend for Folder {
    fn open(&self, scope: Scope) -> Box<dyn Store> {
        Box::new(SqliteStore::open(&self.path(), scope).expect("the path is absolute"))
    }

    async fn sql(&self, statement: &str) {
        self.conn().execute_batch(statement).expect("the statement is right");
    }

    async fn ask(&self, query: &str) -> String {
        let value = self.conn().query_row(query, [], |row| row.get::<_, rusqlite::types::Value>(0));
        match value.expect("the query finds one row") {
            rusqlite::types::Value::Integer(number) => number.to_string(),
            rusqlite::types::Value::Text(text) => text,
            other => panic!("a test asks for a number or a text, not {other:?}"),
        }
    }

    async fn clear(&self) {
        let folder = self.path().parent().expect("it has a folder").to_owned();
        std::fs::remove_dir_all(folder).expect("it is ours");
    }
}

conformance!(Folder::new());
