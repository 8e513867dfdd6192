//! What a build is sent: as docker would send it, and never the whole in norn's memory.

use std::collections::BTreeSet;
use std::fs;
use std::io::Write;

use super::Shop;

/// The memory that norn may use for a build, in KiB.
const MEMORY: u64 = 100 * 1024;
/// The size of a large file, in MiB: more than ten times as much.
const LARGE: usize = 1024;

/// Applies; the most memory that norn had, in KiB.
fn peak(shop: &Shop<'_>) -> u64 {
    let mut norn = shop.spawn("apply --yes");
    let mut peak = 0;
    loop {
        let status = fs::read_to_string(format!("/proc/{}/status", norn.id())).unwrap_or_default();
        let seen = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
        let seen = seen.and_then(|size| size.trim().trim_end_matches(" kB").parse().ok());
        peak = seen.unwrap_or(peak);
        if let Some(ended) = norn.try_wait().expect("it is ours") {
            assert!(ended.success(), "{ended}");
            return peak;
        }
        std::thread::sleep(std::time::Duration::from_millis(5));
    }
}

#[test]
fn a_large_folder_needs_little_memory() {
    let Some(shop) = Shop::new() else { return };
    shop.web("env: {VERSION: v1}");
    let mut file = fs::File::create(shop.path("web/large")).expect("it is made");
    let noise: Vec<u8> = (0..1 << 18).flat_map(|_| uuid::Uuid::new_v4().into_bytes()[..4].to_vec()).collect();
    for _ in 0..LARGE {
        file.write_all(&noise).expect("there is room");
    }
    drop(file);
    let sent = peak(&shop);
    assert!((1..MEMORY).contains(&sent), "{sent} KiB for what is sent");
    shop.write("web/.dockerignore", "large\n");
    let left_out = peak(&shop);
    assert!((1..MEMORY).contains(&left_out), "{left_out} KiB for what is left out");
    shop.destroy();
}

#[test]
fn what_dockerignore_leaves_out_is_what_docker_leaves_out() {
    let Some(shop) = Shop::new() else { return };
    let dockerfile =
        "FROM norn-base:1\nCOPY . /sent\nCMD [\"sh\", \"-c\", \"cd /sent; find . | sort; sleep 600\"]\n";
    shop.write("web/Dockerfile", dockerfile);
    for file in [
        "README.md",
        "a.md",
        "docs/a.md",
        "docs/keep.md",
        "docs/deep/b.md",
        "target/x/y",
        "x/target/z",
        "src/main.rs",
        ".github/config",
        "b#c",
        "space here",
        "[odd]",
        "temp1",
        "tempA",
        "x/temp1",
        "empty/.keep",
        "!bang",
    ] {
        shop.write(&format!("web/{file}"), file);
    }
    std::os::unix::fs::symlink("a.md", shop.path("web/link")).expect("it is made");
    // With git the source is all that is there, and the list counts for the build alone.
    shop.git("", "init --quiet");
    shop.git("", "add web");
    shop.git("", "commit --quiet --message one");
    shop.apps("  web: {role: worker, path: ./web, replicas: 0}\n");
    let lists = [
        "",
        "**/*.md\n!docs/keep.md\n",
        "/target/\n# x/target\n  docs  \n.\n/\n",
        "*\n!src\n!a.md\n",
        "**\n!docs/deep/*.md\n",
        "temp?\n*/temp*\nbare\n",
        "**/target\nDockerfile\n.dockerignore\nlink\n",
        "\\!bang\n\\[odd\\]\nspace here\nb#c\n",
        "temp[0-9]\n!  temp1\n",
        "docs/*\n!docs/deep\n!.github\n.github/\n",
        "./foo/../a.md\n**/deep/**\n",
    ];
    let mut differ = String::new();
    for list in lists {
        shop.write("web/.dockerignore", list);
        let tag = format!("{}-plain:1", shop.project);
        let folder = shop.path("web").display().to_string();
        shop.engine.ok(&format!("build --quiet --tag {tag} {folder}"));
        let list_of = |image: &str| -> BTreeSet<String> {
            let mut run = shop.engine.command(&format!("run --rm {image} sh -c"));
            let output = run
                .arg("cd /sent; find . ! -type d ! -name Dockerfile ! -name .dockerignore")
                .output()
                .expect("docker runs");
            String::from_utf8_lossy(&output.stdout).lines().map(str::to_owned).collect()
        };
        let theirs = list_of(&tag);
        let ours = norn_sends(&shop);
        let only = |a: &BTreeSet<String>, b: &BTreeSet<String>| a.difference(b).cloned().collect::<Vec<_>>();
        if ours != theirs {
            differ += &format!(
                "{list:?}: norn alone {:?}, docker alone {:?}\n",
                only(&ours, &theirs),
                only(&theirs, &ours)
            );
        }
        shop.engine.ok(&format!("image rm --force {tag}"));
    }
    assert_eq!(differ, "");
}

/// What norn's build copies of the context. Folders are not compared: a local source has none that is
/// empty, as git has none. Nor are the Dockerfile and the list, which docker sends and takes back.
fn norn_sends(shop: &Shop<'_>) -> BTreeSet<String> {
    let ran = shop.run("apply --yes");
    if ran.code != 0 {
        return BTreeSet::from([format!("failed: {}", ran.err)]);
    }
    let newest = shop.rows().pop().expect("a deployment").tag;
    let mut run = shop.engine.command(&format!("run --rm {}/{newest} sh -c", shop.project));
    let output = run
        .arg("cd /sent; find . ! -type d ! -name Dockerfile ! -name .dockerignore")
        .output()
        .expect("docker runs");
    String::from_utf8_lossy(&output.stdout).lines().map(str::to_owned).collect()
}

#[test]
fn a_list_that_leaves_all_out_but_one_folder_leaves_the_dockerfile_to_the_builder() {
    let Some(shop) = Shop::new() else { return };
    shop.write("web/Dockerfile", "FROM norn-base:1\nCOPY . /sent\n");
    shop.write("web/src/main.rs", "fn main() {}");
    shop.write("web/.dockerignore", "*\n!src\n");
    shop.apps("  web: {role: worker, path: ./web, replicas: 0}\n");
    assert_eq!(norn_sends(&shop), BTreeSet::from(["./src/main.rs".to_owned()]));
    shop.destroy();
}
