//! A store and a machine in memory: what applying a plan leaves, and what is said to be otherwise.

use std::collections::BTreeMap;

use jiff::Timestamp;

use crate::address::{Address, Kind};
use crate::apply::recovery;
use crate::desired::{Desired, Runtime, Source};
use crate::plan::{Action, Back, Facts, FieldDrift, Operation, Options, Running, SourceFact, Work, plan};
use crate::secret::Secret;
use crate::spec::engine::Site;
use crate::spec::name::AppName;
use crate::state::format::{self, DeployV1, ForgeV1, Namespace, RemoteEngine};
use crate::state::lock::ProcessIdentity;
use crate::state::{
    Artifact, ArtifactKind, Deployment, DeploymentStatus, Forge, ForgeStatus, Journaled, Record, Run,
    Snapshot,
};

pub struct World {
    pub snapshot: Snapshot,
    /// What a dead run put live, unknown to the store.
    serving: BTreeMap<AppName, Running>,
}

impl Default for World {
    fn default() -> Self {
        let key = Some(Secret::new("0123456789abcdef"));
        Self { snapshot: Snapshot { exists: true, key, ..Snapshot::default() }, serving: BTreeMap::new() }
    }
}

impl World {
    /// Applies what a spec wants, with everything at its first version.
    pub fn apply(&mut self, desired: &Desired) {
        self.apply_with(desired, "", &Options::default());
    }

    /// As [`apply`](Self::apply), with everything as it is `said` to be.
    pub fn apply_with(&mut self, desired: &Desired, said: &str, options: &Options) {
        let facts = self.facts(desired, said);
        let plan = plan(desired, &self.snapshot, &facts, options);
        self.walk(&plan.operations, desired);
    }

    /// What is known once the operations are done.
    pub fn walk(&mut self, operations: &[Operation], desired: &Desired) {
        for operation in operations {
            let app = &operation.address.name;
            // What was found is over: it runs as recorded.
            self.serving.remove(app);
            match &operation.work {
                Work::Forge(work) => {
                    if let Some(old) = &work.renamed_from {
                        self.serving.remove(old);
                        self.rename(old, app);
                    }
                    let live = work.live.as_ref();
                    let body = match &work.roll {
                        Some(_) => self.forge_of(operation, desired).0,
                        None => ForgeV1 {
                            version: 1,
                            definition: live.and_then(|live| live.definition.clone()),
                            values: live.map(|live| live.values.clone()).unwrap_or_default(),
                            protected: work.protected,
                            host: None,
                            namespace: namespace(work.runtime, desired),
                            engine: engine(work.runtime, desired),
                            route: work.route.clone(),
                        },
                    };
                    self.put(Address::forge(app), format::record(&body, work.protected));
                    self.forged(app, ForgeStatus::Forged, "");
                }
                Work::Deploy(work) => {
                    let (forge, deploy) = self.forge_of(operation, desired);
                    let deploy = deploy.expect("a deploy has a release");
                    let status = DeploymentStatus::Deployed;
                    self.row(app, &deploy.deployment, &work.commit, &work.tag, status, "");
                    let record = format::record(&deploy, work.protected);
                    match &work.back {
                        Some(Back { leaves, .. }) => {
                            let rows = self.snapshot.deployments.iter_mut();
                            rows.filter(|row| Some(&row.id) == leaves.as_ref())
                                .for_each(|row| row.status = DeploymentStatus::RolledBack);
                        }
                        None => self.snapshot.artifacts.push(Artifact {
                            id: deploy.deployment,
                            app: app.clone(),
                            kind: ArtifactKind::Release,
                            name: deploy.tag,
                            body: record.body.clone(),
                            created_at: Timestamp::UNIX_EPOCH,
                        }),
                    }
                    self.put(Address::forge(app), format::record(&forge, work.protected));
                    self.put(Address::deploy(app), record);
                }
                Work::Teardown(_) => {
                    self.snapshot.resources.retain(|address, _| address.name != *app);
                    self.forged(app, ForgeStatus::Unforged, "");
                }
            }
        }
    }

