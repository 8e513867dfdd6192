//! Every invalid spec is refused with the text beside it.

use std::collections::BTreeSet;
use std::fs;

use crate::corpus::{cases, compare, report, tests};

#[test]
fn every_invalid_spec_gets_its_error() {
    let mut failures = Vec::new();
    for case in cases("invalid") {
        let output = case.validate();
        let text = String::from_utf8(output.stderr).expect("norn writes UTF-8");
        if output.status.code() != Some(1) || !output.stdout.is_empty() {
            failures.push(format!("{}: {:?}, and nothing belongs on stdout", case.name, output.status));
        }
        compare(&case.beside("stderr"), &text, &mut failures);
    }
    report(&failures);
}

#[test]
fn every_expected_error_has_its_spec() {
    let known: BTreeSet<_> = cases("invalid").iter().map(|case| case.beside("stderr")).collect();
    for entry in fs::read_dir(tests().join("invalid")).expect("the corpus is there") {
        let path = entry.expect("the corpus can be listed").path();
        let expected = path.extension().is_some_and(|extension| extension == "stderr");
        assert!(!expected || known.contains(&path), "{} has no spec", path.display());
    }
}

/// What is wrong is said once: no two errors of one spec mark the same place for the same reason.
#[test]
fn no_error_is_told_twice() {
    for case in cases("invalid") {
        if !case.args.is_empty() {
            continue;
        }
        let output = crate::corpus::run(&case.folder, ["validate", "--json", &case.name], b"");
        let report: serde_json::Value = serde_json::from_slice(&output.stdout)
            .unwrap_or_else(|error| panic!("{}: the report is no JSON: {error}", case.name));
        let mut seen = BTreeSet::new();
        for problem in report["problems"].as_array().expect("there is a list of problems") {
            let places = &problem["places"];
            let at = format!("{} {} {}", problem["severity"], problem["code"], places[0]);
            let field = problem["message"].as_str().unwrap_or_default().to_owned();
            let several = ["missing-field", "no-effect", "include"]
                .contains(&problem["code"].as_str().unwrap_or_default());
            assert!(several || seen.insert(at.clone()), "{}: {at} {field}", case.name);
            assert!(problem["help"].is_string(), "{}: no mend for {field}", case.name);
        }
    }
}
