//! Problems of a spec as a person, GitHub, SARIF readers and scripts read them.

use std::fmt;

use miette::{
    Diagnostic, GraphicalReportHandler, GraphicalTheme, LabeledSpan, MietteError, MietteSpanContents,
    SourceCode, SourceSpan, SpanContents,
};
use schemars::JsonSchema;
use serde::Serialize;
use serde_json::json;

use crate::spec::problem::{Label, Problem, Severity};
use crate::spec::source::{SourceFile, Sources, Span};

/// The longest line that is shown as an excerpt, in bytes; longer ones are cut around the place.
const LONG_LINE: usize = 240;

/// For a person: every problem with an excerpt.
pub fn human(problems: &[Problem], sources: &Sources, color: bool, width: usize) -> String {
    let theme = if color { GraphicalTheme::unicode() } else { GraphicalTheme::unicode_nocolor() };
    let handler =
        GraphicalReportHandler::new_themed(theme).with_links(false).with_width(width).with_context_lines(1);
    let mut text = String::new();
    for problem in problems {
        let view = View::of(problem, sources);
        // Writing to a String cannot fail, and a problem without a place has a plain form.
        if handler.render_report(&mut text, &view).is_err() {
            text.push_str(&problem.message);
        }
        text.push('\n');
    }
    text
}

/// One line that counts what was found.
pub fn summary(problems: &[Problem]) -> String {
    let errors = problems.iter().filter(|p| p.is_error()).count();
    let warnings = problems.len() - errors;
    let count = |n: usize, what: &str| format!("{n} {what}{}", if n == 1 { "" } else { "s" });
    match (errors, warnings) {
        (0, 0) => "no problems".into(),
        (0, _) => count(warnings, "warning"),
        (_, 0) => count(errors, "error"),
        _ => format!("{}, {}", count(errors, "error"), count(warnings, "warning")),
    }
}

/// For GitHub Actions: a workflow command a line, which it shows at the file's line.
pub fn github(problems: &[Problem], sources: &Sources) -> String {
    let mut out = String::new();
    for problem in problems {
        let kind = match problem.severity {
            Severity::Error => "error",
            Severity::Warning => "warning",
        };
        let mut properties = Vec::new();
        if let Some(label) = problem.labels.first() {
            let place = Place::of(label, sources);
            properties.push(format!("file={}", escape(&place.file, true)));
            properties.push(format!("line={},endLine={}", place.line, place.end_line));
            properties.push(format!("col={},endColumn={}", place.column, place.end_column));
        }
        properties.push(format!("title={}", escape(problem.code, true)));
        let mut message = problem.message.clone();
        if let Some(help) = &problem.help {
            message += &format!("\nhelp: {help}");
        }
        out += &format!("::{kind} {}::{}\n", properties.join(","), escape(&message, false));
    }
    out
}

/// Escapes the text of a workflow command.
pub fn escape(text: &str, property: bool) -> String {
    let text = text.replace('%', "%25").replace('\r', "%0D").replace('\n', "%0A");
    if property { text.replace(':', "%3A").replace(',', "%2C") } else { text }
}

/// For code scanning: SARIF 2.1.0.
pub fn sarif(problems: &[Problem], sources: &Sources) -> String {
    let mut codes: Vec<&str> = problems.iter().map(|p| p.code).collect();
    codes.sort_unstable();
    codes.dedup();
    let rules: Vec<_> = codes.iter().map(|code| json!({ "id": code })).collect();
    let results: Vec<_> = problems
        .iter()
        .map(|problem| {
            let locations: Vec<_> = problem
                .labels
                .iter()
                .map(|label| {
                    let place = Place::of(label, sources);
                    json!({
                        "physicalLocation": {
                            "artifactLocation": { "uri": place.file },
                            "region": {
                                "startLine": place.line,
                                "startColumn": place.column,
                                "endLine": place.end_line,
                                "endColumn": place.end_column,
                            },
                        },
                        "message": { "text": label.text },
                    })
                })
                .collect();
            let (first, related) = locations.split_at(locations.len().min(1));
            let help = problem.help.as_deref().map(|help| format!("\nhelp: {help}")).unwrap_or_default();
            json!({
                "ruleId": problem.code,
                "level": if problem.is_error() { "error" } else { "warning" },
                "message": { "text": format!("{}{help}", problem.message) },
                "locations": first,
                "relatedLocations": related,
            })
        })
        .collect();
    let report = json!({
        "$schema": "https://json.schemastore.org/sarif-2.1.0.json",
        "version": "2.1.0",
        "runs": [{
            "tool": { "driver": { "name": "norn", "version": env!("CARGO_PKG_VERSION"), "rules": rules } },
            "columnKind": "unicodeCodePoints",
            "results": results,
        }],
    });
    format!("{report:#}\n")
}

