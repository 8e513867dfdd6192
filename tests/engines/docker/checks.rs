//! Builds, tests and migrations: in the image, with the app's environment, and what a failing or
//! cancelled one leaves.

use std::io::Read;
use std::process::{Child, Stdio};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};

use crate::sandbox::{command_line, until};

use super::{Shop, has};

#[test]
fn a_test_and_a_migration_run_in_the_image_with_the_apps_environment_alone() {
    let Some(mut shop) = Shop::new() else { return };
    shop.sandbox.env.insert("SECRET_OF_NORN".into(), "open sesame".into());
    shop.sandbox.env.insert("TOKEN".into(), "hush".into());
    shop.web(
"env: {VERSION: v1, TOKEN: \"${TOKEN}\"}
build: {test: 'cat /release; echo \" test of $VERSION, ${#TOKEN} letters\"; env | cut -d= -f1 | sort | tr \"\\n\" \" \"'}
migrations: {command: 'echo migrates for $VERSION'}",
    );
    shop.ok("apply --yes");
    let row = &shop.rows()[0];
    let test = row.output("test");
    has(&test, &["one test of v1, 4 letters"]);
    for own in ["SECRET_OF_NORN", "DOCKER_HOST", "NORN_", "LANG"] {
        assert!(!test.contains(own), "{own}: {test}");
    }
    has(&row.output("migrate"), &["migrates for v1"]);
    shop.comes_to(1, 1);
    shop.destroy();
}

#[test]
fn a_failing_build_test_or_migration_leaves_the_old_version_and_nothing_else() {
    let Some(shop) = Shop::new() else { return };
    shop.web("env: {VERSION: v1}");
    shop.ok("apply --yes");

    shop.write("web/Dockerfile", "FROM norn-base:1\nRUN echo first words; echo last words; exit 3\n");
    let ran = shop.apply_fails(1, 1);
    has(
        &ran.err,
        &[
            "the Docker engine could not build the image",
            "last words",
            "exit code: 3",
            "the whole output is in ",
        ],
    );
    shop.write("web/Dockerfile", "FORM norn-base:1\n");
    has(&shop.apply_fails(1, 1).err, &["could not build the image", "unknown instruction: FORM"]);
    shop.write("web/Dockerfile", "FROM 127.0.0.1:1/nothing:1\n");
    has(&shop.apply_fails(1, 1).err, &["could not build the image", "127.0.0.1:1/nothing:1"]);
    shop.write("web/Dockerfile", super::DOCKERFILE);

    shop.web("env: {VERSION: v2}\nbuild: {dockerfile: Other}");
    has(&shop.apply_fails(1, 1).err, &["there is no Dockerfile at Other: name it with `build.dockerfile`"]);
    shop.web("env: {VERSION: v2}\nbuild: {context: nowhere}");
    has(
        &shop.apply_fails(1, 1).err,
        &["there is no folder ", "nowhere", "name the build's folder with `build.context`"],
    );

    shop.web("env: {VERSION: v2}\nbuild: {args: {COLOUR: red}, test: 'echo $VERSION does not pass; exit 7'}");
    has(&shop.apply_fails(1, 1).err, &["v2 does not pass", "7"]);
    shop.web("env: {VERSION: v2}\nbuild: {args: {COLOUR: red}}\nmigrations: {command: 'echo no such table >&2; exit 9'}");
    has(&shop.apply_fails(1, 1).err, &["no such table", "9"]);
    assert_eq!(shop.get().expect("it serves"), "v1 grey one");

    shop.web("env: {VERSION: v2}\nbuild: {args: {COLOUR: red}}");
    shop.ok("apply --yes");
    assert_eq!(shop.get().expect("it serves"), "v2 red one");
    shop.plan_is_empty();
    shop.destroy();
    shop.comes_to(0, 0);
}

#[test]
fn an_interrupt_ends_a_test_and_a_build() {
    let Some(shop) = Shop::new() else { return };
    shop.web("env: {VERSION: v1}");
    shop.ok("apply --yes");

    let line = "build: {test: 'echo waits long; sleep 300'}\nenv: {VERSION: v2}";
    shop.web(line);
    shop.write("web/release", "two");
    let norn = start(&shop);
    until("the test runs", || shop.containers().len() == 2);
    interrupted(&shop, norn);

    shop.web("env: {VERSION: v2}");
    let nap = nap(1);
    shop.write("web/Dockerfile", &format!("FROM norn-base:1\nRUN echo waits long; {nap}\n"));
    let norn = start(&shop);
    until("the build runs", || runs(&nap));
    interrupted(&shop, norn);
    until("the build has ended", || !runs(&nap));
    assert_eq!(shop.get().expect("it serves"), "v1 grey one");
    shop.write("web/Dockerfile", super::DOCKERFILE);
    shop.ok("apply --yes");
    assert_eq!(shop.get().expect("it serves"), "v2 grey two");
    shop.comes_to(1, 2);
    shop.destroy();
    shop.comes_to(0, 0);
}

fn start(shop: &Shop<'_>) -> Child {
    let mut command = shop.command("apply --yes");
    command.stdout(Stdio::null()).stderr(Stdio::piped()).spawn().expect("norn starts")
}

/// Interrupts norn twice; it ends soon, says so, and nothing is left of what it did.
fn interrupted(shop: &Shop<'_>, mut norn: Child) {
    let pid = Pid::from_child(&norn);
    kill_process(pid, Signal::INT).expect("it lives");
    std::thread::sleep(Duration::from_millis(300));
    let _ended = kill_process(pid, Signal::INT);
    let began = Instant::now();
    let code = norn.wait().expect("it is ours").code();
    assert!(began.elapsed() < Duration::from_secs(15), "{:?}", began.elapsed());
    let mut said = String::new();
    norn.stderr.take().expect("it is piped").read_to_string(&mut said).expect("it is text");
    assert_eq!(code, Some(130), "{said}");
    has(&said, &["cancelled"]);
    shop.comes_to(1, 1);
    assert_eq!(shop.open_in_journal(), 0);
}

/// A command line that takes for ever, and that no other test process has.
pub fn nap(number: u32) -> String {
    format!("sleep {}{number}", 100_000 + std::process::id())
}

/// Whether anything on this machine has such a command line.
pub fn runs(line: &str) -> bool {
    !pids(line).is_empty()
}

/// The processes of this machine with such a command line, those in containers too.
pub fn pids(line: &str) -> Vec<u32> {
    let names = std::fs::read_dir("/proc").expect("/proc").flatten();
    names
        .filter_map(|entry| entry.file_name().to_str()?.parse().ok())
        .filter(|pid| command_line(*pid) == line)
        .collect()
}
