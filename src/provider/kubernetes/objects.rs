//! The objects that an app is, as JSON that holds only what norn owns.
//!
//! Invariants: pure; what tells an app's pods apart (`selector`) is its project, stage and name only, as
//! a Deployment's selector cannot be changed; a Secret never changes, for its name is made of what is in it.

use std::collections::BTreeMap;
use std::time::Duration;

use k8s_openapi::ByteString;
use serde_json::{Map, Value, json};

use super::kinds::{Address, Kind, Object};
use crate::desired::{Command, Definition, EnvValue, Health, Ingress, Probe, Role, Volume};
use crate::provider::labels::{self, APP};
use crate::secret::Secret;
use crate::spec::name::AppName;
use crate::state::Scope;
use crate::state::format::fingerprint;

/// The most characters of a label's value.
const LABEL: usize = 63;
/// How long a container may take to end after SIGTERM, beyond the drain.
const GRACE: Duration = Duration::from_secs(10);
/// How often a starting app is asked, and how often a live one, as in version 1.
const STARTUP_PERIOD: Duration = Duration::from_secs(5);
const LIVE_PERIOD: Duration = Duration::from_secs(30);
/// How long an old pod still serves after it is told to end: until every node has heard of it.
const LEAVE: Duration = Duration::from_secs(5);
/// How much a volume holds that says nothing of it.
const SIZE: u64 = 1 << 30;
/// The port's name in pods, by which the Service finds it.
const PORT: &str = "http";

/// What an app is beside its definition.
#[derive(Debug, Clone, Default)]
pub struct Extra {
    /// Names of Secrets with the logins of registries.
    pub pull_secrets: Vec<String>,
    /// The selector that an adopted Deployment came with, which cannot be changed.
    pub selector: Option<BTreeMap<String, String>>,
    /// The commit of the release, and the operation that puts it live.
    pub commit: Option<String>,
    pub operation: Option<String>,
    /// The tag of the release, and what tells its definition from others.
    pub release: Option<String>,
    pub digest: Option<String>,
}

/// The annotations that say which release runs under which definition.
pub const RELEASE: &str = "dev.norn/release";
pub const DEFINITION: &str = "dev.norn/definition";
/// The annotation of a Deployment that says by which kinds of objects it is reached; empty for none.
pub const REACHED_BY: &str = "dev.norn/reached-by";

/// An app and what it runs.
#[derive(Debug)]
pub struct App<'a> {
    pub scope: &'a Scope,
    pub name: &'a AppName,
    pub definition: &'a Definition,
    /// The image by its digest.
    pub image: &'a str,
    /// The values behind references and secrets.
    pub values: Option<&'a BTreeMap<String, Secret>>,
    /// The store's, for the name of the Secret.
    pub key: &'a Secret,
    /// How long a rollout may take, and connections of an old pod.
    pub rollout: crate::desired::Rollout,
    pub extra: &'a Extra,
}

/// The name of the Secret with the logins for an app's image.
pub fn pull_secret(app: &AppName) -> String {
    format!("{app}-pull")
}

/// As the API wants a selector.
pub fn joined(labels: &BTreeMap<String, String>) -> String {
    let each: Vec<String> = labels.iter().map(|(name, value)| format!("{name}={value}")).collect();
    each.join(",")
}

