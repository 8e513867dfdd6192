//! YAML text as a tree in which every value knows its place.
//!
//! Here: reading within bounds, duplicate keys. Elsewhere: what the parser's errors mean
//! (`syntax`), what the values stand for (`shape`, `model`).

use std::collections::BTreeMap;
use std::fmt;

use serde::Deserialize;
use serde::de::{Deserializer, MapAccess, SeqAccess, Visitor};
use serde_yaml::{DuplicateKeyPolicy, Location, Spanned};

use super::problem::Problem;
use super::source::{FileId, Span};
use super::syntax;

/// The largest file that is read, in bytes.
pub const MAX_FILE: usize = 4 << 20;
/// How deep maps and lists may nest.
pub const MAX_DEPTH: usize = 32;

/// A value and where it stands.
#[derive(Debug, Clone, PartialEq)]
pub struct Node {
    pub span: Span,
    pub kind: Kind,
}

#[derive(Debug, Clone, PartialEq)]
pub enum Kind {
    Null,
    Bool(bool),
    /// As it was spelled: `1.10` stays `1.10`.
    Number(String),
    Text(String),
    List(Vec<Node>),
    Map(Vec<Entry>),
}

/// One key of a map with its value. Keys of one map differ.
#[derive(Debug, Clone, PartialEq)]
pub struct Entry {
    pub key: String,
    pub key_span: Span,
    pub value: Node,
}

impl Node {
    pub fn map(&self) -> Option<&[Entry]> {
        match &self.kind {
            Kind::Map(entries) => Some(entries),
            _ => None,
        }
    }

    pub fn entry(&self, key: &str) -> Option<&Entry> {
        self.map()?.iter().find(|entry| entry.key == key)
    }

    pub fn get(&self, key: &str) -> Option<&Node> {
        self.entry(key).map(|entry| &entry.value)
    }

    /// The entries of a map by key, for more than a few look-ups in a large one.
    pub fn index(&self) -> BTreeMap<&str, &Entry> {
        self.map().unwrap_or_default().iter().map(|entry| (entry.key.as_str(), entry)).collect()
    }

    /// The text of a scalar as it was spelled; maps, lists and null have none.
    pub fn scalar(&self) -> Option<&str> {
        match &self.kind {
            Kind::Bool(true) => Some("true"),
            Kind::Bool(false) => Some("false"),
            Kind::Number(text) | Kind::Text(text) => Some(text),
            Kind::Null | Kind::List(_) | Kind::Map(_) => None,
        }
    }

    /// What a reader calls such a value.
    pub fn what(&self) -> &'static str {
        match self.kind {
            Kind::Null => "nothing",
            Kind::Bool(_) => "true or false",
            Kind::Number(_) => "a number",
            Kind::Text(_) => "text",
            Kind::List(_) => "a list",
            Kind::Map(_) => "a map",
        }
    }
}

/// Reads one file.
///
/// # Errors
/// The one thing that keeps it from being YAML, or every duplicate key in it.
pub fn parse(file: FileId, text: &str) -> Result<Node, Vec<Problem>> {
    if text.len() > MAX_FILE {
        let message = format!("the file is larger than norn reads: more than {} MiB", MAX_FILE >> 20);
        return Err(vec![
            Problem::error("too-large", message)
                .at(Span::new(file, 0, 0), "")
                .help("split it: `include` takes files in the app form"),
        ]);
    }
    let raw = serde_yaml::from_str_with_options::<Raw>(text, options())
        .map_err(|error| vec![syntax::unreadable(file, text, &error)])?;
    let mut problems = Vec::new();
    let node = settle(raw, file, text, &mut problems);
    if problems.is_empty() { Ok(node) } else { Err(problems) }
}

fn options() -> serde_yaml::Options {
    serde_yaml::options! {
        with_snippet: false,
        strict_booleans: true,
        reject_unsupported_tags: true,
        // Every duplicate is reported by `settle`, not only the first.
        duplicate_keys: DuplicateKeyPolicy::LastWins,
        budget: serde_yaml::budget! {
            max_depth: MAX_DEPTH,
            max_nodes: 1_000_000,
            max_events: 3_000_000,
            max_aliases: 1_000,
            max_documents: 2,
            max_total_scalar_bytes: MAX_FILE,
        },
        alias_limits: serde_yaml::alias_limits! {
            max_total_replayed_events: 100_000,
            max_alias_expansions_per_anchor: 256,
        },
    }
}

/// A parser's location, which counts bytes where it can and characters where it cannot.
pub(super) fn position(file: FileId, text: &str, location: Location) -> Span {
    let span = location.span();
    if let (Some(start), Some(len)) = (span.byte_offset(), span.byte_len()) {
        return Span::new(file, (start as usize).min(text.len()), len as usize);
    }
    let line = usize::try_from(location.line()).unwrap_or(1).saturating_sub(1);
    let column = usize::try_from(location.column()).unwrap_or(1).saturating_sub(1);
    let before: usize = text.split_inclusive('\n').take(line).map(str::len).sum();
    let within: usize = text[before..].chars().take(column).map(char::len_utf8).sum();
    Span::new(file, before + within, 1)
}

/// What the parser gives: values with their place, keys possibly twice.
struct Raw {
    referenced: Location,
    defined: Location,
    kind: RawKind,
}

enum RawKind {
    Null,
    Bool(bool),
    Number,
    Text(String),
    List(Vec<Raw>),
    Map(Vec<(Spanned<String>, Raw)>),
}

