//! The one connection of a store: taking turns on it, and sending many statements at once.
//!
//! Invariants: a transaction is one pipeline, or one turn that ends with its connection unless it
//! came to its end; so none is ever left open for the next to fall into. Every parameter goes as
//! text and every column comes as text: the types are the table's own, in an adopted one too.

use std::borrow::Cow;
use std::error::Error;
use std::future::poll_fn;
use std::pin::Pin;
use std::task::Poll;
use std::time::Duration;

use tokio::sync::{Mutex, MutexGuard};
use tokio::time::timeout;
use tokio_postgres::types::private::BytesMut;
use tokio_postgres::types::{Format, IsNull, ToSql, Type};
use tokio_postgres::{Client, Row};

use super::address::ServerUrl;
use super::connect::connect;
use super::failure::Failure;
use super::lease;
use crate::state::lock::Lease;
use crate::state::row::Cells;

/// How long a write may take; less than a lease lasts.
pub const WRITE: Duration = Duration::from_secs(20);
/// How long everything may take to be read.
pub const READ: Duration = Duration::from_secs(60);

pub struct Session {
    url: ServerUrl,
    /// What stands before a table's name: a schema, or nothing for the connection's default.
    prefix: String,
    client: Mutex<Option<Client>>,
}

/// One user of the connection at a time. Dropped before [`done`](Turn::done), the connection ends.
pub struct Turn<'s> {
    slot: MutexGuard<'s, Option<Client>>,
    client: Client,
    prefix: &'s str,
}

/// A statement. In `sql`, an at sign stands for the schema.
#[derive(Debug, Clone)]
pub struct Statement {
    pub sql: Cow<'static, str>,
    pub params: Vec<Option<String>>,
}

impl Statement {
    pub fn new(sql: impl Into<Cow<'static, str>>, params: impl IntoIterator<Item = Option<String>>) -> Self {
        Self { sql: sql.into(), params: params.into_iter().collect() }
    }

    pub fn plain(sql: &'static str) -> Self {
        Self::new(sql, [])
    }
}

impl Session {
    pub fn new(url: ServerUrl, schema: Option<&str>) -> Self {
        let prefix = schema.map(|name| format!("\"{}\".", name.replace('"', "\"\""))).unwrap_or_default();
        Self { url, prefix, client: Mutex::new(None) }
    }

    /// Waits for its turn, connecting where there is no connection.
    pub async fn turn(&self) -> Result<Turn<'_>, Failure> {
        let mut slot = self.client.lock().await;
        let client = match slot.take().filter(|client| !client.is_closed()) {
            Some(client) => client,
            None => connect(&self.url, "norn").await?,
        };
        Ok(Turn { slot, client, prefix: &self.prefix })
    }
}

impl Turn<'_> {
    /// Keeps the connection for the next turn.
    pub fn done(mut self) {
        *self.slot = Some(self.client);
    }

    /// A statement's text with the store's schema in it.
    pub fn text(&self, sql: &str) -> String {
        sql.replace('@', self.prefix)
    }

    /// Runs a script of statements without parameters.
    pub async fn script(&self, sql: &str) -> Result<(), Failure> {
        let text = self.text(sql);
        within(WRITE, self.client.batch_execute(&text)).await
    }

    /// The rows of one statement.
    pub async fn rows(&self, statement: Statement) -> Result<Vec<Row>, Failure> {
        let mut replies = self.all(&[statement], WRITE).await?;
        Ok(replies.pop().expect("one statement has one reply")?)
    }

    /// Begins a transaction under the lease, which stays current until it ends.
    pub async fn begin(&self, lease: &Lease) -> Result<(), Failure> {
        self.script("BEGIN").await?;
        if self.rows(lease::proof(lease)).await.is_err() {
            self.script("ROLLBACK").await?;
            return Err(lease::disproof(self, lease).await);
        }
        Ok(())
    }

    /// Sends all statements before it awaits the first reply: one round trip. The replies are
    /// in the statements' order, an error for each statement that failed.
    pub async fn all(
        &self,
        statements: &[Statement],
        time: Duration,
    ) -> Result<Vec<Result<Vec<Row>, tokio_postgres::Error>>, Failure> {
        let texts: Vec<String> = statements.iter().map(|statement| self.text(&statement.sql)).collect();
        type Reply<'a> = Pin<Box<dyn Future<Output = Result<Vec<Row>, tokio_postgres::Error>> + Send + 'a>>;
        let mut waiting: Vec<Reply<'_>> = Vec::new();
        for (statement, text) in statements.iter().zip(&texts) {
            waiting.push(Box::pin(async move {
                let params: Vec<Text<'_>> = statement.params.iter().map(|p| Text(p.as_deref())).collect();
                let typed: Vec<(&(dyn ToSql + Sync), Type)> =
                    params.iter().map(|param| (param as &(dyn ToSql + Sync), Type::UNKNOWN)).collect();
                self.client.query_typed(text, &typed).await
            }));
        }
        // A statement is sent when its reply is first asked for.
        let mut early = Vec::with_capacity(waiting.len());
        let replies = async {
            poll_fn(|context| {
                early.extend(waiting.iter_mut().map(|reply| match reply.as_mut().poll(context) {
                    Poll::Ready(reply) => Some(reply),
                    Poll::Pending => None,
                }));
                Poll::Ready(())
            })
            .await;
            let mut replies = Vec::with_capacity(early.len());
            for (early, waiting) in early.into_iter().zip(waiting) {
                replies.push(match early {
                    Some(reply) => reply,
                    None => waiting.await,
                });
            }
            replies
        };
        timeout(time, replies).await.map_err(|_| Failure::Slow(time))
    }
}

async fn within<T>(
    time: Duration,
    work: impl Future<Output = Result<T, tokio_postgres::Error>>,
) -> Result<T, Failure> {
    Ok(timeout(time, work).await.map_err(|_| Failure::Slow(time))??)
}

/// A parameter in the text form of whatever type the server finds it to be.
#[derive(Debug)]
struct Text<'a>(Option<&'a str>);

impl ToSql for Text<'_> {
    fn to_sql(&self, _: &Type, out: &mut BytesMut) -> Result<IsNull, Box<dyn Error + Sync + Send>> {
        Ok(match self.0 {
            None => IsNull::Yes,
            Some(text) => {
                out.extend_from_slice(text.as_bytes());
                IsNull::No
            }
        })
    }

    fn accepts(_: &Type) -> bool {
        true
    }

    fn encode_format(&self, _: &Type) -> Format {
        Format::Text
    }

    tokio_postgres::types::to_sql_checked!();
}

impl Cells for Row {
    fn cell(&self, column: &str) -> Result<Option<String>, String> {
        self.try_get(column).map_err(|error| error.to_string())
    }
}
