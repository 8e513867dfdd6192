//! The tables of the database: those that are published, adopting v1's, refusing others'.

use super::*;
use crate::state::conformance::trace::{app, holder, put, queued};
use crate::state::{DeploymentStatus, StepLog, seed};

/// The published tables as they are published: name, type, default; what is not null is so marked.
const PUBLISHED: &str = "
deployments
  id text not null
  app text not null
  commit_sha text not null default ''
  image_tag text not null default ''
  status text not null default 'queued'
  steps jsonb not null default '[]'
  error text not null default ''
  started_at timestamp with time zone not null default now()
  finished_at timestamp with time zone
  deployments_pkey (id) unique
  idx_deployments_app (app)
  idx_deployments_status (status)
forge_states
  app text not null
  status text not null default 'unforged'
  steps jsonb not null default '[]'
  resources jsonb not null default '{}'
  error text not null default ''
  started_at timestamp with time zone
  finished_at timestamp with time zone
  forge_states_pkey (app) unique
health_checks
  id text not null
  app text not null
  healthy boolean not null
  response_ms integer not null default 0
  checked_at timestamp with time zone not null default now()
  health_checks_pkey (id) unique
  idx_health_checks_app_time (app, checked_at DESC)
cron_executions
  id bigint not null default nextval('cron_executions_id_seq')
  app text not null
  image_tag text not null default ''
  status text not null default 'running'
  exit_code integer not null default -1
  output text not null default ''
  duration_ms bigint not null default 0
  started_at timestamp with time zone not null default now()
  finished_at timestamp with time zone
  cron_executions_pkey (id) unique
func_executions
  id bigint not null default nextval('func_executions_id_seq')
  app text not null
  image_tag text not null default ''
  status text not null default 'running'
  exit_code integer not null default -1
  output text not null default ''
  duration_ms bigint not null default 0
  started_at timestamp with time zone not null default now()
  finished_at timestamp with time zone
  func_executions_pkey (id) unique
cron_states
  app text not null
  schedule text not null default ''
  paused boolean not null default false
  next_run_at timestamp with time zone
  updated_at timestamp with time zone not null default now()
  cron_states_pkey (app) unique
cluster_nodes
  id text not null
  name text not null
  provider text not null
  region text not null default ''
  size text not null default ''
  role text not null default 'agent'
  public_ip text not null default ''
  tailscale_ip text not null default ''
  status text not null default 'provisioning'
  provider_id text not null default ''
  error text not null default ''
  created_at timestamp with time zone not null default now()
  updated_at timestamp with time zone not null default now()
  cluster_nodes_pkey (id) unique
";

async fn locked(base: &Base) -> (PostgresStore, Lease) {
    let store = shop(base);
    let lease = store.lock(&holder("r1"), Duration::ZERO).await.expect("nobody holds the lease");
    (store, lease)
}

#[tokio::test]
async fn the_published_tables_are_as_published() {
    let Some(base) = Base::new() else { return };
    locked(&base).await;
    let mut text = String::from("\n");
    for table in &seed::TABLES {
        let columns = base.database.sql(&format!(
            "SELECT column_name || ' ' || data_type || CASE is_nullable WHEN 'NO' THEN ' not null' ELSE '' END \
             || coalesce(' default ' || regexp_replace(regexp_replace(column_default, '''(-?[0-9]+)''::integer', '\\1'), '::(text|jsonb|regclass)', '', 'g'), '') \
             FROM information_schema.columns WHERE table_schema = 'public' AND table_name = '{}' \
             ORDER BY ordinal_position",
            table.name
        ));
        let indexes = base.database.sql(&format!(
            "SELECT indexname || ' ' || substring(indexdef FROM '\\(.*') || \
             CASE WHEN indexdef LIKE '%UNIQUE%' THEN ' unique' ELSE '' END \
             FROM pg_indexes WHERE schemaname = 'public' AND tablename = '{}' ORDER BY indexname",
            table.name
        ));
        text += &format!("{}\n", table.name);
        columns.lines().chain(indexes.lines()).for_each(|line| text += &format!("  {line}\n"));
    }
    assert_eq!(text, PUBLISHED);
}

