//! Merging trees: a stage over the project, an app over `defaults` (RFC 7396). Every value keeps
//! the place where it was written.

use std::collections::BTreeMap;

use super::problem::Problem;
use super::source::Span;
use super::yaml::{Entry, Kind, Node};

/// `patch` over `base`: maps merge by key, null takes a key out, all else replaces.
pub fn patch(base: Node, patch: &Node, problems: &mut Vec<Problem>) -> Node {
    let Kind::Map(changes) = &patch.kind else {
        warn_of_dropped(&base, patch, problems);
        return patch.clone();
    };
    let (span, mut entries) = match base {
        Node { span, kind: Kind::Map(entries) } => (span, entries),
        replaced => {
            warn_of_dropped(&replaced, patch, problems);
            (patch.span, Vec::new())
        }
    };
    for change in changes {
        let at = entries.iter().position(|entry| entry.key == change.key);
        match (at, &change.value.kind) {
            (Some(at), Kind::Null) => {
                entries.remove(at);
            }
            (None, Kind::Null) => {}
            (Some(at), _) => {
                let base = std::mem::replace(&mut entries[at].value, Node { span, kind: Kind::Null });
                // A map is added to, so its key stays where it was; what is replaced moves.
                if base.map().is_none() || change.value.map().is_none() {
                    entries[at].key_span = change.key_span;
                }
                entries[at].value = self::patch(base, &change.value, problems);
            }
            (None, _) => {
                // Nulls inside what is new have nothing to take out.
                let empty = Node { span: change.value.span, kind: Kind::Map(Vec::new()) };
                let value = match change.value.kind {
                    Kind::Map(_) => self::patch(empty, &change.value, problems),
                    _ => change.value.clone(),
                };
                entries.push(Entry { value, ..change.clone() });
            }
        }
    }
    Node { span, kind: Kind::Map(entries) }
}

/// A list is replaced whole, which surprises who meant to add to it.
fn warn_of_dropped(base: &Node, patch: &Node, problems: &mut Vec<Problem>) {
    let Kind::List(old) = &base.kind else { return };
    let kept = |item: &Node| match (&patch.kind, item.scalar()) {
        (Kind::List(new), Some(text)) => new.iter().any(|other| other.scalar() == Some(text)),
        (Kind::Map(new), Some(text)) => new.iter().any(|entry| entry.key == text),
        _ => false,
    };
    let dropped: Vec<&Node> = old.iter().filter(|item| !kept(item)).collect();
    let Some(first) = dropped.first() else { return };
    let names: Vec<&str> = dropped.iter().filter_map(|item| item.scalar()).collect();
    let what = if names.is_empty() { format!("{} entries", dropped.len()) } else { names.join(", ") };
    problems.push(
        Problem::warning("dropped-entries", format!("the stage replaces this list and drops {what}"))
            .at(patch.span, "the list as the stage has it")
            .at(first.span, "dropped")
            .help("a patch replaces lists whole: repeat what is to stay, or write `secrets` and `volumes` as maps, which merge"),
    );
}

/// A setting's key, and the apps with a value of their own and where they have it.
type Shadowed<'a> = (&'a str, Vec<(&'a str, Span)>);

/// Warns of what a stage sets for all apps, but apps have a value of their own.
pub fn warn_of_shadowed(tree: &Node, stage: &Node, problems: &mut Vec<Problem>) {
    let runtime = stage.entry("runtime");
    let defaults = stage.get("defaults").and_then(Node::map).unwrap_or_default();
    let mut found = BTreeMap::new();
    for app in tree.get("apps").and_then(Node::map).unwrap_or_default() {
        for setting in defaults.iter().chain(runtime) {
            shadowed(&app.key, setting, &app.value, &mut found);
        }
    }
    for (span, (key, apps)) in found {
        let (first, own) = apps[0];
        let (whom, place) = match apps.len() {
            1 => (format!("app `{first}`"), format!("`apps.{first}`")),
            2 => (format!("apps `{first}` and `{}`", apps[1].0), "`apps`".to_owned()),
            more => (format!("app `{first}` and {} others", more - 1), "`apps`".to_owned()),
        };
        problems.push(
            Problem::warning("shadowed", format!("what the stage sets for `{key}` does not reach {whom}"))
                .at(span, "set for every app here")
                .at(own, format!("`{first}` has its own"))
                .help(format!("set it under {place} in the stage, or take the app's own out")),
        );
    }
}

fn shadowed<'a>(app: &'a str, setting: &'a Entry, owner: &Node, found: &mut BTreeMap<Span, Shadowed<'a>>) {
    let Some(own) = owner.entry(&setting.key) else { return };
    if let (Some(inner), Some(_)) = (setting.value.map(), own.value.map()) {
        inner.iter().for_each(|setting| shadowed(app, setting, &own.value, found));
    } else if own.value.kind != setting.value.kind {
        found
            .entry(setting.key_span)
            .or_insert_with(|| (&setting.key, Vec::new()))
            .1
            .push((app, own.key_span));
    }
}
