//! Rules between the fields of a document.
//!
//! Here: what is wrong although every value alone is right: of one app (`app`), of its paths
//! (`paths`) and volumes (`volumes`), of one on an engine elsewhere (`engine`), between apps (`relations`), of their names in the world (`hosts`),
//! of the state's place (`state`). Elsewhere: single values (`shape`, `value`), loops
//! between apps (`cycle`).

mod app;
mod engine;
mod hosts;
mod paths;
mod relations;
mod state;
mod volumes;

pub use paths::normal;

use std::collections::BTreeMap;

use super::load::Staged;
use super::model::Project;
use super::name::AppName;
use super::problem::Problem;
use super::schema::schemas;
use super::source::{Sources, Span};
use super::yaml::{Entry, Kind, Node};

/// Everything that is wrong between the fields of a document.
pub fn check(staged: &Staged, sources: &Sources) -> Vec<Problem> {
    let Some(project) = &staged.project else { return Vec::new() };
    let apps = staged.tree.get("apps").map(Node::index).unwrap_or_default();
    let mut checks = Checks { staged, sources, project, apps, problems: Vec::new() };
    checks.whole();
    checks.state();
    checks.engine_address();
    for (name, app) in &project.apps {
        checks.required(name, app);
        checks.source(name, app);
        checks.reach(name, app);
        checks.cluster(name, app);
        checks.engine(name, app);
        checks.environment(name, app);
        checks.volumes(name, app);
        checks.times(name, app);
        checks.paths(name, app);
        checks.unused(name, app);
    }
    checks.ports();
    checks.hosts();
    checks.relations();
    checks.problems
}

struct Checks<'a> {
    staged: &'a Staged,
    sources: &'a Sources,
    project: &'a Project,
    /// The apps of the tree by name.
    apps: BTreeMap<&'a str, &'a Entry>,
    problems: Vec<Problem>,
}

impl Checks<'_> {
    /// Where a field of an app stands: its key and its value.
    fn entry(&self, app: &AppName, field: &str) -> Option<(Span, &Node)> {
        let mut node = &self.apps.get(app.as_str())?.value;
        let mut key = None;
        for part in field.split('.') {
            let entry = node.entry(part)?;
            key = Some(entry.key_span);
            node = &entry.value;
        }
        key.map(|key| (key, node))
    }

    fn key(&self, app: &AppName, field: &str) -> Option<Span> {
        self.entry(app, field).map(|(key, _)| key)
    }

    /// The value of a field if it is a scalar, else its key.
    fn value(&self, app: &AppName, field: &str) -> Span {
        match self.entry(app, field) {
            Some((_, node)) if node.scalar().is_some() => node.span,
            Some((key, _)) => key,
            None => self.name(app),
        }
    }

    fn name(&self, app: &AppName) -> Span {
        self.apps.get(app.as_str()).map_or(self.staged.tree.span, |entry| entry.key_span)
    }

    /// The folder of the file that defines an app, relative to the root's.
    fn home(&self, app: &AppName) -> String {
        self.sources.get(self.name(app).file).folder.clone()
    }

    /// The entry of a list field, or the field's key.
    fn item(&self, app: &AppName, field: &str, text: &str) -> Span {
        let list = self.entry(app, field).map(|(_, node)| &node.kind);
        if let Some(Kind::List(items)) = list
            && let Some(item) = items.iter().find(|item| item.scalar() == Some(text))
        {
            return item.span;
        }
        self.key(app, field).unwrap_or_else(|| self.name(app))
    }

    /// Every entry of a list field with this text.
    fn items(&self, app: &AppName, field: &str, text: &str) -> Vec<Span> {
        let list = self.entry(app, field).map(|(_, node)| &node.kind);
        let Some(Kind::List(items)) = list else { return Vec::new() };
        items.iter().filter(|item| item.scalar() == Some(text)).map(|item| item.span).collect()
    }

    /// Whether a field has a stand-in, of which no rule can say anything.
    fn unsure(&self, app: &AppName, field: &str) -> bool {
        let mut path = vec!["apps".to_owned(), app.to_string()];
        path.extend(field.split('.').map(str::to_owned));
        self.staged.unsure.contains(&path)
    }

    fn say(&mut self, problem: Problem) {
        self.problems.push(problem);
    }

    fn whole(&mut self) {
        let tree = &self.staged.tree;
        // An app that is there, but in a wrong place or form, is not missing.
        let misplaced = tree
            .map()
            .unwrap_or_default()
            .iter()
            .any(|entry| entry.key != "apps" && schemas().merged["properties"].get(&entry.key).is_none());
        let none = match tree.get("apps") {
            Some(apps) => apps.map().is_some_and(<[_]>::is_empty),
            None => !misplaced,
        };
        if none && !self.staged.unsure.contains(&vec!["apps".to_owned()]) {
            let at = tree.entry("apps").map_or(Span::new(tree.span.file, 0, 0), |entry| entry.key_span);
            self.say(
                Problem::error("no-apps", "the spec has no apps")
                    .at(at, "no app here")
                    .help("add one: `apps: {web: {role: webserver, port: 8080, command: ./server}}`; `norn destroy` removes what runs"),
            );
        }
    }
}
