//! norn killed while it works on a cluster.

use std::thread;
use std::time::Duration;

use crate::cluster::Cluster;

use super::{Shop, WHAT, has};

#[test]
fn killed_at_any_moment_norn_goes_on_and_ends_where_it_was_to() {
    let Some(cluster) = Cluster::shared(WHAT) else { return };
    let mut shop = Shop::new(cluster);
    let more = |version: &str| {
        format!(
            "env: {{VERSION: {version}}}\nmigrations: {{command: 'echo migrating $VERSION; sleep 1'}}\nsecrets: [SECRET]"
        )
    };
    shop.sandbox.env.insert("SECRET".into(), "hunter2222".into());
    for (number, wait) in [300, 1500, 2500, 3500, 5000, 6500, 8000].into_iter().enumerate() {
        let version = format!("v{number}");
        shop.web(&more(&version));
        let mut norn = shop.spawn("apply --yes");
        thread::sleep(Duration::from_millis(wait));
        norn.kill().expect("it is killed");
        norn.wait().expect("it ends");
        let ran = shop.run("apply --yes");
        assert_eq!(ran.code, 0, "after {wait} ms: {}{}", ran.out, ran.err);
        let port = shop.node_port();
        shop.answers(port, &format!("{version} one"));
        shop.plan_is_empty();
    }
    // One Secret a version that the cluster still knows, and the Jobs of one deploy at most.
    let objects = shop.objects();
    let jobs = objects.iter().filter(|object| object.starts_with("job")).count();
    assert!(jobs <= 1, "{objects:?}");
    shop.destroy();
    assert_eq!(shop.objects(), Vec::<String>::new());
    has(&shop.ok("status").out, &["nothing is deployed yet"]);
}
