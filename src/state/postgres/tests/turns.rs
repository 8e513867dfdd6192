//! What a write costs, and who waits for whom.

use super::*;
use crate::state::conformance::trace::{holder, operation, put, queued, step_started};
use crate::state::{DeploymentStatus, StepLog};

/// The intent and the outcome of a step, as apply writes them.
fn step(at: u32, deployment: &str) -> [Vec<Change>; 2] {
    let id = format!("s{at:08}");
    let log = StepLog { step: "build".into(), status: "deployed".into(), duration_ms: 1, output: "".into() };
    let status = DeploymentStatus::Building;
    [
        vec![
            step_started(&id, "o"),
            Change::DeploymentStatus { id: deployment.into(), status, error: String::new() },
        ],
        vec![
            Change::StepEnded { id, outcome: "done".into() },
            Change::DeploymentStep { id: deployment.into(), log },
        ],
    ]
}

#[tokio::test]
async fn a_step_takes_two_round_trips_and_opening_one_more_than_the_lock() {
    let Some(mut base) = Base::new() else { return };
    let first = shop(&base);
    let lease = first.lock(&holder("r1"), Duration::ZERO).await.expect("nobody holds the lease");
    let start = [Change::RunStarted { command: "norn apply".into() }, operation("o"), queued("d", "web")];
    first.write(&lease, &start).await.expect("the lease is current");
    first.unlock(&lease).await.expect("it is held");

    let port = postgres::server("round trips").expect("there is one").port();
    let proxy = proxy::Proxy::before(port);
    base.url = base.database.url_at(proxy.port);
    let store = shop(&base);
    store.snapshot().await.expect("it is readable");
    // All that is sent at once is sent before the first answer to it comes.
    proxy.delay(proxy::Side::Server, Duration::from_millis(30));
    let turns = std::cell::Cell::new(proxy.turns());
    let trips = || {
        let before = turns.replace(proxy.turns());
        turns.get() - before
    };

    let lease = store.lock(&holder("r2"), Duration::ZERO).await.expect("nobody holds the lease");
    assert_eq!(trips(), 3, "one to look at the schema, two for the lock");
    store.snapshot().await.expect("it is readable");
    assert_eq!(trips(), 1, "a snapshot under the lease");
    for part in step(1, "d") {
        store.write(&lease, &part).await.expect("the lease is current");
        assert_eq!(trips(), 1, "a write");
    }
    store.renew(&lease).await.expect("the lease is current");
    assert_eq!(trips(), 1, "a heartbeat");
}

#[tokio::test]
async fn a_step_writes_the_same_at_ten_rows_and_at_ten_thousand() {
    let Some(base) = Base::new() else { return };
    let store = shop(&base);
    let lease = store.lock(&holder("r1"), Duration::ZERO).await.expect("nobody holds the lease");
    let start = [Change::RunStarted { command: "norn apply".into() }, operation("o")];
    store.write(&lease, &start).await.expect("the lease is current");
    let mut costs = Vec::new();
    let mut there = 0;
    for rows in [10, 10_000] {
        while there < rows {
            let until = rows.min(there + 500);
            let some = (there..until).flat_map(|row| {
                let [intent, outcome] = step(row, &format!("d{row:08}"));
                let put = put(&format!("app-{row}"), 1);
                [vec![queued(&format!("d{row:08}"), "web"), put], intent, outcome].concat()
            });
            store.write(&lease, &some.collect::<Vec<_>>()).await.expect("the lease is current");
            there = until;
        }
        let rows_written = "SELECT sum(n_tup_ins + n_tup_upd + n_tup_del) FROM pg_stat_user_tables";
        let count = |_: ()| {
            base.database.sql("SELECT pg_stat_force_next_flush()");
            base.database.sql(rows_written).parse::<u64>().expect("a count")
        };
        // What a server process counted is told within a second, or when it ends.
        tokio::time::sleep(Duration::from_millis(1200)).await;
        store.renew(&lease).await.expect("the lease is current");
        tokio::time::sleep(Duration::from_millis(1200)).await;
        let before = count(());
        for part in step(1_000_000 + rows, "d00000001") {
            store.write(&lease, &part).await.expect("the lease is current");
        }
        tokio::time::sleep(Duration::from_millis(1200)).await;
        store.renew(&lease).await.expect("the lease is current");
        tokio::time::sleep(Duration::from_millis(1200)).await;
        costs.push(count(()) - before);
    }
    assert_eq!(costs[0], costs[1], "rows written");
    assert!(costs[0] <= 6, "{costs:?}");
}

