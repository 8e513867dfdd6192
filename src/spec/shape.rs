//! Reads a tree by a schema: every unknown key, wrong value and missing field at once.
//!
//! Here: what one value may be, alone; references are parsed, and replaced where values are
//! given for them. Elsewhere: rules between fields (`check`).

use std::collections::{BTreeMap, BTreeSet};

use serde_json::{Map, Number, Value};

use super::mend::{self, types, wanted};
use super::problem::{Problem, did_you_mean};
use super::reference::{self, Part, Reference};
use super::schema::resolve as follow;
use super::source::Span;
use super::value::{self, Complaint};
use super::words;
use super::yaml::{Kind, Node};

/// What a reference stands for.
pub enum Lookup {
    Value(String),
    /// Absent, and why that is an error.
    Missing(Complaint),
}

/// A reference as it was met.
#[derive(Debug, Clone)]
pub struct Use {
    /// The field, such as `["apps", "web", "env", "TOKEN"]`.
    pub path: Vec<String>,
    pub span: Span,
    pub reference: Reference,
}

/// What reading gave.
pub struct Shaped {
    /// The document as JSON; where a problem is, a part is missing.
    pub value: Value,
    pub problems: Vec<Problem>,
    pub uses: Vec<Use>,
    /// The texts that held references, as they were spelled, by field.
    pub spelled: BTreeMap<Vec<String>, String>,
    /// Fields whose value is a stand-in: what was written is wrong, missing or not resolved.
    pub unsure: BTreeSet<Vec<String>>,
}

/// Reads `node` by `schema`. Without `lookup` references are only parsed, and a field that holds
/// one is not checked further.
pub fn read(node: &Node, schema: &Value, lookup: Option<&dyn Fn(&Use) -> Lookup>) -> Shaped {
    read_as(node, schema, lookup, true)
}

/// Only what is wrong with `node` by `schema`: its values are not made.
pub fn problems(node: &Node, schema: &Value) -> Vec<Problem> {
    read_as(node, schema, None, false).problems
}

fn read_as(
    node: &Node,
    schema: &Value,
    lookup: Option<&dyn Fn(&Use) -> Lookup>,
    keeps_values: bool,
) -> Shaped {
    let mut reader = Reader {
        lookup,
        keeps_values,
        path: Vec::new(),
        out: Shaped {
            value: Value::Null,
            problems: Vec::new(),
            uses: Vec::new(),
            spelled: BTreeMap::new(),
            unsure: BTreeSet::new(),
        },
    };
    let owner = Owner { field: "", entry: false, part: "", span: node.span };
    reader.out.value = reader.node(node, schema, &owner, false).unwrap_or(Value::Null);
    reader.out
}

/// What a value belongs to, for messages.
struct Owner<'a> {
    /// The field, empty for the file itself.
    field: &'a str,
    /// Whether the value is an entry of the field's list.
    entry: bool,
    /// What the words of the map around it are looked up by.
    part: &'a str,
    span: Span,
}

impl Owner<'_> {
    fn name(&self) -> String {
        match (self.field, self.entry) {
            ("", _) => "the file".into(),
            (field, true) => format!("an entry of `{field}`"),
            (field, false) => format!("`{field}`"),
        }
    }

    fn key(&self) -> Option<&str> {
        Some(self.field).filter(|field| !self.entry && !field.is_empty())
    }
}

struct Reader<'a> {
    lookup: Option<&'a dyn Fn(&Use) -> Lookup>,
    keeps_values: bool,
    path: Vec<String>,
    out: Shaped,
}

