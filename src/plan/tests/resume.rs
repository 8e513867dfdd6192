//! A saved plan that is applied in part, and applied again.

use std::cell::Cell;
use std::collections::BTreeMap;

use super::case::read;
use super::made::{for_all, spec, undisturbed};
use super::world::World;
use crate::address::Address;
use crate::desired::{Desired, EnvValue};
use crate::plan::resume::{At, Fingerprints, Moved, Now, Resumed, resume};
use crate::plan::{Operation, Options, Plan, Running, Skip, Work, plan};
use crate::spec::name::AppName;
use crate::state::format::{self, DeployV1, ForgeV1};
use crate::state::{Applied, Digests, Snapshot};

fn desired(apps: &str) -> Desired {
    let text = format!("version: 1\nproject: shop\napps:\n{apps}");
    let files = BTreeMap::from([("infraspec.yaml".to_owned(), text)]);
    let env = BTreeMap::from([("TOKEN".to_owned(), "t0ken".to_owned())]);
    read(&files, None, &env).expect("the tests' specs are specs")
}

fn app(name: &str, more: &str) -> String {
    format!(
        "  {name}:\n    role: worker\n    path: .\n    command: ./run\n    env: {{TOKEN: \"${{TOKEN}}\"}}\n{more}"
    )
}

fn name(name: &str) -> AppName {
    name.parse().expect("the tests' names are names")
}

/// A plan in a file, and all that its runs did.
struct File {
    plan: Plan,
    desired: Desired,
    applied: Vec<Applied>,
}

impl File {
    fn new(world: &World, desired: Desired, facts: &str) -> Self {
        let facts = world.facts(&desired, facts);
        let plan = plan(&desired, &world.snapshot, &facts, &Options::default());
        assert!(!plan.is_empty(), "there is something to do");
        Self { plan, desired, applied: Vec::new() }
    }

    fn resume(&self, world: &World) -> Result<Resumed, Vec<Moved>> {
        self.resume_with(world, &BTreeMap::new())
    }

    fn resume_with(
        &self,
        world: &World,
        running: &BTreeMap<AppName, Running>,
    ) -> Result<Resumed, Vec<Moved>> {
        let at = At { stored: &world.snapshot, applied: &self.applied, values: &self.values(world), running };
        resume(&self.plan, &at)
    }

    fn values(&self, world: &World) -> Fingerprints {
        let key = world.snapshot.key.as_ref().expect("the world has a key");
        let of = |app: &crate::desired::App| {
            let values = self.desired.values.of(&app.name);
            (app.name.clone(), format::fingerprints(&app.definition, values, key))
        };
        self.desired.apps.values().map(of).collect()
    }

    /// Does one operation, or what a run does of it before it fails or dies.
    fn walk(&mut self, world: &mut World, operation: &Operation, outcome: &str) {
        if outcome == "done" {
            world.walk(std::slice::from_ref(operation), &self.desired);
        }
        self.note(world, &operation.address, outcome);
    }

    fn note(&mut self, world: &World, address: &Address, outcome: &str) {
        let after = digests(&world.snapshot, &address.name);
        let (action, outcome) = ("deploy".into(), outcome.into());
        self.applied.push(Applied { address: address.clone(), action, outcome, after });
    }

    fn operation(&self, address: &str) -> Operation {
        let found = self.plan.operations.iter().find(|o| o.address.to_string() == address);
        found.expect("it is planned").clone()
    }
}

fn digests(stored: &Snapshot, app: &AppName) -> Digests {
    let digest = |address| stored.resources.get(&address).map(|record| record.digest.clone());
    Digests { forge: digest(Address::forge(app)), deploy: digest(Address::deploy(app)) }
}

fn addresses(operations: &[Operation]) -> Vec<String> {
    operations.iter().map(|operation| operation.address.to_string()).collect()
}

