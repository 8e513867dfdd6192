//! A secret is nowhere but where it is needed.

use std::fs;
use std::path::Path;

use crate::sandbox::{Sandbox, free_port, get};

const SECRET: &str = "sk-geheim-8f3b1c";
const REFERENCE: &str = "pw-verraten-77aa1";
const LOGIN: &str = "pw-der-quelle-5d2";

#[test]
fn what_steps_print_is_scrubbed_everywhere() {
    let port = free_port();
    let mut sandbox = Sandbox::hello(port);
    let tell = "echo key=$STRIPE_KEY url=$URL; printf '%s' $STRIPE_KEY; env >&2";
    sandbox.hello_with(
        port,
        &format!(
            "secrets: [STRIPE_KEY]\nenv: {{URL: \"postgres://shop:${{DB_PASSWORD}}@db/shop\"}}\nbuild:\n  command: \"{tell}\"\n  test: \"{tell}\"\nmigrations: {{command: \"{tell}\"}}\n"
        ),
    );
    // What the app itself prints is its own.
    sandbox.edit("server.py", "print(", "print(os.environ['STRIPE_KEY'], os.environ['URL'], ");
    sandbox.set("STRIPE_KEY", SECRET);
    sandbox.set("DB_PASSWORD", REFERENCE);

    let mut said = String::new();
    let mut run = |line: &str| said += &sandbox.norn(line).run().all();
    run("plan -v --json-out ../plan.json --markdown-out ../plan.md");
    run("apply --yes -v");
    run("plan --json");
    run("apply --yes --redeploy hello --json");
    run("plan --redeploy hello --out ../plan.norn");
    run("show ../plan.norn --markdown-out ../shown.md");
    run("show ../plan.norn --json");
    run("apply ../plan.norn -v");
    // A release that fails tells of its log, which holds what the app printed.
    sandbox.edit(
        "server.py",
        "server = socket",
        "print(os.environ['URL'], flush=True); os._exit(3)\nserver = socket",
    );
    run("apply --yes -v");
    run("status --json");
    run("history --json");
    run("state show forge/hello");
    run("state show --json");
    run("state export ../state.json");
    run("state export");
    run("spec");
    run("logs hello --step build");
    run("logs hello --step migrate");
    for step in ["build", "test", "migrate"] {
        assert!(sandbox.path(&format!(".norn/logs/hello/{step}.log")).is_file(), "{step} has a log");
    }
    for value in [SECRET, REFERENCE] {
        assert!(!said.contains(value), "{value} was printed:\n{said}");
        let mut found = Vec::new();
        search(sandbox.folder(), value.as_bytes(), &mut found);
        let expected = [sandbox.path(".norn/logs/hello/0.log").display().to_string()];
        assert_eq!(found, expected, "where {value} is");
    }
}

#[test]
fn the_password_of_a_source_is_not_shown() {
    let sandbox = Sandbox::hello(free_port());
    let nowhere = free_port();
    let spec = sandbox.read("infraspec.yaml");
    let repo = format!(
        "  hello:\n    repo: {{url: \"http://norn:${{LOGIN}}@127.0.0.1:{nowhere}/x.git\", branch: main}}\n"
    );
    sandbox.write("infraspec.yaml", &spec.replace("  hello:\n", &repo));
    for line in ["plan", "plan --offline", "plan --offline --json", "spec", "validate"] {
        let ran = sandbox.norn(line).env("LOGIN", LOGIN).run();
        assert!(!ran.all().contains(LOGIN), "{}", ran.all());
    }
}

