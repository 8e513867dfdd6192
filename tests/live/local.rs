//! Sources that are folders of this machine.

use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use norn::provider::source::Version;
use norn::provider::source::local::{LocalError, copy, version};

use crate::source::Site;

impl Site {
    async fn version(&self, folder: &str, skip: &[PathBuf]) -> Result<Version, LocalError> {
        version(&self.own_git().await, &self.path(folder), skip).await
    }

    async fn digest(&self, folder: &str) -> String {
        match self.version(folder, &[]).await.expect("it has a version") {
            Version::Digest(hex) => hex,
            Version::Commit(commit) => panic!("{commit} is no digest"),
        }
    }

    async fn copy(&self, folder: &str, skip: &[PathBuf]) -> Result<Version, LocalError> {
        copy(&self.own_git().await, &self.path(folder), skip, &self.path("copy")).await
    }

    /// All the files below a folder.
    fn names(&self, folder: &str) -> Vec<String> {
        let found =
            Command::new("find").args([".", "!", "-type", "d"]).current_dir(self.path(folder)).output();
        let found = String::from_utf8(found.expect("find runs").stdout).expect("UTF-8");
        let mut names: Vec<String> = found.lines().map(|name| name[2..].to_owned()).collect();
        names.sort();
        names
    }
}

#[tokio::test]
async fn a_clean_folder_has_the_newest_commit_that_touched_it() {
    let site = Site::new();
    site.repository("mono");
    let app = site.commit("mono", "app/main", "x");
    site.commit("mono", "other/main", "x");
    site.commit("mono", "app/infraspec.yaml", "x");
    let skip = [site.path("mono/app/infraspec.yaml"), site.path("mono/app/.norn")];
    site.write("mono/app/.norn/state.db", "state");
    site.write("mono/other/untracked", "x");
    assert_eq!(site.version("mono/app", &skip).await.expect("one"), Version::Commit(app.clone()));
    assert_eq!(site.copy("mono/app", &skip).await.expect("copied"), Version::Commit(app.clone()));
    assert_eq!(site.names("copy"), ["main"]);
    // What norn keeps may change; what else is there may not.
    site.write("mono/app/infraspec.yaml", "y");
    assert_eq!(site.version("mono/app", &skip).await.expect("one"), Version::Commit(app.clone()));
    site.write("mono/app/new", "x");
    let dirty = site.version("mono/app", &skip).await.expect("one");
    assert!(dirty.to_string().starts_with("local:") && dirty.to_string().len() == 70, "{dirty}");
    fs::remove_file(site.path("mono/app/new")).expect("it was made");
    assert_eq!(site.version("mono/app", &skip).await.expect("one"), Version::Commit(app));
}

#[tokio::test]
async fn a_digest_tells_names_modes_and_bytes_apart() {
    let site = Site::new();
    site.write("app/a", "1");
    site.write("app/b", "2");
    let mut seen = vec![site.digest("app").await];
    let mut check = async |change: &str| {
        let digest = site.digest("app").await;
        assert!(!seen.contains(&digest), "{change}");
        seen.push(digest);
    };
    site.write("app/b", "3");
    check("bytes").await;
    fs::set_permissions(site.path("app/b"), fs::Permissions::from_mode(0o755)).expect("ours");
    check("mode").await;
    fs::rename(site.path("app/b"), site.path("app/c")).expect("ours");
    check("name").await;
    symlink("a", site.path("app/l")).expect("a link");
    check("a link").await;
    fs::remove_file(site.path("app/l")).expect("ours");
    site.write("app/l", "a");
    check("a file with a link's bytes").await;
    fs::remove_file(site.path("app/l")).expect("ours");
    site.write("app/a", "");
    site.write("app/1c", "");
    check("bytes moved between files").await;
    fs::set_permissions(site.path("app/c"), fs::Permissions::from_mode(0o644)).expect("ours");
    fs::remove_file(site.path("app/1c")).expect("ours");
    fs::rename(site.path("app/c"), site.path("app/b")).expect("ours");
    site.write("app/a", "1");
    site.write("app/b", "2");
    fs::create_dir(site.path("app/empty")).expect("ours");
    assert_eq!(site.digest("app").await, seen[0], "as it was at first");
}

