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
use super::{check, engine, pending, value};

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
    /// Whether the file is the whole document, with nothing to merge.
    alone: bool,
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
    /// The file that defines each app.
    homes: BTreeMap<String, FileId>,
}

impl Staged {
    pub fn failed(&self) -> bool {
        self.project.is_none() || self.problems.iter().any(Problem::is_error)
    }

    /// The folder, relative to the root file's, of the file that defines an app.
    pub fn home<'a>(&self, sources: &'a Sources, app: &str) -> &'a str {
        self.homes.get(app).map_or("", |file| &sources.get(*file).folder)
    }
}

/// Reads the root file and what it includes.
pub fn read(files: &dyn Files, root: &str) -> Document {
    let mut sources = Sources::default();
    let mut problems = Vec::new();
    let empty = |file| Node { span: Span::new(file, 0, 0), kind: Kind::Map(Vec::new()) };
    let (file, node) = read_file(files, root, None, &mut sources, &mut problems);
    let node = node.unwrap_or_else(|| empty(file));
    if node.map().is_none() && problems.is_empty() {
        problems
            .push(no_map(file, &node).help(
                "a spec starts with `version: 1`, `project: NAME` and `apps:`; `norn init` writes one",
            ));
        return Document { sources, form: Form::Project, tree: empty(file), problems, alone: false };
    }
    if !problems.is_empty() {
        return Document { sources, form: Form::Project, tree: node, problems, alone: false };
    }
    // A map under `app` is a slip for `apps`, not the name of an app.
    let named = node.get("app").is_some_and(|name| name.map().is_none());
    let form = if named { Form::App } else { Form::Project };
    let schema = match form {
        Form::App => &schemas().app_file,
        Form::Project => &schemas().project_file,
    };
    // A project without parts to merge is read once: as it stands, when a stage is asked for.
    let parts = ["defaults", "stages", "include"];
    let alone = form == Form::Project && parts.iter().all(|part| node.entry(part).is_none());
    if !alone {
        problems.extend(shape::problems(&node, schema));
    }
    let tree = match form {
        Form::App => project_of(node),
        Form::Project => include(files, root, node, &mut sources, &mut problems),
    };
    Document { sources, form, tree, problems, alone }
}

fn no_map(file: FileId, node: &Node) -> Problem {
    let (what, label) = match node.kind {
        Kind::Null => ("the file is empty", String::new()),
        _ => ("the file holds no fields", format!("this is {}", node.what())),
    };
    Problem::error("no-map", what).at(Span::new(file, 0, 0), label)
}