    /// The records that an operation makes current.
    fn forge_of(&self, operation: &Operation, desired: &Desired) -> (ForgeV1, Option<DeployV1>) {
        let key = self.snapshot.key.as_ref().expect("the world has a key");
        let app = &operation.address.name;
        let (definition, protected, release) = match &operation.work {
            Work::Forge(work) => {
                let roll = work.roll.as_ref().expect("only what rolls makes records");
                (&roll.definition, work.protected, Some(roll.release.clone()))
            }
            Work::Deploy(work) => {
                let deployment = format!("row-{}", self.snapshot.deployments.len());
                let release = match work.made() {
                    Some(release) => DeployV1 { deployment, ..release.clone() },
                    None => DeployV1 {
                        version: 1,
                        commit: work.commit.clone(),
                        tag: work.tag.clone(),
                        source: work.source.clone(),
                        build: work.build.clone(),
                        folder: format!("releases/{}", work.tag.replace(':', "/")),
                        deployment,
                        image: work
                            .definition
                            .runtime
                            .is_kubernetes()
                            .then(|| format!("registry.example.com/{app}@sha256:{}", "7".repeat(64))),
                    },
                };
                (&work.definition, work.protected, Some(release))
            }
            Work::Teardown(_) => unreachable!("a teardown makes no records"),
        };
        let values = format::fingerprints(definition, desired.values.of(app), key);
        let runtime = definition.runtime;
        let namespace = namespace(runtime, desired);
        let definition = Some(definition.clone());
        let route = desired.apps.get(app).and_then(|app| app.route.clone());
        let engine = engine(runtime, desired);
        (ForgeV1 { version: 1, definition, values, protected, host: None, namespace, engine, route }, release)
    }

    fn put(&mut self, address: Address, record: Record) {
        self.snapshot.resources.insert(address, record);
    }

    fn row(
        &mut self,
        app: &AppName,
        id: &str,
        commit: &str,
        tag: &str,
        status: DeploymentStatus,
        error: &str,
    ) {
        self.snapshot.deployments.push(Deployment {
            id: id.to_owned(),
            app: app.clone(),
            commit_sha: commit.to_owned(),
            image_tag: tag.to_owned(),
            status,
            steps: Vec::new(),
            error: error.to_owned(),
            started_at: Timestamp::UNIX_EPOCH,
            finished_at: None,
        });
    }

    fn forged(&mut self, app: &AppName, status: ForgeStatus, error: &str) {
        let resources = serde_json::json!({});
        let error = error.to_owned();
        let forge = Forge { status, resources, error, started_at: None, finished_at: None };
        self.snapshot.forges.insert(app.clone(), forge);
    }

    fn rename(&mut self, from: &AppName, to: &AppName) {
        for kind in Kind::ALL {
            let at = |name: &AppName| Address { kind, name: name.clone() };
            if let Some(record) = self.snapshot.resources.remove(&at(from)) {
                self.snapshot.resources.insert(at(to), record);
            }
        }
        for row in self.snapshot.deployments.iter_mut().filter(|row| row.app == *from) {
            row.app = to.clone();
        }
        for artifact in self.snapshot.artifacts.iter_mut().filter(|artifact| artifact.app == *from) {
            artifact.app = to.clone();
        }
        if let Some(forge) = self.snapshot.forges.remove(from) {
            self.snapshot.forges.insert(to.clone(), forge);
        }
    }

    /// What the store holds besides what was applied:
    ///
    /// `deployment APP VERSION STATUS [ERROR]` a row; `forge APP STATUS [ERROR]` the state of an app;
    /// `unlisted APP` its rows are gone; `died ADDRESS moved|before` a run was killed while it did
    /// what this spec wants of the address, after or before it went live.
    pub fn stored(&mut self, text: &str, desired: &Desired) {
        for line in text.lines() {
            let words: Vec<&str> = line.splitn(4, ' ').collect();
            match words.as_slice() {
                ["deployment", app, version, rest] => {
                    let (status, error) = rest.split_once(' ').unwrap_or((rest, ""));
                    let app: AppName = app.parse().expect("an app");
                    let commit = version.repeat(40);
                    let tag = format!("{app}:{}", &commit[..12]);
                    let status = DeploymentStatus::parse(status).expect("a status of a deployment");
                    let id = format!("said-{}", self.snapshot.deployments.len());
                    self.row(&app, &id, &commit, &tag, status, &error.replace("\\n", "\n"));
                }
                ["forge", app, status, rest @ ..] => {
                    let status = ForgeStatus::parse(status).expect("a status of a forge");
                    self.forged(&app.parse().expect("an app"), status, rest.first().unwrap_or(&""));
                }
                ["unlisted", app] => self.snapshot.deployments.retain(|row| row.app.as_str() != *app),
                ["died", address, how] => {
                    self.die(&address.parse().expect("an address"), *how == "moved", desired);
                }
                _ => panic!("the store cannot hold {line:?}"),
            }
        }
    }

