//! From files to one document: the root, what it includes, and one of its stages.
//!
//! Here: the two forms, include, stage, `defaults`, in this order. Elsewhere: reading files
//! ([`Files`] is given), what values mean (`shape`, `check`).

use std::collections::{BTreeMap, BTreeSet};

use super::merge;
use super::model::{Project, StageRules};
use super::name::StageName;
use super::problem::{self, Problem};
use super::schema::{OF_THE_PROJECT, schemas};
pub use super::shape::Lookup;
use super::shape::{self, Use};
use super::source::{FileId, SourceFile, Sources, Span};
use super::yaml::{self, Entry, Kind, Node};
use super::{check, pending};

/// Where files come from. Paths have `/` and are relative to the root file's folder.
pub trait Files {
    /// # Errors
    /// Why the file cannot be read, for the message.
    fn read(&self, path: &str) -> Result<Vec<u8>, String>;
    /// The files that match a pattern, sorted.
    ///
    /// # Errors
    /// Why the folders cannot be listed.
    fn matching(&self, pattern: &str) -> Result<Vec<String>, String>;
    /// The path as messages show it.
    fn shown(&self, path: &str) -> String;
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Form {
    Project,
    App,
}

/// All files of a spec as one tree in the project form, before a stage is chosen.
#[derive(Debug)]
pub struct Document {
    pub sources: Sources,
    pub form: Form,
    pub tree: Node,
    pub problems: Vec<Problem>,
}

/// A document for one stage, read and checked.
#[derive(Debug)]
pub struct Staged {
    /// Without `stages`, `include` and `defaults`, which are merged.
    pub tree: Node,
    /// Absent where problems keep it from being read.
    pub project: Option<Project>,
    pub uses: Vec<Use>,
    pub spelled: BTreeMap<Vec<String>, String>,
    pub unsure: BTreeSet<Vec<String>>,
    pub problems: Vec<Problem>,
}

impl Staged {
    pub fn failed(&self) -> bool {
        self.project.is_none() || self.problems.iter().any(Problem::is_error)
    }

    /// The folder, relative to the root file's, of the file that defines an app.
    pub fn home<'a>(&self, sources: &'a Sources, app: &str) -> &'a str {
        let entry = self.tree.get("apps").and_then(|apps| apps.entry(app));
        entry.map_or("", |entry| &sources.get(entry.key_span.file).folder)
    }
}

/// Reads the root file and what it includes.
pub fn read(files: &dyn Files, root: &str) -> Document {
    let mut sources = Sources::default();
    let mut problems = Vec::new();
    let empty = |file| Node { span: Span::new(file, 0, 0), kind: Kind::Map(Vec::new()) };
    let (file, node) = read_file(files, root, &mut sources, &mut problems);
    let node = node.unwrap_or_else(|| empty(file));
    if node.map().is_none() && problems.is_empty() {
        let what = if node.kind == Kind::Null { "the file is empty" } else { "the file is no map" };
        problems.push(
            Problem::error("no-map", what)
                .at(Span::new(file, 0, 0), format!("this is {}", node.what()))
                .help("a spec starts with `version: 1`, `project: NAME` and `apps:`; `norn init` writes one"),
        );
        return Document { sources, form: Form::Project, tree: empty(file), problems };
    }
    if !problems.is_empty() {
        return Document { sources, form: Form::Project, tree: node, problems };
    }
    let form = if node.entry("app").is_some() { Form::App } else { Form::Project };
    let schema = match form {
        Form::App => &schemas().app_file,
        Form::Project => &schemas().project_file,
    };
    problems.extend(shape::read(&node, schema, None).problems);
    let tree = match form {
        Form::App => project_of(node),
        Form::Project => include(files, node, &mut sources, &mut problems),
    };
    Document { sources, form, tree, problems }
}

