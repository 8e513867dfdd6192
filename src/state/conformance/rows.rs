//! What a write makes of the rows.

use serde_json::json;

use super::Backend;
use super::trace::{Trace, app, kept, log, operation, put, queued, step, step_started};
use crate::address::Address;
use crate::state::{ArtifactKind, Change, Deployment, DeploymentStatus, ForgeStatus, Record, StepLog};

pub async fn a_deployment_from_queue_to_rollback(backend: &dyn Backend) {
    let mut t = Trace::default();
    let (lease, store) = t.lock(backend, "r1").await;
    let status =
        |status, error: &str| Change::DeploymentStatus { id: "d1".into(), status, error: error.into() };
    for changes in [
        vec![queued("d1", "web")],
        vec![status(DeploymentStatus::Building, ""), step("d1", log("clone", "deployed"))],
        vec![step("d1", log("build", "deployed")), step("d1", log("build", "failed"))],
        vec![status(DeploymentStatus::Deployed, "")],
    ] {
        t.did("write", store.write(&lease, &changes).await);
        t.show(&*store).await;
    }
    let finished = store.snapshot().await.expect("it is readable").deployments[0].finished_at;
    t.did("write", store.write(&lease, &[status(DeploymentStatus::RolledBack, "to web:0")]).await);
    t.show(&*store).await;
    assert_eq!(store.snapshot().await.expect("it is readable").deployments[0].finished_at, finished);
    let row = &store.history(None, 1).await.expect("it is readable")[0];
    t.did("steps", Ok(serde_json::to_string(&row.steps).expect("logs are JSON")));
    t.did("write", store.write(&lease, &[step("d2", log("clone", "deployed"))]).await);
    t.expect(
        r#"
        lock r1: token 1
        write: ok
        deployment d1: web c0ffee web:c0ffee queued
        lock: r1, token 1
        write: ok
        deployment d1: web c0ffee web:c0ffee building
        lock: r1, token 1
        write: ok
        deployment d1: web c0ffee web:c0ffee building
        lock: r1, token 1
        write: ok
        deployment d1: web c0ffee web:c0ffee deployed finished
        lock: r1, token 1
        write: ok
        deployment d1: web c0ffee web:c0ffee rolled_back finished, error to web:0
        lock: r1, token 1
        steps: [{"step":"clone","status":"deployed","durationMs":12,"output":"of \"clone\"\n"},{"step":"build","status":"deployed","durationMs":12,"output":"of \"build\"\n"},{"step":"build","status":"failed","durationMs":12,"output":"of \"build\"\n"}]
        write: broken: there is no deployment "d2"
        "#,
    );
}

pub async fn a_forge_keeps_one_entry_a_step(backend: &dyn Backend) {
    let mut t = Trace::default();
    let (lease, store) = t.lock(backend, "r1").await;
    let app = app("web");
    let started = |status| Change::ForgeStarted { app: app.clone(), status };
    let step = |step: &str, status: &str| Change::ForgeStep { app: app.clone(), log: log(step, status) };
    let ended = |status, error: &str, resources| {
        let error = error.into();
        Change::ForgeEnded { app: app.clone(), status, error, resources }
    };
    t.did("write", store.write(&lease, &[step("create-secret", "running")]).await);
    for changes in [
        vec![
            started(ForgeStatus::Forging),
            step("create-secret", "running"),
            step("create-secret", "completed"),
        ],
        vec![step("create-service", "skipped"), step("create-secret", "failed")],
        vec![ended(ForgeStatus::Forged, "", Some(json!({"hosts": ["web"]})))],
        vec![started(ForgeStatus::TearingDown)],
        vec![ended(ForgeStatus::ForgeFailed, "no such host", None)],
    ] {
        t.did("write", store.write(&lease, &changes).await);
        t.show(&*store).await;
        let steps = backend.ask("SELECT steps FROM forge_states").await;
        let steps: Vec<StepLog> = serde_json::from_str(&steps).expect("the column holds step logs");
        let steps = steps.iter().map(|log| format!(" {} {}", log.step, log.status));
        t.did("steps", Ok(steps.collect::<Vec<_>>().concat()));
    }
    t.expect(
        r#"
        lock r1: token 1
        write: broken: there is no forge "web"
        write: ok
        forge web: forging {} started
        lock: r1, token 1
        steps:  create-secret completed
        write: ok
        forge web: forging {} started
        lock: r1, token 1
        steps:  create-secret completed create-service skipped create-secret failed
        write: ok
        forge web: forged {"hosts":["web"]} started finished
        lock: r1, token 1
        steps:  create-secret completed create-service skipped create-secret failed
        write: ok
        forge web: tearing_down {"hosts":["web"]} started
        lock: r1, token 1
        steps: 
        write: ok
        forge web: forge_failed {"hosts":["web"]} started finished, error no such host
        lock: r1, token 1
        steps: 
        "#,
    );
}

