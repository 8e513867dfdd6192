//! A project of its own for each test: its own home, temporary folder and environment.
//!
//! Invariant: when a sandbox is dropped, even by a panic, no process of it is left.

use std::collections::BTreeSet;
use std::fs;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU16, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};
use tempfile::TempDir;

pub use crate::run::Run;

/// A web server that answers with `GREETING` and what is in `greeting.txt`.
const SERVER: &str = r#"
import os, socket, threading
text = (os.environ.get("GREETING", "") + " " + open("greeting.txt").read()).strip()
print("starts:", text, flush=True)
server = socket.socket()
server.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
server.bind(("127.0.0.1", int(os.environ.get("LISTEN") or os.environ["PORT"])))
server.listen(64)
def serve(client):
    with client:
        request = client.recv(4096).decode()
        if not request:
            return
        status = os.environ.get("HEALTH", "200") if "/healthz" in request else "200"
        client.sendall(("HTTP/1.1 %s X\r\nContent-Length: %d\r\nConnection: close\r\n\r\n%s"
            % (status, len(text), text)).encode())
while True:
    threading.Thread(target=serve, args=(server.accept()[0],), daemon=True).start()
"#;

pub struct Sandbox {
    folder: TempDir,
    project: PathBuf,
    /// What every norn of this sandbox sees beside the fixed variables.
    env: Vec<(String, String)>,
}

impl Sandbox {
    /// An empty project, in a git repository of its own.
    pub fn new() -> Self {
        let folder = TempDir::new().expect("a temporary folder");
        for name in ["home", "tmp", "project"] {
            fs::create_dir(folder.path().join(name)).expect("the folder is made");
        }
        let project = folder.path().join("project");
        Self { folder, project, env: Vec::new() }
    }

    /// A project with the web app `hello` at a port.
    pub fn hello(port: u16) -> Self {
        let sandbox = Self::new();
        sandbox.write("server.py", SERVER);
        sandbox.write("greeting.txt", "one");
        sandbox.hello_with(port, "");
        sandbox
    }

    /// Writes the spec of `hello` anew, with more lines of its app.
    pub fn hello_with(&self, port: u16, more: &str) {
        let app = format!(
            "role: webserver\ncommand: exec python3 server.py\nport: {port}\nhealthcheck: {{path: /healthz, startup: 4s}}\n{more}"
        );
        self.write(
            "infraspec.yaml",
            &format!("version: 1\nproject: greeter\napps:\n  hello:\n{}", indented(&app, 4)),
        );
    }

    /// A variable for every norn that is started from now on.
    pub fn set(&mut self, name: &str, value: &str) {
        self.env.push((name.to_owned(), value.to_owned()));
    }

    pub fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// A path in the project.
    pub fn path(&self, inside: &str) -> PathBuf {
        self.project.join(inside)
    }

    pub fn write(&self, inside: &str, text: &str) {
        let path = self.path(inside);
        fs::create_dir_all(path.parent().expect("a folder above")).expect("the folder is made");
        fs::write(path, text).expect("the file is written");
    }

    pub fn read(&self, inside: &str) -> String {
        let path = self.path(inside);
        fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
    }

    /// Replaces a text that is in a file.
    pub fn edit(&self, inside: &str, from: &str, to: &str) {
        let text = self.read(inside);
        assert!(text.contains(from), "{inside} has no {from:?}:\n{text}");
        self.write(inside, &text.replace(from, to));
    }

    /// Copies a folder of this repository into the project, without what a build leaves.
    pub fn copy_example(&self, example: &str) {
        copy(&Path::new(env!("CARGO_MANIFEST_DIR")).join("examples").join(example), &self.project);
    }

    /// A norn with arguments, split at spaces.
    pub fn norn(&self, arguments: &str) -> Run {
        let mut run = self.program(env!("CARGO_BIN_EXE_norn"));
        run.command.args(arguments.split_whitespace());
        run
    }

    /// Any program in the sandbox's environment.
    pub fn program(&self, program: &str) -> Run {
        let mut command = Command::new(program);
        command.env_clear().current_dir(&self.project).process_group(0);
        command.env("PATH", path()).env("HOME", self.folder.path().join("home"));
        command.env("TMPDIR", self.folder.path().join("tmp"));
        command.env("COLUMNS", "100").env("LANG", "C.UTF-8").env("TZ", "UTC");
        command.env("GIT_CONFIG_NOSYSTEM", "1");
        for tools in ["CARGO_HOME", "RUSTUP_HOME", "GOCACHE"] {
            command.env(tools, of_the_toolchain(tools));
        }
        command.envs(self.env.iter().map(|(name, value)| (name, value)));
        Run { command, sandbox: self.folder.path().display().to_string(), stdin: None }
    }

    /// Runs a program that must succeed, such as git.
    pub fn sh(&self, script: &str) -> String {
        self.program("sh").arg("-euc").arg(script).ok().out
    }

    /// Makes the project a git repository with one commit.
    pub fn commit(&self, message: &str) {
        self.sh("test -d .git || git init --quiet --initial-branch=main");
        self.sh("git config user.name Test; git config user.email test@example.com; git add -A .");
        self.sh(&format!("git commit --quiet --allow-empty -m '{message}'"));
    }

