//! The folders of releases: building beside them, and the caches that builds share.
//!
//! Invariant: a folder under a release's own name is complete.

use std::fs::{self, DirBuilder};
use std::io;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Component, Path, PathBuf};

use tokio::process::Command;

use crate::failpoint;

/// The prefix of folders in which a release is made.
const BUILDING: &str = ".building-";
/// The prefix of files that say what a folder was made of that has not gone live.
const ATTEMPT: &str = ".made-";

/// Makes a folder and its parents with mode 0700.
///
/// # Errors
/// Where it cannot be made; that it is there is none.
pub fn private_folder(path: &Path) -> io::Result<()> {
    DirBuilder::new().recursive(true).mode(0o700).create(path)
}

/// Where a release of this name is made.
pub fn workshop(releases: &Path, name: &str) -> PathBuf {
    releases.join(format!("{BUILDING}{name}"))
}

/// Removes what attempts left that never became a release; the caches in the app's folder, which is
/// `inner` in each of them, go back to `cache`.
///
/// # Errors
/// Where a folder cannot be removed.
pub fn sweep(releases: &Path, cache: &Path, cached: &[String], inner: &Path) -> io::Result<usize> {
    let mut swept = 0;
    let entries = match fs::read_dir(releases) {
        Ok(entries) => entries,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(0),
        Err(error) => return Err(error),
    };
    for entry in entries {
        let entry = entry?;
        let name = entry.file_name();
        let name = name.to_string_lossy();
        if is_unfinished(&name) {
            put_back(&entry.path().join(inner), cache, cached)?;
            failpoint::before("sweep", &entry.path())?;
            fs::remove_dir_all(entry.path())?;
            failpoint::after("sweep", &entry.path())?;
            swept += 1;
        }
    }
    Ok(swept)
}

/// The names of the folders in that of all releases in which attempts left something; sorted. What
/// cannot be read counts as nothing.
pub fn attempted(all: &Path) -> Vec<String> {
    let names = |folder: &Path| {
        let entries = fs::read_dir(folder).into_iter().flatten().flatten();
        entries.map(|entry| entry.file_name().to_string_lossy().into_owned()).collect::<Vec<_>>()
    };
    let left =
        |name: &String| names(&all.join(name)).iter().any(|n| is_unfinished(n) || n.starts_with(ATTEMPT));
    let mut found: Vec<String> = names(all).into_iter().filter(left).collect();
    found.sort();
    found
}

fn is_unfinished(name: &str) -> bool {
    name.starts_with(BUILDING) || (name.starts_with('.') && name.ends_with(".part"))
}

/// Moves the cached folders into a new workshop; those that its code brings along stay its own.
///
/// # Errors
/// Where a folder cannot be moved.
pub fn lend(cache: &Path, workshop: &Path, cached: &[String]) -> io::Result<()> {
    for path in cached {
        let (from, to) = (cache.join(path), workshop.join(path));
        let straight = without_links(cache, path) && without_links(workshop, path);
        if straight && from.is_dir() && !to.exists() {
            if let Some(parent) = to.parent() {
                fs::create_dir_all(parent)?;
            }
            failpoint::before("lend", &from)?;
            fs::rename(&from, to)?;
            failpoint::after("lend", &from)?;
        }
    }
    Ok(())
}

/// Moves the cached folders of a workshop that failed back.
///
/// # Errors
/// Where a folder cannot be moved.
pub fn put_back(workshop: &Path, cache: &Path, cached: &[String]) -> io::Result<()> {
    for path in cached {
        let (from, to) = (workshop.join(path), cache.join(path));
        let straight = without_links(workshop, path) && without_links(cache, path);
        if straight && from.is_dir() && !to.exists() {
            if let Some(parent) = to.parent() {
                private_folder(parent)?;
            }
            failpoint::before("put back", &to)?;
            fs::rename(from, &to)?;
            failpoint::after("put back", &to)?;
        }
    }
    Ok(())
}

