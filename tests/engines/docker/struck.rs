//! Changes of projects on a Docker engine, for norn to be struck in.

use std::sync::OnceLock;

use crate::crash::{BESIDE, Scenario, state, without_ids};
use crate::engine::Engine;
use crate::matrix::case::equip;
use crate::matrix::world::{World, files, processes, world};
use crate::matrix::{Change, Stage};
use crate::sandbox::Sandbox;

use super::Shop;

static ALL: [Scenario<Shop<'static>>; 4] = [
    Scenario {
        name: "first deploy",
        before: None,
        after: |shop| shop.of("one", ""),
        back: false,
        succeeds: true,
    },
    Scenario {
        name: "other code, migrated",
        before: Some(|shop| shop.of("one", "")),
        after: |shop| shop.of("two", "migrations: {command: 'cat /release >> /data/migrated'}"),
        back: false,
        succeeds: true,
    },
    Scenario {
        name: "rollback",
        before: Some(|shop| shop.of("one", "")),
        after: |shop| shop.of("two", ""),
        back: true,
        succeeds: true,
    },
    Scenario {
        name: "teardown",
        before: Some(|shop| {
            shop.of("one", "");
            shop.write("infraspec.yaml", &(shop.read("infraspec.yaml") + BESIDE));
        }),
        after: |shop| shop.apps(BESIDE),
        back: false,
        succeeds: true,
    },
];

pub fn changes(engine: &'static Engine) -> Vec<Box<dyn Change>> {
    let here = ALL.iter().map(|scenario| OnEngine { engine, scenario, elsewhere: None });
    // The same engine, as that of another host.
    let far = Engine::own("norn struck on an engine of another host");
    let changed = ALL.iter().filter(|scenario| scenario.before.is_some());
    let elsewhere = changed.filter_map(|scenario| {
        static ADDRESS: OnceLock<String> = OnceLock::new();
        let engine = far?;
        Some(OnEngine { engine, scenario, elsewhere: Some(ADDRESS.get_or_init(|| engine.elsewhere())) })
    });
    here.chain(elsewhere).map(|change| Box::new(change) as Box<dyn Change>).collect()
}

struct OnEngine {
    engine: &'static Engine,
    scenario: &'static Scenario<Shop<'static>>,
    /// The address of the engine's host, where it is another.
    elsewhere: Option<&'static str>,
}

impl Change for OnEngine {
    fn name(&self) -> String {
        let place = if self.elsewhere.is_some() { "Docker elsewhere" } else { "Docker" };
        format!("{place} | {}", self.scenario.name)
    }

    fn stage(&self) -> Box<dyn Stage + '_> {
        let mut shop = Shop::on(self.engine);
        equip(&mut shop.sandbox);
        if let Some(address) = self.elsewhere {
            shop.sandbox.env.insert("DOCKER_HOST".to_owned(), address.to_owned());
        }
        let command = self.scenario.prepare(&shop, &shop.sandbox);
        let made = shop.made();
        Box::new(Project { shop, made, command })
    }

    fn heartbeat(&self) -> u32 {
        200
    }
}

impl Shop<'_> {
    /// `web` of such a release, which keeps what it has in a volume, tested before it lives.
    fn of(&self, release: &str, more: &str) {
        self.write("web/release", release);
        self.web(&format!(
            "env: {{VERSION: {release}}}\nbuild: {{test: 'test -f /release'}}\nvolumes: [{{name: data, mountPath: /data, size: 1Gi}}]\n\
             healthcheck: {{path: /, interval: 100ms, startup: 40s}}\n{more}"
        ));
        let spec = self.read("infraspec.yaml").replace("drain: 4s", "drain: 1s");
        self.write("infraspec.yaml", &spec);
    }

    /// The volumes, and when each was made.
    fn made(&self) -> Vec<String> {
        self.of_engine("volume ls", "{{.Name}}")
            .into_iter()
            .map(|name| {
                let made = self.engine.ok(&format!("volume inspect {name} --format {{{{.CreatedAt}}}}"));
                format!("{name} {made}")
            })
            .collect()
    }
}

/// A project about to be changed, and the volumes that it had then.
struct Project {
    shop: Shop<'static>,
    made: Vec<String>,
    command: Option<String>,
}

impl Stage for Project {
    fn sandbox(&self) -> &Sandbox {
        &self.shop.sandbox
    }

    fn project(&self) -> &str {
        &self.shop.project
    }

    fn command(&self) -> Option<&str> {
        self.command.as_deref()
    }

    fn look(&self) -> World {
        let (shop, sandbox) = (&self.shop, &self.shop.sandbox);
        let mut found = Vec::new();
        processes(sandbox, &mut found);
        let containers =
            "{{.State}}, app {{.Label \"dev.norn.app\"}}, replica {{.Label \"dev.norn.replica\"}}";
        found
            .extend(shop.of_engine("ps --all", containers).into_iter().map(|one| format!("container {one}")));
        found.extend(shop.images().into_iter().map(|image| format!("image {image}")));
        for volume in shop.made() {
            let name = volume.split(' ').next().unwrap_or_default();
            let kept = if self.made.contains(&volume) { "kept" } else { "made" };
            found.push(format!("volume {name} {kept}"));
        }
        if let Ok(answer) = shop.get() {
            found.push(format!("answer {answer:?}"));
        }
        files(sandbox, sandbox.dir.path(), &mut found);
        state(sandbox, &shop.project, &mut found);
        let (folder, port) = (sandbox.dir.path().display().to_string(), shop.port.to_string());
        let own = [(folder.as_str(), "DIR"), (&shop.project, "PROJECT"), (&port, "PORT")];
        without_ids(&world(found, &own))
    }
}

impl Drop for Project {
    fn drop(&mut self) {
        self.shop.processes().into_iter().for_each(crate::sandbox::kill);
        for container in self.shop.containers() {
            let _gone = self.shop.engine.docker(&format!("rm --force --volumes {container}"));
        }
        for volume in self.shop.of_engine("volume ls", "{{.Name}}") {
            let _gone = self.shop.engine.docker(&format!("volume rm --force {volume}"));
        }
    }
}
