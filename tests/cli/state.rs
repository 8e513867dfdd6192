//! Where the state is, and what is done about one that cannot be used.

use std::fs;

use crate::dying::{held, hold, only_the_app_runs, release};
use crate::sandbox::{Sandbox, free_port, get};

#[test]
fn the_state_lies_where_it_is_named() {
    let port = free_port();
    let sandbox = Sandbox::hello(port);
    let below = sandbox.path("below");
    fs::create_dir(&below).expect("the folder is made");
    // Relative to where the user is, and the spec is found above.
    sandbox.norn("apply --yes --state ../../mine.db").within(&below).ok();
    assert!(sandbox.path("../mine.db").is_file());
    assert!(sandbox.path("../mine.db.d/releases").is_dir(), "what belongs to a state lies beside it");
    assert!(!sandbox.path(".norn/state.db").exists());
    sandbox.norn("plan --detailed-exitcode --state ../mine.db").exits(0);
    sandbox.norn("destroy --yes --confirm greeter --state").arg(sandbox.path("../mine.db")).ok();
    assert!(get(port, "/").is_err());
}

#[test]
fn a_state_in_the_folder_of_an_app_is_no_part_of_its_source() {
    let sandbox = Sandbox::hello(free_port());
    sandbox.norn("apply --yes --state mine.db").ok();
    sandbox.norn("plan --detailed-exitcode --state mine.db").exits(0);
    let releases = fs::read_dir(sandbox.path("mine.db.d/releases/hello")).expect("it was released");
    let mut files =
        releases.flat_map(|release| fs::read_dir(release.expect("it is listed").path())).flatten();
    let of_state = |name: String| name.starts_with("mine.db");
    assert!(!files.any(|file| of_state(file.expect("it is listed").file_name().to_string_lossy().into())));
}

#[test]
fn a_spec_below_another_has_a_state_of_its_own() {
    let sandbox = Sandbox::hello(free_port());
    sandbox.norn("apply --yes").ok();
    let spec = sandbox.read("infraspec.yaml").replace("project: greeter", "project: below");
    sandbox.write("below/infraspec.yaml", &spec);
    let below = sandbox.path("below");
    sandbox.norn("plan").within(&below).ok().prints("project below").prints("(0 resources)");
}

#[test]
fn a_state_is_not_switched_silently() {
    let port = free_port();
    let mut sandbox = Sandbox::hello(port);
    let spec = sandbox.read("infraspec.yaml");
    sandbox.write("infraspec.yaml", &format!("{spec}state: {{path: \"${{STATE_FILE:-.norn/state.db}}\"}}\n"));
    sandbox.norn("apply --yes").ok();
    sandbox.set("STATE_FILE", "/dev/shm/other.db");
    for line in ["plan", "apply --yes", "status", "destroy --yes --confirm greeter"] {
        let refused = sandbox.norn(line).exits(1);
        refused.one_error().says("the state was in").says(".norn/state.db").says("--state");
    }
    assert_eq!(get(port, "/").as_deref(), Ok("one"));
    sandbox.norn("status --state .norn/state.db").ok().prints("healthy");
}

#[test]
fn a_state_of_another_project_is_refused() {
    let sandbox = Sandbox::hello(free_port());
    sandbox.norn("apply --yes --state ../one.db").ok();
    sandbox.edit("infraspec.yaml", "project: greeter", "project: another");
    for line in ["plan --state ../one.db", "apply --yes --state ../one.db", "status --state ../one.db"] {
        sandbox.norn(line).exits(1).one_error().says("belongs to project greeter").says("project another");
    }
}

#[test]
fn a_newer_state_is_left_alone() {
    let port = free_port();
    let sandbox = Sandbox::hello(port);
    sandbox.norn("apply --yes").ok();
    let path = sandbox.path(".norn/state.db");
    let db = rusqlite::Connection::open(&path).expect("the state opens");
    db.execute("update norn_meta set value = '999' where key = 'schema'", []).expect("it has a version");
    drop(db);
    let before = fs::read(&path).expect("the file is read");
    for line in ["plan", "apply --yes", "status", "history", "destroy --yes --confirm greeter"] {
        sandbox.norn(line).exits(1).one_error().says("newer norn").says("999");
    }
    assert!(before == fs::read(&path).expect("the file is read"), "nothing is written to it");
    assert_eq!(get(port, "/").as_deref(), Ok("one"));
}

