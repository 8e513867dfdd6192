//! A world of its own for the engines that a test process starts: processes, mounts and network.
//!
//! What runs in a world cannot outlive it: its first process ends with the test process, however
//! that ends, and the kernel then ends every other one, containers too, and takes their mounts,
//! links and packet filters away. What is left are folders, which the watcher removes, or that of
//! the next world if it was killed too.
//!
//! A thread that asks for a world is on its network from then on, with all that it starts: there
//! `127.0.0.1` is the world's, and nothing else of this machine answers. So two test processes, or
//! a test and the user's own engine, have no ports, address ranges or rules in common. With
//! `DOCKER_HOST` or `NORN_TEST_KUBECONFIG` the world is on the machine's network, where these are.
//!
//! The module that has this one also has `tests/support/mod.rs`, as `shared`.

#![allow(dead_code, reason = "each test binary uses its part")]

use std::fs::{self, File};
use std::io::{BufRead, BufReader, Read};
use std::net::TcpStream;
use std::os::fd::AsFd;
use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};

use super::shared::skipped;

/// An address of every world with a network of its own that is not a loopback one: a node's.
pub const ADDRESS: &str = "10.77.0.1";

/// A folder, and processes that end with it.
pub struct World {
    folder: PathBuf,
    /// The first process, as this machine numbers it.
    first: String,
    own_network: bool,
    watcher: Child,
}

/// Starts the world in the folder and clears up after it, and after those that nobody is left of.
/// Whatever lives in a world holds its lock.
const WATCHER: &str = r#"
folder=$1 network=$2 inside=$3
clear() {
    find /sys/fs/cgroup -depth -type d -path "*/${1##*/}*" -exec rmdir {} + 2>/dev/null
    rm -rf "$1" 2>/dev/null
}
exec 9>"$folder/lock"; flock 9
for left in "${folder%/*}"/norn-world-*; do
    [ -n "$(find "$left/lock" -mmin +1 2>/dev/null)" ] && flock -n "$left/lock" true && clear "$left"
done
unshare --mount --pid --fork --kill-child=KILL $network sh -c "$inside" first "$folder" $network
clear "$folder""#;

/// The first process: tells its number, and waits for the end of its input. Meanwhile it is the
/// parent of every process that has lost its own.
const FIRST: &str = r#"set -e
read -r number _ </proc/self/stat
mount -t proc proc /proc
# Engines leave traces there whatever they are told. Programs may be below /var/lib: it can be read.
for hidden in /run /var/log; do mount -t tmpfs tmpfs $hidden; done
mkdir "$1/written" "$1/written.work"
mount -t overlay -o "lowerdir=/var/lib,upperdir=$1/written,workdir=$1/written.work" overlay /var/lib
if [ -n "$2" ]; then
    ip link set lo up
    # An engine that has to switch this on forbids what it has not asked for: pods to reach pods.
    echo 1 >/proc/sys/net/ipv4/ip_forward
    # A request that a packet filter refused is remembered as one on its way. The next from the same
    # port within that time, two minutes otherwise, goes where it went: past the rules made meanwhile.
    echo 1 >/proc/sys/net/netfilter/nf_conntrack_tcp_timeout_syn_sent || true
    ip link add node type bridge
    ip address add ADDRESS/32 dev node
    ip link set node up
fi
echo $number
cat >/dev/null"#;

impl World {
    /// The world of this process. The calling thread is on its network from then on. `what` is not
    /// tested where there can be none.
    pub fn shared(what: &str) -> Option<Arc<Self>> {
        static SHARED: OnceLock<Result<Arc<World>, String>> = OnceLock::new();
        let machine = named("DOCKER_HOST").or_else(|| named("NORN_TEST_KUBECONFIG"));
        match SHARED.get_or_init(|| Self::start(machine.is_none())) {
            Ok(world) => {
                world.enter();
                Some(Arc::clone(world))
            }
            Err(why) => {
                skipped(what, why);
                None
            }
        }
    }

    /// A further world, for what a test breaks. Err says why there can be none.
    pub fn start(own_network: bool) -> Result<Arc<Self>, String> {
        if !rustix::process::getuid().is_root() {
            return Err("only root can start an engine".to_owned());
        }
        let made = tempfile::Builder::new().prefix("norn-world-").tempdir();
        let folder = made.expect("a temporary folder").keep();
        if ["/run", "/var/lib", "/var/log"].iter().any(|hidden| folder.starts_with(hidden)) {
            fs::remove_dir(&folder).expect("it is empty");
            return Err(format!("{} would be hidden from an engine: set TMPDIR", folder.display()));
        }
        let network = if own_network { "--net" } else { "" };
        let first = FIRST.replace("ADDRESS", ADDRESS);
        let mut command = Command::new("sh");
        command.args(["-c", WATCHER, "watcher"]).arg(&folder).args([network, &first]).env("PATH", path());
        // An interrupt at the terminal is not for it: it has yet to clear up.
        command.process_group(0);
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut watcher = command.spawn().expect("sh runs");
        let mut first = String::new();
        let said = watcher.stdout.take().expect("it is piped");
        BufReader::new(said).read_line(&mut first).expect("it is text");
        if first.is_empty() {
            drop(watcher.stdin.take());
            let mut why = String::new();
            watcher.stderr.take().expect("it is piped").read_to_string(&mut why).expect("it is text");
            let _ended = watcher.wait();
            return Err(format!("no world of its own can be made: {}", why.trim()));
        }
        Ok(Arc::new(Self { folder, first: first.trim().to_owned(), own_network, watcher }))
    }

