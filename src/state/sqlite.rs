//! The store in one SQLite file.
//!
//! Here: the front door, and handing work to a blocking thread. In the submodules: the files
//! (`open`), the tables (`schema`), the lease row (`lease`), writing (`changes`), reading
//! (`snapshot`) and moving all of it (`dump`).
//! Invariants: a connection that writes is open exactly while this store holds a lease, or for
//! one call; without a lease nothing is written but the first tables.

mod changes;
mod dump;
mod failure;
mod lease;
mod open;
mod row;
mod schema;
mod snapshot;
#[cfg(test)]
pub(super) mod tests;

use std::collections::BTreeMap;
use std::io;
use std::panic;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use async_trait::async_trait;
use jiff::Timestamp;
use rusqlite::Connection;

pub use self::dump::moved;
use self::failure::Failure;
use super::lock::{Held, Holder, Lease, LeaseRow};
use super::schema::Place;
use super::{Applied, Change, Deployment, Dump, Operated, Scope, Snapshot, Store, StoreError};
use crate::address::Address;
use crate::secret::Secret;
use crate::spec::name::AppName;

/// How often a held lease is asked for again.
const POLL: Duration = Duration::from_millis(100);

/// A store in a SQLite file.
pub struct SqliteStore {
    inner: Arc<Inner>,
}

struct Inner {
    /// Absolute, so it cannot be one of the names that SQLite reads otherwise (`:memory:`).
    path: PathBuf,
    place: Place,
    taken: Mutex<Option<Taken>>,
}

/// The lease that this store took, and the connection that writes under it.
struct Taken {
    conn: Connection,
    token: u64,
    /// The file that is open, told apart from any other of its name.
    file: open::Identity,
}

impl SqliteStore {
    /// Names the store in the file `path`, without opening or making it.
    ///
    /// # Errors
    /// [`StoreError::Broken`] where `path` is empty, or relative to a folder that is gone.
    pub fn open(path: &Path, scope: Scope) -> Result<Self, StoreError> {
        let name = path.display().to_string();
        let path = std::path::absolute(path).map_err(|error| StoreError::Broken {
            place: name.clone(),
            doing: "looking for it",
            why: error.to_string(),
        })?;
        let place = Place { name, scope };
        Ok(Self { inner: Arc::new(Inner { path, place, taken: Mutex::new(None) }) })
    }

    /// Runs `work` where it may block. It runs to its end even if nobody waits for it any more.
    async fn run<T: Send + 'static>(
        &self,
        doing: &'static str,
        work: impl FnOnce(&Inner) -> Result<T, Failure> + Send + 'static,
    ) -> Result<T, StoreError> {
        let inner = Arc::clone(&self.inner);
        let task =
            tokio::task::spawn_blocking(move || work(&inner).map_err(|f| f.at(&inner.place.name, doing)));
        match task.await {
            Ok(result) => result,
            Err(error) if error.is_panic() => panic::resume_unwind(error.into_panic()),
            Err(error) => Err(Failure::Io(io::Error::other(error)).at(&self.inner.place.name, doing)),
        }
    }
}

#[async_trait]
impl Store for SqliteStore {
    async fn snapshot(&self) -> Result<Snapshot, StoreError> {
        self.run("reading", |inner| Ok(inner.read(snapshot::load)?.unwrap_or_default())).await
    }

    async fn lock(&self, holder: &Holder, wait: Duration) -> Result<Lease, StoreError> {
        let asked = Instant::now();
        loop {
            let holder = holder.clone();
            let held = match self.run("taking its lock", move |inner| inner.lock(&holder)).await? {
                Ok(lease) => return Ok(lease),
                Err(held) => held,
            };
            let left = wait.saturating_sub(asked.elapsed());
            if left.is_zero() {
                let place = self.inner.place.name.clone();
                return Err(StoreError::Locked { place, held: Box::new(held) });
            }
            tokio::time::sleep(POLL.min(left)).await;
        }
    }

    async fn renew(&self, lease: &Lease) -> Result<(), StoreError> {
        let lease = lease.clone();
        self.run("renewing its lock", move |inner| inner.leased(|conn| lease::renew(conn, &lease))).await
    }

    async fn unlock(&self, lease: &Lease) -> Result<(), StoreError> {
        let token = lease.token;
        self.run("giving back its lock", move |inner| {
            let mut taken = inner.taken();
            // Closing the connection, the last one brings the log into the database file.
            match taken.take_if(|taken| taken.token == token) {
                Some(taken) => lease::free(&taken.conn, token).map(|_| ()),
                None => Ok(()),
            }
        })
        .await
    }

    async fn write(&self, lease: &Lease, changes: &[Change]) -> Result<(), StoreError> {
        let (lease, changes) = (lease.clone(), changes.to_vec());
        self.run("writing", move |inner| {
            inner.leased(|conn| {
                let tx = lease::begin(conn, &lease)?;
                for change in &changes {
                    changes::make(&tx, &lease, change)?;
                }
                Ok(tx.commit()?)
            })
        })
        .await
    }

    async fn key(&self) -> Result<Secret, StoreError> {
        self.run("reading its key", |inner| match inner.read(snapshot::key)?.flatten() {
            Some(key) => Ok(key),
            None => schema::key(&inner.founded()?),
        })
        .await
    }

