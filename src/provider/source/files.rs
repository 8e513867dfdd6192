//! The files that make up a local folder.
//!
//! Here: which files count. Elsewhere: what is made of them (`local`).

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::{OsStr, OsString};
use std::fs;
use std::io;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use ignore::WalkBuilder;

use super::git::Git;
use super::local::LocalError;
use crate::provider::dockerignore::DockerIgnore;

/// What a local source leaves out, as absolute paths without links but in their last part.
#[derive(Clone)]
pub(super) struct Skip(Vec<PathBuf>);

impl Skip {
    pub fn new(paths: &[PathBuf]) -> Self {
        let real = |path: &PathBuf| {
            let (parent, name) = (path.parent()?.canonicalize().ok()?, path.file_name()?);
            Some(parent.join(name))
        };
        // What is not there need not be left out.
        Self(paths.iter().filter_map(real).collect())
    }

    pub fn covers(&self, path: &Path) -> bool {
        self.0.iter().any(|skipped| path.starts_with(skipped))
    }

    /// The paths in `folder`, relative to it.
    pub fn within<'a>(&'a self, folder: &'a Path) -> impl Iterator<Item = &'a Path> {
        self.0.iter().filter_map(move |path| path.strip_prefix(folder).ok())
    }
}

/// Whether the folder, which is absolute and without links, belongs to a git repository.
pub(super) fn in_git(folder: &Path) -> bool {
    folder.ancestors().any(|ancestor| fs::symlink_metadata(ancestor.join(".git")).is_ok())
}

/// The files and links that git tracks or would track, relative to `folder`, sorted by bytes.
/// Submodules and repositories inside count with their own files.
pub(super) async fn of_git(git: &Git, folder: &Path, skip: &Skip) -> Result<Vec<PathBuf>, LocalError> {
    let mut files = BTreeSet::new();
    let mut open = vec![PathBuf::new()];
    while let Some(prefix) = open.pop() {
        let dir = folder.join(&prefix);
        let args = ["ls-files", "-z", "--cached", "--others", "--exclude-standard"];
        let answer = git.ask(&args, &dir, &BTreeMap::new()).await?;
        if !answer.success {
            return Err(LocalError::GitSays { folder: dir, why: answer.stderr.trim().to_owned() });
        }
        for name in answer.stdout.split(|&byte| byte == 0).filter(|name| !name.is_empty()) {
            let name = prefix.join(OsStr::from_bytes(name));
            let path = folder.join(&name);
            if skip.covers(&path) {
                continue;
            }
            match fs::symlink_metadata(&path) {
                Ok(meta) if meta.is_dir() => {
                    // A submodule that was never fetched has no files.
                    if fs::symlink_metadata(path.join(".git")).is_ok() {
                        open.push(name.components().collect());
                    }
                }
                Ok(meta) if meta.is_file() || meta.is_symlink() => {
                    files.insert(name.into_os_string().into_vec());
                }
                // Sockets and the like are nothing that git keeps.
                Ok(_) => {}
                // Tracked and deleted; below a file that took a folder's place likewise.
                Err(error) if gone(&error) => {}
                Err(why) => return Err(LocalError::Io { path, why }),
            }
        }
    }
    Ok(files.into_iter().map(|name| OsString::from_vec(name).into()).collect())
}

fn gone(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory)
}

/// The files and links that neither a `.gitignore` nor the folder's `.dockerignore` names,
/// relative to `folder`, sorted by bytes.
pub(super) fn without_git(folder: &Path, skip: &Skip) -> Result<Vec<PathBuf>, LocalError> {
    let docker = Arc::new(list(folder)?);
    let mut walk = WalkBuilder::new(folder);
    walk.standard_filters(false).git_ignore(true).require_git(false).follow_links(false);
    let (root, skip, rules) = (folder.to_owned(), skip.clone(), Arc::clone(&docker));
    walk.filter_entry(move |entry| {
        let name = entry.path().strip_prefix(&root).unwrap_or(entry.path());
        // A folder in which nothing is taken back need not be searched.
        let left_out = !rules.takes_back() && excludes(&rules, name);
        !(entry.file_name() == ".git" || skip.covers(entry.path()) || left_out)
    });
    let mut files = BTreeSet::new();
    for entry in walk.build() {
        let entry =
            entry.map_err(|error| LocalError::Walk { folder: folder.to_owned(), why: error.to_string() })?;
        let Ok(name) = entry.path().strip_prefix(folder) else { continue };
        let file = entry.file_type().is_some_and(|kind| kind.is_file() || kind.is_symlink());
        if file && !excludes(&docker, name) {
            files.insert(name.as_os_str().as_bytes().to_vec());
        }
    }
    Ok(files.into_iter().map(|name| OsString::from_vec(name).into()).collect())
}

/// The folder's `.dockerignore`; one that is not there leaves nothing out.
fn list(folder: &Path) -> Result<DockerIgnore, LocalError> {
    let path = folder.join(".dockerignore");
    match fs::read_to_string(&path) {
        Ok(text) => {
            DockerIgnore::parse(&text).map_err(|bad| LocalError::Pattern { path, why: bad.error.to_string() })
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(DockerIgnore::default()),
        Err(why) => Err(LocalError::Io { path, why }),
    }
}

/// Whether a list leaves a path out. What only the builder reads is not for the list to take away.
fn excludes(list: &DockerIgnore, name: &Path) -> bool {
    let file = name.file_name().unwrap_or_default().as_encoded_bytes();
    let for_the_builder =
        file.starts_with(b"Dockerfile") || file.ends_with(b".Dockerfile") || file.ends_with(b".dockerignore");
    !for_the_builder && list.excludes(name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_only_the_builder_reads_is_never_left_out() {
        let all = DockerIgnore::parse("*\n!src\n").expect("patterns");
        assert!(excludes(&all, Path::new("a/b")));
        for name in ["Dockerfile", "Dockerfile.dev", "web/web.Dockerfile", ".dockerignore", "src/a"] {
            assert!(!excludes(&all, Path::new(name)), "{name}");
        }
    }
}
