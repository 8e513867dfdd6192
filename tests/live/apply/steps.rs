//! What steps are given, keep and leave.

use std::process::Stdio;
use std::time::Duration;

use crate::supervise::world::free_port;
use crate::support::{Sandbox, exists, get, web};

#[test]
fn commands_see_the_app_s_environment_and_never_norn_s_credentials() {
    let port = free_port();
    let more = "env: {VERSION: one, COLOUR: red}\nsecrets: [TOKEN]\nbuild: {command: env > env.build, test: env > env.test}\n\
                migrations: {command: env > env.migrate, database: shop}\n";
    let mut sandbox = Sandbox::webserver(port, more);
    for (name, value) in [
        ("TOKEN", "a-secret-token"),
        ("GITHUB_TOKEN", "not-for-builds"),
        ("AWS_SECRET_ACCESS_KEY", "not-for-builds"),
        ("NORN_STAGE_KEY", "not-for-builds"),
        ("PGPASSWORD", "only-for-migrations"),
        ("http_proxy", "http://127.0.0.1:9"),
        ("CARGO_HOME", "/cargo"),
    ] {
        sandbox.env.insert(name.into(), value.into());
    }
    sandbox.ok("apply --yes");
    let release = format!(".norn/releases/web/{}", sandbox.names(".norn/releases/web", "")[0]);
    for step in ["build", "test", "migrate"] {
        let env = sandbox.read(&format!("{release}/env.{step}"));
        for wanted in
            ["COLOUR=red", "TOKEN=a-secret-token", "CARGO_HOME=/cargo", "http_proxy=", "HOME=", "PATH="]
        {
            assert!(env.contains(wanted), "{step} lacks {wanted}: {env}");
        }
        assert!(!env.contains("not-for-builds"), "{step}: {env}");
        assert_eq!(env.contains("only-for-migrations"), step == "migrate", "{step}: {env}");
    }
    sandbox.plan_is_empty();
}

#[test]
fn logs_are_whole_in_files_capped_in_rows_and_scrubbed_in_both() {
    let port = free_port();
    let noise = "head -c 40000000 /dev/zero | tr \"\\0\" x; printf \"\\0nul\\n\"; echo $TOKEN; echo the end";
    let more = format!("env: {{VERSION: one}}\nsecrets: [TOKEN]\nbuild: {{command: '{noise}'}}\n");
    let mut sandbox = Sandbox::webserver(port, &more);
    sandbox.env.insert("TOKEN".into(), "a-secret-token".into());
    let ran = sandbox.ok("apply --yes -v");
    assert!(!ran.err.contains("a-secret-token") && !ran.out.contains("a-secret-token"));
    let log = sandbox.read(".norn/logs/web/build.log");
    assert!(log.len() > 40_000_000 && log.ends_with("***\nthe end\n"), "{} bytes", log.len());
    let kept = sandbox.rows()[0].output("build");
    assert!(kept.len() <= 64 << 10, "{}", kept.len());
    assert!(kept.contains("bytes cut") && kept.ends_with("nul\n***\nthe end\n"), "the cut is marked");
    assert!(!kept.contains('\0'));
}

#[test]
fn a_failing_step_says_which_and_leaves_the_old_release_serving() {
    let port = free_port();
    let sandbox = Sandbox::webserver(port, "env: {VERSION: one}");
    sandbox.ok("apply --yes");
    sandbox.write("web/version", "two");
    for (step, more) in [
        ("build", "build: {command: 'echo out; echo broken >&2; exit 7'}"),
        ("test", "build: {test: 'echo broken; exit 7'}"),
        ("migrate", "migrations: {command: 'echo broken; exit 7', database: shop}"),
        ("deploy", "env: {VERSION: two, HEALTH: '500'}\nhealthcheck: {path: /healthz, startup: 2s}"),
    ] {
        let spec = web("web", port, &format!("{more}\n"));
        let spec = match step {
            "deploy" => spec.replace("    healthcheck: {path: /healthz, interval: 1s, startup: 20s}\n", ""),
            _ => spec,
        };
        sandbox.spec(&spec);
        let ran = sandbox.fails("apply --yes", 3);
        let row = sandbox.rows().pop().expect("a row");
        assert_eq!(row.status, "failed", "{step}: {row:?}");
        assert_eq!(row.steps().pop(), Some(format!("{step} failed")), "{}", ran.err);
        let evidence = if step == "deploy" { "the database is away" } else { "broken" };
        assert!(row.output(step).contains(evidence) && ran.err.contains(evidence), "{row:?}\n{}", ran.err);
        assert!(get(port, "/").expect("it serves").starts_with("one"), "{step}");
        assert_eq!(sandbox.names(".norn/releases/web", "").len(), 1, "{step}: nothing is left");
        assert_eq!(sandbox.processes().len(), 3, "{step}");
    }
}