/// `asked` is where another file names this one.
fn read_file(
    files: &dyn Files,
    path: &str,
    asked: Option<Span>,
    sources: &mut Sources,
    problems: &mut Vec<Problem>,
) -> (FileId, Option<Node>) {
    let folder = path.rsplit_once('/').map_or("", |(folder, _)| folder).to_owned();
    let shown = files.shown(path);
    // A path with a folder is held inside the project; only the root may be a link to elsewhere.
    let full = if asked.is_some() { format!("./{path}") } else { path.to_owned() };
    let (text, problem) = match files.read(&full).map(String::from_utf8) {
        Ok(Ok(text)) => (text, None),
        Ok(Err(error)) => {
            let at = error.utf8_error().valid_up_to();
            let text = String::from_utf8_lossy(error.as_bytes()).into_owned();
            let utf16 =
                error.as_bytes().starts_with(b"\xff\xfe") || error.as_bytes().starts_with(b"\xfe\xff");
            let message = match utf16 {
                true => "the file is UTF-16, not UTF-8".to_owned(),
                false => format!("the file is not UTF-8: the byte at {at} begins no character"),
            };
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
        problems.push(match (problem.code, asked) {
            ("unreadable", Some(asked)) => problem
                .at(asked, "named here")
                .help("an included file lies below this file's folder and can be read: mend it, or take the entry out"),
            ("unreadable", None) => problem,
            _ => problem.at(Span::new(file, at, 1), "here"),
        });
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
fn include(
    files: &dyn Files,
    root: &str,
    mut node: Node,
    sources: &mut Sources,
    problems: &mut Vec<Problem>,
) -> Node {
    let patterns = match node.get("include").map(|n| n.kind.clone()) {
        Some(Kind::List(patterns)) => patterns,
        _ => return node,
    };
    let mut included: Vec<Entry> = Vec::new();
    // Two patterns may match one file, and any may match the root.
    let mut seen = BTreeSet::from([root.to_owned()]);
    for pattern in &patterns {
        let Some(text) = pattern.scalar().filter(|text| value::check("glob", text).is_ok()) else { continue };
        let mut found = match files.matching(text) {
            Ok(found) => found,
            Err(why) => {
                let message = format!("`{text}` cannot be looked up: {why}");
                problems.push(Problem::error("include", message).at(pattern.span, "this pattern"));
                continue;
            }
        };
        found.retain(|path| path != root);
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
            if seen.insert(path.clone())
                && let (file, Some(node)) = read_file(files, &path, Some(pattern.span), sources, problems)
            {
                included.extend(included_app(file, node, problems));
            }
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

fn included_app(id: FileId, file: Node, problems: &mut Vec<Problem>) -> Option<Entry> {
    if file.map().is_none() {
        problems.push(no_map(id, &file).help("an included file starts with `app: NAME` and `role:`"));
        return None;
    }
    if let (None, Some(apps)) = (file.entry("app"), file.entry("apps")) {
        problems.push(
            Problem::error("included-project", "a file in the project form cannot be included")
                .at(apps.key_span, "this is the project form")
                .help("give each app a file of its own that starts with `app: NAME`, or list the apps in the root file"),
        );
        return None;
    }
    problems.extend(shape::problems(&file, &schemas().app_file));
    for field in OF_THE_PROJECT {
        if let Some(entry) = file.entry(field) {
            problems.push(
                Problem::error("included-project-field", format!("an included file cannot set `{field}`"))
                    .at(entry.key_span, "this belongs to the project")
                    .help("move it to the root file: an included file has the fields of its app only"),
            );
        }
    }
    file.entry("app")?;
    let project = project_of(file);
    match project.get("apps").map(|apps| apps.kind.clone()) {
        Some(Kind::Map(mut apps)) => apps.pop(),
        _ => None,
    }
}

impl Document {
    pub fn failed(&self) -> bool {
        self.problems.iter().any(Problem::is_error)
    }

    /// Whether an error of the files has this place.
    fn told(&self, span: Span) -> bool {
        told_in(&self.problems, span)
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
        if let Some(mut patch) = patch.filter(|patch| patch.map().is_some()) {
            rules = Some(split_rules(&mut patch));
            strangers(&tree, &mut patch, &mut problems);
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
        let schema = if self.alone { &schemas().alone } else { &schemas().merged };
        let shaped = shape::read(&tree, schema, lookup);
        // What was said of a file is not said again of the merged document.
        let told = |p: &Problem| p.labels.first().is_some_and(|label| self.told(label.span));
        problems.extend(shaped.problems.into_iter().filter(|problem| !told(problem)));
        let rules: StageRules = rules
            .map(|rules| shape::read(&rules, &schemas().defs["StageRules"], None).value)
            .and_then(|value| serde_json::from_value(value).ok())
            .unwrap_or_default();
        let mut project = match serde_json::from_value::<Project>(shaped.value) {
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
        if let (Some(project), Some(lookup)) = (&mut project, lookup) {
            engine::from_environment(project, tree.span, lookup);
        }
        let apps = tree.get("apps").and_then(Node::map).unwrap_or_default();
        let homes = apps.iter().map(|app| (app.key.clone(), app.key_span.file)).collect();
        let mut staged = Staged {
            homes,
            tree,
            project,
            uses: shaped.uses,
            spelled: shaped.spelled,
            unsure: shaped.unsure,
            problems,
        };
        let found = check::check(&staged, &self.sources);
        staged.problems.extend(found);
        let told = |span| self.told(span) || told_in(&staged.problems, span);
        let warning = pending::warnings(&staged, &told);
        staged.problems.extend(warning);
        problem::sort(&mut staged.problems, &self.sources);
        staged
    }
}

fn told_in(problems: &[Problem], span: Span) -> bool {
    let first = |p: &Problem| p.labels.first().is_some_and(|label| label.span == span);
    problems.iter().any(|p| p.is_error() && first(p))
}

/// Takes apps out of a patch that the spec does not have and the patch does not define.
fn strangers(tree: &Node, patch: &mut Node, problems: &mut Vec<Problem>) {
    let defaults = |node: &Node| node.get("defaults").is_some_and(|d| d.get("role").is_some());
    let role_given = defaults(tree) || defaults(patch);
    let here = tree.get("apps").and_then(Node::map).unwrap_or_default();
    let Kind::Map(fields) = &mut patch.kind else { return };
    let Some(apps) = fields.iter_mut().find(|field| field.key == "apps") else { return };
    let Kind::Map(apps) = &mut apps.value.kind else { return };
    apps.retain(|app| {
        let known = here.iter().any(|other| other.key == app.key);
        let near = || problem::did_you_mean(&app.key, here.iter().map(|app| app.key.as_str()));
        let defined = app.value.get("role").is_some() || (role_given && near().is_none());
        if known || defined || app.value.map().is_none() && app.value.kind != Kind::Null {
            return true;
        }
        let what = format!("there is no app `{}` for this stage to change", app.key);
        let own = match app.value.kind {
            Kind::Null => "what is not there need not be taken out",
            _ => "an app that only this stage has needs a `role`",
        };
        let help = near().map_or_else(|| own.to_owned(), |near| format!("did you mean `{near}`? ({own})"));
        problems.push(Problem::error("unknown-app", what).at(app.key_span, "not in the spec").help(help));
        false
    });
}

/// Takes what a stage says of itself out of its patch, and what no stage has.
fn split_rules(patch: &mut Node) -> Node {
    let fields = schemas().defs["StageRules"]["properties"].as_object().expect("it has fields");
    let span = patch.span;
    let Kind::Map(entries) = &mut patch.kind else {
        return Node { span, kind: Kind::Map(Vec::new()) };
    };
    let (rules, mut rest): (Vec<_>, Vec<_>) =
        std::mem::take(entries).into_iter().partition(|e| fields.contains_key(&e.key));
    rest.retain(|entry| schemas().defs["StagePatch"]["properties"].get(&entry.key).is_some());
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
