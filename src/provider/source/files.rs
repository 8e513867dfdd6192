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

use globset::{GlobBuilder, GlobMatcher};
use ignore::WalkBuilder;

use super::git::Git;
use super::local::LocalError;

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
    let docker = DockerIgnore::read(&folder.join(".dockerignore"))?;
    let docker = Arc::new(docker);
    let mut walk = WalkBuilder::new(folder);
    walk.standard_filters(false).git_ignore(true).require_git(false).follow_links(false);
    let (root, skip, rules) = (folder.to_owned(), skip.clone(), Arc::clone(&docker));
    walk.filter_entry(move |entry| {
        let name = entry.path().strip_prefix(&root).unwrap_or(entry.path());
        !(entry.file_name() == ".git" || skip.covers(entry.path()) || rules.excludes_all_of(name))
    });
    let mut files = BTreeSet::new();
    for entry in walk.build() {
        let entry =
            entry.map_err(|error| LocalError::Walk { folder: folder.to_owned(), why: error.to_string() })?;
        let Ok(name) = entry.path().strip_prefix(folder) else { continue };
        let file = entry.file_type().is_some_and(|kind| kind.is_file() || kind.is_symlink());
        if file && !docker.excludes(name) {
            files.insert(name.as_os_str().as_bytes().to_vec());
        }
    }
    Ok(files.into_iter().map(|name| OsString::from_vec(name).into()).collect())
}

/// A `.dockerignore`: patterns from the folder's root, of which the last that matches decides.
struct DockerIgnore {
    /// Each with whether it excludes; a `!` includes again.
    patterns: Vec<(GlobMatcher, bool)>,
}

impl DockerIgnore {
    /// A file that is not there excludes nothing.
    fn read(path: &Path) -> Result<Self, LocalError> {
        match fs::read_to_string(path) {
            Ok(text) => Self::parse(&text)
                .map_err(|why| LocalError::Pattern { path: path.to_owned(), why: why.to_string() }),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Self { patterns: Vec::new() }),
            Err(why) => Err(LocalError::Io { path: path.to_owned(), why }),
        }
    }

    fn parse(text: &str) -> Result<Self, globset::Error> {
        let mut patterns = Vec::new();
        for line in text.trim_start_matches('\u{FEFF}').lines() {
            let line = line.trim();
            if line.starts_with('#') {
                continue;
            }
            let (pattern, excludes) = match line.strip_prefix('!') {
                Some(pattern) => (pattern.trim(), false),
                None => (line, true),
            };
            let pattern = cleaned(pattern);
            if !pattern.is_empty() {
                let glob =
                    GlobBuilder::new(&pattern).literal_separator(true).backslash_escape(true).build()?;
                patterns.push((glob.compile_matcher(), excludes));
            }
        }
        Ok(Self { patterns })
    }

    /// Whether nothing in this folder can be included again, so that it need not be searched.
    fn excludes_all_of(&self, name: &Path) -> bool {
        self.patterns.iter().all(|(_, excludes)| *excludes) && self.excludes(name)
    }

    /// A pattern that matches a folder counts for all in it. What only the builder reads is not for
    /// the list to take away.
    fn excludes(&self, name: &Path) -> bool {
        let file = name.file_name().unwrap_or_default().as_encoded_bytes();
        if file.starts_with(b"Dockerfile")
            || file.ends_with(b".Dockerfile")
            || file.ends_with(b".dockerignore")
        {
            return false;
        }
        let last = self.patterns.iter().rev().find(|(pattern, _)| {
            name.ancestors().any(|part| !part.as_os_str().is_empty() && pattern.is_match(part))
        });
        last.is_some_and(|(_, excludes)| *excludes)
    }
}

/// A pattern without `.`, `..` and surplus slashes.
pub fn cleaned(pattern: &str) -> String {
    let mut parts: Vec<&str> = Vec::new();
    for part in pattern.split('/') {
        match part {
            "" | "." => {}
            ".." => drop(parts.pop()),
            part => parts.push(part),
        }
    }
    parts.join("/")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dockerignore_is_anchored_and_its_last_match_wins() {
        let text =
            "# comment\n/target\n*.log\n**/*.tmp\n./docs/../notes\n!keep.log\nsub/deep\n!sub/deep/in\n";
        let ignore = DockerIgnore::parse(text).expect("patterns");
        for (name, excluded) in [
            ("target/debug/x", true),
            ("a/target", false),
            ("x.log", true),
            ("a/x.log", false),
            ("keep.log", false),
            ("a/b/x.tmp", true),
            ("x.tmp", true),
            ("notes", true),
            ("sub/deep/out", true),
            ("sub/deep/in/file", false),
            ("src/main.rs", false),
        ] {
            assert_eq!(ignore.excludes(Path::new(name)), excluded, "{name}");
        }
        let all = DockerIgnore::parse("*\n!src\n").expect("patterns");
        assert!(all.excludes(Path::new("a/b")));
        for name in ["Dockerfile", "Dockerfile.dev", "web/web.Dockerfile", ".dockerignore"] {
            assert!(!all.excludes(Path::new(name)), "{name}");
        }
    }
}