#[test]
fn what_is_no_state_is_left_alone() {
    let sandbox = Sandbox::hello(free_port());
    sandbox.write("notes.txt", "these are my notes, and not a database of any kind\n");
    sandbox.norn("apply --yes --state notes.txt").exits(1).one_error().says("is no state of norn");
    assert_eq!(sandbox.read("notes.txt"), "these are my notes, and not a database of any kind\n");
    sandbox.norn("apply --yes --state .").exits(1).one_error();
}

#[test]
fn in_ci_a_state_must_be_there_or_be_named() {
    let port = free_port();
    let mut sandbox = Sandbox::hello(port);
    sandbox.set("CI", "true");
    for line in ["plan", "apply --yes"] {
        sandbox.norn(line).exits(1).one_error().says("this is CI").says("--state");
    }
    assert!(!sandbox.path(".norn").exists());
    sandbox.norn("apply --yes --state ../kept.db").ok();
    assert_eq!(get(port, "/").as_deref(), Ok("one"));
}

#[test]
fn what_ran_before_there_were_stages_is_not_forgotten() {
    let sandbox = Sandbox::hello(free_port());
    sandbox.norn("apply --yes").ok();
    let plain = sandbox.read("infraspec.yaml");
    sandbox
        .write("infraspec.yaml", &format!("{plain}stages: {{prod: {{apps: {{hello: {{replicas: 0}}}}}}}}\n"));
    let warned = sandbox.norn("plan --stage prod").ok();
    assert!(warned.err.contains("what was applied before the spec had stages runs on"), "{}", warned.err);
    // As the warning says.
    sandbox.write("infraspec.yaml", &plain);
    sandbox.norn("destroy --yes --confirm greeter").ok();
    sandbox.write("infraspec.yaml", &format!("{plain}stages: {{prod: {{}}}}\n"));
    assert_eq!(sandbox.norn("plan --stage prod").ok().err, "");
}

#[test]
fn two_stages_live_side_by_side() {
    let (one, two) = (free_port(), free_port());
    let sandbox = Sandbox::hello(one);
    let spec = sandbox.read("infraspec.yaml");
    sandbox.write(
        "infraspec.yaml",
        &format!(
            "{spec}stages:\n  test: {{}}\n  prod: {{apps: {{hello: {{port: {two}}}}}}}\ndefaultStage: test\n"
        ),
    );
    sandbox.norn("apply --yes").ok();
    sandbox.norn("apply --yes --stage prod").ok();
    assert_eq!((get(one, "/").as_deref(), get(two, "/").as_deref()), (Ok("one"), Ok("one")));
    sandbox.norn("destroy --yes --confirm test").ok();
    assert!(get(one, "/").is_err());
    assert_eq!(get(two, "/").as_deref(), Ok("one"));
    sandbox.norn("plan --stage prod").ok().prints("No changes");
}

#[test]
fn a_state_that_cannot_be_written_is_told_before_anything_is_done() {
    let Some(user) = Nobody::new("a folder of another user") else { return };
    let port = free_port();
    let sandbox = Sandbox::hello(port);
    user.owns(&sandbox);
    // All is nobody's but the folder of the state, which is root's.
    fs::create_dir(sandbox.path("../state")).expect("the folder is made");
    user.norn(&sandbox, "apply --yes --state ../state/state.db")
        .exits(1)
        .one_error()
        .says("cannot be written");
    fs::create_dir(sandbox.path(".norn")).expect("the folder is made");
    user.norn(&sandbox, "apply --yes").exits(1).one_error().says(".norn").says("write access");
    assert!(get(port, "/").is_err());
    // One that it may not even look into.
    sandbox.sh("chmod 700 .norn; : > .norn/state.db");
    for line in ["plan", "apply --yes", "status"] {
        user.norn(&sandbox, line).exits(1).one_error().says(".norn");
    }
}

