//! Which lines of a configuration are which rule of `ingress`.
//!
//! The parser says what the rules are, the lines only where they stand: whoever edits proves by the
//! parser that no line was taken for another.

use std::ops::Range;

use serde_json::Value;

use super::{Mark, Odd, TunnelError};

/// A text and its rules.
pub(super) struct Layout<'a> {
    /// All of it as the parser reads it.
    pub whole: Value,
    /// What the rules say. Never empty.
    pub rules: Vec<Value>,
    lines: Vec<Line<'a>>,
    /// The lines of each rule, from its `-` to the last that has a word of it.
    items: Vec<Range<usize>>,
    /// The column of the rules' `-`.
    dash: usize,
    /// The line of the key `ingress`.
    key: usize,
}

#[derive(Debug, Clone, Copy)]
struct Line<'a> {
    start: usize,
    /// Without its ending.
    text: &'a str,
    ending: &'a str,
}

impl Line<'_> {
    fn indent(&self) -> usize {
        self.text.len() - self.text.trim_start_matches(' ').len()
    }

    fn is_blank(&self) -> bool {
        self.text.trim().is_empty()
    }

    fn is_comment(&self) -> bool {
        self.text.trim_start().starts_with('#')
    }

    fn is_content(&self) -> bool {
        !self.is_blank() && !self.is_comment()
    }

    /// Whether an entry of a list begins in this column.
    fn is_item(&self, dash: usize) -> bool {
        self.indent() == dash && (self.text[dash..].starts_with("- ") || self.text[dash..].trim_end() == "-")
    }

    /// Behind the `-` of an entry: the column of its first word, if that is on the same line.
    fn word(&self, dash: usize) -> Option<usize> {
        let rest = self.text[dash + 1..].trim_start_matches(' ');
        (!rest.is_empty() && !rest.starts_with('#')).then(|| self.text.len() - rest.len())
    }
}

/// Reads a text as YAML.
pub(super) fn parsed(text: &str) -> Result<Value, TunnelError> {
    let options = serde_yaml::options! {
        with_snippet: false,
        budget: serde_yaml::budget! {
            max_depth: 32,
            max_nodes: 200_000,
            max_events: 600_000,
            max_aliases: 1_000,
            max_documents: 2,
            max_total_scalar_bytes: 4 << 20,
        },
        alias_limits: serde_yaml::alias_limits! {
            max_total_replayed_events: 100_000,
            max_alias_expansions_per_anchor: 256,
        },
    };
    serde_yaml::from_str_with_options(text, options).map_err(|error| {
        // What the parser's caller could set is nothing for who wrote the text.
        let why = error.to_string().replace(", set DuplicateKeyPolicy in Options if acceptable", "");
        TunnelError::NoYaml { why: why.lines().next().unwrap_or_default().to_owned() }
    })
}

/// Where the comment of a line begins, at its `#`.
pub(super) fn comment_at(line: &str) -> Option<usize> {
    let mut quote = None;
    let mut before = ' ';
    let mut letters = line.char_indices().peekable();
    while let Some((at, letter)) = letters.next() {
        match (quote, letter) {
            (Some('"'), '\\') => drop(letters.next()),
            // Twice it is the letter itself.
            (Some('\''), '\'') if letters.next_if(|(_, next)| *next == '\'').is_some() => {}
            (Some(open), _) if open == letter => quote = None,
            (None, '"' | '\'') if before.is_whitespace() || matches!(before, '[' | '{' | ',') => {
                quote = Some(letter);
            }
            (None, '#') if before.is_whitespace() => return Some(at),
            (Some(_) | None, _) => {}
        }
        before = letter;
    }
    None
}

impl<'a> Layout<'a> {
    pub fn of(text: &'a str) -> Result<Self, TunnelError> {
        let lines = lines(text);
        plain(&lines)?;
        let whole = parsed(text)?;
        let key = key(&lines)?;
        let (dash, items) = items(&lines, key)?;
        let rules = whole.get("ingress").and_then(Value::as_array).cloned().ok_or(TunnelError::NoIngress)?;
        if rules.len() != items.len() {
            return Err(TunnelError::Odd { line: key + 1, odd: Odd::Indentation });
        }
        Ok(Self { whole, rules, lines, items, dash, key })
    }

