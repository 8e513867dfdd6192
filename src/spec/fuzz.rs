//! Whatever the bytes: reading a spec ends with problems that have their places, or with what should
//! exist and a plan of it; a schedule is refused or comes, again and again.

use std::collections::BTreeMap;

use super::load::{self, Document, Files, Lookup};
use super::name::StageName;
use super::schedule::{parser, read_cron, read_zone};
use super::shape::Use;
use crate::desired;
use crate::plan::{Facts, Options, SourceFact, plan};
use crate::render;
use crate::state::{Scope, Snapshot};

struct Memory<'a>(BTreeMap<&'static str, &'a [u8]>);

impl Files for Memory<'_> {
    fn read(&self, path: &str) -> Result<Vec<u8>, String> {
        let found = self.0.get(path.trim_start_matches("./"));
        found.map(|bytes| bytes.to_vec()).ok_or_else(|| "it is not there".into())
    }

    fn matching(&self, pattern: &str) -> Result<Vec<String>, String> {
        let others = self.0.keys().filter(|path| **path != ROOT && pattern.contains('*'));
        Ok(others.map(|path| (*path).to_owned()).collect())
    }

    fn shown(&self, path: &str) -> String {
        path.into()
    }
}

const ROOT: &str = "infraspec.yaml";

/// Reads a root file as every command does, in each of its stages.
pub fn spec(input: &[u8]) -> bool {
    let files = Memory(BTreeMap::from([
        (ROOT, input),
        ("extra.yaml", b"app: extra\nrole: worker\ncommand: ./extra\n".as_slice()),
    ]));
    let document = load::read(&files, ROOT);
    let mut problems = document.problems.clone();
    let mut good = false;
    let stages: Vec<Option<StageName>> = document.stages().into_iter().map(Some).chain([None]).collect();
    for stage in &stages {
        let value = |_: &Use| Lookup::Value("8080".into());
        for lookup in [None, Some(&value as &dyn Fn(&Use) -> Lookup)] {
            let staged = document.stage(stage.as_ref(), lookup);
            for problem in &staged.problems {
                assert_ne!(problem.code, "unreadable-value", "{problem:?}");
            }
            if lookup.is_some() && !document.failed() && !staged.failed() {
                good = true;
                planned(&document, &staged, stage.as_ref());
            }
            problems.extend(staged.problems);
        }
    }
    for label in problems.iter().flat_map(|problem| &problem.labels) {
        let (line, column) = document.sources.line_column(label.span);
        assert!(line > 0 && column > 0, "{label:?}");
    }
    problems.truncate(20);
    let shown = render::problems::human(&problems, &document.sources, false, 100);
    let steers = |c: char| c.is_control() && !['\n', '\r', '\t'].contains(&c);
    assert!(!shown.contains(steers), "the spec steers the terminal: {shown:?}");
    let commands = render::problems::github(&problems, &document.sources);
    let alone = commands.lines().all(|line| line.starts_with("::error ") || line.starts_with("::warning "));
    assert!(alone, "a problem is a line: {commands:?}");
    render::problems::sarif(&problems, &document.sources);
    good
}

/// A stage without errors has what should exist, and a plan of it that can be shown.
fn planned(document: &Document, staged: &load::Staged, stage: Option<&StageName>) {
    let desired = desired::from_spec(document, staged, stage, &|_| Some("a secret value".into()));
    // What secrets a stage needs is known only here.
    let Ok(desired) = desired else { return };
    let versions = desired.apps.keys().map(|app| (app.clone(), SourceFact::Version("1".repeat(40))));
    let facts = Facts { sources: versions.collect(), ..Facts::default() };
    let plan = plan(&desired, &Snapshot::default(), &facts, &Options::default());
    assert_eq!(plan.operations.len(), 2 * desired.apps.len(), "each app is forged and deployed");
    let scope = Scope { project: desired.project.clone(), stage: stage.cloned() };
    let header = render::plan::Header::usual(&scope, 0);
    let shown = render::plan::human(&header, &plan, false);
    assert!(!shown.contains("a secret value"), "{shown}");
    let document = render::plan_json::document(&header, &plan);
    serde_json::to_string(&document).expect("a plan has text keys only");
}

/// Reads a cron expression, and after the first line's end a time zone.
pub fn cron(input: &[u8]) -> bool {
    let Ok(text) = std::str::from_utf8(input) else { return false };
    let (text, zone) = text.split_once('\n').unwrap_or((text, "Europe/Berlin"));
    let known = read_zone(zone).is_ok();
    if let Err(complaint) = read_cron(text) {
        assert!(!complaint.message.is_empty() && !complaint.help.is_empty(), "{text:?}");
        return false;
    }
    let cron = parser().parse(text).expect("it was read");
    for zone in [Some("UTC"), known.then_some(zone)].into_iter().flatten() {
        let zone = jiff::tz::TimeZone::get(zone).expect("it is known");
        let mut last = jiff::civil::date(2024, 3, 30).at(12, 30, 0, 0).to_zoned(zone).expect("it is a time");
        for _ in 0..20 {
            let next = cron.find_next_occurrence(&last, false).expect("what came once comes again");
            assert!(next > last, "{text:?}: after {last} comes {next}");
            last = next;
        }
    }
    true
}
