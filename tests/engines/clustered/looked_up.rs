//! Images that are neither built nor looked up with an engine.

use crate::cluster::Cluster;
use crate::shared::free_port;

use super::{Shop, WHAT, has};

#[test]
fn an_image_goes_to_a_cluster_where_there_is_no_engine() {
    let Some(cluster) = Cluster::shared(WHAT) else { return };
    let mut shop = Shop::new(cluster);
    shop.sandbox.env.insert("DOCKER_HOST".into(), format!("unix://{}", shop.path("none.sock").display()));
    shop.ready_made("env: {VERSION: first}");
    shop.ok("apply --yes");
    shop.answers(shop.node_port(), "first");
    let image = "{.spec.template.spec.containers[0].image}";
    let image = shop.space.ok(&format!("get deployment web --output jsonpath={image}"));
    let pinned = cluster.engine.push(&cluster.registry.base(cluster.engine, "1"));
    assert_eq!(image, pinned);
    shop.plan_is_empty();

    let away = format!("127.0.0.1:{}", free_port());
    shop.ready_made(&format!("env: {{VERSION: first}}\nimage: \"{away}/web:1\""));
    let ran = shop.fails("plan", 1);
    has(
        &ran.err,
        &[
            "the source of an app cannot be looked up",
            &format!("web: the registry {away} cannot be reached: "),
            "; see that it runs",
            "with --offline norn plans from what the state saw last",
        ],
    );
    shop.ready_made("env: {VERSION: first}");
    shop.plan_is_empty();
    shop.destroy();
}
