//! All of a store at once: out of one, into another, and what becomes of the one that was left.

use std::time::Duration;

use super::Backend;
use super::trace::{Trace, app, holder, kept, log, operation, put, queued, scope, shop, step, step_started};
use crate::address::Address;
use crate::secret::Secret;
use crate::state::dump::Cell;
use crate::state::{Change, DeploymentStatus, Dump, ForgeStatus, Lease, Store};

/// A store with rows in every table that norn writes.
async fn full(backend: &dyn Backend, t: &mut Trace) -> (Lease, Box<dyn Store>) {
    let (lease, store) = t.lock(backend, "r1").await;
    let changes = [
        Change::RunStarted { command: "norn apply".into() },
        operation("o1"),
        step_started("s1", "o1"),
        Change::StepEnded { id: "s1".into(), outcome: "deployed".into() },
        step_started("s2", "o1"),
        queued("d2", "web"),
        queued("d1", "api"),
        step("d1", log("clone", "deployed")),
        Change::DeploymentStatus { id: "d1".into(), status: DeploymentStatus::Failed, error: "no\n".into() },
        Change::ForgeStarted { app: app("web"), status: ForgeStatus::Forging },
        put("web", 2),
        put("api", 1),
        kept("d1", "api"),
    ];
    t.did("write", store.write(&lease, &changes).await);
    let rows = "INSERT INTO cron_states (app, schedule, next_run_at) VALUES ('tick', '* * * * *', '2026-02-03T04:05:06.700000Z');
        INSERT INTO cron_executions (id, app) VALUES (7, 'tick');
        INSERT INTO cron_executions (id, app) VALUES (12, 'tick')";
    for statement in rows.split(';') {
        backend.sql(statement).await;
    }
    (lease, store)
}

async fn dump(store: &dyn Store) -> Dump {
    store.export().await.expect("it is readable").expect("there is a store")
}

pub async fn an_export_is_of_all_rows(backend: &dyn Backend) {
    let mut t = Trace::default();
    t.did("nothing", shop(backend).export().await.map(|dump| dump.is_none()));
    let key = shop(backend).key().await.expect("the store can be founded");
    t.did("founded", shop(backend).export().await.map(|dump| dump.is_some_and(|dump| dump.is_empty())));
    let (lease, store) = full(backend, &mut t).await;
    let dump = dump(&*store).await;
    assert_eq!((&dump.key, dump.token, &dump.left_out), (&key, lease.token, &vec![]));
    let text = String::from_utf8(dump.bytes()).expect("JSON is a text");
    for line in text.lines().skip(1) {
        t.did("", Ok(line.to_owned()));
    }
    t.expect(
        r#"
        nothing: true
        founded: true
        lock r1: token 1
        write: ok
        : "tables":{
        : "deployments":[
        : {"id":"d2","app":"web","commit_sha":"c0ffee","image_tag":"web:c0ffee","status":"queued","steps":[],"error":"","started_at":"<time>","finished_at":null},
        : {"id":"d1","app":"api","commit_sha":"c0ffee","image_tag":"web:c0ffee","status":"failed","steps":[{"durationMs":12,"output":"of \"clone\"\n","status":"deployed","step":"clone"}],"error":"no\n","started_at":"<time>","finished_at":"<time>"}],
        : "forge_states":[
        : {"app":"web","status":"forging","steps":[],"resources":{},"error":"","started_at":"<time>","finished_at":null}],
        : "health_checks":[],
        : "cron_executions":[
        : {"id":7,"app":"tick","image_tag":"","status":"running","exit_code":-1,"output":"","duration_ms":0,"started_at":"<time>","finished_at":null},
        : {"id":12,"app":"tick","image_tag":"","status":"running","exit_code":-1,"output":"","duration_ms":0,"started_at":"<time>","finished_at":null}],
        : "func_executions":[],
        : "cron_states":[
        : {"app":"tick","schedule":"* * * * *","paused":false,"next_run_at":"<time>","updated_at":"<time>"}],
        : "cluster_nodes":[],
        : "norn_runs":[
        : {"id":"r1","who":"ana@box","machine_id":"elsewhere","boot_id":"b","pid_namespace":"n","pid":7,"start_time":8,"job_url":"https://ci.example/r1","reason":"norn apply","command":"norn apply","token":1,"started_at":"<time>","heartbeat_at":"<time>","ended_at":null,"outcome":""}],
        : "norn_operations":[
        : {"id":"o1","run":"r1","address":"deploy/web","action":"deploy","intent":{"tag":"web:c0ffee"},"started_at":"<time>","ended_at":null,"outcome":"","plan":"","forge_after":null,"deploy_after":null}],
        : "norn_steps":[
        : {"id":"s1","operation":"o1","step":"build","key":"key-s1","detail":{"deadline":30},"started_at":"<time>","ended_at":"<time>","outcome":"deployed"},
        : {"id":"s2","operation":"o1","step":"build","key":"key-s2","detail":{"deadline":30},"started_at":"<time>","ended_at":null,"outcome":""}],
        : "norn_resources":[
        : {"address":"forge/api","body":{"version":1},"digest":"1","protected":false,"updated_at":"<time>"},
        : {"address":"forge/web","body":{"version":2},"digest":"2","protected":true,"updated_at":"<time>"}],
        : "norn_artifacts":[
        : {"id":"d1","app":"api","kind":"release","name":"api:d1","body":{"tag":"api:d1"},"bytes":null,"created_at":"<time>"}]
        : }}
        "#,
    );
}