#[test]
fn a_port_below_1024_needs_the_right() {
    let Some(user) = Nobody::new("a port without the right to it") else { return };
    if fs::read_to_string("/proc/sys/net/ipv4/ip_unprivileged_port_start")
        .is_ok_and(|start| start.trim() == "0")
    {
        return crate::support::skipped(
            "a port without the right to it",
            "every user may listen on every port here",
        );
    }
    let sandbox = Sandbox::hello(free_port());
    sandbox.hello_with(81, "");
    user.owns(&sandbox);
    let refused = user.norn(&sandbox, "apply --yes").run();
    assert_ne!(refused.code, Some(0), "{}", refused.all());
    refused.says("81").says("1024");
}

#[test]
fn a_state_that_is_removed_under_an_apply_is_no_success() {
    let port = free_port();
    let sandbox = held(port);
    hold(&sandbox, "build");
    let applying = sandbox.norn("apply --yes -v").start();
    applying.until("reached build");
    fs::remove_file(sandbox.path(".norn/state.db")).expect("it is there");
    release(&sandbox, "build");
    let ran = applying.end();
    assert!(matches!(ran.code, Some(1 | 3)), "{}", ran.all());
    ran.says("state.db").says("was removed while it was in use");
    only_the_app_runs(&sandbox, 0);
    assert!(get(port, "/").is_err(), "nothing went live");
    // Nothing begins anew unless somebody says so.
    sandbox.norn("apply --yes").exits(1).one_error().says("state.db is gone");
    fs::remove_file(sandbox.path(".norn/store")).expect("it is there");
    sandbox.norn("apply --yes").ok();
    assert_eq!(get(port, "/").as_deref(), Ok("one"));
}

#[test]
fn a_full_disk_loses_nothing() {
    if !rustix::process::geteuid().is_root() {
        return crate::support::skipped("a full disk", "only root may mount a file system");
    }
    let port = free_port();
    let sandbox = Sandbox::hello(port);
    let small = sandbox.path("../small");
    fs::create_dir(&small).expect("the folder is made");
    let mounted =
        sandbox.program("mount").args(["-t", "tmpfs", "-o", "size=240m", "norn-test"]).arg(&small).run();
    if mounted.code != Some(0) {
        return crate::support::skipped("a full disk", "no file system can be mounted here");
    }
    let _mount = Mount(small.clone());
    sandbox.norn("apply --yes --state ../small/state.db").ok();
    sandbox.sh("dd if=/dev/zero of=../small/filler bs=64k 2>/dev/null || true");
    sandbox.write("greeting.txt", "two");
    let full = sandbox.norn("apply --yes --state ../small/state.db").run();
    assert_ne!(full.code, Some(0), "{}", full.all());
    full.says("space");
    assert!(!full.err.contains("panicked"), "{}", full.all());
    assert_eq!(get(port, "/").as_deref(), Ok("one"), "the release before still serves");
    fs::remove_file(small.join("filler")).expect("the filler is there");
    sandbox.norn("apply --yes --state ../small/state.db").ok();
    assert_eq!(get(port, "/").as_deref(), Ok("two"));
}

/// A mounted file system, which must go before its folder can.
struct Mount(std::path::PathBuf);

impl Drop for Mount {
    fn drop(&mut self) {
        // Lazily: what runs in it is ended by the sandbox, which is dropped later.
        let _gone = std::process::Command::new("umount").arg("-l").arg(&self.0).status();
    }
}

/// A user without rights, for tests that root runs.
struct Nobody;

impl Nobody {
    fn new(what: &str) -> Option<Self> {
        let root = rustix::process::geteuid().is_root();
        let setpriv = std::process::Command::new("setpriv").arg("--version").output().is_ok();
        if root && setpriv {
            return Some(Self);
        }
        crate::support::skipped(what, "only root with setpriv may run norn as another user");
        None
    }

    /// Gives the sandbox to that user.
    fn owns(&self, sandbox: &Sandbox) {
        sandbox.sh("chown -R 65534:65534 ..; chmod 755 ..");
        // The binary is where root alone may look.
        let norn = sandbox.path("../norn");
        fs::copy(env!("CARGO_BIN_EXE_norn"), &norn).expect("norn is copied");
    }

    fn norn(&self, sandbox: &Sandbox, arguments: &str) -> crate::sandbox::Run {
        sandbox
            .program("setpriv")
            .args(["--reuid=65534", "--regid=65534", "--clear-groups"])
            .arg(sandbox.path("../norn"))
            .args(arguments.split_whitespace())
    }
}
