//! A Kubernetes cluster: the one that `NORN_TEST_KUBECONFIG` names, else a real one of one node in
//! the test process's world (`parts`).
//!
//! A cluster of our own takes images from every registry of the world, by the names that they have
//! there (`127.0.0.1:PORT/...`), and meets claims of storage with folders. It has no DNS and no ingress
//! controller. What listens at [`ADDRESS`] is there for its pods, too. A user's cluster needs `NORN_TEST_REGISTRY` and `DOCKER_HOST`
//! beside it, for the images.
//!
//! The module that has this one also has `tests/support/engine.rs`, `registry.rs` and `world.rs`.

#![allow(dead_code, reason = "each test binary uses its part")]

mod parts;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, Ordering};

use self::parts::Parts;
use super::engine::Engine;
use super::registry::Registry;
use super::shared::skipped;
use super::world::{ADDRESS, World, missing, named, program, run};

/// A cluster, and an administrator's way into it.
pub struct Cluster {
    kubeconfig: PathBuf,
    kubectl: PathBuf,
    address: String,
    /// What kubectl has looked up, and kubeconfigs of others.
    folder: PathBuf,
    parts: Option<Parts>,
    pub engine: &'static Engine,
    pub registry: &'static Registry,
}

impl Cluster {
    /// The cluster of this process, with an engine and a registry for its images. The calling
    /// thread is on its network from then on. `what` is not tested where there is none.
    pub fn shared(what: &str) -> Option<&'static Self> {
        static SHARED: OnceLock<Result<Cluster, String>> = OnceLock::new();
        let engine = Engine::shared(what)?;
        let registry = Registry::shared(what)?;
        static BEGUN: AtomicBool = AtomicBool::new(false);
        let cluster = SHARED.get_or_init(|| {
            assert!(
                !BEGUN.swap(true, Ordering::Relaxed),
                "the cluster does not start: see the other failure"
            );
            match named("NORN_TEST_KUBECONFIG") {
                Some(kubeconfig) => Self::named(PathBuf::from(kubeconfig), engine, registry),
                None => Self::start(engine, registry),
            }
        });
        if let Err(why) = cluster {
            skipped(what, why);
        }
        cluster.as_ref().ok()
    }

    fn named(
        kubeconfig: PathBuf,
        engine: &'static Engine,
        registry: &'static Registry,
    ) -> Result<Self, String> {
        if named("NORN_TEST_REGISTRY").is_none() {
            return Err("NORN_TEST_KUBECONFIG is set, but not NORN_TEST_REGISTRY for its images".to_owned());
        }
        let built = parts::folder().join("kubectl");
        let kubectl = Some(built).filter(|path| path.is_file()).or_else(|| program("kubectl"));
        let kubectl = kubectl.ok_or("there is no kubectl")?;
        let folder = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).expect("a temporary folder").keep();
        let mut cluster =
            Self { kubeconfig, kubectl, address: String::new(), folder, parts: None, engine, registry };
        let path = "{.items[0].status.addresses[?(@.type==\"InternalIP\")].address}";
        cluster.address = cluster.kubectl(&format!("get nodes --output jsonpath={path}"))?;
        Ok(cluster)
    }

    fn start(engine: &'static Engine, registry: &'static Registry) -> Result<Self, String> {
        let world = World::shared("a cluster").ok_or("there is no world for it")?;
        if !world.has_own_network() {
            // kube-proxy takes the rules of all services of a network for its own.
            return Err("DOCKER_HOST is set, and a cluster of the tests' own could not reach it: set \
                        NORN_TEST_KUBECONFIG, too"
                .to_owned());
        }
        if let Some(program) = missing(&["containerd", "runc", "iptables", "openssl", "ip"]) {
            return Err(format!("there is no {program}"));
        }
        if !Path::new(parts::PLUGINS).join("host-local").is_file() {
            return Err(format!("there are no containernetworking-plugins in {}", parts::PLUGINS));
        }
        let bin = parts::folder();
        if !bin.join("etcd").is_file() {
            return Err(format!("{} is not built: run tests/kube/build", bin.display()));
        }
        let parts = Parts::start(&world, &bin, &registry.base(engine, "1"));
        let folder = world.path("kubectl");
        fs::create_dir(&folder).expect("the folder is made");
        let (kubeconfig, kubectl) = (parts.kubeconfig.clone(), bin.join("kubectl"));
        let cluster = Self {
            kubeconfig,
            kubectl,
            address: ADDRESS.to_owned(),
            folder,
            parts: Some(parts),
            engine,
            registry,
        };
        let parts = cluster.parts.as_ref().expect("it was just put there");
        parts.until_ready(&|arguments| cluster.kubectl(arguments));
        cluster.apply(&Parts::storage(&world));
        Ok(cluster)
    }

    /// Whether its node is this machine, and nobody else's.
    pub fn is_ours(&self) -> bool {
        self.parts.is_some()
    }

    /// What the apiserver of a cluster of our own was asked so far by a service account, such as
    /// `list deployments`.
    pub fn asked_by(&self, account: &str) -> Vec<String> {
        let log = self.parts.as_ref().expect("the cluster is ours").asked();
        let asked = log.lines().map(|line| serde_json::from_str(line).expect("it is JSON"));
        let by = asked.filter(|call: &serde_json::Value| {
            let who = call["user"]["username"].as_str().unwrap_or_default();
            who.strip_prefix("system:serviceaccount:") == Some(account)
        });
        let word = |call: &serde_json::Value| {
            let verb = call["verb"].as_str().expect("it has a verb");
            format!("{verb} {}", call["objectRef"]["resource"].as_str().unwrap_or_default())
        };
        by.map(|call| word(&call)).collect()
    }

    /// The kubeconfig of an administrator.
    pub fn kubeconfig(&self) -> &Path {
        &self.kubeconfig
    }

    /// Where services of type NodePort answer.
    pub fn node_address(&self) -> &str {
        &self.address
    }

    /// `kubectl` with these arguments, split at white space.
    pub fn command(&self, arguments: &str) -> Command {
        self.command_as(&self.kubeconfig, arguments)
    }

    /// The same for whoever a kubeconfig is of.
    pub fn command_as(&self, kubeconfig: &Path, arguments: &str) -> Command {
        let mut command = Command::new(&self.kubectl);
        command.arg("--cache-dir").arg(self.folder.join("cache"));
        command.args(arguments.split_whitespace()).stdin(Stdio::null());
        command.env("KUBECONFIG", kubeconfig).env("HOME", &self.folder);
        command
    }

    /// Runs `kubectl`: what it wrote, or its complaint.
    pub fn kubectl(&self, arguments: &str) -> Result<String, String> {
        run(&mut self.command(arguments))
    }

    /// Runs `kubectl`, which must succeed.
    pub fn ok(&self, arguments: &str) -> String {
        self.kubectl(arguments)
            .unwrap_or_else(|error| panic!("kubectl {arguments}: {error}\n{}", self.logs()))
    }

    /// Applies objects in YAML.
    pub fn apply(&self, objects: &str) {
        let file = self.file("objects.yaml", objects);
        self.ok(&format!("apply --filename {}", file.display()));
    }

    /// A namespace of the calling test's own, in which pods can be made.
    pub fn namespace(&self) -> Namespace<'_> {
        let unique = uuid::Uuid::new_v4().simple().to_string();
        let name = format!("norn-test-{}", &unique[..12]);
        self.ok(&format!("create namespace {name}"));
        self.ok(&format!("wait --for create --timeout 30s --namespace {name} serviceaccount/default"));
        Namespace { cluster: self, name }
    }

    /// Meets one more claim of storage with a folder, where the cluster is ours.
    pub fn room(&self, folder: &Path) {
        if self.parts.is_some() {
            self.apply(&Parts::volume(folder, &uuid::Uuid::new_v4().simple().to_string()));
        }
    }

    /// A kubeconfig that differs from the administrator's by the apiserver's URL, such as that of a
    /// proxy in between.
    pub fn kubeconfig_at(&self, server: &str) -> PathBuf {
        let name = self.ok("config view --minify --output jsonpath={.clusters[0].name}");
        self.changed(&[&format!("set-cluster {name} --server {server}")])
    }

    /// The URL of the apiserver.
    pub fn server(&self) -> String {
        self.ok("config view --minify --output jsonpath={.clusters[0].cluster.server}")
    }

    /// A kubeconfig that differs from the administrator's by its token.
    pub fn kubeconfig_with(&self, token: &str) -> PathBuf {
        self.changed(&[
            &format!("set-credentials other --token {token}"),
            "set-context --current --user other",
        ])
    }

    /// The administrator's kubeconfig after these commands of `kubectl config`.
    fn changed(&self, changes: &[&str]) -> PathBuf {
        let file = self.file("kubeconfig", &self.ok("config view --raw --minify --flatten"));
        for change in changes {
            let mut kubectl = self.command_as(&file, &format!("config {change}"));
            run(&mut kubectl).unwrap_or_else(|error| panic!("kubectl config {change}: {error}"));
        }
        file
    }

    pub fn file(&self, name: &str, text: &str) -> PathBuf {
        let path = self.folder.join(format!("{}-{name}", uuid::Uuid::new_v4().simple()));
        fs::write(&path, text).expect("it is written");
        path
    }

    /// The last lines of its parts' logs, if it is ours.
    fn logs(&self) -> String {
        self.parts.as_ref().map(Parts::logs).unwrap_or_default()
    }
}