/// What `norn validate --format json` prints.
#[derive(Debug, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(title = "norn validate")]
pub struct Report {
    /// The version of this format: 1.
    pub format_version: u32,
    /// Whether there is no error.
    pub valid: bool,
    /// The files that were read, the root first.
    pub files: Vec<String>,
    pub problems: Vec<Entry>,
}

#[derive(Debug, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Entry {
    /// `error` or `warning`.
    pub severity: &'static str,
    /// A stable name, such as `unknown-key`.
    pub code: &'static str,
    pub message: String,
    /// How to mend it.
    pub help: Option<String>,
    /// Where to look, first; then what belongs to it.
    pub places: Vec<Place>,
}

#[derive(Debug, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Place {
    pub file: String,
    /// From 1.
    pub line: usize,
    /// From 1, in characters.
    pub column: usize,
    pub end_line: usize,
    /// The column behind the last character.
    pub end_column: usize,
    pub text: String,
}

impl Place {
    fn of(label: &Label, sources: &Sources) -> Self {
        let (line, column) = sources.line_column(label.span);
        let Span { file, start, len } = label.span;
        let (end_line, end_column) = sources.line_column(Span::new(file, start + len, 0));
        let file = sources.get(file).path.clone();
        Self { file, line, column, end_line, end_column, text: label.text.clone() }
    }
}

/// For scripts.
pub fn report(problems: &[Problem], sources: &Sources) -> Report {
    Report {
        format_version: 1,
        valid: !problems.iter().any(Problem::is_error),
        files: sources.iter().map(|file| file.path.clone()).collect(),
        problems: problems
            .iter()
            .map(|problem| Entry {
                severity: if problem.is_error() { "error" } else { "warning" },
                code: problem.code,
                message: problem.message.clone(),
                help: problem.help.clone(),
                places: problem.labels.iter().map(|label| Place::of(label, sources)).collect(),
            })
            .collect(),
    }
}

/// A problem as miette shows it: the first file's places as an excerpt, the others in the help.
#[derive(Debug)]
struct View {
    problem: Problem,
    source: Option<Excerpt>,
    labels: Vec<LabeledSpan>,
    help: Option<String>,
}

impl View {
    fn of(problem: &Problem, sources: &Sources) -> Self {
        let mut problem = problem.clone();
        problem.message = visible(&problem.message);
        problem.labels.iter_mut().for_each(|label| label.text = visible(&label.text));
        let mut help: Vec<String> = problem.help.iter().map(|help| visible(help)).collect();
        let Some(first) = problem.labels.first() else {
            return Self { problem, source: None, labels: Vec::new(), help: help.pop() };
        };
        let file = sources.get(first.span.file);
        let (here, elsewhere): (Vec<&Label>, Vec<&Label>) =
            problem.labels.iter().partition(|label| label.span.file == first.span.file);
        for label in elsewhere {
            help.push(format!("{}: {}", sources.place(label.span), label.text));
        }
        let (source, labels) = match cut_long_line(&file.text, first.span) {
            Some((text, at, len)) => {
                let (line, column) = sources.line_column(first.span);
                let before = text[..at].chars().count();
                let source =
                    Excerpt { name: file.path.clone(), text, line: line - 1, column: column - 1 - before };
                (source, vec![LabeledSpan::new(Some(first.text.clone()), at, len)])
            }
            None => window(file, sources, &here),
        };
        let help = (!help.is_empty()).then(|| help.join("\n"));
        Self { source: Some(source), labels, help, problem }
    }
}

/// A text of lines that cannot steer a terminal.
fn visible(text: &str) -> String {
    text.split('\n').map(crate::scrub::visible).collect::<Vec<_>>().join("\n")
}

