//! How to mend what `shape` finds: nearest names, words of other tools, examples.

use serde_json::{Map, Value};

use super::problem::{did_you_mean, near_miss};
use super::schema::{resolve, schemas};
use super::words;
use super::yaml::{Kind, Node};

/// The longest text that is repeated in a mend.
const SHORT: usize = 60;

/// Maps whose keys are the user's own names, so no key of theirs is a field.
const FREE: [&str; 5] = ["apps", "env", "secrets", "stages", "volumes"];

type Properties = Map<String, Value>;

/// What the words of a map are looked up by: the kind of map, told by its fields, else its key.
pub fn part<'a>(properties: &Properties, key: Option<&'a String>) -> &'a str {
    let has = |field: &str| properties.contains_key(field);
    match () {
        () if has("replicas") => "app",
        () if has("apps") => "project",
        () if has("required") => "secret",
        () if has("mountPath") => "volume",
        () if has("database") && has("migrations") => "database",
        () => key.map_or("", String::as_str),
    }
}

/// The help of a key that no map of this shape has.
pub fn unknown_key(key: &str, properties: &Properties, within: Option<&String>) -> String {
    let known = || properties.keys().map(String::as_str);
    let part = part(properties, within);
    if let Some(mend) = form_mend(key, part, properties) {
        return mend.into();
    }
    if let Some(near) = near_miss(key, known()) {
        return format!("did you mean `{near}`?");
    }
    if let Some(mend) = words::known_elsewhere(part, key) {
        return mend.into();
    }
    if let Some(near) = did_you_mean(key, known()) {
        return format!("did you mean `{near}`?");
    }
    if let Some(mend) = placed_elsewhere(key, part) {
        return mend;
    }
    let mut names: Vec<&str> = known().collect();
    names.sort_unstable();
    match names.as_slice() {
        [only] => format!("its only field is {only}"),
        names => format!("the fields are {}", names.join(", ")),
    }
}

/// Fields of the one form in a file of the other, and of the project in a stage.
fn form_mend(key: &str, part: &str, properties: &Properties) -> Option<&'static str> {
    let app_form = properties.contains_key("app");
    let stage = properties.contains_key("locked");
    match (part, key) {
        ("app", "apps" | "include" | "defaults" | "version") if app_form => Some(match key {
            "apps" => {
                "a file has one app (`app`) or several (`apps`): move this one under `apps`, or take them out"
            }
            "include" => "only the project form includes files: take it out, or list the apps under `apps`",
            "defaults" => "a file with one app needs no defaults: take it out",
            _ => "a file in the app form has no version: take it out",
        }),
        ("app", "core" | "target") => {
            Some("only a file in the app form (`app: NAME` at its top) has it: take it out")
        }
        ("project", "version" | "project" | "include" | "stages" | "defaultStage") if stage => {
            Some("no stage can change it: it belongs to the top of the file")
        }
        (_, "repoWeb") => Some("only a file in the app form (`app: NAME` at its top) has it: take it out"),
        _ => None,
    }
}

/// A field that is known, but in another place.
fn placed_elsewhere(key: &str, part: &str) -> Option<String> {
    let app = schemas().defs["App"]["properties"].as_object()?;
    if app.contains_key(key) {
        return Some(match part {
            "project" => {
                format!("it belongs to an app: `apps.NAME.{key}`, or `defaults.{key}` for all of them")
            }
            _ => format!("it belongs to the app itself, beside `{part}`"),
        });
    }
    let inner = |field: &Value| {
        let options = field.get("anyOf").and_then(Value::as_array).into_iter().flatten().chain([field]);
        options.into_iter().any(|option| resolve(option)["properties"].get(key).is_some())
    };
    if !["app", "project"].contains(&part) {
        return None;
    }
    let mut places = app.iter().filter(|(_, field)| inner(field)).map(|(name, _)| name);
    match (places.next(), places.next()) {
        (Some(place), None) if part == "project" => {
            Some(format!("it belongs to an app: `apps.NAME.{place}.{key}`"))
        }
        (Some(place), None) => Some(format!("it is `{place}.{key}` here")),
        _ => None,
    }
}

