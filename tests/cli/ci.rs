//! norn in CI: every command line of the example workflows, with the variables of its service.

use std::fs;
use std::path::Path;

use crate::sandbox::{Sandbox, free_port, get};
use crate::snapshot;

/// The command lines that start norn in a workflow.
fn commands(file: &str) -> Vec<String> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("examples/ci").join(file);
    let text = fs::read_to_string(path).expect("the example is there");
    text.lines().map(str::trim).filter(|line| line.starts_with("norn ")).map(str::to_owned).collect()
}

/// A checkout of the project `shop` as a runner has it: git, a state outside, the service's variables.
fn checkout(port: u16, service: &[(&str, &str)]) -> Sandbox {
    let mut sandbox = Sandbox::hello(port);
    sandbox.edit("infraspec.yaml", "project: greeter", "project: shop");
    sandbox.commit("one");
    let state = sandbox.folder().join("state.db").display().to_string();
    let bin = sandbox.folder().join("bin");
    fs::create_dir(&bin).expect("the folder is made");
    std::os::unix::fs::symlink(env!("CARGO_BIN_EXE_norn"), bin.join("norn")).expect("a link to norn");
    for (name, value) in service {
        sandbox.set(name, value);
    }
    for (name, value) in [("CI", "true"), ("STATE", &state), ("STRIPE_KEY", "sk_live_12345678")] {
        sandbox.set(name, value);
    }
    sandbox
}

/// Runs a line of a workflow as the service's shell does.
fn line(sandbox: &Sandbox, line: &str) -> crate::sandbox::Run {
    let script = format!("PATH={}:$PATH\n{line}", sandbox.folder().join("bin").display());
    sandbox.program("bash").args(["--noprofile", "--norc", "-eo", "pipefail", "-c"]).arg(script)
}

fn github(sandbox: &mut Sandbox) {
    for (name, file) in [("GITHUB_OUTPUT", "output"), ("GITHUB_STEP_SUMMARY", "summary.md")] {
        let path = sandbox.folder().join(file);
        fs::write(&path, "").expect("the file is made");
        sandbox.set(name, &path.display().to_string());
    }
}

/// What norn told the service: the outputs, by name.
fn output(sandbox: &Sandbox, name: &str) -> String {
    let text = sandbox.read("../output");
    let last = text.lines().rev().find_map(|line| line.strip_prefix(&format!("{name}=")));
    last.unwrap_or_else(|| panic!("no output {name}:\n{text}")).to_owned()
}

