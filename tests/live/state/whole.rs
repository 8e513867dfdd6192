//! What a project does in its life, with its state in a database, behind a pooler, checked by TLS.

use super::Shop;
use crate::postgres_server::Pooler;
use crate::shared::free_port;
use crate::support::{get, until, web};

#[test]
fn behind_a_pooler_in_transaction_mode() {
    let Some(mut shop) = Shop::new("a state behind a pooler") else { return };
    let Some(pooler) = Pooler::start(shop.server) else { return };
    shop.state_is_at(&shop.database.url_at(pooler.port));
    lives(&shop, "127.0.0.1:POOLER", pooler.port);
}

#[test]
fn with_a_server_whose_certificate_is_checked() {
    let Some(mut shop) = Shop::new("a state with TLS") else { return };
    let authority = |name: &str| shop.server.folder().join(name).display().to_string();
    let url = shop.database.url();
    let checked = |name: &str| format!("{url}?sslmode=verify-full&sslrootcert={}", authority(name));
    let (good, foreign) = (checked("ca.crt"), checked("foreign.crt"));
    shop.state_is_at(&foreign);
    let ran = shop.sandbox.fails("plan", 1);
    assert!(ran.err.contains("is signed by nobody that"), "{}", ran.err);
    shop.state_is_at(&good);
    lives(&shop, "127.0.0.1:PORT", 0);
}

/// From the first plan to the end, of a project that is at `server`.
fn lives(shop: &Shop, server: &str, pooler: u16) {
    let plain = |text: &str| shop.plain(text).replace(&format!(":{pooler}/"), ":POOLER/");
    let first = |line: &str| {
        let out = plain(&shop.sandbox.ok(line).out);
        let first = out.lines().next().unwrap_or_default().to_owned();
        first.split('?').next().unwrap_or_default().to_owned()
    };
    shop.version("one", "build: {command: 'echo built'}");
    let place = format!("project shop · state postgres://norn@{server}/DB");
    assert!(first("plan").starts_with(&place), "{}", first("plan"));
    shop.sandbox.ok("apply --yes");
    shop.serves("one");
    shop.is_sound("after the first apply");
    let status = shop.sandbox.ok("status").out;
    assert!(status.contains("healthy") && status.contains("2/2"), "{status}");
    assert!(shop.sandbox.ok("history").out.contains("deployed"));
    assert!(shop.sandbox.ok("logs web").out.contains("starts one"));
    let replicas = shop.sandbox.processes_of("server.py");
    shop.sandbox.ok("restart web --yes");
    until("the old replicas have ended", || shop.sandbox.processes().len() == 3);
    assert!(shop.sandbox.processes_of("server.py").iter().all(|pid| !replicas.contains(pid)));
    shop.is_sound("after the restart");
    shop.version("two", "");
    shop.sandbox.ok("apply --yes");
    shop.serves("two");
    assert_eq!(shop.statuses(), "deployed deployed");
    shop.sandbox.ok("destroy --yes --confirm shop");
    assert!(get(shop.port, "/").is_err());
    assert_eq!(shop.sandbox.processes(), Vec::<u32>::new());
    assert_eq!(shop.database.sql("SELECT count(*) FROM norn_resources"), "0");
}

#[test]
fn two_stages_in_one_database_at_the_same_time() {
    let Some(shop) = Shop::new("stages in one database") else { return };
    let other = free_port();
    let stages = format!("stages:\n  test: {{}}\n  prod: {{apps: {{web: {{port: {other}}}}}}}\n");
    // Neither build ends before the other one runs: the locks are two.
    let build = "build: {command: 'cd ../../../../../..; touch $NORN_TEST_STAGE; \
                 until [ -e test -a -e prod ]; do sleep 0.05; done'}\n\
                 env: {NORN_TEST_STAGE: \"${NORN_TEST_STAGE}\"}";
    shop.sandbox.spec(&web("web", shop.port, build));
    let spec = shop.sandbox.read("infraspec.yaml");
    shop.sandbox.write("infraspec.yaml", &format!("{spec}{stages}"));
    let run = |stage: &'static str, line: &str| {
        let mut command = shop.sandbox.command(&format!("{line} --stage {stage}"));
        command.env("NORN_TEST_STAGE", stage);
        super::started(&mut command)
    };
    for run in [run("test", "apply --yes"), run("prod", "apply --yes")] {
        let ran = super::finished(run);
        assert_eq!(ran.code, 0, "{}{}", ran.out, ran.err);
    }
    assert!(get(shop.port, "/").is_ok() && get(other, "/").is_ok());
    let schemas = "SELECT string_agg(DISTINCT schemaname, ' ' ORDER BY schemaname) FROM pg_tables \
                   WHERE schemaname NOT IN ('pg_catalog', 'information_schema')";
    assert_eq!(shop.database.sql(schemas), "prod test");
    for stage in ["test", "prod"] {
        let ran = super::finished(run(stage, "plan --detailed-exitcode"));
        assert_eq!(ran.code, 0, "{}{}", ran.out, ran.err);
        let first =
            format!("project shop · stage {stage} · state postgres://norn@127.0.0.1:PORT/DB (2 resources)");
        assert_eq!(shop.plain(&ran.out).lines().next(), Some(first.as_str()));
    }
    let ran = super::finished(run("test", "destroy --yes --confirm test"));
    assert_eq!(ran.code, 0, "{}{}", ran.out, ran.err);
    assert!(get(shop.port, "/").is_err() && get(other, "/").is_ok());
    assert_eq!(super::finished(run("prod", "plan --detailed-exitcode")).code, 0);
}