pub async fn an_import_is_what_was_exported(backend: &dyn Backend) {
    let mut t = Trace::default();
    let (lease, store) = full(backend, &mut t).await;
    let mut dump = dump(&*store).await;
    t.did("into itself", store.import(&lease, &dump).await);
    t.did("unlock", store.unlock(&lease).await);
    t.expect(
        "
        lock r1: token 1
        write: ok
        into itself: deployments has rows
        unlock: ok
        ",
    );
    backend.clear().await;
    // Tokens go by the clock's seconds: this one is to differ from r1's.
    tokio::time::sleep(Duration::from_millis(1100)).await;

    let mut t = Trace::default();
    let (lease, store) = t.lock(backend, "r2").await;
    let mut other = dump.clone();
    other.scope = scope("other", None);
    t.did("of another project", store.import(&lease, &other).await);
    t.show(&*store).await;
    // A clock that was ahead where the dump was made.
    dump.token += 1_000_000;
    t.did("import", store.import(&lease, &dump).await);
    t.did("then write", store.write(&lease, &[put("web", 3)]).await);
    t.did("unlock", store.unlock(&lease).await);
    let copy = self::dump(&*shop(backend)).await;
    assert_eq!(copy.bytes(), dump.bytes());
    assert!(copy.same_as(&dump));
    let (next, store) = t.lock(backend, "r3").await;
    assert_eq!(next.token, dump.token + 1);
    t.show(&*store).await;
    t.did("history", store.history(None, 9).await.map(|rows| rows[0].id.clone()));
    // Rows that are counted go on being counted.
    backend.sql("INSERT INTO cron_executions (app) VALUES ('tick')").await;
    t.did("counted", Ok(backend.ask("SELECT max(id) FROM cron_executions").await));
    t.expect(
        r#"
        lock r2: token 1
        of another project: of project other without a stage, not of project shop without a stage
        an empty store
        lock: r2, token 1
        import: ok
        then write: lease lost: this process does not hold it
        unlock: ok
        lock r3: token 2
        record forge/api: {"version":1} digest 1
        record forge/web: {"version":2} digest 2, protected
        deployment d2: web c0ffee web:c0ffee queued
        deployment d1: api c0ffee web:c0ffee failed finished, error no

        release api:d1 of api: d1 {"tag":"api:d1"}
        forge web: forging {} started
        run r1: ana@box pid 7, norn apply, token 3
        operation o1 of r1: deploy deploy/web {"tag":"web:c0ffee"}
        pending s2 of o1: build key-s2 {"deadline":30}
        lock: r3, token 2
        history: d1
        counted: 13
        "#,
    );
}

pub async fn a_dump_is_written_under_a_current_lease_or_not_at_all(backend: &dyn Backend) {
    let mut t = Trace::default();
    let (lease, store) = t.lock(backend, "r1").await;
    let mut dump = Dump::empty(scope("shop", None), Secret::new("a".repeat(64)), 1);
    let rows = &mut dump.tables[5];
    let time = Cell::Time("2026-02-03T04:05:06Z".parse().expect("a time"));
    let text = |text: &str| Cell::Text(text.into());
    rows.rows = vec![vec![text("tick"), text("* * * * *"), Cell::Boolean(true), Cell::Null, time]; 2];
    let key = store.key().await.expect("there is a key");
    t.did("one app twice", store.import(&lease, &dump).await.is_err());
    t.did("is empty", Ok(self::dump(&*store).await.is_empty()));
    assert_eq!(store.key().await.expect("there is a key"), key);
    dump.tables[5].rows.pop();
    t.did("break", store.break_lock(lease.token).await);
    t.did("broken", store.import(&lease, &dump).await);
    t.did("is empty", Ok(self::dump(&*store).await.is_empty()));
    let (lease, store) = t.lock(backend, "r2").await;
    t.did("import", store.import(&lease, &dump).await);
    t.did("paused", Ok(backend.ask("SELECT count(*) FROM cron_states WHERE paused").await));
    assert_eq!(store.key().await.expect("there is a key"), dump.key);
    t.expect(
        "
        lock r1: token 1
        one app twice: true
        is empty: true
        break: true
        broken: lease lost: it was given back, or broken
        is empty: true
        lock r2: token 2
        import: ok
        paused: 1
        ",
    );
}

