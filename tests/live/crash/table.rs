//! What became of the cases, in figures and in full where one went wrong.

use std::fs;
use std::path::Path;

use super::case::Case;
use super::world::Difference;

/// What became of one case.
pub struct Outcome {
    /// Why it did not come to a comparison.
    pub failure: Option<String>,
    pub difference: Option<Difference>,
    /// What norn said.
    pub story: String,
}

impl Outcome {
    pub fn failed(why: String) -> Self {
        Self { failure: Some(why), difference: None, story: String::new() }
    }
}

/// The figures of all scenarios.
#[derive(Default)]
pub struct Table {
    rows: String,
    wrong: Vec<String>,
    cases: usize,
}

impl Table {
    pub fn add(&mut self, calm: &Case, what: &str, points: usize, results: &[(Case, Outcome)]) {
        let [mut orphans, mut duplicates, mut lost, mut failed] = [0; 4];
        for (case, outcome) in results {
            let mut wrong = outcome.failure.clone().unwrap_or_default();
            failed += usize::from(outcome.failure.is_some());
            if let Some(difference) = outcome.difference.as_ref().filter(|difference| !difference.none()) {
                for (what, things, count) in [
                    ("orphan", &difference.orphans, &mut orphans),
                    ("duplicate", &difference.duplicates, &mut duplicates),
                    ("lost", &difference.lost, &mut lost),
                ] {
                    *count += things.len();
                    things.iter().for_each(|thing| wrong += &format!("{what}: {thing}\n"));
                }
                wrong += &outcome.story;
            }
            if !wrong.is_empty() {
                let wrong = format!("NORN_CRASH_CASE='{case}'\n{wrong}");
                eprintln!("{wrong}");
                self.wrong.push(wrong);
            }
        }
        self.cases += results.len();
        let row = format!(
            "| {} | {}, {what} | {points} | {} | {orphans} | {duplicates} | {lost} | {failed} |",
            calm.kind.name,
            calm.scenario.name,
            results.len()
        );
        // The whole takes minutes.
        eprintln!("{row}");
        self.rows += &row;
        self.rows.push('\n');
    }

    /// Prints the table and keeps it; fails where anything was wrong.
    pub fn conclude(self) {
        let head = "| Store | Change | Boundaries | Cases | Orphans | Duplicates | Lost | Not finished |\n\
                    |---|---|---|---|---|---|---|---|\n";
        let table = format!("{head}{}", self.rows);
        println!("{table}");
        // Beside what is built: the README shows its newest figures.
        let target = Path::new(env!("CARGO_TARGET_TMPDIR")).parent().expect("it is below the target folder");
        fs::write(target.join("crash-matrix.md"), &table).expect("the target folder is writable");
        assert!(self.cases > 0, "there is no case of that name");
        assert!(self.wrong.is_empty(), "{} of {} cases went wrong", self.wrong.len(), self.cases);
    }
}
