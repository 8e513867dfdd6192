//! The ingress rules of `cloudflared`, the tunnel's own program, edited as the text that they are.
//!
//! Here: one rule more or less in its `config.yaml`. Elsewhere: where that text stands
//! (`kubernetes::text`), how its lines are told apart (`layout`).
//! Invariants: pure; all else stays byte for byte; before and after are read as YAML, and what differs
//! is the one rule; a rule without this project's and stage's mark is never changed.

#[cfg(any(test, fuzzing))]
pub mod fuzz;
mod layout;
#[cfg(test)]
mod tests;

use std::collections::BTreeSet;
use std::ops::Range;

use serde_json::{Value, json};

use self::layout::{Layout, comment_at};
use super::Mark;

/// What a text has that norn does not edit.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Odd {
    #[error("a list or a map between brackets; write `ingress` with a rule after each `- `")]
    Flow,
    #[error("an anchor or an alias; write out what it stands for")]
    Anchor,
    #[error("a tab; indent with spaces")]
    Tab,
    #[error("more than one document; keep one")]
    Documents,
    #[error("a carriage return without a newline; end lines with a newline")]
    Return,
    #[error("an indentation that fits no rule of `ingress`; indent all rules alike")]
    Indentation,
    #[error("a value that norn cannot replace; write `service: URL` on one line")]
    Value,
}

/// Why a text cannot be edited. Lines are counted from 1.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum TunnelError {
    #[error("the configuration of cloudflared is no YAML: {why}; mend it")]
    NoYaml { why: String },
    #[error(
        "the configuration of cloudflared has no list `ingress`: add one that ends with the rule `- service: http_status:404`"
    )]
    NoIngress,
    #[error("line {line} of the configuration of cloudflared has {odd}")]
    Odd { line: usize, odd: Odd },
    #[error(
        "the last rule of cloudflared (line {line}) does not catch all that is left: add `- service: http_status:404` after it"
    )]
    NoCatchAll { line: usize },
    /// `whose` is such as `it has no mark`.
    #[error(
        "cloudflared has a rule for {host} that is not of this project and stage (line {line}, {whose}): take it out, or make it norn's by `# {mark}` at the end of its first line"
    )]
    Foreign { line: usize, host: String, whose: String, mark: String },
    #[error("cloudflared has several rules for {host} (line {line} has one of them): keep one")]
    Several { line: usize, host: String },
    #[error(
        "the configuration of cloudflared is written in a way that norn cannot edit safely (near line {line}): add or take out the rule for {host} by hand"
    )]
    Unproved { line: usize, host: String },
}

/// A rule of a name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rule {
    /// Where it leads, such as `http://web.shop.svc.cluster.local:80`.
    pub service: String,
    pub mark: Option<Mark>,
}

/// The first rule of a name, if it has one.
///
/// # Errors
/// A text that norn would not edit.
pub fn rule(text: &str, host: &str) -> Result<Option<Rule>, TunnelError> {
    let layout = Layout::of(text)?;
    let Some(at) = layout.rules_of(host).next() else { return Ok(None) };
    let service = layout.rules[at]["service"].as_str().unwrap_or_default().to_owned();
    Ok(Some(Rule { service, mark: mark_of(&layout, at).map(|(mark, _)| mark) }))
}

/// The names whose rules carry exactly this mark.
///
/// # Errors
/// A text that norn would not edit.
pub fn marked(text: &str, mark: &Mark) -> Result<BTreeSet<String>, TunnelError> {
    let layout = Layout::of(text)?;
    let ours =
        (0..layout.rules.len()).filter(|at| mark_of(&layout, *at).is_some_and(|(found, _)| found == *mark));
    Ok(ours.filter_map(|at| Some(layout.rules[at]["hostname"].as_str()?.to_owned())).collect())
}

