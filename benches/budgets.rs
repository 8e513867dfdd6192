//! The time and memory of whole commands, as a Markdown table: `cargo bench`.
//!
//! Each figure is the median of several runs of the release binary. Where Terraform is installed,
//! as many `terraform_data` resources are planned beside it.

use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use norn::address::Address;
use norn::desired;
use norn::provider::files::SpecFolder;
use norn::provider::machine;
use norn::secret::Secret;
use norn::spec::load::{self, Lookup};
use norn::spec::shape::Use;
use norn::state::format::{self, DeployV1, ForgeV1};
use norn::state::postgres::PostgresStore;
use norn::state::postgres::address::ServerUrl;
use norn::state::sqlite::SqliteStore;
use norn::state::{Change, Holder, Lease, Scope, StepLog, Store};
use tokio::runtime::Runtime;

#[path = "../tests/support/postgres.rs"]
mod postgres_server;
#[path = "../tests/support/proxy.rs"]
mod proxy;
#[path = "../tests/support/mod.rs"]
mod shared;

const NORN: &str = env!("CARGO_BIN_EXE_norn");

fn main() {
    // `cargo test --benches` only wants to know that it runs.
    if std::env::args().any(|arg| arg == "--test") {
        return;
    }
    let runtime = Runtime::new().expect("a runtime starts");
    let temp = tempfile::tempdir().expect("a folder");
    let mut table = Table::default();

    table.time("`norn --version`", "5 ms", 20, || norn(temp.path(), &["--version"]));
    let one = spec(temp.path(), "one", 1);
    table.time("`validate`, 1 app", "10 ms", 20, || norn(&one, &["validate", "-q"]));
    let thousand = spec(temp.path(), "thousand", 1_000);
    let validate =
        table.time("`validate`, 1,000 apps", "100 ms", 10, || norn(&thousand, &["validate", "-q"]));

    let large = spec(temp.path(), "large", 5_000);
    runtime.block_on(fill(&large));
    let plan =
        table.time("`plan --offline`, 10,000 resources", "1 s", 5, || norn(&large, &["plan", "--offline"]));
    let memory = norn(&large, &["plan", "--offline"]).memory;
    table.row("memory of that plan", "200 MB", format!("{} MB", memory >> 20));

    for rows in [10, 10_000] {
        let folder = temp.path().join(format!("steps-{rows}"));
        fs::create_dir_all(&folder).expect("a folder");
        let steps = runtime.block_on(Steps::new(Box::new(store(&folder, "steps")), rows));
        let step = runtime.block_on(steps.median());
        let name = format!("state of one step, SQLite, {rows} resources stored");
        table.row(&name, "2 ms", format!("{:.2} ms", step.as_secs_f64() * 1e3));
    }
    if let Some(server) = postgres_server::Server::start("fsync = on\n") {
        for rows in [10, 10_000] {
            let figure = step_in_postgres(&runtime, &server, rows);
            let name = format!("state of one step, PostgreSQL, {rows} resources stored");
            table.row(&name, "2 round trips", figure);
        }
    }
    let size = fs::metadata(NORN).expect("the binary is there").len();
    table.row("binary, stripped", "30 MB", format!("{:.1} MB", size as f64 / 1e6));
    terraform(temp.path(), &mut table, validate, plan);
    print!("{}", table.0);
}

/// What one run took.
struct Ran {
    time: Duration,
    /// The most resident memory that was seen, in bytes.
    memory: u64,
}

fn norn(folder: &Path, args: &[&str]) -> Ran {
    run(Command::new(NORN).args(args).current_dir(folder))
}

fn run(command: &mut Command) -> Ran {
    let begun = Instant::now();
    let mut child = command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().expect("it starts");
    let status = format!("/proc/{}/status", child.id());
    let mut memory = 0;
    let ended = loop {
        if let Some(ended) = child.try_wait().expect("it is ours") {
            break ended;
        }
        let seen = fs::read_to_string(&status).unwrap_or_default();
        let peak = seen.lines().find_map(|line| line.strip_prefix("VmHWM:")?.trim().strip_suffix(" kB"));
        memory = memory.max(peak.and_then(|kb| kb.trim().parse::<u64>().ok()).unwrap_or(0) << 10);
        std::thread::sleep(Duration::from_micros(200));
    };
    assert!(ended.success(), "{command:?} {ended}");
    Ran { time: begun.elapsed(), memory }
}

#[derive(Default)]
struct Table(String);

impl Table {
    fn time(&mut self, what: &str, budget: &str, runs: usize, one: impl Fn() -> Ran) -> Duration {
        let mut times: Vec<Duration> = (0..runs).map(|_| one().time).collect();
        times.sort();
        let median = times[runs / 2];
        self.row(what, budget, format!("{:.1} ms", median.as_secs_f64() * 1e3));
        median
    }

    fn row(&mut self, what: &str, budget: &str, figure: String) {
        if self.0.is_empty() {
            self.0.push_str("| what | budget | measured |\n|---|---|---|\n");
        }
        let _ = writeln!(self.0, "| {what} | {budget} | {figure} |");
    }
}

