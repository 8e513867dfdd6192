//! A local source: its version, and a copy of it.
//!
//! Here: when a folder has a commit for a version, the digest of one that has not. Elsewhere: which
//! files count (`files`).
//! Invariants: the digest of a folder and of its copy are equal; no file is read through a link,
//! and no link leads out of the folder.

use std::collections::BTreeMap;
use std::fs::{self, OpenOptions};
use std::io::{self, Read};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt, symlink};
use std::path::{Component, Path, PathBuf};

use rustix::fs::OFlags;
use sha2::{Digest, Sha256};

use super::files::{self, Skip};
use super::git::{Git, GitError};
use super::{Commit, Staging, Version};

/// Why a local folder has no version, or no copy.
#[derive(Debug, thiserror::Error)]
pub enum LocalError {
    #[error("{}: {why}", path.display())]
    Io { path: PathBuf, why: io::Error },
    #[error("{} vanished while it was read: is a build writing into the folder?", path.display())]
    Vanished { path: PathBuf },
    #[error("{} changed while it was read: is a build writing into the folder?", path.display())]
    Changed { path: PathBuf },
    #[error(
        "{} is a link to {}, which is outside the app's folder {}: copy it into the folder",
        link.display(), target.display(), folder.display()
    )]
    LinkLeaves { link: PathBuf, target: PathBuf, folder: PathBuf },
    #[error(
        "git ignores all of {}: track files there, or set `path` to a folder that is not ignored",
        folder.display()
    )]
    Ignored { folder: PathBuf },
    #[error("git cannot read {}: {why}", folder.display())]
    GitSays { folder: PathBuf, why: String },
    #[error(transparent)]
    Git(#[from] GitError),
    #[error("{} cannot be searched: {why}", folder.display())]
    Walk { folder: PathBuf, why: String },
    #[error("{} has a pattern that cannot be read: {why}", path.display())]
    Pattern { path: PathBuf, why: String },
}

/// The version of `folder` without `skip` (absolute paths): the newest commit that touched it where
/// it is clean in git, else a digest of its files. A clean folder's files are not read.
pub async fn version(git: &Git, folder: &Path, skip: &[PathBuf]) -> Result<Version, LocalError> {
    let source = Source::look(git, folder, skip).await?;
    match source.commit(git).await? {
        Some(commit) => Ok(Version::Commit(commit)),
        None => blocking(move || digest(&source.folder, &source.files)).await.map(Version::Digest),
    }
}

/// Copies those files to the new folder `dest`, whose parent must be there, with their modes and
/// links, and returns the version of the copy: for a digest, of the bytes that were copied. It is
/// the caller's to compare it with the version that was planned.
///
/// # Errors
/// [`LocalError::Changed`] where a clean folder did not stay so.
pub async fn copy(git: &Git, folder: &Path, skip: &[PathBuf], dest: &Path) -> Result<Version, LocalError> {
    let source = Source::look(git, folder, skip).await?;
    let commit = source.commit(git).await?;
    let at_dest = |why| LocalError::Io { path: dest.to_owned(), why };
    let staging = Staging::beside(dest).map_err(at_dest)?;
    let (from, to, files) = (source.folder.clone(), staging.path().to_owned(), source.files.clone());
    blocking(move || copy_files(&from, &to, &files)).await?;
    let version = match commit {
        Some(commit) if source.commit(git).await?.as_ref() == Some(&commit) => Version::Commit(commit),
        Some(_) => return Err(LocalError::Changed { path: source.folder }),
        None => {
            let (copy, files) = (staging.path().to_owned(), source.files);
            Version::Digest(blocking(move || digest(&copy, &files)).await?)
        }
    };
    staging.finish().map_err(at_dest)?;
    Ok(version)
}

/// Whether the folder's history is cut, so that every new commit seems to touch all of it.
pub async fn shallow(git: &Git, folder: &Path) -> Result<bool, GitError> {
    let answer = git.ask(&["rev-parse", "--is-shallow-repository"], folder, &BTreeMap::new()).await?;
    Ok(answer.success && answer.stdout.starts_with(b"true"))
}

/// A local folder as it was when looked at.
struct Source {
    /// Absolute, without links.
    folder: PathBuf,
    skip: Skip,
    in_git: bool,
    /// Sorted by bytes.
    files: Vec<PathBuf>,
}

impl Source {
    async fn look(git: &Git, folder: &Path, skip: &[PathBuf]) -> Result<Self, LocalError> {
        let at_folder = |why| LocalError::Io { path: folder.to_owned(), why };
        let folder = folder.canonicalize().map_err(at_folder)?;
        let skip = Skip::new(skip);
        let in_git = files::in_git(&folder);
        let files = if in_git {
            files::of_git(git, &folder, &skip).await?
        } else {
            let (folder, skip) = (folder.clone(), skip.clone());
            blocking(move || files::without_git(&folder, &skip)).await?
        };
        let source = Self { folder, skip, in_git, files };
        source.check_ignored(git).await?;
        for name in &source.files {
            check_link(&source.folder, name)?;
        }
        Ok(source)
    }

    /// A folder that git ignores looks empty, which is surely not meant.
    async fn check_ignored(&self, git: &Git) -> Result<(), LocalError> {
        if !self.in_git || !self.files.is_empty() {
            return Ok(());
        }
        let folder = self.folder.to_string_lossy();
        let args = ["check-ignore", "--quiet", "--", &folder];
        match git.ask(&args, &self.folder, &BTreeMap::new()).await?.success {
            true => Err(LocalError::Ignored { folder: self.folder.clone() }),
            false => Ok(()),
        }
    }

