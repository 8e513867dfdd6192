//! Apps that run in another folder or on another machine than the one norn is started in.

use rustix::process::{Pid, Signal, kill_process_group};

use super::hosts::{machine_or_skip, on_machine};
use super::{Shop, write_version};
use crate::support::{Sandbox, until};

/// What norn says, without what differs from run to run.
fn plain(shop: &Shop, other: &Sandbox, text: &str) -> String {
    shop.plain(text).replace(&other.dir.path().display().to_string(), "OTHER").replace(&host_name(), "HOST")
}

fn host_name() -> String {
    rustix::system::uname().nodename().to_string_lossy().into_owned()
}

#[test]
fn what_runs_in_another_folder_is_left_alone() {
    let Some(shop) = Shop::new("an app of another folder") else { return };
    shop.version("one", "");
    shop.sandbox.ok("apply --yes");
    let other = shop.elsewhere();
    write_version(&other, shop.port, "two", "");

    let ran = other.run("apply --yes");
    let out = plain(&shop, &other, &ran.out);
    assert_eq!(ran.code, 1, "{out}{}", ran.err);
    assert!(
        out.contains(
            "it runs on HOST:DIR/.norn/run: apply there, or `norn apply --lost HOST` if that is another machine or cluster, and gone"
        ),
        "{out}"
    );
    let ran = other.run("destroy --yes --confirm shop");
    assert_eq!(ran.code, 1, "{}{}", ran.out, ran.err);
    let status = plain(&shop, &other, &other.ok("status").out);
    assert!(status.contains("HOST:DIR/.norn/run"), "{status}");
    let ran = other.run(&format!("apply --yes --lost {}", host_name()));
    assert_eq!(ran.code, 1, "{}", ran.err);
    assert!(ran.err.contains("is this machine"), "{}", ran.err);
    assert!(other.processes().is_empty());
    shop.serves("one");

    // Where it ran there is nothing any more, so that it can be put live here.
    shop.sandbox.ok("destroy --yes --confirm shop");
    other.ok("apply --yes");
    shop.serves("two");
    other.plan_is_empty();
    let ran = shop.sandbox.run("plan --detailed-exitcode");
    assert_eq!(ran.code, 2, "{}", ran.err);
    assert!(plain(&shop, &other, &ran.out).contains("HOST:OTHER/.norn/run"), "{}", ran.out);
    other.ok("destroy --yes --confirm shop");
}

#[test]
fn what_ran_on_a_machine_that_is_gone_is_put_live_here_when_the_user_says_so() {
    let what = "an app of another machine";
    let Some(shop) = Shop::by_socket(what) else { return };
    let other = shop.elsewhere();
    if !machine_or_skip(&other, what) {
        return;
    }
    write_version(&other, shop.port, "one", "");
    // The machine lives until its last process has ended, which is the supervisor's.
    let machine =
        on_machine(&other, 42, "apply --yes", "; touch up; sleep 300").spawn().expect("unshare is there");
    until("it is applied there", || other.path("up").exists());

    let ran = shop.sandbox.run("apply --yes");
    let out = shop.plain(&ran.out).replace(&other.dir.path().display().to_string(), "OTHER");
    assert_eq!(ran.code, 1, "{out}{}", ran.err);
    assert!(out.contains("it runs on elsewhere:OTHER/.norn/run: apply there"), "{out}");
    let ran = shop.sandbox.run("apply --yes --lost nowhere");
    let mend = "error: no app was put live on another machine or cluster `nowhere`\nhelp: those known are: elsewhere\n";
    assert_eq!((ran.code, ran.err.as_str()), (1, mend));
    assert!(shop.sandbox.processes().is_empty());

    let group = Pid::from_raw(i32::try_from(machine.id()).expect("a pid")).expect("a pid");
    kill_process_group(group, Signal::KILL).expect("it runs");
    super::finished(machine);
    until("all of that machine has ended", || other.processes().is_empty());
    shop.version("one", "");
    let planned = shop.sandbox.ok("plan --lost elsewhere --out lost.norn").out;
    assert!(planned.contains("taken to be gone for good: elsewhere"), "{planned}");
    assert!(shop.sandbox.ok("show lost.norn").out.contains("taken to be gone for good: elsewhere"));
    shop.sandbox.ok("apply lost.norn");
    shop.serves("one");
    shop.is_sound("after the other machine was lost");

    // A machine that was made anew has the name of the one that is lost, and is not it.
    let anew = shop.elsewhere();
    shop.sandbox.ok("destroy --yes --confirm shop");
    let lost = on_machine(&anew, 43, "apply --yes", "").output().expect("unshare is there");
    assert!(lost.status.success(), "{}", String::from_utf8_lossy(&lost.stderr));
    let run = |arguments: &str| {
        let ran = super::finished(super::started(&mut on_machine(&anew, 44, arguments, "")));
        (ran.code, ran.out + &ran.err)
    };
    std::fs::remove_dir_all(anew.path(".norn/run")).expect("it went with its machine");
    assert_eq!(run("destroy --yes --confirm shop").0, 1);
    let (code, said) = run("destroy --yes --confirm shop --lost elsewhere");
    assert_eq!(code, 0, "{said}");
}
