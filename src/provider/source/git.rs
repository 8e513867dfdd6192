//! git: how norn runs it, and which commit a reference names.
//!
//! Here: questions, which are short. Elsewhere: commands that fetch for long (`clone`).

use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process_group};
use tokio::io::{AsyncRead, AsyncReadExt};
use tokio::process::Command;
use tokio::time::{Instant, timeout_at};

use super::location::{Location, Login, UrlError};
use super::{Commit, Repo};
use crate::provider::child::{ChildError, Ending};

/// How long a remote may take to answer, and a fetch to go on without a word.
const LIMIT: Duration = Duration::from_secs(30);
/// The variables of norn's environment that git needs.
const INHERITED: [&str; 20] = [
    "PATH",
    "HOME",
    "USER",
    "LOGNAME",
    "TMPDIR",
    "XDG_CONFIG_HOME",
    "SSH_AUTH_SOCK",
    "GIT_SSH_COMMAND",
    "GIT_CONFIG_GLOBAL",
    "GIT_SSL_CAINFO",
    "SSL_CERT_FILE",
    "SSL_CERT_DIR",
    "http_proxy",
    "https_proxy",
    "HTTPS_PROXY",
    "all_proxy",
    "ALL_PROXY",
    "no_proxy",
    "NO_PROXY",
    "TZ",
];

