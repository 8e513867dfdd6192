//! Whatever the bytes: a file is refused as a dump, or a store can take it and gives it back.

use std::sync::LazyLock;
use std::time::Duration;

use tokio::runtime::Runtime;

use super::dump::Dump;
use super::lock::{Holder, ProcessIdentity};
use super::sqlite::SqliteStore;
use super::{Store, StoreError};

/// Reads what `norn state export` wrote, and imports it.
pub fn state_import(input: &[u8]) -> bool {
    static RUNTIME: LazyLock<Runtime> = LazyLock::new(|| {
        tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime")
    });
    let dump = match Dump::read(input) {
        Ok(dump) => dump,
        Err(error) => {
            assert!(!error.to_string().is_empty());
            return false;
        }
    };
    let bytes = dump.bytes();
    let again = Dump::read(&*bytes).expect("what was written is read");
    assert!(again == dump && again.bytes() == bytes);
    RUNTIME.block_on(imported(&dump)).expect("what is read can be imported");
    true
}

async fn imported(dump: &Dump) -> Result<(), StoreError> {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let store = SqliteStore::open(&folder.path().join("state.db"), dump.scope.clone())?;
    let process = ProcessIdentity {
        machine_id: "elsewhere".into(),
        boot_id: "b".into(),
        pid_namespace: "n".into(),
        pid: 7,
        start_time: 8,
    };
    let holder = Holder {
        run: "r".into(),
        who: "ana@box".into(),
        process,
        job_url: None,
        reason: "norn state import".into(),
    };
    let lease = store.lock(&holder, Duration::ZERO).await?;
    store.import(&lease, dump).await?;
    let exported = store.export().await?.expect("it was imported");
    assert!(exported.same_as(dump), "the store gives back something else");
    assert!(exported.token >= dump.token);
    store.snapshot().await?;
    store.history(None, 10).await?;
    store.operations_of("p1").await?;
    // Tokens go on.
    store.lock(&holder, Duration::ZERO).await?;
    Ok(())
}
