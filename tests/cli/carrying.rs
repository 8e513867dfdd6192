//! The state as a whole: shown, exported, imported, moved to another place.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::thread;
use std::time::Instant;

use rustix::process::Signal;
use serde_json::{Value, json};

use crate::sandbox::{Sandbox, free_port, get};
use crate::snapshot;

fn applied(port: u16) -> Sandbox {
    let sandbox = Sandbox::hello(port);
    sandbox.norn("apply --yes").ok();
    sandbox
}

/// The path of the state that the spec names from now on.
fn state_is(sandbox: &Sandbox, path: &str) {
    let spec = sandbox.read("infraspec.yaml");
    let spec = spec.split("state:").next().unwrap_or_default();
    let line = if path.is_empty() { String::new() } else { format!("state: {{path: {path}}}\n") };
    sandbox.write("infraspec.yaml", &format!("{spec}{line}"));
}

#[test]
fn what_is_recorded_is_shown() {
    let port = free_port();
    let sandbox = Sandbox::hello(port);
    let mut story = String::new();
    let mut tell = |line: &str, code: i32| {
        let ran = sandbox.norn(line).exits(code);
        story += &format!("=== norn {line}\n{}", ran.redacted());
        ran
    };
    tell("state show", 0);
    tell("state show deploy/hello", 1);
    assert!(!sandbox.path(".norn").exists(), "looking writes nothing");
    sandbox.norn("apply --yes").ok();
    tell("state show", 0);
    tell("state show forge/hello", 0);
    tell("state show deploy/helo", 1);
    tell("state show hello", 1);
    tell("state show --json", 0);
    let shown = tell("state show deploy/hello --json", 0).json();
    assert_eq!(shown["resources"][0]["operations"][0]["outcome"], "done");
    let user = |line: &str| {
        line.split(' ')
            .map(|word| if word.contains('@') { "<user@host>" } else { word })
            .collect::<Vec<_>>()
            .join(" ")
    };
    let story = story.replace(&port.to_string(), "<port>");
    snapshot::check("state-show", &(story.lines().map(user).collect::<Vec<_>>().join("\n") + "\n"));
}

#[test]
fn an_export_is_imported_elsewhere_byte_for_byte() {
    let sandbox = applied(free_port());
    sandbox.write("greeting.txt", "two");
    sandbox.norn("apply --yes").ok();
    sandbox.norn("state export ../one.json").ok().says("2 resources and 2 deployments");
    let one = fs::read(sandbox.path("../one.json")).expect("it was written");
    let mode = fs::metadata(sandbox.path("../one.json")).expect("it is there").permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
    assert_eq!(sandbox.norn("state export").ok().out.as_bytes(), one);
    sandbox.norn("state import ../one.json --state ../copy.db").ok().says("2 resources and 2 deployments");
    // But for the token of the lease that the import took.
    let parts = |text: &str| -> (String, u64, String) {
        let (head, rest) = text.split_once(",\"token\":").expect("it has a token");
        let (token, rest) = rest.split_once(',').expect("it has tables");
        (head.to_owned(), token.parse().expect("a number"), rest.to_owned())
    };
    let own = parts(&sandbox.read("../one.json"));
    let same = |text: &str| {
        let (head, token, rest) = parts(text);
        assert!(head == own.0 && rest == own.2, "{text}");
        assert!(token >= own.1);
    };
    sandbox.norn("state export ../two.json --state ../copy.db").ok();
    same(&sandbox.read("../two.json"));
    let history = |line: &str| sandbox.norn(line).ok().out;
    assert_eq!(history("history --json"), history("history --json --state ../copy.db"));
    // Through a pipe.
    sandbox.norn("state import - --state ../piped.db").stdin(&sandbox.read("../two.json")).ok();
    same(&sandbox.norn("state export --state ../piped.db").ok().out);
}

#[test]
fn an_export_into_a_file_of_all_is_warned_of() {
    let sandbox = applied(free_port());
    let norn = env!("CARGO_BIN_EXE_norn");
    let into = |umask: &str, file: &str| {
        let script = format!("umask {umask}; exec {norn} state export > ../{file}");
        sandbox.program("sh").args(["-c", &script]).ok()
    };
    into("022", "open.json").says("warning: ").says("others can read").says("norn state export FILE");
    let private = into("077", "private.json");
    assert!(private.err.contains("keep it like a password") && !private.err.contains("warning"));
    // What reads from a pipe is its own matter.
    assert!(!sandbox.norn("state export").ok().err.contains("warning"));
}

