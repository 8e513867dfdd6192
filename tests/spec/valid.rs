//! Every valid spec is accepted, and what `norn spec` prints of it says the same.

use std::path::Path;

use serde_json::Value;

use crate::corpus::{Case, cases, compare, report, run};

#[test]
fn every_valid_spec_is_accepted() {
    let mut failures = Vec::new();
    for case in cases("valid") {
        let output = case.validate();
        let text = String::from_utf8(output.stderr).expect("norn writes UTF-8");
        if !output.status.success() {
            failures.push(format!("{}: {:?}\n{text}", case.name, output.status));
        }
        let quiet = text.lines().count() == 1 && text.contains("is valid: no problems");
        compare(&case.beside("stderr"), if quiet { "" } else { &text }, &mut failures);
    }
    report(&failures);
}

#[test]
fn every_example_is_valid_and_without_a_warning() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let folders = std::fs::read_dir(root.join("examples")).expect("the examples are there");
    let inside = folders.map(|entry| entry.expect("it is readable").path().join("infraspec.yaml"));
    let examples = inside.filter(|path| path.is_file()).chain([root.join("infraspec.example.yaml")]);
    let mut seen = 0;
    for path in examples {
        let path = path.to_str().expect("a name in UTF-8");
        let output = run(root, ["validate", path], b"");
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(output.status.success() && said.contains("no problems"), "{path}: {said}");
        seen += 1;
    }
    assert!(seen >= 4, "only {seen} examples were found");
}

#[test]
fn the_merged_spec_reads_back() {
    for case in cases("valid") {
        for stage in stages(&case) {
            let chosen: Vec<&str> = stage.iter().flat_map(|stage| ["--stage", stage]).collect();
            let spec = |extra: &[&str]| {
                let args = [&["spec", "-f", &case.name], chosen.as_slice(), extra].concat();
                let output = run(&case.folder, args, b"");
                let said = String::from_utf8_lossy(&output.stderr).into_owned();
                assert!(output.status.success(), "{} {stage:?}: {said}", case.name);
                String::from_utf8(output.stdout).expect("norn writes UTF-8")
            };
            let merged = spec(&[]);
            let first: Value = serde_json::from_str(&spec(&["--json"])).expect("JSON");

            let folder = tempfile::tempdir().expect("a folder can be made");
            let output = run(folder.path(), ["validate", "-"], merged.as_bytes());
            let said = String::from_utf8_lossy(&output.stderr);
            assert!(output.status.success(), "{} {stage:?}\n{merged}\n{said}", case.name);

            std::fs::write(folder.path().join("infraspec.yaml"), &merged).expect("a file can be written");
            let output = run(folder.path(), ["spec", "--json"], b"");
            let second: Value = serde_json::from_slice(&output.stdout).expect("JSON");
            assert_eq!(first["value"], second["value"], "{} {stage:?}\n{merged}", case.name);
        }
    }
}

/// The stages of a spec; with none, the base alone.
fn stages(case: &Case) -> Vec<Option<String>> {
    let output = run(&case.folder, ["validate", &case.name], b"");
    let text = String::from_utf8_lossy(&output.stderr).into_owned();
    let last = text.lines().last().unwrap_or_default();
    match last.split_once(", stages ") {
        Some((_, names)) => names.split(", ").map(|name| Some(name.to_owned())).collect(),
        None => vec![None],
    }
}