pub async fn a_store_that_moved_is_refused_wherever_it_is_used(backend: &dyn Backend) {
    let mut t = Trace::default();
    let (lease, store) = full(backend, &mut t).await;
    t.did("moved", store.mark_moved(&lease, "there").await);
    t.did("write", store.write(&lease, &[put("web", 3)]).await);
    t.did("unlock", store.unlock(&lease).await);
    let store = shop(backend);
    t.did("snapshot", store.snapshot().await.map(|_| ()));
    t.did("lock", store.lock(&holder("r2"), Duration::ZERO).await.map(|_| ()));
    t.did("key", store.key().await.map(|_| ()));
    t.did("break", store.break_lock(lease.token).await.map(|_| ()));
    t.did("history", store.history(None, 1).await.map(|_| ()));
    t.did("lease", store.lease().await.map(|_| ()));
    t.did("updated", store.updated().await.map(|_| ()));
    t.did("operations", store.operations(&Address::forge(&app("web")), 1).await.map(|_| ()));
    t.did("export", store.export().await.map(|_| ()));
    t.expect(
        "
        lock r1: token 1
        write: ok
        moved: ok
        write: lease lost: this process does not hold it
        unlock: ok
        snapshot: moved to there
        lock: moved to there
        key: moved to there
        break: moved to there
        history: moved to there
        lease: moved to there
        updated: moved to there
        operations: moved to there
        export: moved to there
        ",
    );
}

pub async fn the_lease_row_is_told(backend: &dyn Backend) {
    let mut t = Trace::default();
    t.did("nothing", shop(backend).lease().await.map(|row| row.is_none()));
    let (lease, store) = t.lock(backend, "r1").await;
    let row = shop(backend).lease().await.expect("it is readable").expect("there is a store");
    let held = row.held.expect("it is held");
    assert_eq!((row.token, held.holder), (lease.token, holder("r1")));
    assert!(held.acquired_at <= row.now && row.now < held.expires_at, "by one clock");
    t.did("unlock", store.unlock(&lease).await);
    let row = shop(backend).lease().await.expect("it is readable").expect("there is a store");
    assert_eq!((row.token, row.held), (lease.token, None));
    t.expect(
        "
        nothing: true
        lock r1: token 1
        unlock: ok
        ",
    );
}

pub async fn operations_of_an_address_are_newest_first(backend: &dyn Backend) {
    let mut t = Trace::default();
    let (lease, store) = t.lock(backend, "r1").await;
    let ended = Change::OperationEnded { id: "o1".into(), outcome: "done".into() };
    let changes = [
        Change::RunStarted { command: "norn apply".into() },
        operation("o1"),
        ended,
        operation("o2"),
        put("web", 1),
    ];
    t.did("write", store.write(&lease, &changes).await);
    let address = Address::deploy(&app("web"));
    for limit in [9, 1] {
        for row in store.operations(&address, limit).await.expect("it is readable") {
            let ended = if row.ended_at.is_some() { "ended" } else { "open" };
            let text = format!("{} by {}, {}: {ended} {}", row.action, row.who, row.command, row.outcome);
            t.did("operation", Ok(text));
        }
    }
    let none = store.operations(&Address::forge(&app("web")), 9).await;
    t.did("of another", none.map(|rows| rows.len()));
    let updated = store.updated().await.expect("it is readable");
    let now = store.lease().await.expect("it is readable").expect("there is a store").now;
    t.did("updated", Ok(updated.keys().map(ToString::to_string).collect::<Vec<_>>().join(" ")));
    assert!(updated.values().all(|time| *time <= now));
    t.expect(
        "
        lock r1: token 1
        write: ok
        operation: deploy by ana@box, norn apply: open 
        operation: deploy by ana@box, norn apply: ended done
        operation: deploy by ana@box, norn apply: open 
        of another: 0
        updated: forge/web
        ",
    );
}
