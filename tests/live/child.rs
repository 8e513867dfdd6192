//! Guarded commands: what they leave behind when they, their guard or norn end.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::{Duration, Instant};

use norn::provider::child::{ChildError, Ending, Finished, Identities, KEPT, Leash, Task, end_group, run};
use norn::provider::machine;
use norn::provider::supervise::protocol::Command;
use norn::scrub::Scrub;
use norn::secret::Secret;
use tempfile::TempDir;
use tokio::sync::watch;

/// No process.
const NONE: [u32; 0] = [];
/// How long anything here may take before it counts as never.
const LIMIT: Duration = Duration::from_secs(20);

/// A folder, and commands that run in it.
struct Bench {
    dir: TempDir,
    /// An argument of `sleep` that no other process has.
    nap: String,
    scrub: Scrub,
    timeout: Option<Duration>,
    silence: Option<Duration>,
    lease: Option<watch::Receiver<Duration>>,
    cancel: watch::Sender<bool>,
}

impl Bench {
    fn new() -> Self {
        let (cancel, _) = watch::channel(false);
        let nap = format!("600.{}", uuid::Uuid::new_v4().as_u128());
        let dir = TempDir::new().expect("a temporary folder");
        Self { dir, nap, scrub: Scrub::new([]), timeout: None, silence: None, lease: None, cancel }
    }

    fn log(&self) -> PathBuf {
        self.dir.path().join("log")
    }

    async fn run(&self, command: Command) -> Result<Finished, ChildError> {
        self.run_with(command, |_| (), |_| ()).await
    }

    async fn sh(&self, text: &str) -> Finished {
        self.run(Command::Shell(text.replace("NAP", &self.nap))).await.expect("it runs")
    }

    async fn run_with(
        &self,
        command: Command,
        started: impl FnOnce(Identities),
        on_line: impl FnMut(&str),
    ) -> Result<Finished, ChildError> {
        let env = BTreeMap::from([("PATH".to_owned(), std::env::var("PATH").expect("a PATH"))]);
        let leash = Leash {
            guard: env!("CARGO_BIN_EXE_norn").into(),
            lease: self.lease.clone(),
            cancel: self.cancel.subscribe(),
            scrub: self.scrub.clone(),
        };
        let log = self.log();
        let (timeout, silence) = (self.timeout, self.silence);
        let task = Task { command: &command, dir: self.dir.path(), env: &env, log: &log, timeout, silence };
        let record = |identities| {
            started(identities);
            async { Ok(()) }
        };
        tokio::time::timeout(LIMIT, run(&task, &leash, record, on_line)).await.expect("in time")
    }

    /// The processes that sleep this bench's nap.
    fn sleepers(&self) -> Vec<u32> {
        let entries = fs::read_dir("/proc").expect("/proc");
        let pids = entries.filter_map(|entry| entry.ok()?.file_name().to_str()?.parse::<u32>().ok());
        pids.filter(|pid| {
            let words = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
            words.starts_with(b"sleep\0") && words.split(|&byte| byte == 0).any(|w| w == self.nap.as_bytes())
        })
        .collect()
    }

    async fn until_sleeping(&self, count: usize) {
        self.until(|| self.sleepers().len() == count).await;
    }

