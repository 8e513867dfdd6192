//! The store in a PostgreSQL database, in a schema of its own where the store is of a stage.
//!
//! Here: the front door. In the submodules: the server's address (`address`), reaching it (`connect`),
//! the one connection (`session`), the tables (`schema`), the lease row (`lease`), writing
//! (`changes`) and reading (`snapshot`).
//! Invariants: nothing hangs on the connection but the transaction under way (a pooler may give
//! each to another server process); without a lease nothing is written but the first tables; a
//! write is one round trip.

pub mod address;
mod changes;

pub mod connect;
mod dump;
mod failure;
mod lease;
mod schema;
mod session;
mod snapshot;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use async_trait::async_trait;
use jiff::Timestamp;
use tokio_postgres::error::SqlState;

use self::address::ServerUrl;
use self::failure::Failure;
use self::session::{Session, Statement, Turn, WRITE};
use super::lock::{Held, Holder, Lease, LeaseRow};
use super::schema::{Found, Place};
use super::{Applied, Change, Deployment, Dump, Operated, Scope, Snapshot, Store, StoreError};
use crate::address::Address;
use crate::secret::Secret;
use crate::spec::name::AppName;

/// How often a held lease is asked for again.
const POLL: Duration = Duration::from_millis(500);

/// What a method does in one turn; the connection is kept where it comes to its end.
macro_rules! in_turn {
    ($store:ident, $doing:literal, |$turn:ident| $work:expr) => {{
        let result = async {
            let $turn = $store.session.turn().await?;
            let result = $work.await?;
            $turn.done();
            Ok(result)
        };
        $store.told($doing, result.await)
    }};
}

/// A store in a PostgreSQL database.
pub struct PostgresStore {
    session: Session,
    place: Place,
    /// The token of the lease that this store took.
    taken: Mutex<Option<u64>>,
}

impl PostgresStore {
    /// Names the store, without connecting.
    pub fn new(url: ServerUrl, scope: Scope) -> Self {
        let name = url.to_string();
        let session = Session::new(url, scope.stage.as_ref().map(|stage| stage.as_str()));
        Self { session, place: Place { name, scope }, taken: Mutex::new(None) }
    }

    fn taken(&self) -> MutexGuard<'_, Option<u64>> {
        self.taken.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn told<T>(&self, doing: &'static str, result: Result<T, Failure>) -> Result<T, StoreError> {
        result.map_err(|failure| failure.at(&self.place.name, doing))
    }

    fn must_hold(&self) -> Result<(), Failure> {
        match *self.taken() {
            Some(_) => Ok(()),
            None => Err(StoreError::LeaseLost { reason: "this process does not hold it".into() }.into()),
        }
    }

    /// A turn on a database that has norn's first tables.
    async fn founded(&self) -> Result<(Turn<'_>, Found), Failure> {
        let turn = self.session.turn().await?;
        let mut found = schema::inspect(&turn, &self.place).await?;
        if !found.is_founded() {
            schema::found(&turn, &self.place).await?;
            found = Found::Founded;
        }
        Ok((turn, found))
    }

    async fn read_snapshot(&self) -> Result<Snapshot, Failure> {
        let turn = self.session.turn().await?;
        // Under the lease the schema stays as taking it left it.
        let held = self.taken().is_some();
        let found = if held { Found::Current } else { schema::inspect(&turn, &self.place).await? };
        let snapshot = snapshot::load(&turn, &self.place, found).await?;
        turn.done();
        Ok(snapshot)
    }

    async fn take(&self, holder: &Holder) -> Result<Result<Lease, Held>, Failure> {
        let (turn, found) = self.founded().await?;
        let taken = lease::take(&turn, holder).await?;
        if let Ok(lease) = &taken {
            if found != Found::Current
                && let Err(failure) = schema::upgrade(&turn, &self.place, lease).await
            {
                // Nothing was done under the lease; if even this fails, it runs out.
                drop(turn);
                let turn = self.session.turn().await?;
                let _ = lease::free(&turn, lease.token).await;
                return Err(failure);
            }
            *self.taken() = Some(lease.token);
        }
        turn.done();
        Ok(taken)
    }

    /// Commits the statements, of which the first proves the lease: one round trip.
    async fn commit(
        &self,
        lease: &Lease,
        proof: Statement,
        making: Vec<changes::Making>,
    ) -> Result<(), Failure> {
        self.must_hold()?;
        let turn = self.session.turn().await?;
        let (statements, ones): (Vec<_>, Vec<_>) =
            making.into_iter().map(|making| (making.statement, making.one)).unzip();
        let all: Vec<Statement> = [Statement::plain("BEGIN"), proof]
            .into_iter()
            .chain(statements)
            .chain([Statement::plain("COMMIT")])
            .collect();
        let replies = turn.all(&all, WRITE).await?;
        let failed = replies.into_iter().enumerate().find_map(|(at, reply)| Some((at, reply.err()?)));
        let Some((at, error)) = failed else {
            turn.done();
            return Ok(());
        };
        if error.code() != Some(&SqlState::DIVISION_BY_ZERO) {
            return Err(error.into());
        }
        let failure = match ones.get(at.wrapping_sub(2)).and_then(Option::as_ref) {
            Some((what, id)) => Failure::Data(format!("there is no {what} {id:?}")),
            None => lease::disproof(&turn, lease).await,
        };
        turn.done();
        Err(failure)
    }