    fn die(&mut self, address: &Address, moved: bool, desired: &Desired) {
        let facts = self.facts(desired, "");
        let plan = plan(desired, &self.snapshot, &facts, &Options::default());
        let operation = plan.operations.iter().find(|operation| operation.address == *address);
        let operation = operation.expect("only what is due can die");
        let (forge, deploy) = self.forge_of(operation, desired);
        let app = &address.name;
        self.snapshot.runs.push(Run {
            id: "dead".into(),
            who: "ada@build".into(),
            process: process(),
            reason: "norn apply".into(),
            token: 1,
            started_at: Timestamp::UNIX_EPOCH,
            heartbeat_at: Timestamp::UNIX_EPOCH,
        });
        self.snapshot.operations.push(Journaled {
            id: "operation".into(),
            run: "dead".into(),
            address: address.clone(),
            action: operation.action.as_str().into(),
            intent: serde_json::json!({ "forge": forge, "deploy": deploy }),
        });
        match (operation.action, &deploy) {
            (Action::Deploy, Some(deploy)) => {
                let status = DeploymentStatus::Deploying;
                self.row(app, &deploy.deployment, &deploy.commit, &deploy.tag, status, "");
                if !self.snapshot.resources.contains_key(&Address::forge(app)) {
                    let body = ForgeV1 {
                        version: 1,
                        definition: None,
                        values: BTreeMap::new(),
                        protected: false,
                        host: None,
                        namespace: None,
                        engine: None,
                        route: None,
                    };
                    self.put(Address::forge(app), format::record(&body, false));
                }
            }
            _ => self.forged(app, ForgeStatus::Forging, ""),
        }
        if moved {
            let tag = deploy.map(|deploy| deploy.tag);
            self.serving.insert(app.clone(), serving(tag, &forge, 1));
        }
    }

    /// Settles what dead runs left, as a plan does before it looks.
    pub fn settle(&mut self, facts: &Facts) {
        recovery::settle(&mut self.snapshot, &facts.running, None, &|_| Some(false));
    }

    /// What is found: everything at its first version, and running as recorded, but for:
    ///
    /// `commit APP VERSION` another version; `offline` nothing can be looked up; `gone TAG` the
    /// folder of a release; `runs APP WHAT` with `nothing`, `rebooted`, `unsupervised N`, `silent
    /// WHY`, `elsewhere HOST`, `release TAG`, `empty`, `definition`, `healthy N`; `migrated TAG` the
    /// deploys of a release migrated the database; `snapshot NAME` a snapshot is there.
    pub fn facts(&self, desired: &Desired, text: &str) -> Facts {
        let mut facts = Facts::default();
        for app in desired.apps.values() {
            facts.sources.insert(app.name.clone(), SourceFact::Version(version(&app.source, "1")));
        }
        for address in self.snapshot.resources.keys().filter(|address| address.kind == Kind::Deploy) {
            let app = &address.name;
            let release: DeployV1 = self.read(address).expect("an address that was listed");
            let forge: ForgeV1 = self.read(&Address::forge(app)).expect("a release stands on a forge");
            facts.releases.insert(release.tag.clone());
            let replicas = forge.definition.as_ref().map_or(0, |definition| definition.replicas);
            facts.running.insert(app.clone(), serving(Some(release.tag), &forge, replicas));
        }
        facts.releases.extend(self.snapshot.artifacts.iter().map(|artifact| artifact.name.clone()));
        for (app, running) in &self.serving {
            facts.running.insert(app.clone(), running.clone());
            if let Running::Serving { tag: Some(tag), .. } = running {
                facts.releases.insert(tag.clone());
            }
        }
        for line in text.lines() {
            let words: Vec<&str> = line.splitn(4, ' ').collect();
            match words.as_slice() {
                ["commit", app, number] => {
                    let app: AppName = app.parse().expect("an app");
                    let version = version(&desired.apps[&app].source, number);
                    facts.sources.insert(app, SourceFact::Version(version));
                }
                ["migrated", tag] => {
                    let rows = self.snapshot.deployments.iter().filter(|row| row.image_tag == *tag);
                    facts.migrated.extend(rows.map(|row| row.id.clone()));
                }
                ["snapshot", name] => facts.snapshots.push((*name).to_owned()),
                ["offline"] => self.go_offline(desired, &mut facts),
                ["gone", tag] => assert!(facts.releases.remove(*tag), "there is no release {tag}"),
                ["runs", app, rest @ ..] => {
                    let app: AppName = app.parse().expect("an app");
                    let running = self.running(&app, facts.running.get(&app), rest);
                    facts.running.insert(app, running);
                }
                ["field", app, object, rest] => {
                    let mut words = rest.split(' ').map(str::to_owned);
                    let field = words.next().unwrap_or_default();
                    let mut value = || words.next().filter(|word| word != "-");
                    let (found, wanted) = (value(), value());
                    let drift = FieldDrift { object: (*object).to_owned(), field, wanted, found };
                    facts.fields.entry(app.parse().expect("an app")).or_default().push(drift);
                }
                _ => panic!("there is no fact {line:?}"),
            }
        }
        facts
    }