/// Copies the cached folders of a finished build back to `cache`: the release keeps its own.
///
/// # Errors
/// Where `cp` cannot be run or fails.
pub async fn keep_copy(workshop: &Path, cache: &Path, cached: &[String]) -> io::Result<()> {
    for path in cached {
        let from = workshop.join(path);
        if !without_links(workshop, path) || !without_links(cache, path) || !from.is_dir() {
            continue;
        }
        let to = cache.join(path);
        let parent = to.parent().expect("a cached folder is below the cache");
        private_folder(parent)?;
        let partial = parent.join(format!(".{}.part", flat(path)));
        if partial.exists() {
            fs::remove_dir_all(&partial)?;
        }
        // cp keeps times, links and holes, which build tools look at, and shares blocks where the
        // file system can.
        let copied = Command::new("cp")
            .args(["--archive", "--reflink=auto", "--"])
            .arg(&from)
            .arg(&partial)
            .kill_on_drop(true)
            .output()
            .await?;
        if !copied.status.success() {
            return Err(io::Error::other(String::from_utf8_lossy(&copied.stderr).trim().to_owned()));
        }
        failpoint::before("replace", &to)?;
        if to.exists() {
            fs::remove_dir_all(&to)?;
        }
        failpoint::before("keep a copy", &to)?;
        fs::rename(&partial, &to)?;
        failpoint::after("keep a copy", &to)?;
    }
    Ok(())
}

/// Gives a finished workshop the release's name. A folder of that name is of an attempt that never
/// went live. `made` says what the release was made of, until it goes live.
///
/// # Errors
/// Where the folders cannot be renamed or removed.
pub fn finish(workshop: &Path, release: &Path, made: &str) -> io::Result<()> {
    let old = release.exists().then(|| workshop.with_extension("old"));
    if let Some(aside) = &old {
        forget_attempt(release)?;
        fs::rename(release, aside)?;
        failpoint::after("set aside", release)?;
    }
    // The word comes first and counts for nothing without the folder.
    failpoint::before("say what it is made of", release)?;
    fs::write(attempt(release), made)?;
    failpoint::before("finish", release)?;
    fs::rename(workshop, release)?;
    failpoint::after("finish", release)?;
    old.map_or(Ok(()), fs::remove_dir_all)
}

/// What the folder of an attempt was made of; `None` where there is none, or it went live.
pub fn made(release: &Path) -> Option<String> {
    fs::read_to_string(attempt(release)).ok().filter(|_| release.is_dir())
}

/// The folder is that of a release from here on, and no attempt's.
///
/// # Errors
/// Where the word cannot be removed; that there is none is no error.
pub fn forget_attempt(release: &Path) -> io::Result<()> {
    failpoint::before("forget the attempt", release)?;
    absent_is_fine(fs::remove_file(attempt(release)))?;
    failpoint::after("forget the attempt", release)
}

/// Removes the folder of an attempt that never went live.
///
/// # Errors
/// Where it cannot be removed; that it is not there is no error.
pub fn remove_attempt(release: &Path) -> io::Result<()> {
    failpoint::before("remove the attempt", release)?;
    absent_is_fine(fs::remove_dir_all(release))?;
    forget_attempt(release)
}

/// Removes a folder, and the one above it if that is empty then.
///
/// # Errors
/// Where it cannot be removed; that it is not there is no error.
pub fn remove(folder: &Path) -> io::Result<()> {
    failpoint::before("remove", folder)?;
    absent_is_fine(fs::remove_dir_all(folder))?;
    failpoint::after("remove", folder)?;
    if let Some(above) = folder.parent() {
        // It mostly has others in it.
        let _ = fs::remove_dir(above);
    }
    Ok(())
}

/// What is to be removed so that of a folder of releases only these are left: all of it, or its parts.
///
/// # Errors
/// Where the folder cannot be read.
pub fn all_but(releases: &Path, spared: &[PathBuf]) -> io::Result<Vec<PathBuf>> {
    if spared.is_empty() {
        return Ok(vec![releases.to_owned()]);
    }
    let entries = fs::read_dir(releases)?.map(|entry| entry.map(|entry| entry.path()));
    let unwanted = entries.filter(|path| path.as_ref().map_or(true, |path| !spared.contains(path)));
    unwanted.collect()
}

/// The folder of a whole release, of which `recorded` is the app's part: `releases/<app>/<name>/...`.
pub fn root(stage: &Path, recorded: &str) -> PathBuf {
    stage.join(Path::new(recorded).components().take(3).collect::<PathBuf>())
}

/// The folders of attempts that never went live.
///
/// # Errors
/// Where the folder of all releases cannot be read.
pub fn attempts(releases: &Path) -> io::Result<Vec<PathBuf>> {
    let mut found = Vec::new();
    for entry in fs::read_dir(releases)? {
        let name = entry?.file_name();
        found.extend(name.to_string_lossy().strip_prefix(ATTEMPT).map(|name| releases.join(name)));
    }
    Ok(found)
}

