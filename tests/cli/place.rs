//! Where the state was is remembered with the store that was there: under another name it must be
//! the same one.

use std::fs;
use std::os::unix::fs::PermissionsExt;

use crate::sandbox::{Sandbox, free_port};
use crate::snapshot;

/// A project whose spec takes the path of its state from `STATE_FILE`.
fn sandbox() -> Sandbox {
    let sandbox = Sandbox::hello(free_port());
    let spec = sandbox.read("infraspec.yaml");
    sandbox.write("infraspec.yaml", &format!("{spec}state: {{path: \"${{STATE_FILE:-.norn/state.db}}\"}}\n"));
    sandbox
}

/// What a refusal tells, and that nothing was made.
fn refused(sandbox: &Sandbox, story: &mut String, title: &str, file: &str) {
    let before = sandbox.sh("find .. -name '*.db' -o -name store | sort");
    for line in ["plan", "apply --yes", "status", "lock status", "state upgrade"] {
        let ran = sandbox.norn(line).env("STATE_FILE", file).exits(1);
        ran.one_error();
        if line == "plan" {
            *story += &format!("=== {title}\n{}", ran.redacted());
        }
    }
    assert_eq!(sandbox.sh("find .. -name '*.db' -o -name store | sort"), before, "{title}");
}

#[test]
fn a_state_that_a_flag_named_is_not_forgotten() {
    let sandbox = Sandbox::hello(free_port());
    sandbox.norn("apply --yes --state ../kept.db").ok();
    let mode =
        |path: &str| fs::metadata(sandbox.path(path)).expect("it is there").permissions().mode() & 0o777;
    assert_eq!((mode(".norn"), mode(".norn/store")), (0o700, 0o600));
    assert_eq!(sandbox.read(".norn/.gitignore"), "*\n");
    for line in ["plan", "apply --yes", "status"] {
        let refused = sandbox.norn(line).exits(1);
        refused.one_error().says("the state was in").says("kept.db").says(".norn/state.db");
    }
    assert!(!sandbox.path(".norn/state.db").exists());
    sandbox.norn("plan --detailed-exitcode --state ../kept.db").ok();
}

#[test]
fn a_project_that_cannot_be_written_remembers_nothing_and_works() {
    if !rustix::process::geteuid().is_root() {
        return crate::support::skipped(
            "a project of another user",
            "only root may run norn as another user",
        );
    }
    let sandbox = Sandbox::hello(free_port());
    fs::create_dir(sandbox.path("../own")).expect("the folder is made");
    sandbox.sh("chown 65534:65534 ../own ../tmp ../home; chmod 755 ..");
    let norn = sandbox.path("../norn");
    fs::copy(env!("CARGO_BIN_EXE_norn"), &norn).expect("norn is copied");
    let ran = sandbox.program("setpriv").args(["--reuid=65534", "--regid=65534", "--clear-groups"]);
    ran.arg(norn).args(["apply", "--yes", "--state", "../own/state.db"]).ok();
    assert!(!sandbox.path(".norn").exists());
}

#[test]
fn another_name_of_the_same_store_is_no_switch() {
    let sandbox = sandbox();
    sandbox.norn("apply --yes").ok();
    // Through a link, and as it was moved by hand.
    std::os::unix::fs::symlink("project/.norn", sandbox.path("../link")).expect("the link is made");
    sandbox.norn("plan --detailed-exitcode").env("STATE_FILE", "../link/state.db").ok();
    fs::rename(sandbox.path(".norn/state.db"), sandbox.path("../moved.db")).expect("it is moved");
    std::os::unix::fs::symlink("project/.norn", sandbox.path("../moved.db.d")).expect("the link is made");
    let at = |line: &str| sandbox.norn(line).env("STATE_FILE", "../moved.db");
    at("plan --detailed-exitcode").ok();
    assert!(sandbox.read(".norn/store").contains(".norn/state.db\n"), "looking writes nothing");
    at("apply --yes --redeploy hello").ok();
    assert!(sandbox.read(".norn/store").contains("/moved.db\n"), "{}", sandbox.read(".norn/store"));
    at("plan --detailed-exitcode").ok();
    sandbox.norn("plan").exits(1).one_error().says("the state was in").says("moved.db");
}

