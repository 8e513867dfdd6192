//! The cases of `tests/plan/*.txt`, one file each, and what holds for every plan.
//!
//! A file has sections `-- name --`. Read are `NAME.yaml` (the root is `infraspec.yaml`), `applied`
//! (a root that was applied before, any number of them, oldest first), `stage`, `env` (`NAME=value`),
//! `stored`, `facts` and `options`; expected are `plan`, and `json` or `markdown` where they are
//! there. `NORN_UPDATE=1` writes what is expected anew.
//!
//! Lines of `stored` (`world::stored`), `facts` (`world::facts`) and `options` (`case::options`) are words; an
//! `applied` section may begin with `#! ` and a line of `facts`, `NAME=value` of `env` or a `rollback` of `options`.

mod case;
mod laws;
mod made;
mod resume;
mod world;

use std::fs;
use std::path::{Path, PathBuf};

use case::Case;

use crate::plan::saved::PlanV1;

fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/plan")
}

/// Every case: its path, its name and its text.
fn cases() -> Vec<(PathBuf, String, String)> {
    let entries = fs::read_dir(folder()).expect("the cases are in the repository");
    let mut paths: Vec<PathBuf> = entries.map(|entry| entry.expect("it can be listed").path()).collect();
    paths.sort();
    assert!(paths.len() >= 60, "only {} cases were found", paths.len());
    let read = |path: PathBuf| {
        let text = fs::read_to_string(&path).expect("a case is UTF-8");
        let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        (path, name, text)
    };
    paths.into_iter().map(read).collect()
}

#[test]
fn every_plan_is_the_same_once_it_was_a_file() {
    for (_, name, text) in cases() {
        let (_, plan, _) = Case::parse(&name, &text).planned().expect("its spec can be read");
        let stored = serde_json::to_string(&PlanV1::of(&plan)).expect("a plan has text keys only");
        let read: PlanV1 = serde_json::from_str(&stored).unwrap_or_else(|error| panic!("{name}: {error}"));
        assert_eq!(read.plan(), plan, "{name}");
    }
}

#[test]
fn every_case_plans_as_its_file_says() {
    let update = std::env::var_os("NORN_UPDATE").is_some();
    let mut wrong = Vec::new();
    for (path, name, text) in cases() {
        let expected = match Case::parse(&name, &text).expected() {
            Ok(expected) => expected,
            Err(why) => {
                wrong.push(format!("{name}: {why}"));
                continue;
            }
        };
        if expected == text {
            continue;
        }
        if update {
            fs::write(&path, expected).expect("it can be written");
        } else {
            let diff = similar::TextDiff::from_lines(&text, &expected);
            wrong.push(format!("{name}\n{}", diff.unified_diff().header("expected", "planned")));
        }
    }
    assert!(wrong.is_empty(), "NORN_UPDATE=1 writes them anew:\n\n{}", wrong.join("\n"));
}
