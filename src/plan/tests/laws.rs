//! What holds for every plan, on specs made by chance.

use std::collections::BTreeMap;

use super::case::read;
use super::world::World;
use crate::desired::Desired;
use crate::plan::{Action, Facts, Operation, Options, Plan, plan};

/// A small generator of numbers (SplitMix64): the same seed gives the same specs.
pub struct Chance(pub u64);

impl Chance {
    pub fn below(&mut self, n: usize) -> usize {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        usize::try_from((z ^ (z >> 31)) % n as u64).expect("it is below a usize")
    }

    pub fn one<'a>(&mut self, of: &[&'a str]) -> &'a str {
        of[self.below(of.len())]
    }

    fn shuffle<T>(&mut self, items: &mut [T]) {
        for last in (1..items.len()).rev() {
            items.swap(last, self.below(last + 1));
        }
    }
}

const NAMES: [&str; 6] = ["api", "mail", "shop", "web", "wiki", "work"];

/// The apps of a spec by chance. `was` names come from apps that are not in it.
pub fn apps(chance: &mut Chance) -> Vec<(String, String)> {
    let mut names: Vec<&str> = NAMES.into_iter().filter(|_| chance.below(3) > 0).collect();
    if names.is_empty() {
        names.push("web");
    }
    let gone: Vec<&str> = NAMES.into_iter().filter(|name| !names.contains(name)).collect();
    let heir = chance.below(names.len());
    let mut ports: Vec<usize> = (8080..8090).collect();
    chance.shuffle(&mut ports);
    let mut out = Vec::new();
    for (index, name) in names.iter().enumerate() {
        let mut text = String::new();
        let mut line = |field: String| text += &format!("    {field}\n");
        line(format!("path: ./{}", chance.one(&["a", "b"])));
        line(format!("command: {}", chance.one(&["./run", "./run --fast", "[./run, --exec]"])));
        if chance.below(2) == 0 {
            line("role: webserver".into());
            line(format!("port: {}", ports[index]));
            let front = chance.one(&["front: false", "front: true", "front: {bind: 0.0.0.0}"]);
            line(front.into());
            let most = if front == "front: false" { 2 } else { 3 };
            line(format!("replicas: {}", chance.below(most)));
        } else {
            line("role: worker".into());
            line(format!("replicas: {}", chance.below(3)));
        }
        line(format!("protected: {}", chance.one(&["true", "false"])));
        line(format!("build: {{command: {}}}", chance.one(&["make", "make all"])));
        line(format!("env: {{LOG: {}, TOKEN: \"${{TOKEN}}\"}}", chance.one(&["info", "debug"])));
        // Only what stands before an app, so that there are no loops.
        if index > 0 && chance.below(2) == 0 {
            line(format!("dependsOn: [{}]", names[chance.below(index)]));
        }
        if index == heir && !gone.is_empty() && chance.below(2) == 0 {
            line(format!("was: [{}]", gone[0]));
        }
        out.push(((*name).to_owned(), text));
    }
    out
}

pub fn desired(apps: &[(String, String)], token: &str) -> Desired {
    let mut text = "version: 1\nproject: shop\napps:\n".to_owned();
    for (name, app) in apps {
        text += &format!("  {name}:\n{app}");
    }
    let files = BTreeMap::from([("infraspec.yaml".to_owned(), text.clone())]);
    let env = BTreeMap::from([("TOKEN".to_owned(), token.to_owned())]);
    read(&files, None, &env).unwrap_or_else(|problems| panic!("{problems}\n{text}"))
}

pub fn of(world: &World, desired: &Desired) -> Plan {
    let facts: Facts = world.facts(desired, "");
    plan(desired, &world.snapshot, &facts, &Options::default())
}

/// What waits comes after what it waits for.
fn in_order(operations: &[Operation]) {
    for (index, operation) in operations.iter().enumerate() {
        for wait in &operation.waits {
            let other = operations.iter().position(|other| other.address == wait.of);
            let other = other.unwrap_or_else(|| panic!("{} waits for nothing", operation.address));
            assert!(other < index, "{} stands before {}", operation.address, wait.of);
        }
    }
}