    /// The processes that belong to this sandbox.
    pub fn processes(&self) -> Vec<(i32, String)> {
        processes(&self.folder.path().display().to_string())
    }
}

impl Drop for Sandbox {
    fn drop(&mut self) {
        let marker = self.folder.path().display().to_string();
        let end = Instant::now() + Duration::from_secs(5);
        // A supervisor starts what ended anew, so look again until nothing is left.
        loop {
            let left = processes(&marker);
            if left.is_empty() || Instant::now() > end {
                break;
            }
            for (pid, _) in left {
                if let Some(pid) = Pid::from_raw(pid) {
                    let _gone = kill_process(pid, Signal::KILL);
                }
            }
            thread::sleep(Duration::from_millis(5));
        }
    }
}

/// A port that nothing listens on, below those the system gives to clients.
pub fn free_port() -> u16 {
    static NEXT: AtomicU16 = AtomicU16::new(0);
    let start = u16::try_from(std::process::id() % 10_000).expect("below 10000");
    loop {
        let port = 20_000 + (start + NEXT.fetch_add(1, Ordering::Relaxed)) % 12_000;
        if TcpListener::bind(("127.0.0.1", port)).is_ok() {
            return port;
        }
    }
}

/// The body that a port answers with, or why there is none.
pub fn get(port: u16, path: &str) -> Result<String, String> {
    let address = SocketAddr::from(([127, 0, 0, 1], port));
    let text = (|| {
        let mut stream = TcpStream::connect_timeout(&address, Duration::from_secs(5))?;
        stream.set_read_timeout(Some(Duration::from_secs(5)))?;
        // In one piece: the server of these tests reads once.
        let request = format!("GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n");
        stream.write_all(request.as_bytes())?;
        let mut text = String::new();
        stream.read_to_string(&mut text).map(|_| text)
    })();
    let text = text.map_err(|error: std::io::Error| error.to_string())?;
    let (head, body) = text.split_once("\r\n\r\n").ok_or("no answer")?;
    let status = head.lines().next().unwrap_or_default();
    if status.contains(" 200 ") { Ok(body.to_owned()) } else { Err(status.to_owned()) }
}

pub fn indented(text: &str, by: usize) -> String {
    text.lines().map(|line| format!("{:by$}{line}\n", "")).collect()
}

fn copy(from: &Path, to: &Path) {
    fs::create_dir_all(to).expect("the folder is made");
    for entry in fs::read_dir(from).expect("the folder is read") {
        let path = entry.expect("an entry").path();
        let name = path.file_name().expect("a name").to_owned();
        let leavings: BTreeSet<&str> = ["target", ".norn", "__pycache__", "snapshots"].into();
        if name.to_str().is_some_and(|name| leavings.contains(name)) {
            continue;
        }
        if path.is_dir() {
            copy(&path, &to.join(name));
        } else {
            fs::copy(&path, to.join(name)).expect("the file is copied");
        }
    }
}

/// Every process whose environment, arguments, folder or program names the marker.
fn processes(marker: &str) -> Vec<(i32, String)> {
    let own = std::process::id().to_string();
    let mut found = Vec::new();
    for entry in fs::read_dir("/proc").into_iter().flatten().flatten() {
        let name = entry.file_name().to_string_lossy().into_owned();
        if name == own || !name.bytes().all(|byte| byte.is_ascii_digit()) {
            continue;
        }
        let text = |file: &str| {
            String::from_utf8_lossy(&fs::read(entry.path().join(file)).unwrap_or_default()).into_owned()
        };
        let link =
            |file: &str| fs::read_link(entry.path().join(file)).unwrap_or_default().display().to_string();
        let dead = text("stat").rsplit(')').next().is_some_and(|rest| rest.trim_start().starts_with('Z'));
        let arguments = text("cmdline");
        let places = [text("environ"), link("cwd"), link("exe"), arguments.clone()];
        if !dead && places.iter().any(|place| place.contains(marker)) {
            found.push((name.parse().expect("digits"), arguments.replace('\0', " ")));
        }
    }
    found
}

/// The PATH of every sandbox. Python is named by its own folder: a shim in front of it is slow.
fn path() -> &'static str {
    static PATH: OnceLock<String> = OnceLock::new();
    PATH.get_or_init(|| {
        let path = std::env::var("PATH").expect("a PATH");
        let script = "import os, sys; print(os.path.dirname(sys.executable))";
        let python = Command::new("python3").args(["-c", script]).output();
        match python {
            Ok(output) if output.status.success() => {
                format!("{}:{path}", String::from_utf8_lossy(&output.stdout).trim())
            }
            _ => path,
        }
    })
}

/// Where a toolchain keeps what it must find although HOME is another.
fn of_the_toolchain(variable: &str) -> String {
    let home = std::env::var("HOME").expect("a HOME");
    std::env::var(variable).unwrap_or_else(|_| match variable {
        "CARGO_HOME" => format!("{home}/.cargo"),
        "RUSTUP_HOME" => format!("{home}/.rustup"),
        _ => format!("{home}/.cache/go-build"),
    })
}