#[test]
fn after_every_operation_the_rest_is_left_and_in_the_end_nothing() {
    for (old, new) in [
        (String::new(), app("api", "") + &app("web", "    dependsOn: [api]\n")),
        (
            app("api", "") + &app("web", ""),
            app("api", "    replicas: 2\n") + &app("site", "    was: [web]\n"),
        ),
        (app("api", "") + &app("gone", ""), app("api", "    protected: true\n")),
    ] {
        let mut world = World::default();
        if !old.is_empty() {
            world.apply(&desired(&old));
        }
        let mut file = File::new(&world, desired(&new), "commit api 2");
        let all = file.plan.operations.clone();
        for (index, operation) in all.iter().enumerate() {
            let resumed = file.resume(&world).expect("nothing moved");
            assert_eq!(addresses(&resumed.rest.operations), addresses(&all[index..]));
            assert_eq!(resumed.done.len(), index);
            let next = resumed.rest.operations[0].clone();
            assert_eq!(next.work, operation.work, "what was not begun is done as planned");
            file.walk(&mut world, &next, "failed");
            let again = file.resume(&world).expect("a failure moves nothing").rest.operations;
            assert_eq!(addresses(&again), addresses(&all[index..]));
            file.walk(&mut world, &again[0], "done");
        }
        let resumed = file.resume(&world).expect("nothing moved");
        assert!(resumed.rest.is_empty() && resumed.done.len() == all.len());
        let facts = world.facts(&file.desired, "commit api 2");
        assert!(plan(&file.desired, &world.snapshot, &facts, &Options::default()).is_empty());
    }
}

#[test]
fn the_order_of_two_ends_at_one_moment_does_not_matter() {
    let mut world = World::default();
    world.apply(&desired(&app("web", "")));
    let mut file = File::new(&world, desired(&app("web", "    protected: true\n")), "commit web 2");
    file.walk(&mut world, &file.operation("deploy/web"), "failed");
    file.walk(&mut world, &file.operation("forge/web"), "done");
    file.applied.reverse();
    let resumed = file.resume(&world).expect("nothing moved");
    assert_eq!(addresses(&resumed.rest.operations), ["deploy/web"]);
}

#[test]
fn a_release_that_a_dead_run_brought_live_is_only_written_down() {
    let mut world = World::default();
    world.apply(&desired(&app("web", "")));
    let mut file = File::new(&world, desired(&app("web", "")), "commit web 2");
    let deploy = file.operation("deploy/web");
    // Recovery records what serves, and the run is dead.
    world.walk(std::slice::from_ref(&deploy), &file.desired);
    file.note(&world, &deploy.address, "dead");
    let rest = file.resume(&world).expect("nothing moved").rest.operations;
    let Work::Deploy(work) = &rest[0].work else { panic!("it is a deploy: {rest:?}") };
    assert_eq!(work.record_only.as_ref().map(|release| release.tag.as_str()), Some("web:222222222222"));
    assert!(rest[0].steps.iter().all(|step| step.skip == Some(Skip::Serves)));

    // It died before, and the release of the plan's making is not there.
    let mut world = World::default();
    world.apply(&desired(&app("web", "")));
    file.applied.clear();
    file.walk(&mut world, &deploy, "dead");
    assert_eq!(file.resume(&world).expect("nothing moved").rest.operations, [deploy]);
}

