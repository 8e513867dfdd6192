//! What a project looks like from outside: what runs, what answers, what lies there, what is known.

use std::sync::{Arc, Mutex, PoisonError};

use norn::secret::Secret;
use norn::state::postgres::PostgresStore;
use norn::state::postgres::address::ServerUrl;
use norn::state::sqlite::SqliteStore;
use norn::state::{Scope, Store};

use crate::matrix::world::{World, files, processes, stored, without_port, world};
use crate::postgres_server::{Database, Server, server};
use crate::support::{Sandbox, get};

/// A kind of store that the matrix runs on.
#[derive(Debug)]
pub struct Kind {
    pub name: &'static str,
    /// Whether it is reached by a connection that can be cut.
    pub connected: bool,
    /// Whether it can be had here.
    pub there: fn() -> bool,
    /// A database for one project, where norn does not make its store itself.
    pub database: fn() -> Option<Lent>,
    /// The sandbox's store.
    pub open: fn(&Sandbox) -> Arc<dyn Store>,
}

/// The stores of the matrix.
pub static KINDS: [Kind; 2] = [SQLITE, POSTGRES];

const SQLITE: Kind = Kind {
    name: "SQLite",
    connected: false,
    there: || true,
    database: || None,
    open: |sandbox| {
        let store = SqliteStore::open(&sandbox.path(".norn/state.db"), scope());
        Arc::new(store.expect("a path that is there"))
    },
};

const POSTGRES: Kind = Kind {
    name: "PostgreSQL",
    connected: true,
    there: || server(MATRIX).is_some(),
    database: || Some(Lent::new(server(MATRIX).expect("without a server there is no case"))),
    open: |sandbox| {
        let url = ServerUrl::parse(&Secret::new(sandbox.env[VARIABLE].as_str()), &|_| None);
        Arc::new(PostgresStore::new(url.expect("it is a URL"), scope()))
    },
};

const MATRIX: &str = "the crash matrix on PostgreSQL";

/// What names a database to norn.
pub const VARIABLE: &str = "NORN_STATE_URL";

/// An empty database. Making one takes longer than a case, so it is emptied and lent again.
pub struct Lent(Option<Database<'static>>);

static FREE: Mutex<Vec<Database<'static>>> = Mutex::new(Vec::new());

impl Lent {
    fn new(server: &'static Server) -> Self {
        let free = FREE.lock().unwrap_or_else(PoisonError::into_inner).pop();
        Self(Some(free.unwrap_or_else(|| server.database())))
    }

    /// Without TLS, which would take half of the time.
    pub fn url(&self) -> String {
        format!("{}?sslmode=disable", self.0.as_ref().expect("it is lent until the end").url())
    }
}

impl Drop for Lent {
    fn drop(&mut self) {
        let database = self.0.take().expect("it is lent until here");
        database.sql("DROP SCHEMA public CASCADE; CREATE SCHEMA public");
        FREE.lock().unwrap_or_else(PoisonError::into_inner).push(database);
    }
}

fn scope() -> Scope {
    Scope { project: "shop".parse().expect("a name"), stage: None }
}

/// Everything that can be seen of a project, but for what differs from run to run.
pub fn look(kind: &Kind, sandbox: &Sandbox, port: u16) -> World {
    let mut found = Vec::new();
    processes(sandbox, &mut found);
    if let Ok(answer) = get(port, "/") {
        found.push(format!("answer {answer:?}"));
    }
    files(sandbox, sandbox.dir.path(), &mut found);
    stored(&*(kind.open)(sandbox), &mut found);
    let folder = sandbox.dir.path().display().to_string();
    let found =
        found.into_iter().map(|thing| without_port(&thing.replace(&folder, "DIR"), &port.to_string()));
    world(found.collect(), &[])
}