/// What a refusal tells, and that it leaves the state as it was.
fn refused(sandbox: &Sandbox, story: &mut String, line: &str) {
    let ran = sandbox.norn(line).exits(1);
    ran.one_error();
    *story += &format!("=== norn {line}\n{}", ran.redacted());
}

#[test]
fn what_cannot_be_exported_or_imported_is_told() {
    let sandbox = Sandbox::hello(free_port());
    let mut story = String::new();
    refused(&sandbox, &mut story, "state export");
    sandbox.norn("apply --yes").ok();
    sandbox.norn("state export ../one.json").ok();
    let file: Value = serde_json::from_str(&sandbox.read("../one.json")).expect("it is JSON");
    refused(&sandbox, &mut story, "state export ../one.json");
    refused(&sandbox, &mut story, "state export ../nowhere/one.json");
    refused(&sandbox, &mut story, "state import ../one.json");
    refused(&sandbox, &mut story, "state import ../none.json");
    sandbox.write("../cut.json", &sandbox.read("../one.json")[..900]);
    refused(&sandbox, &mut story, "state import ../cut.json --state ../new.db");
    refused(&sandbox, &mut story, "state import infraspec.yaml --state ../new.db");
    for (place, value) in [
        ("/format", json!(2)),
        ("/schema", json!(999)),
        ("/project", json!("another")),
        ("/stage", json!("prod")),
        ("/token", json!("1")),
        ("/tables/norn_resources/0/body", json!({"version": 7})),
        ("/tables/deployments/0/status", json!("paused")),
        ("/tables/norn_operations/0/run", json!("r")),
    ] {
        let mut file = file.clone();
        *file.pointer_mut(place).expect("it is there") = value.clone();
        sandbox.write("../wrong.json", &file.to_string());
        story += &format!("--- {place}: {value}\n");
        refused(&sandbox, &mut story, "state import ../wrong.json --state ../new.db");
    }
    assert!(!sandbox.path("../new.db").exists(), "nothing was made for what was refused");
    let columns = |line: &str| line.split(" column ").next().unwrap_or_default().to_owned();
    snapshot::check("state-file", &(story.lines().map(columns).collect::<Vec<_>>().join("\n") + "\n"));
}

#[test]
fn an_export_tells_what_it_leaves_out_and_who_is_at_work() {
    let sandbox = applied(free_port());
    let db = rusqlite::Connection::open(sandbox.path(".norn/state.db")).expect("the state opens");
    db.execute_batch(
        "alter table deployments add column capabilities; create table beacon_events (id);
         update norn_locks set run = 'r', who = 'ana@box', machine_id = 'elsewhere', pid = 7, reason = 'norn apply',
         expires_at = strftime('%Y-%m-%dT%H:%M:%f000Z', 'now', '+60 seconds') where id = 1",
    )
    .expect("the statements are right");
    drop(db);
    let ran = sandbox.norn("state export ../one.json").ok();
    ran.says("which is left out: beacon_events, deployments.capabilities").says("ana@box").says("is at work");
    sandbox.norn("state import ../one.json --state ../copy.db").ok();
}

#[test]
fn a_moved_state_is_worked_on_where_it_went() {
    let port = free_port();
    let sandbox = applied(port);
    let mut story = String::new();
    let mut tell = |line: &str, code: i32| {
        let ran = sandbox.norn(line).exits(code);
        story += &format!("=== norn {line}\n{}", ran.redacted());
    };
    let before = sandbox.norn("state export").ok().out;
    let moved = "state migrate --to ../kept/shop.db";
    tell(moved, 0);
    for line in ["plan", "apply --yes", "status", "state export", "lock status", "lock break --yes"] {
        tell(line, 1);
    }
    tell("plan --state .norn/state.db", 1);
    tell(moved, 0);
    state_is(&sandbox, "../kept/shop.db");
    tell(moved, 1);
    tell("plan --detailed-exitcode", 0);
    let rows = |text: &str| text.split_once("\"tables\"").expect("it has tables").1.to_owned();
    assert_eq!(rows(&sandbox.norn("state export").ok().out), rows(&before));
    assert_eq!(get(port, "/").as_deref(), Ok("one"));

    sandbox.write("greeting.txt", "two");
    sandbox.norn("apply --yes").ok();
    assert_eq!(get(port, "/").as_deref(), Ok("two"));
    sandbox.norn("restart hello --yes").ok();
    sandbox.norn("logs hello").ok().prints("starts: two");
    sandbox.norn("status").ok().prints("healthy");
    sandbox.norn("plan --detailed-exitcode").exits(0);

    // And back, once the copy that was left is out of the way.
    tell("state migrate --to .norn/state.db", 1);
    fs::remove_file(sandbox.path(".norn/state.db")).expect("it is there");
    tell("state migrate --to .norn/state.db", 0);
    state_is(&sandbox, "");
    tell("plan --detailed-exitcode", 0);
    sandbox.norn("destroy --yes --confirm greeter").ok();
    assert!(get(port, "/").is_err());
    snapshot::check("state-migrate", &story);
}

