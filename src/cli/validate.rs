//! `norn validate`: everything that is wrong with a spec, offline.

use std::collections::BTreeSet;
use std::io::Read;
use std::path::Path;

use super::args::{Global, ProblemFormat, Validate};
use super::failure::{Exit, Failure};
use super::workspace::{self, Root, Variables};
use crate::provider::files::SpecFolder;
use crate::render::{Printer, problems};
use crate::spec::load::{self, Document, Files, Staged};
use crate::spec::name::StageName;
use crate::spec::problem::{self, Problem};
use crate::spec::yaml::MAX_FILE;

pub fn run(global: &Global, options: &Validate, printer: Printer) -> Result<Exit, Failure> {
    let variables = options.env.then(|| Variables::read(global)).transpose()?;
    let mut valid = true;
    let mut reports = Vec::new();
    for mut document in documents(global, options)? {
        let (found, stages) = check(global, &document, variables.as_ref())?;
        document.problems = found;
        valid &= !document.failed();
        reports.push((document, stages));
    }
    let format =
        options.format.unwrap_or(if global.json { ProblemFormat::Json } else { ProblemFormat::Human });
    for (document, stages) in &reports {
        print(format, document, stages, printer);
    }
    Ok(if valid { Exit::Ok } else { Exit::Error })
}

fn print(format: ProblemFormat, document: &Document, stages: &[StageName], printer: Printer) {
    let Document { problems: found, sources, .. } = document;
    match format {
        ProblemFormat::Human => {
            if !found.is_empty() {
                printer.alert(&problems::human(found, sources, printer.err_color, printer.width));
            }
            let root = sources.iter().next().map_or("the spec", |file| file.path.as_str());
            let verdict = if document.failed() { "is not valid" } else { "is valid" };
            let names: Vec<&str> = stages.iter().map(StageName::as_str).collect();
            let stages =
                if names.is_empty() { String::new() } else { format!(", stages {}", names.join(", ")) };
            printer.talk(&format!("{root} {verdict}: {}{stages}", problems::summary(found)));
        }
        ProblemFormat::Json => {
            let report = problems::report(found, sources);
            printer.data(&serde_json::to_string(&report).expect("a report has only text and numbers"));
        }
        ProblemFormat::Github => printer.data(&problems::github(found, sources)),
        ProblemFormat::Sarif => printer.data(&problems::sarif(found, sources)),
    }
}

/// The problems of a document in every stage, or in the one that was named.
fn check(
    global: &Global,
    document: &Document,
    variables: Option<&Variables>,
) -> Result<(Vec<Problem>, Vec<StageName>), Failure> {
    let mut found = document.problems.clone();
    let stages = match global.stage()? {
        Some(_) if !document.failed() => workspace::choose_stage(global, document)?.into_iter().collect(),
        _ => document.stages(),
    };
    let base = [None];
    let each: Vec<Option<&StageName>> =
        if stages.is_empty() { base.to_vec() } else { stages.iter().map(Some).collect() };
    // A file that could not be read at all has no stages to look at.
    if document.tree.map().is_some_and(|entries| !entries.is_empty()) {
        let mut seen: Vec<(Problem, Vec<&StageName>)> = Vec::new();
        for &stage in &each {
            let staged = staged(document, stage, variables);
            for problem in staged.problems {
                match seen.iter_mut().find(|(other, _)| *other == problem) {
                    Some((_, stages)) => stages.extend(stage),
                    None => seen.push((problem, stage.into_iter().collect())),
                }
            }
        }
        // What the base has too does not come from a stage.
        let base = match variables {
            _ if stages.is_empty() || seen.is_empty() => Vec::new(),
            _ => staged(document, None, variables).problems,
        };
        found.extend(seen.into_iter().map(|(problem, stages)| match base.contains(&problem) {
            true => problem,
            false => of_stages(problem, &stages),
        }));
    }
    if let Some(name) = document.default_stage()
        && !document.stages().contains(&name)
    {
        let at = document.tree.get("defaultStage").map(|node| node.span);
        let problem = Problem::error("unknown-stage", format!("there is no stage `{name}`"));
        let problem = problem.help("add it under `stages`, or take `defaultStage` out");
        found.push(match at {
            Some(at) => problem.at(at, "not under `stages`"),
            None => problem,
        });
    }
    problem::sort(&mut found, &document.sources);
    Ok((found, stages))
}

/// A problem that comes from stages, with their names.
fn of_stages(mut problem: Problem, stages: &[&StageName]) -> Problem {
    if !stages.is_empty() {
        let names: Vec<&str> = stages.iter().map(|stage| stage.as_str()).collect();
        let plural = if names.len() == 1 { "" } else { "s" };
        problem.message += &format!(" (stage{plural} {})", names.join(", "));
    }
    problem
}

/// One stage, its references resolved where there are variables, and the secrets among them looked for.
fn staged(document: &Document, stage: Option<&StageName>, variables: Option<&Variables>) -> Staged {
    let plain = document.stage(stage, None);
    let Some(variables) = variables else { return plain };
    let mut staged = workspace::resolve(document, stage, &plain, variables);
    if !plain.failed() && !document.failed() {
        let missing = workspace::missing(document, stage, &plain, variables);
        staged.problems.extend(missing);
    }
    staged
}

/// The specs to check, each once.
fn documents(global: &Global, options: &Validate) -> Result<Vec<Document>, Failure> {
    if options.paths.is_empty() {
        return Ok(vec![Root::find(global)?.read()]);
    }
    let mut documents = Vec::new();
    let mut roots = BTreeSet::new();
    for path in &options.paths {
        if path == Path::new("-") {
            documents.push(standard_input()?);
            continue;
        }
        let root = Root::at(path)?;
        // What a project includes makes sense only with the project: pre-commit names any file.
        let root = root.included_by().unwrap_or(root);
        if roots.insert(root.clone()) {
            documents.push(root.read());
        }
    }
    Ok(documents)
}

/// A root that comes through a pipe; what it includes lies in the current folder.
struct StandardInput {
    bytes: Vec<u8>,
    folder: SpecFolder,
}

impl Files for StandardInput {
    fn read(&self, path: &str) -> Result<Vec<u8>, String> {
        if path == "-" { Ok(self.bytes.clone()) } else { self.folder.read(path) }
    }

    fn matching(&self, pattern: &str) -> Result<Vec<String>, String> {
        self.folder.matching(pattern)
    }

    fn shown(&self, path: &str) -> String {
        if path == "-" { "<stdin>".into() } else { self.folder.shown(path) }
    }
}

fn standard_input() -> Result<Document, Failure> {
    let mut bytes = Vec::new();
    std::io::stdin()
        .take(MAX_FILE as u64 + 1)
        .read_to_end(&mut bytes)
        .map_err(|error| Failure::new(format!("standard input cannot be read: {error}")))?;
    let files = StandardInput { bytes, folder: SpecFolder::new(Path::new(".")) };
    Ok(load::read(&files, "-"))
}
