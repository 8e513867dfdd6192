//! The tables of the database: those that are published, adopting v1's, refusing others'.

use std::fs;

use super::*;
use crate::state::conformance::trace::{app, holder, operation, queued, scope, shop, step_started};
use crate::state::lock::TTL;
use crate::state::seed::Kind;
use crate::state::{DeploymentStatus, StepLog, seed};

/// The published tables with their types on SQLite: columns in order, the primary key's marked.
const PUBLISHED: &str = "
deployments: id TEXT PK, app TEXT, commit_sha TEXT, image_tag TEXT, status TEXT, steps TEXT, error TEXT, started_at TEXT, finished_at TEXT
  idx_deployments_app: app
  idx_deployments_status: status
forge_states: app TEXT PK, status TEXT, steps TEXT, resources TEXT, error TEXT, started_at TEXT, finished_at TEXT
health_checks: id TEXT PK, app TEXT, healthy INTEGER, response_ms INTEGER, checked_at TEXT
  idx_health_checks_app_time: app, checked_at DESC
cron_executions: id INTEGER PK, app TEXT, image_tag TEXT, status TEXT, exit_code INTEGER, output TEXT, duration_ms INTEGER, started_at TEXT, finished_at TEXT
func_executions: id INTEGER PK, app TEXT, image_tag TEXT, status TEXT, exit_code INTEGER, output TEXT, duration_ms INTEGER, started_at TEXT, finished_at TEXT
cron_states: app TEXT PK, schedule TEXT, paused INTEGER, next_run_at TEXT, updated_at TEXT
cluster_nodes: id TEXT PK, name TEXT, provider TEXT, region TEXT, size TEXT, role TEXT, public_ip TEXT, tailscale_ip TEXT, status TEXT, provider_id TEXT, error TEXT, created_at TEXT, updated_at TEXT
";

async fn locked(folder: &Folder) -> (Box<dyn Store>, Lease) {
    let store = shop(folder);
    let lease = store.lock(&holder("r1"), Duration::ZERO).await.expect("nobody holds the lease");
    (store, lease)
}

fn strings(conn: &Connection, sql: &str, of: &str) -> Vec<String> {
    let mut statement = conn.prepare(sql).expect("the query is right");
    let rows = statement.query_map([of], |row| row.get(0)).expect("the query runs");
    rows.collect::<Result<_, _>>().expect("texts")
}

#[tokio::test]
async fn the_published_tables_are_as_published() {
    let folder = Folder::new();
    locked(&folder).await;
    let conn = folder.conn();
    let mut text = String::from("\n");
    for table in &seed::TABLES {
        let columns =
            "SELECT name || ' ' || type || CASE pk WHEN 1 THEN ' PK' ELSE '' END FROM pragma_table_info(?1)";
        text += &format!("{}: {}\n", table.name, strings(&conn, columns, table.name).join(", "));
        let names = strings(&conn, "SELECT name FROM pragma_table_info(?1)", table.name);
        assert_eq!(names, table.columns.iter().map(|c| c.name).collect::<Vec<_>>(), "{}", table.name);
        let indexes = strings(
            &conn,
            "SELECT name FROM pragma_index_list(?1) WHERE origin = 'c' ORDER BY name",
            table.name,
        );
        for index in indexes {
            let columns = "SELECT name || CASE desc WHEN 1 THEN ' DESC' ELSE '' END FROM pragma_index_xinfo(?1) WHERE key";
            text += &format!("  {index}: {}\n", strings(&conn, columns, &index).join(", "));
        }
    }
    assert_eq!(text, PUBLISHED);
}

#[tokio::test]
async fn what_a_column_holds_is_what_its_table_says() {
    let folder = Folder::new();
    locked(&folder).await;
    let conn = folder.conn();
    for table in seed::all() {
        let columns = "SELECT name || ' ' || type || CASE WHEN \"notnull\" OR pk THEN '' ELSE ' or null' END \
                       FROM pragma_table_info(?1)";
        let typed = table.columns.iter().map(|column| {
            let kind = match column.kind {
                Kind::Text | Kind::Json | Kind::Time => "TEXT",
                Kind::Integer | Kind::Boolean => "INTEGER",
            };
            format!("{} {kind}{}", column.name, if column.nullable { " or null" } else { "" })
        });
        assert_eq!(strings(&conn, columns, table.name), typed.collect::<Vec<_>>(), "{}", table.name);
        assert!(table.column(table.key).is_some());
    }
}

