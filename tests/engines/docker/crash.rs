//! What was killed: holders, the supervisor, norn itself. One set of containers is left, whatever died.

use crate::sandbox::{kill, until};

use super::checks::{nap, runs};
use super::{Shop, has};

#[test]
fn a_killed_holder_is_replaced_and_its_container_removed() {
    let Some(shop) = Shop::new() else { return };
    shop.web("env: {VERSION: v1}\nreplicas: 2");
    shop.ok("apply --yes");
    let before = shop.containers();
    let holder = shop.processes_of(" hold ")[0];
    kill(holder);
    until("there is another", || {
        let now = shop.containers();
        now.len() == 2 && now != before && shop.processes_of(" hold ").len() == 2
    });
    until("it is well", || shop.run("plan --detailed-exitcode").code == 0);
    assert_eq!(shop.get().expect("it serves"), "v1 grey one");
    shop.destroy();
    shop.comes_to(0, 0);
}

#[test]
fn what_a_killed_supervisor_left_is_taken_away_by_the_next_apply() {
    let Some(shop) = Shop::new() else { return };
    shop.web("env: {VERSION: v1}\nreplicas: 2");
    shop.ok("apply --yes");
    let before = shop.containers();
    shop.processes_of("supervise").into_iter().for_each(kill);
    let plan = shop.run("plan");
    has(&plan.out, &["its supervisor is gone, 2 processes left without it"]);
    shop.ok("apply --yes");
    shop.comes_to(2, 1);
    assert!(shop.containers().iter().all(|id| !before.contains(id)));
    assert_eq!(shop.get().expect("it serves"), "v1 grey one");
    shop.plan_is_empty();
    // With its holders: nobody is left who could end the containers.
    shop.processes().into_iter().for_each(kill);
    shop.ok("apply --yes");
    shop.comes_to(2, 1);
    assert_eq!(shop.get().expect("it serves"), "v1 grey one");
    shop.processes().into_iter().for_each(kill);
    shop.destroy();
    shop.comes_to(0, 0);
}

#[test]
fn after_a_killed_norn_the_next_apply_leaves_one_set_of_containers() {
    let Some(shop) = Shop::new() else { return };
    shop.web("env: {VERSION: v1}");
    shop.ok("apply --yes");

    let killed = |what: &str, reached: &dyn Fn() -> bool| {
        let mut norn = shop.spawn("apply --yes");
        until(what, reached);
        norn.kill().expect("it lives");
        norn.wait().expect("it is ours");
        assert!(shop.open_in_journal() > 0, "{what}: norn had ended");
    };
    let finished = |version: &str| {
        shop.ok("apply --yes");
        shop.comes_to(1, shop.rows().iter().filter(|row| row.status == "deployed").count());
        assert_eq!(shop.open_in_journal(), 0);
        assert_eq!(shop.get().expect("it serves"), version);
        shop.plan_is_empty();
    };

    shop.web("env: {VERSION: v2}");
    let (building, testing) = (nap(2), nap(3));
    let slow = super::DOCKERFILE.replace("CMD", &format!("RUN {building}\nCMD"));
    shop.write("web/Dockerfile", &slow);
    killed("the build runs", &|| runs(&building));
    until("the build has ended", || !runs(&building));
    assert_eq!(shop.get().expect("the old one serves"), "v1 grey one");
    shop.write("web/Dockerfile", super::DOCKERFILE);
    shop.write("web/release", "two");
    finished("v2 grey two");

    shop.web(&format!("env: {{VERSION: v3}}\nbuild: {{test: {testing}}}"));
    shop.write("web/release", "three");
    killed("the test runs", &|| runs(&testing));
    until("the test has ended", || !runs(&testing));
    assert_eq!(shop.get().expect("the old one serves"), "v2 grey two");
    shop.web("env: {VERSION: v3}");
    finished("v3 grey three");

    shop.web("env: {VERSION: v4}\ncommand: 'sleep 3; exec sh /serve'");
    shop.write("web/release", "four");
    killed("the new container starts", &|| shop.of_engine("ps", "{{.ID}}").len() == 2);
    assert_eq!(shop.get().expect("one of them serves"), "v3 grey three");
    finished("v4 grey four");
    shop.destroy();
    shop.comes_to(0, 0);
    assert_eq!(shop.processes(), Vec::<u32>::new());
}