pub async fn a_step_is_pending_until_it_ends(backend: &dyn Backend) {
    let mut t = Trace::default();
    let (lease, store) = t.lock(backend, "r1").await;
    t.did("write", store.write(&lease, &[operation("o1")]).await.is_err());
    let detail = |detail| Change::StepDetail { id: "s1".into(), detail };
    let step_ended = Change::StepEnded { id: "s1".into(), outcome: "deployed".into() };
    let ended = [
        Change::OperationEnded { id: "o1".into(), outcome: "done".into() },
        Change::RunEnded { outcome: "done".into() },
    ];
    for changes in [
        vec![Change::RunStarted { command: "norn apply".into() }, operation("o1"), step_started("s1", "o1")],
        vec![detail(json!({"pid": 9, "was": {"b": 1}})), detail(json!({"was": {"c": null}, "pid": 10}))],
        vec![step_ended.clone()],
        ended.to_vec(),
    ] {
        t.did("write", store.write(&lease, &changes).await);
        t.show(&*store).await;
    }
    t.did("write", store.write(&lease, &[step_ended]).await);
    t.did("write", store.write(&lease, &[detail(json!({}))]).await);
    t.did("write", store.write(&lease, &ended).await);
    t.did("write", store.write(&lease, &ended[1..]).await);
    t.expect(
        r#"
        lock r1: token 1
        write: true
        write: ok
        run r1: ana@box pid 7, norn apply, token 1
        operation o1 of r1: deploy deploy/web {"tag":"web:c0ffee"}
        pending s1 of o1: build key-s1 {"deadline":30}
        lock: r1, token 1
        write: ok
        run r1: ana@box pid 7, norn apply, token 1
        operation o1 of r1: deploy deploy/web {"tag":"web:c0ffee"}
        pending s1 of o1: build key-s1 {"deadline":30,"pid":10,"was":{"c":null}}
        lock: r1, token 1
        write: ok
        run r1: ana@box pid 7, norn apply, token 1
        operation o1 of r1: deploy deploy/web {"tag":"web:c0ffee"}
        lock: r1, token 1
        write: ok
        an empty store
        lock: r1, token 1
        write: broken: there is no unended step "s1"
        write: broken: there is no unended step "s1"
        write: broken: there is no unended operation "o1"
        write: broken: there is no unended run "r1"
        "#,
    );
}

pub async fn a_dead_run_is_buried_with_what_it_left(backend: &dyn Backend) {
    let mut t = Trace::default();
    let (lease, store) = t.lock(backend, "r1").await;
    let left = [
        Change::RunStarted { command: "norn apply".into() },
        operation("o1"),
        step_started("s1", "o1"),
        operation("o2"),
        step_started("s2", "o2"),
        Change::OperationEnded { id: "o2".into(), outcome: "done".into() },
    ];
    t.did("write", store.write(&lease, &left).await);
    t.did("unlock", store.unlock(&lease).await);
    let (lease, store) = t.lock(backend, "r2").await;
    let own =
        [Change::RunStarted { command: "norn apply".into() }, operation("o3"), step_started("s3", "o3")];
    t.did("write", store.write(&lease, &own).await);
    t.show(&*store).await;
    for _ in 0..2 {
        t.did("bury", store.write(&lease, &[Change::RunBuried { run: "r1".into() }]).await);
        t.show(&*store).await;
    }
    for table in ["norn_runs", "norn_operations", "norn_steps"] {
        let dead = format!("SELECT count(*) FROM {table} WHERE outcome = 'dead' AND ended_at IS NOT NULL");
        t.did(table, Ok(backend.ask(&dead).await));
    }
    t.expect(
        r#"
        lock r1: token 1
        write: ok
        unlock: ok
        lock r2: token 2
        write: ok
        run r1: ana@box pid 7, norn apply, token 1
        run r2: ana@box pid 7, norn apply, token 2
        operation o1 of r1: deploy deploy/web {"tag":"web:c0ffee"}
        operation o3 of r2: deploy deploy/web {"tag":"web:c0ffee"}
        pending s1 of o1: build key-s1 {"deadline":30}
        pending s2 of o2: build key-s2 {"deadline":30}
        pending s3 of o3: build key-s3 {"deadline":30}
        lock: r2, token 2
        bury: ok
        run r2: ana@box pid 7, norn apply, token 2
        operation o3 of r2: deploy deploy/web {"tag":"web:c0ffee"}
        pending s3 of o3: build key-s3 {"deadline":30}
        lock: r2, token 2
        bury: ok
        run r2: ana@box pid 7, norn apply, token 2
        operation o3 of r2: deploy deploy/web {"tag":"web:c0ffee"}
        pending s3 of o3: build key-s3 {"deadline":30}
        lock: r2, token 2
        norn_runs: 1
        norn_operations: 1
        norn_steps: 2
        "#,
    );
}

