//! norn struck at every boundary of what it does on engines, and applied again.
//!
//! Elsewhere: the changes (`docker::struck`, `clustered::struck`), the cases of one
//! (`tests/support/matrix`). What norn does on every runtime alike is struck by `live`'s matrix, in every
//! way and on every store; here it is sampled.

use norn::state::Scope;
use norn::state::sqlite::SqliteStore;

use crate::cluster::Cluster;
use crate::engine::Engine;
use crate::matrix::world::{World, stored};
use crate::matrix::{Change, Choice, strike};
use crate::sandbox::Sandbox;

const WHAT: &str = "norn struck on a Docker engine and on Kubernetes";

/// What acts on an engine, a registry, a cluster or Cloudflare are called.
const ACTS: [&str; 24] = [
    "make an image for",
    "made an image for",
    "push the image of",
    "pushed the image of",
    "give the image",
    "gave the image",
    "remove the image",
    "removed the image",
    "make a container",
    "made a container",
    "start a container",
    "started a container",
    "stop a container",
    "stopped a container",
    "keep a container",
    "kept a container",
    "name a container",
    "named a container",
    "exchange",
    "remove a container",
    "removed a container",
    "ask to",
    "asked to",
    "claimed what",
];

const CHOICE: Choice = Choice {
    chosen: |point| ACTS.iter().any(|act| point.starts_with(act)),
    others: 20,
    faults: 2,
    late: 20,
    twice: None,
    not: Some("cut"),
    jobs: 8,
};

#[test]
fn struck_at_every_act_on_an_engine_norn_goes_on_as_if_nothing_had_happened() {
    let Some(engine) = Engine::shared(WHAT) else { return };
    let mut changes: Vec<Box<dyn Change>> = crate::docker::struck::changes(engine);
    if let Some(cluster) = Cluster::shared(WHAT) {
        changes.extend(crate::clustered::struck::changes(cluster));
    }
    strike(&changes, CHOICE).conclude("crash-matrix-engines.md");
}

/// An app that stays where another is torn down.
pub const BESIDE: &str = "  beside:
    role: worker
    runtime: process
    path: ./web
    command: [sleep, '600']
    healthcheck: {command: 'true', interval: 100ms}
";

/// One change of a shop.
pub struct Scenario<S> {
    pub name: &'static str,
    /// What stands before; nothing where there is none.
    pub before: Option<fn(&S)>,
    pub after: fn(&S),
    /// Whether the change is that `web` goes back to what stood before.
    pub back: bool,
    pub succeeds: bool,
}

impl<S> Scenario<S> {
    /// Has a shop be about to be changed; the command that does it, where it is no apply.
    pub fn prepare(&self, shop: &S, sandbox: &Sandbox) -> Option<String> {
        if let Some(before) = self.before {
            before(shop);
            sandbox.ok("apply --yes");
        }
        (self.after)(shop);
        self.back.then(|| {
            sandbox.ok("apply --yes");
            format!("rollback web --to {} --yes", sandbox.rows()[0].tag)
        })
    }
}

/// What a project's store has.
pub fn state(sandbox: &Sandbox, project: &str, found: &mut Vec<String>) {
    let scope = Scope { project: project.parse().expect("a name"), stage: None };
    match SqliteStore::open(&sandbox.path(".norn/state.db"), scope) {
        Ok(store) => stored(&store, found),
        Err(error) => found.push(format!("a state that cannot be read: {error}")),
    }
}

/// The same without what no two runs have in common: digests of images and of secrets, ids of operations.
pub fn without_ids(world: &World) -> World {
    let mut bare = World::new();
    for (thing, count) in world {
        *bare.entry(bare_of(thing)).or_default() += count;
    }
    bare
}

fn bare_of(thing: &str) -> String {
    let mut text = String::new();
    let mut word = String::new();
    for c in thing.chars().chain([' ']) {
        if c.is_ascii_alphanumeric() || c == '-' {
            word.push(c);
            continue;
        }
        text += &bare_word(&word);
        word.clear();
        text.push(c);
    }
    text.pop();
    text
}

fn bare_word(word: &str) -> String {
    let at = word.len().saturating_sub(36);
    if uuid::Uuid::try_parse(&word[at..]).is_ok() {
        return format!("{}*", &word[..at]);
    }
    let made_up = |part: &str| part.len() >= 16 && part.bytes().all(|byte| byte.is_ascii_hexdigit());
    let parts: Vec<&str> = word.split('-').map(|part| if made_up(part) { "*" } else { part }).collect();
    parts.join("-")
}
