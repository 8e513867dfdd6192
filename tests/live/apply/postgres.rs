//! Snapshots and migrations against a real PostgreSQL server.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;
use std::process::{Command, Stdio};

use sha2::{Digest, Sha256};

use crate::postgres_server::{PASSWORD, Server};
use crate::shared::skipped;
use crate::supervise::world::{free_port, kill};
use crate::support::{Sandbox, get, until, web};

fn spec(sandbox: &Sandbox, port: u16, version: &str, more: &str, url: bool) {
    let app = web(
        "web",
        port,
        &format!("env: {{VERSION: {version}}}\nservices: {{postgres: {{database: shop_api}}}}\n{more}"),
    );
    let server = if url { "postgres: {url: \"${ADMIN_URL}\"}\n" } else { "" };
    sandbox.write("web/version", version);
    sandbox.write("infraspec.yaml", &format!("version: 1\nproject: shop\n{server}apps:\n{app}"));
}

/// Checks the newest snapshot against what its step said, and returns its name.
fn check(sandbox: &Sandbox, server: &Server) -> String {
    let tag = sandbox.rows().pop().expect("a row").tag;
    let prefix = tag.replace("web:", "shop_api_");
    let name = sandbox.names("snapshots", &prefix).pop().expect("a snapshot");
    let path = sandbox.path(&format!("snapshots/{name}"));
    let (short, time) = name.strip_prefix("shop_api_").expect("so").split_once('_').expect("a time");
    assert_eq!(short.len(), 12, "{name}");
    let time = time.strip_suffix(".dump").expect("the ending");
    assert!(jiff::fmt::strtime::parse("%Y%m%dT%H%M%SZ", time).is_ok(), "{time}");
    assert_eq!(fs::metadata(&path).expect("it is there").permissions().mode() & 0o777, 0o600);
    let listed =
        Command::new(server.program("pg_restore")).arg("--list").arg(&path).output().expect("it runs");
    assert!(listed.status.success() && String::from_utf8_lossy(&listed.stdout).contains("goods"));
    let digest = Sha256::digest(fs::read(&path).expect("it is read"));
    let digest: String = digest.iter().map(|byte| format!("{byte:02x}")).collect();
    let said = sandbox.rows().pop().expect("a row").output("snapshot");
    assert!(said.contains(&digest) && said.contains(&name), "{said}");
    name
}