    /// Puts the calling thread, and what it will start, on the world's network.
    pub fn enter(&self) {
        if self.own_network {
            let network = File::open(format!("/proc/{}/ns/net", self.first)).expect("the world lives");
            move_into_link_name_space(network.as_fd(), Some(LinkNameSpaceType::Network))
                .expect("root may go there");
        }
    }

    pub fn has_own_network(&self) -> bool {
        self.own_network
    }

    /// Its name, which no other world of this machine has.
    pub fn name(&self) -> String {
        self.folder.file_name().expect("it has a name").to_string_lossy().into_owned()
    }

    /// The folder of the world, the same inside and outside.
    pub fn path(&self, name: &str) -> PathBuf {
        self.folder.join(name)
    }

    pub fn write(&self, name: &str, text: &str) -> PathBuf {
        let path = self.path(name);
        fs::create_dir_all(path.parent().expect("it is in a folder")).expect("the folder is made");
        fs::write(&path, text).expect("it is written");
        path
    }

    /// A command that will run in the world, at its root, and end, by SIGKILL, with the process that waits for it.
    pub fn command(&self, program: &str) -> Command {
        let mut command = Command::new("nsenter");
        command.args(["--target", &self.first, "--mount", "--pid"]);
        if self.own_network {
            command.arg("--net");
        }
        command.args(["setpriv", "--pdeathsig", "KILL", program]);
        command.stdin(Stdio::null()).env("PATH", path());
        command
    }

    /// Starts what is to run until it is killed, or the world ends. It writes to `NAME.log`.
    pub fn serve(&self, name: &str, mut command: Command) -> Served {
        let log = self.path(&format!("{name}.log"));
        let file = File::options().create(true).append(true).open(&log).expect("the log is made");
        let errors = file.try_clone().expect("a file has two ends");
        // An interrupt at the terminal is for the test process, whose end is the end of all.
        command.stdout(file).stderr(errors).process_group(0);
        let child = command.spawn().unwrap_or_else(|error| panic!("{name}: {error}"));
        Served { name: name.to_owned(), log, child: Mutex::new(child) }
    }
}

impl Drop for World {
    fn drop(&mut self) {
        drop(self.watcher.stdin.take());
        let _ended = self.watcher.wait();
    }
}

/// A process of a world. It is killed when this is dropped.
pub struct Served {
    name: String,
    log: PathBuf,
    child: Mutex<Child>,
}

impl Served {
    pub fn name(&self) -> &str {
        &self.name
    }

    /// What it has written.
    pub fn log(&self) -> String {
        fs::read_to_string(&self.log).unwrap_or_default()
    }

    /// Kills it as a crash does.
    pub fn kill(&self) {
        let mut child = self.child.lock().unwrap_or_else(PoisonError::into_inner);
        let _gone = child.kill();
        let _ended = child.wait();
    }

    /// Waits until it is ready. It has ended, or half a minute has: that is a failure.
    pub fn until(&self, ready: impl Fn() -> bool) {
        let began = Instant::now();
        while !ready() {
            let ended = self.child.lock().unwrap_or_else(PoisonError::into_inner).try_wait();
            let late = began.elapsed() > Duration::from_secs(30);
            if late || !matches!(ended, Ok(None)) {
                panic!("{} is not ready: {}", self.name, last_lines(&self.log()));
            }
            thread::sleep(Duration::from_millis(20));
        }
    }

    /// Waits until it takes connections at this port of 127.0.0.1.
    pub fn until_listening(&self, port: u16) {
        self.until(|| TcpStream::connect(("127.0.0.1", port)).is_ok());
    }
}

impl Drop for Served {
    fn drop(&mut self) {
        self.kill();
    }
}

/// What the environment says of this name, if anything.
pub fn named(variable: &str) -> Option<String> {
    std::env::var(variable).ok().filter(|value| !value.is_empty())
}

/// Servers are not on every user's PATH.
fn path() -> String {
    format!("{}:/usr/sbin:/usr/local/sbin:/sbin", std::env::var("PATH").unwrap_or_default())
}

/// Where a program is.
pub fn program(name: &str) -> Option<PathBuf> {
    std::env::split_paths(&path()).map(|folder| folder.join(name)).find(|program| program.is_file())
}

/// The first of these programs that is not installed.
pub fn missing<'a>(programs: &[&'a str]) -> Option<&'a str> {
    programs.iter().copied().find(|name| program(name).is_none())
}

/// What a log ends with.
pub fn last_lines(text: &str) -> String {
    let lines: Vec<&str> = text.lines().collect();
    lines[lines.len().saturating_sub(15)..].join("\n")
}

/// Runs a command, which answers with what it wrote, or with its complaint.
pub fn run(command: &mut Command) -> Result<String, String> {
    let output = command.output().map_err(|error| error.to_string())?;
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).trim().to_owned();
    if output.status.success() { Ok(text(&output.stdout)) } else { Err(text(&output.stderr)) }
}
