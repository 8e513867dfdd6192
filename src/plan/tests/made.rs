//! Specs, stored states and facts made by chance.
//!
//! What is made prints much like a case of `tests/plan`, so that one that breaks a law becomes a file.

use std::collections::BTreeMap;
use std::fmt;

use proptest::collection::vec;
use proptest::option;
use proptest::prelude::*;
use proptest::sample::{Index, select};
use proptest::test_runner::{Config, TestCaseError, TestRunner};

use super::case::read;
use super::world::World;
use crate::desired::Desired;
use crate::plan::{Facts, Options, Plan, Work, plan};
use crate::state::format::DeployV1;

const NAMES: [&str; 5] = ["api", "mail", "shop", "web", "work"];

/// Checks a law on so many cases, or on `PROPTEST_CASES`.
pub fn for_all<S: Strategy>(cases: u32, made: S, law: impl Fn(S::Value) -> Result<(), TestCaseError>) {
    let asked = std::env::var("PROPTEST_CASES").ok().and_then(|cases| cases.parse().ok());
    let config = Config { cases: asked.unwrap_or(cases), failure_persistence: None, ..Config::default() };
    TestRunner::new(config).run(&made, law).unwrap_or_else(|error| panic!("{error}"));
}

/// A spec: fields of apps by name, in an order that says nothing.
#[derive(Clone, Default)]
pub struct Spec {
    apps: Vec<(&'static str, Vec<String>)>,
    token: &'static str,
}

impl Spec {
    /// The same in another order, which `next` gives: a place below its argument.
    pub fn shuffled(&self, next: &mut dyn FnMut(usize) -> usize) -> Spec {
        let mut spec = self.clone();
        shuffle(&mut spec.apps, next);
        for (_, fields) in &mut spec.apps {
            shuffle(fields, next);
            for field in fields {
                if let Some((name, list)) = field.split_once(": {").or_else(|| field.split_once(": [")) {
                    let (open, close) = if field.ends_with('}') { ('{', '}') } else { ('[', ']') };
                    let mut items: Vec<&str> = list.trim_end_matches(close).split(", ").collect();
                    // A command's words have their order.
                    if name != "command" {
                        shuffle(&mut items, next);
                    }
                    *field = format!("{name}: {open}{}{close}", items.join(", "));
                }
            }
        }
        spec
    }

    fn text(&self) -> String {
        let mut text = "version: 1\nproject: shop\napps:\n".to_owned();
        for (name, fields) in &self.apps {
            text += &format!("  {name}:\n");
            fields.iter().for_each(|field| text += &format!("    {field}\n"));
        }
        text
    }

    pub fn desired(&self) -> Desired {
        let files = BTreeMap::from([("infraspec.yaml".to_owned(), self.text())]);
        let env = BTreeMap::from([("TOKEN".to_owned(), self.token.to_owned())]);
        read(&files, None, &env).unwrap_or_else(|problems| panic!("{problems}\n{}", self.text()))
    }
}

impl fmt::Debug for Spec {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "#! TOKEN={}\n{}", self.token, self.text())
    }
}

fn shuffle<T>(items: &mut [T], next: &mut dyn FnMut(usize) -> usize) {
    for last in (1..items.len()).rev() {
        items.swap(last, next(last + 1));
    }
}

/// What an app has whatever the others are.
#[derive(Debug, Clone)]
struct Made {
    fields: Vec<String>,
    webserver: bool,
    /// Of those before it, so that there are no loops.
    depends_on: [bool; NAMES.len()],
    refers: [bool; NAMES.len()],
    was: Option<Index>,
}

