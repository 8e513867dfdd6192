//! What is accepted because Norn v1 has it, and not done yet.
//!
//! The one table of it: a field leaves the table when it works.

use std::collections::BTreeSet;

use super::load::Staged;
use super::model::{App, Project, Role, Runtime};
use super::problem::{Label, Problem};
use super::source::Span;
use super::yaml::Node;

/// Fields of an app with which nothing is done yet.
const FIELDS: &[&str] = &[
    "alerts",
    "artifacts",
    "core",
    "hosts.external",
    "hosts.internal",
    "repo.autoDeploy",
    "repo.repoWeb",
    "repo.webhookSecret",
    "services.events",
    "services.kv",
    "services.postgres.migrations",
    "services.storage",
    "target",
];

/// What would run an app: its own word, the project's, else what the spec gives it to run.
pub fn runtime(app: &App, project: &Project) -> Runtime {
    let build = app.build.as_ref();
    let built = build.is_some_and(|b| b.dockerfile.is_some() && b.command.is_none());
    let image = app.image.is_some() || built;
    app.runtime.or(project.runtime).unwrap_or(if image { Runtime::Docker } else { Runtime::Process })
}

/// Why an app is not planned, or nothing where it is.
pub fn left_out(app: &App) -> Option<String> {
    match app.role {
        Role::Cron => Some("role cron".into()),
        Role::Function => Some("role function".into()),
        Role::Webserver | Role::Worker => None,
    }
}

/// One warning that names everything in the document with which nothing is done.
///
/// `told` says whether a place is wrong already.
pub fn warnings(staged: &Staged, told: &dyn Fn(Span) -> bool) -> Option<Problem> {
    let project = staged.project.as_ref()?;
    let apps = staged.tree.get("apps")?.index();
    let mut labels = Vec::new();
    let mut seen = BTreeSet::new();
    let mut unused: Vec<String> = Vec::new();
    let mut out = Vec::new();
    for (name, app) in &project.apps {
        let Some(entry) = apps.get(name.as_str()) else { continue };
        if let Some(why) = left_out(app) {
            labels.push(Label { span: entry.key_span, text: format!("left out: {why}") });
            out.push(format!("{name} ({why})"));
            continue;
        }
        for field in FIELDS {
            let ingress = project.kubernetes.as_ref().and_then(|cluster| cluster.ingress_class.as_ref());
            let published = ingress.is_some() || project.cloudflare.is_some();
            let there = runtime(app, project) == Runtime::Kubernetes;
            if *field == "hosts.external" && there && published {
                continue;
            }
            // Elsewhere it is the name by which health is asked for; a Service has the app's.
            let internal = app.hosts.as_ref().and_then(|hosts| hosts.internal.as_ref());
            if *field == "hosts.internal"
                && (!there || internal.is_some_and(|host| host.to_string() == name.as_str()))
            {
                continue;
            }
            let Some(span) = find(&entry.value, field) else { continue };
            let parts = ["apps", name.as_str()].into_iter().chain(field.split('.'));
            let path: Vec<String> = parts.map(str::to_owned).collect();
            // What is wrong within the field is said already, and matters more.
            let wrong =
                staged.unsure.range(path.clone()..).next().is_some_and(|other| other.starts_with(&path));
            // What comes from `defaults` is named once.
            if !wrong && !told(span) && seen.insert(span) {
                labels.push(Label { span, text: "nothing is done with it".into() });
                unused.push(format!("apps.{name}.{field}"));
            }
        }
    }
    let mut parts = Vec::new();
    if !out.is_empty() {
        parts.push(format!("leaves out {}", out.join(", ")));
    }
    if !unused.is_empty() {
        parts.push(format!("does nothing with {}", unused.join(", ")));
    }
    if parts.is_empty() {
        return None;
    }
    let mut problem = Problem::warning("not-yet", format!("this version {}", parts.join(" and ")));
    problem.labels = labels;
    Some(problem.help("these parts of a v1 spec are accepted and wait for a later version of norn"))
}

fn find(app: &Node, field: &str) -> Option<Span> {
    let mut node = app;
    let mut span = None;
    for key in field.split('.') {
        let entry = node.entry(key)?;
        span = Some(entry.key_span);
        node = &entry.value;
    }
    // `null` and `false` switch nothing on.
    let off = matches!(node.kind, super::yaml::Kind::Null | super::yaml::Kind::Bool(false));
    span.filter(|_| !off)
}
