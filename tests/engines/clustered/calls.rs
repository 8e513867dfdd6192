//! How often norn asks a cluster.

use crate::cluster::Cluster;

use super::{Shop, WHAT};

#[test]
fn a_plan_asks_once_for_each_kind_however_many_apps_there_are() {
    let Some(cluster) = Cluster::shared(WHAT).filter(|cluster| cluster.is_ours()) else { return };
    let mut shop = Shop::new(cluster);
    shop.sandbox.env.insert("SECRET".into(), "hunter2222".into());
    let (token, who) = shop.member();
    shop.as_user(&format!("{{token: {token}}}"));
    let account = format!("{}:{who}", shop.space.name);
    let asks = |shop: &Shop<'_>, arguments: &str| {
        let before = cluster.asked_by(&account).len();
        shop.ok(arguments);
        let mut asked = cluster.asked_by(&account).split_off(before);
        asked.sort();
        asked
    };
    let base = cluster.registry.base(cluster.engine, "1");
    let apps = |names: &[&str]| -> String {
        let app = |name: &&str| {
            format!(
                "  {name}: {{role: worker, image: \"{base}\", command: [sleep, \"1000\"], secrets: [SECRET], rollout: {{drain: 1s}}}}\n"
            )
        };
        names.iter().map(app).collect()
    };
    let mut seen = Vec::new();
    for names in [&["a"][..], &["a", "b", "c", "d", "e"]] {
        shop.apps(&apps(names));
        shop.ok("apply --yes");
        for arguments in ["plan --detailed-exitcode", "plan --refresh --detailed-exitcode", "status"] {
            let asked = asks(&shop, arguments);
            println!("{arguments}: {asked:?}");
            // A refresh looks at what runs first, as every plan does, and then at all there is.
            let most = if arguments.contains("--refresh") { 2 } else { 1 };
            for call in &asked {
                assert!(call.starts_with("list ") || call == "get namespaces", "{arguments}: {asked:?}");
                let times = asked.iter().filter(|one| *one == call).count();
                assert!(times <= most, "{arguments}: {asked:?}");
            }
            seen.push(asked);
        }
    }
    assert_eq!(seen[..3], seen[3..], "more apps are asked for by the same calls");
    shop.destroy();
}
