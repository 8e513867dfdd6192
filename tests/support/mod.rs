//! What every test binary may need.

/// Says that a test, or a part of it, cannot run here and why. In CI nothing may be missing.
pub fn skipped(what: &str, why: &str) {
    eprintln!("SKIPPED: {what}: {why}");
    let ci = std::env::var_os("CI").is_some_and(|value| !value.is_empty());
    assert!(!ci, "{what} is skipped, and CI is to run everything: {why}");
}