impl Reader<'_> {
    /// `command` says that the text belongs to a shell, which reads `$` itself.
    fn node(&mut self, node: &Node, schema: &Value, owner: &Owner, command: bool) -> Option<Value> {
        let schema = follow(schema);
        let command = command || schema.get("x-command").is_some();
        if let Some(options) = schema.get("anyOf").and_then(Value::as_array) {
            return match options.iter().find(|option| takes(option, node)) {
                Some(option) => self.node(node, option, owner, command),
                // With one kind of value to choose, that kind says best what is wrong.
                None => {
                    match options.iter().filter(|option| option["type"] != "null").collect::<Vec<_>>()[..] {
                        [only] => self.node(node, only, owner, command),
                        _ => self.mismatch(node, schema, owner),
                    }
                }
            };
        }
        if matches!(node.kind, Kind::Null) {
            if types(schema).any(|t| t == "null") {
                return Some(Value::Null);
            }
            let wanted = wanted(schema);
            return self.fail(
                Problem::error("missing-value", format!("{} has no value, it wants {wanted}", owner.name()))
                    .at(owner.span, "nothing follows")
                    .help(mend::no_value(schema, owner.part, owner.key(), &wanted)),
            );
        }
        match &node.kind {
            Kind::Map(_) if types(schema).any(|t| t == "object") => self.map(node, schema, owner),
            Kind::List(items) if types(schema).any(|t| t == "array") => {
                self.list(items, schema, owner, command)
            }
            Kind::Bool(_) | Kind::Number(_) | Kind::Text(_) => self.leaf(node, schema, owner, command),
            _ => self.mismatch(node, schema, owner),
        }
    }

    fn map(&mut self, node: &Node, schema: &Value, owner: &Owner) -> Option<Value> {
        let entries = node.map().expect("the caller saw a map");
        let properties = schema.get("properties").and_then(Value::as_object);
        let within = self.path.last().cloned();
        let part = match properties {
            Some(properties) => mend::part(properties, within.as_ref()),
            None => within.as_deref().unwrap_or_default(),
        };
        let mut out = Map::new();
        for entry in entries {
            let inner = match properties.and_then(|p| p.get(&entry.key)) {
                Some(inner) => inner,
                None => match self.free_key(&entry.key, entry.key_span, schema, properties) {
                    Some(inner) => inner,
                    None => continue,
                },
            };
            self.path.push(entry.key.clone());
            let owner = Owner { field: &entry.key, entry: false, part, span: entry.key_span };
            let value = self.node(&entry.value, inner, &owner, false).or_else(|| {
                self.out.unsure.insert(self.path.clone());
                stand_in(inner, "")
            });
            if self.keeps_values {
                out.extend(value.map(|value| (entry.key.clone(), value)));
            }
            self.path.pop();
        }
        for field in schema.get("required").and_then(Value::as_array).into_iter().flatten() {
            let field = field.as_str().expect("`required` lists names");
            if node.entry(field).is_none() {
                self.path.push(field.to_owned());
                self.out.unsure.insert(self.path.clone());
                self.path.pop();
                let stand_in = properties.and_then(|p| stand_in(&p[field], ""));
                out.extend(stand_in.map(|value| (field.to_owned(), value)));
                let described = properties.and_then(|p| p[field]["description"].as_str()).unwrap_or_default();
                self.out.problems.push(
                    Problem::error("missing-field", format!("{} has no `{field}`", owner.name()))
                        .at(owner.span, format!("`{field}` is missing"))
                        .help(mend::missing(part, field, described)),
                );
            }
        }
        Some(Value::Object(out))
    }

    /// The schema of a key that is no property: a map's free key, or an unknown one.
    fn free_key<'s>(
        &mut self,
        key: &str,
        span: Span,
        schema: &'s Value,
        properties: Option<&Map<String, Value>>,
    ) -> Option<&'s Value> {
        if let Some((pattern, inner)) =
            schema.get("patternProperties").and_then(Value::as_object).and_then(|p| p.iter().next())
        {
            // Two kinds of keys are free: names, and variables of the environment.
            let format = if pattern.contains("A-Z") { "env-name" } else { "label" };
            return match value::check(format, key) {
                Ok(()) => Some(inner),
                Err(complaint) => {
                    self.fail(
                        Problem::error("bad-name", complaint.message)
                            .at(span, "this name")
                            .help(complaint.help),
                    );
                    None
                }
            };
        }
        match schema.get("additionalProperties") {
            Some(inner @ Value::Object(_)) => Some(inner),
            Some(Value::Bool(false)) => {
                let within = self.path.last().map_or("the top level".to_owned(), |key| format!("`{key}`"));
                let none = Map::new();
                let problem = Problem::error("unknown-key", format!("there is no field `{key}` in {within}"))
                    .at(span, "unknown")
                    .help(mend::unknown_key(key, properties.unwrap_or(&none), self.path.last()));
                self.fail(problem);
                None
            }
            _ => None,
        }
    }

    fn list(&mut self, items: &[Node], schema: &Value, owner: &Owner, command: bool) -> Option<Value> {
        if items.is_empty() && schema.get("minItems").is_some() {
            return self.fail(
                Problem::error("empty", format!("{} is an empty list", owner.name()))
                    .at(owner.span, "nothing in it")
                    .help("list the program and its arguments, such as [\"./app\", \"--verbose\"]"),
            );
        }
        let inner = schema.get("items").unwrap_or(&Value::Null);
        let mut out = Vec::with_capacity(items.len());
        for (index, item) in items.iter().enumerate() {
            self.path.push(index.to_string());
            let owner = Owner { field: owner.field, entry: true, part: owner.part, span: item.span };
            out.push(self.node(item, inner, &owner, command));
            self.path.pop();
        }
        out.into_iter().collect::<Option<Vec<_>>>().map(Value::Array)
    }

    fn leaf(&mut self, node: &Node, schema: &Value, owner: &Owner, command: bool) -> Option<Value> {
        let Some(text) = node.scalar() else {
            return self.mismatch(node, schema, owner);
        };
        if command || !text.contains('$') || !matches!(node.kind, Kind::Text(_)) {
            return self.scalar(node, text, schema, owner);
        }
        let parts = match reference::parse(text) {
            Ok(parts) => parts,
            Err(complaint) => return self.complain("bad-reference", node.span, complaint),
        };
        let mut resolved = String::new();
        let mut complete = true;
        let mut referred = false;
        for part in parts {
            match part {
                Part::Text(text) => resolved.push_str(&text),
                Part::Reference(reference) => {
                    referred = true;
                    let used = Use { path: self.path.clone(), span: node.span, reference };
                    match self.lookup.map(|lookup| lookup(&used)) {
                        Some(Lookup::Value(value)) => resolved.push_str(&value),
                        Some(Lookup::Missing(complaint)) => {
                            self.complain("missing-reference", node.span, complaint);
                            complete = false;
                        }
                        None => complete = false,
                    }
                    self.out.uses.push(used);
                }
            }
        }
        if referred {
            self.out.spelled.insert(self.path.clone(), text.to_owned());
        }
        if !complete {
            self.out.unsure.insert(self.path.clone());
            return stand_in(schema, text);
        }
        if !referred {
            return self.scalar(node, &resolved, schema, owner);
        }
        // What a reference gave is spelled as text, but may be the number or switch that is wanted.
        let kind = match types(schema).find(|t| *t != "null") {
            Some("integer" | "number") if resolved.parse::<f64>().is_ok() => Kind::Number(resolved.clone()),
            Some("boolean") if resolved == "true" || resolved == "false" => Kind::Bool(resolved == "true"),
            // The value itself is not shown: it may be one that nobody should read.
            Some("integer" | "number" | "boolean") => {
                let wanted = wanted(schema);
                let message = format!("{} wants {wanted}, which the reference does not give", owner.name());
                let problem = Problem::error("wrong-type", message).at(node.span, "gives something else");
                return self.fail(problem.help("check the variable's value, and the default behind `:-`"));
            }
            _ => Kind::Text(resolved.clone()),
        };
        self.scalar(&Node { span: node.span, kind }, &resolved, schema, owner)
    }

    fn scalar(&mut self, node: &Node, text: &str, schema: &Value, owner: &Owner) -> Option<Value> {
        match types(schema).find(|t| *t != "null") {
            Some("string") => self.text(node, text, schema, owner),
            Some("integer") => self.integer(node, text, schema, owner),
            Some("boolean") => match node.kind {
                Kind::Bool(value) => Some(Value::Bool(value)),
                _ => {
                    let help = match text.to_ascii_lowercase().as_str() {
                        "yes" | "on" | "y" | "true" | "1" => "write true, without quotes",
                        "no" | "off" | "n" | "false" | "0" => "write false, without quotes",
                        _ => "write true or false, without quotes",
                    };
                    let problem = self.wrong(node, "true or false", owner).help(help);
                    self.fail(problem)
                }
            },
            _ => self.mismatch(node, schema, owner),
        }
    }

    fn text(&mut self, node: &Node, text: &str, schema: &Value, owner: &Owner) -> Option<Value> {
        if let Some(choices) = schema.get("enum").and_then(Value::as_array) {
            let choices: Vec<&str> = choices.iter().filter_map(Value::as_str).collect();
            if !choices.contains(&text) {
                let theirs = owner.key().and_then(|key| words::value_elsewhere(key, text));
                let help = match theirs.or_else(|| did_you_mean(text, choices.iter().copied())) {
                    Some(near) => format!("did you mean `{near}`?"),
                    None => format!("choose one of {}", choices.join(", ")),
                };
                return self.fail(
                    Problem::error("unknown-value", format!("{} cannot be `{text}`", owner.name()))
                        .at(node.span, "unknown")
                        .help(help),
                );
            }
        }
        if schema.get("minLength").is_some() && text.trim().is_empty() {
            return self.fail(
                Problem::error("empty", format!("{} is empty", owner.name()))
                    .at(node.span, "nothing in it")
                    .help("give it a value, or take the key out"),
            );
        }
        if text.contains('\0') {
            return self.fail(
                Problem::error("bad-value", format!("{} holds a NUL byte", owner.name()))
                    .at(node.span, "in this text")
                    .help("take the NUL out: no environment and no file name can hold one"),
            );
        }
        let format = schema.get("format").and_then(Value::as_str).unwrap_or_default();
        match value::check(format, text) {
            Ok(()) if self.keeps_values => Some(Value::String(text.to_owned())),
            Ok(()) => Some(Value::Null),
            Err(complaint) => self.complain("bad-value", node.span, complaint),
        }
    }

    fn integer(&mut self, node: &Node, text: &str, schema: &Value, owner: &Owner) -> Option<Value> {
        let bound = |key: &str| schema.get(key).and_then(Value::as_i64);
        let (low, high) = (bound("minimum"), bound("maximum"));
        let digits = text.strip_prefix('-').unwrap_or(text);
        let whole = !digits.is_empty() && digits.chars().all(|c| c.is_ascii_digit());
        let number = match (&node.kind, text.parse::<i64>()) {
            (Kind::Number(_), Ok(number)) => number,
            // More digits than any bound has.
            (Kind::Number(_), Err(_)) if whole => i64::MAX,
            (Kind::Number(_), Err(_)) => {
                let message = format!("{} wants a whole number, not {text}", owner.name());
                let problem = Problem::error("wrong-type", message).at(node.span, "not in whole digits");
                return self.fail(problem.help(whole_number_help(owner)));
            }
            (_, Ok(number)) => {
                let problem = self.wrong(node, "a whole number", owner);
                return self.fail(problem.help(format!("write {number} without quotes")));
            }
            (_, Err(_)) => {
                let problem = self.wrong(node, "a whole number", owner);
                let first = text.split(':').next().filter(|_| owner.key() == Some("port"));
                return self.fail(problem.help(match first.and_then(|first| first.parse::<u16>().ok()) {
                    Some(port) => format!("write the one at which clients reach it, such as {port}; the app itself listens on $PORT"),
                    None => whole_number_help(owner),
                }));
            }
        };
        if low.is_some_and(|low| number < low) || high.is_some_and(|high| number > high) {
            let range = match (low, high) {
                (Some(low), Some(high)) if low == high => format!("write {low}: there is no other"),
                (Some(low), Some(high)) => format!("choose a number from {low} to {high}"),
                (Some(low), None) => format!("choose {low} or more"),
                (None, _) => format!("choose {} or less", high.unwrap_or(i64::MAX)),
            };
            return self.fail(
                Problem::error("out-of-range", format!("{} cannot be {text}", owner.name()))
                    .at(node.span, "out of range")
                    .help(range),
            );
        }
        Some(Value::Number(Number::from(number)))
    }

    fn wrong(&self, node: &Node, wanted: &str, owner: &Owner) -> Problem {
        let span = match node.kind {
            // A container has no span of its own worth marking.
            Kind::Map(_) | Kind::List(_) => owner.span,
            _ => node.span,
        };
        Problem::error("wrong-type", format!("{} wants {wanted}, not {}", owner.name(), node.what()))
            .at(span, format!("this is {}", node.what()))
    }

    fn mismatch(&mut self, node: &Node, schema: &Value, owner: &Owner) -> Option<Value> {
        let wanted = wanted(schema);
        let help = mend::wrong_type(node, schema, owner.part, owner.key(), &wanted);
        self.fail(self.wrong(node, &wanted, owner).help(help))
    }

    fn complain(&mut self, code: &'static str, span: Span, complaint: Complaint) -> Option<Value> {
        self.fail(Problem::error(code, complaint.message).at(span, "here").help(complaint.help))
    }

    fn fail(&mut self, problem: Problem) -> Option<Value> {
        self.out.problems.push(problem);
        None
    }
}

