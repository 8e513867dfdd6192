//! How an object that is there differs from what it is to be: field by field, of norn's own fields only.
//!
//! Invariants: pure; what others set beside norn's fields, and what the server fills in, is no drift.

use serde_json::{Map, Value};

use super::kinds::Object;
use super::refusal::MANAGER;

/// A field that is not as it is to be.
#[derive(Debug, Clone, PartialEq)]
pub struct Difference {
    /// Such as `spec.template.spec.containers[web].image`.
    pub field: String,
    /// Absent where the field is to go.
    pub wanted: Option<Value>,
    /// Absent where the field is not there.
    pub found: Option<Value>,
}

/// What differs, in the order of the wanted fields; then what norn once set and is to go.
pub fn drift(wanted: &Object, found: &Value) -> Vec<Difference> {
    let (wanted, mut differences) = (&wanted.over(found), Vec::new());
    compare("", &wanted.body, Some(found), &mut differences);
    let entries = found["metadata"]["managedFields"].as_array().into_iter().flatten();
    for entry in entries.filter(|entry| entry["manager"] == MANAGER && entry["operation"] == "Apply") {
        if let Some(fields) = entry["fieldsV1"].as_object() {
            left("", fields, &wanted.body, found, &mut differences);
        }
    }
    differences
}

fn compare(path: &str, wanted: &Value, found: Option<&Value>, differences: &mut Vec<Difference>) {
    match (wanted, found) {
        // What is in a Secret is never read back, and its name tells it.
        _ if ["apiVersion", "kind", "data"].contains(&path) => {}
        (Value::Object(fields), Some(Value::Object(there))) => {
            for (name, value) in fields {
                compare(&joined(path, name), value, there.get(name), differences);
            }
        }
        (Value::Array(items), Some(Value::Array(there))) if key(path).is_some() => {
            let key = key(path).expect("it was just asked for");
            for item in items {
                let found = there.iter().find(|other| other[key] == item[key]);
                compare(&format!("{path}[{}]", plain(&item[key])), item, found, differences);
            }
        }
        (wanted, Some(found)) if wanted == found => {}
        (wanted, Some(found)) if is_amount(path) && same_amount(wanted, found) => {}
        // The server leaves out what is empty.
        (Value::Array(items), None) if items.is_empty() => {}
        (Value::String(text), None) if text.is_empty() => {}
        (wanted, found) => differences.push(Difference {
            field: path.to_owned(),
            wanted: Some(wanted.clone()),
            found: found.cloned(),
        }),
    }
}

/// Whether a field is an amount, which the server writes in units of its own choice.
fn is_amount(path: &str) -> bool {
    is_within(path, &["limits", "requests"])
}

/// Whether a path leads to one of these names, or through it.
pub fn is_within(path: &str, names: &[&str]) -> bool {
    path.split('.').any(|part| names.contains(&part))
}

/// Whether two amounts are one, as `500000000` and `500M`.
fn same_amount(one: &Value, other: &Value) -> bool {
    let read = |value: &Value| value.as_str().and_then(amount);
    read(one).is_some_and(|amount| Some(amount) == read(other))
}

/// An amount in thousandths; none where it is too fine or too much for that.
fn amount(text: &str) -> Option<u128> {
    let (number, unit) = text.split_at(text.find(|c: char| c.is_ascii_alphabetic()).unwrap_or(text.len()));
    let thousandths = match unit {
        "m" => 1,
        "" => 1000,
        "k" | "M" | "G" | "T" | "P" => 1000 * 1000_u128.pow("kMGTP".find(unit)? as u32 + 1),
        "Ki" | "Mi" | "Gi" | "Ti" | "Pi" => 1000 * 1024_u128.pow("KMGTP".find(&unit[..1])? as u32 + 1),
        _ => return None,
    };
    number.parse::<u128>().ok()?.checked_mul(thousandths)
}

/// By which field the items of a list are told apart; none where the list is one value.
fn key(path: &str) -> Option<&'static str> {
    let list = path.rsplit('.').next().unwrap_or_default();
    match list {
        "containers" | "volumes" | "env" | "imagePullSecrets" => Some("name"),
        "volumeMounts" => Some("mountPath"),
        "ports" if path.contains("containers[") => Some("containerPort"),
        "ports" => Some("port"),
        _ => None,
    }
}

/// What norn owns (`fields`, as the server lists them) that is not wanted.
fn left(
    path: &str,
    fields: &Map<String, Value>,
    wanted: &Value,
    found: &Value,
    differences: &mut Vec<Difference>,
) {
    for (name, inner) in fields {
        let (path, wanted, found) = if let Some(name) = name.strip_prefix("f:") {
            (joined(path, name), wanted.get(name), found.get(name))
        } else if let Some(keys) = name.strip_prefix("k:").and_then(|keys| serde_json::from_str(keys).ok()) {
            let keys: Map<String, Value> = keys;
            let item = |list: &Value| -> Option<usize> {
                let matches = |item: &Value| keys.iter().all(|(name, value)| &item[name.as_str()] == value);
                list.as_array()?.iter().position(matches)
            };
            let shown = key(path).and_then(|key| keys.get(key)).map(plain).unwrap_or_default();
            let wanted_item = item(wanted).and_then(|index| wanted.get(index));
            (format!("{path}[{shown}]"), wanted_item, item(found).and_then(|index| found.get(index)))
        } else {
            continue;
        };
        let Some(found) = found else { continue };
        let inner = inner.as_object().filter(|inner| !inner.is_empty());
        match (wanted, inner) {
            (Some(wanted), Some(inner)) => left(&path, inner, wanted, found, differences),
            (Some(_), None) => {}
            // Only parts of it are norn's.
            (None, Some(inner)) if !inner.contains_key(".") => {
                left(&path, inner, &Value::Null, found, differences);
            }
            (None, Some(_) | None) => {
                differences.push(Difference { field: path, wanted: None, found: Some(found.clone()) });
            }
        }
    }
}

/// The path of a field; names with dots stand in quotes.
fn joined(path: &str, name: &str) -> String {
    let name = if name.contains(['.', '/']) { format!("\"{name}\"") } else { name.to_owned() };
    if path.is_empty() { name } else { format!("{path}.{name}") }
}

fn plain(value: &Value) -> String {
    value.as_str().map_or_else(|| value.to_string(), str::to_owned)
}