fn app() -> impl Strategy<Value = Made> {
    let field = |texts: &[&str]| select(texts.iter().map(|text| (*text).to_owned()).collect::<Vec<_>>());
    let own = (
        field(&["path: ./a", "path: ./b", "repo: {url: \"https://git.example.com/a.git\", branch: main}"]),
        field(&["command: ./run", "command: ./run --fast", "command: [./run, --exec]"]),
        field(&[
            "build: {command: make}",
            "build: {command: make all, test: make test}",
            "build: {test: make test}",
        ]),
        field(&["protected: false", "protected: true"]),
        field(&[
            "env: {LOG: info, TOKEN: \"${TOKEN}\"}",
            "env: {LOG: debug, TOKEN: \"${TOKEN}\"}",
            "env: {LOG: info}",
        ]),
    );
    let role = prop_oneof![
        (0..3u8).prop_map(|replicas| vec!["role: worker".to_owned(), format!("replicas: {replicas}")]),
        (0..2u8, field(&["front: true", "front: false"])).prop_map(|(replicas, front)| {
            vec!["role: webserver".to_owned(), format!("replicas: {replicas}"), front]
        }),
        (0..4u8, Just("front: {bind: 0.0.0.0}".to_owned())).prop_map(|(replicas, front)| {
            vec!["role: webserver".to_owned(), format!("replicas: {replicas}"), front]
        }),
    ];
    let deploy = prop_oneof![9 => Just(Vec::new()), 1 => Just(vec!["deploy: false".to_owned()])];
    let bits = || prop::array::uniform5(prop::bool::weighted(0.3));
    let was = option::weighted(0.3, any::<Index>());
    (own, role, deploy, bits(), bits(), was).prop_map(|(own, role, deploy, depends_on, refers, was)| {
        let webserver = role[0] == "role: webserver";
        let (source, command, build, protected, env) = own;
        let fields = [vec![source, command, build, protected, env], role, deploy].concat();
        Made { fields, webserver, depends_on, refers, was }
    })
}

pub fn spec() -> impl Strategy<Value = Spec> {
    let apps = prop::array::uniform5(option::weighted(0.6, app()));
    let ports = Just((8080..8085).collect::<Vec<u16>>()).prop_shuffle();
    (apps, ports, select(vec!["one", "two"])).prop_map(|(apps, ports, token)| {
        let gone: Vec<&str> =
            NAMES.iter().zip(&apps).filter(|(_, app)| app.is_none()).map(|(n, _)| *n).collect();
        let mut heirs: Vec<&str> = Vec::new();
        let mut spec = Spec { apps: Vec::new(), token };
        for (at, made) in apps.iter().enumerate() {
            let Some(made) = made else { continue };
            let mut fields = made.fields.clone();
            let before = |bits: &[bool; NAMES.len()], web: bool| {
                let there = |other: &usize| {
                    bits[*other] && apps[*other].as_ref().is_some_and(|a| a.webserver || !web)
                };
                (0..at).filter(there).map(|other| NAMES[other]).collect::<Vec<_>>()
            };
            if made.webserver {
                fields.push(format!("port: {}", ports[at]));
            }
            let depends_on = before(&made.depends_on, false);
            if !depends_on.is_empty() {
                fields.push(format!("dependsOn: [{}]", depends_on.join(", ")));
            }
            for other in before(&made.refers, true) {
                let env = fields.iter_mut().find(|field| field.starts_with("env: ")).expect("each has some");
                env.truncate(env.len() - 1);
                *env += &format!(", {}: \"${{apps.{other}.url}}\"}}", other.to_uppercase());
            }
            let free = gone.iter().filter(|old| !heirs.contains(old)).copied().collect::<Vec<_>>();
            if let Some(was) = made.was.as_ref().filter(|_| !free.is_empty()) {
                heirs.push(free[was.index(free.len())]);
                fields.push(format!("was: [{}]", free[was.index(free.len())]));
            }
            spec.apps.push((NAMES[at], fields));
        }
        // A project has an app.
        if spec.apps.is_empty() {
            let fields = ["role: worker", "path: ./a", "command: ./run", "replicas: 1"].map(str::to_owned);
            spec.apps.push(("web", fields.into()));
        }
        spec
    })
}

/// A spec where others were applied before, and what was found since.
#[derive(Clone)]
pub struct Situation {
    pub applied: Vec<Spec>,
    pub wanted: Spec,
    stored: Vec<(&'static str, &'static str)>,
    /// An operation that a run died in, and whether what it did was live.
    died: Option<(Index, bool)>,
    commits: Vec<&'static str>,
    offline: bool,
    found: Vec<(&'static str, &'static str)>,
}