impl App<'_> {
    /// All that the app is while it runs: its Secret, claims, Deployment, Service and Ingress.
    pub fn objects(&self) -> Vec<Object> {
        let mut objects: Vec<Object> = self.secret().into_iter().collect();
        objects.extend(self.claims());
        objects.push(self.deployment());
        objects.extend(self.ways());
        objects
    }

    /// What the app is given by value and no log may show; none where there is nothing.
    pub fn secret(&self) -> Option<Object> {
        let bytes = |value: &Secret| json!(ByteString(value.expose().as_bytes().to_vec()));
        let data: Map<String, Value> =
            self.hidden().map(|(name, value)| (name.to_owned(), bytes(value))).collect();
        let name = self.secret_name()?;
        let mut object = self.object(Kind::Secret, &name, &self.labels(false));
        object.body["type"] = json!("Opaque");
        object.body["immutable"] = json!(true);
        object.body["data"] = Value::Object(data);
        Some(object)
    }

    /// Made of what is in it, under the store's key; none where there is nothing.
    pub fn secret_name(&self) -> Option<String> {
        let all: Vec<(&str, &str)> = self.hidden().map(|(name, value)| (name, value.expose())).collect();
        let text = Secret::new(serde_json::to_string(&all).expect("texts are JSON"));
        (!all.is_empty()).then(|| format!("{}-{}", self.name, &fingerprint(self.key, &text)[..16]))
    }

    pub fn deployment(&self) -> Object {
        let single = self.claims().next().is_some();
        let strategy = if single {
            // A volume of one pod: the new one cannot start before the old one has left it.
            json!({"type": "Recreate"})
        } else {
            json!({"type": "RollingUpdate", "rollingUpdate": {"maxUnavailable": 0, "maxSurge": 1}})
        };
        let mut object = self.object(Kind::Deployment, self.name.as_str(), &self.labels(true));
        let kinds: Vec<&str> = self.ways().map(|way| way.address.kind.as_str()).collect();
        annotate(&mut object, RELEASE, self.extra.release.as_deref());
        annotate(&mut object, DEFINITION, self.extra.digest.as_deref());
        annotate(&mut object, REACHED_BY, Some(&kinds.join(",")));
        let mut spec = json!({
            "replicas": self.definition.replicas,
            "selector": {"matchLabels": self.selector()},
            "strategy": strategy,
            "progressDeadlineSeconds": self.rollout.timeout.as_secs().max(1),
            // A former release is put live again by norn itself.
            "revisionHistoryLimit": 2,
        });
        if let Probe::Lives(time) = &self.definition.health.probe {
            spec["minReadySeconds"] = json!(time.as_secs());
            // The cluster takes no deadline that ends before.
            spec["progressDeadlineSeconds"] = json!(self.rollout.timeout.max(*time + GRACE).as_secs());
        }
        let mut pod = self.pod(self.definition.command.as_ref(), true);
        let drain = (self.rollout.drain + GRACE).as_secs();
        pod["terminationGracePeriodSeconds"] = json!(drain);
        let mut labels = self.labels(true);
        // The pods of an operation that changes nothing of them stay.
        labels.remove("dev.norn.operation");
        labels.extend(self.selector());
        spec["template"] = json!({"metadata": {"labels": labels}, "spec": pod});
        object.body["spec"] = spec;
        object
    }

    /// The logins of the image's registry, as Docker's own settings hold them.
    pub fn pull_secret(&self, logins: &Secret) -> Object {
        let mut object = self.object(Kind::Secret, &pull_secret(self.name), &self.labels(false));
        object.body["type"] = json!("kubernetes.io/dockerconfigjson");
        let logins = ByteString(logins.expose().as_bytes().to_vec());
        object.body["data"] = json!({".dockerconfigjson": logins});
        object
    }

    /// Where others in the cluster reach the app: port 80, whatever it listens on.
    pub fn service(&self) -> Option<Object> {
        self.listens()?;
        let mut object = self.object(Kind::Service, self.name.as_str(), &self.labels(false));
        object.body["spec"] = json!({
            "selector": self.selector(),
            "ports": [{"name": PORT, "port": 80, "protocol": "TCP", "targetPort": PORT}],
        });
        Some(object)
    }

    /// Where the world reaches it, if there is an ingress class and a host.
    pub fn ingress(&self) -> Option<Object> {
        self.listens()?;
        let Ingress { class, host } = self.definition.ingress.as_ref()?;
        let mut object = self.object(Kind::Ingress, self.name.as_str(), &self.labels(false));
        annotate(&mut object, DEFINITION, self.extra.digest.as_deref());
        let backend = json!({"service": {"name": self.name.to_string(), "port": {"number": 80}}});
        let paths = json!([{"path": "/", "pathType": "Prefix", "backend": backend}]);
        object.body["spec"] =
            json!({"ingressClassName": class, "rules": [{"host": host, "http": {"paths": paths}}]});
        Some(object)
    }

    /// All by which it is reached.
    pub fn ways(&self) -> impl Iterator<Item = Object> {
        self.service().into_iter().chain(self.ingress())
    }

    /// What its volumes stand on, but for folders of a node.
    pub fn claims(&self) -> impl Iterator<Item = Object> {
        let volumes = self.definition.volumes.iter().filter(|volume| volume.host_path.is_none());
        volumes.map(|volume| self.claim(volume))
    }

    fn claim(&self, volume: &Volume) -> Object {
        let name = format!("{}-{}", self.name, volume.name);
        let mut object = self.object(Kind::PersistentVolumeClaim, &name, &self.labels(false));
        let mut spec = json!({
            "accessModes": ["ReadWriteOnce"],
            "resources": {"requests": {"storage": bytes(volume.size.unwrap_or(SIZE))}},
        });
        if let Some(class) = &volume.class {
            spec["storageClassName"] = json!(class);
        }
        object.body["spec"] = spec;
        object
    }

    /// One run of a command in the release, such as a migration. `name` is new for each, as a Job
    /// never changes; its log stays for as long as it does.
    pub fn job(&self, name: &str, command: &Command, timeout: Duration) -> Object {
        let mut object = self.object(Kind::Job, name, &self.labels(true));
        let mut pod = self.pod(Some(command), false);
        pod["restartPolicy"] = json!("Never");
        // Its pods must not be taken for those that serve.
        let mut labels = self.labels(true);
        for name in ["app", APP] {
            labels.remove(name);
        }
        labels.insert("dev.norn.job".to_owned(), label(name));
        object.body["spec"] = json!({
            "backoffLimit": 0,
            "activeDeadlineSeconds": timeout.as_secs().max(1),
            "template": {"metadata": {"labels": labels}, "spec": pod},
        });
        object
    }

    fn object(&self, kind: Kind, name: &str, labels: &BTreeMap<String, String>) -> Object {
        let body = json!({
            "apiVersion": kind.api_version(),
            "kind": kind.as_str(),
            "metadata": {"name": name, "labels": labels},
        });
        Object { address: Address { kind, name: name.to_owned() }, body }
    }

    fn selector(&self) -> BTreeMap<String, String> {
        self.extra.selector.clone().unwrap_or_else(|| labels::of_app(self.scope, self.name))
    }

    /// `release`: with what changes with each release. What is not part of one must not change by it.
    fn labels(&self, release: bool) -> BTreeMap<String, String> {
        let (app, project) = (self.name.to_string(), self.scope.project.to_string());
        let mut labels = labels::of_app(self.scope, self.name);
        for (name, value) in [
            ("app.kubernetes.io/name", &app),
            ("app.kubernetes.io/instance", &app),
            ("app.kubernetes.io/part-of", &project),
            ("app", &app),
        ] {
            labels.insert(name.to_owned(), label(value));
        }
        for name in ["app.kubernetes.io/managed-by", "managed-by"] {
            labels.insert(name.to_owned(), "norn".to_owned());
        }
        if release {
            let parts = [("commit", &self.extra.commit), ("operation", &self.extra.operation)];
            for (name, value) in parts {
                labels.extend(value.as_ref().map(|value| (format!("dev.norn.{name}"), label(value))));
            }
        }
        labels
    }

    /// What the app is given by reference or as a secret.
    fn hidden(&self) -> impl Iterator<Item = (&str, &Secret)> {
        let definition = self.definition;
        self.values.into_iter().flatten().filter_map(move |(name, value)| {
            let referred = matches!(definition.env.get(name), Some(EnvValue::Reference(_)));
            (referred || definition.secrets.contains(name)).then_some((name.as_str(), value))
        })
    }

    /// The port that it listens on, if it is there to be asked.
    fn listens(&self) -> Option<u16> {
        match self.definition.role {
            Role::Webserver => self.definition.port,
            Role::Worker => None,
        }
    }

    /// `serving`: it has probes, and a port that the Service finds.
    fn pod(&self, command: Option<&Command>, serving: bool) -> Value {
        let mut container = json!({
            "name": self.name.to_string(),
            "image": self.image,
            // By its digest it is the same wherever it is.
            "imagePullPolicy": "IfNotPresent",
            "env": self.env(),
            "securityContext": {
                "allowPrivilegeEscalation": false,
                "capabilities": {"drop": ["ALL"]},
                "seccompProfile": {"type": "RuntimeDefault"},
            },
        });
        commanded(&mut container, command);
        if let Some(name) = self.secret_name() {
            container["envFrom"] = json!([{"secretRef": {"name": name}}]);
        }
        let limits = self.limits();
        if !limits.is_empty() {
            container["resources"] = json!({"limits": limits, "requests": limits});
        }
        if serving {
            if let Some(port) = self.listens() {
                container["ports"] = json!([{"name": PORT, "containerPort": port, "protocol": "TCP"}]);
            }
            let leave = LEAVE.min(self.rollout.drain).as_secs();
            if leave > 0 && self.listens().is_some() {
                container["lifecycle"] = json!({"preStop": {"sleep": {"seconds": leave}}});
            }
            probes(&mut container, &self.definition.health);
        }
        let mut pod = json!({});
        if !self.definition.volumes.is_empty() {
            let mounts = self.definition.volumes.iter();
            container["volumeMounts"] =
                mounts.map(|volume| json!({"name": volume.name, "mountPath": volume.path})).collect();
            let source = |volume: &Volume| match &volume.host_path {
                Some(path) => json!({"name": volume.name, "hostPath": {"path": path}}),
                None => {
                    let claim = json!({"claimName": format!("{}-{}", self.name, volume.name)});
                    json!({"name": volume.name, "persistentVolumeClaim": claim})
                }
            };
            pod["volumes"] = self.definition.volumes.iter().map(source).collect();
        }
        if !self.extra.pull_secrets.is_empty() {
            let names = self.extra.pull_secrets.iter();
            pod["imagePullSecrets"] = names.map(|name| json!({"name": name})).collect();
        }
        pod["containers"] = json!([container]);
        pod
    }

    /// What the app is given openly.
    fn env(&self) -> Vec<Value> {
        let mut env: BTreeMap<String, String> = BTreeMap::new();
        for (name, value) in &self.definition.env {
            match value {
                EnvValue::Literal(text) => {
                    // A `$(NAME)` would be taken for a variable.
                    env.insert(name.clone(), text.replace("$(", "$$("));
                }
                EnvValue::Reference(_) => {}
            }
        }
        env.extend(self.listens().map(|port| ("PORT".to_owned(), port.to_string())));
        for volume in &self.definition.volumes {
            env.insert(volume.variable(), volume.path.clone());
        }
        env.into_iter().map(|(name, value)| json!({"name": name, "value": value})).collect()
    }

    fn limits(&self) -> Map<String, Value> {
        let resources = self.definition.resources;
        let cpu = resources.cpu.map(|cpu| ("cpu".to_owned(), json!(thousandths(cpu))));
        let memory = resources.memory.map(|memory| ("memory".to_owned(), json!(bytes(memory))));
        cpu.into_iter().chain(memory).collect()
    }
}

