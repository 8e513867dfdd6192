//! An app that is renamed goes on serving, whatever is in between.

use crate::load::Load;
use crate::supervise::world::free_port;
use crate::support::{Sandbox, get, until, web};

#[tokio::test(flavor = "multi_thread")]
async fn a_rename_loses_no_request_with_a_deploy_and_without() {
    let port = free_port();
    let sandbox =
        Sandbox::webserver(port, "env: {VERSION: one}\nbuild: {command: mkdir -p c; touch c/x, cache: [c]}");
    sandbox.ok("apply --yes");
    let load = Load::start(port);
    let build = "build: {command: mkdir -p c; touch c/x, cache: [c]}";
    sandbox.spec(&web("site", port, &format!("was: [web]\nenv: {{VERSION: one}}\n{build}")));
    sandbox.ok("apply --yes");
    assert_eq!(sandbox.processes_of("supervise --app site").len(), 1);
    assert_eq!(sandbox.processes().len(), 3, "nothing is left under the former name");
    assert_eq!(sandbox.names(".norn/run", "web"), Vec::<String>::new());
    assert_eq!(sandbox.names(".norn/run", "site"), ["site.json", "site.sock"]);
    assert!(sandbox.path(".norn/cache/site/c/x").exists());
    sandbox.plan_is_empty();
    // With a release of its own at the same time.
    sandbox.write("web/version", "two");
    sandbox.spec(&web("page", port, &format!("was: [site]\nenv: {{VERSION: two}}\n{build}")));
    sandbox.ok("apply --yes");
    sandbox.plan_is_empty();
    let (answered, failed) = load.end().await;
    assert_eq!(failed, Vec::<String>::new(), "of {answered}");
    assert!(get(port, "/").expect("it serves").starts_with("two"));
    assert_eq!(sandbox.processes().len(), 3);
    assert!(sandbox.rows().iter().all(|row| row.app == "page"), "the history follows");
    sandbox.ok("destroy --yes --confirm shop");
    assert_eq!(sandbox.processes(), Vec::<u32>::new());
}

#[test]
fn a_rename_that_dies_or_fails_goes_on_later() {
    let port = free_port();
    let sandbox = Sandbox::webserver(port, "env: {VERSION: one}");
    sandbox.ok("apply --yes");
    // The new definition is never healthy: the former name's replicas serve on.
    let sick = web("site", port, "was: [web]\nenv: {VERSION: two, HEALTH: '500'}")
        .replace("startup: 20s", "startup: 1s");
    sandbox.spec(&sick);
    let mut norn = sandbox.spawn("apply --yes");
    until("the new replicas run", || sandbox.processes().len() >= 6);
    while norn.try_wait().expect("it is ours").is_none() {
        let plan = sandbox.run("plan").out;
        assert!(!plan.contains("its supervisor is gone"), "they have one, about to take over: {plan}");
    }
    sandbox.fails("apply --yes", 1);
    assert!(get(port, "/").expect("it serves").starts_with("one"));
    assert_eq!(sandbox.processes().len(), 3);
    let plan = sandbox.fails("plan --detailed-exitcode", 2).out;
    assert!(plan.contains("forge/site"), "{plan}");
    for (wait, name) in [(50, "two"), (250, "three"), (500, "four"), (800, "five")] {
        sandbox.spec(&web("site", port, &format!("was: [web]\nenv: {{VERSION: {name}}}")));
        let mut norn = sandbox.spawn("apply --yes");
        std::thread::sleep(std::time::Duration::from_millis(wait));
        norn.kill().expect("it is ours");
        norn.wait().expect("it is ours");
        get(port, "/").expect("it serves at any time");
    }
    sandbox.ok("apply --yes");
    assert!(get(port, "/").expect("it serves").starts_with("five"));
    until("the old replicas have ended", || sandbox.processes().len() == 3);
    sandbox.plan_is_empty();
    assert_eq!(sandbox.names(".norn/run", "web"), Vec::<String>::new());
    sandbox.ok("destroy --yes --confirm shop");
    assert_eq!(sandbox.processes(), Vec::<u32>::new());
    assert_eq!(
        sandbox.names(".norn/releases", ""),
        Vec::<String>::new(),
        "those of the former name went along"
    );
}

#[test]
fn a_teardown_spares_what_others_made_under_the_name() {
    let (port, other) = (free_port(), free_port());
    let sandbox = Sandbox::webserver(port, "env: {VERSION: one}");
    sandbox.ok("apply --yes");
    let renamed = web("site", port, "was: [web]\nenv: {VERSION: one}");
    sandbox.spec(&renamed);
    sandbox.ok("apply --yes");
    let site = web("site", port, "env: {VERSION: one}");
    sandbox.spec(&format!("{site}{}", web("web", other, "env: {VERSION: two}")));
    sandbox.ok("apply --yes");
    // The new `web` goes; what `site` runs was made when it was `web`.
    sandbox.spec(&site);
    sandbox.ok("apply --yes --confirm shop");
    sandbox.plan_is_empty();
    sandbox.ok("restart site --yes");
    assert!(get(port, "/").expect("it serves").starts_with("one"));
    sandbox.ok("destroy --yes --confirm shop");
    assert_eq!(sandbox.names(".norn/releases", ""), Vec::<String>::new());
}

#[test]
fn the_name_of_an_app_that_is_gone_can_be_taken() {
    let (port, other) = (free_port(), free_port());
    let sandbox = Sandbox::webserver(port, "env: {VERSION: one}");
    let spec = sandbox.read("infraspec.yaml");
    sandbox.write("infraspec.yaml", &format!("{spec}{}", web("site", other, "env: {VERSION: two}")));
    sandbox.ok("apply --yes");
    sandbox.write("infraspec.yaml", &spec);
    sandbox.ok("apply --yes --confirm shop");
    sandbox.spec(&web("site", port, "was: [web]\nenv: {VERSION: one}"));
    sandbox.ok("apply --yes");
    assert!(get(port, "/").expect("it serves").starts_with("one"));
    sandbox.plan_is_empty();
    assert_eq!(sandbox.processes().len(), 3);
}