#[test]
fn caches_survive_builds_and_a_source_that_changed_is_noticed() {
    let port = free_port();
    let build =
        |command: &str| format!("env: {{VERSION: one}}\nbuild: {{command: '{command}', cache: [cached]}}\n");
    let count = "mkdir -p cached; echo x >> cached/count; cp cached/count counted";
    let sandbox = Sandbox::webserver(port, &build(count));
    for (round, fails) in [(1, false), (2, true), (3, false)] {
        sandbox.write("web/version", &round.to_string());
        let command = if fails { format!("{count}; exit 1") } else { count.to_owned() };
        sandbox.spec(&web("web", port, &build(&command)));
        let ran = sandbox.run("apply --yes");
        assert_eq!(ran.code, i32::from(fails), "{}", ran.err);
        assert_eq!(sandbox.read(".norn/cache/web/cached/count"), "x\n".repeat(round));
    }
    // A build of another run writes into the source after this one's plan.
    sandbox.write("web/version", "4");
    let lock = "UPDATE norn_locks SET run = 'other', machine_id = 'elsewhere', \
                expires_at = '2999-01-01T00:00:00.000000Z'";
    sandbox.state().execute(lock, []).expect("the lock is held");
    let mut apply = sandbox.command("apply --yes --lock-wait 60s");
    let apply = apply.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("norn starts");
    std::thread::sleep(Duration::from_secs(1));
    sandbox.write("web/generated", "x");
    sandbox.state().execute("UPDATE norn_locks SET run = NULL", []).expect("the lock is free");
    let output = apply.wait_with_output().expect("it is ours");
    let said = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(1), "{said}");
    assert!(said.contains("changed since the plan") && said.contains("build.ignore"), "{said}");
    assert!(get(port, "/").expect("it serves").starts_with("one"));
    assert_eq!(sandbox.read(".norn/cache/web/cached/count"), "x\n".repeat(3));
}

#[test]
fn a_release_folder_that_is_gone_is_made_again() {
    let port = free_port();
    let sandbox = Sandbox::webserver(port, "env: {VERSION: one}");
    sandbox.ok("apply --yes");
    let name = sandbox.names(".norn/releases/web", "").remove(0);
    std::fs::remove_dir_all(sandbox.path(&format!(".norn/releases/web/{name}"))).expect("removed");
    let plan = sandbox.fails("plan --detailed-exitcode", 2).out;
    assert!(plan.contains("is gone"), "{plan}");
    sandbox.ok("apply --yes");
    assert!(get(port, "/").expect("it serves").starts_with("one"));
    sandbox.plan_is_empty();
}

#[test]
fn two_stages_stand_side_by_side() {
    let (dev, prod) = (free_port(), free_port());
    let sandbox = Sandbox::webserver(dev, "env: {VERSION: dev}");
    let spec = sandbox.read("infraspec.yaml");
    let stages = format!(
        "stages:\n  dev: {{}}\n  prod: {{apps: {{web: {{port: {prod}, env: {{VERSION: prod}}}}}}}}\n"
    );
    sandbox.write("infraspec.yaml", &format!("{spec}{stages}"));
    sandbox.ok("apply --yes --stage dev");
    sandbox.ok("apply --yes --stage prod");
    for (port, stage) in [(dev, "dev"), (prod, "prod")] {
        assert!(get(port, "/").expect("it serves").starts_with(stage));
    }
    assert_eq!(sandbox.processes().len(), 6);
    sandbox.ok("destroy --yes --confirm dev --stage dev");
    get(dev, "/").expect_err("it is gone");
    assert!(get(prod, "/").expect("it serves").starts_with("prod"));
    assert!(!exists(&sandbox.path(".norn/stages/dev/releases/web")));
    let empty = sandbox.run("plan --detailed-exitcode --stage prod");
    assert_eq!(empty.code, 0, "{}", empty.out);
}

#[test]
fn fifty_workers_start_at_once() {
    let sandbox = Sandbox::new();
    sandbox.write("work/file", "");
    let worker = |n| {
        format!(
            "  w{n}:\n    role: worker\n    path: ./work\n    command: [sleep, '600']\n    healthcheck: {{command: 'true'}}\n"
        )
    };
    sandbox.spec(&(0..50).map(worker).collect::<String>());
    sandbox.ok("apply --yes --parallelism 50");
    assert_eq!(sandbox.processes_of("sleep 600").len(), 50);
    assert_eq!(sandbox.rows().len(), 50);
    sandbox.plan_is_empty();
    sandbox.ok("destroy --yes --confirm shop");
    assert_eq!(sandbox.processes(), Vec::<u32>::new());
}