/// Why a source could not be had from git. No text shows a password.
#[derive(Debug, thiserror::Error)]
pub enum GitError {
    #[error("git is not installed: {0}. Install it, or put it on PATH")]
    Missing(io::Error),
    #[error(transparent)]
    Url(#[from] UrlError),
    #[error("{0:?} cannot be the name of a branch or a tag")]
    Reference(String),
    #[error(
        "{name} is both a branch and a tag of {url}: write refs/heads/{name} for the branch, or \
         refs/tags/{name} for the tag"
    )]
    Ambiguous { name: String, url: String },
    #[error("{name} is no branch, tag or commit of {url}")]
    NoReference { name: String, url: String },
    #[error("{name} is short for several commits of {url}: write more of it")]
    Short { name: String, url: String },
    #[error("{url} has no commits yet")]
    Empty { url: String },
    #[error("commit {commit} is not in {url}: was it pushed?")]
    NoCommit { commit: Commit, url: String },
    #[error("{doing} {url} failed: {why}")]
    Failed { doing: &'static str, url: String, why: String },
    #[error("{doing} {url} took longer than {} s", limit.as_secs())]
    TimedOut { doing: &'static str, url: String, limit: Duration },
    #[error("{doing} {url}: git {ending}")]
    Ended { doing: &'static str, url: String, ending: Ending },
    #[error(
        "{url} keeps files in Git LFS, and git-lfs is not installed: install git-lfs, else the build \
         would get pointers in place of these files"
    )]
    NoLfs { url: String },
    #[error("{} is no folder of {url} at that commit", path.display())]
    NoFolder { path: PathBuf, url: String },
    #[error("{} leaves {url}: an app's folder must lie in its repository", path.display())]
    FolderLeaves { path: PathBuf, url: String },
    #[error(transparent)]
    Child(#[from] ChildError),
    #[error("{}: {why}", path.display())]
    Io { path: PathBuf, why: io::Error },
}

/// git as norn runs it: it asks nobody, and sees little of norn's environment.
#[derive(Debug, Clone)]
pub struct Git {
    env: BTreeMap<String, String>,
}

/// What ends a question.
#[derive(Clone, Copy)]
pub(super) enum Limit {
    Total(Duration),
    /// Since the last byte of output.
    Silence(Duration),
}

/// What git answered.
pub(super) struct Answer {
    pub success: bool,
    pub stdout: Vec<u8>,
    pub stderr: String,
}

impl Git {
    /// git under this process's environment.
    pub async fn new() -> Result<Self, GitError> {
        let inherited =
            INHERITED.iter().filter_map(|key| Some(((*key).to_owned(), std::env::var(key).ok()?)));
        Self::under(inherited.collect()).await
    }

    /// git under an environment of the caller's.
    pub async fn under(mut env: BTreeMap<String, String>) -> Result<Self, GitError> {
        for (key, value) in [
            ("LANG", "C"),
            ("LC_ALL", "C"),
            ("GIT_TERMINAL_PROMPT", "0"),
            // Empty also overrules the user's `core.askPass`.
            ("GIT_ASKPASS", ""),
            ("SSH_ASKPASS_REQUIRE", "never"),
            ("GIT_OPTIONAL_LOCKS", "0"),
            ("GIT_LFS_FORCE_PROGRESS", "1"),
        ] {
            env.insert(key.to_owned(), value.to_owned());
        }
        let mut git = Self { env };
        if !git.env.contains_key("GIT_SSH_COMMAND") {
            // The variable would overrule what the user has configured.
            let args = ["config", "--get", "core.sshCommand"];
            if !git.ask(&args, Path::new("/"), &BTreeMap::new()).await?.success {
                let command = "ssh -o BatchMode=yes -o ConnectTimeout=15".to_owned();
                git.env.insert("GIT_SSH_COMMAND".to_owned(), command);
            }
        }
        Ok(git)
    }

    /// The environment to reach `location`.
    pub(super) fn env(&self, location: &Location) -> BTreeMap<String, String> {
        let mut env = self.env.clone();
        env.insert("GIT_ALLOW_PROTOCOL".to_owned(), location.protocols());
        let mut config = vec![
            // Hooks of the user's own are for the user's own repositories.
            ("core.hooksPath".to_owned(), "/dev/null".to_owned()),
            ("advice.detachedHead".to_owned(), "false".to_owned()),
            // git itself waits for a silent server for ever, also when norn is gone.
            ("http.lowSpeedLimit".to_owned(), "1".to_owned()),
            ("http.lowSpeedTime".to_owned(), LIMIT.as_secs().to_string()),
            // As `git lfs install` sets it, so that a repository that uses LFS never gets pointers.
            ("filter.lfs.process".to_owned(), "git-lfs filter-process".to_owned()),
            ("filter.lfs.smudge".to_owned(), "git-lfs smudge -- %f".to_owned()),
            ("filter.lfs.clean".to_owned(), "git-lfs clean -- %f".to_owned()),
            ("filter.lfs.required".to_owned(), "true".to_owned()),
        ];
        if let Some(Login { origin, user, password }) = &location.login {
            // A helper answers from the environment: an argument could be seen by every user of
            // this machine, and git prints URLs.
            let helper = r#"!f() { test "$1" = get && printf 'username=%s\npassword=%s\n' "$NORN_GIT_USER" "$NORN_GIT_PASSWORD"; }; f"#;
            config.push((format!("credential.{origin}.helper"), String::new()));
            config.push((format!("credential.{origin}.helper"), helper.to_owned()));
            env.insert("NORN_GIT_USER".to_owned(), user.expose().to_owned());
            env.insert("NORN_GIT_PASSWORD".to_owned(), password.expose().to_owned());
        }
        env.insert("GIT_CONFIG_COUNT".to_owned(), config.len().to_string());
        for (index, (key, value)) in config.into_iter().enumerate() {
            env.insert(format!("GIT_CONFIG_KEY_{index}"), key);
            env.insert(format!("GIT_CONFIG_VALUE_{index}"), value);
        }
        env
    }

    /// Asks about what is on this machine.
    pub(super) async fn ask(
        &self,
        args: &[&str],
        dir: &Path,
        env: &BTreeMap<String, String>,
    ) -> Result<Answer, GitError> {
        let env: BTreeMap<_, _> = self.env.iter().chain(env).map(|(k, v)| (k.clone(), v.clone())).collect();
        let limit = Duration::from_secs(120);
        let place = || dir.display().to_string();
        let answer = question(args, dir, &env, Limit::Total(limit)).await?;
        answer.ok_or_else(|| GitError::TimedOut { doing: "asking git about", url: place(), limit })
    }

    /// Asks a remote; an answer other than success is an error.
    async fn ask_remote(
        &self,
        args: &[&str],
        dir: &Path,
        location: &Location,
        limit: Limit,
    ) -> Result<Vec<u8>, GitError> {
        let url = || location.url.clone();
        let answer = question(args, dir, &self.env(location), limit).await?;
        let (Limit::Total(limit) | Limit::Silence(limit)) = limit;
        let answer = answer.ok_or_else(|| GitError::TimedOut { doing: "asking", url: url(), limit })?;
        if answer.success {
            Ok(answer.stdout)
        } else {
            Err(GitError::Failed { doing: "asking", url: url(), why: answer.stderr.trim().to_owned() })
        }
    }
}

/// The commit that the repository's reference names now. A full commit is taken as it is; an
/// abbreviated one is looked for in a copy of the history, made under `cache` and removed again.
///
/// # Errors
/// Among others [`GitError::NoReference`], and [`GitError::Ambiguous`] for a name of two things.
pub async fn resolve(git: &Git, repo: &Repo, cache: &Path) -> Result<Commit, GitError> {
    let location = Location::parse(&repo.url)?;
    let url = location.url.clone();
    let Some(name) = repo.reference.as_deref() else {
        let mut found = advertised(git, &location, &["HEAD".to_owned()]).await?;
        return found.remove("HEAD").ok_or(GitError::Empty { url });
    };
    if let Ok(commit) = name.parse() {
        return Ok(commit);
    }
    check_name(name)?;
    let peeled = |name: &str| format!("{name}^{{}}");
    if name.starts_with("refs/") {
        let mut found = advertised(git, &location, &[name.to_owned(), peeled(name)]).await?;
        let commit = found.remove(&peeled(name)).or_else(|| found.remove(name));
        return commit.ok_or(GitError::NoReference { name: name.to_owned(), url });
    }
    let (branch, tag) = (format!("refs/heads/{name}"), format!("refs/tags/{name}"));
    let mut found = advertised(git, &location, &[branch.clone(), tag.clone(), peeled(&tag)]).await?;
    let tag = found.remove(&peeled(&tag)).or_else(|| found.remove(&tag));
    match (found.remove(&branch), tag) {
        (Some(_), Some(_)) => Err(GitError::Ambiguous { name: name.to_owned(), url }),
        (Some(commit), None) | (None, Some(commit)) => Ok(commit),
        (None, None) if name.len() >= 7 && name.bytes().all(|byte| byte.is_ascii_hexdigit()) => {
            abbreviated(git, &location, &name.to_ascii_lowercase(), cache).await
        }
        (None, None) => Err(GitError::NoReference { name: name.to_owned(), url }),
    }
}

/// What the remote says of these full names.
async fn advertised(
    git: &Git,
    location: &Location,
    names: &[String],
) -> Result<BTreeMap<String, Commit>, GitError> {
    let mut args = vec!["ls-remote", "--quiet", "--", &location.url];
    args.extend(names.iter().map(String::as_str));
    let answer = git.ask_remote(&args, Path::new("/"), location, Limit::Total(LIMIT)).await?;
    let answer = String::from_utf8_lossy(&answer);
    let lines = answer.lines().filter_map(|line| line.split_once('\t'));
    // git also lists longer names that end like these.
    let exact = lines.filter(|(_, name)| names.iter().any(|wanted| wanted == name));
    Ok(exact.filter_map(|(commit, name)| Some((name.to_owned(), commit.parse().ok()?))).collect())
}

async fn abbreviated(git: &Git, location: &Location, name: &str, cache: &Path) -> Result<Commit, GitError> {
    let folder = tempfile::Builder::new().prefix("history.").tempdir_in(cache);
    let folder = folder.map_err(|why| GitError::Io { path: cache.to_owned(), why })?;
    let dir = folder.path();
    let quick = Limit::Total(LIMIT);
    git.ask_remote(&["init", "--quiet", "--template="], dir, location, quick).await?;
    git.ask_remote(&["remote", "add", "origin", "--", &location.url], dir, location, quick).await?;
    // Commits alone, where the server can leave out the rest.
    let fetch = ["fetch", "--progress", "--no-recurse-submodules", "--filter=tree:0", "origin"];
    let fetch = [&fetch[..], &EVERYTHING].concat();
    git.ask_remote(&fetch, dir, location, Limit::Silence(LIMIT)).await?;
    let commits = git.ask_remote(&["rev-list", "--all"], dir, location, quick).await?;
    let commits = String::from_utf8_lossy(&commits);
    let mut matching = commits.lines().filter(|commit| commit.starts_with(name));
    let (name, url) = (name.to_owned(), location.url.clone());
    match (matching.next().and_then(|commit| commit.parse().ok()), matching.next()) {
        (Some(commit), None) => Ok(commit),
        (Some(_), Some(_)) => Err(GitError::Short { name, url }),
        (None, _) => Err(GitError::NoReference { name, url }),
    }
}

/// All branches and tags.
pub(super) const EVERYTHING: [&str; 2] = ["+refs/heads/*:refs/remotes/origin/*", "+refs/tags/*:refs/tags/*"];

/// git's rules for names, as far as they keep a name from being read as something else.
fn check_name(name: &str) -> Result<(), GitError> {
    let bad = name.is_empty()
        || name.starts_with(['-', '/', '.'])
        || name.ends_with(['/', '.'])
        || name.contains("..")
        || name.contains("@{")
        || name.contains(|c: char| c.is_control() || c.is_whitespace() || "~^:?*[\\".contains(c));
    if bad { Err(GitError::Reference(name.to_owned())) } else { Ok(()) }
}

/// Runs git with exactly `env`; none where it took too long and was ended.
async fn question(
    args: &[&str],
    dir: &Path,
    env: &BTreeMap<String, String>,
    limit: Limit,
) -> Result<Option<Answer>, GitError> {
    let mut command = Command::new("git");
    command.args(args).env_clear().envs(env).current_dir(dir).process_group(0);
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().map_err(GitError::Missing)?;
    // Its helpers end with it, also where this future is dropped.
    let group = Group(child.id().and_then(|pid| Pid::from_raw(pid.cast_signed())));
    let failed = |why| GitError::Io { path: PathBuf::from("git"), why };
    let mut stdout = child.stdout.take().expect("it is piped");
    let mut stderr = child.stderr.take().expect("it is piped");
    let (mut out, mut err) = (Vec::new(), Vec::new());
    let start = Instant::now();
    let mut heard = start;
    let (mut out_open, mut err_open) = (true, true);
    while out_open || err_open {
        let due = match limit {
            Limit::Total(limit) => start + limit,
            Limit::Silence(limit) => heard + limit,
        };
        let read = async {
            tokio::select! {
                more = append(&mut stdout, &mut out), if out_open => { out_open = more?; Ok(()) }
                more = append(&mut stderr, &mut err), if err_open => { err_open = more?; Ok(()) }
            }
        };
        match timeout_at(due, read).await {
            Ok(read) => read.map_err(failed)?,
            Err(_) => return Ok(None),
        }
        heard = Instant::now();
    }
    let success = child.wait().await.map_err(failed)?.success();
    group.disarm();
    Ok(Some(Answer { success, stdout: out, stderr: String::from_utf8_lossy(&err).into_owned() }))
}

async fn append(from: &mut (impl AsyncRead + Unpin), to: &mut Vec<u8>) -> io::Result<bool> {
    Ok(from.read_buf(to).await? > 0)
}

/// A process group that is killed on drop.
struct Group(Option<Pid>);

impl Group {
    /// Its leader has been waited for, so the number may be another's from now on.
    fn disarm(mut self) {
        self.0 = None;
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        if let Some(group) = self.0 {
            let _ = kill_process_group(group, Signal::KILL);
        }
    }
}
