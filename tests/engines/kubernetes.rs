//! Apps on a Kubernetes cluster, as norn puts them there.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use norn::desired::{
    Command, Definition, EnvValue, Front, Health, Ingress, Probe, Resources, Role, Rollout, Runtime, Volume,
};
use norn::provider::kubernetes::apply::{Change, How};
use norn::provider::kubernetes::drift::drift;
use norn::provider::kubernetes::kinds::{Kind, Object};
use norn::provider::kubernetes::objects::{App, Extra, joined};
use norn::provider::kubernetes::reasons::Reason;
use norn::provider::kubernetes::rollout::WaitError;
use norn::provider::kubernetes::{Cluster as Reached, ClusterError};
use norn::provider::labels;
use norn::secret::Secret;
use norn::spec::name::AppName;
use norn::state::Scope;
use serde_json::json;

use crate::cluster::{Cluster, Namespace};
use crate::containers::greeter;
use crate::{get, get_soon};

const WHAT: &str = "apps on Kubernetes";

fn wait<T>(future: impl Future<Output = T>) -> T {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    runtime.expect("a runtime").block_on(future)
}

async fn reach(kubeconfig: &Path, space: &Namespace<'_>) -> Result<Reached, ClusterError> {
    Reached::connect_by(&[kubeconfig.to_owned()], None, &space.name).await
}

async fn admin(space: &Namespace<'_>) -> Reached {
    reach(space.cluster.kubeconfig(), space).await.expect("the cluster is there")
}

/// An app to be put, of which tests change what they are about.
struct Wanted {
    scope: Scope,
    name: AppName,
    definition: Definition,
    image: String,
    values: BTreeMap<String, Secret>,
    key: Secret,
    rollout: Rollout,
    extra: Extra,
}

impl Wanted {
    /// A webserver at port 8080.
    fn web(image: &str) -> Self {
        let health = Health {
            probe: Probe::Http { path: "/".to_owned(), host: "localhost".to_owned() },
            live: None,
            startup: Duration::from_secs(30),
            interval: Duration::from_secs(1),
            timeout: Duration::from_secs(2),
        };
        let env = BTreeMap::from([
            ("GREETING".to_owned(), EnvValue::Literal("$(HOME) sweet".to_owned())),
            ("TOKEN".to_owned(), EnvValue::Reference("${TOKEN}".to_owned())),
        ]);
        let definition = Definition {
            engine: None,
            role: Role::Webserver,
            runtime: Runtime::Kubernetes,
            command: None,
            env,
            secrets: BTreeSet::new(),
            port: Some(8080),
            front: Front::On(IpAddr::from([127, 0, 0, 1])),
            replicas: 1,
            health,
            resources: Resources { cpu: None, memory: Some(32 << 20) },
            volumes: Vec::new(),
            ingress: None,
        };
        Self {
            scope: Scope {
                project: "shop".parse().expect("a name"),
                stage: Some("prod".parse().expect("a name")),
            },
            name: "web".parse().expect("a name"),
            definition,
            image: image.to_owned(),
            values: BTreeMap::from([("TOKEN".to_owned(), Secret::new("s3cret"))]),
            key: Secret::new("k"),
            rollout: Rollout { timeout: Duration::from_secs(60), drain: Duration::from_secs(3) },
            extra: Extra::default(),
        }
    }

    fn app(&self) -> App<'_> {
        App {
            scope: &self.scope,
            name: &self.name,
            definition: &self.definition,
            image: &self.image,
            values: Some(&self.values),
            key: &self.key,
            rollout: self.rollout,
            extra: &self.extra,
        }
    }

    async fn apply(&self, reached: &Reached) -> Result<Vec<Change>, ClusterError> {
        let mut changes = Vec::new();
        for object in self.app().objects() {
            changes.push(reached.apply(&self.scope, &object, How::default()).await?.change);
        }
        Ok(changes)
    }

    async fn roll(&self, reached: &Reached, within: u64) -> Result<(), WaitError> {
        self.apply(reached).await.expect("it is put");
        let never = std::future::pending();
        reached.rolled_out(self.name.as_str(), Duration::from_secs(within), never, |_| {}).await
    }

    fn selector(&self) -> String {
        joined(&labels::of_app(&self.scope, &self.name))
    }
}

