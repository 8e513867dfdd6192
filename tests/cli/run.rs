//! A program of a sandbox: about to be started, running, and ended.

use std::io::{Read, Write};
use std::path::Path;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::mpsc::{self, Receiver};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process, kill_process_group};

/// How long anything may take before a test gives up.
const PATIENCE: Duration = Duration::from_secs(60);

/// A program that is about to be started.
pub struct Run {
    pub command: Command,
    pub sandbox: String,
    pub stdin: Option<String>,
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