pub async fn a_record_is_what_was_put_last(backend: &dyn Backend) {
    let mut t = Trace::default();
    let (lease, store) = t.lock(backend, "r1").await;
    let removed = Change::RecordRemoved { address: Address::forge(&app("web")) };
    for changes in
        [vec![put("web", 1), put("api", 1)], vec![put("web", 2)], vec![removed.clone()], vec![removed]]
    {
        t.did("write", store.write(&lease, &changes).await);
        t.show(&*store).await;
    }
    t.expect(
        r#"
        lock r1: token 1
        write: ok
        record forge/api: {"version":1} digest 1
        record forge/web: {"version":1} digest 1
        lock: r1, token 1
        write: ok
        record forge/api: {"version":1} digest 1
        record forge/web: {"version":2} digest 2, protected
        lock: r1, token 1
        write: ok
        record forge/api: {"version":1} digest 1
        lock: r1, token 1
        write: ok
        record forge/api: {"version":1} digest 1
        lock: r1, token 1
        "#,
    );
}

pub async fn an_artifact_is_kept_until_it_is_forgotten(backend: &dyn Backend) {
    let mut t = Trace::default();
    let (lease, store) = t.lock(backend, "r1").await;
    t.did("write", store.write(&lease, &[kept("d1", "web"), kept("d2", "api"), kept("d3", "web")]).await);
    t.did("again", store.write(&lease, &[kept("d1", "web")]).await);
    t.show(&*store).await;
    let forgotten = Change::ArtifactsForgotten { app: app("web"), kind: ArtifactKind::Release };
    t.did("forgotten", store.write(&lease, std::slice::from_ref(&forgotten)).await);
    t.did("again", store.write(&lease, &[forgotten]).await);
    t.did("renamed", store.write(&lease, &[Change::AppRenamed { from: app("api"), to: app("app") }]).await);
    t.show(&*store).await;
    t.expect(
        r#"
        lock r1: token 1
        write: ok
        again: ok
        release web:d1 of web: d1 {"tag":"web:d1"}
        release api:d2 of api: d2 {"tag":"api:d2"}
        release web:d3 of web: d3 {"tag":"web:d3"}
        lock: r1, token 1
        forgotten: ok
        again: ok
        renamed: ok
        release api:d2 of app: d2 {"tag":"api:d2"}
        lock: r1, token 1
        "#,
    );
}

pub async fn what_is_live_is_kept_where_an_older_norn_made_it(backend: &dyn Backend) {
    let mut t = Trace::default();
    let (lease, store) = t.lock(backend, "r1").await;
    let live = |name: &str, body: serde_json::Value| {
        let record = Record { body, digest: "1".into(), protected: false };
        Change::RecordPut { address: Address::deploy(&app(name)), record }
    };
    let known = [
        live("web", json!({ "version": 1, "tag": "web:one", "deployment": "d1" })),
        live("odd", json!({ "version": 1 })),
        put("web", 1),
    ];
    t.did("write", store.write(&lease, &known).await);
    t.did("unlock", store.unlock(&lease).await);
    backend.sql("DROP TABLE norn_artifacts").await;
    backend.sql("UPDATE norn_meta SET value = '3' WHERE key = 'schema'").await;
    let (_, store) = t.lock(backend, "r2").await;
    t.show(&*store).await;
    t.expect(
        r#"
        lock r1: token 1
        write: ok
        unlock: ok
        lock r2: token 2
        record forge/web: {"version":1} digest 1
        record deploy/odd: {"version":1} digest 1
        record deploy/web: {"deployment":"d1","tag":"web:one","version":1} digest 1
        release web:one of web: d1 {"deployment":"d1","tag":"web:one","version":1}
        lock: r2, token 2
        "#,
    );
}