#[tokio::test]
async fn an_export_of_an_adopted_database_names_what_it_leaves_out() {
    let folder = Folder::new();
    v1(&folder);
    let (store, _lease) = locked(&folder).await;
    let dump = store.export().await.expect("it is readable").expect("there is a store");
    let mut expected = vec!["beacon_events".to_owned()];
    expected.extend(seed::TABLES.iter().map(|table| format!("{}.capabilities", table.name)));
    expected.sort();
    assert_eq!(dump.left_out, expected);
    let text = String::from_utf8(dump.bytes()).expect("JSON is a text");
    let row = r#"{"id":"d1","app":"web","commit_sha":"HEAD","image_tag":"web:pending","status":"building","steps":null,"error":"","started_at":"2026-02-09T12:00:00.000000Z","finished_at":null}"#;
    assert!(text.contains(row), "{text}");
    folder.sql("UPDATE cron_executions SET exit_code = 'many'").await;
    let error = store.export().await.expect_err("it is no number").to_string();
    assert!(error.contains(r#"a row of cron_executions has the exit_code "many""#), "{error}");
}

/// Tables as v1 might have left them: complete, with columns of its own, and a table more.
fn v1(folder: &Folder) -> Connection {
    fs::create_dir(folder.path().parent().expect("it has a folder")).expect("the folder is new");
    let conn = folder.conn();
    for table in &seed::TABLES {
        let columns = table.columns.iter().map(|column| column.name).collect::<Vec<_>>().join(", ");
        conn.execute_batch(&format!("CREATE TABLE {} ({columns}, capabilities)", table.name))
            .expect("it is new");
    }
    let rows = "CREATE TABLE beacon_events (id);
         INSERT INTO deployments VALUES ('d1', 'web', 'HEAD', 'web:pending', 'building', 'null', NULL, '2026-02-09 12:00:00Z', NULL, 'x');
         INSERT INTO deployments VALUES ('d2', 'web', 'HEAD', 'web:1', 'deployed', '[{\"step\":\"clone\",\"status\":\"deployed\"}]', '', '2026-02-10T12:00:00Z', '2026-02-10T12:01:00Z', 'y');
         INSERT INTO cron_executions VALUES (1, 'cron', 'cron:latest', 'timed_out', 1, '', 5, '2026-02-09T12:00:00Z', NULL, 'z');";
    conn.execute_batch(rows).expect("the rows fit");
    conn
}

#[tokio::test]
async fn a_v1_database_is_adopted_and_its_own_columns_left_alone() {
    let folder = Folder::new();
    let conn = v1(&folder);
    let unread = shop(&folder).snapshot().await.expect_err("it is not upgraded yet").to_string();
    assert!(unread.contains("older schema (0,") && unread.contains("norn state upgrade"), "{unread}");
    let (store, lease) = locked(&folder).await;
    let snapshot = store.snapshot().await.expect("it is readable");
    let read: Vec<_> = snapshot.deployments.iter().map(|row| (row.id.as_str(), row.status)).collect();
    assert_eq!(read, [("d1", DeploymentStatus::Building), ("d2", DeploymentStatus::Deployed)]);
    store.write(&lease, &[queued("d3", "web")]).await.expect("the lease is current");
    let history = store.history(None, 9).await.expect("it is readable");
    let clone =
        StepLog { step: "clone".into(), status: "deployed".into(), duration_ms: 0, output: "".into() };
    let steps: Vec<_> = history.iter().map(|row| row.steps.clone()).collect();
    assert_eq!(steps, [vec![], vec![clone], vec![]]);
    let kept = strings(&conn, "SELECT capabilities FROM deployments WHERE app = ?1 AND id < 'd3'", "web");
    assert_eq!(kept, ["x", "y"]);
}

#[tokio::test]
async fn an_unknown_status_names_the_row() {
    let folder = Folder::new();
    let (store, lease) = locked(&folder).await;
    store.write(&lease, &[queued("d1", "web")]).await.expect("the lease is current");
    folder.sql("UPDATE deployments SET status = 'paused'").await;
    let error = store.snapshot().await.expect_err("nobody knows what paused is").to_string();
    assert!(error.contains(r#"the row "d1" of deployments has the status "paused""#), "{error}");
}

/// Both opening to read and to write refuse the file, and neither changes a byte of it.
async fn refused(folder: &Folder, expected: &str) {
    let before = fs::read(folder.path()).expect("it is there");
    let store = shop(folder);
    let read = store.snapshot().await.expect_err("it is not norn's").to_string();
    let locked = store.lock(&holder("r1"), Duration::ZERO).await.expect_err("it is not norn's").to_string();
    for error in [read, locked] {
        assert!(error.contains(expected) && error.contains("state.db"), "{error}");
    }
    assert_eq!(fs::read(folder.path()).expect("it is there"), before);
}

#[tokio::test]
async fn a_database_of_something_else_is_refused_untouched() {
    let folder = Folder::new();
    drop(v1(&folder));
    folder.sql("ALTER TABLE cron_states DROP COLUMN paused").await;
    refused(&folder, "its table cron_states lacks the column paused").await;

    let folder = Folder::new();
    fs::create_dir(folder.path().parent().expect("it has a folder")).expect("the folder is new");
    folder.sql("CREATE TABLE bookmarks (url)").await;
    refused(&folder, "a database of something else, with a table bookmarks").await;
    folder.sql("CREATE TABLE norn_meta (url)").await;
    refused(&folder, "its norn_meta is not norn's").await;

    fs::write(folder.path(), "a letter, not a database, and long enough to have a header of its own")
        .expect("it is ours");
    refused(&folder, "it is no SQLite database").await;
}

#[tokio::test]
async fn a_schema_of_another_norn_is_told() {
    let folder = Folder::new();
    let (store, lease) = locked(&folder).await;
    store.unlock(&lease).await.expect("it was held");
    folder
        .sql("UPDATE norn_meta SET value = '99' WHERE key = 'schema'; PRAGMA wal_checkpoint(truncate)")
        .await;
    refused(&folder, "written by a newer norn (schema 99, this one knows 4)").await;
    folder.sql("UPDATE norn_meta SET value = '1' WHERE key = 'schema'").await;
    let error = shop(&folder).snapshot().await.expect_err("it is older").to_string();
    assert!(error.contains("older schema (1, this norn writes 4); run `norn state upgrade`"), "{error}");
}

/// How many pages the log takes for the write of one step's outcome and the next one's intent.
async fn pages_of_a_step(folder: &Folder, rows: u32) -> u64 {
    let (store, lease) = locked(folder).await;
    store
        .write(&lease, &[Change::RunStarted { command: "norn apply".into() }, operation("o")])
        .await
        .expect("first");
    let id = |row: u32| format!("{row:08}");
    for from in (0..rows).step_by(500) {
        let some = (from..rows.min(from + 500)).flat_map(|row| {
            let step = step_started(&id(row), "o");
            [queued(&id(row), "web"), step, Change::StepEnded { id: id(row), outcome: "deployed".into() }]
        });
        store.write(&lease, &some.collect::<Vec<_>>()).await.expect("the lease is current");
    }
    let log = folder.path().with_extension("db-wal");
    let mut sizes = Vec::new();
    for row in rows..rows + 9 {
        folder.sql("PRAGMA wal_checkpoint(truncate)").await;
        let log_of_step =
            StepLog { step: "build".into(), status: "deployed".into(), duration_ms: 1, output: "".into() };
        let step = [
            step_started(&id(row), "o"),
            Change::DeploymentStep { id: id(rows / 2), log: log_of_step },
            Change::DeploymentStatus {
                id: id(rows / 2),
                status: DeploymentStatus::Building,
                error: "".into(),
            },
            Change::StepEnded { id: id(row), outcome: "deployed".into() },
        ];
        store.write(&lease, &step).await.expect("the lease is current");
        sizes.push(fs::metadata(&log).expect("the log is there").len() / 4096);
    }
    // A page that is split now and then costs more: the median step splits none.
    sizes.sort_unstable();
    sizes[sizes.len() / 2]
}

#[tokio::test]
async fn a_step_costs_the_same_at_ten_rows_and_at_ten_thousand() {
    let few = pages_of_a_step(&Folder::new(), 10).await;
    let many = pages_of_a_step(&Folder::new(), 10_000).await;
    assert_eq!(few, many, "pages written");
    assert!(few < 12, "{few}");
}

#[tokio::test]
async fn names_and_the_stage_come_back() {
    let folder = Folder::new();
    let open = || folder.open(scope("shop", Some("prod")));
    let lease = open().lock(&holder("r1"), Duration::ZERO).await.expect("nobody holds the lease");
    assert_eq!(lease, Lease { token: lease.token, run: "r1".into() });
    let held = open().snapshot().await.expect("it is readable").lock.expect("it is held");
    assert_eq!(held.holder, holder("r1"));
    assert_eq!(held.expires_at.duration_since(held.acquired_at), TTL.try_into().expect("it is short"));
    assert_eq!(open().history(Some(&app("web")), 1).await.expect("it is readable"), []);
}
