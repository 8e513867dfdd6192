//! A project of its own for each test: its own home, temporary folder and environment.
//!
//! Invariant: when a sandbox is dropped, even by a panic, no process of it is left.

use std::collections::BTreeSet;
use std::fs;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::atomic::{AtomicU16, Ordering};
use std::sync::mpsc::{self, Receiver};
use std::sync::{Arc, Mutex, OnceLock};
use std::thread;
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process, kill_process_group};
use tempfile::TempDir;

/// How long anything may take before a test gives up.
pub const PATIENCE: Duration = Duration::from_secs(40);

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

/// A program that is about to be started.
pub struct Run {
    pub command: Command,
    sandbox: String,
    stdin: Option<String>,
}

impl Run {
    pub fn arg(mut self, argument: impl AsRef<std::ffi::OsStr>) -> Self {
        self.command.arg(argument);
        self
    }

    pub fn args<I: IntoIterator<Item: AsRef<std::ffi::OsStr>>>(mut self, arguments: I) -> Self {
        self.command.args(arguments);
        self
    }

    pub fn env(mut self, name: &str, value: impl AsRef<std::ffi::OsStr>) -> Self {
        self.command.env(name, value);
        self
    }

    pub fn within(mut self, folder: &Path) -> Self {
        self.command.current_dir(folder);
        self
    }

    /// What it reads from standard input, which then ends.
    pub fn stdin(mut self, text: &str) -> Self {
        self.stdin = Some(text.to_owned());
        self
    }

    /// Starts it with pipes; standard input stays open until it ends or [`Running::close`].
    pub fn start(mut self) -> Running {
        self.command.stdout(Stdio::piped()).stderr(Stdio::piped());
        self.command.stdin(Stdio::piped());
        let mut child = self.command.spawn().expect("the program starts");
        let stdin = child.stdin.take();
        let (sender, ends) = mpsc::channel();
        let out = gather(child.stdout.take().expect("a pipe"), sender.clone());
        let err = gather(child.stderr.take().expect("a pipe"), sender);
        Running { child, stdin, out, err, ends, sandbox: self.sandbox }
    }

    /// Runs it to its end.
    pub fn run(mut self) -> Ran {
        let text = self.stdin.take().unwrap_or_default();
        let mut running = self.start();
        running.write(&text);
        running.close();
        running.end()
    }

    /// Runs it to its end, which must be a good one.
    pub fn ok(self) -> Ran {
        self.exits(0)
    }

    pub fn exits(self, code: i32) -> Ran {
        let ran = self.run();
        assert_eq!(ran.code, Some(code), "{}", ran.all());
        ran
    }
}

/// A program that runs.
pub struct Running {
    child: Child,
    stdin: Option<std::process::ChildStdin>,
    out: Arc<Mutex<Vec<u8>>>,
    err: Arc<Mutex<Vec<u8>>>,
    ends: Receiver<()>,
    sandbox: String,
}

impl Running {
    pub fn pid(&self) -> Pid {
        Pid::from_child(&self.child)
    }

    /// Waits until one of the streams holds a text.
    pub fn until(&self, text: &str) {
        let end = Instant::now() + PATIENCE;
        while !self.seen().contains(text) {
            assert!(Instant::now() < end, "{text:?} did not come:\n{}", self.seen());
            thread::sleep(Duration::from_millis(10));
        }
    }

    pub fn seen(&self) -> String {
        let text =
            |bytes: &Mutex<Vec<u8>>| String::from_utf8_lossy(&bytes.lock().expect("a lock")).into_owned();
        text(&self.out) + &text(&self.err)
    }

    pub fn write(&mut self, text: &str) {
        if let Some(stdin) = &mut self.stdin {
            // One that ended already reads nothing.
            let _closed = stdin.write_all(text.as_bytes()).and_then(|()| stdin.flush());
        }
    }

    pub fn close(&mut self) {
        self.stdin = None;
    }

    /// What Ctrl-C at a terminal does: a signal to the whole group.
    pub fn signal_group(&self, signal: Signal) {
        kill_process_group(self.pid(), signal).expect("it runs");
    }

    pub fn signal(&self, signal: Signal) {
        kill_process(self.pid(), signal).expect("it runs");
    }

    pub fn ended(&mut self) -> bool {
        self.child.try_wait().expect("a child").is_some()
    }

    /// Waits for its end.
    pub fn end(mut self) -> Ran {
        let deadline = Instant::now() + PATIENCE;
        let status: ExitStatus = loop {
            if let Some(status) = self.child.try_wait().expect("a child") {
                break status;
            }
            if Instant::now() > deadline {
                let _gone = self.child.kill();
                panic!("it did not end:\n{}", self.seen());
            }
            thread::sleep(Duration::from_millis(3));
        };
        for _ in 0..2 {
            let ended = self.ends.recv_timeout(Duration::from_secs(10));
            assert!(ended.is_ok(), "a process that is left holds its output:\n{}", self.seen());
        }
        let text =
            |bytes: &Mutex<Vec<u8>>| String::from_utf8_lossy(&bytes.lock().expect("a lock")).into_owned();
        Ran { code: status.code(), out: text(&self.out), err: text(&self.err), sandbox: self.sandbox.clone() }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let _gone = self.child.kill();
        let _reaped = self.child.wait();
    }
}

/// How a program ended, and all it wrote.
#[derive(Debug)]
pub struct Ran {
    /// None where a signal ended it.
    pub code: Option<i32>,
    pub out: String,
    pub err: String,
    sandbox: String,
}

impl Ran {
    pub fn all(&self) -> String {
        format!("exit {:?}\n-- stdout --\n{}-- stderr --\n{}", self.code, self.out, self.err)
    }

    /// All of it as a snapshot keeps it: what varies from run to run is redacted.
    pub fn redacted(&self) -> String {
        let code = self.code.map_or_else(|| "signal".to_owned(), |code| code.to_string());
        let streams = [("stdout", &self.out), ("stderr", &self.err)];
        let mut text = format!("exit {code}\n");
        for (name, stream) in streams.into_iter().filter(|(_, stream)| !stream.is_empty()) {
            text += &format!("-- {name} --\n{}", crate::snapshot::redact(stream, &self.sandbox));
        }
        text
    }

    #[track_caller]
    pub fn says(&self, text: &str) -> &Self {
        assert!(self.err.contains(text), "stderr has no {text:?}:\n{}", self.all());
        self
    }

    #[track_caller]
    pub fn prints(&self, text: &str) -> &Self {
        assert!(self.out.contains(text), "stdout has no {text:?}:\n{}", self.all());
        self
    }

    /// A failure has one error, and no panic.
    #[track_caller]
    pub fn one_error(&self) -> &Self {
        let errors = self.err.lines().filter(|line| line.starts_with("error:")).count();
        assert_eq!(errors, 1, "{}", self.all());
        assert!(!self.err.contains("panicked"), "{}", self.all());
        self
    }

    pub fn json(&self) -> serde_json::Value {
        serde_json::from_str(&self.out).unwrap_or_else(|error| panic!("{error}:\n{}", self.all()))
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

fn gather(mut stream: impl Read + Send + 'static, ends: mpsc::Sender<()>) -> Arc<Mutex<Vec<u8>>> {
    let bytes = Arc::new(Mutex::new(Vec::new()));
    let into = Arc::clone(&bytes);
    thread::spawn(move || {
        let mut chunk = [0; 4096];
        while let Ok(count @ 1..) = stream.read(&mut chunk) {
            into.lock().expect("a lock").extend_from_slice(&chunk[..count]);
        }
        let _ended = ends.send(());
    });
    bytes
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
