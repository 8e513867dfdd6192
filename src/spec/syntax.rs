//! What the YAML parser's errors mean to who wrote the file.

use super::problem::Problem;
use super::source::{FileId, Span};
use super::yaml::{MAX_DEPTH, position};

/// The parser's error as a problem with a place and, where one is known, a mend.
pub fn unreadable(file: FileId, text: &str, error: &serde_yaml::Error) -> Problem {
    let error = error.without_snippet();
    let location = error.location();
    let span = location.map_or(Span::new(file, 0, 0), |at| position(file, text, at));
    let full = error.to_string();
    let said = full.split(" at line ").next().unwrap_or(&full).trim_end_matches([',', ' ', ':']);
    let rest = text.get(span.start..).unwrap_or_default();
    // Of `{{` the parser marks the second.
    let template = rest.starts_with("{{")
        || rest.starts_with('{') && text.get(..span.start).is_some_and(|before| before.ends_with('{'));
    let rest = if template { "{{" } else { rest };
    let Meaning { code, what, label, help } = meaning(&said.to_lowercase(), said, rest);
    Problem::error(code, what).at(span, label).help(help)
}

struct Meaning {
    code: &'static str,
    what: String,
    label: &'static str,
    help: String,
}

/// `lower` and `said` are the parser's words, `rest` is the text from the place on.
fn meaning(lower: &str, said: &str, rest: &str) -> Meaning {
    let first = rest.chars().next().unwrap_or_default();
    let not_yaml = |what: &str, label, help: &str| Meaning {
        code: "not-yaml",
        what: format!("this is no YAML: {what}"),
        label,
        help: help.into(),
    };
    let has = |words: &[&str]| words.iter().any(|word| lower.contains(word));
    if has(&["depth", "recursion"]) {
        let what = format!("the file nests deeper than {MAX_DEPTH} levels");
        return Meaning {
            code: "too-complex",
            what,
            label: "too deep",
            help: "a spec needs no more than ten".into(),
        };
    }
    if has(&["budget", "replay", "expansion", "alias limit"]) {
        let (what, help) =
            ("the aliases of the file expand to too much".into(), "write the parts out".into());
        return Meaning { code: "too-complex", what, label: "too much", help };
    }
    if has(&["multiple yaml documents"]) {
        let what = "the file holds more than one YAML document".into();
        let help = "keep one; take `---` and what follows out".into();
        return Meaning { code: "several-documents", what, label: "the next one", help };
    }
    if first == '\0' {
        let help = "the file is damaged or is no text; write it again as UTF-8".into();
        return Meaning { code: "not-yaml", what: "the file holds a NUL byte".into(), label: "here", help };
    }
    if has(&["unsupported tag"]) {
        return not_yaml(&format!("{said} means nothing to norn"), "a tag", "take the tag out");
    }
    if has(&["tabs disallowed"]) || first == '\t' {
        return not_yaml(
            "a tab indents this line",
            "behind a tab",
            "indent with spaces: YAML does not take tabs",
        );
    }
    if rest.starts_with("{{") {
        return not_yaml(
            "`{{` begins no value",
            "a template?",
            "norn fills in no templates: refer to a variable as ${NAME}, or put quotes around the text",
        );
    }
    if has(&["merge value"]) {
        return not_yaml(
            "`<<` takes an alias of a map",
            "no map",
            "write `<<: *name`, and `&name` before the map that is meant",
        );
    }
    if has(&["unknown anchor"]) {
        return not_yaml(
            "`*` refers to a part that has no `&` of this name before it",
            "no such anchor",
            "put quotes around a value that begins with `*`; an alias `*name` needs an `&name` further up",
        );
    }
    if has(&["unexpected character"]) {
        let what = match first {
            '`' => "a value cannot begin with a backtick".to_owned(),
            _ => format!("a value cannot begin with `{first}`"),
        };
        return not_yaml(&what, "here", "put quotes around the value");
    }
    if has(&["mapping values are not allowed"]) {
        return not_yaml(
            "a `:` is where none can be",
            "this one",
            "put quotes around a value that holds `: `, and a space behind the `:` of every key",
        );
    }
    if has(&["expected string scalar"]) {
        return not_yaml(
            "a key is no text",
            "this key",
            "write keys as plain text, or put quotes around them",
        );
    }
    if has(&["expected ':'"]) {
        return not_yaml(
            "a line is no `key: value`",
            "begins here",
            "put `: ` between the key and its value",
        );
    }
    if has(&["quoted scalar", "unterminated", "unclosed quote"]) {
        return not_yaml(
            "a quote is not closed",
            "still inside quotes",
            "close the quote on the lines before; the same kind of quote ends what it began",
        );
    }
    if has(&["bracket", "flow mapping", "flow sequence"]) {
        return not_yaml(
            "the brackets do not match",
            "seen here",
            "close every `{` with `}` and every `[` with `]`, and put one `,` between entries",
        );
    }
    if has(&["expected key", "indentation", "block mapping", "block collection", "block sequence"]) {
        return not_yaml(
            "the indentation does not fit",
            "this line",
            "begin all fields of one map in the same column, two spaces further in than the map's own key",
        );
    }
    not_yaml(said, "here", "check the brackets, quotes and indentation here and on the line before")
}
