//! How long many apps take, beside kubectl with as many objects on the same cluster in the same run.

use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::io::{BufRead, BufReader};
use std::process::Stdio;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use super::{Shop, WHAT};
use crate::cluster::Cluster;

/// Each is a Secret, a Service and a Deployment.
const APPS: usize = 200;

#[test]
#[ignore = "a bench: `cargo test --release --test engines bench -- --ignored --nocapture`"]
fn two_hundred_apps_beside_kubectl() {
    let Some(cluster) = Cluster::shared(WHAT) else { return };
    let mut shop = Shop::new(cluster);
    shop.sandbox.env.insert("TOKEN".to_owned(), "hunter2222".to_owned());
    let image = cluster.registry.base(cluster.engine, "1");
    let mut apps = String::new();
    for number in 0..APPS {
        writeln!(
            apps,
            "  web{number}: {{role: webserver, image: \"{image}\", port: 8080, replicas: 0, secrets: [TOKEN]}}"
        )
        .expect("it is written to memory");
    }
    shop.apps(&apps);
    // All at once: what is waited for then keeps nothing from being sent.
    let namespace = &shop.space.name;
    let line = format!("get deployments --namespace {namespace} --watch --output name");
    let mut watch = cluster.command(&line).stdout(Stdio::piped()).spawn().expect("kubectl starts");
    let lines = BufReader::new(watch.stdout.take().expect("it is piped")).lines();
    let began = Instant::now();
    let all_there = std::thread::spawn(move || {
        let mut there = BTreeSet::new();
        lines.map_while(Result::ok).find(|line| there.insert(line.clone()) && there.len() == APPS)?;
        Some(began.elapsed())
    });
    let applied = shop.run("apply --yes --parallelism 200");
    let apply = began.elapsed();
    assert_eq!(applied.code, 0, "{}", applied.err);
    watch.kill().and_then(|()| watch.wait()).expect("it is ours");
    let sent_by_norn = all_there.join().expect("it reads").expect("all are there");
    let refresh = time(|| drop(shop.ok("plan --refresh --detailed-exitcode")));

    let label = format!("dev.norn.project={}", shop.project);
    let found = shop.space.ok(&format!("get secrets,services,deployments --selector {label} --output json"));
    let mut found: Value = serde_json::from_str(&found).expect("it is JSON");
    let items = found["items"].as_array_mut().expect("it is a list");
    assert_eq!(items.len(), 3 * APPS);
    items.iter_mut().for_each(bare);
    shop.write("objects.json", &found.to_string());
    let other = cluster.namespace();
    let objects = shop.path("objects.json").display().to_string();
    // norn's apply ends when the controllers have seen to all of it.
    let sent = time(|| drop(other.ok(&format!("apply --server-side --filename {objects}"))));
    let names = other.ok("get deployments --output name");
    let names: Vec<&str> = names.lines().collect();
    let waited = time(|| drop(other.ok(&format!("rollout status {}", names.join(" ")))));
    let kubectl = sent + waited;
    let diff = time(|| drop(other.ok(&format!("diff --server-side --filename {objects}"))));

    println!("| what | norn | kubectl |");
    println!("|---|---|---|");
    println!("| {} objects applied, rolled out | {} | {} |", 3 * APPS, shown(apply), shown(kubectl));
    println!("| of it until they are there | {} | {} |", shown(sent_by_norn), shown(sent));
    println!("| `plan --refresh`, `diff` | {} | {} |", shown(refresh), shown(diff));
    assert!(sent_by_norn <= sent && apply <= kubectl, "norn is slower");
    assert!(refresh * 5 <= diff, "norn is not 5 times as fast");
}

fn time(work: impl FnOnce()) -> Duration {
    let began = Instant::now();
    work();
    began.elapsed()
}

fn shown(time: Duration) -> String {
    format!("{:.1} s", time.as_secs_f64())
}

/// What somebody would write of an object.
fn bare(object: &mut Value) {
    let fields = object.as_object_mut().expect("it is an object");
    fields.remove("status");
    let metadata = &fields["metadata"];
    let kept = json!({
        "name": metadata["name"],
        "labels": metadata["labels"],
        "annotations": metadata.get("annotations").cloned().unwrap_or(json!({})),
    });
    fields.insert("metadata".to_owned(), kept);
    if let Some(spec) = fields.get_mut("spec").and_then(Value::as_object_mut) {
        for assigned in ["clusterIP", "clusterIPs", "internalTrafficPolicy", "ipFamilies", "ipFamilyPolicy"] {
            spec.remove(assigned);
        }
    }
}