fn attempt(release: &Path) -> PathBuf {
    let name = release.file_name().unwrap_or_default().to_string_lossy();
    release.with_file_name(format!("{ATTEMPT}{name}"))
}

fn absent_is_fine(result: io::Result<()>) -> io::Result<()> {
    match result {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        other => other,
    }
}

/// Whether `path` below `folder` stays in it, links followed.
pub fn stays_inside(folder: &Path, path: &Path) -> bool {
    let lexical = path.components().all(|c| matches!(c, Component::Normal(_) | Component::CurDir));
    let real = |path: &Path| path.canonicalize().ok();
    lexical
        && real(folder).zip(real(&folder.join(path))).is_some_and(|(folder, path)| path.starts_with(folder))
}

/// Whether no part of `path` below `folder` is a link: code may bring one that leads anywhere, and
/// what is cached is moved.
fn without_links(folder: &Path, path: &str) -> bool {
    let mut walked = folder.to_owned();
    Path::new(path).components().all(|part| {
        walked.push(part);
        !walked.is_symlink()
    })
}

fn flat(path: &str) -> String {
    path.replace('/', "-")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn caches_survive_builds_that_finish_fail_or_die() {
        let temp = tempfile::tempdir().expect("a folder");
        let (releases, cache) = (temp.path().join("releases"), temp.path().join("cache"));
        let cached = vec!["target".to_owned()];
        let shop = workshop(&releases, "a");
        fs::create_dir_all(shop.join("target")).expect("made");
        fs::write(shop.join("target/x"), "1").expect("written");
        keep_copy(&shop, &cache, &cached).await.expect("copied");
        finish(&shop, &releases.join("a"), "of this").expect("finished");
        assert_eq!(made(&releases.join("a")).as_deref(), Some("of this"));
        assert_eq!(attempts(&releases).expect("read"), [releases.join("a")]);
        forget_attempt(&releases.join("a")).expect("forgotten");
        assert_eq!(made(&releases.join("a")), None);
        assert_eq!(fs::read_to_string(releases.join("a/target/x")).expect("the release has it"), "1");

        // An app that is a folder of its repository.
        let shop = workshop(&releases, "b");
        let inner = Path::new("apps/b");
        fs::create_dir_all(shop.join(inner)).expect("made");
        lend(&cache, &shop.join(inner), &cached).expect("lent");
        assert!(shop.join("apps/b/target/x").exists() && !cache.join("target").exists());
        // The run died here: the next one finds the workshop.
        assert_eq!(sweep(&releases, &cache, &cached, inner).expect("swept"), 1);
        assert!(cache.join("target/x").exists() && !shop.exists());
    }

    #[tokio::test]
    async fn a_cache_behind_a_link_of_the_code_is_left_where_it_is() {
        let temp = tempfile::tempdir().expect("a folder");
        let (cache, shop, out) =
            (temp.path().join("cache"), temp.path().join("shop"), temp.path().join("out"));
        for folder in [cache.join("link/lent"), shop.clone(), out.join("own")] {
            fs::create_dir_all(folder).expect("made");
        }
        std::os::unix::fs::symlink(&out, shop.join("link")).expect("linked");
        let cached = ["link", "link/own", "link/lent"].map(str::to_owned);
        lend(&cache, &shop, &cached).expect("nothing to lend");
        keep_copy(&shop, &cache, &cached).await.expect("nothing to keep");
        put_back(&shop, &cache, &cached).expect("nothing to put back");
        assert!(out.join("own").is_dir() && !out.join("lent").exists());
        assert!(cache.join("link/lent").is_dir() && !cache.join("link/own").exists());
    }

    #[test]
    fn a_link_out_of_the_folder_is_seen() {
        let temp = tempfile::tempdir().expect("a folder");
        fs::create_dir(temp.path().join("in")).expect("made");
        std::os::unix::fs::symlink("/", temp.path().join("in/out")).expect("linked");
        fs::create_dir(temp.path().join("in/there")).expect("made");
        let folder = temp.path().join("in");
        assert!(stays_inside(&folder, Path::new("there")) && stays_inside(&folder, Path::new(".")));
        assert!(!stays_inside(&folder, Path::new("out")) && !stays_inside(&folder, Path::new("..")));
    }
}
