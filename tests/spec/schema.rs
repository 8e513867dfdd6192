//! The published schemas are current, and editors judge by them as norn does.

use std::path::Path;
use std::process::Command;

use serde_json::{Value, json};

use crate::corpus::{Case, cases, run, tests};
use crate::support::skipped;

/// What one value, alone, is refused for. Editors see these; rules between fields they cannot.
const OF_SHAPE: [&str; 6] =
    ["unknown-key", "wrong-type", "unknown-value", "out-of-range", "missing-field", "missing-value"];

#[test]
fn the_published_schemas_are_current() {
    for name in ["infraspec", "validate", "plan", "plan-file", "apply", "status", "history", "lock", "state"]
    {
        let output = run(&tests(), ["schema", name], b"");
        let printed = String::from_utf8(output.stdout).expect("norn writes UTF-8");
        let path = tests().join(format!("../schemas/{name}.schema.json"));
        if std::env::var_os("NORN_UPDATE").is_some_and(|value| !value.is_empty()) {
            std::fs::write(&path, &printed).expect("the schema can be written");
        }
        let stored = std::fs::read_to_string(&path).expect("the schema is there");
        assert!(stored == printed, "schemas/{name}.schema.json is old (NORN_UPDATE=1 rewrites)");
    }
}

#[test]
fn every_field_is_described_and_every_definition_used() {
    let schema = published();
    let text = schema.to_string();
    for (name, definition) in schema["$defs"].as_object().expect("there are definitions") {
        assert!(text.contains(&format!("\"#/$defs/{name}\"")), "{name} is not used");
        for (field, property) in definition["properties"].as_object().into_iter().flatten() {
            let described = property["description"].as_str().is_some_and(|text| !text.is_empty());
            assert!(described, "{name}.{field} has no description for editors to show");
        }
    }
    assert!(!text.contains("\"x-"), "what only norn reads is published");
}

/// Asks Python's `jsonschema`, an implementation that norn has no part in.
#[test]
fn editors_and_norn_agree() {
    let cases: Vec<(Case, bool)> = cases("valid")
        .into_iter()
        .map(|case| (case, true))
        .chain(cases("invalid").into_iter().filter(of_shape).map(|case| (case, false)))
        .collect();
    let documents: Vec<Value> = cases
        .iter()
        .filter_map(|(case, valid)| {
            let text = std::fs::read_to_string(case.root()).ok()?;
            let document: Value = serde_yaml::from_str(&text).ok()?;
            Some(json!({ "name": case.root(), "valid": valid, "document": document }))
        })
        .collect();
    assert!(documents.len() > 100, "only {} specs can be compared", documents.len());
    let folder = tempfile::tempdir().expect("a folder can be made");
    let input = folder.path().join("input.json");
    let all = json!({ "schema": published(), "cases": documents });
    std::fs::write(&input, all.to_string()).expect("a file can be written");

    let python = std::env::var("NORN_PYTHON").unwrap_or_else(|_| "python3".into());
    let output = Command::new(python).arg("-c").arg(JUDGE).arg(&input).output();
    match output {
        Ok(output) if output.status.code() == Some(77) => skipped(WHAT, "Python has no module jsonschema"),
        Err(error) => skipped(WHAT, &format!("Python does not start: {error}")),
        Ok(output) => {
            let said = String::from_utf8_lossy(&output.stdout).into_owned();
            let why = String::from_utf8_lossy(&output.stderr);
            assert!(output.status.success() && said.is_empty(), "{said}{why}");
        }
    }
}

const WHAT: &str = "whether the schema says what norn says";

const JUDGE: &str = r#"
import json, sys
try:
    from jsonschema import Draft202012Validator
except ImportError:
    sys.exit(77)
given = json.load(open(sys.argv[1]))
Draft202012Validator.check_schema(given["schema"])
validator = Draft202012Validator(given["schema"])
for case in given["cases"]:
    errors = [e.json_path + ": " + e.message[:300] for e in validator.iter_errors(case["document"])]
    if case["valid"] and errors:
        print(case["name"], "is refused by the schema:", *errors[:3], sep="\n  ")
    if not case["valid"] and not errors:
        print(case["name"], "is taken by the schema")
"#;

fn published() -> Value {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("schemas/infraspec.schema.json");
    let text = std::fs::read_to_string(path).expect("the schema is there");
    serde_json::from_str(&text).expect("the schema is JSON")
}

/// Whether an error of the case is one that the root file alone shows.
fn of_shape(case: &Case) -> bool {
    let args =
        ["validate", "--json"].into_iter().chain(case.args.iter().map(String::as_str)).chain([&*case.name]);
    let output = run(&case.folder, args, b"");
    let Ok(report) = serde_json::from_slice::<Value>(&output.stdout) else { return false };
    let root = report["files"][0].clone();
    report["problems"].as_array().into_iter().flatten().any(|problem| {
        let code = problem["code"].as_str().unwrap_or_default();
        let message = problem["message"].as_str().unwrap_or_default();
        // What one role needs and another does not, or what `defaults` may give, is a rule between fields.
        let between = message.starts_with("app `") || code == "missing-field" && message.ends_with("`role`");
        let zero = message.ends_with("cannot be zero");
        // JSON has one number where YAML has `8080`, `8080.0` and `0x1F90`.
        let spelling = problem["places"][0]["text"] == "not in whole digits";
        OF_SHAPE.contains(&code)
            && !spelling
            && problem["places"][0]["file"] == root
            && !between
            && !zero
            && !message.contains("the reference does not give")
    })
}
