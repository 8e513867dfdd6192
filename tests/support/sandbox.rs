//! A project in a folder of its own, and norn at work in it as a user runs it.

#![allow(dead_code, reason = "each test binary uses its part")]

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use tempfile::TempDir;

/// What a run of norn gave.
#[derive(Debug)]
pub struct Ran {
    pub code: i32,
    pub out: String,
    pub err: String,
}

/// One `deployments` row.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Row {
    pub app: String,
    pub tag: String,
    pub status: String,
    pub error: String,
    pub steps: String,
}

impl Row {
    pub fn short(&self) -> (&str, &str) {
        (&self.status, &self.error)
    }

    /// The steps with their statuses, such as `clone deployed`.
    pub fn steps(&self) -> Vec<String> {
        let steps: Vec<serde_json::Value> = serde_json::from_str(&self.steps).expect("a list of steps");
        let word = |value: &serde_json::Value| value.as_str().expect("a text").to_owned();
        steps.iter().map(|step| format!("{} {}", word(&step["step"]), word(&step["status"]))).collect()
    }

    pub fn output(&self, step: &str) -> String {
        let steps: Vec<serde_json::Value> = serde_json::from_str(&self.steps).expect("a list of steps");
        let found = steps.iter().find(|entry| entry["step"] == step).expect("the step was taken");
        found["output"].as_str().expect("a text").to_owned()
    }
}

pub struct Sandbox {
    pub dir: TempDir,
    pub norn: PathBuf,
    pub env: BTreeMap<String, String>,
}

impl Sandbox {
    pub fn new() -> Self {
        let dir = TempDir::new().expect("a temporary folder");
        fs::create_dir(dir.path().join("home")).expect("a home");
        let path = std::env::var("PATH").expect("a PATH");
        let home = dir.path().join("home").display().to_string();
        let mut env = BTreeMap::from([("PATH".to_owned(), path), ("HOME".to_owned(), home)]);
        env.insert("GIT_CONFIG_NOSYSTEM".to_owned(), "1".to_owned());
        let sandbox = Self { dir, norn: PathBuf::from(env!("CARGO_BIN_EXE_norn")), env };
        sandbox.write("home/.gitconfig", "[user]\nname = Ann\nemail = ann@example.com\n[init]\ndefaultBranch = main\n[protocol \"file\"]\nallow = always\n");
        sandbox
    }