    async fn known_key(&self) -> Result<Option<Secret>, StoreError> {
        self.run("reading its key", |inner| Ok(inner.read(snapshot::key)?.flatten())).await
    }

    async fn break_lock(&self, token: u64) -> Result<bool, StoreError> {
        self.run("breaking its lock", move |inner| match inner.read(snapshot::key)?.flatten() {
            Some(_) => lease::free(&inner.founded()?, token),
            None => Ok(false),
        })
        .await
    }

    async fn history(&self, app: Option<&AppName>, limit: u32) -> Result<Vec<Deployment>, StoreError> {
        let app = app.cloned();
        self.run("reading", move |inner| {
            let read = inner.read(|conn, place| snapshot::history(conn, place, app.as_ref(), limit))?;
            Ok(read.unwrap_or_default())
        })
        .await
    }

    async fn operations_of(&self, plan: &str) -> Result<Vec<Applied>, StoreError> {
        let plan = plan.to_owned();
        self.run("reading", move |inner| {
            let read = inner.read(|conn, place| snapshot::operations_of(conn, place, &plan))?;
            Ok(read.unwrap_or_default())
        })
        .await
    }

    async fn lease(&self) -> Result<Option<LeaseRow>, StoreError> {
        self.run("reading its lock", |inner| Ok(inner.read(snapshot::lease)?.flatten())).await
    }

    async fn updated(&self) -> Result<BTreeMap<Address, Timestamp>, StoreError> {
        self.run("reading", |inner| Ok(inner.read(snapshot::updated)?.unwrap_or_default())).await
    }

    async fn operations(&self, address: &Address, limit: u32) -> Result<Vec<Operated>, StoreError> {
        let address = address.clone();
        self.run("reading", move |inner| {
            let read = inner.read(|conn, place| snapshot::operated(conn, place, &address, limit))?;
            Ok(read.unwrap_or_default())
        })
        .await
    }

    async fn export(&self) -> Result<Option<Dump>, StoreError> {
        self.run("reading all of it", |inner| Ok(inner.read(dump::export)?.flatten())).await
    }

    async fn import(&self, lease: &Lease, dump: &Dump) -> Result<(), StoreError> {
        let (lease, dump) = (lease.clone(), dump.clone());
        self.run("filling it", move |inner| {
            inner.last(|conn| dump::import(conn, &inner.place, &lease, &dump))
        })
        .await
    }

    async fn mark_moved(&self, lease: &Lease, to: &str) -> Result<(), StoreError> {
        let (lease, to) = (lease.clone(), to.to_owned());
        self.run("marking it as moved", move |inner| inner.last(|conn| dump::mark_moved(conn, &lease, &to)))
            .await
    }
}

impl Inner {
    fn taken(&self) -> MutexGuard<'_, Option<Taken>> {
        // A panic in the middle of a write has rolled its transaction back.
        self.taken.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn leased<T>(&self, work: impl FnOnce(&mut Connection) -> Result<T, Failure>) -> Result<T, Failure> {
        match self.taken().as_mut() {
            Some(taken) => {
                let done = work(&mut taken.conn)?;
                // What was written to a file that has lost its name is lost with this process.
                open::same(&self.path, taken.file)?;
                Ok(done)
            }
            None => Err(StoreError::LeaseLost { reason: "this process does not hold it".into() }.into()),
        }
    }

    /// The last work under a lease, which gives it back.
    fn last(&self, work: impl FnOnce(&mut Connection) -> Result<(), Failure>) -> Result<(), Failure> {
        self.leased(work)?;
        *self.taken() = None;
        Ok(())
    }

    /// `None` where there is no file.
    fn read<T>(
        &self,
        work: impl Fn(&Connection, &Place) -> Result<T, Failure>,
    ) -> Result<Option<T>, Failure> {
        if let Some(taken) = self.taken().as_ref() {
            return work(&taken.conn, &self.place).map(Some);
        }
        open::read(&self.path, |conn| work(conn, &self.place))
    }

    /// A connection that writes to a database with norn's first tables.
    fn founded(&self) -> Result<Connection, Failure> {
        let mut conn = open::writer(&self.path, |conn| schema::inspect(conn, &self.place).map(|_| ()))?;
        schema::found(&mut conn, &self.place)?;
        Ok(conn)
    }

    fn lock(&self, holder: &Holder) -> Result<Result<Lease, Held>, Failure> {
        let mut taken = self.taken();
        if let Some(taken) = taken.as_mut() {
            // This store took it before: it may have run out, or been broken, since.
            let lease = lease::take(&mut taken.conn, holder)?;
            if let Ok(lease) = &lease {
                taken.token = lease.token;
            }
            return Ok(lease);
        }
        let mut conn = self.founded()?;
        let file = open::identity(&self.path)?;
        let lease = match lease::take(&mut conn, holder)? {
            Ok(lease) => lease,
            Err(held) => return Ok(Err(held)),
        };
        if let Err(failure) = schema::upgrade(&mut conn, &self.place, &lease) {
            // Nothing was done under the lease; if even this fails, it runs out.
            let _ = lease::free(&conn, lease.token);
            return Err(failure);
        }
        *taken = Some(Taken { conn, token: lease.token, file });
        Ok(Ok(lease))
    }
}