#[test]
fn plans_are_stable_ordered_and_final() {
    for seed in 0..150 {
        let mut chance = Chance(seed);
        let old = desired(&apps(&mut chance), "one");
        let mut world = World::default();
        let first = of(&world, &old);
        in_order(&first.operations);
        world.walk(&first.operations, &old);
        assert!(of(&world, &old).is_empty(), "seed {seed}: applied, and there is more to do");

        let mut wanted = apps(&mut chance);
        let new = desired(&wanted, chance.one(&["one", "two"]));
        let mut second = of(&world, &new);
        in_order(&second.operations);

        chance.shuffle(&mut wanted);
        let mut shuffled = desired(&wanted, "two");
        shuffled.values = new.values.clone();
        assert_eq!(second, of(&world, &shuffled), "seed {seed}: the order in the spec changes the plan");

        // What is blocked is for the user to mend; the rest is done, and then is as wanted.
        let blocked: Vec<_> = second.blocked().map(|operation| operation.address.name.clone()).collect();
        second.operations.retain(|operation| !blocked.contains(&operation.address.name));
        world.walk(&second.operations, &new);
        let rest = of(&world, &new);
        assert!(
            rest.operations.iter().all(|operation| blocked.contains(&operation.address.name)),
            "seed {seed}: applied, and there is more to do: {:?}",
            rest.operations
        );
    }
}

#[test]
fn everything_is_destroyed_once() {
    for seed in 0..60 {
        let wanted = desired(&apps(&mut Chance(seed)), "one");
        let mut world = World::default();
        let first = of(&world, &wanted);
        world.walk(&first.operations, &wanted);
        let facts = world.facts(&wanted, "");
        let options = Options { destroy: true, ..Options::default() };
        let all = plan(&wanted, &world.snapshot, &facts, &options);
        in_order(&all.operations);
        assert_eq!(all.operations.len(), wanted.apps.len(), "seed {seed}");
        assert!(all.operations.iter().all(|operation| operation.action == Action::Teardown));
        let protected = wanted.apps.values().filter(|app| app.protected).count();
        assert_eq!(all.blocked().count(), protected, "seed {seed}");
        world.walk(&all.operations, &wanted);
        assert!(plan(&wanted, &world.snapshot, &facts, &options).is_empty(), "seed {seed}");
    }
}

/// A plan of `apps` apps with long definitions, in every output.
#[test]
fn a_comment_stays_below_what_github_takes() {
    let scope = crate::state::Scope { project: "shop".parse().expect("a project"), stage: None };
    let state = ".norn/state.db".into();
    let header = crate::render::plan::Header { scope: &scope, state, resources: 0, saved: None };
    for (apps, replicas, text) in [(1_000, 1, 5), (40, 2, 9_000), (1, 3, 400_000)] {
        let spec = |replicas: usize, text: &str| {
            let app = |n: usize| {
                let name = format!("app-{n}");
                let body = format!(
                    "    role: worker\n    path: .\n    command: ./run\n    replicas: {replicas}\n    env: {{A: \"{text}\"}}\n"
                );
                (name, body)
            };
            desired(&(0..apps).map(app).collect::<Vec<_>>(), "one")
        };
        let old = spec(9, "");
        let mut world = World::default();
        let first = of(&world, &old);
        world.walk(&first.operations, &old);
        let new = spec(replicas, &"<é`|@ ".repeat(text / 5));
        let mut facts = world.facts(&new, "");
        facts.running.values_mut().for_each(|running| *running = crate::plan::Running::Nothing);
        let all = plan(&new, &world.snapshot, &facts, &Options::default());
        assert_eq!(all.operations.len(), apps);
        let comment = crate::render::markdown::plan(&header, &all);
        assert!(comment.len() < 65_000, "{apps} apps make {} bytes", comment.len());
        assert!(comment.starts_with(&format!("### norn plan: {apps} to update\n")));
        let cut = comment.contains("which the log of the plan shows");
        assert!(cut, "what does not fit is said, for {apps} apps:\n{}", &comment[..2_000.min(comment.len())]);
        assert_eq!(comment.matches("```diff").count(), comment.matches("</details>").count());
        let human = crate::render::plan::human(&header, &all, false);
        assert!(human.contains("app-0"), "the log shows all");
    }
}