#[test]
fn another_store_or_none_is_a_switch() {
    let sandbox = sandbox();
    let mut story = String::new();
    sandbox.norn("apply --yes").ok();
    sandbox.norn("state export ../one.json").ok();
    refused(&sandbox, &mut story, "none, while the file is there", "../none.db");
    // A copy beside the one that is worked on would be another from the next apply on.
    sandbox.norn("state import ../one.json --state ../copy.db").ok();
    refused(&sandbox, &mut story, "a copy, while the file is there", "../copy.db");
    sandbox.sh("mkdir ../other; cp infraspec.yaml server.py greeting.txt ../other");
    sandbox.norn("plan --out ../other.norn").within(&sandbox.path("../other")).ok();
    fs::rename(sandbox.path("../other/.norn/state.db"), sandbox.path("../other.db")).expect("it is moved");

    fs::rename(sandbox.path(".norn/state.db"), sandbox.path("../kept")).expect("it is moved");
    refused(&sandbox, &mut story, "none, and the file is gone", "../none.db");
    refused(&sandbox, &mut story, "another one, and the file is gone", "../other.db");
    // What an older norn wrote does not tell which store it was.
    let store = sandbox.read(".norn/store");
    let (place, id) = store.trim_end().split_once('\n').expect("two lines");
    assert_eq!(id.len(), 16);
    sandbox.write(".norn/store", &format!("{place}\n"));
    refused(&sandbox, &mut story, "not known which one it was", "../copy.db");
    sandbox.write(".norn/store", &store);
    snapshot::check("place-switched", &story);

    // A restored copy is the same store, and `--state` begins anew where it is asked to.
    sandbox.norn("plan").env("STATE_FILE", "../copy.db").ok();
    sandbox.norn("plan --state ../none.db").ok().prints("(0 resources)");
    fs::rename(sandbox.path("../kept"), sandbox.path(".norn/state.db")).expect("it is moved");
    sandbox.norn("plan --detailed-exitcode").ok();
}

#[test]
fn what_an_older_norn_remembered_is_read_and_mended() {
    let sandbox = sandbox();
    sandbox.norn("apply --yes").ok();
    let store = sandbox.read(".norn/store");
    let place = store.lines().next().expect("a place");
    sandbox.write(".norn/store", &format!("{place}\n"));
    sandbox.norn("plan --detailed-exitcode").ok();
    refused(&sandbox, &mut String::new(), "another", "../none.db");
    sandbox.norn("apply --yes --redeploy hello").ok();
    assert_eq!(sandbox.read(".norn/store"), store);
    // Cut short by a crash, it counts as absent.
    sandbox.write(".norn/store", "");
    sandbox.norn("plan").ok();
}

#[test]
fn an_import_is_remembered_as_the_store_that_it_brought() {
    let sandbox = sandbox();
    sandbox.norn("apply --yes").ok();
    sandbox.norn("state export ../one.json").ok();
    let store = sandbox.read(".norn/store");
    // Begun anew, and then thought better of.
    fs::rename(sandbox.path(".norn/state.db"), sandbox.path("../kept")).expect("it is moved");
    fs::remove_file(sandbox.path(".norn/store")).expect("it is there");
    sandbox.norn("plan --out ../plan.norn").ok();
    assert_ne!(sandbox.read(".norn/store"), store);
    sandbox.norn("state import ../one.json").ok();
    assert_eq!(sandbox.read(".norn/store"), store);
}

#[test]
fn a_state_that_is_gone_or_replaced_is_told_of() {
    let sandbox = Sandbox::hello(free_port());
    sandbox.norn("apply --yes").ok();
    fs::rename(sandbox.path(".norn/state.db"), sandbox.path("../kept.db")).expect("it is moved");
    for line in ["plan", "apply --yes", "destroy --yes --confirm greeter", "status"] {
        sandbox.norn(line).exits(1).one_error().says(".norn/state.db is gone").says("put it back");
    }
    assert!(!sandbox.path(".norn/state.db").exists(), "nothing begins anew");
    sandbox.sh("mkdir ../other; cp infraspec.yaml server.py greeting.txt ../other");
    sandbox.norn("plan --out ../other.norn").within(&sandbox.path("../other")).ok();
    fs::copy(sandbox.path("../other/.norn/state.db"), sandbox.path(".norn/state.db")).expect("it is copied");
    sandbox.norn("plan").exits(1).one_error().says("is not the one that was there");
    // Put back, as the refusal says: by its file, or by what was exported of it.
    fs::rename(sandbox.path("../kept.db"), sandbox.path(".norn/state.db")).expect("it is moved");
    sandbox.norn("plan --detailed-exitcode").ok();
    sandbox.norn("state export ../one.json").ok();
    fs::remove_file(sandbox.path(".norn/state.db")).expect("it is there");
    sandbox.norn("state import ../one.json").ok();
    sandbox.norn("plan --detailed-exitcode").ok();
}

#[test]
fn a_memory_that_norn_did_not_write_is_told_of() {
    let sandbox = Sandbox::hello(free_port());
    sandbox.norn("apply --yes").ok();
    let store = sandbox.read(".norn/store");
    let broken = |make: &str| {
        sandbox.sh(&format!("rm -rf .norn/store; {make}"));
        sandbox.norn("plan").exits(1).one_error().says(".norn/store").says("remove it");
    };
    broken("mkdir .norn/store");
    broken("mkfifo .norn/store");
    broken("printf '/a\\377' > .norn/store");
    broken("head -c 70000 /dev/zero > .norn/store");
    sandbox.sh("rm -rf .norn/store");
    sandbox.write(".norn/store", &store);
    sandbox.norn("plan --detailed-exitcode").ok();
}