/// A port of the node that leads to the app.
fn node_port(space: &Namespace<'_>) -> u16 {
    space.apply(
        "apiVersion: v1
kind: Service
metadata: {name: outside}
spec: {type: NodePort, selector: {dev.norn.app: web}, ports: [{port: 80, targetPort: http}]}
",
    );
    let port = space.ok("get service outside --output jsonpath={.spec.ports[0].nodePort}");
    port.parse().expect("it has a port")
}

fn base(cluster: &Cluster) -> String {
    cluster.registry.base(cluster.engine, "1")
}

#[test]
fn what_is_applied_twice_stays_and_what_others_edit_is_told_by_field() {
    let Some(cluster) = Cluster::shared(WHAT) else { return };
    let (space, mut wanted) = (cluster.namespace(), Wanted::web(&base(cluster)));
    let volume =
        Volume { name: "data".into(), path: "/data".into(), size: None, host_path: None, class: None };
    wanted.definition.volumes.push(volume);
    let ingress = Ingress { class: "traefik".to_owned(), host: "shop.example.com".to_owned() };
    wanted.definition.ingress = Some(ingress);
    wanted.extra.commit = Some("0123456789ab".to_owned());
    wait(async {
        let reached = admin(&space).await;
        let objects = wanted.app().objects();
        let dry = How { dry_run: true, ..How::default() };
        for object in &objects {
            let would = reached.apply(&wanted.scope, object, dry).await.expect("it could be put");
            assert_eq!(would.change, Change::Created);
        }
        assert_eq!(reached.live(&wanted.scope).await.expect("it lists"), BTreeMap::new());
        assert_eq!(wanted.apply(&reached).await, Ok(vec![Change::Created; 5]));
        // Controllers write into the status meanwhile.
        reached.rolled_out("web", Duration::from_secs(1), async {}, |_| {}).await.expect_err("called off");
        for object in &objects {
            let applied = reached.apply(&wanted.scope, object, dry).await.expect("it could be put");
            assert_eq!(applied.change, Change::Same, "{}", object.address);
        }
        assert_eq!(
            space.ok("get deployment web --output jsonpath={.spec.template.spec.containers[0].image}"),
            wanted.image
        );
        let path = "{.metadata.labels.app\\.kubernetes\\.io/managed-by}";
        assert_eq!(space.ok(&format!("get service web --output jsonpath={path}")), "norn");
        let live = reached.live(&wanted.scope).await.expect("it lists");
        assert_eq!(live.len(), objects.len());
        for object in &objects {
            assert_eq!(drift(object, &live[&object.address]), [], "{}", object.address);
        }
        let secret = live.iter().find(|(address, _)| address.kind == Kind::Secret).expect("it has one");
        assert!(!secret.1.to_string().contains("czNjcmV0"), "{}", secret.1);

        let patch = r#"{"spec":{"replicas":3,"template":{"spec":{"containers":[{"name":"web","env":[{"name":"GREETING","value":"mine"},{"name":"THEIRS","value":"x"}]}]}}},"metadata":{"annotations":{"theirs":"y"}}}"#;
        space.ok(&format!(
            "patch deployment web --field-manager kubectl-edit --type strategic --patch {patch}"
        ));
        let deployment = wanted.app().deployment();
        let live = reached.live(&wanted.scope).await.expect("it lists");
        let found: Vec<_> = drift(&deployment, &live[&deployment.address])
            .into_iter()
            .map(|one| (one.field, one.wanted.expect("it is wanted"), one.found.expect("it is there")))
            .collect();
        let container = "spec.template.spec.containers[web]";
        let expected = [
            ("spec.replicas".to_owned(), json!(1), json!(3)),
            (format!("{container}.env[GREETING].value"), json!("$$(HOME) sweet"), json!("mine")),
        ];
        assert_eq!(found, expected);
        let refused =
            reached.apply(&wanted.scope, &deployment, How::default()).await.expect_err("it is theirs");
        let ClusterError::Conflict { claims, .. } = &refused else { panic!("{refused}") };
        assert!(claims.contains(&("kubectl-edit".to_owned(), ".spec.replicas".to_owned())), "{claims:?}");
        let adopt = How { adopt: true, ..How::default() };
        let applied = reached.apply(&wanted.scope, &deployment, adopt).await.expect("it is taken over");
        assert_eq!((applied.change, drift(&deployment, &applied.body)), (Change::Changed, Vec::new()));

        // What norn set and does not want any more.
        let mut fewer = Wanted::web(&wanted.image);
        fewer.extra = wanted.extra.clone();
        fewer.definition = wanted.definition.clone();
        fewer.definition.env.remove("GREETING");
        let left = drift(&fewer.app().deployment(), &applied.body);
        assert_eq!(left.len(), 1, "{left:?}");
        assert_eq!(
            (left[0].field.as_str(), &left[0].wanted),
            (&*format!("{container}.env[GREETING]"), &None)
        );

        for object in objects.iter().rev() {
            let gone = reached.delete(&wanted.scope, &object.address, Duration::from_secs(60)).await;
            gone.expect("it goes");
            reached.delete(&wanted.scope, &object.address, Duration::ZERO).await.expect("it is gone");
        }
        assert_eq!(reached.live(&wanted.scope).await.expect("it lists"), BTreeMap::new());
        assert_eq!(space.ok("get service outside --ignore-not-found"), "");
    });
}