#[test]
fn a_state_of_a_stage_moves_alone() {
    let (one, two) = (free_port(), free_port());
    let sandbox = Sandbox::hello(one);
    let spec = sandbox.read("infraspec.yaml");
    let stages =
        format!("stages:\n  test: {{}}\n  prod: {{apps: {{hello: {{port: {two}}}}}}}\ndefaultStage: test\n");
    sandbox.write("infraspec.yaml", &(spec + &stages));
    sandbox.norn("apply --yes").ok();
    sandbox.norn("apply --yes --stage prod").ok();
    sandbox.norn("state migrate --stage prod --to ../prod.db").ok().says("for the stage prod");
    sandbox.edit("infraspec.yaml", "prod: {apps", "prod: {state: {path: ../prod.db}, apps");
    for stage in ["test", "prod"] {
        sandbox.norn("plan --detailed-exitcode --stage").arg(stage).exits(0);
        sandbox.norn("restart hello --yes --stage").arg(stage).ok();
    }
    assert_eq!((get(one, "/").as_deref(), get(two, "/").as_deref()), (Ok("one"), Ok("one")));
    // An export of one is none of the other.
    sandbox.norn("state export ../prod.json --stage prod").ok();
    let refused = sandbox.norn("state import ../prod.json --state ../new.db").exits(1);
    refused.one_error().says("it is of project greeter, stage prod, not of project greeter, stage test");
}

#[test]
fn a_state_in_the_folder_of_an_app_leaves_nothing_of_its_source() {
    let port = free_port();
    let sandbox = Sandbox::hello(port);
    state_is(&sandbox, "mine.db");
    sandbox.norn("apply --yes").ok();
    sandbox.norn("state migrate --to ../kept.db").ok();
    state_is(&sandbox, "../kept.db");
    // The file that was left and its folder are still there, and no files of the app.
    assert!(sandbox.path("mine.db.d/releases").is_dir() && sandbox.path("mine.db").is_file());
    sandbox.norn("plan --detailed-exitcode").exits(0);
}

#[test]
fn what_cannot_be_moved_is_told_and_stays() {
    let sandbox = Sandbox::hello(free_port());
    let mut story = String::new();
    refused(&sandbox, &mut story, "state migrate --to ../new.db");
    sandbox.norn("apply --yes --state ../other.db --target forge/hello").ok();
    sandbox.norn("apply --yes --state .norn/state.db").ok();
    sandbox.norn("state export ../one.json").ok();
    sandbox.write("../notes.txt", "these are my notes, and not a database of any kind\n");
    sandbox.write("../taken.db.d/releases/web/file", "");
    // One that is another project's, and one that went on to another place.
    let spec = sandbox.read("infraspec.yaml");
    sandbox.write("infraspec.yaml", &spec.replace("project: greeter", "project: another"));
    sandbox.norn("plan --out ../plan.norn --state ../another.db").ok();
    sandbox.write("infraspec.yaml", &spec);
    sandbox.norn("state import ../one.json --state ../left.db").ok();
    sandbox.norn("state migrate --state ../left.db --to ../right.db").ok();
    sandbox.norn("restart hello --yes --state .norn/state.db").ok();
    for to in [
        ".norn/state.db",
        "./.norn/../.norn/state.db",
        "../other.db",
        "../notes.txt",
        "../another.db",
        "../left.db",
        "../taken.db",
        ".",
        "mysql://db/norn",
    ] {
        refused(&sandbox, &mut story, &format!("state migrate --to {to}"));
    }
    assert!(!story.contains("--state"), "the place is named by --to:\n{story}");
    // A copy that was made once, and worked past since.
    sandbox.norn("state import ../one.json --state ../copy.db").ok();
    sandbox.norn("restart hello --yes --state .norn/state.db").ok();
    refused(&sandbox, &mut story, "state migrate --to ../copy.db --state .norn/state.db");
    sandbox.norn("plan --detailed-exitcode --state .norn/state.db").exits(0);
    assert!(!sandbox.path("../taken.db").exists());
    snapshot::check("state-migrate-refused", &story);
}