/// A namespace of a cluster. It and all in it go when this does.
pub struct Namespace<'a> {
    pub cluster: &'a Cluster,
    pub name: String,
}

impl Namespace<'_> {
    /// Runs `kubectl` here: what it wrote, or its complaint.
    pub fn kubectl(&self, arguments: &str) -> Result<String, String> {
        self.cluster.kubectl(&format!("--namespace {} {arguments}", self.name))
    }

    /// Runs `kubectl` here, which must succeed.
    pub fn ok(&self, arguments: &str) -> String {
        self.cluster.ok(&format!("--namespace {} {arguments}", self.name))
    }

    /// Applies objects in YAML here.
    pub fn apply(&self, objects: &str) {
        let file = self.cluster.file("objects.yaml", objects);
        self.ok(&format!("apply --filename {}", file.display()));
    }

    /// A kubeconfig of somebody who may do nothing but this here: `get,list` with
    /// `pods,deployments.apps`.
    pub fn limited(&self, verbs: &str, resources: &str) -> PathBuf {
        let unique = uuid::Uuid::new_v4().simple().to_string();
        let who = format!("limited-{}", &unique[..8]);
        self.ok(&format!("create serviceaccount {who}"));
        self.ok(&format!("create role {who} --verb {verbs} --resource {resources}"));
        self.ok(&format!("create rolebinding {who} --role {who} --serviceaccount {}:{who}", self.name));
        self.cluster.kubeconfig_with(&self.ok(&format!("create token {who}")))
    }

    /// What is the matter here: pods, their events, what they last wrote.
    pub fn story(&self) -> String {
        let parts = ["get all --output wide", "get events", "logs --selector app --all-containers --tail 10"];
        let told = parts.map(|arguments| self.kubectl(arguments).unwrap_or_else(|error| error));
        format!("{}\n{}", told.join("\n"), self.cluster.logs())
    }
}

impl Drop for Namespace<'_> {
    fn drop(&mut self) {
        let _left = self.cluster.kubectl(&format!("delete namespace {} --wait=false", self.name));
    }
}