/// A project of so many apps from one repository. None of them runs a replica, so that nothing has
/// to be started to be measured.
fn spec(temp: &Path, name: &str, apps: usize) -> PathBuf {
    let folder = temp.join(name);
    fs::create_dir_all(&folder).expect("a folder");
    let mut text = format!("version: 1\nproject: {name}\napps:\n");
    for n in 0..apps {
        let _ = write!(
            text,
            "  app-{n}:\n    role: webserver\n    port: {}\n    repo: {{url: \"https://git.example.com/shop.git\", path: apps/{n}}}\n    \
             build: {{command: make, test: make test}}\n    command: [./app, --verbose]\n    healthcheck: /healthz\n    \
             replicas: 0\n    env:\n      LOG: info\n      WORKERS: 4\n      REGION: \"${{REGION:-eu}}\"\n",
            10_000 + n
        );
    }
    fs::write(folder.join("infraspec.yaml"), text).expect("written");
    folder
}

/// Records every app of a spec as applied.
async fn fill(folder: &Path) {
    let document = load::read(&SpecFolder::new(folder), "infraspec.yaml");
    let region = |_: &Use| Lookup::Value("eu".into());
    let staged = document.stage(None, Some(&region));
    let desired = desired::from_spec(&document, &staged, None, &|_| None).expect("a good spec");
    let store = store(folder, desired.project.as_str());
    let lease = store.lock(&holder(), Duration::ZERO).await.expect("a new store");
    let key = store.key().await.expect("it has one");
    let mut changes = Vec::new();
    for app in desired.apps.values() {
        let values = format::fingerprints(&app.definition, desired.values.of(&app.name), &key);
        let definition = Some(app.definition.clone());
        let forge = ForgeV1 {
            version: 1,
            definition,
            values,
            protected: false,
            host: None,
            namespace: None,
            engine: None,
            route: None,
        };
        let commit = "0123456789abcdef0123456789abcdef01234567".to_owned();
        let release = DeployV1 {
            version: 1,
            commit: commit.clone(),
            tag: format!("{}:0123456789ab", app.name),
            source: app.source.clone(),
            build: app.build.clone(),
            folder: "releases".into(),
            deployment: app.name.to_string(),
            image: None,
        };
        let id = app.name.to_string();
        changes.extend([
            Change::RecordPut { address: Address::forge(&app.name), record: format::record(&forge, false) },
            Change::RecordPut {
                address: Address::deploy(&app.name),
                record: format::record(&release, false),
            },
            Change::DeploymentQueued {
                id: id.clone(),
                app: app.name.clone(),
                commit_sha: commit,
                image_tag: release.tag.clone(),
            },
            Change::DeploymentStatus {
                id,
                status: norn::state::DeploymentStatus::Deployed,
                error: String::new(),
            },
        ]);
    }
    store.write(&lease, &changes).await.expect("written");
    store.unlock(&lease).await.expect("given back");
}

/// Steps of one operation, beside so many stored resources.
struct Steps {
    store: Box<dyn Store>,
    lease: Lease,
}

/// How many steps one figure is the median of.
const STEPS: usize = 200;

impl Steps {
    async fn new(store: Box<dyn Store>, resources: usize) -> Self {
        let lease = store.lock(&holder(), Duration::ZERO).await.expect("a new store");
        let record = format::record(&"x".repeat(500), false);
        let put = |n: usize| Change::RecordPut {
            address: Address::forge(&format!("app-{n}").parse().expect("a name")),
            record: record.clone(),
        };
        let mut all: Vec<Change> = (0..resources).map(put).collect();
        let app: norn::spec::name::AppName = "app-0".parse().expect("a name");
        all.extend([
            Change::RunStarted { command: "bench".into() },
            Change::OperationStarted {
                id: "operation".into(),
                address: Address::deploy(&app),
                action: "deploy".into(),
                intent: serde_json::json!({}),
                plan: None,
            },
            Change::DeploymentQueued {
                id: "row".into(),
                app,
                commit_sha: "0123".into(),
                image_tag: "app-0:0123".into(),
            },
        ]);
        store.write(&lease, &all).await.expect("written");
        Self { store, lease }
    }

    /// The time that intent and outcome of a step take.
    async fn median(&self) -> Duration {
        let mut times = Vec::new();
        for n in 0..STEPS {
            let begun = Instant::now();
            self.step(n).await;
            times.push(begun.elapsed());
        }
        times.sort();
        times[times.len() / 2]
    }

    async fn step(&self, n: usize) {
        let id = format!("step-{n}");
        let log = StepLog {
            step: "build".into(),
            status: "deployed".into(),
            duration_ms: 1,
            output: "done".into(),
        };
        let intent = Change::StepStarted {
            id: id.clone(),
            operation: "operation".into(),
            step: "build".into(),
            key: id.clone(),
            detail: serde_json::json!({}),
        };
        self.store.write(&self.lease, &[intent]).await.expect("written");
        let outcome = [
            Change::StepEnded { id, outcome: "done".into() },
            Change::DeploymentStep { id: "row".into(), log },
        ];
        self.store.write(&self.lease, &outcome).await.expect("written");
    }
}

