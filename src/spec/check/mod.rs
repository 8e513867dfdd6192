//! Rules between the fields of a document.
//!
//! Here: what is wrong although every value alone is right: of one app (`app`), of its paths
//! (`paths`), between apps (`relations`). Elsewhere: single values (`shape`, `value`), loops
//! between apps (`cycle`).

mod app;
mod paths;
mod relations;

pub use paths::normal;

use super::load::Staged;
use super::model::Project;
use super::name::AppName;
use super::problem::Problem;
use super::source::{Sources, Span};
use super::yaml::{Kind, Node};

/// Everything that is wrong between the fields of a document.
pub fn check(staged: &Staged, sources: &Sources) -> Vec<Problem> {
    let Some(project) = &staged.project else { return Vec::new() };
    let mut checks = Checks { staged, sources, project, problems: Vec::new() };
    checks.whole();
    for (name, app) in &project.apps {
        checks.required(name, app);
        checks.source(name, app);
        checks.reach(name, app);
        checks.environment(name, app);
        checks.times(name, app);
        checks.paths(name, app);
        checks.unused(name, app);
    }
    checks.ports();
    checks.relations();
    checks.problems
}

struct Checks<'a> {
    staged: &'a Staged,
    sources: &'a Sources,
    project: &'a Project,
    problems: Vec<Problem>,
}

impl Checks<'_> {
    /// Where a field of an app stands: its key and its value.
    fn entry(&self, app: &AppName, field: &str) -> Option<(Span, &Node)> {
        let mut node = self.staged.tree.get("apps")?.get(app.as_str())?;
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
        let entry = self.staged.tree.get("apps").and_then(|apps| apps.entry(app.as_str()));
        entry.map_or(self.staged.tree.span, |entry| entry.key_span)
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
        if self.project.apps.is_empty() && tree.get("apps").and_then(Node::map).is_none_or(<[_]>::is_empty) {
            let at = tree.entry("apps").map_or(Span::new(tree.span.file, 0, 0), |entry| entry.key_span);
            self.say(
                Problem::error("no-apps", "the spec has no apps")
                    .at(at, "no app here")
                    .help("add one: `apps: {web: {role: webserver, port: 8080, command: ./server}}`; `norn destroy` removes what runs"),
            );
        }
    }
}
