//! The PostgreSQL store: the shared conformance traces, directly and behind a pooler, and what is
//! its own. Nothing of it runs where there is no server.

use async_trait::async_trait;

use super::*;
use crate::state::conformance::trace::scope;
use crate::state::conformance::{Backend, conformance};

#[path = "../../../tests/support/postgres.rs"]
mod postgres;
#[path = "../../../tests/support/proxy.rs"]
mod proxy;
#[path = "../../../tests/support/mod.rs"]
mod shared;

mod cuts;
mod same;
mod tables;
mod turns;

/// A database for one store.
struct Base {
    database: postgres::Database<'static>,
    /// How the store reaches it: the server's own port, or that of something before it.
    url: String,
}

impl Base {
    /// `None` where there is no server.
    fn new() -> Option<Self> {
        let database = postgres::server("the PostgreSQL store")?.database();
        let url = database.url();
        Some(Self { database, url })
    }

    fn store(&self, scope: Scope) -> PostgresStore {
        store_at(&self.url, scope)
    }
}

fn store_at(url: &str, scope: Scope) -> PostgresStore {
    let url = ServerUrl::parse(&Secret::new(url), &|_| None).expect("it is a URL");
    PostgresStore::new(url, scope)
}

fn shop(base: &Base) -> PostgresStore {
    base.store(scope("shop", None))
}

#[async_trait]
impl Backend for Base {
    fn open(&self, scope: Scope) -> Box<dyn Store> {
        Box::new(self.store(scope))
    }

    async fn sql(&self, statement: &str) {
        self.database.sql(statement);
    }

    async fn clear(&self) {
        self.database.sql("DROP SCHEMA public CASCADE; CREATE SCHEMA public");
    }

    async fn ask(&self, query: &str) -> String {
        self.database.sql(query)
    }
}

conformance!(match Base::new() {
    Some(base) => base,
    None => return,
});

mod pooled {
    use super::*;

    fn base() -> Option<Base> {
        static POOLER: std::sync::OnceLock<Option<postgres::Pooler>> = std::sync::OnceLock::new();
        let server = postgres::server("the PostgreSQL store behind a pooler")?;
        let pooler = POOLER.get_or_init(|| postgres::Pooler::start(server)).as_ref()?;
        let database = server.database();
        let url = database.url_at(pooler.port);
        Some(Base { database, url })
    }

    conformance!(match base() {
        Some(base) => base,
        None => return,
    });
}