/// The same for a part of a file: as many bytes, so that places in it hold.
fn still(text: &str) -> String {
    let still = |(at, c): (usize, char)| match c {
        '\n' | '\t' => c,
        '\r' if text[at + 1..].starts_with('\n') => c,
        c if !c.is_control() => c,
        c if c.len_utf8() == 1 => ' ',
        _ => '\u{a0}',
    };
    text.char_indices().map(still).collect()
}

/// The part of a file that a problem is about, so that a thousand problems do not cost a thousand
/// readings of the file.
#[derive(Debug)]
struct Excerpt {
    name: String,
    text: String,
    /// The line that the text begins in, from 0.
    line: usize,
    /// The characters of that line before the text.
    column: usize,
}

impl SourceCode for Excerpt {
    fn read_span<'a>(
        &'a self,
        span: &SourceSpan,
        before: usize,
        after: usize,
    ) -> Result<Box<dyn SpanContents<'a> + 'a>, MietteError> {
        let read = self.text.read_span(span, before, after)?;
        let (line, column) = (read.line() + self.line, read.column() + self.column);
        let name = self.name.clone();
        let contents =
            MietteSpanContents::new_named(name, read.data(), *read.span(), line, column, read.line_count());
        Ok(Box::new(contents))
    }
}

/// The lines from before the first label to behind the last, with the labels in them.
fn window(file: &SourceFile, sources: &Sources, labels: &[&Label]) -> (Excerpt, Vec<LabeledSpan>) {
    let text = &file.text;
    let ends = labels.iter().map(|label| label.span.start + label.span.len);
    let begin = labels.iter().map(|label| label.span.start).min().unwrap_or_default().min(text.len());
    let end = text.floor_char_boundary(ends.max().unwrap_or_default()).max(begin);
    let line_of = |at: usize| text[..at].rfind('\n').map_or(0, |at| at + 1);
    let own = line_of(text.floor_char_boundary(begin));
    let from = line_of(own.saturating_sub(1));
    let line_end = |at: usize| text[at..].find('\n').map_or(text.len(), |more| at + more + 1);
    let to = line_end(line_end(end));
    let first = labels.iter().min_by_key(|label| label.span.start).map(|label| label.span);
    let (line, _) = first.map_or((1, 1), |span| sources.line_column(Span { start: from, ..span }));
    let labels = labels.iter().map(|label| {
        let text = Some(label.text.clone()).filter(|text| !text.is_empty());
        LabeledSpan::new(text, label.span.start - from, label.span.len)
    });
    let labels = labels.collect();
    (Excerpt { name: file.path.clone(), text: still(&text[from..to]), line: line - 1, column: 0 }, labels)
}

/// The part of an overlong line around a place, with the place in it.
fn cut_long_line(text: &str, span: Span) -> Option<(String, usize, usize)> {
    let start = span.start.min(text.len());
    let from = text[..start].rfind('\n').map_or(0, |at| at + 1);
    let to = text[start..].find('\n').map_or(text.len(), |at| start + at);
    if to - from <= LONG_LINE {
        return None;
    }
    let back = (from..=start).rev().filter(|at| text.is_char_boundary(*at)).take(40).last().unwrap_or(start);
    let ahead = (start..=to).filter(|at| text.is_char_boundary(*at)).take(80).last().unwrap_or(start);
    Some((still(&text[back..ahead]).replace('\t', " "), start - back, span.len.min(ahead - start)))
}

impl fmt::Display for View {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.problem.message)
    }
}

impl std::error::Error for View {}

impl Diagnostic for View {
    fn severity(&self) -> Option<miette::Severity> {
        Some(match self.problem.severity {
            Severity::Error => miette::Severity::Error,
            Severity::Warning => miette::Severity::Warning,
        })
    }

    fn help<'a>(&'a self) -> Option<Box<dyn fmt::Display + 'a>> {
        self.help.as_ref().map(|help| Box::new(help) as Box<dyn fmt::Display>)
    }

    fn source_code(&self) -> Option<&dyn SourceCode> {
        self.source.as_ref().map(|source| source as &dyn SourceCode)
    }

    fn labels(&self) -> Option<Box<dyn Iterator<Item = LabeledSpan> + '_>> {
        Some(Box::new(self.labels.iter().cloned()))
    }
}