/// Tables as v1 left them: complete, with ids of their own type, columns of their own, a table more.
const V1: &str = "
    CREATE EXTENSION IF NOT EXISTS pgcrypto;
    CREATE TABLE deployments (id UUID PRIMARY KEY DEFAULT gen_random_uuid(), app VARCHAR(80) NOT NULL,
        commit_sha TEXT NOT NULL DEFAULT '', image_tag TEXT NOT NULL DEFAULT '', status TEXT NOT NULL DEFAULT 'queued',
        steps JSONB, error TEXT, started_at TIMESTAMPTZ NOT NULL DEFAULT now(), finished_at TIMESTAMPTZ, capabilities TEXT);
    CREATE TABLE forge_states (app TEXT PRIMARY KEY, status TEXT NOT NULL DEFAULT 'unforged', steps JSONB NOT NULL DEFAULT '[]',
        resources JSONB NOT NULL DEFAULT '{}', error TEXT NOT NULL DEFAULT '', started_at TIMESTAMPTZ, finished_at TIMESTAMPTZ);
    CREATE TABLE health_checks (id UUID PRIMARY KEY, app TEXT NOT NULL, healthy BOOLEAN NOT NULL, response_ms INT, checked_at TIMESTAMPTZ);
    CREATE TABLE cron_executions (id BIGSERIAL PRIMARY KEY, app TEXT, image_tag TEXT, status TEXT, exit_code INT,
        output TEXT, duration_ms BIGINT, started_at TIMESTAMPTZ, finished_at TIMESTAMPTZ);
    CREATE TABLE func_executions (id BIGSERIAL PRIMARY KEY, app TEXT, image_tag TEXT, status TEXT, exit_code INT,
        output TEXT, duration_ms BIGINT, started_at TIMESTAMPTZ, finished_at TIMESTAMPTZ);
    CREATE TABLE cron_states (app TEXT PRIMARY KEY, schedule TEXT, paused BOOLEAN, next_run_at TIMESTAMPTZ, updated_at TIMESTAMPTZ);
    CREATE TABLE cluster_nodes (id UUID PRIMARY KEY, name TEXT, provider TEXT, region TEXT, size TEXT, role TEXT,
        public_ip TEXT, tailscale_ip TEXT, status TEXT, provider_id TEXT, error TEXT, created_at TIMESTAMPTZ, updated_at TIMESTAMPTZ);
    CREATE TABLE beacon_events (id INT);
    INSERT INTO deployments VALUES ('11111111-0000-4000-8000-000000000001', 'web', 'HEAD', 'web:pending', 'building', NULL, NULL,
        '2026-02-09 13:00:00+01', NULL, 'x');
    INSERT INTO deployments VALUES ('11111111-0000-4000-8000-000000000002', 'web', 'HEAD', 'web:1', 'deployed',
        '[{\"step\":\"clone\",\"status\":\"deployed\"}]', '', '2026-02-10 12:00:00Z', '2026-02-10 12:01:00Z', 'y');
    INSERT INTO cluster_nodes (id, status) VALUES ('22222222-0000-4000-8000-000000000001', 'failed');";

#[tokio::test]
async fn a_v1_database_is_adopted_and_its_own_columns_left_alone() {
    let Some(base) = Base::new() else { return };
    base.database.sql(V1);
    let unread = shop(&base).snapshot().await.expect_err("it is not upgraded yet").to_string();
    assert!(unread.contains("older schema (0,") && unread.contains("norn state upgrade"), "{unread}");
    let (store, lease) = locked(&base).await;
    let snapshot = store.snapshot().await.expect("it is readable");
    let read: Vec<_> = snapshot.deployments.iter().map(|row| (row.image_tag.as_str(), row.status)).collect();
    assert_eq!(read, [("web:pending", DeploymentStatus::Building), ("web:1", DeploymentStatus::Deployed)]);
    assert_eq!(snapshot.deployments[0].started_at.to_string(), "2026-02-09T12:00:00Z");
    // As recovery settles it: the id is of v1's type.
    let failed = Change::DeploymentStatus {
        id: snapshot.deployments[0].id.clone(),
        status: DeploymentStatus::Failed,
        error: "norn restarted during deployment".into(),
    };
    let new = "33333333-0000-4000-8000-000000000003";
    store.write(&lease, &[failed, queued(new, "web")]).await.expect("the lease is current");
    let history = store.history(Some(&app("web")), 9).await.expect("it is readable");
    let clone =
        StepLog { step: "clone".into(), status: "deployed".into(), duration_ms: 0, output: "".into() };
    let rows: Vec<_> = history.iter().map(|row| (row.status.as_str(), row.steps.clone())).collect();
    assert_eq!(rows, [("queued", vec![]), ("deployed", vec![clone]), ("failed", vec![])]);
    let kept = base.database.sql("SELECT string_agg(capabilities, ',' ORDER BY started_at) FROM deployments");
    assert_eq!(kept, "x,y");
}