pub async fn a_write_is_all_or_nothing(backend: &dyn Backend) {
    let mut t = Trace::default();
    let (lease, store) = t.lock(backend, "r1").await;
    t.did(
        "write",
        store.write(&lease, &[put("web", 1), queued("d1", "web"), step("d9", log("a", "b"))]).await,
    );
    t.show(&*store).await;
    t.did("write", store.write(&lease, &[queued("d1", "web")]).await);
    t.did("twice", store.write(&lease, &[put("web", 1), queued("d1", "web")]).await.is_err());
    t.show(&*store).await;
    t.expect(
        r#"
        lock r1: token 1
        write: broken: there is no deployment "d9"
        an empty store
        lock: r1, token 1
        write: ok
        twice: true
        deployment d1: web c0ffee web:c0ffee queued
        lock: r1, token 1
        "#,
    );
}

pub async fn a_renamed_app_keeps_its_rows(backend: &dyn Backend) {
    let mut t = Trace::default();
    let (lease, store) = t.lock(backend, "r1").await;
    let forging = |name| Change::ForgeStarted { app: app(name), status: ForgeStatus::Forging };
    let known = [put("old", 1), put("other", 1), queued("d1", "old"), queued("d2", "other"), forging("old")];
    t.did("write", store.write(&lease, &known).await);
    let renamed = |from, to| Change::AppRenamed { from: app(from), to: app(to) };
    t.did("rename", store.write(&lease, &[renamed("old", "new")]).await);
    t.show(&*store).await;
    t.did("onto another", store.write(&lease, &[renamed("new", "other")]).await.is_err());
    t.show(&*store).await;
    let new = store.history(Some(&app("new")), 9).await.expect("it is readable");
    t.did("history", Ok(new.len()));
    // A name that an app had which is gone: its deployments stay, and are this one's history too.
    let end = Change::ForgeEnded {
        app: app("other"),
        status: ForgeStatus::Unforged,
        error: String::new(),
        resources: None,
    };
    let gone = [forging("other"), Change::RecordRemoved { address: Address::forge(&app("other")) }, end];
    t.did("gone", store.write(&lease, &gone).await);
    t.did("onto what is gone", store.write(&lease, &[renamed("new", "other")]).await);
    t.show(&*store).await;
    t.expect(
        r#"
        lock r1: token 1
        write: ok
        rename: ok
        record forge/new: {"version":1} digest 1
        record forge/other: {"version":1} digest 1
        deployment d1: new c0ffee web:c0ffee queued
        deployment d2: other c0ffee web:c0ffee queued
        forge new: forging {} started
        lock: r1, token 1
        onto another: true
        record forge/new: {"version":1} digest 1
        record forge/other: {"version":1} digest 1
        deployment d1: new c0ffee web:c0ffee queued
        deployment d2: other c0ffee web:c0ffee queued
        forge new: forging {} started
        lock: r1, token 1
        history: 1
        gone: ok
        onto what is gone: ok
        record forge/other: {"version":1} digest 1
        deployment d1: other c0ffee web:c0ffee queued
        deployment d2: other c0ffee web:c0ffee queued
        forge other: forging {} started
        lock: r1, token 1
        "#,
    );
}

pub async fn history_is_newest_first(backend: &dyn Backend) {
    let mut t = Trace::default();
    let (lease, store) = t.lock(backend, "r1").await;
    // In one write, hence of one moment: then the order of writing decides.
    let rows =
        [queued("d1", "web"), queued("d2", "api"), queued("d3", "web"), step("d3", log("clone", "skipped"))];
    t.did("write", store.write(&lease, &rows).await);
    let ids = |rows: Vec<Deployment>| {
        let ids = rows.iter().map(|row| format!("{} ({} steps)", row.id, row.steps.len()));
        ids.collect::<Vec<_>>().join(", ")
    };
    t.did("all", store.history(None, 10).await.map(ids));
    t.did("two", store.history(None, 2).await.map(ids));
    t.did("web", store.history(Some(&app("web")), 10).await.map(ids));
    t.did("web, one", store.history(Some(&app("web")), 1).await.map(ids));
    t.did("none", store.history(Some(&app("db")), 1).await.map(ids));
    t.expect(
        "
        lock r1: token 1
        write: ok
        all: d3 (1 steps), d2 (0 steps), d1 (0 steps)
        two: d3 (1 steps), d2 (0 steps)
        web: d3 (1 steps), d1 (0 steps)
        web, one: d3 (1 steps)
        none: 
        ",
    );
}