    /// The newest commit that touched the folder, where nothing in it is changed or untracked.
    async fn commit(&self, git: &Git) -> Result<Option<Commit>, LocalError> {
        if !self.in_git || self.files.is_empty() {
            return Ok(None);
        }
        let mut pathspecs = vec![".".to_owned()];
        for path in self.skip.within(&self.folder) {
            pathspecs.push(format!(":(exclude,literal){}", path.to_string_lossy()));
        }
        let status =
            ["status", "--porcelain", "-z", "--untracked-files=all", "--ignore-submodules=none", "--"];
        if !self.ask(git, &status, &pathspecs).await?.is_empty() {
            return Ok(None);
        }
        // Tracked files without a change mean that there is a HEAD.
        let newest = self.ask(git, &["rev-list", "-1", "HEAD", "--"], &pathspecs).await?;
        // No commit: all the files are in repositories inside that this one does not track.
        Ok(String::from_utf8_lossy(&newest).trim().parse().ok())
    }

    async fn ask(&self, git: &Git, args: &[&str], pathspecs: &[String]) -> Result<Vec<u8>, LocalError> {
        let args: Vec<&str> = args.iter().copied().chain(pathspecs.iter().map(String::as_str)).collect();
        let answer = git.ask(&args, &self.folder, &BTreeMap::new()).await?;
        if answer.success {
            Ok(answer.stdout)
        } else {
            Err(LocalError::GitSays { folder: self.folder.clone(), why: answer.stderr.trim().to_owned() })
        }
    }
}

/// SHA-256 over each file's name, mode and bytes, each with its length, in the order of `files`.
fn digest(root: &Path, files: &[PathBuf]) -> Result<String, LocalError> {
    let mut hash = Sha256::new();
    let mut buffer = vec![0; 64 << 10];
    for name in files {
        let path = root.join(name);
        let meta = fs::symlink_metadata(&path).map_err(|why| unreadable(&path, why))?;
        part(&mut hash, name.as_os_str().as_bytes());
        if meta.is_symlink() {
            let target = fs::read_link(&path).map_err(|why| unreadable(&path, why))?;
            part(&mut hash, b"link");
            part(&mut hash, target.as_os_str().as_bytes());
            continue;
        }
        // A link that takes the file's place now is not followed.
        let flags = OFlags::NOFOLLOW.bits().cast_signed();
        let file = OpenOptions::new().read(true).custom_flags(flags).open(&path);
        let mut file = file.map_err(|why| unreadable(&path, why))?;
        // As git keeps modes: whether the owner may run it.
        part(&mut hash, if meta.permissions().mode() & 0o100 == 0 { b"file" } else { b"program" });
        hash.update(meta.len().to_le_bytes());
        let mut read = 0;
        loop {
            let bytes = file.read(&mut buffer).map_err(|why| unreadable(&path, why))?;
            if bytes == 0 {
                break;
            }
            read += bytes as u64;
            hash.update(&buffer[..bytes]);
        }
        if read != meta.len() {
            return Err(LocalError::Changed { path });
        }
    }
    Ok(hash.finalize().iter().map(|byte| format!("{byte:02x}")).collect())
}

/// With its length, so that no two lists of parts give the same bytes.
fn part(hash: &mut Sha256, bytes: &[u8]) {
    hash.update((bytes.len() as u64).to_le_bytes());
    hash.update(bytes);
}

fn copy_files(from: &Path, to: &Path, files: &[PathBuf]) -> Result<(), LocalError> {
    let mut made = PathBuf::new();
    for name in files {
        let (source, copy) = (from.join(name), to.join(name));
        let parent = copy.parent().expect("it was joined to a folder");
        if parent != made {
            fs::create_dir_all(parent).map_err(|why| LocalError::Io { path: parent.to_owned(), why })?;
            made = parent.to_owned();
        }
        let meta = fs::symlink_metadata(&source).map_err(|why| unreadable(&source, why))?;
        let copied = if meta.is_symlink() {
            fs::read_link(&source).and_then(|target| symlink(target, &copy))
        } else if meta.is_file() {
            fs::copy(&source, &copy).map(drop)
        } else {
            return Err(LocalError::Changed { path: source });
        };
        copied.map_err(|why| unreadable(&source, why))?;
    }
    Ok(())
}

fn unreadable(path: &Path, why: io::Error) -> LocalError {
    let path = path.to_owned();
    match why.kind() {
        io::ErrorKind::NotFound => LocalError::Vanished { path },
        _ => LocalError::Io { path, why },
    }
}

/// Refuses a link whose target is outside; one without a target is judged by its words.
fn check_link(folder: &Path, name: &Path) -> Result<(), LocalError> {
    let link = folder.join(name);
    let Ok(target) = fs::read_link(&link) else { return Ok(()) };
    let end = link.parent().expect("it was joined to a folder").join(&target);
    let end = end.canonicalize().unwrap_or_else(|_| without_dots(&end));
    if end.starts_with(folder) {
        Ok(())
    } else {
        Err(LocalError::LinkLeaves { link, target, folder: folder.to_owned() })
    }
}

fn without_dots(path: &Path) -> PathBuf {
    let mut plain = PathBuf::new();
    for part in path.components() {
        match part {
            Component::ParentDir => drop(plain.pop()),
            Component::CurDir => {}
            part => plain.push(part),
        }
    }
    plain
}

async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, LocalError> + Send + 'static,
) -> Result<T, LocalError> {
    match tokio::task::spawn_blocking(work).await {
        Ok(result) => result,
        Err(error) => std::panic::resume_unwind(error.into_panic()),
    }
}