    /// The rules of a name.
    pub fn rules_of(&self, host: &str) -> impl Iterator<Item = usize> {
        let named =
            move |rule: &Value| rule["hostname"].as_str().is_some_and(|name| name.eq_ignore_ascii_case(host));
        let found: Vec<usize> = (0..self.rules.len()).filter(|at| named(&self.rules[*at])).collect();
        found.into_iter()
    }

    /// The line of a rule, counted from 1.
    pub fn line_of(&self, rule: usize) -> usize {
        self.items[rule].start + 1
    }

    /// Where the first line of a rule begins, and the line.
    pub fn first_line(&self, rule: usize) -> (usize, &'a str) {
        let line = &self.lines[self.items[rule].start];
        (line.start, line.text)
    }

    /// All lines of a rule, with their endings.
    pub fn lines_of(&self, rule: usize) -> Range<usize> {
        let Range { start, end } = self.items[rule];
        let last = &self.lines[end - 1];
        self.lines[start].start..last.start + last.text.len() + last.ending.len()
    }

    /// A new rule before another, in the way of that: where, and its lines. What is said in comments
    /// right above the other stays with it.
    pub fn new_rule(&self, before: usize, host: &str, service: &str, mark: &Mark) -> (Range<usize>, String) {
        let item = self.items[before].start;
        let first = &self.lines[item];
        let floor = before.checked_sub(1).map_or(self.key + 1, |above| self.items[above].end);
        let above = (floor..item).rev().take_while(|line| {
            let line = &self.lines[*line];
            line.is_comment() && line.indent() <= self.dash
        });
        let line = above.last().unwrap_or(item);
        let dash = &first.text[..self.dash];
        let gap = first.word(self.dash).map_or(1, |word| word - self.dash - 1);
        let ending = self.lines[line - 1].ending;
        let (start, gap) = (self.lines[line].start, " ".repeat(gap));
        let text =
            format!("{dash}-{gap}hostname: {host} # {mark}{ending}{dash} {gap}service: {service}{ending}");
        (start..start, text)
    }

    /// Where the value of a rule's `service` stands.
    pub fn service_of(&self, rule: usize) -> Result<Range<usize>, TunnelError> {
        let item = self.items[rule].clone();
        let odd = |line: usize, odd| TunnelError::Odd { line: line + 1, odd };
        let first = &self.lines[item.start];
        let inner = |line: &usize| self.lines[*line].is_content();
        let column = match first.word(self.dash) {
            Some(column) => column,
            None => {
                let next = (item.start + 1..item.end).find(inner);
                next.map(|next| self.lines[next].indent()).ok_or(odd(item.start, Odd::Value))?
            }
        };
        if first.text[column.min(first.text.len())..].starts_with('{') {
            return Err(odd(item.start, Odd::Flow));
        }
        for at in item.clone() {
            let line = &self.lines[at];
            let begins = if at == item.start { first.word(self.dash) } else { Some(line.indent()) };
            if begins != Some(column) || !line.is_content() {
                continue;
            }
            let end = comment_at(line.text).unwrap_or(line.text.len());
            let pair = line.text[column..end].trim_end();
            let Some(value) = ["service:", "\"service\":", "'service':"]
                .iter()
                .find_map(|key| pair.strip_prefix(key))
                .map(|rest| rest.trim_start_matches(' '))
            else {
                continue;
            };
            let end = column + pair.len();
            return match value.chars().next() {
                None | Some('|' | '>' | '{' | '[' | '!') => Err(odd(at, Odd::Value)),
                Some(_) => Ok(line.start + end - value.len()..line.start + end),
            };
        }
        Err(odd(item.start, Odd::Value))
    }
}

fn lines(text: &str) -> Vec<Line<'_>> {
    let mut start = 0;
    let line = |whole: &'_ str| -> usize {
        let bare = whole.strip_suffix('\n').unwrap_or(whole);
        bare.strip_suffix('\r').filter(|_| bare.len() < whole.len()).unwrap_or(bare).len()
    };
    let mut all = Vec::new();
    for whole in text.split_inclusive('\n') {
        let (text, ending) = whole.split_at(line(whole));
        all.push(Line { start, text, ending });
        start += whole.len();
    }
    all
}

