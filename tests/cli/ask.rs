//! Asking before something is done: at a terminal, and without one.

use crate::sandbox::{Run, Sandbox, free_port, get};

/// Whether `script` is missing, which makes terminals.
pub fn no_terminal() -> bool {
    let missing = std::process::Command::new("script").arg("--version").output().is_err();
    if missing {
        crate::support::skipped("asking at a terminal", "there is no `script` of util-linux");
    }
    missing
}

/// norn at a terminal of its own, whose keys are its standard input.
pub fn at_terminal(sandbox: &Sandbox, arguments: &str) -> Run {
    let command = format!("{} {arguments}", env!("CARGO_BIN_EXE_norn"));
    sandbox.program("script").arg("-qefc").arg(command).arg("/dev/null").env("TERM", "xterm")
}

#[test]
fn without_a_terminal_nothing_is_done_unasked() {
    let port = free_port();
    let sandbox = Sandbox::hello(port);
    let refused = sandbox.norn("apply").exits(1);
    refused.one_error().says("no terminal").says("norn apply --yes");
    // Words through a pipe are no user's yes.
    sandbox.norn("apply").stdin("y\n").exits(1);
    assert!(get(port, "/").is_err());
    assert!(!sandbox.path(".norn").exists(), "a refusal leaves nothing");

    sandbox.norn("apply --yes").ok();
    for line in ["destroy", "destroy --yes", "destroy --yes --confirm hello", "destroy --confirm greeter"] {
        let refused = sandbox.norn(line).exits(1);
        refused.one_error().says("destroys 1 thing").says("norn destroy --yes --confirm greeter");
    }
    assert_eq!(get(port, "/").as_deref(), Ok("one"));
}

#[test]
fn the_command_to_use_is_the_one_that_was_typed() {
    let sandbox = Sandbox::hello(free_port());
    let folder = sandbox.path("");
    let refused = sandbox
        .norn("apply -f project/infraspec.yaml --state elsewhere.db --target hello --lock-wait 5m")
        .within(folder.parent().expect("a folder above"))
        .exits(1);
    refused.says(
        "norn apply -f project/infraspec.yaml --state elsewhere.db --target hello --lock-wait 5m --yes",
    );
}

#[test]
fn at_a_terminal_the_user_is_asked_once() {
    if no_terminal() {
        return;
    }
    let port = free_port();
    let sandbox = Sandbox::hello(port);
    let mut no = at_terminal(&sandbox, "apply").start();
    no.until("[y/N]");
    no.write("n\n");
    let no = no.end();
    assert_eq!(no.code, Some(130), "{}", no.all());
    no.prints("nothing was applied");
    assert!(get(port, "/").is_err());

    let mut yes = at_terminal(&sandbox, "apply").start();
    yes.until("[y/N]");
    yes.write("y\n");
    let yes = yes.end();
    assert_eq!(yes.code, Some(0), "{}", yes.all());
    assert_eq!(get(port, "/").as_deref(), Ok("one"));

    for (name, code) in [("hello", 130), ("y", 130), ("greeter", 0)] {
        let mut asked = at_terminal(&sandbox, "destroy").start();
        asked.until("Type greeter to destroy");
        asked.write(&format!("{name}\n"));
        let asked = asked.end();
        assert_eq!(asked.code, Some(code), "{}", asked.all());
    }
    assert!(get(port, "/").is_err());
}

