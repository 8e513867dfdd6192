//! The parts of a cluster of one node, as processes of a world, and what each wants to be told.
//!
//! They are built by `tests/kube/build`, but for containerd and its network plugins, which are
//! Debian's. Ports are the usual ones, as nobody else is on the world's network.

use std::fmt::Write;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use super::super::world::{ADDRESS, Served, World, last_lines, run};

const API: &str = "https://127.0.0.1:6443";
const TOKEN: &str = "of-the-administrator-of-this-test-cluster";

/// Where Debian has containerd's network plugins.
pub const PLUGINS: &str = "/usr/lib/cni";

/// Where the apiserver is: for who is on this machine, for pods by its service, for the node.
const ADDRESSES: [&str; 3] = ["127.0.0.1", "10.96.0.1", ADDRESS];

/// Makes an authority, the apiserver's certificate by it, and the key that signs pods' tokens.
const KEYS: &str = r#"set -e
new="-newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes"
openssl req -x509 $new -days 2 -subj /CN=norn-test -keyout ca.key -out ca.crt
openssl req $new -subj /CN=apiserver -addext "subjectAltName=IP:$ADDRESSES" -keyout apiserver.key -out apiserver.csr
openssl x509 -req -in apiserver.csr -CA ca.crt -CAkey ca.key -CAcreateserial -days 2 -copy_extensions copy \
    -out apiserver.crt
openssl genrsa -out accounts.key 2048"#;

/// A pod's network: a bridge on the node, and ports of the node.
const NETWORK: &str = r#"{"cniVersion": "0.4.0", "name": "pods", "plugins": [
  {"type": "bridge", "bridge": "pods", "isGateway": true, "ipMasq": true, "hairpinMode": true,
   "ipam": {"type": "host-local", "ranges": [[{"subnet": "10.88.0.0/16"}]],
            "routes": [{"dst": "0.0.0.0/0"}]}},
  {"type": "portmap", "capabilities": {"portMappings": true}}]}
"#;