#[tokio::test]
async fn git_decides_what_counts_where_there_is_git() {
    let site = Site::new();
    site.repository("app");
    site.write("app/.gitignore", "ignored\n");
    site.write("app/.dockerignore", "untracked\n");
    site.write("app/ignored", "x");
    site.write("app/untracked", "x");
    site.write("app/dir/new", "x");
    site.commit("app", "gone", "x");
    fs::remove_file(site.path("app/gone")).expect("ours");
    site.write("app/untracked", "y");
    symlink("dir", site.path("app/link")).expect("a link");
    let planned = site.version("app", &[]).await.expect("one");
    assert_eq!(site.copy("app", &[]).await.expect("copied"), planned);
    assert_eq!(site.names("copy"), [".dockerignore", ".gitignore", "dir/new", "file", "link", "untracked"]);
    assert_eq!(fs::read_link(site.path("copy/link")).expect("a link"), Path::new("dir"));
    // The copy is no repository, yet has the same digest.
    fs::remove_file(site.path("copy/.dockerignore")).expect("ours");
    fs::remove_file(site.path("app/.dockerignore")).expect("ours");
    assert_eq!(site.digest("copy").await, site.digest("app").await);

    site.repository("inner");
    site.git("app", "submodule --quiet add ../inner in");
    site.write("app/in/more", "x");
    fs::remove_dir_all(site.path("copy")).expect("ours");
    site.copy("app", &[]).await.expect("copied");
    assert_eq!((site.read("copy/in/file"), site.read("copy/in/more")), ("one".into(), "x".into()));
    assert!(!site.path("copy/in/.git").exists());
}

#[tokio::test]
async fn ignore_files_decide_where_there_is_no_git() {
    let site = Site::new();
    site.write("app/.gitignore", "*.log\n");
    site.write("app/.dockerignore", "node_modules\n!keep.log\n/cache/*\n!cache/keep\n");
    for name in
        ["main", "x.log", "keep.log", "node_modules/a/b", "cache/a", "cache/keep", ".env", "sub/x.tmp"]
    {
        site.write(&format!("app/{name}"), "x");
    }
    site.write("app/sub/.gitignore", "*.tmp\n");
    site.write("app/.norn/releases/web/main", "x");
    let skip = [site.path("app/.norn")];
    let planned = site.version("app", &skip).await.expect("one");
    assert_eq!(site.copy("app", &skip).await.expect("copied"), planned);
    let names = [".dockerignore", ".env", ".gitignore", "cache/keep", "main", "sub/.gitignore"];
    assert_eq!(site.names("copy"), names);
}

#[tokio::test]
async fn a_folder_that_cannot_be_copied_faithfully_is_refused() {
    let site = Site::new();
    site.repository("mono");
    site.write("mono/.gitignore", "ignored\n");
    site.write("mono/ignored/main", "x");
    let error = site.version("mono/ignored", &[]).await.expect_err("git ignores it");
    assert!(matches!(error, LocalError::Ignored { .. }), "{error}");

    site.write("app/main", "x");
    site.write("outside", "x");
    symlink("main", site.path("app/inside")).expect("a link");
    symlink(site.path("app/main"), site.path("app/absolute")).expect("a link");
    symlink("nowhere", site.path("app/dangling")).expect("a link");
    site.copy("app", &[]).await.expect("these stay inside");
    fs::remove_dir_all(site.path("copy")).expect("ours");
    for target in ["../outside", "/etc/passwd", "../nowhere"] {
        symlink(target, site.path("app/bad")).expect("a link");
        for result in [site.version("app", &[]).await, site.copy("app", &[]).await] {
            let error = result.expect_err("it leaves").to_string();
            assert!(error.contains("app/bad") && error.contains(target), "{error}");
        }
        fs::remove_file(site.path("app/bad")).expect("ours");
    }
    assert!(!site.path("copy").exists());
    let error = site.version("nowhere", &[]).await.expect_err("nothing there").to_string();
    assert!(error.contains("nowhere"), "{error}");
}

#[tokio::test]
async fn ten_thousand_files_have_a_version_soon() {
    let site = Site::new();
    site.repository("app");
    for n in 0..10_000 {
        site.write(&format!("app/d{}/f{n}", n % 100), "some text of a small file\n");
    }
    let start = Instant::now();
    site.digest("app").await;
    let took = start.elapsed();
    // The budget is a second; a debug build on a machine that does other things gets more.
    assert!(took < Duration::from_secs(4), "{took:?}");
    eprintln!("a digest of 10,000 files took {took:?}");
    let commit = site.commit("app", "last", "x");
    let start = Instant::now();
    assert_eq!(site.version("app", &[]).await.expect("one"), Version::Commit(commit));
    let took = start.elapsed();
    assert!(took < Duration::from_secs(4), "{took:?}");
    eprintln!("a clean folder of 10,000 files took {took:?}");
}