/// The rows of a state; `None` where it was moved.
fn rows(sandbox: &Sandbox, place: &str) -> Option<String> {
    let ran = sandbox.norn("state export --state").arg(place).run();
    ran.out.split_once("\"tables\"").map(|(_, rows)| rows.to_owned())
}

#[test]
fn a_migration_that_is_killed_anywhere_is_gone_on_with() {
    let port = free_port();
    let sandbox = applied(port);
    // Something to copy.
    let db = rusqlite::Connection::open(sandbox.path(".norn/state.db")).expect("the state opens");
    db.execute_batch(
        "with recursive n(i) as (select 1 union all select i + 1 from n where i < 500)
         insert into health_checks (id, app, healthy) select i, 'hello', 1 from n",
    )
    .expect("the statement is right");
    drop(db);
    let before = rows(&sandbox, ".norn/state.db").expect("it is there");
    let begun = Instant::now();
    sandbox.norn("state migrate --to ../m0.db").ok();
    let whole = begun.elapsed();
    let (mut old, mut new) = ("../m0.db".to_owned(), "../m1.db".to_owned());
    let mut killed = 0;
    for turn in 0..16_u32 {
        let line = format!("state migrate --state {old} --to {new}");
        let mut migrating = sandbox.norn(&line).start();
        thread::sleep(whole * turn / 14);
        if !migrating.ended() {
            migrating.signal(Signal::KILL);
        }
        killed += u32::from(migrating.end().code.is_none());
        // The old one is whole until it says that the new one is.
        match rows(&sandbox, &old) {
            Some(left) => assert!(left == before, "turn {turn}"),
            None => assert!(rows(&sandbox, &new).as_ref() == Some(&before), "turn {turn}"),
        }
        sandbox.norn(&line).ok();
        assert!(rows(&sandbox, &new).as_ref() == Some(&before), "turn {turn}");
        assert_eq!(rows(&sandbox, &old), None, "turn {turn}");
        old = new;
        new = format!("../m{}.db", turn + 2);
    }
    assert!(killed > 3, "{killed}");
    state_is(&sandbox, &old);
    sandbox.norn("plan --detailed-exitcode").exits(0);
    sandbox.norn("restart hello --yes").ok();
    assert_eq!(get(port, "/").as_deref(), Ok("one"));
}

#[test]
fn a_migration_that_ended_at_a_boundary_is_gone_on_with() {
    let sandbox = applied(free_port());
    let before = rows(&sandbox, ".norn/state.db").expect("it is there");
    // After the copy, before the mark.
    sandbox.norn("state export ../one.json").ok();
    sandbox.norn("state import ../one.json --state ../new.db").ok();
    sandbox.norn("plan --detailed-exitcode --state .norn/state.db").exits(0);
    sandbox.norn("state migrate --to ../new.db --state .norn/state.db").ok().says("has a whole copy already");
    assert_eq!((rows(&sandbox, "../new.db"), rows(&sandbox, ".norn/state.db")), (Some(before), None));
    // After the mark, before it was noted where the state is.
    sandbox.write(".norn/store", &format!("{}\n", sandbox.path(".norn/state.db").display()));
    state_is(&sandbox, "../new.db");
    sandbox.norn("status").ok();
    state_is(&sandbox, "");
    sandbox.norn("plan").exits(1).one_error().says("was moved to").says("new.db");
    sandbox.norn("state migrate --to ../new.db").ok();
    assert!(sandbox.read(".norn/store").contains("new.db"));
    // What it went to is lost: nothing is begun there.
    fs::remove_file(sandbox.path("../new.db")).expect("it is there");
    sandbox
        .norn("state migrate --state .norn/state.db --to ../new.db")
        .exits(1)
        .one_error()
        .says("and is gone");
    assert!(!sandbox.path("../new.db").exists());
}

#[test]
fn a_database_of_v1_moves_too() {
    let sandbox = applied(free_port());
    let history = sandbox.norn("history --json").ok().out;
    let db = rusqlite::Connection::open(sandbox.path(".norn/state.db")).expect("the state opens");
    // Without norn's own tables it is one.
    for table in ["steps", "operations", "runs", "resources", "locks", "meta", "artifacts"] {
        db.execute_batch(&format!("drop table norn_{table}")).expect("it is there");
    }
    db.execute_batch("alter table deployments add column capabilities").expect("it is new");
    drop(db);
    sandbox.norn("plan").exits(1).one_error().says("norn state upgrade");
    let moved = sandbox.norn("state migrate --to ../new.db").ok();
    moved.says("which is left out: deployments.capabilities");
    assert_eq!(sandbox.norn("history --json --state ../new.db").ok().out, history);
}
