//! The life of an app in a cluster.

use crate::cluster::Cluster;
use crate::get_soon;

use super::{Shop, WHAT};

#[test]
fn an_app_is_built_pushed_rolled_out_changed_and_taken_away() {
    let Some(cluster) = Cluster::shared(WHAT) else { return };
    let shop = Shop::new(cluster);
    shop.web("env: {VERSION: first}");
    let ran = shop.ok("apply --yes");
    println!("{}\n{}", ran.out, ran.err);
    let port = shop.node_port();
    assert_eq!(get_soon(cluster.node_address(), port), "first one");
    assert_eq!(shop.objects(), ["deployment.apps/web", "service/web"]);
    shop.plan_is_empty();

    // A changed definition and new code roll once, together.
    shop.web("env: {VERSION: second}\nreplicas: 2");
    shop.write("web/release", "two");
    shop.ok("apply --yes");
    assert_eq!(get_soon(cluster.node_address(), port), "second two");
    let revision = "{.metadata.annotations.deployment\\.kubernetes\\.io/revision}";
    assert_eq!(shop.space.ok(&format!("get deployment web --output jsonpath={revision}")), "2");
    shop.plan_is_empty();

    // A definition alone.
    shop.web("env: {VERSION: third}");
    let ran = shop.ok("apply --yes");
    println!("{}\n{}", ran.out, ran.err);
    assert_eq!(get_soon(cluster.node_address(), port), "third two");
    shop.plan_is_empty();

    let ran = shop.ok(&format!("destroy --yes --confirm {}", shop.project));
    println!("{}\n{}", ran.out, ran.err);
    assert_eq!(shop.objects(), Vec::<String>::new());
}
