//! What is there twice, or is not there any more: two states on one engine, and an image that went.

use crate::sandbox::until;

use super::Shop;

#[test]
fn two_states_of_one_project_leave_each_other_s_images_alone() {
    let (Some(shop), Some(mut other)) = (Shop::new(), Shop::new()) else { return };
    shop.web("env: {VERSION: v1}");
    shop.ok("apply --yes");
    shop.write("web/release", "two");
    shop.ok("apply --yes");
    let images = || shop.of_engine("images --all --no-trunc", "{{.ID}}");
    let own = images();
    other.project.clone_from(&shop.project);
    other.web("env: {VERSION: v2}");
    other.ok("apply --yes");
    other.destroy();
    assert_eq!(images(), own);
    shop.ok("restart web --yes");
    assert_eq!(shop.get().expect("it serves"), "v1 grey two");
    shop.destroy();
    shop.comes_to(0, 0);
}

#[test]
fn what_an_interrupted_attempt_made_is_made_again_where_its_image_is_gone() {
    let Some(shop) = Shop::new() else { return };
    shop.web("env: {VERSION: v1}\ncommand: 'sleep 3; exec sh /serve'");
    let mut norn = shop.spawn("apply --yes");
    until("its container runs", || !shop.containers().is_empty());
    norn.kill().expect("it lives");
    norn.wait().expect("it is ours");
    until("its container ends", || shop.containers().is_empty());
    for image in shop.images() {
        shop.engine.ok(&format!("image rm --force {image}"));
    }
    shop.ok("apply --yes");
    assert_eq!(shop.get().expect("it serves"), "v1 grey one");
    shop.destroy();
    shop.comes_to(0, 0);
}
