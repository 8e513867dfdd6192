//! The examples of this repository, as their READMEs say they are used.

use std::process::Command;
use std::time::{Duration, Instant};

use crate::sandbox::{Sandbox, free_port, get};

/// One example's way from its spec to nothing.
struct Story<'a> {
    name: &'a str,
    /// What the spec calls the app that is looked at, and its port there.
    app: &'a str,
    port: u16,
    /// Whether the spec has another folder of data than its own.
    data: Option<&'a str>,
    /// A line of the spec to change, and what then is on the page.
    change: (&'a str, &'a str),
    page: &'a str,
    /// A source file to break, and how.
    broken: (&'a str, &'a str, &'a str),
}

fn tell(story: &Story<'_>) {
    let sandbox = Sandbox::new();
    sandbox.copy_example(story.name);
    let port = free_port();
    sandbox.edit("infraspec.yaml", &format!("port: {}", story.port), &format!("port: {port}"));
    if let Some(data) = story.data {
        sandbox.edit("infraspec.yaml", data, &sandbox.folder().join("data").display().to_string());
    }
    if story.name == "rust-web" {
        // From its lock, and std only: nothing is to be fetched.
        sandbox.edit("infraspec.yaml", "cargo build --release", "cargo build --release --offline");
        sandbox.edit("infraspec.yaml", "cargo test --release", "cargo test --release --offline");
    }
    sandbox.norn("validate").ok();
    sandbox.norn("apply --yes").ok().says(&format!("http://127.0.0.1:{port}"));
    let answered = || get(port, "/");
    answered().expect("it answers");
    sandbox.norn("status").ok().prints("healthy");

    sandbox.edit("infraspec.yaml", story.change.0, story.change.1);
    let plan = sandbox.norn("plan --detailed-exitcode").exits(2);
    assert!(!plan.out.contains("build"), "a value that changed builds nothing:\n{}", plan.all());
    sandbox.norn("apply --yes").ok();
    let page = answered().expect("it answers");
    assert!(page.contains(story.page), "{page}");
    sandbox.norn("plan --detailed-exitcode").exits(0);

    let (file, from, to) = story.broken;
    sandbox.edit(file, from, to);
    let ran = sandbox.norn("apply --yes").exits(1);
    ran.says("FAILED");
    assert!(answered().expect("it answers").contains(story.page), "the release before still serves");

    // Mended, and killed while it is made: the next apply finishes.
    sandbox.edit(file, to, &format!("{from} "));
    let applying = sandbox.norn("apply --yes").start();
    applying.until(&format!("deploy/{} clone: done", story.app));
    applying.signal(rustix::process::Signal::KILL);
    applying.end();
    assert!(answered().expect("it answers").contains(story.page));
    sandbox.norn("apply --yes").ok();
    assert!(answered().expect("it answers").contains(story.page));
    sandbox.norn("plan --detailed-exitcode").exits(0);

    let project = sandbox.norn("plan --json").ok().json()["project"].as_str().expect("a name").to_owned();
    sandbox.norn(&format!("destroy --yes --confirm {project}")).ok();
    assert!(answered().is_err());
    let end = Instant::now() + Duration::from_secs(10);
    while !sandbox.processes().is_empty() {
        assert!(Instant::now() < end, "these are left: {:#?}", sandbox.processes());
        std::thread::sleep(Duration::from_millis(20));
    }
}

#[test]
fn the_rust_example_does_what_its_readme_says() {
    tell(&Story {
        name: "rust-web",
        app: "links",
        port: 8102,
        data: Some("/tmp/norn-rust-web"),
        change: ("Hello from Rust!", "Changed!"),
        page: "Changed!",
        broken: ("src/main.rs", "fn main()", "fn main() this is no Rust"),
    });
}

#[test]
fn the_python_example_does_what_its_readme_says() {
    tell(&Story {
        name: "python-web",
        app: "web",
        port: 8103,
        data: Some("/tmp/norn-python-web"),
        change: ("TITLE: Word counts", "TITLE: Changed words"),
        page: "Changed words",
        broken: ("web.py", "import ", "import no_such_module_of_all, "),
    });
}

#[test]
fn the_node_example_does_what_its_readme_says() {
    if !Command::new("npm").arg("--version").output().is_ok_and(|output| output.status.success()) {
        return crate::support::skipped("the Node.js example", "there is no npm");
    }
    tell(&Story {
        name: "node-web",
        app: "contrast",
        port: 8104,
        data: None,
        change: ("LEVEL: AA ", "LEVEL: AAA "),
        page: "AAA",
        broken: ("server.js", "import http ", "this is no JavaScript; import http "),
    });
}