/// The help of a field that is missing.
pub fn missing(part: &str, field: &str, described: &str) -> String {
    match (words::example(part, field), described) {
        (Some(example), _) => format!("add `{example}`"),
        (None, "") => format!("add `{field}`"),
        (None, text) => format!("add `{field}`: {}", text.trim_end_matches('.')),
    }
}

/// The help of a value of a wrong type. `key` is the field's, `part` the map's it is in.
pub fn wrong_type(node: &Node, schema: &Value, part: &str, key: Option<&str>, wanted: &str) -> String {
    let plain = || match wanted {
        "a map" => "write its fields below it, each as `key: value`".to_owned(),
        "text" => "write one text, in quotes where it holds more than letters".to_owned(),
        _ => format!("write {wanted}"),
    };
    let Some(key) = key.filter(|_| !FREE.contains(&part)) else {
        return help_of(schema).map_or_else(plain, str::to_owned);
    };
    // A list of one is what was meant, where a list of texts is wanted.
    let texts = list_of(schema).is_some_and(|items| items["type"] == "string");
    if let (Kind::Text(text), true) = (&node.kind, texts)
        && text.len() <= SHORT
        && text.chars().all(|c| c.is_ascii_alphanumeric() || "-_./".contains(c))
    {
        return format!("write `{key}: [{text}]`");
    }
    match words::example(part, key) {
        Some(example) => format!("write it such as `{example}`"),
        None => help_of(schema).map_or_else(plain, str::to_owned),
    }
}

/// The help of a key that nothing follows.
pub fn no_value(schema: &Value, part: &str, key: Option<&str>, wanted: &str) -> String {
    let Some(key) = key else { return format!("write {wanted}, or take the entry out") };
    if let Some(example) = words::example(part, key).filter(|_| !FREE.contains(&part)) {
        return format!("write it such as `{example}`");
    }
    if let Some(help) = help_of(schema).filter(|_| part == "apps") {
        return help.to_owned();
    }
    if schema["type"] == "object" && schema.get("required").is_none() {
        return format!("write `{key}: {{}}` if there is nothing to say of it");
    }
    if schema["type"] == "string" && schema.get("format").is_none() && schema.get("minLength").is_none() {
        return format!("write `{key}: \"\"` for an empty text, or take it out");
    }
    "give it a value, or take the key out".into()
}

/// What a type says itself of a wrong value.
fn help_of(schema: &Value) -> Option<&str> {
    let options = schema.get("anyOf").and_then(Value::as_array).into_iter().flatten().chain([schema]);
    options.map(resolve).find_map(|option| option.get("x-help")?.as_str())
}

fn list_of(schema: &Value) -> Option<&Value> {
    let schema = resolve(schema);
    let options = schema.get("anyOf").and_then(Value::as_array).into_iter().flatten();
    options.filter_map(list_of).next().or_else(|| schema.get("items"))
}

/// What a schema wants, in a reader's words; `null` alone is nothing to ask for.
pub fn wanted(schema: &Value) -> String {
    let mut words = Vec::new();
    collect(schema, &mut words);
    match words.as_slice() {
        [] => "something else".into(),
        [only] => (*only).into(),
        [first @ .., last] => format!("{} or {last}", first.join(", ")),
    }
}

fn collect(schema: &Value, words: &mut Vec<&'static str>) {
    let schema = resolve(schema);
    for option in schema.get("anyOf").and_then(Value::as_array).into_iter().flatten() {
        collect(option, words);
    }
    for kind in types(schema) {
        let kinds: &[&str] = match kind {
            "object" => &["a map"],
            "array" => &["a list"],
            "string" => &["text"],
            "integer" => &["a whole number"],
            "boolean" => &["true", "false"],
            _ => &[],
        };
        for kind in kinds {
            if !words.contains(kind) {
                words.push(kind);
            }
        }
    }
}

/// The types that a schema names itself.
pub fn types(schema: &Value) -> impl Iterator<Item = &str> {
    let kind = schema.get("type");
    kind.and_then(Value::as_str)
        .into_iter()
        .chain(kind.and_then(Value::as_array).into_iter().flatten().filter_map(Value::as_str))
}
