//! The words for a definition.

use super::words::{count, cut, first_line};
use crate::apply::reached;
use crate::desired::{Command, Definition, EnvValue, Front, Health, Probe, Role};

/// How many replicas run, and where they are reached.
pub fn size(definition: &Definition, of: &str) -> String {
    let replicas = count(definition.replicas as usize, "replica", "replicas");
    let open = match definition.front {
        Front::On(address) if !address.is_loopback() => format!(", open on {address}"),
        Front::On(_) | Front::Off => String::new(),
    };
    match reached(definition) {
        Some(url) => format!("{replicas}{of} at {url}{open}"),
        None => format!("{replicas}{of}"),
    }
}

/// A definition that goes live for the first time.
pub fn goes_live(definition: &Definition, all: &mut Vec<(&'static str, String)>) {
    let role = match definition.role {
        Role::Webserver => "webserver",
        Role::Worker => "worker",
    };
    let runtime = definition.runtime.as_str();
    match definition.replicas {
        0 => all.push(("runs", format!("{role} on runtime {runtime}, no replicas: nothing of it runs"))),
        _ => all.push(("runs", format!("{role} on runtime {runtime}, {}", size(definition, "")))),
    }
    all.push(("command", definition.command.as_ref().map_or("the image's own".into(), command)));
    all.push(("healthy", health(&definition.health)));
    let env: Vec<String> = definition
        .env
        .iter()
        .map(|(name, value)| match value {
            EnvValue::Literal(text) => format!("{name}={}", cut(&first_line(text), 60)),
            EnvValue::Reference(spelling) => format!("{name}={}", cut(&first_line(spelling), 60)),
        })
        .collect();
    if !env.is_empty() {
        all.push(("env", env.join(", ")));
    }
    if !definition.secrets.is_empty() {
        let names: Vec<&str> = definition.secrets.iter().map(String::as_str).collect();
        all.push(("secrets", names.join(", ")));
    }
}

fn command(command: &Command) -> String {
    match command {
        Command::Shell(text) => {
            let lines = text.trim_end().lines().count();
            match lines {
                0 | 1 => text.trim_end().to_owned(),
                n => {
                    let first = text.lines().next().unwrap_or_default();
                    format!("{first} (and {})", count(n - 1, "more line", "more lines"))
                }
            }
        }
        Command::Exec(argv) => format!("{argv:?}"),
    }
}

fn health(health: &Health) -> String {
    match &health.probe {
        Probe::Http { path, host } if host == "localhost" => format!("GET {path} succeeds"),
        Probe::Http { path, host } => format!("GET {path} with Host {host} succeeds"),
        Probe::Tcp => "the port accepts".into(),
        Probe::Command(command) => format!("`{}` succeeds", first_line(command)),
        Probe::Lives(time) => format!("it is alive after {time:?}"),
    }
}
