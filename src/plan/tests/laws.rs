//! What holds for every plan, whatever the specs, the state and what is found.

use std::collections::BTreeMap;

use proptest::prelude::*;
use proptest::sample::select;

use super::case::read;
use super::made::{for_all, situation, spec, undisturbed};
use super::world::World;
use crate::address::Kind;
use crate::desired::Desired;
use crate::plan::select::Selector;
use crate::plan::{Action, Facts, Operation, Options, Plan, Selection, plan};
use crate::render;
use crate::state::{Scope, Snapshot};

fn planned(desired: &Desired, stored: &Snapshot, facts: &Facts) -> Plan {
    plan(desired, stored, facts, &Options::default())
}

/// Everything that is shown of a plan.
fn shown(plan: &Plan) -> String {
    let scope = Scope { project: "shop".parse().expect("a project"), stage: None };
    let header = render::plan::Header::usual(&scope, 0);
    let json = serde_json::to_string(&render::plan_json::document(&header, plan)).expect("it has text keys");
    [render::plan::human(&header, plan, false), json, render::markdown::plan(&header, plan)].join("\n")
}

/// What waits comes after what it waits for, and both are steps that are taken.
fn in_order(operations: &[Operation]) {
    for (index, operation) in operations.iter().enumerate() {
        let address = &operation.address;
        for wait in &operation.waits {
            let other = operations.iter().position(|other| other.address == wait.of);
            let other = other.unwrap_or_else(|| panic!("{address} waits for nothing"));
            assert!(other < index, "{address} stands before {}", wait.of);
            let has =
                |operation: &Operation, step| operation.steps.iter().any(|planned| planned.step == step);
            assert!(has(operation, wait.step), "{address} has no {:?}", wait.step);
            assert!(wait.until.is_none_or(|until| has(&operations[other], until)), "{address}: {wait:?}");
        }
    }
}

#[test]
fn what_is_applied_leaves_nothing_to_do() {
    for_all(200, situation(), |situation| {
        let wanted = situation.wanted.desired();
        let (mut world, _, facts) = situation.world();
        let facts = world.facts(&wanted, &facts);
        world.settle(&facts);
        let mut plan = planned(&wanted, &world.snapshot, &facts);
        in_order(&plan.operations);
        // What is blocked is for the user to mend; the rest is done, and then is as wanted.
        let blocked: Vec<_> = plan.blocked().map(|operation| operation.address.name.clone()).collect();
        plan.operations.retain(|operation| !blocked.contains(&operation.address.name));
        world.walk(&plan.operations, &wanted);
        let facts = world.facts(&wanted, &situation.lasting(&wanted));
        let mut rest = planned(&wanted, &world.snapshot, &facts);
        rest.operations.retain(|operation| !blocked.contains(&operation.address.name));
        prop_assert!(rest.is_empty(), "there is more to do: {:#?}", rest.operations);
        Ok(())
    });
}

#[test]
fn the_same_is_planned_whatever_the_order() {
    let order = prop::collection::vec(any::<prop::sample::Index>(), 1..30);
    for_all(200, (situation(), order), |(situation, order)| {
        let wanted = situation.wanted.desired();
        let (mut world, _, facts) = situation.world();
        let facts = world.facts(&wanted, &facts);
        world.settle(&facts);
        let first = planned(&wanted, &world.snapshot, &facts);
        prop_assert_eq!(shown(&first), shown(&planned(&wanted, &world.snapshot, &facts)));
        let mut order = order.iter().cycle();
        let mut next = |below: usize| order.next().expect("it has no end").index(below);
        let shuffled = situation.wanted.shuffled(&mut next).desired();
        let second = planned(&shuffled, &world.snapshot, &facts);
        prop_assert_eq!(shown(&first), shown(&second));
        prop_assert_eq!(first, second);
        Ok(())
    });
}

