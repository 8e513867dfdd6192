//! Help texts, completions, man pages, the version, and slips of the pen.

use crate::sandbox::{Sandbox, free_port};
use crate::snapshot;

const COMMANDS: [&str; 17] = [
    "validate",
    "plan",
    "show",
    "apply",
    "destroy",
    "status",
    "state",
    "lock",
    "history",
    "logs",
    "restart",
    "init",
    "schema",
    "spec",
    "completions",
    "man",
    "version",
];

/// Commands of commands.
const BELOW: [&str; 6] =
    ["state show", "state export", "state import", "state migrate", "lock status", "lock break"];

#[test]
fn an_empty_variable_names_no_stage() {
    let sandbox = Sandbox::hello(free_port());
    sandbox.norn("validate").env("NORN_STAGE", "").ok();
    sandbox.norn("validate").env("NORN_STAGE", "Prod").exits(1).one_error().says("`Prod`");
}

#[test]
fn every_command_has_its_help() {
    let sandbox = Sandbox::new();
    let mut text = sandbox.norn("--help").ok().out;
    for command in COMMANDS.into_iter().chain(BELOW) {
        text += &format!("\n=== norn {command} -h\n");
        text += &sandbox.norn(&format!("{command} -h")).ok().out;
    }
    snapshot::check("help", &text);
}

#[test]
fn slips_are_errors_with_a_hint() {
    let sandbox = Sandbox::new();
    let mut text = String::new();
    for line in [
        "",
        "aply",
        "plan --traget web",
        "plan --ref web",
        "apply --lock-wait soon",
        "status Web_App",
        "logs web -f",
    ] {
        text += &format!("=== norn {line}\n{}", sandbox.norn(line).exits(1).redacted());
    }
    snapshot::check("slips", &text);
}

#[test]
fn the_version_is_told_in_words_and_as_json() {
    let sandbox = Sandbox::new();
    assert_eq!(sandbox.norn("version").ok().out, format!("norn {}\n", env!("CARGO_PKG_VERSION")));
    assert_eq!(sandbox.norn("--version").ok().out, format!("norn {}\n", env!("CARGO_PKG_VERSION")));
    assert_eq!(sandbox.norn("version --json").ok().json()["version"], env!("CARGO_PKG_VERSION"));
}

#[test]
fn completions_and_man_pages_hold_every_command() {
    let sandbox = Sandbox::new();
    for shell in ["bash", "zsh", "fish", "elvish", "powershell"] {
        let text = sandbox.norn("completions").arg(shell).ok().out;
        for command in COMMANDS {
            assert!(text.contains(command), "{shell} has no {command}");
        }
        assert!(!text.contains("supervise"), "{shell} offers what no user types");
    }
    assert!(sandbox.norn("man").ok().out.contains(".TH norn 1"));
    sandbox.write("file", "");
    sandbox.norn("man file").exits(1).one_error().says("file");
    sandbox.norn("man man1").ok();
    for command in COMMANDS {
        assert!(sandbox.path("man1").join(format!("norn-{command}.1")).is_file(), "{command} has no page");
    }
    assert!(!sandbox.path("man1/norn-guard.1").exists());
}

#[test]
fn schemas_are_printed_by_name() {
    let sandbox = Sandbox::new();
    for name in ["infraspec", "validate", "plan", "plan-file", "apply", "status", "history", "lock", "state"]
    {
        let schema = sandbox.norn("schema").arg(name).ok().json();
        assert!(schema["$schema"].is_string() && schema["title"].is_string(), "{name}");
    }
    sandbox.norn("schema stauts").exits(1).says("status");
}