fn settle(raw: Raw, file: FileId, text: &str, problems: &mut Vec<Problem>) -> Node {
    let span = position(file, text, raw.referenced);
    let kind = match raw.kind {
        RawKind::Null => Kind::Null,
        RawKind::Bool(value) => Kind::Bool(value),
        RawKind::Number => {
            // Behind an alias the spelling stands at its anchor.
            let spelled = position(file, text, raw.defined);
            let spelling = text.get(spelled.start..spelled.start + spelled.len).unwrap_or_default();
            Kind::Number(spelling.to_owned())
        }
        RawKind::Text(value) => Kind::Text(value),
        RawKind::List(items) => {
            Kind::List(items.into_iter().map(|item| settle(item, file, text, problems)).collect())
        }
        RawKind::Map(pairs) => {
            let mut seen: BTreeMap<String, Span> = BTreeMap::new();
            let mut entries = Vec::with_capacity(pairs.len());
            for (key, value) in pairs {
                let key_span = position(file, text, key.referenced);
                let value = settle(value, file, text, problems);
                match seen.get(&key.value) {
                    Some(first) => problems.push(
                        Problem::error("duplicate-key", format!("the key `{}` is here twice", key.value))
                            .at(key_span, "again here")
                            .at(*first, "first here")
                            .help("keep one of them, or join them"),
                    ),
                    None => {
                        seen.insert(key.value.clone(), key_span);
                        entries.push(Entry { key: key.value, key_span, value });
                    }
                }
            }
            Kind::Map(entries)
        }
    };
    Node { span, kind }
}

impl<'de> Deserialize<'de> for Raw {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let spanned = Spanned::<RawKind>::deserialize(deserializer)?;
        Ok(Self { referenced: spanned.referenced, defined: spanned.defined, kind: spanned.value })
    }
}

impl<'de> Deserialize<'de> for RawKind {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(KindVisitor)
    }
}

struct KindVisitor;

impl<'de> Visitor<'de> for KindVisitor {
    type Value = RawKind;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a value")
    }

    fn visit_bool<E>(self, value: bool) -> Result<RawKind, E> {
        Ok(RawKind::Bool(value))
    }

    fn visit_i64<E>(self, _: i64) -> Result<RawKind, E> {
        Ok(RawKind::Number)
    }

    fn visit_u64<E>(self, _: u64) -> Result<RawKind, E> {
        Ok(RawKind::Number)
    }

    fn visit_i128<E>(self, _: i128) -> Result<RawKind, E> {
        Ok(RawKind::Number)
    }

    fn visit_u128<E>(self, _: u128) -> Result<RawKind, E> {
        Ok(RawKind::Number)
    }

    fn visit_f64<E>(self, _: f64) -> Result<RawKind, E> {
        Ok(RawKind::Number)
    }

    fn visit_str<E>(self, value: &str) -> Result<RawKind, E> {
        Ok(RawKind::Text(value.to_owned()))
    }

    fn visit_unit<E>(self) -> Result<RawKind, E> {
        Ok(RawKind::Null)
    }

    fn visit_none<E>(self) -> Result<RawKind, E> {
        Ok(RawKind::Null)
    }

    fn visit_some<D: Deserializer<'de>>(self, deserializer: D) -> Result<RawKind, D::Error> {
        deserializer.deserialize_any(self)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<RawKind, A::Error> {
        let mut list = Vec::new();
        while let Some(item) = items.next_element()? {
            list.push(item);
        }
        Ok(RawKind::List(list))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut entries: A) -> Result<RawKind, A::Error> {
        let mut map = Vec::new();
        while let Some(key) = entries.next_key()? {
            map.push((key, entries.next_value()?));
        }
        Ok(RawKind::Map(map))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::spec::source::{SourceFile, Sources};

    fn check(text: &str) -> String {
        let mut sources = Sources::default();
        let file = sources.add(SourceFile { path: "x".into(), folder: String::new(), text: text.to_owned() });
        match parse(file, text) {
            Ok(node) => format!("{:?}", node.kind),
            Err(problems) => problems
                .iter()
                .map(|p| format!("{} {}", sources.place(p.labels[0].span), p.message))
                .collect::<Vec<_>>()
                .join("\n"),
        }
    }

    #[test]
    fn every_duplicate_key_is_reported() {
        assert_eq!(
            check("a: 1\nb: {c: 1, c: 2}\na: 3\n"),
            "x:2:11 the key `c` is here twice\nx:3:1 the key `a` is here twice"
        );
    }

    #[test]
    fn a_merge_key_is_no_duplicate() {
        assert!(check("x: &x {a: 1, b: 2}\ny: {<<: *x, a: 3}\n").starts_with("Map"));
    }

    #[test]
    fn hostile_yaml_is_refused() {
        let deep = "[".repeat(200) + &"]".repeat(200);
        assert!(check(&deep).contains("nests deeper"), "{}", check(&deep));
        let mut bomb = String::from("a0: &a0 [x,x,x,x,x,x,x,x,x]\n");
        for level in 1..9 {
            let previous = format!("*a{},", level - 1).repeat(9);
            bomb += &format!("a{level}: &a{level} [{}]\n", previous.trim_end_matches(','));
        }
        assert!(check(&bomb).contains("too much"), "{}", check(&bomb));
        assert!(check("a: \0b\n").contains("NUL"), "{}", check("a: \0b\n"));
        assert!(check(&"a".repeat(MAX_FILE + 1)).contains("larger than norn reads"));
        assert!(check("a: 1\n---\nb: 2\n").contains("more than one YAML document"));
    }
}
