//! Sources in git over every transport, exactly at the commit asked for.

use std::fs;
use std::os::unix::fs::PermissionsExt;

use crate::git_server;
use crate::shared::skipped;
use crate::supervise::world::{SERVER, free_port, interpreter};
use crate::support::{Sandbox, get};

/// A repository with the app in `services/web`, whose answers begin with the commit's text.
fn repository(sandbox: &Sandbox) -> [String; 2] {
    sandbox.write("lib/lib.txt", "of the submodule");
    sandbox.git("lib", "init -q");
    sandbox.git("lib", "add -A");
    sandbox.git("lib", "commit -q -m lib");
    sandbox.write("work/services/web/server.py", SERVER);
    sandbox.write("work/services/web/start", "VERSION=one");
    sandbox.git("work", "init -q");
    fs::create_dir(sandbox.path("served")).expect("made");
    sandbox.git("served", "clone -q --bare ../lib lib.git");
    sandbox.git("", "clone -q --bare lib lib.git");
    // Beside the repository, wherever that is.
    sandbox.git("work", "submodule --quiet add ../lib.git services/web/lib");
    let commit = |text: &str| {
        sandbox.write("work/services/web/start", &format!("VERSION={text}"));
        sandbox.git("work", "add -A");
        sandbox.git("work", &format!("commit -q -m {text}"));
        sandbox.git("work", "rev-parse HEAD")
    };
    let commits = [commit("one"), commit("two")];
    sandbox.git("work", &format!("tag v1 {}", commits[0]));
    sandbox.git("served", "clone -q --bare ../work app.git");
    sandbox.git("served/app.git", &format!("update-ref refs/heads/main {}", commits[0]));
    sandbox.git("served/app.git", "config uploadpack.allowAnySHA1InWant true");
    commits
}

fn spec(sandbox: &Sandbox, port: u16, repo: &str) {
    let python = interpreter();
    sandbox.spec(&format!(
        "  web:\n    role: webserver\n    repo: {{{repo}, path: services/web}}\n    port: {port}\n    \
         command: 'export $(cat start); test -f lib/lib.txt && exec {python} -S server.py'\n    \
         healthcheck: {{path: /healthz, startup: 20s}}\n    rollout: {{drain: 2s}}\n"
    ));
}

#[test]
fn the_commit_asked_for_is_what_serves_over_every_transport() {
    let mut sandbox = Sandbox::new();
    let port = free_port();
    let commits = repository(&sandbox);
    let bare = sandbox.path("served/app.git").display().to_string();
    let http = format!("http://{}/app.git", git_server::http(&sandbox.path("served"), None));
    let mut urls = vec![bare.clone(), http];
    fs::create_dir(sandbox.path("ssh")).expect("made");
    let sshd = git_server::sshd(&sandbox.path("ssh"));
    match &sshd {
        Some(sshd) => {
            sandbox.env.insert("GIT_SSH_COMMAND".into(), sshd.command.clone());
            urls.push(format!("ssh://{}@127.0.0.1:{}{bare}", sshd.user, sshd.port));
        }
        None => skipped("norn apply over ssh", "no sshd is installed"),
    }
    for url in &urls {
        sandbox.git("served/app.git", &format!("update-ref refs/heads/main {}", commits[0]));
        spec(&sandbox, port, &format!("url: \"{url}\", branch: main"));
        sandbox.ok("apply --yes");
        assert!(get(port, "/").expect(url).starts_with("one"), "{url}");
        sandbox.git("served/app.git", &format!("update-ref refs/heads/main {}", commits[1]));
        sandbox.ok("apply --yes");
        assert!(get(port, "/").expect(url).starts_with("two"), "{url}");
        sandbox.plan_is_empty();
    }
    // A tag for this once, and what the spec says again.
    sandbox.ok("apply --yes --ref web=v1");
    assert!(get(port, "/").expect("it serves").starts_with("one"));
    // A commit that is nowhere: told, and nothing happens.
    spec(&sandbox, port, &format!("url: \"{bare}\", ref: \"{}\"", "0123456789".repeat(4)));
    let ran = sandbox.run("apply --yes");
    assert!([1, 3].contains(&ran.code) && ran.err.contains("0123456789"), "{}", ran.err);
    assert!(get(port, "/").expect("it serves").starts_with("one"));
}

#[test]
fn a_branch_that_moves_after_the_plan_is_not_followed() {
    let mut sandbox = Sandbox::new();
    let port = free_port();
    let commits = repository(&sandbox);
    let bare = sandbox.path("served/app.git").display().to_string();
    // Where norn looks the branch up, somebody pushes right afterwards.
    let real = std::env::var("PATH").expect("a PATH");
    let real = real.split(':').map(|dir| format!("{dir}/git")).find(|path| fs::metadata(path).is_ok());
    let real = real.expect("git is on PATH");
    let wrapper = format!(
        "#!/bin/sh\n{real} \"$@\"; code=$?\ncase \"$*\" in *ls-remote*) {real} -C {bare} update-ref refs/heads/main {};; esac\nexit $code\n",
        commits[1]
    );
    sandbox.write("bin/git", &wrapper);
    fs::set_permissions(sandbox.path("bin/git"), fs::Permissions::from_mode(0o755)).expect("ours");
    let path = format!("{}:{}", sandbox.path("bin").display(), sandbox.env["PATH"]);
    sandbox.env.insert("PATH".into(), path);
    spec(&sandbox, port, &format!("url: \"{bare}\", branch: main"));
    sandbox.ok("apply --yes");
    assert_eq!(sandbox.git("served/app.git", "rev-parse main"), commits[1], "the branch has moved");
    assert!(get(port, "/").expect("it serves").starts_with("one"));
    let plan = sandbox.fails("plan --detailed-exitcode", 2).out;
    assert!(plan.contains(&commits[1][..12]), "{plan}");
}