/// The text with a rule that leads a name to a service, or nothing where it is so already. A new rule
/// stands before the first that would take all requests of the name: the last one, or a `*.` before it.
///
/// # Errors
/// A rule of others for this name, and a text that norn does not edit.
pub fn with_rule(text: &str, host: &str, service: &str, mark: &Mark) -> Result<Option<String>, TunnelError> {
    let layout = Layout::of(text)?;
    let last = layout.rules.last().filter(|rule| takes_all(rule, None));
    if last.is_none() {
        return Err(TunnelError::NoCatchAll { line: layout.line_of(layout.rules.len() - 1) });
    }
    let same: Vec<usize> = layout.rules_of(host).collect();
    for at in &same {
        let found = mark_of(&layout, *at).map(|(mark, _)| mark);
        if found.as_ref().is_some_and(|found| found.is_near(mark)) {
            continue;
        }
        // Who wrote the same by hand, or with version 1, has what is wanted.
        if found.is_none() && same.len() == 1 && layout.rules[*at] == said(host, service) {
            return Ok(None);
        }
        let whose = match found {
            Some(found) => format!("its mark is `{found}`"),
            None => "it has no mark".to_owned(),
        };
        let (line, host, mark) = (layout.line_of(*at), host.to_owned(), mark.to_string());
        return Err(TunnelError::Foreign { line, host, whose, mark });
    }
    let mut rules = layout.rules.clone();
    let (edits, line) = match same[..] {
        [] => {
            let before = rules.iter().position(|rule| takes_all(rule, Some(host)));
            let before = before.expect("the last rule takes all");
            rules.insert(before, said(host, service));
            (vec![layout.new_rule(before, host, service, mark)], layout.line_of(before))
        }
        [at] => {
            let mut edits = Vec::new();
            let line = layout.line_of(at);
            if rules[at]["service"].as_str() != Some(service) {
                let place = layout.service_of(at)?;
                let quote = text[place.clone()].chars().next().filter(|first| matches!(first, '"' | '\''));
                let quote = quote.map(String::from).unwrap_or_default();
                edits.push((place, format!("{quote}{service}{quote}")));
                rules[at]["service"] = json!(service);
            }
            let (found, place) = mark_of(&layout, at).expect("it is near the wanted one");
            if found != *mark {
                edits.push((place, format!("# {mark}")));
            }
            (edits, line)
        }
        [_, again, ..] => {
            return Err(TunnelError::Several { line: layout.line_of(again), host: host.to_owned() });
        }
    };
    if edits.is_empty() {
        return Ok(None);
    }
    proved(&layout, text, edits, rules, host, line).map(Some)
}

/// The text without the rules of a name that carry exactly this mark, or nothing where there are none.
///
/// # Errors
/// A text that norn does not edit.
pub fn without_rule(text: &str, host: &str, mark: &Mark) -> Result<Option<String>, TunnelError> {
    let layout = Layout::of(text)?;
    let marked = |at: &usize| mark_of(&layout, *at).is_some_and(|(found, _)| found == *mark);
    let gone: Vec<usize> = layout.rules_of(host).filter(marked).collect();
    let Some(first) = gone.first() else { return Ok(None) };
    let edits = gone.iter().map(|at| (layout.lines_of(*at), String::new())).collect();
    let rules = layout.rules.iter().enumerate().filter(|(at, _)| !gone.contains(at));
    let rules = rules.map(|(_, rule)| rule.clone()).collect();
    proved(&layout, text, edits, rules, host, layout.line_of(*first)).map(Some)
}

/// What a rule of norn says.
fn said(host: &str, service: &str) -> Value {
    json!({"hostname": host, "service": service})
}

/// Whether a rule takes every request, or every one for a name.
fn takes_all(rule: &Value, host: Option<&str>) -> bool {
    let text = |key: &str| rule.get(key).and_then(Value::as_str).filter(|text| !text.is_empty());
    let name = match text("hostname") {
        None | Some("*") => true,
        Some(name) => name.strip_prefix('*').zip(host).is_some_and(|(rest, host)| {
            rest.starts_with('.') && host.to_ascii_lowercase().ends_with(&rest.to_ascii_lowercase())
        }),
    };
    name && text("path").is_none()
}

/// The mark of a rule, at the end of its first line, and where it stands.
fn mark_of(layout: &Layout<'_>, at: usize) -> Option<(Mark, Range<usize>)> {
    let (start, line) = layout.first_line(at);
    let hash = comment_at(line)?;
    let comment = line[hash..].trim_end();
    let mark = Mark::read(comment.trim_start_matches('#'))?;
    Some((mark, start + hash..start + hash + comment.len()))
}

/// Makes the edits, which do not overlap, and proves that the rules are these then, and all else is as
/// it was.
fn proved(
    layout: &Layout<'_>,
    text: &str,
    mut edits: Vec<(Range<usize>, String)>,
    rules: Vec<Value>,
    host: &str,
    line: usize,
) -> Result<String, TunnelError> {
    let mut after = text.to_owned();
    edits.sort_by_key(|(place, _)| std::cmp::Reverse(place.start));
    for (place, new) in edits {
        after.replace_range(place, &new);
    }
    let mut wanted = layout.whole.clone();
    wanted["ingress"] = Value::Array(rules);
    if layout::parsed(&after).is_ok_and(|found| found == wanted) {
        return Ok(after);
    }
    Err(TunnelError::Unproved { line, host: host.to_owned() })
}
