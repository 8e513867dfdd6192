//! What a project looks like from outside: what runs, what answers, what lies there, what is known.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};

use norn::provider::machine;
use norn::secret::Secret;
use norn::state::postgres::PostgresStore;
use norn::state::postgres::address::ServerUrl;
use norn::state::sqlite::SqliteStore;
use norn::state::{Held, Scope, Snapshot, Store};

use crate::postgres_server::{Database, Server, server};
use crate::support::{Sandbox, get};

/// A kind of store that the matrix runs on.
#[derive(Debug)]
pub struct Kind {
    pub name: &'static str,
    /// Whether it is reached by a connection that can be cut.
    pub connected: bool,
    /// Whether it can be had here.
    pub there: fn() -> bool,
    /// A database for one project, where norn does not make its store itself.
    pub database: fn() -> Option<Lent>,
    /// The sandbox's store.
    pub open: fn(&Sandbox) -> Arc<dyn Store>,
}

/// The stores of the matrix.
pub static KINDS: [Kind; 2] = [SQLITE, POSTGRES];

const SQLITE: Kind = Kind {
    name: "SQLite",
    connected: false,
    there: || true,
    database: || None,
    open: |sandbox| {
        let store = SqliteStore::open(&sandbox.path(".norn/state.db"), scope());
        Arc::new(store.expect("a path that is there"))
    },
};

const POSTGRES: Kind = Kind {
    name: "PostgreSQL",
    connected: true,
    there: || server(MATRIX).is_some(),
    database: || Some(Lent::new(server(MATRIX).expect("without a server there is no case"))),
    open: |sandbox| {
        let url = ServerUrl::parse(&Secret::new(sandbox.env[VARIABLE].as_str()), &|_| None);
        Arc::new(PostgresStore::new(url.expect("it is a URL"), scope()))
    },
};

const MATRIX: &str = "the crash matrix on PostgreSQL";

/// What names a database to norn.
pub const VARIABLE: &str = "NORN_STATE_URL";

/// An empty database. Making one takes longer than a case, so it is emptied and lent again.
pub struct Lent(Option<Database<'static>>);

static FREE: Mutex<Vec<Database<'static>>> = Mutex::new(Vec::new());

impl Lent {
    fn new(server: &'static Server) -> Self {
        let free = FREE.lock().unwrap_or_else(PoisonError::into_inner).pop();
        Self(Some(free.unwrap_or_else(|| server.database())))
    }

    /// Without TLS, which would take half of the time.
    pub fn url(&self) -> String {
        format!("{}?sslmode=disable", self.0.as_ref().expect("it is lent until the end").url())
    }
}

impl Drop for Lent {
    fn drop(&mut self) {
        let database = self.0.take().expect("it is lent until here");
        database.sql("DROP SCHEMA public CASCADE; CREATE SCHEMA public");
        FREE.lock().unwrap_or_else(PoisonError::into_inner).push(database);
    }
}

fn scope() -> Scope {
    Scope { project: "shop".parse().expect("a name"), stage: None }
}

/// Things by what they are, and how many of each there are.
pub type World = BTreeMap<String, usize>;

/// Everything that can be seen of a project, but for what differs from run to run.
pub fn look(kind: &Kind, sandbox: &Sandbox, port: u16) -> World {
    let mut found = Vec::new();
    processes(sandbox, &mut found);
    if let Ok(answer) = get(port, "/") {
        found.push(format!("answer {answer:?}"));
    }
    files(sandbox, sandbox.dir.path(), &mut found);
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    let stored = runtime.block_on((kind.open)(sandbox).snapshot());
    match stored {
        Ok(stored) => records(&stored, &mut found),
        Err(error) => found.push(format!("a state that cannot be read: {error}")),
    }
    let folder = sandbox.dir.path().display().to_string();
    let mut world = World::new();
    for thing in found {
        let thing = without_port(&thing.replace(&folder, "DIR"), &port.to_string());
        *world.entry(thing).or_default() += 1;
    }
    world
}

/// `thing` without the port, wherever it stands as a number of its own: its digits are in a hash by chance as well.
fn without_port(thing: &str, port: &str) -> String {
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

fn processes(sandbox: &Sandbox, found: &mut Vec<String>) {
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
fn files(sandbox: &Sandbox, folder: &Path, found: &mut Vec<String>) {
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