/// A value of the wanted type for a field that has none of its own, so that what stands beside it
/// can be read. Rules that look at such a field ask `unsure` first.
fn stand_in(schema: &Value, text: &str) -> Option<Value> {
    let schema = follow(schema);
    if let Some(options) = schema.get("anyOf").and_then(Value::as_array) {
        return options.iter().find_map(|option| stand_in(option, text));
    }
    let format = schema.get("format").and_then(Value::as_str).unwrap_or_default();
    match types(schema).find(|t| *t != "null")? {
        "string" => {
            if let Some(choices) = schema.get("enum").and_then(Value::as_array) {
                return choices.first().cloned();
            }
            let examples =
                [text, "x", "1", "/", "@daily", "UTC", "::1", "x/x", "00000000-0000-0000-0000-000000000000"];
            let fits = examples.into_iter().find(|example| value::check(format, example).is_ok());
            fits.map(|example| Value::String(example.to_owned()))
        }
        "integer" => Some(schema.get("minimum").cloned().unwrap_or_else(|| Value::from(1))),
        "boolean" => Some(Value::Bool(false)),
        _ => None,
    }
}

fn whole_number_help(owner: &Owner) -> String {
    let example = owner.key().and_then(|key| words::example(owner.part, key));
    example.map_or_else(
        || "write it in digits, such as 3".into(),
        |e| format!("write it in digits, such as `{e}`"),
    )
}

/// Whether an option of an `anyOf` is of the node's type.
fn takes(option: &Value, node: &Node) -> bool {
    let option = follow(option);
    if let Some(options) = option.get("anyOf").and_then(Value::as_array) {
        return options.iter().any(|option| takes(option, node));
    }
    types(option).any(|kind| match (kind, &node.kind) {
        ("null", Kind::Null)
        | ("object", Kind::Map(_))
        | ("array", Kind::List(_))
        | ("boolean", Kind::Bool(_))
        | ("string" | "integer", Kind::Number(_))
        | ("string", Kind::Text(_)) => true,
        ("integer" | "boolean", Kind::Text(text)) => reference::present(text),
        _ => false,
    })
}
