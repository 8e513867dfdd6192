//! Sources in git: commits of real repositories over every transport.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use norn::provider::child::Leash;
use norn::provider::source::{Commit, Git, GitError, Repo, clone, resolve};
use norn::scrub::Scrub;
use tempfile::TempDir;
use tokio::sync::watch;

use crate::git_server;
use crate::shared::skipped;

/// A folder with its own home, where git knows no configuration but what a test gives it.
pub struct Site {
    pub dir: TempDir,
    env: BTreeMap<String, String>,
}

impl Site {
    pub fn new() -> Self {
        let dir = TempDir::new().expect("a temporary folder");
        fs::create_dir(dir.path().join("home")).expect("a home");
        let config = "[user]\nname = Ann\nemail = ann@example.com\n[init]\ndefaultBranch = main\n\
                      [protocol \"file\"]\nallow = always\n";
        fs::write(dir.path().join("home/.gitconfig"), config).expect("a configuration");
        let mut env = BTreeMap::from([("PATH".to_owned(), std::env::var("PATH").expect("a PATH"))]);
        env.insert("HOME".to_owned(), dir.path().join("home").to_str().expect("UTF-8").to_owned());
        env.insert("GIT_CONFIG_NOSYSTEM".to_owned(), "1".to_owned());
        Self { dir, env }
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    fn url(&self, name: &str) -> String {
        self.path(name).to_str().expect("UTF-8").to_owned()
    }

    /// Runs git in `name` as the person who works there.
    pub fn git(&self, name: &str, args: &str) -> String {
        let mut command = Command::new("git");
        command.args(args.split(' ')).current_dir(self.path(name)).env_clear().envs(&self.env);
        let output = command.output().expect("git runs");
        assert!(output.status.success(), "git {args}: {}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).expect("UTF-8").trim().to_owned()
    }

    /// A repository with one file.
    pub fn repository(&self, name: &str) -> Commit {
        fs::create_dir_all(self.path(name)).expect("a folder");
        self.git(name, "init -q");
        self.commit(name, "file", "one")
    }

    pub fn commit(&self, name: &str, file: &str, text: &str) -> Commit {
        self.write(&format!("{name}/{file}"), text);
        self.git(name, "add -A");
        self.git(name, &format!("commit -q -m {file}"));
        self.git(name, "rev-parse HEAD").parse().expect("a commit")
    }

    pub fn write(&self, file: &str, text: &str) {
        let path = self.path(file);
        fs::create_dir_all(path.parent().expect("it is in a folder")).expect("a folder");
        fs::write(path, text).expect("it can be written");
    }

    pub async fn own_git(&self) -> Git {
        Git::under(self.env.clone()).await.expect("git is there")
    }

    async fn resolve(&self, url: &str, reference: Option<&str>) -> Result<Commit, GitError> {
        let repo = repo(url, reference);
        resolve(&self.own_git().await, &repo, self.dir.path()).await
    }

    /// A clone in the folder `dest`.
    async fn clone(&self, repo: &Repo, commit: &Commit) -> Result<PathBuf, GitError> {
        let (_cancel, cancel) = watch::channel(false);
        let guard = env!("CARGO_BIN_EXE_norn").into();
        let leash = Leash { guard, lease: None, cancel, scrub: Scrub::new([]) };
        let (dest, log) = (self.path("dest"), self.path("log"));
        let result = clone(&self.own_git().await, repo, commit, &dest, &leash, &log, &mut |_| ()).await;
        assert_eq!(result.is_ok(), dest.exists(), "complete or not there");
        let names =
            fs::read_dir(self.dir.path()).expect("a folder").map(|entry| entry.expect("one").file_name());
        let part = names.filter(|name| name.to_string_lossy().ends_with(".part")).count();
        assert_eq!(part, 0, "nothing is left beside it");
        result
    }

    fn log(&self) -> String {
        fs::read_to_string(self.path("log")).unwrap_or_default()
    }

    pub fn read(&self, file: &str) -> String {
        fs::read_to_string(self.path(file)).expect(file)
    }
}

fn repo(url: &str, reference: Option<&str>) -> Repo {
    Repo { url: url.to_owned(), reference: reference.map(str::to_owned), path: None }
}

fn absent() -> Commit {
    "0123456789012345678901234567890123456789".parse().expect("a commit")
}

#[tokio::test]
async fn a_reference_is_resolved_to_its_commit() {
    let site = Site::new();
    let first = site.repository("app");
    site.git("app", "tag light");
    site.git("app", "tag -a -m x heavy");
    site.git("app", "branch deadbee");
    site.git("app", "branch team/main");
    let second = site.commit("app", "file", "two");
    let url = site.url("app");
    for (reference, commit) in [
        (None, &second),
        (Some("main"), &second),
        (Some("team/main"), &first),
        (Some("light"), &first),
        (Some("heavy"), &first),
        (Some("refs/tags/heavy"), &first),
        (Some("refs/heads/main"), &second),
        (Some("deadbee"), &first),
        (Some(first.as_str()), &first),
        (Some(&first.as_str()[..7]), &first),
        (Some(&second.as_str()[..12].to_ascii_uppercase()), &second),
    ] {
        for url in [url.clone(), format!("file://{url}")] {
            assert_eq!(&site.resolve(&url, reference).await.expect("it resolves"), commit, "{reference:?}");
        }
    }
    // A full commit is taken at its word; that it is there is the clone's to find out.
    let absent = absent();
    assert_eq!(site.resolve(&url, Some(absent.as_str())).await.expect("it resolves"), absent);
}

#[tokio::test]
async fn a_reference_that_names_nothing_or_two_things_is_refused() {
    let site = Site::new();
    site.repository("app");
    let url = site.url("app");
    let error = site.resolve(&url, Some("nope")).await.expect_err("no such branch");
    assert_eq!(error.to_string(), format!("nope is no branch, tag or commit of {url}"));
    assert!(matches!(site.resolve(&url, Some("1234567")).await, Err(GitError::NoReference { .. })));
    for bad in ["-x", "a b", "a..b", "ma*n", "main^", ""] {
        assert!(matches!(site.resolve(&url, Some(bad)).await, Err(GitError::Reference(_))), "{bad}");
    }
    site.git("app", "tag main");
    let error = site.resolve(&url, Some("main")).await.expect_err("two of them").to_string();
    assert!(error.contains("refs/heads/main") && error.contains("refs/tags/main"), "{error}");
    fs::create_dir(site.path("empty")).expect("a folder");
    site.git("empty", "init -q");
    assert!(matches!(site.resolve(&site.url("empty"), None).await, Err(GitError::Empty { .. })));
    let error = site.resolve(&site.url("nowhere"), None).await.expect_err("no repository").to_string();
    assert!(error.contains("does not appear to be a git repository"), "{error}");
}

#[tokio::test]
async fn hostile_urls_reach_no_program() {
    let site = Site::new();
    let witness = site.url("witness");
    for url in [
        format!("ext::sh -c touch% {witness}"),
        format!("--upload-pack=touch {witness}"),
        format!("ssh://-oProxyCommand=touch%20{witness}/x"),
        format!("-oProxyCommand=touch {witness}:x"),
    ] {
        assert!(matches!(site.resolve(&url, None).await, Err(GitError::Url(_))), "{url}");
        assert!(matches!(site.clone(&repo(&url, None), &absent()).await, Err(GitError::Url(_))), "{url}");
    }
    assert!(!site.path("witness").exists());
}

#[tokio::test]
async fn the_commit_asked_for_is_cloned_though_its_branch_moved() {
    let site = Site::new();
    site.repository("app");
    let url = site.url("app");
    let asked = site.resolve(&url, Some("main")).await.expect("it resolves");
    site.commit("app", "file", "two");
    site.commit("app", "more", "three");
    let app = site.clone(&repo(&url, Some("main")), &asked).await.expect("it is cloned");
    assert_eq!(app.as_os_str(), site.path("dest").as_os_str());
    assert_eq!(site.read("dest/file"), "one");
    assert!(!site.path("dest/more").exists());
    assert_eq!(site.git("dest", "rev-parse HEAD"), asked.as_str());
    assert_eq!(site.git("dest", "status --porcelain"), "");
}

#[tokio::test]
async fn a_server_that_hands_out_no_commit_by_name_is_searched() {
    let site = Site::new();
    let first = site.repository("app");
    site.commit("app", "file", "two");
    // The old protocol knows this refusal.
    site.git("home", "config --global protocol.version 0");
    let repo = repo(&format!("file://{}", site.url("app")), None);
    site.clone(&repo, &first).await.expect("it is cloned");
    assert_eq!(site.read("dest/file"), "one");
    assert!(site.log().contains("unadvertised object"), "{}", site.log());
}

#[tokio::test]
async fn a_commit_that_is_not_there_is_said() {
    let site = Site::new();
    site.repository("app");
    let url = site.url("app");
    let error = site.clone(&repo(&url, None), &absent()).await.expect_err("no such commit");
    assert_eq!(error.to_string(), format!("commit {} is not in {url}: was it pushed?", absent()));
    let error = site.clone(&repo(&site.url("nowhere"), None), &absent()).await.expect_err("no repository");
    assert!(error.to_string().contains("does not appear to be a git repository"), "{error}");
}

#[tokio::test]
async fn submodules_come_along_also_by_relative_urls() {
    let site = Site::new();
    site.repository("inner");
    site.repository("middle");
    site.git("middle", "submodule --quiet add ../inner in");
    site.commit("middle", "x", "x");
    site.repository("outer");
    site.git("outer", &format!("submodule --quiet add {} mid", site.url("middle")));
    let commit = site.commit("outer", "x", "x");
    // What the user allows must not decide it.
    site.git("home", "config --global --unset protocol.file.allow");
    site.clone(&repo(&site.url("outer"), None), &commit).await.expect("it is cloned");
    assert_eq!(site.read("dest/mid/in/file"), "one");
    assert_eq!(site.git("dest", "status --porcelain"), "");
}

#[tokio::test]
async fn over_http_a_password_is_used_and_never_shown_and_no_submodule_reads_this_machine() {
    let site = Site::new();
    let commit = site.repository("app");
    site.git("app", "config http.receivepack false");
    // base64 of `me:p@ss-word`
    let address = git_server::http(site.dir.path(), Some("bWU6cEBzcy13b3Jk"));
    let url = format!("http://me:p%40ss-word@{address}/app/.git");
    assert_eq!(site.resolve(&url, Some("main")).await.expect("it resolves"), commit);
    assert_eq!(site.resolve(&url, Some(&commit.as_str()[..8])).await.expect("it resolves"), commit);
    site.clone(&repo(&url, None), &commit).await.expect("it is cloned");
    assert_eq!(site.read("dest/file"), "one");
    assert!(!site.read("dest/.git/config").contains("ss-word"));
    fs::remove_dir_all(site.path("dest")).expect("it was made");

    let wrong = format!("http://me:wrong-pass@{address}/app/.git");
    let error = site.resolve(&wrong, Some("main")).await.expect_err("it is refused").to_string();
    assert!(error.contains("Authentication failed") && !error.contains("wrong-pass"), "{error}");
    let error = site.clone(&repo(&wrong, None), &commit).await.expect_err("it is refused").to_string();
    assert!(!error.contains("wrong-pass"), "{error}");
    let error = site.resolve(&format!("http://{address}/app/.git"), None).await.expect_err("no password");
    assert!(error.to_string().contains("asking"), "{error}");

    site.repository("secret");
    site.git("app", &format!("submodule --quiet add {} stolen", site.url("secret")));
    let commit = site.commit("app", "x", "x");
    let error = site.clone(&repo(&url, None), &commit).await.expect_err("it is refused").to_string();
    assert!(error.contains("transport 'file' not allowed"), "{error}");
    let log = site.log();
    assert!(!log.contains("ss-word") && !log.contains("wrong-pass"), "{log}");
}

#[tokio::test]
async fn over_ssh_both_spellings_work_and_nobody_is_asked() {
    let mut site = Site::new();
    let commit = site.repository("app");
    fs::create_dir(site.path("ssh")).expect("a folder");
    let Some(sshd) = git_server::sshd(&site.path("ssh")) else {
        skipped("sources over ssh", "no sshd is installed");
        return;
    };
    let path = site.url("app");
    let urls = [
        format!("ssh://{}@127.0.0.1:{}{path}", sshd.user, sshd.port),
        format!("{}@127.0.0.1:{path}", sshd.user),
    ];
    site.env.insert("GIT_SSH_COMMAND".to_owned(), sshd.command.clone());
    for url in &urls {
        assert_eq!(site.resolve(url, Some("main")).await.expect("it resolves"), commit);
        site.clone(&repo(url, None), &commit).await.expect("it is cloned");
        assert_eq!(site.read("dest/file"), "one");
        fs::remove_dir_all(site.path("dest")).expect("it was made");
    }
    // Without the user's command the host is unknown, and BatchMode keeps ssh from asking.
    site.env.remove("GIT_SSH_COMMAND");
    let start = Instant::now();
    let error = site.resolve(&urls[0], None).await.expect_err("the host is unknown").to_string();
    assert!(error.contains("Host key verification failed"), "{error}");
    assert!(start.elapsed() < Duration::from_secs(10));
}

#[tokio::test]
async fn a_remote_that_does_not_answer_is_given_up_when_the_future_is_dropped() {
    let site = Site::new();
    let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("a free port");
    let url = format!("http://{}/app", listener.local_addr().expect("it is bound"));
    let helpers = || {
        let pids = fs::read_dir("/proc").expect("/proc").filter_map(|entry| entry.ok());
        let lines = pids.map(|pid| fs::read(pid.path().join("cmdline")).unwrap_or_default());
        lines.filter(|line| String::from_utf8_lossy(line).contains(&url)).count()
    };
    let start = Instant::now();
    tokio::select! {
        answer = site.resolve(&url, None) => panic!("nobody answers: {answer:?}"),
        // git and its helper for HTTP.
        () = async { while helpers() < 2 { tokio::time::sleep(Duration::from_millis(10)).await } } => {}
    }
    while helpers() > 0 {
        assert!(start.elapsed() < Duration::from_secs(5), "git is left behind");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

#[tokio::test]
async fn files_in_lfs_are_fetched_or_their_absence_is_an_error() {
    let mut site = Site::new();
    site.repository("app");
    let installed = match Command::new("git-lfs").arg("version").output() {
        Ok(_) => {
            site.git("app", "lfs install --local");
            site.git("app", "lfs track *.bin");
            true
        }
        Err(_) => {
            skipped("sources with large files", "git-lfs is not installed");
            site.write("app/.gitattributes", "*.bin filter=lfs diff=lfs merge=lfs -text\n");
            false
        }
    };
    let pointer =
        format!("version https://git-lfs.github.com/spec/v1\noid sha256:{}\nsize 3\n", "0".repeat(64));
    let commit = site.commit("app", "a.bin", if installed { "big" } else { &pointer });
    let repo = repo(&format!("file://{}", site.url("app")), None);
    if installed {
        assert!(site.git("app", "show HEAD:a.bin").starts_with("version https://git-lfs"));
        site.clone(&repo, &commit).await.expect("it is cloned");
        assert_eq!(site.read("dest/a.bin"), "big");
        fs::remove_dir_all(site.path("dest")).expect("it was made");
    }
    // A machine that has git and no git-lfs.
    let bin = site.path("bin");
    fs::create_dir(&bin).expect("a folder");
    for program in ["git", "sh", "sed", "basename", "uname", "cat"] {
        let found = std::env::var("PATH").expect("a PATH");
        let found = found.split(':').map(|dir| Path::new(dir).join(program)).find(|path| path.exists());
        symlink(found.expect(program), bin.join(program)).expect("a link");
    }
    site.env.insert("PATH".to_owned(), bin.to_str().expect("UTF-8").to_owned());
    let error = site.clone(&repo, &commit).await.expect_err("no git-lfs");
    assert!(matches!(error, GitError::NoLfs { .. }), "{error}");
}

#[tokio::test]
async fn an_apps_folder_lies_in_its_repository() {
    let site = Site::new();
    site.repository("app");
    symlink("/", site.path("app/out")).expect("a link");
    symlink("services", site.path("app/in")).expect("a link");
    let commit = site.commit("app", "services/api/file", "api");
    let at = |path: &str| Repo { path: Some(path.into()), ..repo(&site.url("app"), None) };
    let folder = site.clone(&at("./in/api"), &commit).await.expect("it is cloned");
    assert_eq!(fs::read_to_string(folder.join("file")).expect("a file"), "api");
    fs::remove_dir_all(site.path("dest")).expect("it was made");
    for (path, leaves) in
        [("out/etc", true), ("../x", true), ("/etc", true), ("nope", false), ("services/api/file", false)]
    {
        match site.clone(&at(path), &commit).await.expect_err("no folder of it") {
            GitError::FolderLeaves { .. } => assert!(leaves, "{path}"),
            GitError::NoFolder { .. } => assert!(!leaves, "{path}"),
            error => panic!("{error}"),
        }
    }
}
