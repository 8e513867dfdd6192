//! Changes of projects in a cluster, for norn to be struck in.

use serde_json::Value;

use crate::cluster::Cluster;
use crate::crash::{BESIDE, Scenario, state, without_ids};
use crate::get;
use crate::matrix::case::equip;
use crate::matrix::world::{World, files, processes, world};
use crate::matrix::{Change, Stage};
use crate::sandbox::Sandbox;

use super::Shop;
use super::cloudflare::Routed;

/// It says what it was built and started with, and has data.
const KEEPS: &str = "volumes: [{name: data, mountPath: /data, size: 1Gi}]";
const MIGRATES: &str = "migrations: {command: 'echo migrating to $VERSION'}";
/// It ends as soon as it is started.
const BREAKS: &str = "command: [\"sh\", \"-c\", \"exit 3\"]\nrollout: {timeout: 5s, drain: 1s}";

static ALL: [Scenario<Shop<'static>>; 6] = [
    Scenario {
        name: "first deploy",
        before: None,
        after: |shop| shop.of("one", "v1", KEEPS),
        back: false,
        succeeds: true,
    },
    Scenario {
        name: "other code and definition, migrated",
        before: Some(|shop| shop.of("one", "v1", "")),
        after: |shop| shop.of("two", "v2", MIGRATES),
        back: false,
        succeeds: true,
    },
    Scenario {
        name: "other definition",
        before: Some(|shop| shop.of("one", "v1", "")),
        after: |shop| shop.of("one", "v2", ""),
        back: false,
        succeeds: true,
    },
    Scenario {
        name: "never ready, put back",
        before: Some(|shop| shop.of("one", "v1", "")),
        after: |shop| shop.of("two", "v2", BREAKS),
        back: false,
        succeeds: false,
    },
    Scenario {
        name: "rollback",
        before: Some(|shop| shop.of("one", "v1", "")),
        after: |shop| shop.of("two", "v2", ""),
        back: true,
        succeeds: true,
    },
    Scenario {
        name: "teardown",
        before: Some(|shop| {
            shop.of("one", "v1", KEEPS);
            shop.write("infraspec.yaml", &(shop.read("infraspec.yaml") + BESIDE));
        }),
        after: |shop| shop.apps(BESIDE),
        back: false,
        succeeds: true,
    },
];

pub fn changes(cluster: &'static Cluster) -> Vec<Box<dyn Change>> {
    let change = |scenario| Box::new(InCluster { cluster, scenario }) as Box<dyn Change>;
    ALL.iter().map(change).chain([Box::new(Named { cluster }) as Box<dyn Change>]).collect()
}

struct InCluster {
    cluster: &'static Cluster,
    scenario: &'static Scenario<Shop<'static>>,
}

impl Change for InCluster {
    fn name(&self) -> String {
        format!("Kubernetes | {}", self.scenario.name)
    }

    fn stage(&self) -> Box<dyn Stage + '_> {
        let mut shop = Shop::new(self.cluster);
        equip(&mut shop.sandbox);
        shop.sandbox.env.insert("SECRET".into(), "hunter2222".into());
        self.cluster.room(&shop.path("home/data"));
        let command = self.scenario.prepare(&shop, &shop.sandbox);
        let claims = shop.claims();
        Box::new(Project { shop, claims, command })
    }

    fn succeeds(&self) -> bool {
        self.scenario.succeeds
    }

    fn heartbeat(&self) -> u32 {
        200
    }
}