#[test]
fn a_rollout_loses_no_request_and_one_that_fails_leaves_the_old_version() {
    let Some(cluster) = Cluster::shared(WHAT) else { return };
    let push = |name: &str, greeting: &str| {
        cluster.engine.push(&greeter(cluster.engine, cluster.registry, name, greeting))
    };
    let images = [push("rolled:1", "one"), push("rolled:2", "two")];
    let space = cluster.namespace();
    let mut wanted = Wanted::web(&images[0]);
    wanted.definition.replicas = 2;
    wait(async {
        let reached = admin(&space).await;
        wanted.roll(&reached, 60).await.unwrap_or_else(|error| panic!("{error}\n{}", space.story()));
        let (node, port) = (cluster.node_address().to_owned(), node_port(&space));
        assert_eq!(get_soon(&node, port), "one");
        let over = Arc::new(AtomicBool::new(false));
        let asking = {
            let (node, over) = (node.clone(), Arc::clone(&over));
            thread::spawn(move || {
                let mut answers: BTreeMap<Result<String, String>, u32> = BTreeMap::new();
                while !over.load(Ordering::Relaxed) {
                    *answers.entry(get(&node, port)).or_default() += 1;
                }
                answers
            })
        };
        wanted.image.clone_from(&images[1]);
        let mut told = Vec::new();
        wanted.apply(&reached).await.expect("it is put");
        let never = std::future::pending();
        let rolled =
            reached.rolled_out("web", Duration::from_secs(60), never, |line| told.push(line.to_owned()));
        rolled.await.unwrap_or_else(|error| panic!("{error}\n{}", space.story()));
        over.store(true, Ordering::Relaxed);
        let answers = asking.join().expect("it asks");
        let lost: Vec<_> = answers.iter().filter(|(answer, _)| answer.is_err()).collect();
        assert!(lost.is_empty(), "{lost:?}");
        assert!(answers.contains_key(&Ok("two".to_owned())), "{answers:?}");
        assert!(told.iter().any(|line| line.contains("1 of 2 new replicas")), "{told:?}");

        wanted.image = cluster.registry.image("of-nobody:1");
        let failed = wanted.roll(&reached, 8).await.expect_err("there is no such image");
        let WaitError::Failed { story, .. } = &failed else { panic!("{failed}") };
        let pull = |reason: &Reason| matches!(reason, Reason::Waiting { reason, .. } if reason.contains("ImagePull"));
        assert!(story.reasons.iter().any(pull), "{failed}");
        assert!(failed.to_string().contains("of-nobody"), "{failed}");
        assert_eq!(get_soon(&node, port), "two");

        wanted.image.clone_from(&images[1]);
        wanted.definition.command =
            Some(Command::Shell("echo it went \"$TOKEN\"; echo boom $GREETING; exit 3".to_owned()));
        let failed = wanted.roll(&reached, 8).await.expect_err("it ends at once");
        let WaitError::Failed { story, .. } = &failed else { panic!("{failed}") };
        let ended = |reason: &Reason| matches!(reason, Reason::Ended { code: 3, .. });
        assert!(story.reasons.iter().any(ended), "{failed}");
        assert_eq!(story.log, ["it went s3cret", "boom $(HOME) sweet"], "{failed}");
        assert_eq!(get_soon(&node, port), "two");

        wanted.definition.command = None;
        wanted.roll(&reached, 60).await.unwrap_or_else(|error| panic!("{error}\n{}", space.story()));
        let before = space.ok("get pods --output jsonpath={.items[*].metadata.name}");
        reached.restart("web", jiff::Timestamp::now()).await.expect("it restarts");
        let never = std::future::pending();
        reached.rolled_out("web", Duration::from_secs(60), never, |_| {}).await.expect("it comes back");
        let selected =
            "get pods --field-selector status.phase=Running --output jsonpath={.items[*].metadata.name}";
        assert_ne!(space.ok(selected), before);
        // The next apply restarts nothing.
        assert_eq!(wanted.apply(&reached).await, Ok(vec![Change::Same; 3]));
    });
}

