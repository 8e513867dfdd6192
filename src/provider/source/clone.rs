//! A clone of exactly one commit.
//!
//! Here: fetching, checking out, submodules, files in LFS. Elsewhere: which commit (`git`).

use std::collections::BTreeMap;
use std::fs;
use std::path::{Component, Path, PathBuf};
use std::time::Duration;

use super::git::{EVERYTHING, Git, GitError};
use super::location::Location;
use super::{Commit, Repo, Staging};
use crate::provider::child::{Ending, Finished, Leash, Task, run};
use crate::provider::supervise::protocol::Command;

/// How long a command may go without a word of progress.
const SILENCE: Duration = Duration::from_secs(60);
/// How many of git's last lines an error shows.
const SHOWN: usize = 8;

/// Makes the new folder `dest` a clone of the repository at `commit`, submodules and LFS files
/// included, and returns the app's folder in it. `dest` appears when it is complete; its parent
/// must be there. What git says is appended to `log` and handed to `on_line`.
///
/// # Errors
/// [`GitError::NoCommit`] where the remote does not have it: never is another one taken.
pub async fn clone(
    git: &Git,
    repo: &Repo,
    commit: &Commit,
    dest: &Path,
    leash: &Leash,
    log: &Path,
    on_line: &mut (dyn FnMut(&str) + Send),
) -> Result<PathBuf, GitError> {
    let location = Location::parse(&repo.url)?;
    let io = |why| GitError::Io { path: dest.to_owned(), why };
    let staging = Staging::beside(dest).map_err(io)?;
    let env = git.env(&location);
    let work = Work { git, location: &location, dir: staging.path(), env: &env, leash, log };
    work.all(commit, on_line).await?;
    let folder = app_folder(staging.path(), repo, &location)?;
    let folder = folder.strip_prefix(staging.path()).expect("it was joined to it").to_owned();
    staging.finish().map_err(io)?;
    // Joining nothing would add a slash.
    Ok(if folder.as_os_str().is_empty() { dest.to_owned() } else { dest.join(folder) })
}

/// git at work in the folder of a clone.
struct Work<'a> {
    git: &'a Git,
    location: &'a Location,
    dir: &'a Path,
    env: &'a BTreeMap<String, String>,
    leash: &'a Leash,
    log: &'a Path,
}

impl Work<'_> {
    async fn all(&self, commit: &Commit, on_line: &mut (dyn FnMut(&str) + Send)) -> Result<(), GitError> {
        let url = self.location.url.as_str();
        // Without templates: no hooks of the user's.
        self.git("preparing to clone", &["init", "--quiet", "--template="], on_line).await?;
        self.git("preparing to clone", &["remote", "add", "origin", "--", url], on_line).await?;
        self.fetch(commit, on_line).await?;
        let checkout = ["checkout", "--progress", "--force", "--detach", commit.as_str()];
        self.git("checking out", &checkout, on_line).await?;
        if fs::symlink_metadata(self.dir.join(".gitmodules")).is_ok() {
            let update = ["submodule", "update", "--init", "--recursive", "--progress"];
            self.git("fetching the submodules of", &update, on_line).await?;
        }
        Ok(())
    }

    async fn fetch(&self, commit: &Commit, on_line: &mut (dyn FnMut(&str) + Send)) -> Result<(), GitError> {
        let fetch = ["fetch", "--progress", "--no-recurse-submodules"];
        let one = [&fetch[..], &["--no-tags", "--depth=1", "origin", commit.as_str()]].concat();
        if self.run("fetching from", &one, on_line).await?.success() {
            return Ok(());
        }
        // Some servers hand out no commit by its name, so it is looked for in all they have; one
        // that cannot be reached says so here again.
        let all = [&fetch[..], &["origin"], &EVERYTHING].concat();
        self.git("fetching from", &all, on_line).await?;
        let object = format!("{commit}^{{commit}}");
        if self.git.ask(&["cat-file", "-e", &object], self.dir, self.env).await?.success {
            Ok(())
        } else {
            Err(GitError::NoCommit { commit: commit.clone(), url: self.location.url.clone() })
        }
    }

    /// Runs git; only success will do.
    async fn git(
        &self,
        doing: &'static str,
        args: &[&str],
        on_line: &mut (dyn FnMut(&str) + Send),
    ) -> Result<(), GitError> {
        let done = self.run(doing, args, on_line).await?;
        let url = self.location.url.clone();
        if done.success() {
            Ok(())
        } else if done.output.contains("git-lfs: not found")
            || done.output.contains("git-lfs: command not found")
        {
            Err(GitError::NoLfs { url })
        } else {
            let lines: Vec<&str> = done.output.lines().filter(|line| !line.trim().is_empty()).collect();
            let why = lines[lines.len().saturating_sub(SHOWN)..].join("\n");
            Err(GitError::Failed { doing, url, why })
        }
    }

    async fn run(
        &self,
        doing: &'static str,
        args: &[&str],
        on_line: &mut (dyn FnMut(&str) + Send),
    ) -> Result<Finished, GitError> {
        let argv = std::iter::once("git").chain(args.iter().copied()).map(str::to_owned).collect();
        let task = Task {
            command: &Command::Exec(argv),
            dir: self.dir,
            env: self.env,
            log: self.log,
            timeout: None,
            silence: Some(SILENCE),
        };
        // Nothing to record: what a killed clone leaves is a folder that nobody looks at.
        let done = run(&task, self.leash, |_| async { Ok(()) }, on_line).await?;
        match done.ending {
            Ending::Exited(_) => Ok(done),
            ending => Err(GitError::Ended { doing, url: self.location.url.clone(), ending }),
        }
    }
}

/// The app's folder, which must be one and lie in the clone, links followed.
fn app_folder(clone: &Path, repo: &Repo, location: &Location) -> Result<PathBuf, GitError> {
    let Some(path) = &repo.path else { return Ok(clone.to_owned()) };
    let url = || location.url.clone();
    let leaves = || GitError::FolderLeaves { path: path.clone(), url: url() };
    let inside = path.components().all(|part| matches!(part, Component::Normal(_) | Component::CurDir));
    if !inside {
        return Err(leaves());
    }
    let folder = clone.join(path);
    let real = folder.canonicalize().ok().filter(|real| real.is_dir());
    let real = real.ok_or_else(|| GitError::NoFolder { path: path.clone(), url: url() })?;
    let root = clone.canonicalize().map_err(|why| GitError::Io { path: clone.to_owned(), why })?;
    if real.starts_with(root) { Ok(folder) } else { Err(leaves()) }
}