impl Shop<'_> {
    /// `web` of such a release and version, with a secret.
    fn of(&self, release: &str, version: &str, more: &str) {
        self.write("web/release", release);
        self.web(&format!("env: {{VERSION: {version}}}\nsecrets: [SECRET]\n{more}"));
        let spec =
            self.read("infraspec.yaml").replace("{timeout: 60s, drain: 2s}", "{timeout: 240s, drain: 1s}");
        self.write("infraspec.yaml", &spec);
    }

    /// The claims of storage, by what tells one from another of the same name.
    fn claims(&self) -> String {
        self.space.ok("get persistentvolumeclaims --output jsonpath={.items[*].metadata.uid}")
    }

    /// All of the project that the namespace has.
    fn all(&self) -> Vec<Value> {
        let kinds = "deployments,services,ingresses,secrets,jobs,persistentvolumeclaims,pods";
        let label = format!("dev.norn.project={}", self.project);
        let found = self.space.ok(&format!("get {kinds} --selector {label} --output json"));
        let mut list: Value = serde_json::from_str(&found).expect("kubectl writes JSON");
        serde_json::from_value(list["items"].take()).expect("a list has items")
    }

    /// Everything that can be seen of the project; `claims` are those that it had before.
    fn seen(&self, claims: &str, more: Vec<String>) -> World {
        let (sandbox, mut found) = (&self.sandbox, more);
        for object in self.all() {
            if object["kind"] == "Service" {
                let address = object["spec"]["clusterIP"].as_str().unwrap_or_default().to_owned();
                if let Ok(answer) = get(&address, 80) {
                    found.push(format!("answer {answer:?}"));
                }
            }
            if object["kind"] == "PersistentVolumeClaim" {
                let uid = object["metadata"]["uid"].as_str().unwrap_or_default();
                let kept = if claims.contains(uid) { "kept" } else { "made" };
                found.push(format!("claim {} {kept}", object["metadata"]["name"]));
            }
            found.extend(told(object));
        }
        let images = format!("label=dev.norn.project={}", self.project);
        let format = "{{.Repository}}:{{.Tag}}";
        let images = self.space.cluster.engine.ok(&format!("images --filter {images} --format {format}"));
        found.extend(images.lines().map(|image| format!("image {image}")));
        processes(sandbox, &mut found);
        files(sandbox, sandbox.dir.path(), &mut found);
        state(sandbox, &self.project, &mut found);
        for thing in &mut found {
            // Why a version is not ready is told in the words of that moment.
            if let Some(at) = thing.find(" failed ").filter(|_| thing.starts_with("deployment ")) {
                thing.truncate(at + " failed".len());
            }
        }
        let folder = sandbox.dir.path().display().to_string();
        let own = [(folder.as_str(), "DIR"), (&self.project, "PROJECT"), (&self.space.name, "SPACE")];
        without_ids(&world(found, &own))
    }
}

/// A project about to be changed, and the claims that it had then.
struct Project {
    shop: Shop<'static>,
    claims: String,
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
        self.shop.seen(&self.claims, Vec::new())
    }
}

/// An object without what the server, or the time, says of it; none of a pod that is going.
fn told(mut object: Value) -> Option<String> {
    let kind = object["kind"].as_str()?.to_owned();
    let meta = object["metadata"].take();
    let name = meta["name"].as_str()?;
    if kind == "Pod" {
        let conditions = object["status"]["conditions"].as_array();
        let ready = conditions
            .is_some_and(|all| all.iter().any(|one| one["type"] == "Ready" && one["status"] == "True"));
        let job = meta["labels"]["batch.kubernetes.io/job-name"].is_string();
        let what =
            if job { format!("of a job, {}", object["status"]["phase"]) } else { format!("ready {ready}") };
        return meta["deletionTimestamp"].is_null().then(|| format!("pod {what}"));
    }
    let (mut labels, mut annotations) = (meta["labels"].clone(), meta["annotations"].clone());
    annotations.as_object_mut().map(|all| all.remove("deployment.kubernetes.io/revision"));
    if annotations.as_object().is_some_and(serde_json::Map::is_empty) {
        annotations = Value::Null;
    }
    // The operation that put it, which an apply that finds it as it is to be leaves.
    labels.as_object_mut().map(|all| all.remove("dev.norn.operation"));
    let mut spec = object["spec"].take();
    for server in ["clusterIP", "clusterIPs", "volumeName"] {
        spec.as_object_mut().map(|all| all.remove(server));
    }
    // A Job is named by its step's id, which ends in as many digits.
    let name = if kind == "Job" { name.rsplit_once('-')?.0 } else { name };
    let going = if meta["deletionTimestamp"].is_null() { "" } else { " going" };
    let data = &object["data"];
    let text = format!("{kind} {name}{going} {labels} {annotations} {spec} {data}");
    let job = meta["name"].as_str()?;
    Some(if kind == "Job" { text.replace(job, name) } else { text })
}

/// Another name for an app that the world reaches through a tunnel.
struct Named {
    cluster: &'static Cluster,
}

impl Change for Named {
    fn name(&self) -> String {
        "Kubernetes, Cloudflare | another name of the world".to_owned()
    }

    fn stage(&self) -> Box<dyn Stage + '_> {
        let mut routed = Routed::new(self.cluster);
        equip(&mut routed.shop.sandbox);
        routed.asked_by = Some("localhost");
        routed.spec(Some("one.example.com"));
        routed.shop.ok("apply --yes");
        routed.spec(Some("two.example.com"));
        Box::new(routed)
    }

    fn heartbeat(&self) -> u32 {
        200
    }
}

impl Stage for Routed<'_> {
    fn sandbox(&self) -> &Sandbox {
        &self.shop.sandbox
    }

    fn project(&self) -> &str {
        &self.shop.project
    }

    fn look(&self) -> World {
        let mut found = vec![format!("tunnel {}", self.config())];
        found.extend(self.records().into_iter().map(|record| format!("name {record}")));
        if let Some(started) = Some(self.started_with()).filter(|started| !started.is_empty()) {
            let digest = norn::state::format::digest(&format!("{}\n", self.config()).into());
            found.push(format!("cloudflared reads what it is to: {}", started == digest));
        }
        self.shop.seen("", found)
    }
}
