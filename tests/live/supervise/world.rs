//! A project of its own for each test, with nothing of it left at the end.

use std::fs;
use std::net::{IpAddr, Ipv4Addr};
use std::path::{Path, PathBuf};
use std::sync::OnceLock;
use std::time::{Duration, Instant};

use norn::provider::supervise::client::{Done, Home, Observation, RollError};
use norn::provider::supervise::protocol::{
    Command, Env, Failure, Front, Health, Probe, Release, Replica, Report, Roll, Status,
};
use norn::spec::name::AppName;
use tempfile::TempDir;

pub use crate::load::get;
pub use crate::sandbox::kill;
use crate::sandbox::{command_line, end_all_in, started_in};
pub use crate::shared::free_port;

/// What a replica runs: `/` says its version, `/exit` ends it, `/slow` takes a while, `HEALTH` is
/// the status of `/healthz` and `LISTEN` a port to use in place of `PORT`.
pub const SERVER: &str = r#"
import os, sys, time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    def do_GET(self):
        if self.path == "/exit":
            os._exit(3)
        if self.path == "/slow":
            time.sleep(20)
        status, body = 200, os.environ.get("VERSION", "") + " " + str(os.getpid())
        if self.path == "/healthz" and "HEALTH" in os.environ:
            status, body = int(os.environ["HEALTH"]), "the database is away"
        self.send_response(status)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body.encode())
    def log_message(self, *arguments):
        pass

class Server(ThreadingHTTPServer):
    request_queue_size = 256

print("starts", os.environ.get("VERSION"), flush=True)
Server(("127.0.0.1", int(os.environ.get("LISTEN") or os.environ["PORT"])), Handler).serve_forever()
"#;

pub struct World {
    folder: TempDir,
    pub home: Home,
    pub app: AppName,
    pub release: PathBuf,
}

impl World {
    pub fn new() -> Self {
        Self::below("")
    }

    /// A project in a folder below the temporary one.
    pub fn below(path: &str) -> Self {
        let folder = TempDir::new().expect("a temporary folder");
        let norn = folder.path().join(path).join(".norn");
        let release = norn.join("releases/web/0123456789ab");
        fs::create_dir_all(&release).expect("the folder is made");
        fs::write(release.join("server.py"), SERVER).expect("the server is written");
        let home = home(&norn, Path::new(env!("CARGO_BIN_EXE_norn")));
        Self { folder, home, app: "web".parse().expect("a name"), release }
    }

    /// The same project, as another build of norn sees it.
    pub fn newer_home(&self) -> Home {
        let newer = self.folder.path().join("newer-norn");
        let mut bytes = fs::read(env!("CARGO_BIN_EXE_norn")).expect("the binary is readable");
        bytes.push(0);
        fs::write(&newer, bytes).expect("the copy is written");
        home(self.home.run.parent().expect("the folder above"), &newer)
    }

    /// A webserver with two replicas.
    pub fn roll(&self, key: &str, port: u16) -> Roll {
        let path = std::env::var("PATH").expect("a PATH");
        let env = [("PATH", path.as_str()), ("VERSION", key)];
        Roll {
            key: key.to_owned(),
            fence: 7,
            release: Release {
                tag: format!("web:{key}"),
                commit: "0123456789ab".to_owned(),
                dir: self.release.clone(),
            },
            definition: "definition".to_owned(),
            command: Command::Exec([interpreter(), "-S", "server.py"].map(str::to_owned).to_vec()),
            env: Env(env.into_iter().map(|(name, value)| (name.to_owned(), value.to_owned())).collect()),
            port: Some(port),
            front: Front::On(IpAddr::V4(Ipv4Addr::LOCALHOST)),
            replicas: 2,
            health: Health {
                probe: Probe::Http { path: "/healthz".to_owned(), host: "localhost".to_owned() },
                live: None,
                startup: Duration::from_secs(20),
                interval: Duration::from_millis(200),
                timeout: Duration::from_secs(5),
            },
            timeout: Duration::from_secs(30),
            drain: Duration::from_secs(8),
        }
    }

    pub async fn go(&self, roll: Roll) -> Result<Done, RollError> {
        self.home.roll(&self.app, roll, |_| {}).await
    }

    /// A roll that fails, and the reports before.
    pub async fn fail(&self, roll: Roll) -> (Failure, Vec<Report>) {
        let mut reports = Vec::new();
        match self.home.roll(&self.app, roll, |report| reports.push(report)).await {
            Err(RollError::Failed(failure)) => (*failure, reports),
            other => panic!("the roll was to fail: {other:?}"),
        }
    }

    pub async fn status(&self) -> Status {
        match self.home.observe(&self.app).await {
            Observation::Running(status) => status,
            other => panic!("a supervisor was to run: {other:?}"),
        }
    }

    pub fn record(&self) -> PathBuf {
        self.home.run.join("web.json")
    }

    pub fn log(&self) -> String {
        fs::read_to_string(self.home.logs.join("web/supervisor.log")).unwrap_or_default()
    }

    /// The pids of everything that this project started and that lives.
    pub fn processes(&self) -> Vec<u32> {
        started_in(self.folder.path())
    }

    /// The pids of the replicas alone.
    pub fn replicas(&self) -> Vec<u32> {
        let mut pids = self.processes();
        pids.retain(|pid| command_line(*pid).contains("server.py"));
        pids
    }
}

impl Drop for World {
    fn drop(&mut self) {
        end_all_in(self.folder.path());
    }
}

fn home(norn: &Path, executable: &Path) -> Home {
    Home::with_executable(norn.join("run"), norn.join("logs"), norn.join("bin"), executable.to_owned())
}

/// A command that runs a program in python3.
pub fn python(program: &str) -> Command {
    Command::Exec([interpreter(), "-S", "-c", program].map(str::to_owned).to_vec())
}

/// python3 itself: what `PATH` has under that name may be a script that starts it.
pub fn interpreter() -> &'static str {
    static PYTHON: OnceLock<String> = OnceLock::new();
    PYTHON.get_or_init(|| {
        let mut python = std::process::Command::new("python3");
        let told = python.args(["-c", "import sys; print(sys.executable)"]).output();
        let told = told.expect("these tests need python3").stdout;
        String::from_utf8(told).expect("a plain path").trim().to_owned()
    })
}

/// Waits until something holds.
pub async fn until(what: &str, mut holds: impl AsyncFnMut() -> bool) {
    let end = Instant::now() + Duration::from_secs(15);
    while !holds().await {
        assert!(Instant::now() < end, "waited too long until {what}");
        tokio::time::sleep(Duration::from_millis(25)).await;
    }
}

pub fn all_healthy(replicas: &[Replica]) -> bool {
    replicas.iter().all(|replica| replica.healthy)
}