/// Of what the apiserver is asked, what service accounts ask is kept, and where.
const AUDIT: &str = "apiVersion: audit.k8s.io/v1
kind: Policy
omitStages: [RequestReceived]
rules:
- {level: Metadata, userGroups: [\"system:serviceaccounts\"]}
- {level: None}
";
const ASKED: &str = "asked.log";

/// Where pods look names up. Nobody answers, but a node without it complains of every pod.
const DNS: &str = "10.96.0.10";

/// How many claims of storage a cluster of our own can meet in its life.
const VOLUMES: usize = 30;

/// Where `tests/kube/build` puts what it builds.
pub fn folder() -> PathBuf {
    let module = include_str!("../../kube/go.mod");
    let mut versions = module.lines().filter_map(|line| line.trim().strip_prefix("k8s.io/kubernetes "));
    let version = versions.next().and_then(|rest| rest.split(' ').next()).expect("the module requires it");
    let target = Path::new(env!("CARGO_TARGET_TMPDIR")).parent().expect("it is in the target folder");
    target.join("kube").join(version)
}

pub struct Parts {
    pub kubeconfig: PathBuf,
    served: Vec<Served>,
}

impl Parts {
    /// Starts them all. `pause` is the image that holds a pod's network: it only sleeps.
    pub fn start(world: &Arc<World>, bin: &Path, pause: &str) -> Self {
        let mut parts = Starting { world, bin, served: Vec::new() };
        parts.etcd();
        parts.containerd(pause);
        let kubeconfig = parts.apiserver();
        parts.others(&kubeconfig);
        parts.kubelet(&kubeconfig);
        Self { kubeconfig, served: parts.served }
    }

    /// Waits until pods can be made.
    pub fn until_ready(&self, kubectl: &dyn Fn(&str) -> Result<String, String>) {
        let began = Instant::now();
        let ready = "get node node --output jsonpath={.status.conditions[?(@.type==\"Ready\")].status}";
        loop {
            let said = kubectl(ready);
            if said.as_deref() == Ok("True") {
                return;
            }
            let late = began.elapsed() > Duration::from_secs(60);
            assert!(!late, "the node is not ready: {said:?}\n{}", self.logs());
            thread::sleep(Duration::from_millis(50));
        }
    }

    /// Storage, in YAML: what is claimed with no class is bound to a folder of the world, once.
    pub fn storage(world: &World) -> String {
        let mut objects = "apiVersion: storage.k8s.io/v1\nkind: StorageClass\nmetadata: {name: folders, annotations: \
             {storageclass.kubernetes.io/is-default-class: \"true\"}}\nprovisioner: kubernetes.io/no-provisioner\n"
            .to_owned();
        for number in 1..=VOLUMES {
            objects += &Self::volume(&world.path(&format!("volumes/{number}")), &number.to_string());
        }
        objects
    }

    /// What the apiserver was asked by service accounts, a line of JSON each.
    pub fn asked(&self) -> String {
        fs::read_to_string(self.kubeconfig.with_file_name(ASKED)).unwrap_or_default()
    }

    /// What meets one claim of storage.
    pub fn volume(folder: &Path, name: &str) -> String {
        format!(
            "---\napiVersion: v1\nkind: PersistentVolume\nmetadata: {{name: folder-{name}}}\nspec:\n  \
             capacity: {{storage: 100Gi}}\n  accessModes: [ReadWriteOnce, ReadWriteMany]\n  \
             storageClassName: folders\n  hostPath: {{path: {}, type: DirectoryOrCreate}}\n",
            folder.display()
        )
    }

    /// What their logs end with.
    pub fn logs(&self) -> String {
        let mut text = String::new();
        for part in &self.served {
            writeln!(text, "-- {}\n{}", part.name(), last_lines(&part.log())).expect("a text takes all");
        }
        text
    }
}

/// Parts, of which some run.
struct Starting<'a> {
    world: &'a Arc<World>,
    bin: &'a Path,
    served: Vec<Served>,
}

impl Starting<'_> {
    fn path(&self, name: &str) -> String {
        self.world.path(name).display().to_string()
    }

    /// Starts one of the built programs with these arguments, split at white space.
    fn serve(&mut self, program: &str, arguments: &str) {
        let mut command = self.world.command(&self.bin.join(program).display().to_string());
        command.args(arguments.split_whitespace());
        self.served.push(self.world.serve(program, command));
    }

    fn etcd(&mut self) {
        let data = self.path("etcd");
        self.serve(
            "etcd",
            &format!(
                "--data-dir {data} --unsafe-no-fsync --log-level warn
                 --listen-client-urls http://127.0.0.1:2379 --advertise-client-urls http://127.0.0.1:2379
                 --listen-peer-urls http://127.0.0.1:2380 --initial-advertise-peer-urls http://127.0.0.1:2380
                 --initial-cluster default=http://127.0.0.1:2380"
            ),
        );
    }

    /// Starts it, and gives the kubeconfig of an administrator.
    fn apiserver(&mut self) -> PathBuf {
        let keys = self.path("keys");
        fs::create_dir(&keys).expect("the folder is made");
        let mut sh = Command::new("sh");
        let made = run(sh.args(["-c", KEYS]).current_dir(&keys).env("ADDRESSES", ADDRESSES.join(",IP:")));
        made.unwrap_or_else(|error| panic!("the keys are not made: {error}"));
        let tokens = self.world.write("tokens.csv", &format!("{TOKEN},admin,admin,system:masters\n"));
        let audit = self.world.write("audit.yaml", AUDIT);
        self.serve(
            "kube-apiserver",
            &format!(
                "--etcd-servers http://127.0.0.1:2379 --secure-port 6443 --advertise-address {ADDRESS}
                 --tls-cert-file {keys}/apiserver.crt --tls-private-key-file {keys}/apiserver.key
                 --token-auth-file {} --authorization-mode RBAC --allow-privileged
                 --service-account-key-file {keys}/accounts.key
                 --service-account-signing-key-file {keys}/accounts.key
                 --service-account-issuer {API} --service-cluster-ip-range 10.96.0.0/16
                 --service-node-port-range 32000-32767 --kubelet-preferred-address-types InternalIP
                 --audit-policy-file {} --audit-log-path {}",
                tokens.display(),
                audit.display(),
                self.path(ASKED)
            ),
        );
        let api = self.served.last().expect("it was just put there");
        // It waits for etcd before it listens.
        api.until_listening(6443);
        let kubeconfig = format!(
            "apiVersion: v1\nkind: Config\ncurrent-context: test\n\
             contexts: [{{name: test, context: {{cluster: test, user: admin}}}}]\n\
             users: [{{name: admin, user: {{token: {TOKEN}}}}}]\n\
             clusters: [{{name: test, cluster: {{server: \"{API}\", certificate-authority: {keys}/ca.crt}}}}]\n"
        );
        self.world.write("kubeconfig", &kubeconfig)
    }

    fn others(&mut self, kubeconfig: &Path) {
        let keys = self.path("keys");
        let kubeconfig = kubeconfig.display();
        let access = format!(
            "--kubeconfig {kubeconfig} --authentication-kubeconfig {kubeconfig}
             --authorization-kubeconfig {kubeconfig} --leader-elect=false --secure-port 0"
        );
        self.serve(
            "kube-controller-manager",
            &format!(
                "{access} --service-account-private-key-file {keys}/accounts.key --root-ca-file {keys}/ca.crt"
            ),
        );
        self.serve("kube-scheduler", &access);
    }

    fn containerd(&mut self, pause: &str) {
        let network = self.world.write("cni/pods.conflist", NETWORK);
        let networks = network.parent().expect("it is in a folder").display();
        // A container's score below our own, which only a privilege that is not everywhere allows,
        // would end runc.
        let config = format!(
            r#"version = 2
root = "{root}"
state = "{state}"
[grpc]
address = "{socket}"
[ttrpc]
address = "{socket}.ttrpc"
[plugins."io.containerd.internal.v1.opt"]
path = "{root}/opt"
[plugins."io.containerd.grpc.v1.cri"]
sandbox_image = "{pause}"
restrict_oom_score_adj = true
[plugins."io.containerd.grpc.v1.cri".cni]
bin_dir = "{PLUGINS}"
conf_dir = "{networks}"
"#,
            root = self.path("containerd"),
            state = self.path("containerd-state"),
            socket = self.path("containerd.sock"),
        );
        let file = self.world.write("containerd.toml", &config);
        let mut command = self.world.command("containerd");
        command.arg("--config").arg(file);
        self.served.push(self.world.serve("containerd", command));
    }

    fn kubelet(&mut self, kubeconfig: &Path) {
        let group = format!("/{}", self.world.name());
        for controller in fs::read_dir("/sys/fs/cgroup").into_iter().flatten().flatten() {
            // In the one tree of newer kernels these are files and others' groups.
            if controller.path().join("cgroup.procs").exists() {
                fs::create_dir_all(controller.path().join(&group[1..])).expect("root may make a group");
            }
        }
        let socket = self.path("containerd.sock");
        let nameservers = self.world.write("resolv.conf", "");
        let config = format!(
            "apiVersion: kubelet.config.k8s.io/v1beta1\nkind: KubeletConfiguration\n\
             containerRuntimeEndpoint: unix://{socket}\nresolvConf: {resolv}\n\
             clusterDNS: [{DNS}]\nclusterDomain: cluster.local\n\
             cgroupDriver: cgroupfs\ncgroupRoot: {group}\nfailCgroupV1: false\nfailSwapOn: false\n\
             enforceNodeAllocatable: []\nmaxPods: 250\nserializeImagePulls: false\n\
             evictionHard: {{memory.available: 100Mi, nodefs.available: 1%, imagefs.available: 1%, nodefs.inodesFree: 1%}}\n\
             imageGCHighThresholdPercent: 100\nshutdownGracePeriod: 0s\n\
             authentication: {{anonymous: {{enabled: true}}, webhook: {{enabled: false}}}}\n\
             authorization: {{mode: AlwaysAllow}}\n",
            resolv = nameservers.display(),
        );
        let config = self.world.write("kubelet.yaml", &config);
        let (root, kubeconfig) = (self.path("kubelet"), kubeconfig.display());
        self.serve(
            "kubelet",
            &format!(
                "--config {} --kubeconfig {kubeconfig} --root-dir {root} --cert-dir {root}/pki
                 --hostname-override node --node-ip {ADDRESS}",
                config.display()
            ),
        );
        self.serve(
            "kube-proxy",
            &format!(
                "--kubeconfig {kubeconfig} --hostname-override node --proxy-mode iptables
                 --cluster-cidr 10.88.0.0/16 --conntrack-max-per-core 0
                 --conntrack-tcp-timeout-established 0s --conntrack-tcp-timeout-close-wait 0s"
            ),
        );
    }
}
