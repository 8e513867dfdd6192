//! Whatever is asked of the two stores: they do the same, and show the same.

use proptest::test_runner::{Config, TestRunner};

use super::*;
use crate::state::conformance::chance::{Call, calls, trace_of};
use crate::state::sqlite::tests::Folder;

/// Both traces of the calls. Each case is a stage of its own, so all are in one database.
fn traces(base: &Base, calls: &[Call]) -> [String; 2] {
    static CASES: std::sync::atomic::AtomicU32 = std::sync::atomic::AtomicU32::new(0);
    let stage = format!("case-{}", CASES.fetch_add(1, std::sync::atomic::Ordering::Relaxed));
    let scope = scope("shop", Some(&stage));
    let folder = Folder::new();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    let schema = format!("\"{stage}\".");
    runtime.block_on(async {
        let sqlite = trace_of(&folder, &scope, "", calls);
        let postgres = trace_of(base, &scope, &schema, calls);
        tokio::join!(sqlite, postgres).into()
    })
}

#[test]
fn both_stores_leave_the_same_trace() {
    let Some(base) = Base::new() else { return };
    // Each case prints as calls, with which it becomes a script of `conformance`.
    let config =
        Config { cases: 40, failure_persistence: None, max_shrink_time: 60_000, ..Config::default() };
    let cases = std::env::var("PROPTEST_CASES").ok().and_then(|cases| cases.parse().ok());
    let mut runner = TestRunner::new(Config { cases: cases.unwrap_or(config.cases), ..config });
    let checked = runner.run(&calls(), |calls| {
        let [sqlite, postgres] = traces(&base, &calls);
        let diff = similar::TextDiff::from_lines(&sqlite, &postgres);
        let diff = diff.unified_diff().header("SQLite", "PostgreSQL").to_string();
        proptest::prop_assert!(sqlite == postgres, "\n{diff}");
        Ok(())
    });
    checked.unwrap_or_else(|error| panic!("{error}"));
}