#[test]
fn snapshots_and_migrations() {
    // Not the one that other tests use: whole tables and sessions are counted.
    let Some(server) = Server::start("") else {
        return skipped("snapshots of a database", "PostgreSQL is not installed");
    };
    server.sql("postgres", "CREATE DATABASE shop_api");
    server.sql("shop_api", "CREATE TABLE goods AS SELECT generate_series(1, 1000) AS id");
    let port = free_port();
    let mut sandbox = Sandbox::webserver(port, "");

    // By `postgres.url`, with TLS; the app's own URL serves its migrations.
    sandbox.env.insert("ADMIN_URL".into(), server.url("") + "?sslmode=require");
    sandbox.env.insert("PGPASSWORD".into(), "not-this-one".into());
    let own = server.url("shop_api");
    sandbox.env.insert("DATABASE_URL".into(), own.clone());
    let psql = server.program("psql").display().to_string();
    let migrate = |sql: &str| {
        format!(
            "secrets: [DATABASE_URL]\nmigrations: {{command: '{psql} -v ON_ERROR_STOP=1 -X \"$DATABASE_URL\" -c \"{sql}\"'}}"
        )
    };
    spec(&sandbox, port, "one", &migrate("CREATE TABLE users (id int)"), true);
    sandbox.ok("apply --yes");
    let first = check(&sandbox, &server);
    assert_eq!(server.sql("shop_api", "SELECT count(*) FROM users"), "0");
    let log = sandbox.read(".norn/logs/web/migrate.log") + &sandbox.read(".norn/logs/web/snapshot.log");
    assert!(!log.contains("p@ss") && !log.contains("p%40ss"), "{log}");

    // What fails: the old release serves, and nothing is left under a final name.
    let before = sandbox.names("snapshots", "");
    let failing = |sandbox: &mut Sandbox,
                   version: &str,
                   words: &[&str],
                   step: &str,
                   url: Option<String>,
                   more: &str| {
        if let Some(url) = &url {
            sandbox.env.insert("ADMIN_URL".into(), url.clone());
        }
        spec(sandbox, port, version, more, true);
        let ran = sandbox.fails("apply --yes", 3);
        for word in words {
            assert!(ran.err.contains(word), "{version} lacks {word}: {}", ran.err);
        }
        let row = sandbox.rows().pop().expect("a row");
        assert_eq!(row.steps().pop(), Some(format!("{step} failed")), "{version}");
        assert!(get(port, "/").expect("it serves").starts_with("one"), "{version}");
        if step == "snapshot" {
            assert_eq!(sandbox.names("snapshots", ""), before, "{version}");
        }
        assert!(!ran.err.contains("p@ss") && !ran.err.contains("p%40ss"), "{}", ran.err);
    };
    let nobody = format!("postgres://norn@127.0.0.1:{}/", free_port());
    failing(&mut sandbox, "away", &["refused", "postgres.url"], "snapshot", Some(nobody), "");
    let wrong = server.url("").replace("p%40ss", "wrong");
    failing(&mut sandbox, "wrong", &["password authentication failed"], "snapshot", Some(wrong), "");
    let other = "services: {postgres: {database: nowhere}}";
    sandbox.env.insert("ADMIN_URL".into(), server.url(""));
    let path = sandbox.env["PATH"].clone();
    spec(&sandbox, port, "nowhere", "", true);
    let text = sandbox.read("infraspec.yaml").replace("services: {postgres: {database: shop_api}}", other);
    sandbox.write("infraspec.yaml", &text);
    let ran = sandbox.fails("apply --yes", 3);
    assert!(ran.err.contains("\"nowhere\" does not exist"), "{}", ran.err);
    let bare = sandbox.path("bare");
    fs::create_dir(&bare).expect("made");
    for tool in ["sh", "git", "touch"] {
        let found = path.split(':').map(|dir| PathBuf::from(dir).join(tool)).find(|path| path.exists());
        std::os::unix::fs::symlink(found.expect("it is on PATH"), bare.join(tool)).expect("linked");
    }
    sandbox.env.insert("PATH".into(), bare.display().to_string());
    failing(&mut sandbox, "toolless", &["pg_dump"], "snapshot", Some(server.url("")), "");
    sandbox.env.insert("PATH".into(), path);
    failing(&mut sandbox, "broken", &["syntax error"], "migrate", None, &migrate("CREATE NONSENSE"));
    assert_eq!(server.sql("shop_api", "SELECT count(*) FROM users"), "0");

    // By PG*, for the dump and, without any URL, for migrations.
    sandbox.env.remove("DATABASE_URL");
    for (name, value) in [
        ("PGHOST", "127.0.0.1"),
        ("PGPORT", &server.port().to_string()),
        ("PGUSER", "norn"),
        ("PGPASSWORD", PASSWORD),
    ] {
        sandbox.env.insert(name.into(), value.into());
    }
    let say = format!("echo password $PGPASSWORD; {psql} -X shop_api -c \"CREATE TABLE more (id int)\"");
    spec(&sandbox, port, "pg", &format!("migrations: {{command: '{say}'}}"), false);
    sandbox.ok("apply --yes");
    assert_ne!(check(&sandbox, &server), first);
    assert_eq!(server.sql("shop_api", "SELECT count(*) FROM more"), "0");
    let said = sandbox.rows().pop().expect("a row").output("migrate");
    assert!(said.contains("password ***"), "{said}");

    // norn killed while it dumps: the lock holds up the dump.
    let psql = Command::new(server.program("psql"))
        .args(["-h", "127.0.0.1", "-p", &server.port().to_string(), "-U", "norn", "-Xc"])
        .args(["BEGIN; LOCK goods IN ACCESS EXCLUSIVE MODE; SELECT pg_sleep(60)", "shop_api"])
        .env("PGPASSWORD", PASSWORD)
        .stdout(Stdio::null())
        .spawn();
    let mut locker = psql.expect("psql runs");
    let locked = "SELECT count(*) FROM pg_locks WHERE mode = 'AccessExclusiveLock' AND granted";
    until("the table is locked", || server.sql("shop_api", locked) != "0");
    let before = sandbox.names("snapshots", "");
    spec(&sandbox, port, "killed", "", false);
    let mut norn = sandbox.spawn("apply --yes");
    until("the dump waits", || {
        server.sql("shop_api", "SELECT count(*) FROM pg_locks WHERE NOT granted") != "0"
    });
    kill(norn.id());
    norn.wait().expect("it is ours");
    assert_eq!(
        sandbox.names("snapshots", "shop_api_").iter().filter(|n| n.ends_with(".dump")).count(),
        before.len()
    );
    locker.kill().expect("it is ours");
    locker.wait().expect("it is ours");
    server.sql("postgres", "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE query LIKE '%pg_sleep%' AND pid <> pg_backend_pid()");
    sandbox.ok("apply --yes");
    check(&sandbox, &server);
    let names = sandbox.names("snapshots", "");
    assert_eq!(names.len(), before.len() + 1, "no half dump is left: {names:?}");
    sandbox.plan_is_empty();
}
