//! What is wrong with a spec: where, and how to mend it.

use super::source::{Sources, Span};

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Severity {
    Error,
    Warning,
}

/// One thing that is wrong.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Problem {
    pub severity: Severity,
    /// A stable name for scripts and for SARIF, such as `unknown-key`.
    pub code: &'static str,
    pub message: String,
    /// The places, the first of which is where to look; none where the file has no such place.
    pub labels: Vec<Label>,
    pub help: Option<String>,
}

/// A marked place and what to say there.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Label {
    pub span: Span,
    pub text: String,
}

impl Problem {
    pub fn error(code: &'static str, message: impl Into<String>) -> Self {
        Self { severity: Severity::Error, code, message: message.into(), labels: Vec::new(), help: None }
    }

    pub fn warning(code: &'static str, message: impl Into<String>) -> Self {
        Self { severity: Severity::Warning, ..Self::error(code, message) }
    }

    pub fn at(mut self, span: Span, text: impl Into<String>) -> Self {
        self.labels.push(Label { span, text: text.into() });
        self
    }

    pub fn help(mut self, help: impl Into<String>) -> Self {
        self.help = Some(help.into());
        self
    }

    pub fn is_error(&self) -> bool {
        self.severity == Severity::Error
    }
}

/// Puts problems into the order in which a reader meets them, without repeats.
pub fn sort(problems: &mut Vec<Problem>, sources: &Sources) {
    problems.sort_by_cached_key(|p| {
        let first = p.labels.first().map(|label| label.span);
        (first.map(|s| sources.get(s.file).path.clone()), first, p.severity, p.code, p.message.clone())
    });
    problems.dedup();
}

/// The nearest of `known` to what was written, near enough to be a slip.
pub fn did_you_mean<'a>(written: &str, known: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    nearest(written, known, written.chars().count().div_ceil(4))
}

/// The nearest of `known` if it differs by one slip at most.
pub fn near_miss<'a>(written: &str, known: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    nearest(written, known, 1)
}

fn nearest<'a>(written: &str, known: impl IntoIterator<Item = &'a str>, slips: usize) -> Option<&'a str> {
    let folded = fold(written);
    let length = folded.chars().count();
    // One letter of two says nothing.
    let slips = slips.min(length / 2);
    known
        .into_iter()
        .map(|name| (name, fold(name)))
        // Comparing takes time as both are long, and what is much longer is another word anyway.
        .filter(|(_, other)| other.chars().count().abs_diff(length) <= slips)
        .map(|(name, other)| (strsim::damerau_levenshtein(&folded, &other), name))
        .filter(|(distance, _)| *distance <= slips)
        .min()
        .map(|(_, name)| name)
}

/// `health_check`, `health-check` and `healthCheck` differ by nothing that matters.
fn fold(name: &str) -> String {
    name.chars().filter(|c| *c != '_' && *c != '-').flat_map(char::to_lowercase).collect()
}
