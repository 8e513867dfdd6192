//! Whatever the bytes, reading a spec ends with problems and never with a panic.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use super::load::{self, Files, Lookup};

/// How many damaged specs are read.
const ROUNDS: usize = 2_000;

struct Memory(BTreeMap<String, Vec<u8>>);

impl Files for Memory {
    fn read(&self, path: &str) -> Result<Vec<u8>, String> {
        self.0.get(path).cloned().ok_or_else(|| "it is not there".into())
    }

    fn matching(&self, pattern: &str) -> Result<Vec<String>, String> {
        Ok(self.0.keys().filter(|path| *path != "infraspec.yaml" && pattern.contains('*')).cloned().collect())
    }

    fn shown(&self, path: &str) -> String {
        path.into()
    }
}

/// Numbers that are the same in every run (xorshift).
struct Numbers(u64);

impl Numbers {
    fn below(&mut self, end: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        usize::try_from(self.0 % end.max(1) as u64).expect("it is below a usize")
    }
}

#[test]
fn damaged_specs_are_read_without_a_panic() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/valid");
    let entries = fs::read_dir(folder).expect("the corpus is there");
    let mut paths: Vec<_> = entries.map(|entry| entry.expect("it can be listed").path()).collect();
    paths.retain(|path| path.extension().is_some_and(|extension| extension == "yaml"));
    paths.sort();
    let specs: Vec<Vec<u8>> = paths.iter().map(|path| fs::read(path).expect("a spec can be read")).collect();
    let mut numbers = Numbers(0x9e37_79b9_7f4a_7c15);
    let mut refused = 0;
    for round in 0..ROUNDS {
        let mut spec = specs[round % specs.len()].clone();
        for _ in 0..=numbers.below(3) {
            damage(&mut spec, &mut numbers);
        }
        refused += usize::from(read_all(spec));
    }
    // Most damage makes a spec invalid, some does not; neither extreme would test much.
    assert!((ROUNDS / 4..ROUNDS).contains(&refused), "{refused} of {ROUNDS} were refused");
}

fn damage(spec: &mut Vec<u8>, numbers: &mut Numbers) {
    const PARTS: [&str; 12] =
        ["${", "}", "*a", "&a ", "<<: ", "null", "- ", "{", "[", "\u{2028}", "99999999999999999999", "\u{0}"];
    if spec.is_empty() {
        return;
    }
    let at = numbers.below(spec.len());
    match numbers.below(6) {
        0 => spec[at] ^= 1 << numbers.below(8),
        1 => spec.truncate(at),
        2 => {
            spec.remove(at);
        }
        3 => {
            let part = PARTS[numbers.below(PARTS.len())];
            spec.splice(at..at, part.bytes());
        }
        4 => {
            let mut lines: Vec<&[u8]> = spec.split(|byte| *byte == b'\n').collect();
            let (one, other) = (numbers.below(lines.len()), numbers.below(lines.len()));
            lines.swap(one, other);
            *spec = lines.join(&b'\n');
        }
        _ => {
            let lines: Vec<&[u8]> = spec.split(|byte| *byte == b'\n').collect();
            let mut doubled = lines.clone();
            doubled.insert(numbers.below(lines.len()), lines[numbers.below(lines.len())]);
            *spec = doubled.join(&b'\n');
        }
    }
}

/// Reads a spec as every command does, and shows its problems; whether it was refused.
fn read_all(spec: Vec<u8>) -> bool {
    let included = b"app: extra\nrole: worker\ncommand: ./extra\n".to_vec();
    let files = Memory(BTreeMap::from([("infraspec.yaml".into(), spec), ("extra.yaml".into(), included)]));
    let document = load::read(&files, "infraspec.yaml");
    let mut refused = document.failed();
    let mut problems = document.problems.clone();
    let stages: Vec<_> = document.stages().into_iter().map(Some).chain([None]).collect();
    for stage in &stages {
        let value = |_: &super::shape::Use| Lookup::Value("8080".into());
        for lookup in [None, Some(&value as &dyn Fn(&super::shape::Use) -> Lookup)] {
            let staged = document.stage(stage.as_ref(), lookup);
            refused |= staged.failed();
            for problem in &staged.problems {
                assert_ne!(problem.code, "unreadable-value", "{problem:?}\n{}", text(&files));
            }
            problems.extend(staged.problems);
        }
    }
    for problem in &problems {
        for label in &problem.labels {
            let (line, column) = document.sources.line_column(label.span);
            assert!(line > 0 && column > 0, "{problem:?}");
        }
    }
    refused
}

fn text(files: &Memory) -> String {
    String::from_utf8_lossy(&files.0["infraspec.yaml"]).into_owned()
}