    fn running(&self, app: &AppName, now: Option<&Running>, words: &[&str]) -> Running {
        let number = |text: &str| text.parse::<u32>().expect("a number");
        let (tag, definition, wanted) = match now {
            Some(Running::Serving { tag, definition, wanted, .. }) => {
                (tag.clone(), definition.clone(), *wanted)
            }
            _ => (None, None, 1),
        };
        match words {
            ["nothing"] => Running::Nothing,
            ["rebooted"] => Running::Rebooted,
            ["unsupervised", n] => Running::Unsupervised { replicas: number(n) as usize },
            ["silent", why] => Running::Silent { why: (*why).to_owned() },
            ["elsewhere", host] => Running::Elsewhere { host: (*host).to_owned() },
            ["release", tag] => serves(Some((*tag).to_owned()), definition, wanted, wanted),
            ["empty"] => serves(None, None, 0, 0),
            ["definition"] => serves(tag, Some("another".into()), wanted, wanted),
            ["healthy", n] => serves(tag, definition, wanted, number(n)),
            _ => panic!("{app} cannot run {words:?}"),
        }
    }

    /// As the look-up of `--offline` does.
    fn go_offline(&self, desired: &Desired, facts: &mut Facts) {
        for app in desired.apps.values().filter(|app| matches!(app.source, Source::Git { .. })) {
            let release = self.read::<DeployV1>(&Address::deploy(&app.name));
            let seen = release.filter(|release| release.source == app.source);
            let fact = seen.map_or(SourceFact::NotLookedUp, |release| SourceFact::LastSeen(release.commit));
            facts.sources.insert(app.name.clone(), fact);
        }
    }

    fn read<T: serde::de::DeserializeOwned>(&self, address: &Address) -> Option<T> {
        let record = self.snapshot.resources.get(address)?;
        Some(serde_json::from_value(record.body.clone()).expect("a record reads back"))
    }
}

fn serving(tag: Option<String>, forge: &ForgeV1, replicas: u32) -> Running {
    serves(tag, Some(forge.definition_digest()), replicas, replicas)
}

fn serves(tag: Option<String>, definition: Option<String>, wanted: u32, healthy: u32) -> Running {
    Running::Serving { tag, definition, wanted, healthy, reached: true, image: None }
}

fn namespace(runtime: Runtime, desired: &Desired) -> Option<Namespace> {
    let name = desired.kubernetes.namespace.clone();
    runtime.is_kubernetes().then(|| Namespace {
        name,
        id: None,
        server: "https://cluster.example.com".into(),
    })
}

fn engine(runtime: Runtime, desired: &Desired) -> Option<RemoteEngine> {
    let address = desired.docker.as_deref().and_then(|address| Site::at(address).elsewhere())?;
    (runtime == Runtime::Docker).then(|| RemoteEngine { address: address.to_owned(), id: None })
}

fn version(source: &Source, number: &str) -> String {
    match source {
        Source::Git { .. } => number.repeat(40),
        Source::Local { .. } => format!("local:{}", number.repeat(64)),
        Source::Image { .. } => format!("sha256:{}", number.repeat(64)),
    }
}

fn process() -> ProcessIdentity {
    ProcessIdentity {
        machine_id: "machine".into(),
        boot_id: "boot".into(),
        pid_namespace: "namespace".into(),
        pid: 1,
        start_time: 1,
    }
}