fn read_file(
    files: &dyn Files,
    path: &str,
    sources: &mut Sources,
    problems: &mut Vec<Problem>,
) -> (FileId, Option<Node>) {
    let folder = path.rsplit_once('/').map_or("", |(folder, _)| folder).to_owned();
    let shown = files.shown(path);
    let (text, problem) = match files.read(path).map(String::from_utf8) {
        Ok(Ok(text)) => (text, None),
        Ok(Err(error)) => {
            let at = error.utf8_error().valid_up_to();
            let text = String::from_utf8_lossy(error.as_bytes()).into_owned();
            let message = format!("the file is not UTF-8: the byte at {at} begins no character");
            let help = "save it as UTF-8";
            (text, Some((at, Problem::error("not-utf8", message).help(help))))
        }
        Err(why) => {
            let message = format!("{shown} cannot be read: {why}");
            let help = "check the path and its permissions; `norn init` writes a new spec";
            (String::new(), Some((0, Problem::error("unreadable", message).help(help))))
        }
    };
    let file = sources.add(SourceFile { path: shown, folder, text });
    if let Some((at, problem)) = problem {
        let problem =
            if problem.code == "unreadable" { problem } else { problem.at(Span::new(file, at, 1), "here") };
        problems.push(problem);
        return (file, None);
    }
    match yaml::parse(file, &sources.get(file).text) {
        Ok(node) => (file, Some(node)),
        Err(found) => {
            problems.extend(found);
            (file, None)
        }
    }
}

/// A root in the app form as the project form: its app under `apps`, the project's fields above.
fn project_of(node: Node) -> Node {
    let span = node.span;
    let Kind::Map(entries) = node.kind else { unreachable!("the form was told by a key") };
    let generated =
        |key: &str, kind| Entry { key: key.to_owned(), key_span: span, value: Node { span, kind } };
    let mut project = vec![generated("version", Kind::Number("1".into()))];
    if !entries.iter().any(|entry| entry.key == "project") {
        project.push(generated("project", Kind::Text("default".into())));
    }
    let mut app = Vec::new();
    let mut name = None;
    for entry in entries {
        match entry.key.as_str() {
            "app" => name = Some(entry.value),
            key if OF_THE_PROJECT.contains(&key) => project.push(entry),
            _ => app.push(entry),
        }
    }
    let apps = match name {
        Some(name) if name.scalar().is_some() => {
            let key = name.scalar().unwrap_or_default().to_owned();
            vec![Entry { key, key_span: name.span, value: Node { span, kind: Kind::Map(app) } }]
        }
        _ => Vec::new(),
    };
    project.push(generated("apps", Kind::Map(apps)));
    Node { span, kind: Kind::Map(project) }
}

/// Adds the apps of included files to `apps`.
fn include(files: &dyn Files, mut node: Node, sources: &mut Sources, problems: &mut Vec<Problem>) -> Node {
    let patterns = match node.get("include").map(|n| n.kind.clone()) {
        Some(Kind::List(patterns)) => patterns,
        _ => return node,
    };
    let mut included: Vec<Entry> = Vec::new();
    for pattern in &patterns {
        let Some(text) = pattern.scalar() else { continue };
        let found = match files.matching(text) {
            Ok(found) => found,
            Err(why) => {
                let message = format!("`{text}` cannot be looked up: {why}");
                problems.push(Problem::error("include", message).at(pattern.span, "this pattern"));
                continue;
            }
        };
        if found.is_empty() {
            problems.push(
                Problem::error("include", format!("no file matches `{text}`"))
                    .at(pattern.span, "this pattern")
                    .help(
                        "patterns are relative to this file's folder; take the entry out if it is not needed",
                    ),
            );
        }
        for path in found {
            let (_, Some(file)) = read_file(files, &path, sources, problems) else { continue };
            included.extend(included_app(file, problems));
        }
    }
    let Kind::Map(entries) = &mut node.kind else { return node };
    let at = entries.iter().position(|entry| entry.key == "apps").unwrap_or_else(|| {
        let value = Node { span: node.span, kind: Kind::Map(Vec::new()) };
        entries.push(Entry { key: "apps".into(), key_span: node.span, value });
        entries.len() - 1
    });
    let apps = &mut entries[at].value;
    if matches!(apps.kind, Kind::Null) {
        apps.kind = Kind::Map(Vec::new());
    }
    let Kind::Map(apps) = &mut apps.kind else { return node };
    for app in included {
        match apps.iter().find(|other| other.key == app.key) {
            Some(first) if first.key_span == app.key_span => {}
            Some(first) => problems.push(
                Problem::error("duplicate-app", format!("there are two apps called `{}`", app.key))
                    .at(app.key_span, "again here")
                    .at(first.key_span, "first here")
                    .help("rename one of them, or take one file out of `include`"),
            ),
            None => apps.push(app),
        }
    }
    node
}