/// Waits until a statement of this database waits for a lock.
async fn until_blocked(base: &Base) {
    let blocked = format!(
        "SELECT count(*) FROM pg_stat_activity WHERE datname = '{}' AND wait_event_type = 'Lock'",
        base.database.name
    );
    for _ in 0..200 {
        if base.database.sql(&blocked) != "0" {
            return;
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    panic!("nothing waits for a lock");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_takeover_waits_for_the_write_under_way_and_stops_the_next() {
    let Some(base) = Base::new() else { return };
    let (old, new) = (shop(&base), shop(&base));
    let lease = old.lock(&holder("r1"), Duration::ZERO).await.expect("nobody holds the lease");
    old.write(&lease, &[put("web", 1)]).await.expect("the lease is current");

    // Somebody keeps the record's row, so that the write stands still behind its proof.
    let (client, connection) =
        tokio_postgres::connect(&base.url, tokio_postgres::NoTls).await.expect("it is up");
    let connection = tokio::spawn(connection);
    client.batch_execute("BEGIN; SELECT * FROM norn_resources FOR UPDATE").await.expect("nobody else does");
    let writing = tokio::spawn({
        let lease = lease.clone();
        async move { (old.write(&lease, &[put("web", 2)]).await, old) }
    });
    until_blocked(&base).await;
    let broken = tokio::spawn(async move {
        let freed = new.break_lock(lease.token).await.expect("it is held");
        let lease = new.lock(&holder("r2"), Duration::ZERO).await;
        (freed, lease, new)
    });
    tokio::time::sleep(Duration::from_millis(300)).await;
    assert!(!broken.is_finished(), "the lease stays while a write under it is under way");
    client.batch_execute("COMMIT").await.expect("it is open");
    let (written, old) = writing.await.expect("it does not panic");
    written.expect("it began under the lease");
    let (freed, taken, new) = broken.await.expect("it does not panic");
    assert!(freed);
    let taken = taken.expect("it is free now");
    assert!(taken.token > lease_token(&old), "tokens grow");
    let late = old.write(&Lease { token: lease_token(&old), run: "r1".into() }, &[put("web", 3)]).await;
    let late = late.expect_err("another holds the lease").to_string();
    assert!(late.contains("it was taken over by ana@box"), "{late}");
    let digests = new.snapshot().await.expect("it is readable");
    assert_eq!(digests.resources.values().map(|r| r.digest.as_str()).collect::<Vec<_>>(), ["2"]);
    drop(client);
    connection.abort();
}

fn lease_token(store: &PostgresStore) -> u64 {
    store.taken().expect("it took one")
}

#[tokio::test(flavor = "multi_thread")]
async fn eight_that_found_a_store_at_once_make_one() {
    let Some(base) = Base::new() else { return };
    let stores: Vec<PostgresStore> = (0..8).map(|_| shop(&base)).collect();
    let mut tasks = tokio::task::JoinSet::new();
    for (at, store) in stores.into_iter().enumerate() {
        tasks.spawn(async move {
            let lease =
                store.lock(&holder(&format!("r{at}")), Duration::from_secs(60)).await.expect("in turn");
            let read = store.snapshot().await.expect("it is readable").resources;
            let seen = read.values().next().map_or(0, |r| r.digest.parse::<u64>().expect("a count"));
            store.write(&lease, &[put("web", seen + 1)]).await.expect("the lease is current");
            store.unlock(&lease).await.expect("it is held");
            lease.token
        });
    }
    let mut tokens = tasks.join_all().await;
    tokens.sort_unstable();
    tokens.dedup();
    assert_eq!(tokens.len(), 8, "each has a token of its own");
    assert_eq!(base.database.sql("SELECT digest FROM norn_resources"), "8", "no turn was lost");
}
