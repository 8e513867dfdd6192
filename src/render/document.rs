//! A merged document as YAML or JSON, each value with the place where it was written.

use serde_json::{Map, Value, json};

use crate::spec::normal_path;
use crate::spec::source::Sources;
use crate::spec::yaml::{Entry, Kind, Node};

/// The document as one file in the project form beside the root says it: each app names its
/// folder from there, and what only the app form has, with which nothing is done, is left out.
pub fn portable(mut tree: Node, sources: &Sources) -> Node {
    let Kind::Map(fields) = &mut tree.kind else { return tree };
    // The stage was chosen and is merged.
    fields.retain(|field| field.key != "defaultStage");
    let Some(apps) = fields.iter_mut().find(|field| field.key == "apps") else { return tree };
    let Kind::Map(apps) = &mut apps.value.kind else { return tree };
    for app in apps {
        let home = sources.get(app.key_span.file).folder.as_str();
        let Kind::Map(fields) = &mut app.value.kind else { continue };
        fields.retain(|field| !["core", "target"].contains(&field.key.as_str()));
        let repo = fields.iter_mut().find(|field| field.key == "repo").map(|field| &mut field.value.kind);
        if let Some(Kind::Map(repo)) = repo {
            repo.retain(|field| field.key != "repoWeb");
        } else if !home.is_empty() {
            let path = fields.iter_mut().find(|field| field.key == "path");
            let written = path.as_ref().and_then(|path| path.value.scalar()).unwrap_or(".").to_owned();
            let Some(parts) = normal_path(home, &written) else { continue };
            let text = if parts.is_empty() { ".".to_owned() } else { parts.join("/") };
            match path {
                Some(path) => path.value.kind = Kind::Text(text),
                None => fields.push(Entry {
                    key: "path".into(),
                    key_span: app.key_span,
                    value: Node { span: app.key_span, kind: Kind::Text(text) },
                }),
            }
        }
    }
    tree
}

/// YAML that reads back as the same document, with `# file:line` behind every value.
pub fn yaml(tree: &Node, sources: &Sources) -> String {
    let mut lines = Vec::new();
    block(tree, 0, sources, &mut lines);
    let width = lines.iter().map(|(text, _)| text.chars().count()).filter(|w| *w <= 60).max().unwrap_or(0);
    let mut out = String::new();
    for (text, place) in lines {
        match place {
            Some(place) => {
                let pad = " ".repeat(width.saturating_sub(text.chars().count()));
                out += &format!("{text}{pad}  # {place}\n");
            }
            None => out += &format!("{text}\n"),
        }
    }
    out
}

type Line = (String, Option<String>);

fn block(node: &Node, depth: usize, sources: &Sources, lines: &mut Vec<Line>) {
    let indent = "  ".repeat(depth);
    match &node.kind {
        Kind::Map(entries) => {
            for entry in entries {
                let key = format!("{indent}{}:", quote(&entry.key));
                value(&key, &entry.value, depth, sources, lines);
            }
        }
        Kind::List(items) => {
            for item in items {
                value(&format!("{indent}-"), item, depth, sources, lines);
            }
        }
        Kind::Null | Kind::Bool(_) | Kind::Number(_) | Kind::Text(_) => {
            lines.push((format!("{indent}{}", scalar(node)), Some(place(node, sources))));
        }
    }
}

fn value(head: &str, node: &Node, depth: usize, sources: &Sources, lines: &mut Vec<Line>) {
    match &node.kind {
        Kind::Map(entries) if !entries.is_empty() => {
            lines.push((head.to_owned(), None));
            block(node, depth + 1, sources, lines);
        }
        Kind::List(items) if !items.is_empty() => {
            lines.push((head.to_owned(), None));
            block(node, depth + 1, sources, lines);
        }
        _ => lines.push((format!("{head} {}", scalar(node)), Some(place(node, sources)))),
    }
}

fn place(node: &Node, sources: &Sources) -> String {
    let (line, _) = sources.line_column(node.span);
    format!("{}:{line}", sources.get(node.span.file).path)
}

fn scalar(node: &Node) -> String {
    match &node.kind {
        Kind::Null => "null".into(),
        Kind::Bool(value) => value.to_string(),
        Kind::Number(text) => text.clone(),
        Kind::Text(text) => quote(text),
        Kind::List(_) => "[]".into(),
        Kind::Map(_) => "{}".into(),
    }
}

/// Plain where every YAML reader takes it for the same text, else as a JSON string.
fn quote(text: &str) -> String {
    let plain = text.starts_with(|c: char| c.is_ascii_alphabetic() || c == '/' || c == '.')
        && text.chars().all(|c| c.is_ascii_alphanumeric() || "-_./ ${}@+,=".contains(c))
        && !text.ends_with(' ')
        && !["true", "false", "null", "yes", "no", "on", "off", "y", "n"]
            .contains(&text.to_ascii_lowercase().as_str())
        && !text.starts_with(".inf")
        && !text.starts_with(".nan");
    let in_flow = text.contains(['{', '}', ',']);
    if plain && !in_flow {
        return text.to_owned();
    }
    // JSON lets these stand for themselves in a text, YAML does not.
    let unprintable = |c: char| c.is_control() || matches!(c, '\u{2028}' | '\u{2029}' | '\u{feff}');
    let json = Value::from(text).to_string();
    json.chars().fold(String::with_capacity(json.len()), |out, c| match unprintable(c) {
        true => out + &format!("\\u{:04x}", u32::from(c)),
        false => out + c.encode_utf8(&mut [0; 4]),
    })
}

/// `{"value": .., "sources": {"/apps/web/port": "infraspec.yaml:5"}}`, keyed by JSON pointer.
pub fn json(tree: &Node, sources: &Sources) -> String {
    let mut places = Map::new();
    let value = to_json(tree, sources, "", &mut places);
    format!("{:#}\n", json!({ "formatVersion": 1, "value": value, "sources": places }))
}

fn to_json(node: &Node, sources: &Sources, pointer: &str, places: &mut Map<String, Value>) -> Value {
    let step = |key: &str| format!("{pointer}/{}", key.replace('~', "~0").replace('/', "~1"));
    match &node.kind {
        Kind::Map(entries) => {
            let fields = entries
                .iter()
                .map(|entry| (entry.key.clone(), to_json(&entry.value, sources, &step(&entry.key), places)));
            Value::Object(fields.collect())
        }
        Kind::List(items) => Value::Array(
            items
                .iter()
                .enumerate()
                .map(|(index, item)| to_json(item, sources, &step(&index.to_string()), places))
                .collect(),
        ),
        Kind::Null | Kind::Bool(_) | Kind::Number(_) | Kind::Text(_) => {
            places.insert(pointer.to_owned(), place(node, sources).into());
            match &node.kind {
                Kind::Bool(value) => Value::Bool(*value),
                Kind::Number(text) => text
                    .parse::<i64>()
                    .map_or_else(|_| Value::String(text.clone()), |number| Value::Number(number.into())),
                Kind::Text(text) => Value::String(text.clone()),
                Kind::Null | Kind::List(_) | Kind::Map(_) => Value::Null,
            }
        }
    }
}
