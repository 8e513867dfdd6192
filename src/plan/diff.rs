//! What differs between two definitions, field by field.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use similar::{ChangeTag, TextDiff};

use crate::desired::{Command, Definition, EnvValue, Front, Ingress, Probe, Role, Route, Runtime, Volume};

/// One field that differs.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct FieldDiff {
    /// Such as `env.LOG`.
    pub field: String,
    pub difference: Difference,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub enum Difference {
    Added(String),
    Removed(String),
    Changed {
        from: String,
        to: String,
    },
    /// A secret or the value behind a reference: shown is only how it is spelled.
    Value {
        spelling: String,
    },
    /// Texts of several lines: lines with `+`, `-` or a space before them.
    Text(Vec<String>),
}

/// A field as it can be compared and shown.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Shown {
    Plain(String),
    /// The spelling, and the fingerprint of what is behind it.
    Hidden(String, Option<String>),
}

/// Compares two definitions; `values` are the fingerprints of what each does not hold.
pub fn definitions(
    old: Option<(&Definition, &BTreeMap<String, String>)>,
    new: (&Definition, &BTreeMap<String, String>),
) -> Vec<FieldDiff> {
    let old_engine = old.and_then(|(definition, _)| definition.engine.as_ref());
    // One engine may have several addresses, and another one is not moved to.
    let same_engine = old_engine.is_some() && new.0.engine.is_some();
    let mut old = old.map(|(definition, values)| fields(definition, values)).unwrap_or_default();
    let mut new = fields(new.0, new.1);
    if same_engine {
        old.remove("engine");
        new.remove("engine");
    }
    let mut names: Vec<&String> = old.keys().chain(new.keys()).collect();
    names.sort();
    names.dedup();
    let differing = names.into_iter().filter_map(|name| {
        let difference = difference(old.get(name), new.get(name))?;
        Some(FieldDiff { field: name.clone(), difference })
    });
    differing.collect()
}

/// Compares how the world reaches an app, and is to.
pub fn route(old: Option<&Route>, new: Option<&Route>) -> Option<FieldDiff> {
    let long = |route: &Route| {
        let Route { zone, config_map, deployment, .. } = route;
        let (map, program) = (&config_map.name, &deployment.name);
        let (there, here) = (&config_map.namespace, &deployment.namespace);
        format!("{route}, zone {zone}, configmap {there}/{map}, deployment {here}/{program}")
    };
    let difference = match (old, new) {
        (None, None) => return None,
        (Some(old), Some(new)) if old == new => return None,
        (Some(old), Some(new)) if old.to_string() == new.to_string() => {
            Difference::Changed { from: long(old), to: long(new) }
        }
        (Some(old), Some(new)) => Difference::Changed { from: old.to_string(), to: new.to_string() },
        (None, Some(new)) => Difference::Added(new.to_string()),
        (Some(old), None) => Difference::Removed(old.to_string()),
    };
    Some(FieldDiff { field: "route".to_owned(), difference })
}

fn difference(old: Option<&Shown>, new: Option<&Shown>) -> Option<Difference> {
    let text = |shown: &Shown| match shown {
        Shown::Plain(text) => text.clone(),
        Shown::Hidden(spelling, _) => spelling.clone(),
    };
    match (old, new) {
        (None, None) => None,
        (Some(old), Some(new)) if old == new => None,
        (None, Some(new)) => Some(Difference::Added(text(new))),
        (Some(old), None) => Some(Difference::Removed(text(old))),
        (Some(Shown::Hidden(old, _)), Some(Shown::Hidden(new, _))) if old == new => {
            Some(Difference::Value { spelling: new.clone() })
        }
        (Some(old), Some(new)) => {
            let (from, to) = (text(old), text(new));
            if from.contains('\n') || to.contains('\n') {
                Some(Difference::Text(lines(&from, &to)))
            } else {
                Some(Difference::Changed { from, to })
            }
        }
    }
}

/// How many lines around a change are shown.
const AROUND: usize = 3;

