//! Whose a store is, and who may write to it.

use std::time::Duration;

use super::Backend;
use super::trace::{Trace, holder, put, scope, shop};
use crate::provider::machine;
use crate::state::lock::{Holder, Lease, ProcessIdentity};

pub async fn an_unwritten_store_reads_as_empty(backend: &dyn Backend) {
    let store = shop(backend);
    let lease = Lease { token: 1, run: "r1".into() };
    let mut t = Trace::default();
    t.show(&*store).await;
    t.did("history", store.history(None, 10).await.map(|rows| rows.len()));
    t.did("operations", store.operations_of("p1").await.map(|rows| rows.len()));
    t.did("renew", store.renew(&lease).await);
    t.did("unlock", store.unlock(&lease).await);
    t.did("write", store.write(&lease, &[]).await);
    t.did("break", store.break_lock(0).await);
    t.show(&*store).await;
    let key = store.key().await.expect("the store can be founded");
    assert!(key.expose().len() == 64 && key.expose().chars().all(|c| c.is_ascii_hexdigit()));
    t.show(&*shop(backend)).await;
    t.did("operations", shop(backend).operations_of("p1").await.map(|rows| rows.len()));
    assert_eq!(shop(backend).key().await.expect("there is a key"), key);
    let (_, other) = t.lock(backend, "r1").await;
    assert_eq!(other.snapshot().await.expect("it is readable").key, Some(key));
    t.expect(
        "
        no store
        history: 0
        operations: 0
        renew: lease lost: this process does not hold it
        unlock: ok
        write: lease lost: this process does not hold it
        break: false
        no store
        an empty store
        operations: 0
        lock r1: token 1
        ",
    );
}

pub async fn a_store_is_of_one_project_and_stage(backend: &dyn Backend) {
    let mut t = Trace::default();
    t.lock(backend, "r1").await;
    for (project, stage) in [("other", ""), ("shop", "prod")] {
        // As a copy of another place's state would be.
        backend.sql(&format!("UPDATE norn_meta SET value = '{stage}' WHERE key = 'stage'")).await;
        let store = backend.open(scope(project, None));
        t.did("snapshot", store.snapshot().await.map(|_| ()));
        t.did("history", store.history(None, 1).await.map(|_| ()));
        t.did("operations", store.operations_of("p1").await.map(|_| ()));
        t.did("lock", store.lock(&holder("r2"), Duration::ZERO).await.map(|_| ()));
        t.did("key", store.key().await.map(|_| ()));
        t.did("break", store.break_lock(1).await.map(|_| ()));
    }
    t.expect(
        "
        lock r1: token 1
        snapshot: of project shop without a stage, not of project other without a stage
        history: of project shop without a stage, not of project other without a stage
        operations: of project shop without a stage, not of project other without a stage
        lock: of project shop without a stage, not of project other without a stage
        key: of project shop without a stage, not of project other without a stage
        break: of project shop without a stage, not of project other without a stage
        snapshot: of project shop, stage prod, not of project shop without a stage
        history: of project shop, stage prod, not of project shop without a stage
        operations: of project shop, stage prod, not of project shop without a stage
        lock: of project shop, stage prod, not of project shop without a stage
        key: of project shop, stage prod, not of project shop without a stage
        break: of project shop, stage prod, not of project shop without a stage
        ",
    );
}

pub async fn one_holder_at_a_time(backend: &dyn Backend) {
    let mut t = Trace::default();
    let (first, a) = t.lock(backend, "r1").await;
    t.did("lock r2", shop(backend).lock(&holder("r2"), Duration::ZERO).await.map(|lease| lease.token));
    t.did("again", a.lock(&holder("r1"), Duration::from_millis(20)).await.map(|lease| lease.token));
    t.did("renew", a.renew(&first).await);
    t.did("unlock", a.unlock(&first).await);
    t.did("unlock again", a.unlock(&first).await);
    t.did("renew", a.renew(&first).await);
    let (second, b) = t.lock(backend, "r2").await;
    // A lease of before opens nothing for the one who holds it now.
    t.did("unlock r1", a.unlock(&first).await);
    t.did("unlock r1 at r2", b.unlock(&first).await);
    t.did("renew r2", b.renew(&second).await);
    t.did("break 1", a.break_lock(first.token).await);
    t.did("break 2", a.break_lock(second.token).await);
    t.did("renew r2", b.renew(&second).await);
    t.lock(backend, "r3").await;
    t.expect(
        "
        lock r1: token 1
        lock r2: locked by ana@box (pid 7, norn apply, since <time>, https://ci.example/r1)
        again: locked by ana@box (pid 7, norn apply, since <time>, https://ci.example/r1)
        renew: ok
        unlock: ok
        unlock again: ok
        renew: lease lost: this process does not hold it
        lock r2: token 2
        unlock r1: ok
        unlock r1 at r2: ok
        renew r2: ok
        break 1: false
        break 2: true
        renew r2: lease lost: it was given back, or broken
        lock r3: token 3
        ",
    );
}

pub async fn a_lease_that_is_not_current_writes_nothing(backend: &dyn Backend) {
    let mut t = Trace::default();
    let (lease, a) = t.lock(backend, "r1").await;
    backend.sql("UPDATE norn_locks SET expires_at = '2001-02-03T04:05:06.000000Z'").await;
    let put = [put("web", 1)];
    t.did("write r1", a.write(&lease, &put).await);
    t.did("renew r1", a.renew(&lease).await);
    let (next, b) = t.lock(backend, "r2").await;
    t.did("write r1", a.write(&lease, &put).await);
    t.did("unlock r1", a.unlock(&lease).await);
    t.show(&*b).await;
    t.did("write r2", b.write(&next, &put).await);
    t.show(&*b).await;
    t.did("unlock r2", b.unlock(&next).await);
    t.did("write r2", b.write(&next, &put).await);
    t.expect(
        "
        lock r1: token 1
        write r1: lease lost: it ran out at <time> and was not renewed
        renew r1: lease lost: it ran out at <time> and was not renewed
        lock r2: token 2
        write r1: lease lost: it was taken over by ana@box (pid 7, norn apply, since <time>, https://ci.example/r2)
        unlock r1: ok
        an empty store
        lock: r2, token 2
        write r2: ok
        record forge/web: {\"version\":1} digest 1
        lock: r2, token 2
        unlock r2: ok
        write r2: lease lost: this process does not hold it
        ",
    );
}

pub async fn a_dead_holder_is_replaced_at_once(backend: &dyn Backend) {
    let mut t = Trace::default();
    let own = machine::own_identity().expect("this process lives");
    let lives = Holder { process: own.clone(), ..holder("lives") };
    // The pid is taken, by a process that started at another time.
    let gone = ProcessIdentity { start_time: own.start_time + 1, ..own };
    let gone = Holder { process: gone, ..holder("gone") };
    let (a, b) = (shop(backend), shop(backend));
    t.did("gone", a.lock(&gone, Duration::ZERO).await.map(|lease| lease.token));
    t.did("lives", b.lock(&lives, Duration::ZERO).await.map(|lease| lease.token));
    t.did("next", a.lock(&holder("next"), Duration::ZERO).await.is_err());
    t.expect(
        "
        gone: 1
        lives: 2
        next: true
        ",
    );
}