#[test]
fn every_line_of_the_github_workflow_works() {
    let lines = commands("github-actions.yml");
    assert_eq!(lines.len(), 5, "{lines:#?}");
    let port = free_port();
    let mut sandbox = checkout(
        port,
        &[
            ("GITHUB_ACTIONS", "true"),
            ("GITHUB_SERVER_URL", "https://github.example"),
            ("GITHUB_REPOSITORY", "shop/shop"),
            ("GITHUB_RUN_ID", "77"),
            ("RUNNER_TRACKING_ID", "github_1234"),
        ],
    );
    github(&mut sandbox);
    let find =
        |what: &str| lines.iter().find(|line| line.contains(what)).unwrap_or_else(|| panic!("no {what}"));

    line(&sandbox, find("validate")).ok();
    line(&sandbox, find("plan.md")).ok();
    assert!(sandbox.read("plan.md").contains("deploy/hello"));
    assert!(sandbox.read("../summary.md").contains("deploy/hello"));
    assert_eq!((output(&sandbox, "changes"), output(&sandbox, "destroys")), ("2".into(), "0".into()));
    assert!(output(&sandbox, "plan_id").len() >= 12);
    fs::remove_file(sandbox.path("plan.md")).expect("it was written");

    // The merge: what its plan saved is applied, in a checkout that has nothing else.
    line(&sandbox, find("--out plan.norn")).ok();
    let approved = output(&sandbox, "plan_id");
    let ran = line(&sandbox, find("norn apply")).ok();
    assert_eq!(output(&sandbox, "plan_id"), approved);
    assert_eq!(get(port, "/").as_deref(), Ok("one"));
    assert!(!ran.err.contains("\u{1b}["), "no colours in a log:\n{}", ran.all());
    for (pid, name) in sandbox.processes() {
        let env = fs::read(format!("/proc/{pid}/environ")).unwrap_or_default();
        assert!(!String::from_utf8_lossy(&env).contains("github_1234"), "the runner would end {name}");
    }
    line(&sandbox, find("plan.md")).ok();
    assert_eq!(output(&sandbox, "changes"), "0");

    // A failing build is an annotation, with its output in a group; the job fails.
    sandbox.hello_with(
        port,
        "build: {command: \"echo '  ::error::forged'; echo 'a ##[error]forged'; echo built; exit 3\"}\n",
    );
    sandbox.edit("infraspec.yaml", "project: greeter", "project: shop");
    sandbox.write("greeting.txt", "two");
    sandbox.commit("two");
    line(&sandbox, find("--out plan.norn")).ok();
    let failed = line(&sandbox, find("norn apply")).run();
    assert!([Some(1), Some(3)].contains(&failed.code), "{}", failed.all());
    failed.says("::group::deploy/hello build").says("::error title=deploy/hello build::");
    let command = |line: &str| {
        let line = line.trim_start();
        line.starts_with("::error::forged") || (line.contains("##[") && !line.starts_with("::"))
    };
    assert!(!failed.err.lines().any(command), "{}", failed.all());
    assert_eq!(get(port, "/").as_deref(), Ok("one"));
    snapshot::check("ci-github", &failed.redacted().replace(&port.to_string(), "<port>"));

    // What is destroyed was approved with the rest; what moved meanwhile is not done.
    sandbox.hello_with(port, "");
    sandbox.edit("infraspec.yaml", "project: greeter", "project: shop");
    sandbox.edit("infraspec.yaml", "  hello:", "  bonjour:");
    sandbox.commit("three");
    line(&sandbox, find("--out plan.norn")).ok();
    assert_eq!(output(&sandbox, "destroys"), "1");
    sandbox.write("greeting.txt", "three");
    sandbox.edit("infraspec.yaml", "startup: 4s", "startup: 5s");
    sandbox.commit("four");
    line(&sandbox, find("norn apply")).exits(5).one_error().says("infraspec.yaml changed");
    assert_eq!(get(port, "/").as_deref(), Ok("one"));
    line(&sandbox, find("--out plan.norn")).ok();
    line(&sandbox, find("norn apply")).ok();
    assert_eq!(get(port, "/").as_deref(), Ok("three"));
    line(&sandbox, find("validate")).ok();
}

#[test]
fn every_line_of_the_gitlab_pipeline_works() {
    let lines = commands("gitlab-ci.yml");
    assert_eq!(lines.len(), 3, "{lines:#?}");
    let port = free_port();
    let sandbox =
        checkout(port, &[("GITLAB_CI", "true"), ("CI_JOB_URL", "https://gitlab.example/shop/-/jobs/77")]);
    let find =
        |what: &str| lines.iter().find(|line| line.contains(what)).unwrap_or_else(|| panic!("no {what}"));
    line(&sandbox, find("validate")).ok().says("is valid");
    line(&sandbox, find("plan")).ok();
    assert!(sandbox.read("plan.md").contains("deploy/hello"));
    line(&sandbox, find("norn apply")).ok();
    assert_eq!(get(port, "/").as_deref(), Ok("one"));
    sandbox.edit("infraspec.yaml", "  hello:", "  bonjour:");
    line(&sandbox, find("norn apply")).exits(5).one_error().says("infraspec.yaml changed");
    line(&sandbox, find("norn plan")).ok();
    line(&sandbox, find("norn apply")).ok();
    assert_eq!(get(port, "/").as_deref(), Ok("one"));
}

