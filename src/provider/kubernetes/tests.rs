//! Objects as text, and how they differ.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::net::IpAddr;
use std::path::Path;
use std::time::Duration;

use serde_json::json;

use super::drift::drift;
use super::kinds::Object;
use super::objects::{App, Extra};
use crate::desired::{
    Command, Definition, EnvValue, Front, Health, Ingress, Probe, Resources, Role, Rollout, Runtime, Volume,
};
use crate::secret::Secret;
use crate::state::Scope;

fn definition() -> Definition {
    Definition {
        role: Role::Webserver,
        runtime: Runtime::Kubernetes,
        engine: None,
        command: Some(Command::Exec(vec!["./api".to_owned(), "--home=$(HOME)".to_owned()])),
        env: BTreeMap::from([
            ("LOG".to_owned(), EnvValue::Literal("info".to_owned())),
            ("TOKEN".to_owned(), EnvValue::Reference("${TOKEN}".to_owned())),
        ]),
        secrets: BTreeSet::from(["KEY".to_owned()]),
        port: Some(8080),
        front: Front::On(IpAddr::from([127, 0, 0, 1])),
        replicas: 2,
        health: Health {
            probe: Probe::Http { path: "/healthz".to_owned(), host: "api.example.com".to_owned() },
            live: Some("/livez".to_owned()),
            startup: Duration::from_secs(150),
            interval: Duration::from_secs(10),
            timeout: Duration::from_secs(5),
        },
        resources: Resources { cpu: Some(500), memory: Some(256 << 20) },
        volumes: Vec::new(),
        ingress: Some(Ingress { class: "traefik".to_owned(), host: "api.example.com".to_owned() }),
    }
}

fn worker() -> Definition {
    let health = Health { probe: Probe::Lives(Duration::from_secs(5)), ..definition().health };
    let resources = Resources { cpu: Some(2000), memory: None };
    let command = Some(Command::Shell("exec ./work".to_owned()));
    Definition { role: Role::Worker, command, port: None, replicas: 1, health, resources, ..definition() }
}

fn with<T>(definition: &Definition, extra: &Extra, value: &str, look: impl FnOnce(&App<'_>) -> T) -> T {
    let scope = Scope { project: "shop".parse().expect("a name"), stage: "prod".parse().ok() };
    let values = ["TOKEN", "KEY"].map(|name| (name.to_owned(), Secret::new(format!("{value} {name}"))));
    look(&App {
        scope: &scope,
        name: &"api".parse().expect("a name"),
        definition,
        image: "registry.example.com/shop/api@sha256:0123",
        values: Some(&BTreeMap::from(values)),
        key: &Secret::new("the store's"),
        rollout: Rollout::default(),
        extra,
    })
}

/// Compares with a file; NORN_UPDATE writes it anew.
fn same_as(name: &str, objects: &[Object]) {
    let mut text = String::new();
    for object in objects {
        let body = serde_json::to_string_pretty(&object.body).expect("it is JSON");
        writeln!(text, "{}\n{body}\n", object.address).expect("it is written to memory");
    }
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/kubernetes").join(name);
    if std::env::var_os("NORN_UPDATE").is_some() {
        std::fs::write(&path, &text).expect("it is written");
    }
    assert_eq!(text, std::fs::read_to_string(&path).unwrap_or_default(), "{}", path.display());
}

#[test]
fn a_webserver_with_an_ingress_and_all_else() {
    let extra = Extra {
        pull_secrets: vec!["registry".to_owned()],
        commit: Some("0123456789ab".to_owned()),
        operation: Some("deploy/api".to_owned()),
        release: Some("api:0123456789ab".to_owned()),
        digest: Some("5f0c".to_owned()),
        ..Extra::default()
    };
    with(&definition(), &extra, "one", |app| same_as("webserver.txt", &app.objects()));
}

#[test]
fn a_worker_with_a_volume_and_its_migration() {
    let volume = Volume {
        name: "data".to_owned(),
        path: "/data".to_owned(),
        size: Some(1 << 30),
        host_path: None,
        class: Some("local-path".to_owned()),
    };
    let definition = Definition { volumes: vec![volume], ..worker() };
    let extra = Extra::default();
    with(&definition, &extra, "one", |app| {
        let mut objects = app.objects();
        let migrate = Command::Shell("./migrate".to_owned());
        objects.push(app.job("api-migrate-1", &migrate, Duration::from_secs(600)));
        same_as("worker.txt", &objects);
    });
}

#[test]
fn another_value_is_another_secret_and_nothing_else_shows_it() {
    let extra = Extra::default();
    let deployment = |value: &str| with(&definition(), &extra, value, |app| app.deployment());
    let name = |value: &str| with(&definition(), &extra, value, |app| app.secret_name());
    assert_eq!(name("one"), name("one"));
    assert_ne!(name("one"), name("two"));
    let (one, two) = (deployment("one"), deployment("two"));
    let differences = drift(&two, &one.body);
    let fields: Vec<&str> = differences.iter().map(|one| &*one.field).collect();
    assert_eq!(fields, ["spec.template.spec.containers[api].envFrom"]);
    assert!(!one.body.to_string().contains("one TOKEN"));
    let bare = Definition { env: BTreeMap::new(), secrets: BTreeSet::new(), ..definition() };
    assert_eq!(with(&bare, &extra, "one", |app| app.secret_name()), None);
}

#[test]
fn what_norn_owns_and_does_not_want_is_told_and_nothing_of_others() {
    let extra = Extra::default();
    let wanted = with(&definition(), &extra, "one", |app| app.service().expect("it listens"));
    let mut found = wanted.body.clone();
    found["metadata"]["annotations"] = json!({"norn/old": "x", "theirs": "y"});
    found["spec"]["clusterIP"] = json!("10.0.0.1");
    found["spec"]["ports"][0]["targetPort"] = json!(9000);
    found["spec"]["ports"][0]["name"] = json!("theirs");
    let fields = json!({"f:metadata": {"f:annotations": {"f:norn/old": {}}}, "f:spec": {"f:ports": {
        ".": {}, "k:{\"port\":80,\"protocol\":\"TCP\"}": {".": {}, "f:targetPort": {}},
    }}});
    let theirs = json!({"f:metadata": {"f:annotations": {"f:theirs": {}}}});
    found["metadata"]["managedFields"] = json!([
        {"manager": "norn", "operation": "Apply", "fieldsV1": fields},
        {"manager": "kubectl", "operation": "Update", "fieldsV1": theirs},
    ]);
    let differences: Vec<_> =
        drift(&wanted, &found).into_iter().map(|one| (one.field, one.wanted, one.found)).collect();
    let expected = [
        ("spec.ports[80].targetPort".to_owned(), Some(json!("http")), Some(json!(9000))),
        ("metadata.annotations.\"norn/old\"".to_owned(), None, Some(json!("x"))),
    ];
    assert_eq!(differences, expected);
}