#[test]
fn a_part_of_a_plan_is_in_the_whole_plan() {
    let selector = || {
        let names = ["api", "mail/", "forge/shop", "deploy/shop", "web", "forge/web", "deploy/work", "work"];
        select(names.to_vec()).prop_map(|name| name.trim_end_matches('/').parse().expect("a selector"))
    };
    let some = || prop::collection::vec(selector(), 0..3);
    for_all(200, (situation(), some(), some()), |(situation, targets, excluded)| {
        let wanted = situation.wanted.desired();
        let (mut world, _, facts) = situation.world();
        let facts = world.facts(&wanted, &facts);
        world.settle(&facts);
        let whole = planned(&wanted, &world.snapshot, &facts);
        let selection = Selection { targets, excluded };
        let options = Options { selection: selection.clone(), ..Options::default() };
        let part = plan(&wanted, &world.snapshot, &facts, &options);
        in_order(&part.operations);
        let has = |plan: &Plan, operation: &Operation| {
            plan.operations.iter().any(|other| other.address == operation.address)
        };
        for operation in &part.operations {
            // What a deploy that is left out would have mended along with it.
            let instead = operation.address.kind == Kind::Forge
                && whole
                    .operations
                    .iter()
                    .any(|o| o.address.name == operation.address.name && !has(&part, o));
            prop_assert!(has(&whole, operation) || instead, "{} is new", operation.address);
            let asked = |names: &[Selector]| names.iter().any(|s| *s.app() == operation.address.name);
            prop_assert!(selection.targets.is_empty() || asked(&selection.targets));
            prop_assert!(!selection.excludes(&operation.address));
        }
        for operation in &whole.operations {
            let named = has(&part, operation) || part.left_out.contains(&operation.address);
            prop_assert!(named, "nothing is said of {}", operation.address);
        }
        Ok(())
    });
}

#[test]
fn everything_is_destroyed_once() {
    for_all(60, spec(), |spec| {
        let wanted = spec.desired();
        let mut world = World::default();
        world.apply(&wanted);
        prop_assert!(undisturbed(&world, &wanted).is_empty());
        let facts = world.facts(&wanted, "");
        let options = Options { destroy: true, ..Options::default() };
        let all = plan(&wanted, &world.snapshot, &facts, &options);
        in_order(&all.operations);
        prop_assert_eq!(all.operations.len(), wanted.apps.len());
        prop_assert!(all.operations.iter().all(|operation| operation.action == Action::Teardown));
        let protected = wanted.apps.values().filter(|app| app.protected).count();
        prop_assert_eq!(all.blocked().count(), protected);
        world.walk(&all.operations, &wanted);
        prop_assert!(plan(&wanted, &world.snapshot, &facts, &options).is_empty());
        Ok(())
    });
}

fn desired(apps: &[(String, String)]) -> Desired {
    let apps: String = apps.iter().map(|(name, app)| format!("  {name}:\n{app}")).collect();
    let text = format!("version: 1\nproject: shop\napps:\n{apps}");
    read(&BTreeMap::from([("infraspec.yaml".to_owned(), text)]), None, &BTreeMap::new())
        .expect("it is a spec")
}

/// A plan of `apps` apps with long definitions, in every output.
#[test]
fn a_comment_stays_below_what_github_takes() {
    let scope = Scope { project: "shop".parse().expect("a project"), stage: None };
    let header = render::plan::Header::usual(&scope, 0);
    for (apps, replicas, text) in [(1_000, 1, 5), (40, 2, 9_000), (1, 3, 400_000)] {
        let spec = |replicas: usize, text: &str| {
            let app = |n: usize| {
                let name = format!("app-{n}");
                let body = format!(
                    "    role: worker\n    path: .\n    command: ./run\n    replicas: {replicas}\n    env: {{A: \"{text}\"}}\n"
                );
                (name, body)
            };
            desired(&(0..apps).map(app).collect::<Vec<_>>())
        };
        let old = spec(9, "");
        let mut world = World::default();
        let first = undisturbed(&world, &old);
        world.walk(&first.operations, &old);
        let new = spec(replicas, &"<é`|@ ".repeat(text / 5));
        let mut facts = world.facts(&new, "");
        facts.running.values_mut().for_each(|running| *running = crate::plan::Running::Nothing);
        let all = plan(&new, &world.snapshot, &facts, &Options::default());
        assert_eq!(all.operations.len(), apps);
        let comment = render::markdown::plan(&header, &all);
        assert!(comment.len() < 65_000, "{apps} apps make {} bytes", comment.len());
        assert!(comment.starts_with(&format!("### norn plan: {apps} to update\n")));
        let cut = comment.contains("which the log of the plan shows");
        assert!(cut, "what does not fit is said, for {apps} apps:\n{}", &comment[..2_000.min(comment.len())]);
        assert_eq!(comment.matches("```diff").count(), comment.matches("</details>").count());
        let human = render::plan::human(&header, &all, false);
        assert!(human.contains("app-0"), "the log shows all");
    }
}
