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
    /// Whether a strike found nothing at its point.
    pub missed: bool,
}

/// The name of the change, the case, and what became of it.
pub type Tried<'a> = (String, Case<'a>, Outcome);

impl Outcome {
    pub fn failed(why: String) -> Self {
        Self { failure: Some(why), difference: None, story: String::new(), missed: false }
    }

    /// All that went wrong, if anything did, and how to see it again.
    pub fn wrong(&self, case: &Case<'_>) -> Option<String> {
        let mut wrong = self.failure.clone().unwrap_or_default();
        if let Some(difference) = self.difference.as_ref().filter(|difference| !difference.none()) {
            for (what, things) in [
                ("orphan", &difference.orphans),
                ("duplicate", &difference.duplicates),
                ("lost", &difference.lost),
            ] {
                things.iter().for_each(|thing| wrong += &format!("{what}: {thing}\n"));
            }
            wrong += &self.story;
        }
        (!wrong.is_empty()).then(|| format!("NORN_CRASH_CASE='{case}'\n{wrong}"))
    }
}

/// The figures of changes.
#[derive(Default)]
pub struct Table {
    rows: String,
    wrong: usize,
    missed: usize,
    cases: usize,
}

/// Of how many cases one may find nothing to strike.
const MISSED: usize = 50;

impl Table {
    /// Adds the figures of further changes.
    pub fn merge(&mut self, other: Self) {
        self.rows += &other.rows;
        self.wrong += other.wrong;
        self.missed += other.missed;
        self.cases += other.cases;
    }

    /// Adds what became of the cases of a change; `results` may hold those of others, too.
    pub fn add(&mut self, of: &str, what: &str, points: usize, results: &[Tried<'_>]) {
        let [mut cases, mut orphans, mut duplicates, mut lost, mut failed] = [0; 5];
        for (_, case, outcome) in results.iter().filter(|(name, _, _)| name == of) {
            cases += 1;
            failed += usize::from(outcome.failure.is_some());
            self.missed += usize::from(outcome.missed);
            if let Some(difference) = &outcome.difference {
                orphans += difference.orphans.len();
                duplicates += difference.duplicates.len();
                lost += difference.lost.len();
            }
            self.wrong += usize::from(outcome.wrong(case).is_some());
        }
        self.cases += cases;
        let row =
            format!("| {of}, {what} | {points} | {cases} | {orphans} | {duplicates} | {lost} | {failed} |\n");
        // The whole takes minutes.
        eprint!("{row}");
        self.rows += &row;
    }

    /// Prints the table and keeps it in a file; fails where anything was wrong.
    pub fn conclude(self, file: &str) {
        let head = "| On | Change | Boundaries | Cases | Orphans | Duplicates | Lost | Not finished |\n\
                    |---|---|---|---|---|---|---|---|\n";
        let table = format!("{head}{}", self.rows);
        println!("{table}");
        // Beside what is built: the README shows its newest figures.
        let target = Path::new(env!("CARGO_TARGET_TMPDIR")).parent().expect("it is below the target folder");
        fs::write(target.join(file), &table).expect("the target folder is writable");
        assert!(self.cases > 0, "there is no case of that name");
        assert!(self.wrong == 0, "{} of {} cases went wrong", self.wrong, self.cases);
        let (missed, cases) = (self.missed, self.cases);
        assert!(missed * MISSED <= cases, "{missed} of {cases} cases had nothing to strike");
    }
}