/// That a text is one document without what makes columns unclear.
fn plain(lines: &[Line<'_>]) -> Result<(), TunnelError> {
    let mut begun = false;
    for (at, line) in lines.iter().enumerate() {
        let odd = |odd| Err(TunnelError::Odd { line: at + 1, odd });
        if line.text.contains('\r') {
            return odd(Odd::Return);
        }
        let margin = &line.text[..line.text.len() - line.text.trim_start_matches([' ', '\t']).len()];
        if margin.contains('\t') && !line.is_blank() {
            return odd(Odd::Tab);
        }
        let marker = |marker| {
            line.text.strip_prefix(marker).is_some_and(|rest| rest.is_empty() || rest.starts_with(' '))
        };
        if marker("...") || marker("---") && begun {
            return odd(Odd::Documents);
        }
        begun |= line.is_content() && !line.text.starts_with('%');
    }
    Ok(())
}

/// The line of the key `ingress`.
fn key(lines: &[Line<'_>]) -> Result<usize, TunnelError> {
    for (at, line) in lines.iter().enumerate() {
        let text = line.text.strip_prefix('\u{feff}').unwrap_or(line.text);
        let odd = |odd| Err(TunnelError::Odd { line: at + 1, odd });
        if text.starts_with('{') {
            return odd(Odd::Flow);
        }
        let named = ["ingress", "\"ingress\"", "'ingress'"].iter().find_map(|name| text.strip_prefix(name));
        let Some(value) = named.and_then(|rest| rest.trim_start_matches(' ').strip_prefix(':')) else {
            continue;
        };
        let value = value.trim_start_matches(' ');
        return match value.chars().next() {
            None | Some('#') => Ok(at),
            Some('[' | '{') => odd(Odd::Flow),
            Some('&' | '*') => odd(Odd::Anchor),
            Some(_) => Err(TunnelError::NoIngress),
        };
    }
    Err(TunnelError::NoIngress)
}

/// The column of the rules' `-`, and the lines of each.
fn items(lines: &[Line<'_>], key: usize) -> Result<(usize, Vec<Range<usize>>), TunnelError> {
    let mut items: Vec<Range<usize>> = Vec::new();
    let mut dash = None;
    for (at, line) in lines.iter().enumerate().skip(key + 1).filter(|(_, line)| line.is_content()) {
        let odd = |odd| Err(TunnelError::Odd { line: at + 1, odd });
        let indent = line.indent();
        let Some(dash) = dash else {
            let first = line.text[indent..].chars().next();
            if indent > 0 || first == Some('-') {
                tabs_and_anchors(at, line)?;
            }
            match first {
                Some('-') if line.is_item(indent) => {
                    dash = Some(indent);
                    items.push(at..at + 1);
                    continue;
                }
                Some('[' | '{') if indent > 0 => return odd(Odd::Flow),
                Some(_) | None => return Err(TunnelError::NoIngress),
            }
        };
        match items.last_mut() {
            _ if line.is_item(dash) => items.push(at..at + 1),
            Some(item) if indent > dash => item.end = at + 1,
            _ if indent == 0 => break,
            _ => return odd(Odd::Indentation),
        }
        tabs_and_anchors(at, line)?;
    }
    dash.map(|dash| (dash, items)).ok_or(TunnelError::NoIngress)
}

fn tabs_and_anchors(at: usize, line: &Line<'_>) -> Result<(), TunnelError> {
    let text = &line.text[..comment_at(line.text).unwrap_or(line.text.len())];
    if text.contains('\t') {
        return Err(TunnelError::Odd { line: at + 1, odd: Odd::Tab });
    }
    let mut word = text.trim_start();
    while let Some(rest) = word.strip_prefix("- ") {
        word = rest.trim_start();
    }
    let value = word.split_once(": ").map_or("", |(_, value)| value.trim_start());
    if [word, value].iter().any(|word| word.starts_with(['&', '*'])) {
        return Err(TunnelError::Odd { line: at + 1, odd: Odd::Anchor });
    }
    Ok(())
}
