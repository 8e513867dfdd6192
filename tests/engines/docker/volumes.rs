//! Volumes of containers: who sees them, and what they hold outlives.

use std::fs;

use crate::sandbox::exists;

use super::{Shop, has};

/// A worker that writes what it is into its volume as it starts.
fn worker(name: &str, version: &str, more: &str) -> String {
    let more: String = more.lines().map(|line| format!("    {line}\n")).collect();
    format!(
        "  {name}:\n    role: worker\n    path: ./web\n    env: {{VERSION: {version}}}\n    \
         command: 'trap \"exit 0\" TERM; echo $VERSION >> $NORN_VOLUME_DATA/starts; cat /data/*; sleep 600 & wait'\n    \
         healthcheck: {{command: 'grep -q $VERSION $NORN_VOLUME_DATA/starts', interval: 1s, startup: 20s}}\n{more}"
    )
}

impl Shop<'_> {
    /// What the volumes hold that an app sees at /data.
    fn data(&self, name: &str) -> String {
        let containers = self.of_engine(&format!("ps --filter label=dev.norn.app={name}"), "{{.ID}}");
        let container = containers.first().expect("it runs");
        self.engine.ok(&format!("exec {container} cat /data/starts"))
    }

    fn volumes(&self) -> Vec<String> {
        self.of_engine("volume ls", "{{.Name}}")
    }
}

#[test]
fn a_volume_outlives_deploys_and_the_app() {
    let Some(shop) = Shop::new() else { return };
    let volumes = "volumes: [{name: data, mountPath: /data, size: 1Gi}]\n";
    let more = format!(
        "build: {{test: 'echo \"[$NORN_VOLUME_DATA]\"; test ! -e /data'}}\n\
         migrations: {{command: 'echo \"[$NORN_VOLUME_DATA]\"; echo migrated >> /data/starts'}}\n{volumes}"
    );
    shop.apps(&worker("mail", "v1", &more));
    shop.ok("apply --yes");
    let row = &shop.rows()[0];
    assert_eq!((row.output("test"), row.output("migrate")), ("[]\n".into(), "[/data]\n".into()));
    assert_eq!(shop.data("mail"), "migrated\nv1");
    shop.plan_is_empty();
    let volume = format!("{}.mail.data", shop.project);
    assert_eq!(shop.volumes(), [volume.as_str()]);
    let labels = shop.engine.ok(&format!("volume inspect {volume}"));
    has(&labels, &["\"dev.norn.app\": \"mail\"", "\"dev.norn.stage\": \"\""]);

    shop.write("web/release", "two");
    shop.apps(&worker("mail", "v2", volumes));
    shop.ok("apply --yes");
    assert_eq!(shop.data("mail"), "migrated\nv1\nv2");

    // A volume that cannot follow is not left behind without a word.
    let renamed = format!("was: [mail]\n{volumes}");
    shop.apps(&worker("post", "v2", &renamed));
    let ran = shop.fails("apply --yes", 1);
    has(&ran.out, &["BLOCKED: what is in its volumes (data) would stay with the name mail"]);
    shop.apps(&worker("mail", "v2", volumes));
    shop.plan_is_empty();

    let ran = shop.ok(&format!("destroy --yes --confirm {}", shop.project));
    has(&ran.out, &["keeps    its snapshots, logs and volume data"]);
    has(&ran.err, &["kept: snapshots, logs, volume data"]);
    shop.comes_to(0, 0);
    assert_eq!(shop.volumes(), [volume.as_str()]);

    // The app finds it when it comes back, and another app has its own.
    shop.apps(&format!("{}{}", worker("mail", "v3", volumes), worker("post", "v4", volumes)));
    shop.ok("apply --yes");
    assert_eq!(shop.data("mail"), "migrated\nv1\nv2\nv3");
    assert_eq!(shop.data("post"), "v4");
    shop.destroy();
    shop.comes_to(0, 0);
    for volume in shop.volumes() {
        shop.engine.ok(&format!("volume rm {volume}"));
    }
}

#[test]
fn a_folder_of_the_host_is_mounted_and_another_s_volume_is_not() {
    let Some(shop) = Shop::new() else { return };
    let host = shop.path("srv");
    let volumes = format!("volumes: {{data: {{mountPath: /data, hostPath: {}}}}}\n", host.display());
    shop.apps(&worker("mail", "v1", &volumes));
    let ran = shop.apply_fails(0, 0);
    has(&ran.err, &["the Docker engine could not make a container", &host.display().to_string()]);
    assert!(!exists(&host));
    fs::create_dir(&host).expect("ours");
    shop.ok("apply --yes");
    assert_eq!(shop.read("srv/starts"), "v1\n");
    assert_eq!(shop.volumes(), Vec::<String>::new());
    shop.plan_is_empty();

    let volume = format!("{}.mail.data", shop.project);
    shop.engine.ok(&format!("volume create {volume}"));
    shop.apps(&worker("mail", "v2", "volumes: {data: {mountPath: /data}}\n"));
    let ran = shop.apply_fails(1, 1);
    has(&ran.err, &[&format!("could not use the volume {volume}: it is there and not norn's")]);
    assert_eq!(shop.data("mail"), "v1");
    shop.engine.ok(&format!("volume rm {volume}"));
    shop.destroy();
    shop.comes_to(0, 0);
    assert_eq!(shop.read("srv/starts"), "v1\n");
}