#[test]
fn the_way_to_an_app_is_made_though_a_dead_run_rolled_it() {
    let text = |host: &str, replicas: u32| {
        let tunnel = "5f0cb0fe-0d3f-4b0c-8f6c-0a4d6f9e1a77";
        let spec = format!(
            "version: 1\nproject: shop\nruntime: kubernetes\nregistry: {{url: registry.example.com/shop}}\ncloudflare: {{zone: example.com, tunnel: {tunnel}, token: \"${{TOKEN}}\"}}\napps:\n  web: {{role: webserver, path: ./web, port: 8080, replicas: {replicas}, hosts: {{external: {host}}}}}\n"
        );
        let env = BTreeMap::from([("TOKEN".to_owned(), "t0ken".to_owned())]);
        read(&BTreeMap::from([("infraspec.yaml".to_owned(), spec)]), None, &env).expect("it is a spec")
    };
    let mut world = World::default();
    world.apply(&text("one.example.com", 1));
    let former = world.snapshot.resources.clone();
    let mut file = File::new(&world, text("two.example.com", 2), "");
    let forge = file.operation("forge/web");
    world.walk(std::slice::from_ref(&forge), &file.desired);
    // It rolled, and died before the new name led there.
    let address = Address::forge(&name("web"));
    let mut rolled: ForgeV1 = world.snapshot.resources[&address].read().expect("it is a record");
    rolled.route = former[&address].read::<ForgeV1>().expect("it is a record").route;
    world.snapshot.resources.insert(address.clone(), format::record(&rolled, false));
    file.note(&world, &address, "dead");
    let rest = file.resume(&world).expect("nothing moved").rest.operations;
    let Work::Forge(work) = &rest[0].work else { panic!("it is a forge: {rest:?}") };
    assert_eq!(work.roll, None);
    assert_eq!(work.live.as_ref().and_then(|live| live.route.clone()), rolled.route);
    let due: Vec<&str> = rest[0].steps.iter().filter(|s| s.skip.is_none()).map(|s| s.step.as_str()).collect();
    let wanted = ["patch-cloudflared", "create-dns-route", "remove-dns-route", "unpatch-cloudflared"];
    assert_eq!(due, [&wanted[..], &["restart-cloudflared"]].concat());
}

#[test]
fn a_definition_that_a_dead_run_brought_live_is_not_rolled_again() {
    let mut world = World::default();
    world.apply(&desired(&app("web", "")));
    let mut file = File::new(&world, desired(&app("site", "    was: [web]\n    replicas: 2\n")), "");
    let forge = file.operation("forge/site");
    world.walk(std::slice::from_ref(&forge), &file.desired);
    file.note(&world, &forge.address, "dead");
    let rest = file.resume(&world).expect("nothing moved").rest.operations;
    let Work::Forge(work) = &rest[0].work else { panic!("it is a forge: {rest:?}") };
    assert_eq!((&work.roll, &work.renamed_from), (&None, &None));
    let live = work.live.as_ref().and_then(|live| live.definition.as_ref());
    assert_eq!(live.map(|live| live.replicas), Some(2), "what is remembered is what is live");
}

#[test]
fn a_rename_that_was_begun_is_not_done_again() {
    let mut world = World::default();
    world.apply(&desired(&app("web", "")));
    let mut file = File::new(&world, desired(&app("site", "    was: [web]\n    replicas: 2\n")), "");
    let renamed_from = |resumed: &Resumed| match &resumed.rest.operations[0].work {
        Work::Forge(work) => work.renamed_from.clone(),
        Work::Deploy(_) | Work::Teardown(_) => None,
    };
    assert_eq!(renamed_from(&file.resume(&world).expect("nothing moved")), Some(name("web")));
    for address in [Address::forge, Address::deploy] {
        let record = world.snapshot.resources.remove(&address(&name("web"))).expect("it is known");
        world.snapshot.resources.insert(address(&name("site")), record);
    }
    file.note(&world, &Address::forge(&name("site")), "dead");
    let resumed = file.resume(&world).expect("the records went along");
    assert_eq!(renamed_from(&resumed), None);
    let Work::Forge(work) = &resumed.rest.operations[0].work else { panic!("it is a forge") };
    assert!(work.roll.is_some(), "the definition is still to be put live");
}

#[test]
fn what_moved_is_named() {
    let mut world = World::default();
    world.apply(&desired(&(app("api", "") + &app("web", ""))));
    let wanted = app("api", "") + &app("new", "") + &app("web", "");
    let mut file = File::new(&world, desired(&wanted), "commit api 2\ncommit web 2");
    let moved = |address: &str, expected: bool, now: Now| Moved {
        address: address.parse().expect("an address"),
        expected,
        now,
    };
    let release = |tag: &str| Now::Release { tag: tag.into() };

    // Another apply deployed one app and removed the other.
    file.walk(&mut world, &file.operation("deploy/api"), "done");
    world.apply_with(&desired(&(app("api", "") + &app("new", ""))), "commit api 3", &Options::default());
    assert_eq!(
        file.resume(&world),
        Err(vec![
            moved("forge/new", false, Now::Definition),
            moved("forge/web", true, Now::Nothing),
            moved("deploy/api", true, release("api:333333333333")),
            moved("deploy/new", false, release("new:111111111111")),
            moved("deploy/web", true, Now::Nothing),
        ])
    );
}

