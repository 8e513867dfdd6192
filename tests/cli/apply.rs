//! `norn apply`: from a spec to a running app, and on from there.

use std::fs;

use crate::sandbox::{Sandbox, free_port, get};
use crate::snapshot;

#[test]
fn an_app_is_applied_changed_broken_and_destroyed() {
    let port = free_port();
    let sandbox = Sandbox::hello(port);
    let mut story = String::new();
    let mut tell = |line: &str, code: i32| {
        story += &format!("=== norn {line}\n{}", sandbox.norn(line).exits(code).redacted());
    };
    tell("plan --detailed-exitcode", 2);
    tell("apply --yes", 0);
    assert_eq!(get(port, "/").as_deref(), Ok("one"));
    tell("plan --detailed-exitcode", 0);

    sandbox.edit("infraspec.yaml", "role: webserver", "role: webserver\n    env: {GREETING: Hi}");
    tell("plan --detailed-exitcode", 2);
    tell("apply --yes", 0);
    assert_eq!(get(port, "/").as_deref(), Ok("Hi one"));
    tell("plan", 0);

    sandbox.write("greeting.txt", "two");
    tell("apply --yes", 0);
    assert_eq!(get(port, "/").as_deref(), Ok("Hi two"));

    sandbox.edit("server.py", "import os", "raise SystemExit('broken')\nimport os");
    // How far it comes until it is given up depends on the machine.
    sandbox.norn("apply --yes").exits(1).says("deploy: FAILED").says("broken").says("norn logs hello");
    assert_eq!(get(port, "/").as_deref(), Ok("Hi two"), "the release before still serves");
    sandbox.norn("plan").ok().prints("the last attempt failed");

    sandbox.edit("server.py", "raise SystemExit('broken')\nimport os", "import os");
    sandbox.write("greeting.txt", "three");
    sandbox.norn("apply --yes").ok();
    assert_eq!(get(port, "/").as_deref(), Ok("Hi three"));

    tell("destroy --yes --confirm greeter", 0);
    assert!(get(port, "/").is_err());
    assert_eq!(sandbox.processes(), []);
    tell("plan --detailed-exitcode", 2);
    snapshot::check("apply-story", &story.replace(&port.to_string(), "<port>"));
}

#[test]
fn what_norn_writes_is_for_its_user_alone() {
    let sandbox = Sandbox::hello(free_port());
    sandbox.norn("apply --yes").ok();
    let mut open = Vec::new();
    let mut folders = vec![sandbox.path(".norn")];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(&folder).expect("the folder is read").flatten() {
            use std::os::unix::fs::PermissionsExt;
            let data = entry.metadata().expect("it is there");
            // A release is the project's code, as its owner left it, in a folder that is closed.
            if entry.path().parent().is_some_and(|above| above.ends_with("releases/hello")) {
                continue;
            }
            if data.permissions().mode() & 0o077 != 0 {
                open.push(entry.path());
            }
            if data.is_dir() {
                folders.push(entry.path());
            }
        }
    }
    assert_eq!(open, Vec::<std::path::PathBuf>::new());
}

#[test]
fn quiet_prints_data_alone_and_verbose_every_line() {
    let port = free_port();
    let sandbox = Sandbox::hello(port);
    sandbox.hello_with(port, "build: {command: \"echo from the build\"}\n");
    let quiet = sandbox.norn("apply --yes -q").ok();
    assert_eq!(quiet.err, "");
    quiet.prints("forge/hello");
    let verbose = sandbox.norn("apply --yes -v --redeploy hello").ok();
    verbose.says("deploy/hello build: from the build").says("deploy/hello test: skipped");
    // What fails is told to a quiet reader too.
    sandbox.hello_with(port, "build: {command: \"exit 3\"}\n");
    sandbox.norn("apply --yes -q").exits(1).says("build: FAILED").says("norn apply");
}