fn lines(from: &str, to: &str) -> Vec<String> {
    let diff = TextDiff::from_lines(from, to);
    let mut out = Vec::new();
    for (index, group) in diff.grouped_ops(AROUND).iter().enumerate() {
        if index > 0 {
            out.push(" …".to_owned());
        }
        for change in group.iter().flat_map(|op| diff.iter_changes(op)) {
            let sign = match change.tag() {
                ChangeTag::Delete => '-',
                ChangeTag::Insert => '+',
                ChangeTag::Equal => ' ',
            };
            out.push(format!("{sign}{}", change.value().trim_end_matches('\n')));
        }
    }
    out
}

/// The fields of a definition by name; what is at its default is left out.
fn fields(definition: &Definition, values: &BTreeMap<String, String>) -> BTreeMap<String, Shown> {
    let Definition {
        role,
        runtime,
        engine,
        command,
        env,
        secrets,
        port,
        front,
        replicas,
        health,
        resources,
        volumes,
        ingress,
    } = definition;
    let mut out = BTreeMap::new();
    let mut plain = |name: &str, text: String| {
        out.insert(name.to_owned(), Shown::Plain(text));
    };
    plain("role", role_name(*role).to_owned());
    if *runtime != Runtime::default() {
        plain("runtime", runtime.as_str().to_owned());
    }
    if let Some(address) = engine {
        plain("engine", address.clone());
    }
    match command {
        Some(Command::Shell(text)) => plain("command", text.clone()),
        Some(Command::Exec(argv)) => plain("command", format!("{argv:?}")),
        None => {}
    }
    if let Some(cpu) = resources.cpu {
        plain("resources.cpu", format!("{cpu}m"));
    }
    if let Some(memory) = resources.memory {
        plain("resources.memory", format!("{} MiB", memory / (1 << 20)));
    }
    if let Some(port) = port {
        plain("port", port.to_string());
        match front {
            Front::On(address) if address.is_loopback() => {}
            Front::On(address) => plain("front.bind", address.to_string()),
            Front::Off => plain("front", "false".into()),
        }
    }
    for volume in volumes {
        let Volume { name, path: _, size, host_path, class } = volume;
        let mut said = match runtime {
            // It has no path of its own, and is told where it is.
            Runtime::Process => format!("${}", volume.variable()),
            Runtime::Docker | Runtime::Kubernetes => volume.path.clone(),
        };
        if let Some(size) = size {
            let _ = write!(said, ", {} MiB", size / (1 << 20));
        }
        if let Some(class) = class {
            let _ = write!(said, ", class {class}");
        }
        if let Some(folder) = host_path {
            let _ = write!(said, ", the host's {folder}");
        }
        plain(&format!("volumes.{name}"), said);
    }
    if let Some(Ingress { class, host }) = ingress {
        plain("ingress", format!("{host}, class {class}"));
    }
    plain("replicas", replicas.to_string());
    plain(
        "healthcheck",
        match &health.probe {
            Probe::Http { path, host } if host == "localhost" => format!("GET {path}"),
            Probe::Http { path, host } => format!("GET {path} (Host: {host})"),
            Probe::Tcp => "the port accepts".into(),
            Probe::Command(command) => command.clone(),
            Probe::Lives(time) => format!("lives {time:?}"),
        },
    );
    if let Some(live) = &health.live {
        plain("healthcheck.live", live.clone());
    }
    for (name, value, default) in [
        ("healthcheck.startup", health.startup, 150),
        ("healthcheck.interval", health.interval, 10),
        ("healthcheck.timeout", health.timeout, 5),
    ] {
        if value.as_secs_f64() != f64::from(default) {
            plain(name, format!("{value:?}"));
        }
    }
    for (name, value) in env {
        let shown = match value {
            EnvValue::Literal(text) => Shown::Plain(text.clone()),
            EnvValue::Reference(spelling) => Shown::Hidden(spelling.clone(), values.get(name).cloned()),
        };
        out.insert(format!("env.{name}"), shown);
    }
    for name in secrets {
        out.insert(format!("secrets.{name}"), Shown::Hidden("(secret)".into(), values.get(name).cloned()));
    }
    out
}

fn role_name(role: Role) -> &'static str {
    match role {
        Role::Webserver => "webserver",
        Role::Worker => "worker",
    }
}