impl fmt::Debug for Situation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for spec in &self.applied {
            write!(f, "\n-- applied --\n{spec:?}")?;
        }
        write!(f, "\n-- infraspec.yaml --\n{:?}", self.wanted)?;
        let lines = |lines: &[(&str, &str)]| -> String {
            lines.iter().map(|(line, app)| line.replace('@', app) + "\n").collect()
        };
        write!(f, "-- stored --\n{}died {:?}\n", lines(&self.stored), self.died)?;
        write!(f, "-- facts --\n{}commits {:?}, offline {}", lines(&self.found), self.commits, self.offline)
    }
}

pub fn situation() -> impl Strategy<Value = Situation> {
    let name = || select(&NAMES[..]);
    let stored = vec![
        "forge @ forge_failed it broke",
        "deployment @ 1 failed no\\nway",
        "deployment @ 2 failed so",
        "deployment @ 1 deployed",
        "deployment @ 2 rolled_back",
        "deployment @ 3 building",
        "unlisted @",
        "forge @ forging",
    ];
    let found = vec![
        "gone @",
        "runs @ nothing",
        "runs @ rebooted",
        "runs @ unsupervised 0",
        "runs @ unsupervised 2",
        "runs @ silent it is busy",
        "runs @ elsewhere ada@far",
        "runs @ release @:000000000000",
        "runs @ empty",
        "runs @ definition",
        "runs @ healthy 0",
    ];
    (
        vec(spec(), 0..3),
        spec(),
        vec((select(stored), name()), 0..3),
        option::weighted(0.3, any::<(Index, bool)>()),
        vec(name(), 0..3),
        prop::bool::weighted(0.1),
        vec((select(found), name()), 0..3),
    )
        .prop_map(|(applied, wanted, stored, died, commits, offline, found)| Situation {
            applied,
            wanted,
            stored,
            died,
            commits,
            offline,
            found,
        })
}

impl Situation {
    /// The world, with what was stored and what is found as lines of a case.
    pub fn world(&self) -> (World, String, String) {
        let mut world = World::default();
        for spec in &self.applied {
            world.apply(&spec.desired());
        }
        let wanted = self.wanted.desired();
        let mut stored: String =
            self.stored.iter().map(|(line, app)| line.replace('@', app) + "\n").collect();
        world.stored(&stored, &wanted);
        if let Some((index, moved)) = &self.died {
            let plan = plan(&wanted, &world.snapshot, &world.facts(&wanted, ""), &Options::default());
            let makes_records = |work: &Work| match work {
                Work::Deploy(_) => true,
                Work::Forge(work) => work.roll.is_some(),
                Work::Teardown(_) => false,
            };
            let mut can: Vec<_> = plan.operations.iter().filter(|o| makes_records(&o.work)).collect();
            // A run that renames has done so before it deploys.
            can.retain(|operation| world.snapshot.forges.contains_key(&operation.address.name));
            if !can.is_empty() {
                let how = if *moved { "moved" } else { "before" };
                let line = format!("died {} {how}\n", index.get(&can).address);
                world.stored(&line, &wanted);
                stored += &line;
            }
        }
        let mut facts = self.lasting(&wanted);
        let mut gone = Vec::new();
        for (what, app) in &self.found {
            if *what != "gone @" {
                facts += &(what.replace('@', app) + "\n");
                continue;
            }
            let address = format!("deploy/{app}").parse().expect("it is an address");
            let release = world.snapshot.resources.get(&address).and_then(|record| record.read::<DeployV1>());
            if let Some(release) = release.filter(|release| !gone.contains(&release.tag)) {
                facts += &format!("gone {}\n", release.tag);
                gone.push(release.tag);
            }
        }
        (world, stored, facts)
    }

    /// The facts that are so after an apply too.
    pub fn lasting(&self, wanted: &Desired) -> String {
        let known = |app: &&&str| wanted.apps.contains_key(&app.parse().expect("it is a name"));
        let commits = self.commits.iter().filter(known).map(|app| format!("commit {app} 2\n"));
        commits.chain(self.offline.then(|| "offline\n".to_owned())).collect()
    }
}

/// The plan where everything is found as it was left.
pub fn undisturbed(world: &World, desired: &Desired) -> Plan {
    let facts: Facts = world.facts(desired, "");
    plan(desired, &world.snapshot, &facts, &Options::default())
}