#[test]
fn what_was_undone_since_it_was_done_is_not_done_again() {
    let mut world = World::default();
    world.apply(&desired(&app("api", "")));
    let mut file = File::new(&world, desired(&(app("api", "") + &app("web", ""))), "");
    for operation in file.plan.operations.clone() {
        file.walk(&mut world, &operation, "done");
    }
    world.apply(&desired(&app("api", "")));
    let moved = file.resume(&world).expect_err("someone took it away, who was asked later");
    let moved: Vec<String> = moved.iter().map(|moved| moved.address.to_string()).collect();
    assert_eq!(moved, ["forge/web", "deploy/web"]);
}

#[test]
fn what_another_machine_runs_by_now_is_blocked() {
    let mut world = World::default();
    world.apply(&desired(&app("web", "")));
    let file = File::new(&world, desired(&app("web", "")), "commit web 2");
    let running = BTreeMap::from([(name("web"), Running::Elsewhere { host: "ada@far".into() })]);
    let resumed = file.resume_with(&world, &running).expect("nothing moved");
    assert_eq!(resumed.rest.blocked().count(), 1);
}

#[test]
fn however_often_it_fails_or_dies_a_plan_comes_to_its_end() {
    let finished = Cell::new(0);
    let fates = proptest::collection::vec(0..4u8, 1..100);
    for_all(120, (spec(), spec(), fates), |(old, new, fates)| {
        let mut world = World::default();
        world.apply(&old.desired());
        let desired = new.desired();
        let plan = undisturbed(&world, &desired);
        if plan.blocked().next().is_some() {
            return Ok(());
        }
        let mut file = File { plan, desired, applied: Vec::new() };
        // In the end all goes well.
        let mut fates = fates.into_iter().chain(std::iter::repeat(3));
        for _ in 0..110 {
            let resumed = file.resume(&world).unwrap_or_else(|moved| panic!("{moved:?}"));
            if resumed.rest.is_empty() {
                finished.set(finished.get() + 1);
                break;
            }
            let mut stopped = Vec::new();
            for operation in &resumed.rest.operations {
                if operation.waits.iter().any(|wait| stopped.contains(&&wait.of)) {
                    stopped.push(&operation.address);
                    continue;
                }
                match fates.next() {
                    // It died after it was live, and recovery found that.
                    Some(0) if operation.puts_live().is_some() => {
                        world.walk(std::slice::from_ref(operation), &file.desired);
                        file.note(&world, &operation.address, "dead");
                        stopped.push(&operation.address);
                    }
                    Some(0 | 1) => {
                        file.walk(&mut world, operation, "failed");
                        stopped.push(&operation.address);
                    }
                    _ => file.walk(&mut world, operation, "done"),
                }
            }
        }
        let rest = undisturbed(&world, &file.desired);
        proptest::prop_assert!(rest.is_empty(), "there is more to do: {:?}", rest.operations);
        Ok(())
    });
    assert!(finished.get() > 10, "only {} plans were free of what is blocked", finished.get());
}

#[test]
fn the_world_of_these_tests_has_values_and_releases() {
    let mut world = World::default();
    let wanted = desired(&app("web", ""));
    world.apply(&wanted);
    let record = &world.snapshot.resources[&Address::forge(&name("web"))];
    let forge: ForgeV1 = record.read().expect("a forge");
    assert!(forge.values.contains_key("TOKEN"));
    let live = forge.definition.expect("it is live");
    assert!(matches!(live.env["TOKEN"], EnvValue::Reference(_)));
    let record = &world.snapshot.resources[&Address::deploy(&name("web"))];
    assert!(record.read::<DeployV1>().is_some());
}