    async fn give_back(&self, lease: &Lease) -> Result<(), Failure> {
        if self.taken().take_if(|token| *token == lease.token).is_none() {
            return Ok(());
        }
        let turn = self.session.turn().await?;
        lease::free(&turn, lease.token).await?;
        turn.done();
        Ok(())
    }

    async fn read_key(&self) -> Result<Secret, Failure> {
        let turn = self.session.turn().await?;
        let key = match snapshot::key(&turn, &self.place).await? {
            Some(key) => key,
            None => {
                schema::found(&turn, &self.place).await?;
                schema::key(&turn.rows(Statement::plain(schema::KEY)).await?)?
            }
        };
        turn.done();
        Ok(key)
    }
}

#[async_trait]
impl Store for PostgresStore {
    async fn snapshot(&self) -> Result<Snapshot, StoreError> {
        self.told("reading", self.read_snapshot().await)
    }

    async fn lock(&self, holder: &Holder, wait: Duration) -> Result<Lease, StoreError> {
        let asked = Instant::now();
        loop {
            let held = match self.told("taking its lock", self.take(holder).await)? {
                Ok(lease) => return Ok(lease),
                Err(held) => held,
            };
            let left = wait.saturating_sub(asked.elapsed());
            if left.is_zero() {
                return Err(StoreError::Locked { place: self.place.name.clone(), held: Box::new(held) });
            }
            tokio::time::sleep(POLL.min(left)).await;
        }
    }

    async fn renew(&self, lease: &Lease) -> Result<(), StoreError> {
        let [proof, heartbeat] = lease::renewal(lease);
        let heartbeat = changes::Making { statement: heartbeat, one: None };
        self.told("renewing its lock", self.commit(lease, proof, vec![heartbeat]).await)
    }

    async fn unlock(&self, lease: &Lease) -> Result<(), StoreError> {
        let result = self.give_back(lease).await;
        self.told("giving back its lock", result)
    }

    async fn write(&self, lease: &Lease, changes: &[Change]) -> Result<(), StoreError> {
        let making = changes.iter().flat_map(|change| changes::make(lease, change)).collect();
        self.told("writing", self.commit(lease, lease::proof(lease), making).await)
    }

    async fn key(&self) -> Result<Secret, StoreError> {
        self.told("reading its key", self.read_key().await)
    }

    async fn known_key(&self) -> Result<Option<Secret>, StoreError> {
        in_turn!(self, "reading its key", |turn| snapshot::key(&turn, &self.place))
    }

    async fn break_lock(&self, token: u64) -> Result<bool, StoreError> {
        let broken = async |turn: &Turn<'_>| match snapshot::key(turn, &self.place).await? {
            Some(_) => lease::free(turn, token).await,
            None => Ok(false),
        };
        in_turn!(self, "breaking its lock", |turn| broken(&turn))
    }

    async fn history(&self, app: Option<&AppName>, limit: u32) -> Result<Vec<Deployment>, StoreError> {
        in_turn!(self, "reading", |turn| snapshot::history(&turn, &self.place, app, limit))
    }

    async fn operations_of(&self, plan: &str) -> Result<Vec<Applied>, StoreError> {
        in_turn!(self, "reading", |turn| snapshot::operations_of(&turn, &self.place, plan))
    }

    async fn lease(&self) -> Result<Option<LeaseRow>, StoreError> {
        in_turn!(self, "reading its lock", |turn| snapshot::lease(&turn, &self.place))
    }

    async fn updated(&self) -> Result<BTreeMap<Address, Timestamp>, StoreError> {
        in_turn!(self, "reading", |turn| snapshot::updated(&turn, &self.place))
    }

    async fn operations(&self, address: &Address, limit: u32) -> Result<Vec<Operated>, StoreError> {
        in_turn!(self, "reading", |turn| snapshot::operated(&turn, &self.place, address, limit))
    }

    async fn export(&self) -> Result<Option<Dump>, StoreError> {
        in_turn!(self, "reading all of it", |turn| dump::export(&turn, &self.place))
    }

    async fn import(&self, lease: &Lease, dump: &Dump) -> Result<(), StoreError> {
        self.told("filling it", self.must_hold())?;
        let filled = in_turn!(self, "filling it", |turn| dump::import(&turn, &self.place, lease, dump));
        filled.inspect(|()| *self.taken() = None)
    }

    async fn mark_moved(&self, lease: &Lease, to: &str) -> Result<(), StoreError> {
        self.told("marking it as moved", self.must_hold())?;
        let marked = in_turn!(self, "marking it as moved", |turn| dump::mark_moved(&turn, lease, to));
        marked.inspect(|()| *self.taken() = None)
    }

    #[cfg(feature = "failpoints")]
    fn sever(&self) {
        connect::severed::all();
    }
}