fn included_app(file: Node, problems: &mut Vec<Problem>) -> Option<Entry> {
    let shaped = shape::read(&file, &schemas().app_file, None);
    problems.extend(shaped.problems);
    for field in OF_THE_PROJECT {
        if let Some(entry) = file.entry(field) {
            problems.push(
                Problem::error("included-project-field", format!("an included file cannot set `{field}`"))
                    .at(entry.key_span, "this belongs to the project")
                    .help("move it to the root file: an included file has the fields of its app only"),
            );
        }
    }
    let project = project_of_included(file)?;
    match project.get("apps").map(|apps| apps.kind.clone()) {
        Some(Kind::Map(mut apps)) => apps.pop(),
        _ => None,
    }
}

fn project_of_included(file: Node) -> Option<Node> {
    file.entry("app")?;
    Some(project_of(file))
}

impl Document {
    pub fn failed(&self) -> bool {
        self.problems.iter().any(Problem::is_error)
    }

    /// The stages by name, in the order of their names.
    pub fn stages(&self) -> Vec<StageName> {
        let stages = self.tree.get("stages").and_then(Node::map).unwrap_or_default();
        let mut names: Vec<StageName> = stages.iter().filter_map(|s| s.key.parse().ok()).collect();
        names.sort();
        names
    }

    /// The stage that is taken when none is named.
    pub fn default_stage(&self) -> Option<StageName> {
        self.tree.get("defaultStage").and_then(Node::scalar).and_then(|name| name.parse().ok())
    }

    /// The document for one stage. Without `lookup` references stay as they are.
    pub fn stage(&self, stage: Option<&StageName>, lookup: Option<&dyn Fn(&Use) -> Lookup>) -> Staged {
        let mut problems = Vec::new();
        let mut tree = self.tree.clone();
        let patch = stage.and_then(|stage| self.tree.get("stages")?.get(stage.as_str()).cloned());
        let mut rules = None;
        if let Some(mut patch) = patch {
            rules = Some(split_rules(&mut patch));
            tree = merge::patch(tree, &patch, &mut problems);
            merge::warn_of_shadowed(&tree, &patch, &mut problems);
        }
        let defaults = tree.get("defaults").cloned();
        if let Kind::Map(entries) = &mut tree.kind {
            entries.retain(|entry| !["stages", "include", "defaults"].contains(&entry.key.as_str()));
        }
        if let Some(defaults) = defaults.filter(|d| d.map().is_some()) {
            apply_defaults(&mut tree, &defaults);
        }
        let shaped = shape::read(&tree, &schemas().merged, lookup);
        problems.extend(shaped.problems);
        let rules: StageRules = rules
            .map(|rules| shape::read(&rules, &schemas().defs["StageRules"], None).value)
            .and_then(|value| serde_json::from_value(value).ok())
            .unwrap_or_default();
        let project = match serde_json::from_value::<Project>(shaped.value) {
            Ok(project) => Some(Project { stage: rules, ..project }),
            Err(error) => {
                if !problems.iter().chain(&self.problems).any(Problem::is_error) {
                    problems.push(
                        Problem::error("unreadable-value", format!("the document cannot be read: {error}"))
                            .help("please report this: the schema takes it and the reader does not"),
                    );
                }
                None
            }
        };
        let mut staged = Staged {
            tree,
            project,
            uses: shaped.uses,
            spelled: shaped.spelled,
            unsure: shaped.unsure,
            problems,
        };
        let found = check::check(&staged, &self.sources);
        staged.problems.extend(found);
        staged.problems.extend(pending::warnings(&staged));
        problem::sort(&mut staged.problems, &self.sources);
        staged
    }
}

/// Takes what a stage says of itself out of its patch.
fn split_rules(patch: &mut Node) -> Node {
    let fields = schemas().defs["StageRules"]["properties"].as_object().expect("it has fields");
    let span = patch.span;
    let Kind::Map(entries) = &mut patch.kind else {
        return Node { span, kind: Kind::Map(Vec::new()) };
    };
    let (rules, rest) = std::mem::take(entries).into_iter().partition(|e| fields.contains_key(&e.key));
    *entries = rest;
    Node { span, kind: Kind::Map(rules) }
}

fn apply_defaults(tree: &mut Node, defaults: &Node) {
    let Kind::Map(entries) = &mut tree.kind else { return };
    let Some(apps) = entries.iter_mut().find(|entry| entry.key == "apps") else { return };
    let Kind::Map(apps) = &mut apps.value.kind else { return };
    for app in apps {
        // An app that replaces a list of the defaults means to; only stages are warned about.
        app.value = merge::patch(defaults.clone(), &app.value, &mut Vec::new());
    }
}