#[test]
fn events_are_one_json_object_a_line() {
    let port = free_port();
    let sandbox = Sandbox::hello(port);
    let ran = sandbox.norn("apply --yes --json").ok();
    let schema = sandbox.norn("schema apply").ok().json();
    let known = schema["properties"].as_object().expect("an object");
    let required = schema["required"].as_array().expect("a list");
    let events: Vec<serde_json::Value> =
        ran.out.lines().map(|line| serde_json::from_str(line).expect("a JSON object")).collect();
    for event in &events {
        for (name, value) in event.as_object().expect("an object") {
            let kinds = &known.get(name).unwrap_or_else(|| panic!("{name} is not in the schema"))["type"];
            let kind = match value {
                serde_json::Value::String(_) => "string",
                serde_json::Value::Number(_) => "integer",
                serde_json::Value::Array(_) => "array",
                _ => continue,
            };
            let fits = kinds == kind || kinds.as_array().is_some_and(|kinds| kinds.iter().any(|k| k == kind));
            assert!(fits, "{name} is a {kind}, not {kinds}");
        }
        for name in required {
            assert!(event.get(name.as_str().expect("a name")).is_some(), "{name} is missing: {event}");
        }
    }
    let names: Vec<&str> = events.iter().filter_map(|event| event["event"].as_str()).collect();
    assert_eq!(names.first(), Some(&"plan"));
    assert_eq!(names.last(), Some(&"finished"));
    assert_eq!(events[names.len() - 1]["result"], "applied");
    for name in ["started", "operation-started", "step-started", "step-done", "operation-done"] {
        assert!(names.contains(&name), "{name} did not happen: {names:?}");
    }
    let again = sandbox.norn("apply --yes --json").ok();
    assert!(again.out.lines().last().is_some_and(|line| line.contains(r#""result":"unchanged""#)));
}

#[test]
fn an_error_is_an_event_too() {
    let sandbox = Sandbox::hello(free_port());
    sandbox.hello_with(free_port(), "build: {command: \"echo here; exit 3\"}\n");
    let ran = sandbox.norn("apply --yes --json").exits(3);
    let failed = ran.out.lines().find(|line| line.contains("step-failed")).expect("the event");
    assert!(failed.contains("\"step\":\"build\"") && failed.contains("here"), "{failed}");
    let refused = sandbox.norn("apply --json").exits(1);
    refused.one_error();
}

#[test]
fn the_outputs_of_a_plan_go_to_files() {
    let sandbox = Sandbox::hello(free_port());
    let plan = sandbox.norn("plan --json --json-out a.json --markdown-out a.md").ok();
    assert_eq!(sandbox.read("a.json"), plan.out);
    assert!(sandbox.read("a.md").contains("deploy/hello"));
    // Files that norn itself wrote are no change of the app's source: they lie in it here.
    sandbox.norn("apply --yes --json-out ../b.json --markdown-out ../b.md").ok();
    assert!(sandbox.read("../b.json").contains("\"planId\""));
    assert!(sandbox.read("../b.md").contains("forge/hello"));
    sandbox.norn("plan --json-out no/such/folder.json").exits(1).one_error().says("cannot be written");
}

#[test]
fn apps_are_chosen_and_deployed_again() {
    let sandbox = Sandbox::hello(free_port());
    let other = free_port();
    let spec = sandbox.read("infraspec.yaml");
    let second = spec.split_once("hello:").expect("the app").1;
    let port = second.split_once("port: ").expect("a port").1.lines().next().expect("a line").to_owned();
    let second = second.replace(&port, &other.to_string());
    sandbox.write("infraspec.yaml", &format!("{spec}  second:{second}"));

    sandbox.norn("apply --yes --target hello").ok();
    assert!(get(other, "/").is_err());
    sandbox.norn("plan --target hello").ok().prints("No changes");
    let rest = sandbox.norn("plan --exclude hello").ok();
    assert!(rest.out.contains("deploy/second") && !rest.out.contains("deploy/hello"), "{}", rest.all());
    sandbox.norn("apply --yes").ok();
    assert_eq!(get(other, "/").as_deref(), Ok("one"));

    let again = sandbox.norn("plan --redeploy second").ok();
    again.prints("you asked to deploy it again");
    assert!(!again.out.contains("/hello"), "{}", again.all());
    sandbox.norn("apply --yes --redeploy second").ok();
    sandbox.norn("plan --redeploy thrid").exits(1).one_error().says("no app `thrid`").says("second");
    sandbox.norn("plan --target thrid").exits(1).one_error().says("no app `thrid`").says("second");

    // One whose source cannot be looked up keeps nobody from another.
    let away = format!(
        "  away: {{role: worker, command: x, repo: {{url: \"http://127.0.0.1:{}/x.git\"}}}}\n",
        free_port()
    );
    sandbox.write("infraspec.yaml", &format!("{spec}{away}"));
    sandbox.norn("plan").exits(1).one_error().says("the source of an app cannot be looked up").says("away");
    sandbox.norn("plan --target away").exits(1).one_error().says("away");
    sandbox.norn("plan --target hello").ok().prints("No changes");
    sandbox.norn("apply --yes --exclude away --exclude second").ok();

    // An app that left the spec is torn down, and only it.
    sandbox.write("infraspec.yaml", &spec);
    sandbox.norn("plan --target second").ok().prints("no longer in the spec");
    sandbox.norn("apply --yes --confirm greeter").ok();
    assert!(get(other, "/").is_err());
    sandbox.norn("plan").ok().prints("No changes");
}

#[test]
fn a_git_source_is_exactly_the_commit_asked_for() {
    let port = free_port();
    let mut sandbox = Sandbox::hello(port);
    sandbox.commit("one");
    sandbox.sh("git tag v1");
    sandbox.write("greeting.txt", "two");
    sandbox.commit("two");
    let first = sandbox.sh("git rev-parse v1").trim().to_owned();
    let source = sandbox.path("");
    // The project is another folder, which knows the first one as a repository.
    let spec = sandbox.read("infraspec.yaml");
    fs::create_dir(sandbox.path("../deploy")).expect("the folder is made");
    let repo = format!("    repo: {{url: \"file://{}\", branch: main}}\n", source.display());
    sandbox.write("../deploy/infraspec.yaml", &(spec.replace("  hello:\n", &format!("  hello:\n{repo}"))));
    let folder = sandbox.path("../deploy");
    sandbox.set("GIT_ALLOW_PROTOCOL", "file");

    let norn = |line: &str| sandbox.norn(line).within(&folder);
    norn("apply --yes --offline").exits(1).one_error().says("not looked up");
    norn("apply --yes --ref hello=v1").ok();
    assert_eq!(get(port, "/").as_deref(), Ok("one"));
    let plan = norn("plan").ok();
    plan.prints(&first[..12]);
    norn("apply --yes").ok();
    assert_eq!(get(port, "/").as_deref(), Ok("two"));
    norn("plan --offline").ok().prints("No changes");
    norn("plan --ref hello=no-such-branch").exits(1).one_error().says("no-such-branch");
    norn("plan --ref other=main").exits(1).one_error().says("no app `other`").says("hello");
    sandbox.norn("plan --ref hello=v1").exits(1).one_error().says("local folder");
}