#[test]
fn a_job_tells_what_it_wrote_and_logs_are_followed() {
    let Some(cluster) = Cluster::shared(WHAT) else { return };
    let (space, wanted) = (cluster.namespace(), Wanted::web(&base(cluster)));
    wait(async {
        let reached = admin(&space).await;
        let secret = wanted.app().secret().expect("it has one");
        reached.apply(&wanted.scope, &secret, How::default()).await.expect("it is put");
        let run = async |name: &str, line: &str| {
            let job = wanted.app().job(name, &Command::Shell(line.to_owned()), Duration::from_secs(30));
            reached.apply(&wanted.scope, &job, How::default()).await.expect("it is put");
            reached.job_done(name, Duration::from_secs(30), std::future::pending(), |_| {}).await
        };
        run("web-migrate-1", "echo $PORT with $TOKEN").await.unwrap_or_else(|error| panic!("{error}"));
        let log = reached.last_lines("batch.kubernetes.io/job-name=web-migrate-1", 10).await;
        assert_eq!(log.expect("it has ended")[0].text, "8080 with s3cret");
        let failed = run("web-migrate-2", "echo no table; exit 4").await.expect_err("it fails");
        let WaitError::Failed { story, .. } = &failed else { panic!("{failed}") };
        assert_eq!(story.log, ["no table"], "{failed}");

        // One whose pod cannot be made does not keep anybody waiting.
        let mut lost = Wanted::web(&base(cluster));
        lost.image =
            "127.0.0.1:1/shop/none@sha256:0000000000000000000000000000000000000000000000000000000000000000"
                .to_owned();
        let job =
            lost.app().job("web-migrate-3", &Command::Shell("true".to_owned()), Duration::from_secs(600));
        reached.apply(&wanted.scope, &job, How::default()).await.expect("it is put");
        let mut told = Vec::new();
        let tell = |line: &str| told.push(line.to_owned());
        let late =
            reached.job_done("web-migrate-3", Duration::from_secs(4), std::future::pending(), tell).await;
        let late = late.expect_err("it never starts").to_string();
        assert!(late.starts_with("job/web-migrate-3 has not started after 4 s"), "{late}");
        assert!(late.contains("ErrImagePull") || late.contains("ImagePullBackOff"), "{late}");
        assert!(told.iter().any(|line| line.contains("ImagePull")), "{told:?}");

        let mut talker = Wanted::web(&wanted.image);
        talker.definition.role = Role::Worker;
        talker.definition.health.probe = Probe::Lives(Duration::from_secs(1));
        talker.definition.command =
            Some(Command::Shell("for i in 1 2 3; do echo line $i; sleep 1; done; sleep 60".to_owned()));
        talker.roll(&reached, 60).await.unwrap_or_else(|error| panic!("{error}\n{}", space.story()));
        let (mut lines, enough) = (Vec::new(), tokio::sync::Notify::new());
        let selector = talker.selector();
        let followed = reached.follow(&selector, 10, enough.notified(), |line| {
            lines.push(line.text);
            if lines.len() == 3 {
                enough.notify_one();
            }
        });
        let followed = tokio::time::timeout(Duration::from_secs(20), followed).await;
        followed.expect("it ends").expect("there are logs");
        assert_eq!(lines, ["line 1", "line 2", "line 3"]);
        let last = reached.last_lines(&selector, 1).await.expect("there are logs");
        assert_eq!(last.len(), 1, "{last:?}");
        assert!(last[0].pod.starts_with("web-") && last[0].text == "line 3", "{last:?}");
    });
}

