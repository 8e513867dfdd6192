//! Projects before and after a change. Together they have every kind of step.

use crate::supervise::world::interpreter;
use crate::support::Sandbox;

/// One change of a project.
#[derive(Debug)]
pub struct Scenario {
    pub name: &'static str,
    /// What stands before; nothing where there is none.
    pub before: Option<&'static [App]>,
    pub after: &'static [App],
    /// The app that is put back to what it was before, where that is the change.
    pub back: Option<&'static str>,
    /// Whether norn's binary has to be copied to where supervisors run from. It takes its time, so in
    /// all but one change it is there.
    pub copies: bool,
}

/// An app of a scenario.
#[derive(Debug)]
pub struct App {
    name: &'static str,
    role: Role,
    /// What its code says it is.
    code: &'static str,
    /// What its environment says.
    version: &'static str,
    was: Option<&'static str>,
}

#[derive(Debug, PartialEq, Eq)]
enum Role {
    /// With a build, a cache, a test, a migration, two replicas and a front.
    Web,
    /// One process.
    Worker,
    /// A worker whose code is in a git repository.
    Cloned,
}

const fn web(name: &'static str, code: &'static str, version: &'static str) -> App {
    App { name, role: Role::Web, code, version, was: None }
}

const fn worker(name: &'static str, version: &'static str) -> App {
    App { name, role: Role::Worker, code: "one", version, was: None }
}

const fn cloned(name: &'static str) -> App {
    App { role: Role::Cloned, ..worker(name, "one") }
}

static ALL: [Scenario; 7] = [
    Scenario { name: "first", before: None, after: &[web("web", "one", "one")], back: None, copies: false },
    Scenario { name: "clone", before: None, after: &[cloned("work")], back: None, copies: false },
    Scenario {
        name: "change",
        before: Some(&[web("web", "one", "one"), worker("work", "one")]),
        after: &[web("web", "two", "two"), worker("work", "two")],
        back: None,
        copies: false,
    },
    Scenario {
        name: "rename",
        before: Some(&[web("page", "one", "one")]),
        after: &[App { was: Some("page"), ..web("site", "one", "two") }],
        back: None,
        copies: true,
    },
    Scenario {
        name: "rename and deploy",
        before: Some(&[web("page", "one", "one")]),
        after: &[App { was: Some("page"), ..web("site", "two", "two") }],
        back: None,
        copies: false,
    },
    Scenario {
        name: "rollback",
        before: Some(&[web("web", "one", "one")]),
        after: &[web("web", "two", "two")],
        back: Some("web"),
        copies: false,
    },
    Scenario {
        name: "teardown",
        before: Some(&[web("web", "one", "one"), worker("work", "one")]),
        after: &[worker("work", "one")],
        back: None,
        copies: false,
    },
];

pub fn all() -> &'static [Scenario] {
    &ALL
}

/// Says as little as a server can: starting the standard library's takes longer than all else here.
const SERVER: &str = r#"
import os, socket
listener = socket.socket()
listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
listener.bind(("127.0.0.1", int(os.environ["PORT"])))
listener.listen(64)
body = open("built").read().strip() + " " + os.environ["VERSION"]
head = f"HTTP/1.1 200 OK\r\nContent-Length: {len(body)}\r\nConnection: close\r\n\r\n"
while True:
    client, _ = listener.accept()
    asked = b""
    while not asked.endswith(b"\r\n\r\n"):
        more = client.recv(65536)
        asked += more or b"\r\n\r\n"
    client.sendall((head + body).encode())
    client.close()
"#;

/// Writes the spec of these apps, and their code.
pub fn write(sandbox: &Sandbox, apps: &[App], port: u16) {
    let python = interpreter();
    let mut spec = String::new();
    for App { name, role, code, version, was } in apps {
        let was = was.map(|was| format!("    was: [{was}]\n")).unwrap_or_default();
        let folder = match role {
            Role::Web => "web",
            Role::Worker | Role::Cloned => "work",
        };
        sandbox.write(&format!("{folder}/code"), code);
        spec += &format!("  {name}:\n    env: {{VERSION: {version}}}\n    rollout: {{drain: 1s}}\n{was}");
        spec += &match role {
            Role::Web => {
                sandbox.write("web/server.py", SERVER);
                let migrated = sandbox.path("migrated").display().to_string();
                format!(
                    "    role: webserver\n    path: ./{folder}\n    port: {port}\n    replicas: 2\n    \
                     command: [\"{python}\", \"-S\", \"-E\", server.py]\n    \
                     healthcheck: {{path: /, interval: 30ms, startup: 20s}}\n    build:\n      \
                     command: 'mkdir -p kept; echo built >> kept/log; cp code built'\n      \
                     test: test -f built\n      cache: [kept]\n    \
                     migrations: {{command: 'echo $(cat code) >> {migrated}'}}\n"
                )
            }
            Role::Worker | Role::Cloned => {
                let source =
                    if *role == Role::Cloned { repository(sandbox) } else { format!("path: ./{folder}") };
                format!(
                    "    role: worker\n    {source}\n    command: [sleep, '600']\n    \
                     healthcheck: {{command: 'true', interval: 30ms}}\n"
                )
            }
        };
    }
    sandbox.spec(&spec);
}

/// A repository with one commit, which is the same wherever it is made.
fn repository(sandbox: &Sandbox) -> String {
    if !sandbox.path("home/repo").exists() {
        sandbox.write("home/repo/code", "one");
        for arguments in ["init --quiet", "add -A", "commit --quiet --message=one"] {
            sandbox.git("home/repo", arguments);
        }
    }
    "repo: {url: ./home/repo}".to_owned()
}