fn annotate(object: &mut Object, name: &str, value: Option<&str>) {
    if let Some(value) = value {
        object.body["metadata"]["annotations"][name] = json!(value);
    }
}

fn commanded(container: &mut Value, command: Option<&Command>) {
    let literal = |word: &String| word.replace("$(", "$$(");
    match command {
        None => {}
        // The image's entry point may be a program that a shell's words mean nothing to.
        Some(Command::Shell(line)) => container["command"] = json!(["/bin/sh", "-c", literal(line)]),
        Some(Command::Exec(words)) => {
            container["args"] = words.iter().map(|word| json!(literal(word))).collect();
        }
    }
}

/// A pod is started when it is healthy once, gets requests while it is, and is started anew where its
/// `live` path says that it is not.
fn probes(container: &mut Value, health: &Health) {
    let http = |path: &str, host: &str| json!({"httpGet": {"path": path, "port": PORT, "httpHeaders": [{"name": "Host", "value": host}]}});
    let (probe, host) = match &health.probe {
        Probe::Http { path, host } => (http(path, host), host.as_str()),
        Probe::Tcp => (json!({"tcpSocket": {"port": PORT}}), "localhost"),
        Probe::Command(line) => (json!({"exec": {"command": ["/bin/sh", "-c", line]}}), "localhost"),
        // It is ready at once and counts once it has lived long enough.
        Probe::Lives(_) => return,
    };
    let seconds = |time: Duration| time.as_secs().max(1);
    let timed = |mut probe: Value, period: Duration, failures: u64| {
        probe["periodSeconds"] = json!(seconds(period));
        probe["timeoutSeconds"] = json!(seconds(health.timeout));
        probe["failureThreshold"] = json!(failures.max(1));
        probe
    };
    let startup = STARTUP_PERIOD.min(health.interval);
    let tries = health.startup.as_secs().div_ceil(seconds(startup));
    container["startupProbe"] = timed(probe.clone(), startup, tries);
    container["readinessProbe"] = timed(probe.clone(), health.interval, 3);
    let live = health.live.as_deref().map_or(probe, |path| http(path, host));
    container["livenessProbe"] = timed(live, LIVE_PERIOD, 3);
}

/// An amount of memory as the cluster writes it itself: in the largest unit that is exact.
fn bytes(amount: u64) -> String {
    let units = ["", "Ki", "Mi", "Gi", "Ti"];
    let mut whole = amount;
    let mut unit = 0;
    while whole != 0 && whole.is_multiple_of(1024) && unit + 1 < units.len() {
        whole /= 1024;
        unit += 1;
    }
    format!("{whole}{}", units[unit])
}

/// Processors as the cluster writes them itself.
fn thousandths(amount: u64) -> String {
    if amount.is_multiple_of(1000) { (amount / 1000).to_string() } else { format!("{amount}m") }
}

/// A text as a label's value may be.
fn label(text: &str) -> String {
    let fits = |c: char| if c.is_ascii_alphanumeric() || "-_.".contains(c) { c } else { '-' };
    let cut: String = text.chars().map(fits).take(LABEL).collect();
    cut.trim_matches(|c: char| !c.is_ascii_alphanumeric()).to_owned()
}