#[test]
fn each_refusal_says_what_it_is() {
    let Some(cluster) = Cluster::shared(WHAT) else { return };
    let (space, wanted) = (cluster.namespace(), Wanted::web(&base(cluster)));
    let limited = space.limited("get,list", "deployments.apps");
    let token = cluster.kubeconfig_with("of-nobody");
    let nowhere = cluster.kubeconfig_at("https://127.0.0.1:1");
    wait(async {
        let deployment = wanted.app().deployment();
        let refused = reach(&limited, &space)
            .await
            .expect("they may look")
            .apply(&wanted.scope, &deployment, How::default())
            .await
            .expect_err("they may not");
        let ClusterError::Forbidden { verb, resource, namespace, .. } = &refused else { panic!("{refused}") };
        assert_eq!(
            (&**verb, &**resource, namespace),
            ("patch", "deployments.apps", &space.name),
            "{refused}"
        );
        let refused = reach(&token, &space).await.err().expect("nobody knows them");
        assert!(matches!(refused, ClusterError::Login { .. }), "{refused}");
        let refused = reach(&nowhere, &space).await.err().expect("nobody is there");
        assert!(matches!(refused, ClusterError::Unreachable { .. }), "{refused}");
        assert!(refused.to_string().contains("refused"), "{refused}");

        let reached = admin(&space).await;
        let mut lost = reached.clone();
        lost.namespace = "of-nobody".to_owned();
        let refused = wanted.apply(&lost).await.expect_err("there is no such namespace");
        assert!(matches!(refused, ClusterError::NoNamespace { .. }), "{refused}");

        space.ok("create quota few --hard count/deployments.apps=0");
        // The quota counts from when its controller has seen it.
        space.ok("wait quota/few --timeout 20s --for jsonpath={.status.hard}");
        let refused = wanted.apply(&reached).await.expect_err("there may be none");
        assert!(matches!(refused, ClusterError::Quota { .. }), "{refused}");
        space.ok("delete quota few");

        space.ok(&format!("create deployment web --image {}", wanted.image));
        let refused = wanted.apply(&reached).await.expect_err("it is another's");
        assert!(
            matches!(&refused, ClusterError::Foreign { object, .. } if object.name == "web"),
            "{refused}"
        );
        let refused = reached.delete(&wanted.scope, &deployment.address, Duration::ZERO).await;
        assert!(matches!(refused, Err(ClusterError::Foreign { .. })), "{refused:?}");
        let adopt = How { adopt: true, ..How::default() };
        let refused =
            reached.apply(&wanted.scope, &deployment, adopt).await.expect_err("its selector is another");
        let ClusterError::Immutable { field, .. } = &refused else { panic!("{refused}") };
        assert_eq!(field, "spec.selector");
        let mut adopted = Wanted::web(&wanted.image);
        adopted.extra.selector = Some(BTreeMap::from([("app".to_owned(), "web".to_owned())]));
        let taken = reached.apply(&adopted.scope, &adopted.app().deployment(), adopt).await;
        assert_eq!(taken.expect("it is taken over").change, Change::Changed);
        let mut other = Wanted::web(&wanted.image);
        other.scope.stage = None;
        let refused =
            reached.apply(&other.scope, &deployment, How::default()).await.expect_err("it is prod's");
        assert!(refused.to_string().contains("it is of project shop, stage prod"), "{refused}");

        let mut typo: Object = wanted.app().service().expect("it has one");
        typo.body["spec"]["prots"] = json!(1);
        let refused = reached.apply(&wanted.scope, &typo, How::default()).await.expect_err("no such field");
        assert!(refused.to_string().contains("prots"), "{refused}");
    });
}