#[test]
fn what_was_approved_in_one_job_is_applied_in_another() {
    let port = free_port();
    let mut sandbox = checkout(port, &[("GITHUB_ACTIONS", "true")]);
    github(&mut sandbox);
    let spec = sandbox.read("infraspec.yaml");
    sandbox.write("infraspec.yaml", &format!("{spec}stages: {{prod: {{protected: true}}}}\n"));
    sandbox.commit("two");
    let origin = sandbox.path("").display().to_string();
    sandbox.sh(&format!("git clone --quiet 'file://{origin}' ../apply"));
    let job = sandbox.path("../apply");
    let apply = "norn apply plan.norn --state \"$STATE\"";

    let plan = "norn plan --stage prod --state \"$STATE\" --out plan.norn --markdown-out plan.md";
    line(&sandbox, plan).ok();
    let id = output(&sandbox, "plan_id");
    assert!(sandbox.read("plan.norn").contains(&format!("\"planId\":\"{id}\"")));
    line(&sandbox, "norn apply --stage prod --state \"$STATE\" --yes --confirm prod").exits(1).one_error();
    // The artifact is carried to another checkout of the same commit, which is clean but for it.
    fs::rename(sandbox.path("plan.norn"), job.join("plan.norn")).expect("the artifact is carried");
    line(&sandbox, apply).within(&job).ok();
    assert_eq!(get(port, "/").as_deref(), Ok("one"));
    assert_eq!(output(&sandbox, "plan_id"), id);
    line(&sandbox, "norn plan --stage prod --state \"$STATE\" --detailed-exitcode").within(&job).ok();
    line(&sandbox, apply).within(&job).ok().says("Nothing left to do");

    // In the checkout that planned, what was written beside the plan is no part of the app either.
    sandbox.write("greeting.txt", "two");
    sandbox.commit("three");
    line(&sandbox, plan).ok();
    line(&sandbox, apply).ok();
    assert_eq!(get(port, "/").as_deref(), Ok("two"));
}

#[test]
fn the_holder_of_a_lock_is_named_with_its_job() {
    let port = free_port();
    let sandbox = checkout(port, &[("CI_JOB_URL", "https://gitlab.example/shop/-/jobs/77")]);
    let gate = sandbox.folder().join("hold");
    fs::write(&gate, "").expect("the gate is made");
    let wait = format!(
        "build: {{command: \"echo holds; while test -e {}; do sleep 0.02; done\"}}\n",
        gate.display()
    );
    sandbox.hello_with(port, &wait);
    let running = line(&sandbox, "norn apply --state \"$STATE\" --yes -v").start();
    running.until("holds");
    line(&sandbox, "norn apply --state \"$STATE\" --yes")
        .exits(4)
        .one_error()
        .says("https://gitlab.example/shop/-/jobs/77");
    fs::remove_file(&gate).expect("it is there");
    assert_eq!(running.end().code, Some(0));
}

#[test]
fn problems_are_annotations_at_their_line() {
    let sandbox = Sandbox::new();
    sandbox
        .write("infraspec.yaml", "version: 1\nproject: shop\napps:\n  web:\n    comand: x\n    port: 80\n");
    let ran = sandbox.norn("validate --format github").exits(1);
    ran.prints("::error file=infraspec.yaml,line=5,endLine=5,col=5,");
}

#[test]
fn a_shallow_clone_is_told_of() {
    let sandbox = Sandbox::hello(free_port());
    sandbox.commit("one");
    sandbox.commit("two");
    let origin = sandbox.path("").display().to_string();
    sandbox.sh(&format!("git clone --quiet --depth 1 'file://{origin}' ../clone"));
    let clone = sandbox.path("../clone");
    sandbox.norn("plan").within(&clone).ok().says("warning: this is a shallow clone").says("fetch-depth");
    assert_eq!(sandbox.norn("plan").ok().err, "");
}