/// The same in PostgreSQL on this machine, with what does not depend on the machine: round trips
/// and rows written.
fn step_in_postgres(runtime: &Runtime, server: &postgres_server::Server, resources: usize) -> String {
    let database = server.database();
    let proxy = proxy::Proxy::before(server.port());
    let open = |port| {
        let url = Secret::new(database.url_at(port));
        let url = ServerUrl::parse(&url, &|_| None).expect("it is a URL");
        let scope = Scope { project: "steps".parse().expect("a name"), stage: None };
        Box::new(PostgresStore::new(url, scope))
    };
    let again = |store: Box<PostgresStore>| {
        let lease = runtime.block_on(store.lock(&holder(), Duration::ZERO)).expect("it is free");
        Steps { store, lease }
    };
    let ended = |steps: Steps| runtime.block_on(steps.store.unlock(&steps.lease)).expect("given back");
    // A server process tells what it counted when it ends.
    let written = || {
        std::thread::sleep(Duration::from_secs(1));
        let rows = "SELECT sum(n_tup_ins + n_tup_upd + n_tup_del) FROM pg_stat_user_tables";
        database.sql(rows).parse::<usize>().expect("a count")
    };
    ended(runtime.block_on(Steps::new(open(server.port()), resources)));
    let before = written();
    let steps = again(open(server.port()));
    let median = runtime.block_on(steps.median());
    ended(steps);
    let rows = (written() - before) / STEPS;

    let steps = again(open(proxy.port));
    // All that is sent at once is sent before the first answer to it comes.
    proxy.delay(proxy::Side::Server, Duration::from_millis(30));
    let turns = proxy.turns();
    runtime.block_on(steps.step(STEPS));
    let turns = proxy.turns() - turns;
    format!("{:.2} ms, {turns} round trips, {rows} rows", median.as_secs_f64() * 1e3)
}

fn store(folder: &Path, project: &str) -> SqliteStore {
    let scope = Scope { project: project.parse().expect("a name"), stage: None };
    SqliteStore::open(&folder.join(".norn/state.db"), scope).expect("a path")
}

fn holder() -> Holder {
    Holder {
        run: "bench".into(),
        who: "bench".into(),
        process: machine::own_identity().expect("this process lives"),
        job_url: None,
        reason: "bench".into(),
    }
}

/// Terraform beside it, on as many of the smallest resources that it has.
fn terraform(temp: &Path, table: &mut Table, validate: Duration, plan: Duration) {
    let version =
        Command::new("terraform").arg("version").stdout(Stdio::null()).stderr(Stdio::null()).status();
    if !version.is_ok_and(|status| status.success()) {
        table.row("Terraform", "-", "not installed".into());
        return;
    }
    let project = |name: &str, resources: usize| {
        let folder = temp.join(name);
        fs::create_dir_all(&folder).expect("a folder");
        let mut text = String::new();
        let mut state = Vec::new();
        for n in 0..resources {
            let _ = writeln!(text, "resource \"terraform_data\" \"r{n}\" {{\n  input = {n}\n}}");
            let value = serde_json::json!({ "value": n, "type": "number" });
            state.push(serde_json::json!({
                "mode": "managed",
                "type": "terraform_data",
                "name": format!("r{n}"),
                "provider": "provider[\"terraform.io/builtin/terraform\"]",
                "instances": [{
                    "schema_version": 0,
                    "attributes": { "id": format!("id-{n}"), "input": value, "output": value, "triggers_replace": null },
                    "sensitive_attributes": [],
                }],
            }));
        }
        let state = serde_json::json!({
            "version": 4, "terraform_version": "1.0.0", "serial": 1, "lineage": "bench", "outputs": {}, "resources": state,
        });
        fs::write(folder.join("main.tf"), text).expect("written");
        fs::write(folder.join("terraform.tfstate"), state.to_string()).expect("written");
        run(Command::new("terraform").args(["init", "-input=false"]).current_dir(&folder));
        folder
    };
    let mut beside = |what: &str, folder: &Path, args: &[&str], own: Duration| {
        let mut times: Vec<Duration> =
            (0..3).map(|_| run(Command::new("terraform").args(args).current_dir(folder)).time).collect();
        times.sort();
        let ratio = times[1].as_secs_f64() / own.as_secs_f64();
        table.row(what, "-", format!("{:.1} s, {ratio:.0} times norn's", times[1].as_secs_f64()));
    };
    let small = project("terraform-small", 1_000);
    beside("`terraform validate`, 1,000 `terraform_data`", &small, &["validate"], validate);
    let large = project("terraform-large", 10_000);
    let args = ["plan", "-refresh=false", "-input=false", "-lock=false"];
    beside("`terraform plan -refresh=false`, 10,000 `terraform_data`", &large, &args, plan);
}