/// Both opening to read and to write refuse the database, and neither makes a table in it.
async fn refused(base: &Base, expected: &str) {
    let tables = "SELECT count(*) FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace WHERE n.nspname = 'public'";
    let before = base.database.sql(tables);
    let store = shop(base);
    let read = store.snapshot().await.expect_err("it is not norn's").to_string();
    let locked = store.lock(&holder("r1"), Duration::ZERO).await.expect_err("it is not norn's").to_string();
    for error in [read, locked] {
        assert!(error.contains(expected) && error.contains(&base.database.name), "{error}");
    }
    assert_eq!(base.database.sql(tables), before);
}

#[tokio::test]
async fn a_database_of_something_else_is_refused_untouched() {
    let Some(base) = Base::new() else { return };
    base.database.sql("CREATE TABLE deployments (id SERIAL PRIMARY KEY, pod TEXT)");
    refused(&base, "its table deployments lacks the column app").await;
    base.database.sql("DROP TABLE deployments; CREATE TABLE bookmarks (url TEXT)");
    refused(&base, "a database of something else, with a table bookmarks").await;
    base.database.sql("CREATE TABLE norn_meta (url TEXT)");
    refused(&base, "its norn_meta is not norn's").await;
}

#[tokio::test]
async fn a_schema_of_another_norn_is_told() {
    let Some(base) = Base::new() else { return };
    let (store, lease) = locked(&base).await;
    store.unlock(&lease).await.expect("it was held");
    base.database.sql("UPDATE norn_meta SET value = '99' WHERE key = 'schema'");
    refused(&base, "written by a newer norn (schema 99, this one knows").await;
    base.database.sql("UPDATE norn_meta SET value = '1' WHERE key = 'schema'");
    let error = shop(&base).snapshot().await.expect_err("it is older").to_string();
    assert!(error.contains("older schema (1,") && error.contains("norn state upgrade"), "{error}");
}

#[tokio::test]
async fn a_stage_has_a_schema_of_its_own() {
    let Some(base) = Base::new() else { return };
    let (prod, dev) = (base.store(scope("shop", Some("prod-eu"))), base.store(scope("shop", Some("dev"))));
    for (store, version) in [(&prod, 1), (&dev, 2)] {
        let lease = store.lock(&holder("r1"), Duration::ZERO).await.expect("each has a lease of its own");
        store.write(&lease, &[put("web", version)]).await.expect("the lease is current");
    }
    for (store, version) in [(&prod, "1"), (&dev, "2")] {
        let snapshot = store.snapshot().await.expect("it is readable");
        assert_eq!(snapshot.resources.values().map(|r| r.digest.as_str()).collect::<Vec<_>>(), [version]);
    }
    let schemas = "SELECT string_agg(DISTINCT schemaname, ',') FROM pg_tables WHERE tablename LIKE 'norn%'";
    assert_eq!(base.database.sql(schemas), "dev,prod-eu");
    assert!(!shop(&base).snapshot().await.expect("it is readable").exists);
    let other = base.store(scope("other", Some("dev")));
    let error = other.snapshot().await.expect_err("it is another project's").to_string();
    assert!(error.contains("belongs to project shop, stage dev, not to project other, stage dev"), "{error}");
}

#[tokio::test]
async fn what_there_is_no_right_to_write_is_told() {
    let Some(base) = Base::new() else { return };
    let (_, lease) = locked(&base).await;
    shop(&base).break_lock(lease.token).await.expect("it is held");
    // As a standby is; what is there can be read.
    base.database
        .sql(&format!("ALTER DATABASE {} SET default_transaction_read_only = on", base.database.name));
    let store = shop(&base);
    assert!(store.snapshot().await.expect("it is readable").exists);
    let error = store.lock(&holder("r1"), Duration::ZERO).await.expect_err("it is read-only").to_string();
    assert!(
        error.ends_with(
            "cannot be written: the server is a read-only replica; name the primary server, or name another place with --state"
        ),
        "{error}"
    );
}
