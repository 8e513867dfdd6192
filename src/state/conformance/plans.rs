//! What is kept of the operations of a saved plan.

use std::time::Duration;

use super::Backend;
use super::trace::{Trace, app, operation, planned, put};
use crate::address::Address;
use crate::state::{Applied, Change, Record, Store, StoreError};

/// The operations of a plan, one a part.
async fn of(store: &dyn Store, plan: &str) -> Result<String, StoreError> {
    let text = |row: Applied| {
        let digest = |digest: Option<String>| digest.unwrap_or_else(|| "none".into());
        let (forge, deploy) = (digest(row.after.forge), digest(row.after.deploy));
        let outcome = if row.outcome.is_empty() { "unfinished" } else { &row.outcome };
        format!("{} {} {outcome}, forge {forge}, deploy {deploy}", row.action, row.address)
    };
    let rows = store.operations_of(plan).await?;
    Ok(rows.into_iter().map(text).collect::<Vec<_>>().join("; "))
}

fn ended(id: &str, outcome: &str) -> Change {
    Change::OperationEnded { id: id.into(), outcome: outcome.into() }
}

/// The record of a release, as [`put`] makes those of definitions.
fn released(name: &str, digest: &str) -> Change {
    let record = Record { body: serde_json::json!({}), digest: digest.into(), protected: false };
    Change::RecordPut { address: Address::deploy(&app(name)), record }
}

pub async fn a_saved_plan_knows_what_its_operations_left(backend: &dyn Backend) {
    let mut t = Trace::default();
    let (lease, store) = t.lock(backend, "r1").await;
    let (forge, deploy) = (Address::forge(&app("web")), Address::deploy(&app("web")));
    let begun = [
        Change::RunStarted { command: "norn apply plan.norn".into() },
        planned("o1", deploy.clone(), "p1"),
        planned("o2", forge.clone(), "p1"),
        planned("o3", forge.clone(), "p2"),
        operation("o4"),
    ];
    t.did("write", store.write(&lease, &begun).await);
    t.did("p1", of(&*store, "p1").await);
    t.did("write", store.write(&lease, &[put("web", 1), ended("o2", "done")]).await);
    // Long enough for every database's clock.
    tokio::time::sleep(Duration::from_millis(5)).await;
    t.did("p1", of(&*store, "p1").await);
    t.did("write", store.write(&lease, &[put("web", 2), ended("o4", "done")]).await);
    t.did("unlock", store.unlock(&lease).await);
    let (lease, store) = t.lock(backend, "r2").await;
    // What recovery found is recorded before the run is buried.
    let found = [released("web", "live"), Change::RunBuried { run: "r1".into() }];
    t.did("bury", store.write(&lease, &found).await);
    t.did("write", store.write(&lease, &[put("web", 3)]).await);
    t.did("bury", store.write(&lease, &[Change::RunBuried { run: "r1".into() }]).await);
    for plan in ["p1", "p2", "p3", ""] {
        t.did(plan, of(&*store, plan).await);
    }
    t.did("without", Ok(backend.ask("SELECT count(*) FROM norn_operations WHERE plan = ''").await));
    t.expect(
        "
        lock r1: token 1
        write: ok
        p1: update deploy/web unfinished, forge none, deploy none; update forge/web unfinished, forge none, deploy none
        write: ok
        p1: update forge/web done, forge 1, deploy none; update deploy/web unfinished, forge none, deploy none
        write: ok
        unlock: ok
        lock r2: token 2
        bury: ok
        write: ok
        bury: ok
        p1: update forge/web done, forge 1, deploy none; update deploy/web dead, forge 2, deploy live
        p2: update forge/web dead, forge 2, deploy live
        p3: 
        : 
        without: 1
        ",
    );
}

pub async fn an_operation_keeps_the_records_of_its_own_app(backend: &dyn Backend) {
    let mut t = Trace::default();
    let (lease, store) = t.lock(backend, "r1").await;
    let known = [
        Change::RunStarted { command: "norn apply plan.norn".into() },
        put("web", 1),
        put("web-2", 2),
        released("web-2", "live"),
        planned("o1", Address::forge(&app("web")), "p1"),
        ended("o1", "failed"),
    ];
    t.did("write", store.write(&lease, &known).await);
    // The operation is of the name that the app has from then on.
    let renamed = [
        planned("o2", Address::forge(&app("site")), "p1"),
        Change::AppRenamed { from: app("web-2"), to: app("site") },
    ];
    t.did("rename", store.write(&lease, &renamed).await);
    t.did("write", store.write(&lease, &[ended("o2", "done")]).await);
    let gone = [
        planned("o3", Address::forge(&app("web")), "p1"),
        Change::RecordRemoved { address: Address::forge(&app("web")) },
        ended("o3", "done"),
    ];
    tokio::time::sleep(Duration::from_millis(5)).await;
    t.did("remove", store.write(&lease, &gone).await);
    t.did("p1", of(&*store, "p1").await);
    t.expect(
        "
        lock r1: token 1
        write: ok
        rename: ok
        write: ok
        remove: ok
        p1: update forge/web failed, forge 1, deploy none; update forge/site done, forge 2, deploy live; update forge/web done, forge none, deploy none
        ",
    );
}