    async fn until(&self, met: impl Fn() -> bool) {
        let start = Instant::now();
        while !met() {
            assert!(start.elapsed() < LIMIT, "waited for nothing; asleep: {:?}", self.sleepers());
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }
}

impl Drop for Bench {
    fn drop(&mut self) {
        for pid in self.sleepers() {
            let pid = rustix::process::Pid::from_raw(pid.cast_signed()).expect("a pid");
            let _ = rustix::process::kill_process(pid, rustix::process::Signal::KILL);
        }
    }
}

/// Leaves sleepers everywhere: in the group, in a session of its own, with an emptied
/// environment, and one that hears no SIGTERM.
const TREE: &str = "sleep NAP & setsid sleep NAP & env -i sh -c 'setsid sleep NAP &'
    trap '' TERM; sleep NAP & trap - TERM; sleep NAP";

fn exec(words: &[&str]) -> Command {
    Command::Exec(words.iter().map(|word| (*word).to_owned()).collect())
}

fn kill(pid: u32) {
    let pid = rustix::process::Pid::from_raw(pid.cast_signed()).expect("a pid");
    rustix::process::kill_process(pid, rustix::process::Signal::KILL).expect("it is ours");
}

#[tokio::test]
async fn a_command_is_told_by_its_end_and_its_output() {
    let bench = Bench::new();
    let done = bench.sh("echo out; echo err >&2; cat; exit 3").await;
    assert_eq!(done, Finished { ending: Ending::Exited(3), output: "out\nerr\n".into() });
    assert!(bench.sh("exit 0").await.success());
    assert_eq!(bench.sh("kill -USR1 $$").await.ending, Ending::Signalled(10));
    assert_eq!(fs::read_to_string(bench.log()).expect("a log"), "out\nerr\n");
    assert_eq!(fs::metadata(bench.log()).expect("a log").permissions().mode() & 0o777, 0o600);
}

#[tokio::test]
async fn a_command_sees_its_own_environment_and_is_no_shell_unless_asked() {
    let bench = Bench::new();
    let done = bench.run(exec(&["printf", "%s|", "$HOME", "a b"])).await.expect("it runs");
    assert_eq!(done.output, "$HOME|a b|");
    let done = bench.sh("env | cut -d= -f1 | grep -v -x -e _ -e PWD -e OLDPWD -e SHLVL | sort").await;
    assert_eq!(done.output, "NORN_TASK\nPATH\n");
}

#[tokio::test]
async fn a_program_that_is_not_there_is_named() {
    let bench = Bench::new();
    let error = bench.run(exec(&["no-such-program"])).await.expect_err("nothing to run").to_string();
    assert!(error.contains("no-such-program") && error.contains("No such file"), "{error}");
}

#[tokio::test]
async fn nothing_starts_before_its_identity_is_recorded() {
    let bench = Bench::new();
    let witness = bench.dir.path().join("witness");
    let mut who = None;
    let command = Command::Shell("echo ran > witness; ps -o pgid= -p $$".into());
    let started = |identities: Identities| {
        std::thread::sleep(Duration::from_millis(50));
        assert!(!witness.exists(), "it ran before it was recorded");
        assert_eq!(machine::alive(&identities.guard), Some(true));
        who = Some(identities);
    };
    let done = bench.run_with(command, started, |_| ()).await.expect("it runs");
    let who = who.expect("it was recorded");
    assert_eq!(done.output.trim(), who.group.pid.to_string());
    assert!(witness.exists());
    assert_eq!(machine::alive(&who.guard), Some(false));
}

#[tokio::test]
async fn a_command_whose_start_cannot_be_recorded_is_not_started() {
    let bench = Bench::new();
    let (witness, log) = (bench.dir.path().join("witness"), bench.log());
    let (command, env) = (exec(&["/usr/bin/touch", "witness"]), BTreeMap::new());
    let (timeout, silence) = (None, None);
    let task = Task { command: &command, dir: bench.dir.path(), env: &env, log: &log, timeout, silence };
    let leash = Leash {
        guard: env!("CARGO_BIN_EXE_norn").into(),
        lease: None,
        cancel: bench.cancel.subscribe(),
        scrub: Scrub::new([]),
    };
    let mut who = None;
    let record = |identities| {
        who = Some(identities);
        async { Err("the disk is full".into()) }
    };
    let error = run(&task, &leash, record, |_| ()).await.expect_err("it was not recorded");
    assert!(error.to_string().contains("the disk is full"), "{error}");
    assert_eq!(machine::alive(&who.expect("it was held").group), Some(false));
    assert!(!witness.exists());
}

#[tokio::test]
async fn what_a_command_leaves_running_is_ended() {
    let bench = Bench::new();
    let done = bench.sh("sleep NAP & setsid sleep NAP & exit 4").await;
    assert_eq!(done.ending, Ending::Exited(4));
    assert_eq!(bench.sleepers(), NONE);
}

#[tokio::test]
async fn cancelling_ends_the_whole_tree() {
    let bench = Bench::new();
    let (done, ()) = tokio::join!(bench.sh("sleep NAP & setsid sleep NAP & sleep NAP"), async {
        bench.until_sleeping(3).await;
        bench.cancel.send_replace(true);
    });
    assert_eq!(done.ending, Ending::Cancelled);
    assert_eq!(bench.sleepers(), NONE);
    assert_eq!(bench.sh("echo never").await, Finished { ending: Ending::Cancelled, output: String::new() });
}

#[tokio::test]
async fn a_command_is_ended_when_late_or_silent() {
    let limit = Duration::from_millis(200);
    let mut bench = Bench::new();
    bench.timeout = Some(limit);
    assert_eq!(bench.sh("while :; do echo on; sleep 0.05; done").await.ending, Ending::TimedOut(limit));
    let mut bench = Bench::new();
    bench.silence = Some(limit);
    let done = bench.sh("for i in 1 2 3 4 5 6; do echo on; sleep 0.05; done; sleep NAP").await;
    assert_eq!(done, Finished { ending: Ending::Silent(limit), output: "on\n".repeat(6) });
}

#[tokio::test]
async fn a_command_ends_with_the_last_lease_that_was_sent() {
    let (renew, lease) = watch::channel(machine::since_boot() + LIMIT);
    let mut bench = Bench::new();
    bench.lease = Some(lease);
    let (tree, short) = (format!("echo on; {TREE}"), Duration::from_millis(300));
    let (done, start) = tokio::join!(bench.sh(&tree), async {
        bench.until_sleeping(5).await;
        renew.send_replace(machine::since_boot() + short);
        Instant::now()
    });
    assert_eq!(done, Finished { ending: Ending::LeaseEnded, output: "on\n".into() });
    assert!(start.elapsed() >= short && start.elapsed() < Duration::from_secs(5), "{:?}", start.elapsed());
    assert_eq!(bench.sleepers(), NONE);
    // Under a lease that has passed nothing is started.
    let done = bench.sh("echo never").await;
    assert_eq!(done, Finished { ending: Ending::LeaseEnded, output: String::new() });
}

#[tokio::test]
async fn a_command_goes_on_while_the_lease_is_renewed() {
    let next = || machine::since_boot() + Duration::from_secs(1);
    let (renew, lease) = watch::channel(next());
    let mut bench = Bench::new();
    bench.lease = Some(lease);
    let heart = async {
        loop {
            tokio::time::sleep(Duration::from_millis(100)).await;
            renew.send_replace(next());
        }
    };
    tokio::select! {
        done = bench.sh("sleep 2") => assert!(done.success(), "{done:?}"),
        () = heart => {}
    }
}

#[tokio::test]
async fn nothing_is_left_when_the_future_is_dropped() {
    let bench = Bench::new();
    tokio::select! {
        _ = bench.sh(TREE) => panic!("it sleeps"),
        () = bench.until_sleeping(5) => {}
    }
    bench.until_sleeping(0).await;
}

#[tokio::test]
async fn nothing_is_left_when_the_guard_is_killed() {
    let bench = Bench::new();
    let (tell, mut told) = watch::channel(None);
    let tree = "sleep NAP & setsid sleep NAP & env -i sleep NAP & sleep NAP".replace("NAP", &bench.nap);
    let running =
        bench.run_with(Command::Shell(tree), |who| _ = tell.send_replace(Some(who.guard.pid)), |_| ());
    let (done, ()) = tokio::join!(running, async {
        let guard = told.wait_for(Option::is_some).await.expect("it starts").expect("it is some");
        bench.until_sleeping(4).await;
        kill(guard);
    });
    assert_eq!(done.expect("it ran").ending, Ending::GuardKilled);
    assert_eq!(bench.sleepers(), NONE);
}

/// Run by the next tests as a norn of its own, which they kill.
#[tokio::test]
#[ignore = "not a test: the norn that others kill"]
async fn a_norn_to_be_killed() {
    let Ok(place) = std::env::var("NORN_TEST_PLACE") else { return };
    let command = Command::Shell(std::env::var("NORN_TEST_COMMAND").expect("a command"));
    let bench = Bench::new();
    let started = |who: Identities| {
        fs::write(place, serde_json::to_vec(&who).expect("identities serialise")).expect("it can be written");
    };
    bench.run_with(command, started, |_| ()).await.expect("it runs");
}

fn norn_to_be_killed(bench: &Bench, command: &str) -> (std::process::Child, PathBuf) {
    let place = bench.dir.path().join("identities");
    let norn = std::process::Command::new(std::env::current_exe().expect("this binary"))
        .args(["--exact", "--ignored", "child::a_norn_to_be_killed"])
        .env("NORN_TEST_PLACE", &place)
        .env("NORN_TEST_COMMAND", command.replace("NAP", &bench.nap))
        .stdout(Stdio::null())
        .spawn();
    (norn.expect("it starts"), place)
}

fn identities(place: &Path) -> Identities {
    serde_json::from_slice(&fs::read(place).expect("they were recorded")).expect("identities")
}

#[tokio::test]
async fn nothing_is_left_when_norn_is_killed_and_recovery_waits_for_it() {
    let bench = Bench::new();
    let (mut norn, place) = norn_to_be_killed(&bench, TREE);
    bench.until_sleeping(5).await;
    norn.kill().expect("it is ours");
    norn.wait().expect("it is ours");
    end_group(&identities(&place)).await.expect("it can be ended");
    assert_eq!(bench.sleepers(), NONE);
}

#[tokio::test]
async fn recovery_ends_what_lost_norn_and_guard_alike() {
    let bench = Bench::new();
    let tree = "sleep NAP & setsid sleep NAP & sh -c 'trap \"\" TERM; sleep NAP & wait' & sleep NAP";
    let (mut norn, place) = norn_to_be_killed(&bench, tree);
    bench.until_sleeping(4).await;
    let who = identities(&place);
    // Stopped first, so that neither sees the other's end.
    let stop = |pid: u32| {
        let pid = rustix::process::Pid::from_raw(pid.cast_signed()).expect("a pid");
        rustix::process::kill_process(pid, rustix::process::Signal::STOP).expect("it is ours");
    };
    stop(norn.id());
    stop(who.guard.pid);
    kill(who.guard.pid);
    norn.kill().expect("it is ours");
    norn.wait().expect("it is ours");
    assert!(bench.sleepers().len() >= 3, "only the leader died with its guard");
    end_group(&who).await.expect("it can be ended");
    assert_eq!(bench.sleepers(), NONE);
    end_group(&who).await.expect("once more finds nothing");
}

#[tokio::test]
async fn recovery_touches_nothing_of_another_machine_and_waits_for_nothing_of_another_boot() {
    let own = machine::own_identity().expect("this process lives");
    let mark = "none".to_owned();
    let who = Identities { guard: own.clone(), group: own.clone(), mark };
    let mut elsewhere = who.clone();
    elsewhere.guard.machine_id = "another".into();
    let error = end_group(&elsewhere).await.expect_err("it cannot be seen");
    assert!(matches!(error, ChildError::OutOfSight { .. }), "{error}");
    let mut before = who;
    before.guard.boot_id = "another".into();
    end_group(&before).await.expect("no process outlives a boot");
}

#[tokio::test]
async fn output_is_capped_scrubbed_and_handed_on_by_line() {
    let secret = Secret::new("correct-horse\nbattery");
    let mut bench = Bench::new();
    bench.scrub = Scrub::new([&secret]);
    let mut lines = Vec::new();
    let script = "printf 'my correct-'; sleep 0.05; printf 'horse\\nbattery is \\0\\377'; sleep 0.05; echo";
    let done =
        bench.run_with(Command::Shell(script.into()), |_| (), |line| lines.push(line.to_owned())).await;
    assert_eq!(done.expect("it runs").output, "my *** is \u{FFFD}\n");
    assert_eq!(lines, ["my *** is \u{FFFD}"]);
    assert_eq!(fs::read(bench.log()).expect("a log"), b"my *** is \0\xFF\n");

    let done = bench.sh("i=0; while [ $i -lt 20000 ]; do echo line $i; i=$((i+1)); done").await;
    assert!(done.output.len() <= KEPT);
    assert!(done.output.starts_with("line 0\n") && done.output.ends_with("line 19999\n"));
    let mark = format!(" bytes cut; the whole log is in {} ...]", bench.log().display());
    assert!(done.output.contains(&mark));
    assert!(fs::metadata(bench.log()).expect("a log").len() > 200_000, "the log is whole");
}
