//! What a project looks like from outside: what runs, what lies there, what is known.
//!
//! Elsewhere: what a test binary's own projects have beside that.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use norn::provider::machine;
use norn::state::{Held, Snapshot, Store, StoreError};

use crate::sandbox::Sandbox;

/// Things by what they are, and how many of each there are.
pub type World = BTreeMap<String, usize>;

/// These things, each without what is the project's own: every text of `own` becomes the word beside it.
pub fn world(found: Vec<String>, own: &[(&str, &str)]) -> World {
    let mut world = World::new();
    for thing in found {
        let thing = own.iter().fold(thing, |thing, (text, word)| thing.replace(text, word));
        *world.entry(thing).or_default() += 1;
    }
    world
}

/// What a store has.
pub fn stored(store: &dyn Store, found: &mut Vec<String>) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    let snapshot: Result<Snapshot, StoreError> = runtime.block_on(store.snapshot());
    match snapshot {
        Ok(snapshot) => records(&snapshot, found),
        Err(error) => found.push(format!("a state that cannot be read: {error}")),
    }
}

/// `thing` without the port, wherever it stands as a number of its own: its digits are in a hash by chance as well.
pub fn without_port(thing: &str, port: &str) -> String {
    let mut text = String::new();
    let mut rest = thing;
    while let Some(at) = rest.find(port) {
        let (before, after) = (&rest[..at], &rest[at + port.len()..]);
        let alone = !before.ends_with(|c: char| c.is_ascii_alphanumeric())
            && !after.starts_with(|c: char| c.is_ascii_alphanumeric());
        text.push_str(before);
        text.push_str(if alone { "PORT" } else { port });
        rest = after;
    }
    text + rest
}

/// What `found` has that `expected` has not, and the other way round.
pub struct Difference {
    pub orphans: Vec<String>,
    pub duplicates: Vec<String>,
    pub lost: Vec<String>,
}

impl Difference {
    pub fn of(found: &World, expected: &World) -> Self {
        let count = |world: &World, thing: &String| world.get(thing).copied().unwrap_or_default();
        let more = |thing: &&String| count(found, thing) > count(expected, thing);
        let (duplicates, orphans) =
            found.keys().filter(more).cloned().partition(|thing| expected.contains_key(thing));
        let lost = expected.keys().filter(|thing| count(found, thing) < count(expected, thing));
        Self { orphans, duplicates, lost: lost.cloned().collect() }
    }

    pub fn none(&self) -> bool {
        self.orphans.is_empty() && self.duplicates.is_empty() && self.lost.is_empty()
    }
}

pub fn processes(sandbox: &Sandbox, found: &mut Vec<String>) {
    for pid in sandbox.processes() {
        let read = |name| fs::read(format!("/proc/{pid}/{name}")).unwrap_or_default();
        let line = String::from_utf8_lossy(&read("cmdline")).replace('\0', " ");
        let environ = String::from_utf8_lossy(&read("environ")).into_owned();
        let variable = |name: &str| {
            environ.split('\0').find_map(|v| v.strip_prefix(name)?.strip_prefix('=')).unwrap_or_default()
        };
        if line.is_empty() {
            // It ended while it was looked at.
            continue;
        }
        found.push(match line.split_once(" supervise --app ") {
            // What it was started after is history.
            Some((_, rest)) => format!("supervisor {}", rest.split(' ').next().unwrap_or_default()),
            None => {
                let supervisor = Path::new(variable("NORN_SUPERVISOR")).file_name().unwrap_or_default();
                format!("process {line}of {} at {}", supervisor.display(), variable("VERSION"))
            }
        });
    }
}

/// All files, and what is in those of a release.
pub fn files(sandbox: &Sandbox, folder: &Path, found: &mut Vec<String>) {
    let Ok(entries) = fs::read_dir(folder) else { return };
    for entry in entries.flatten() {
        let path = entry.path();
        let shown = path.strip_prefix(sandbox.dir.path()).expect("it is below").display().to_string();
        // The test's own; the log of a step before its last attempt; SQLite's log, which a run that
        // is killed leaves to the next that writes.
        let left_out = ["home", ".norn/state.db-wal", ".norn/state.db-shm"];
        if left_out.contains(&shown.as_str()) || shown.ends_with(".old.log") {
            continue;
        }
        if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            found.push(format!("folder {shown}"));
            files(sandbox, &path, found);
            continue;
        }
        // A build that was made again says so in its log; git notes when it did what.
        let changing = shown.ends_with("kept/log") || shown.contains("/.git/");
        let release = shown.starts_with(".norn/releases") && !changing;
        found.push(match fs::read_to_string(&path) {
            Ok(text) if release => format!("file {shown} {text:?}"),
            // Migrations may run again, but none is left out.
            Ok(text) if shown == "migrated" => {
                let mut lines: Vec<&str> = text.lines().collect();
                lines.dedup();
                format!("file {shown} {lines:?}")
            }
            Ok(_) | Err(_) => format!("file {shown}"),
        });
    }
}

fn records(stored: &Snapshot, found: &mut Vec<String>) {
    for (address, record) in &stored.resources {
        let mut body = record.body.clone();
        if let Some(deployment) = body.get_mut("deployment") {
            let known = stored.deployments.iter().find(|row| Some(row.id.as_str()) == deployment.as_str());
            *deployment = known.map_or("none", |row| row.status.as_str()).into();
        }
        found.push(format!("record {address} {body} protected {}", record.protected));
    }
    // Of each app only the newest counts.
    let newest: BTreeMap<_, _> = stored.deployments.iter().map(|row| (&row.app, row)).collect();
    for (app, row) in newest {
        let status = row.status.as_str();
        found.push(format!("deployment {app} {} {} {status} {:?}", row.commit_sha, row.image_tag, row.error));
    }
    for row in stored.deployments.iter().filter(|row| !row.status.settled()) {
        found.push(format!("unsettled deployment {}", row.app));
    }
    for (app, forge) in &stored.forges {
        found.push(format!("forge {app} {} {:?}", forge.status.as_str(), forge.error));
    }
    found.extend(stored.runs.iter().map(|_| "unended run".to_owned()));
    found.extend(stored.operations.iter().map(|operation| format!("unended {}", operation.address)));
    found.extend(stored.pending.iter().map(|step| format!("unended step {}", step.step)));
    // A lock whose holder is gone keeps nobody out.
    let alive = |held: &&Held| machine::alive(&held.holder.process) != Some(false);
    let held = stored.lock.iter().filter(alive);
    found.extend(held.map(|held| format!("lock held by {}", held.holder.reason)));
}
