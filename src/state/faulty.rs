//! Any store, with a failpoint on both sides of every call to it.
//!
//! Only with the cargo feature `failpoints`. A point is named by what is written: the address, the
//! step, and what of it.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use jiff::Timestamp;
use tokio::time::sleep;

use super::lock::{Holder, Lease, LeaseRow};
use super::{Applied, Change, Deployment, Dump, Operated, Snapshot, Store, StoreError};
use crate::address::Address;
use crate::failpoint::{Fault, LATE, strike};
use crate::secret::Secret;
use crate::spec::name::AppName;

/// How far into a call its connection is cut.
const CUT: Duration = Duration::from_millis(1);

/// A store that a test can spoil.
pub struct FaultyStore {
    inner: Arc<dyn Store>,
    /// The operations, steps and deployments of this process by id, as a reader knows them.
    known: Mutex<BTreeMap<String, String>>,
    renewed: AtomicBool,
}

impl FaultyStore {
    pub fn new(inner: Arc<dyn Store>) -> Self {
        Self { inner, known: Mutex::default(), renewed: AtomicBool::new(false) }
    }

    /// Makes a call between its two points.
    async fn between<T>(
        &self,
        name: &str,
        call: impl Future<Output = Result<T, StoreError>>,
    ) -> Result<T, StoreError> {
        let result = match strike(&format!("{name}/before"), &[Fault::Kill, Fault::Full, Fault::Cut]) {
            Some(Fault::Full) => return Err(StoreError::Full { place: PLACE.into() }),
            Some(Fault::Cut) => {
                let cut = async {
                    sleep(CUT).await;
                    self.inner.sever();
                };
                tokio::join!(call, cut).0
            }
            Some(Fault::Kill | Fault::Lost | Fault::Late) | None => call.await,
        };
        match strike(&format!("{name}/after"), &[Fault::Kill, Fault::Lost, Fault::Late]) {
            Some(Fault::Lost) => {
                let why = "the answer was lost".into();
                return Err(StoreError::Broken { place: PLACE.into(), doing: "waiting for it", why });
            }
            Some(Fault::Late) => sleep(LATE).await,
            Some(Fault::Kill | Fault::Full | Fault::Cut) | None => {}
        }
        result
    }

    /// What a write is about, by its first change.
    fn name(&self, changes: &[Change]) -> String {
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        if changes.iter().any(|change| matches!(change, Change::RunBuried { .. })) {
            return "what dead runs left".into();
        }
        let Some(first) = changes.first() else { return "nothing".into() };
        if let Change::OperationStarted { id, address, .. } = first {
            known.insert(id.clone(), address.to_string());
            for change in changes {
                if let Change::DeploymentQueued { id, .. } = change {
                    known.insert(id.clone(), address.to_string());
                }
            }
        }
        if let Change::StepStarted { id, operation, step, .. } = first {
            let name = format!("{} {step}", known.get(operation).map_or("", String::as_str));
            known.insert(id.clone(), name);
        }
        let of = |id: &String, what: &str| match known.get(id) {
            Some(name) => format!("{name}: {what}"),
            None => what.to_owned(),
        };
        let forge = |app: &dyn fmt::Display, what: &str| format!("forge/{app}: {what}");
        match first {
            Change::RunStarted { .. } => "run started".into(),
            Change::RunEnded { .. } => "run ended".into(),
            Change::RunBuried { .. } => "run buried".into(),
            Change::OperationStarted { id, .. } => of(id, "operation started"),
            Change::OperationEnded { id, .. } => of(id, "operation ended"),
            Change::StepStarted { id, .. } => of(id, "intent"),
            Change::StepDetail { id, .. } => of(id, "detail"),
            Change::StepEnded { id, .. } => of(id, "outcome"),
            Change::RecordPut { address, .. } => format!("{address}: record"),
            Change::RecordRemoved { address } => format!("{address}: record removed"),
            Change::ArtifactKept { name, .. } => format!("{name}: kept"),
            Change::ArtifactsForgotten { app, .. } => format!("{app}: forgotten"),
            Change::DeploymentQueued { id, .. } => of(id, "queued"),
            Change::DeploymentStatus { id, status, .. } => of(id, status.as_str()),
            Change::DeploymentStep { id, log } => of(id, &format!("{} {}", log.step, log.status)),
            Change::ForgeStarted { app, .. } => forge(app, "started"),
            Change::ForgeStep { app, log } => forge(app, &format!("{} {}", log.step, log.status)),
            Change::ForgeEnded { app, status, .. } => forge(app, status.as_str()),
            Change::AppRenamed { to, .. } => forge(to, "renamed"),
        }
    }
}

/// Where the store is, in its errors.
const PLACE: &str = "a store under test";

#[async_trait]
impl Store for FaultyStore {
    async fn snapshot(&self) -> Result<Snapshot, StoreError> {
        self.between("store: snapshot", self.inner.snapshot()).await
    }

    async fn lock(&self, holder: &Holder, wait: Duration) -> Result<Lease, StoreError> {
        self.between("store: lock", self.inner.lock(holder, wait)).await
    }

    async fn renew(&self, lease: &Lease) -> Result<(), StoreError> {
        // How often it is renewed depends on how long a run takes: only the first time is a point.
        if self.renewed.swap(true, Ordering::Relaxed) {
            return self.inner.renew(lease).await;
        }
        self.between("store: renew", self.inner.renew(lease)).await
    }

    async fn unlock(&self, lease: &Lease) -> Result<(), StoreError> {
        self.between("store: unlock", self.inner.unlock(lease)).await
    }

    async fn write(&self, lease: &Lease, changes: &[Change]) -> Result<(), StoreError> {
        let name = format!("write: {}", self.name(changes));
        self.between(&name, self.inner.write(lease, changes)).await
    }

    async fn key(&self) -> Result<Secret, StoreError> {
        self.between("store: key", self.inner.key()).await
    }

    async fn known_key(&self) -> Result<Option<Secret>, StoreError> {
        self.between("store: known key", self.inner.known_key()).await
    }

    async fn break_lock(&self, token: u64) -> Result<bool, StoreError> {
        self.between("store: break the lock", self.inner.break_lock(token)).await
    }

    async fn history(&self, app: Option<&AppName>, limit: u32) -> Result<Vec<Deployment>, StoreError> {
        self.between("store: history", self.inner.history(app, limit)).await
    }

    async fn operations_of(&self, plan: &str) -> Result<Vec<Applied>, StoreError> {
        self.between("store: operations of a plan", self.inner.operations_of(plan)).await
    }

    async fn lease(&self) -> Result<Option<LeaseRow>, StoreError> {
        self.between("store: lease", self.inner.lease()).await
    }

    async fn updated(&self) -> Result<BTreeMap<Address, Timestamp>, StoreError> {
        self.between("store: updated", self.inner.updated()).await
    }

    async fn operations(&self, address: &Address, limit: u32) -> Result<Vec<Operated>, StoreError> {
        self.between("store: operations", self.inner.operations(address, limit)).await
    }

    async fn export(&self) -> Result<Option<Dump>, StoreError> {
        self.between("store: export", self.inner.export()).await
    }

    async fn import(&self, lease: &Lease, dump: &Dump) -> Result<(), StoreError> {
        self.between("store: import", self.inner.import(lease, dump)).await
    }

    async fn mark_moved(&self, lease: &Lease, to: &str) -> Result<(), StoreError> {
        self.between("store: mark as moved", self.inner.mark_moved(lease, to)).await
    }

    fn sever(&self) {
        self.inner.sever();
    }
}