#[test]
fn a_kubeconfig_that_cannot_be_used_is_told() {
    let Some(cluster) = Cluster::shared(WHAT) else { return };
    let folder = tempfile::tempdir().expect("a temporary folder");
    let file = |name: &str, text: &str| {
        let path = folder.path().join(name);
        std::fs::write(&path, text).expect("it is written");
        path
    };
    let own = cluster.kubeconfig().to_owned();
    let refused = |files: &[std::path::PathBuf], context: Option<&str>| {
        wait(Reached::connect_by(files, context, "default")).err().expect("it is refused").to_string()
    };
    assert!(refused(&[folder.path().join("none")], None).contains("none): name one with KUBECONFIG"));
    let told = refused(std::slice::from_ref(&own), Some("elsewhere"));
    assert!(told.contains("no context `elsewhere` (there is "), "{told}");
    let broken = file("broken", "users: [{name: a, user: {token: s3cret}}\n");
    let told = refused(&[broken], None);
    assert!(told.contains("cannot be used") && !told.contains("s3cret"), "{told}");
    let empty = file("empty", "apiVersion: v1\nkind: Config\ncontexts: [{name: a}]\ncurrent-context: a\n");
    assert!(refused(std::slice::from_ref(&empty), None).contains("context a"), "{told}");
    let certificate = file(
        "certificate",
        "apiVersion: v1
kind: Config
clusters: [{name: a, cluster: {server: 'https://127.0.0.1:1', certificate-authority-data: AAAA}}]
contexts: [{name: a, context: {cluster: a, user: a}}]
current-context: a
users: [{name: a, user: {exec: {apiVersion: client.authentication.k8s.io/v1, command: /nowhere/login, interactiveMode: Never}}}]
",
    );
    let told = refused(&[certificate], None);
    assert!(told.contains("cannot be used") || told.contains("login"), "{told}");
    // Missing files are none, and the first says which context is the current one.
    let files = [folder.path().join("none"), own.clone()];
    wait(Reached::connect_by(&files, None, "default")).map(|_| ()).expect("the second is there");
    assert!(refused(&[empty, own], None).contains("context a"));
    // Who is asked has another's certificate.
    let stranger = cluster.kubeconfig_at(&cluster.server());
    let text = std::fs::read_to_string(&stranger).expect("it is there");
    let without: Vec<&str> =
        text.lines().filter(|line| !line.contains("certificate-authority-data")).collect();
    let told = refused(&[file("stranger", &without.join("\n"))], None);
    assert!(told.contains("is not trusted"), "{told}");
}