#[test]
fn a_plan_that_is_out_of_date_is_asked_for_again() {
    if no_terminal() {
        return;
    }
    let port = free_port();
    let sandbox = Sandbox::hello(port);
    let mut asked = at_terminal(&sandbox, "apply").start();
    asked.until("[y/N]");
    sandbox.norn("apply --yes --target forge/hello").ok();
    asked.write("y\n");
    asked.until("here is the new plan");
    asked.until("Plan: 1 to deploy.");
    assert!(get(port, "/").is_err(), "nothing is done before the second answer");
    asked.write("y\n");
    let asked = asked.end();
    assert_eq!(asked.code, Some(0), "{}", asked.all());
    assert_eq!(get(port, "/").as_deref(), Ok("one"));

    // Norn heard signals while it had the lock; at the second question the key ends it.
    sandbox.write("greeting.txt", "two");
    let mut asked = at_terminal(&sandbox, "apply").start();
    asked.until("[y/N]");
    sandbox.norn("apply --yes").ok();
    sandbox.write("greeting.txt", "three");
    asked.write("y\n");
    asked.until("here is the new plan");
    let end = std::time::Instant::now() + std::time::Duration::from_secs(30);
    while asked.seen().matches("[y/N]").count() < 2 {
        assert!(std::time::Instant::now() < end, "it does not ask again: {}", asked.seen());
        std::thread::sleep(std::time::Duration::from_millis(10));
    }
    asked.write("\x03");
    let asked = asked.end();
    assert_eq!(asked.code, Some(130), "{}", asked.all());
}

#[test]
fn files_that_change_while_the_question_stands_are_not_deployed() {
    if no_terminal() {
        return;
    }
    let port = free_port();
    let sandbox = Sandbox::hello(port);
    let mut asked = at_terminal(&sandbox, "apply").start();
    asked.until("[y/N]");
    sandbox.write("greeting.txt", "two");
    asked.write("y\n");
    let asked = asked.end();
    assert_eq!(asked.code, Some(3), "{}", asked.all());
    asked.prints("changed since the plan");
    assert!(get(port, "/").is_err());
}

#[test]
fn ctrl_c_and_ctrl_d_at_the_question_are_a_no() {
    if no_terminal() {
        return;
    }
    let sandbox = Sandbox::hello(free_port());
    for key in ["\u{3}", "\u{4}"] {
        let mut asked = at_terminal(&sandbox, "apply").start();
        asked.until("[y/N]");
        asked.write(key);
        let asked = asked.end();
        assert_eq!(asked.code, Some(130), "{}", asked.all());
    }
    assert!(!sandbox.path(".norn").exists());
}

#[test]
fn a_protected_stage_wants_its_name() {
    let port = free_port();
    let sandbox = Sandbox::hello(port);
    let spec = sandbox.read("infraspec.yaml");
    sandbox.write("infraspec.yaml", &format!("{spec}stages:\n  prod: {{protected: true}}\n  test: {{}}\n"));
    sandbox.norn("apply --yes").exits(1).one_error().says("stages").says("prod, test");
    sandbox.norn("apply --yes --stage pord").exits(1).one_error().says("no stage `pord`").says("prod, test");
    for line in ["apply --stage prod", "apply --stage prod --yes", "apply --stage prod --yes --confirm prod"]
    {
        let refused = sandbox.norn(line).exits(1);
        refused.one_error().says("stage `prod` is protected");
        refused.says("`norn plan --stage prod --out FILE`").says("`norn apply FILE`");
    }
    assert!(get(port, "/").is_err());
    // The plan names its stage.
    sandbox.norn("plan --stage prod --out ../plan.norn").ok();
    sandbox.norn("apply ../plan.norn").ok();
    assert_eq!(get(port, "/").as_deref(), Ok("one"));
    let destroy = sandbox.norn("destroy --stage prod --yes --confirm prod").exits(1);
    destroy.one_error().says("stage `prod` is protected").says("at a terminal");
    destroy.says("`norn plan --destroy --stage prod --out FILE`");
    sandbox.norn("restart hello --stage prod --yes").exits(1).one_error().says("--yes --confirm prod");
    sandbox.norn("restart hello --yes --confirm prod").env("NORN_STAGE", "prod").ok();
}

#[test]
fn a_locked_stage_is_not_destroyed() {
    let port = free_port();
    let sandbox = Sandbox::hello(port);
    let spec = sandbox.read("infraspec.yaml");
    sandbox.write("infraspec.yaml", &format!("{spec}stages:\n  prod: {{locked: true}}\n"));
    sandbox.norn("apply --stage prod --yes").ok();
    let refused = sandbox.norn("destroy --stage prod --yes --confirm prod").exits(1);
    refused.one_error().says("stage `prod` is locked");
    assert_eq!(get(port, "/").as_deref(), Ok("one"));
}