#[test]
fn a_saved_plan_holds_no_value() {
    let sandbox = Sandbox::new();
    let commit = "a".repeat(40);
    sandbox.write(
        "infraspec.yaml",
        &format!(
            "version: 1
project: shop
postgres: {{url: \"postgres://norn:${{SERVER}}@127.0.0.1:1/postgres\"}}
cloudflare: {{zone: example.com, tunnel: 6ff42ae2-765d-4adf-8112-31c55c1551ef, token: \"${{TUNNEL}}\"}}
stages: {{prod: {{secrets: [STAGE]}}}}
apps:
  web:
    role: worker
    repo: {{url: \"https://norn:${{LOGIN}}@127.0.0.1:1/x.git\", ref: {commit}}}
    command: ./run
    env: {{URL: \"amqp://shop:${{REFERENCE}}@mq/shop\", PLAIN: \"${{OTHER:-nothing}}\"}}
    secrets: {{KEY: {{}}, MAYBE: {{required: false}}}}
    services: {{postgres: {{database: shop}}}}
    migrations: {{command: ./migrate, database: shop}}
"
        ),
    );
    let values = ["SERVER", "STAGE", "LOGIN", "TUNNEL", "REFERENCE", "OTHER", "KEY", "MAYBE"]
        .map(|name| (name, format!("geheim-{}-4711", name.to_lowercase())));
    let norn = |line: &str| values.iter().fold(sandbox.norn(line), |run, (name, value)| run.env(name, value));
    let mut said =
        norn("plan --stage prod --out ../plan.norn --json-out ../a.json --markdown-out ../a.md").ok().all();
    said += &norn("show ../plan.norn").ok().prints("snapshot").all();
    said += &norn("show ../plan.norn --json").ok().all();
    // There is no such repository: it fails, and tells why.
    said += &norn("apply ../plan.norn -v").exits(3).all();
    said += &norn("apply ../plan.norn --json").exits(1).all();
    for (name, value) in &values {
        let other = norn("apply ../plan.norn").env(name, "another-value-0815").run();
        // What opens a source or a server may change: a token of CI is another one in each job.
        let may_change = ["SERVER", "STAGE", "LOGIN", "TUNNEL"].contains(name);
        assert_eq!(other.code, Some(if may_change { 1 } else { 5 }), "{name}: {}", other.all());
        said += &other.all();
        assert!(!said.contains(value.as_str()), "{name} was printed:\n{said}");
        let mut found = Vec::new();
        search(sandbox.folder(), value.as_bytes(), &mut found);
        assert_eq!(found, [""; 0], "where {name} is");
    }
    assert!(!said.contains("0815"), "{said}");
}

#[test]
fn the_password_of_a_source_is_kept_nowhere_and_may_change_without_a_plan() {
    let sandbox = Sandbox::hello(free_port());
    let spec = sandbox.read("infraspec.yaml");
    let commit = "a".repeat(40);
    let url = format!("http://norn:${{LOGIN}}@127.0.0.1:{}/x.git", free_port());
    let repo = format!("  hello:\n    repo: {{url: \"{url}\", ref: {commit}}}\n");
    sandbox.write("infraspec.yaml", &spec.replace("  hello:\n", &repo));
    let plan = |login: &str| sandbox.norn("plan --json").env("LOGIN", login).run().all();
    assert_eq!(plan(LOGIN), plan("another-of-them-9"));
    let failed = sandbox.norn("apply --yes").env("LOGIN", LOGIN).run();
    assert!(failed.all().contains("clone: FAILED"), "{}", failed.all());
    let mut found = Vec::new();
    search(sandbox.folder(), LOGIN.as_bytes(), &mut found);
    assert_eq!(found, [""; 0], "where the password is");
}

#[test]
fn destroying_needs_no_values_and_their_file_is_no_source() {
    let port = free_port();
    let sandbox = Sandbox::hello(port);
    sandbox.hello_with(port, "secrets: [API_KEY]\nenv: {LEVEL: \"${LEVEL}\"}");
    sandbox.write("values.env", "API_KEY=key-of-the-api\nLEVEL=loud-enough\n");
    sandbox.norn("apply --yes --env-file values.env").ok();
    let releases = fs::read_dir(sandbox.path(".norn/releases/hello")).expect("it was released");
    let release = releases.flatten().map(|entry| entry.path()).find(|path| path.is_dir()).expect("one");
    assert!(release.join("server.py").exists() && !release.join("values.env").exists());
    sandbox.norn("plan").exits(1).says("API_KEY").says("LEVEL");
    sandbox.norn("destroy --yes --confirm greeter").ok();
    assert!(get(port, "/").is_err());
}

#[test]
fn no_supervisor_carries_what_a_runner_ends_processes_by() {
    let sandbox = Sandbox::hello(free_port());
    sandbox.norn("apply --yes").env("RUNNER_TRACKING_ID", "github_1234").env("NORN_CREDENTIAL", SECRET).ok();
    let running = sandbox.processes();
    assert_eq!(running.len(), 2, "{running:?}");
    for (pid, name) in running {
        let env = fs::read(format!("/proc/{pid}/environ")).expect("it runs");
        let env = String::from_utf8_lossy(&env);
        assert!(!env.contains("RUNNER_TRACKING_ID") && !env.contains(SECRET), "{name}: {env}");
    }
}

/// Every file below a folder that holds the bytes.
fn search(folder: &Path, bytes: &[u8], found: &mut Vec<String>) {
    for entry in fs::read_dir(folder).expect("the folder is read").flatten() {
        let path = entry.path();
        let data = entry.metadata().expect("it is there");
        // Copies of norn's own binary are large and hold nothing of a run.
        if data.is_dir() && path.file_name().is_none_or(|name| name != "bin") {
            search(&path, bytes, found);
        } else if data.is_file() {
            let text = fs::read(&path).expect("the file is read");
            if text.windows(bytes.len()).any(|window| window == bytes) {
                found.push(path.display().to_string());
            }
        }
    }
}

#[test]
fn what_is_not_set_is_told_by_a_check_of_the_environment() {
    let port = free_port();
    let mut sandbox = Sandbox::hello(port);
    sandbox.hello_with(port, "secrets: [STRIPE_KEY]\nenv: {URL: \"${DB_URL}\"}\n");
    sandbox.norn("validate").ok();
    let ran = sandbox.norn("validate --env").exits(1);
    ran.says("DB_URL is not set").says("needs the secret STRIPE_KEY, which is not set").says("2 errors");
    sandbox.set("STRIPE_KEY", SECRET);
    sandbox.norn("validate --env").exits(1).says("DB_URL is not set").says("1 error");
    sandbox.set("DB_URL", "x");
    sandbox.norn("validate --env").ok();
    // Nothing is told that only looks wrong because of it.
    let web = format!("  web: {{role: webserver, path: ., port: {port}}}\n");
    let work = "  work: {role: worker, path: ., env: {WEB: \"${apps.web.url}\"}}\n";
    let docker = "runtime: docker\ndocker: {host: \"tcp://${ENGINE}:2375\"}\n";
    sandbox.write("infraspec.yaml", &format!("version: 1\nproject: shop\n{docker}apps:\n{web}{work}"));
    sandbox.norn("validate --env").exits(1).says("ENGINE is not set").says("1 error");
}