    /// Writes the spec: its apps, in YAML, indented by two.
    pub fn spec(&self, apps: &str) {
        self.write("infraspec.yaml", &format!("version: 1\nproject: shop\napps:\n{apps}"));
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    pub fn write(&self, name: &str, text: &str) {
        let path = self.path(name);
        fs::create_dir_all(path.parent().expect("it is in a folder")).expect("the folder is made");
        fs::write(path, text).expect("it is written");
    }

    pub fn read(&self, name: &str) -> String {
        fs::read_to_string(self.path(name)).unwrap_or_else(|error| panic!("{name}: {error}"))
    }

    pub fn command(&self, arguments: &str) -> Command {
        let mut command = Command::new(&self.norn);
        command.args(arguments.split_whitespace()).current_dir(self.dir.path()).env_clear().envs(&self.env);
        command.stdin(Stdio::null());
        command
    }

    pub fn run(&self, arguments: &str) -> Ran {
        let output = self.command(arguments).output().expect("norn starts");
        let text = |bytes: Vec<u8>| String::from_utf8(bytes).expect("norn writes UTF-8");
        let code = output.status.code().unwrap_or(-1);
        Ran { code, out: text(output.stdout), err: text(output.stderr) }
    }

    /// Runs norn, which must succeed.
    pub fn ok(&self, arguments: &str) -> Ran {
        let ran = self.run(arguments);
        assert_eq!(ran.code, 0, "norn {arguments}:\n{}{}\n{}", ran.out, ran.err, self.supervisor_logs());
        ran
    }

    /// Runs norn, which must fail with this code.
    pub fn fails(&self, arguments: &str, code: i32) -> Ran {
        let ran = self.run(arguments);
        assert_eq!(ran.code, code, "norn {arguments}:\n{}{}", ran.out, ran.err);
        ran
    }

    /// Starts norn with its words going nowhere.
    pub fn spawn(&self, arguments: &str) -> Child {
        let mut command = self.command(arguments);
        command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().expect("norn starts")
    }

    pub fn plan_is_empty(&self) {
        let ran = self.run("plan --detailed-exitcode");
        assert_eq!(ran.code, 0, "the plan is not empty:\n{}{}", ran.out, ran.err);
    }

    pub fn git(&self, folder: &str, arguments: &str) -> String {
        let mut command = Command::new("git");
        command.args(arguments.split_whitespace()).current_dir(self.path(folder)).env_clear().envs(&self.env);
        let output = command.output().expect("git starts");
        assert!(output.status.success(), "git {arguments}: {}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).expect("UTF-8").trim().to_owned()
    }

    pub fn state(&self) -> rusqlite::Connection {
        rusqlite::Connection::open(self.path(".norn/state.db")).expect("the state opens")
    }

    /// How many runs, operations and steps have not ended.
    pub fn open_in_journal(&self) -> i64 {
        let open = "SELECT (SELECT count(*) FROM norn_runs WHERE ended_at IS NULL) + \
                    (SELECT count(*) FROM norn_operations WHERE ended_at IS NULL) + \
                    (SELECT count(*) FROM norn_steps WHERE ended_at IS NULL)";
        self.state().query_row(open, [], |row| row.get(0)).expect("a count")
    }

    /// The deployments, oldest first.
    pub fn rows(&self) -> Vec<Row> {
        let state = self.state();
        let mut rows = state
            .prepare(
                "SELECT app, image_tag, status, error, steps FROM deployments ORDER BY started_at, rowid",
            )
            .expect("the table is there");
        let read = |row: &rusqlite::Row<'_>| {
            Ok(Row {
                app: row.get(0)?,
                tag: row.get(1)?,
                status: row.get(2)?,
                error: row.get::<_, Option<String>>(3)?.unwrap_or_default(),
                steps: row.get(4)?,
            })
        };
        let rows = rows.query_map([], read).expect("it is read").map(|row| row.expect("a row"));
        rows.collect()
    }

    /// The pids of everything that this project started and that lives.
    pub fn processes(&self) -> Vec<u32> {
        started_in(self.dir.path())
    }

    /// The pids of the processes with such a word in their command line.
    pub fn processes_of(&self, word: &str) -> Vec<u32> {
        let mut pids = self.processes();
        pids.retain(|pid| command_line(*pid).contains(word));
        pids
    }

    /// The names in a folder that begin so.
    pub fn names(&self, folder: &str, prefix: &str) -> Vec<String> {
        let Ok(entries) = fs::read_dir(self.path(folder)) else { return Vec::new() };
        let names = entries.map(|entry| entry.expect("an entry").file_name().to_string_lossy().into_owned());
        let mut names: Vec<String> = names.filter(|name| name.starts_with(prefix)).collect();
        names.sort();
        names
    }

    fn supervisor_logs(&self) -> String {
        let logs = self.names(".norn/logs", "").into_iter();
        logs.filter_map(|app| fs::read_to_string(self.path(&format!(".norn/logs/{app}/supervisor.log"))).ok())
            .collect()
    }
}

impl Drop for Sandbox {
    fn drop(&mut self) {
        end_all_in(self.dir.path());
    }
}

/// The pids of everything that a project in this folder started and that lives.
pub fn started_in(folder: &Path) -> Vec<u32> {
    let needle = folder.to_str().expect("a plain path").as_bytes();
    let entries = fs::read_dir("/proc").expect("/proc").flatten();
    let pids = entries.filter_map(|entry| entry.file_name().to_str()?.parse::<u32>().ok());
    let ours = |pid: &u32| {
        let read = |name| fs::read(format!("/proc/{pid}/{name}")).unwrap_or_default();
        [read("environ"), read("cmdline")]
            .iter()
            .any(|text| text.windows(needle.len()).any(|window| window == needle))
    };
    pids.filter(|pid| *pid != std::process::id()).filter(ours).collect()
}

/// Ends all of it.
pub fn end_all_in(folder: &Path) {
    // A process may be starting another one while it is killed; only then is the folder still.
    let end = Instant::now() + Duration::from_secs(5);
    loop {
        let left = started_in(folder);
        if left.is_empty() || Instant::now() >= end {
            return;
        }
        left.into_iter().for_each(kill);
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// A process's command line, with spaces between its words; empty where there is none.
pub fn command_line(pid: u32) -> String {
    let line = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
    String::from_utf8_lossy(&line).trim_end_matches('\0').replace('\0', " ")
}

/// One request from a test that is not async.
pub fn get(port: u16, path: &str) -> std::io::Result<String> {
    use std::io::{Read, Write};
    let mut stream = std::net::TcpStream::connect(("127.0.0.1", port))?;
    stream.set_read_timeout(Some(Duration::from_secs(20)))?;
    write!(stream, "GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer)?;
    match answer.split_once("\r\n\r\n") {
        Some((head, body)) if head.starts_with("HTTP/1.1 200 ") => Ok(body.to_owned()),
        _ => Err(std::io::Error::other(answer)),
    }
}

/// Waits until something holds.
pub fn until(what: &str, mut holds: impl FnMut() -> bool) {
    let end = Instant::now() + Duration::from_secs(30);
    while !holds() {
        assert!(Instant::now() < end, "waited too long until {what}");
        std::thread::sleep(Duration::from_millis(20));
    }
}

pub fn exists(path: &Path) -> bool {
    fs::symlink_metadata(path).is_ok()
}

pub fn kill(pid: u32) {
    let pid = rustix::process::Pid::from_raw(i32::try_from(pid).expect("a pid")).expect("a pid");
    let _gone = rustix::process::kill_process(pid, rustix::process::Signal::KILL);
}
