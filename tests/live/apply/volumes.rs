//! Volumes of processes: who sees them, and what they hold outlives.

use std::fs;
use std::os::unix::fs::PermissionsExt;

use crate::support::{Sandbox, exists, until};

/// A worker that writes what it is into its volume, over and over.
fn worker(name: &str, version: &str, more: &str) -> String {
    let more: String = more.lines().map(|line| format!("    {line}\n")).collect();
    format!(
        "  {name}:\n    role: worker\n    path: ./work\n    env: {{VERSION: {version}}}\n    \
         command: 'while echo $VERSION >> \"$NORN_VOLUME_DATA/beats\"; do sleep 0.05; done; echo lost; exit 1'\n    \
         healthcheck: {{command: 'grep -q $VERSION \"$NORN_VOLUME_DATA/beats\"', interval: 1s, startup: 10s}}\n    \
         volumes: [{{name: data, mountPath: /data, size: 1Gi}}]\n{more}"
    )
}

fn sandbox() -> Sandbox {
    let sandbox = Sandbox::new();
    sandbox.write("work/version", "one");
    sandbox
}

impl Sandbox {
    /// How often a version wrote into the volume of an app.
    fn beats(&self, app: &str, version: &str) -> usize {
        self.read(&format!(".norn/volumes/{app}/data/beats")).lines().filter(|line| *line == version).count()
    }

    fn goes_on(&self, app: &str, version: &str) {
        let seen = self.beats(app, version);
        until(&format!("{version} goes on"), || self.beats(app, version) > seen + 3);
    }
}

#[test]
fn migrations_and_replicas_see_a_volume_and_a_build_and_a_test_do_not() {
    let sandbox = sandbox();
    let print = |step: &str| format!("'echo \"[$NORN_VOLUME_DATA]\" > said.{step}'");
    let more = format!(
        "build: {{command: {}, test: {}}}\nmigrations: {{command: 'echo \"[$NORN_VOLUME_DATA]\" > said.migrate; echo made > \"$NORN_VOLUME_DATA/made\"'}}\n",
        print("build"),
        print("test")
    );
    sandbox.spec(&worker("web", "one", &more));
    sandbox.ok("apply --yes");
    let release = format!(".norn/releases/web/{}", sandbox.names(".norn/releases/web", "")[0]);
    let said = |step: &str| sandbox.read(&format!("{release}/said.{step}"));
    let folder = sandbox.path(".norn/volumes/web/data");
    assert_eq!(said("migrate"), format!("[{}]\n", folder.display()));
    assert_eq!((said("build"), said("test")), ("[]\n".into(), "[]\n".into()));
    for folder in [&folder, &sandbox.path(".norn/volumes")] {
        let mode = fs::metadata(folder).expect("it is there").permissions().mode();
        assert_eq!(mode & 0o777, 0o700, "{}", folder.display());
    }
    sandbox.goes_on("web", "one");
    sandbox.plan_is_empty();

    // A deploy and a teardown leave what is in it.
    sandbox.write("work/version", "two");
    sandbox.spec(&worker("web", "two", &more));
    sandbox.ok("apply --yes");
    sandbox.goes_on("web", "two");
    assert!(sandbox.beats("web", "one") > 0);
    let ran = sandbox.ok("destroy --yes --confirm shop");
    assert!(ran.out.contains("keeps    its snapshots, logs and volume data"), "{}", ran.out);
    assert!(ran.err.contains("kept: snapshots, logs, volume data"), "{}", ran.err);
    assert!(sandbox.beats("web", "one") > 0);
    assert_eq!(sandbox.read(".norn/volumes/web/data/made"), "made\n");

    // And the app finds it when it comes back.
    sandbox.spec(&worker("web", "three", ""));
    sandbox.ok("apply --yes");
    sandbox.goes_on("web", "three");
    assert!(sandbox.beats("web", "one") > 0);
}

#[test]
fn a_volume_follows_its_app_to_another_name_and_what_runs_never_loses_it() {
    let sandbox = sandbox();
    sandbox.spec(&worker("web", "one", ""));
    sandbox.ok("apply --yes");
    // The new name's replica is never healthy: the former one's goes on, with its volume.
    let sick = worker("site", "two", "was: [web]\n").replace("grep -q", "false").replace("10s", "1s");
    sandbox.spec(&sick);
    sandbox.fails("apply --yes", 1);
    assert!(!sandbox.path(".norn/volumes/site").is_symlink());
    sandbox.goes_on("site", "one");
    sandbox.write("work/version", "two");
    sandbox.spec(&worker("site", "three", "was: [web]\n"));
    sandbox.ok("apply --yes");
    sandbox.goes_on("site", "three");
    assert_eq!(sandbox.names(".norn/volumes", ""), ["site"]);
    assert!(sandbox.beats("site", "one") > 0);
    sandbox.plan_is_empty();

    // A new app of the former name has a volume of its own.
    sandbox.spec(&format!("{}{}", worker("site", "three", ""), worker("web", "four", "")));
    sandbox.ok("apply --yes");
    assert_eq!((sandbox.beats("web", "three"), sandbox.beats("site", "four")), (0, 0));
    sandbox.goes_on("web", "four");
    for app in sandbox.names(".norn/logs", "") {
        for log in sandbox.names(&format!(".norn/logs/{app}"), "") {
            let log = format!(".norn/logs/{app}/{log}");
            assert!(!sandbox.read(&log).contains("lost"), "{log}: {}", sandbox.read(&log));
        }
    }

    // What a removed app left is not mixed with another's.
    sandbox.write(".norn/volumes/page/data/beats", "old\n");
    let apps = format!("{}{}", worker("page", "five", "was: [site]\n"), worker("web", "four", ""));
    sandbox.spec(&apps);
    let ran = sandbox.fails("apply --yes", 1);
    assert!(ran.err.contains("volumes/page is in the way of the volumes of site"), "{}", ran.err);
    sandbox.goes_on("site", "three");
    fs::rename(sandbox.path(".norn/volumes/page"), sandbox.path("aside")).expect("ours");
    sandbox.ok("apply --yes");
    sandbox.goes_on("page", "five");
    assert!(sandbox.beats("page", "three") > 0 && sandbox.beats("page", "old") == 0);
    assert_eq!(sandbox.names(".norn/volumes", ""), ["page", "web"]);
}

#[test]
fn a_folder_of_the_host_has_to_be_there_and_stays() {
    let sandbox = sandbox();
    let host = sandbox.path("srv");
    let given = worker("web", "one", "").replace("size: 1Gi", &format!("hostPath: {}", host.display()));
    sandbox.spec(&given);
    let ran = sandbox.fails("apply --yes", 3);
    let told = format!("there is no folder {}, which is the volume `data`", host.display());
    assert_eq!(ran.err.matches(&told).count(), 1, "{}", ran.err);
    assert!(ran.err.contains("take `hostPath` out"), "{}", ran.err);
    assert!(!exists(&host));
    fs::create_dir(&host).expect("ours");
    sandbox.ok("apply --yes");
    assert!(sandbox.read("srv/beats").contains("one"));
    assert!(!exists(&sandbox.path(".norn/volumes")));
    sandbox.plan_is_empty();
    sandbox.ok("destroy --yes --confirm shop");
    assert!(sandbox.read("srv/beats").contains("one"));
}
