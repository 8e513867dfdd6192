//! The first infraspec of a project, written from what a look at its folder found.
//!
//! Here: the text. Elsewhere: looking at the folder (`provider::survey`), writing the file (`cli`).
//! Invariant: a draft is valid, and says of nothing that it works where that could not be known.

use super::name::{AppName, ProjectName};

/// What a folder holds, as far as starting it goes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Found {
    pub project: ProjectName,
    pub app: AppName,
    pub program: Program,
    /// The port that a Dockerfile exposes, where it is 1024 or above.
    pub port: Option<u16>,
    /// The path that a Dockerfile's HEALTHCHECK asks for.
    pub healthcheck: Option<String>,
    /// A Dockerfile stands beside another hint.
    pub dockerfile_too: bool,
}

/// How the app starts. Every text in here can stand in a shell command as it is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Program {
    Rust {
        binary: String,
        others: Vec<String>,
    },
    /// `package` is `.` or `./cmd/<name>`.
    Go {
        package: String,
        others: Vec<String>,
    },
    Node(Node),
    Python {
        install: Option<Install>,
        /// A server that `start` needs and the project does not name.
        missing: Option<&'static str>,
        start: PythonStart,
    },
    /// Files to be served as they are; `folder` is `.` or one below it.
    Static {
        folder: &'static str,
    },
    /// A Dockerfile, and no other hint.
    Dockerfile,
    Unknown,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Node {
    pub manager: NodeManager,
    /// Whether there are dependencies to install.
    pub dependencies: bool,
    pub build_script: bool,
    pub test_script: bool,
    pub start: NodeStart,
    /// `engines.node`, such as `>=20`.
    pub engine: Option<String>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NodeManager {
    Npm { locked: bool },
    Pnpm,
    Yarn,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum NodeStart {
    /// The `start` script, or npm's own default for it.
    Script,
    /// The package's `main`.
    File(String),
    Missing,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Install {
    Requirements,
    /// `pyproject.toml` says what to install.
    Project,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum PythonStart {
    Django,
    /// `gunicorn` with a target such as `shop.wsgi` or `app:app`.
    Gunicorn(String),
    /// `uvicorn` with a target such as `main:app`.
    Uvicorn(String),
    /// Flask's own server with a module such as `app`.
    Flask(String),
    Script(String),
    Missing,
}

/// The lines of one app that depend on the kind of program.
#[derive(Default)]
struct App {
    build: Vec<(&'static str, String)>,
    /// Comments above `command`.
    notes: Vec<String>,
    command: Option<String>,
}

/// The text of an infraspec, in the project form.
pub fn draft(found: &Found) -> String {
    let app = app(&found.program);
    let mut lines: Vec<String> = vec![
        "# What should run here. `norn validate` checks this file, `norn plan` shows what would".into(),
        "# change, `norn apply` makes it so.".into(),
        "version: 1".into(),
        format!("project: {}", scalar(found.project.as_str())),
        String::new(),
        "apps:".into(),
        format!("  {}:", scalar(found.app.as_str())),
        "    role: webserver  # a program that answers no requests is a worker, without a port".into(),
    ];
    if found.dockerfile_too {
        lines.push("    # There is a Dockerfile too. This app is built and runs without it.".into());
    }
    if !app.build.is_empty() {
        lines.push("    build:".into());
    }
    for (key, value) in &app.build {
        lines.push(format!("      {key}: {value}"));
    }
    lines.extend(app.notes.iter().map(|note| format!("    # {note}")));
    if let Some(command) = &app.command {
        lines.push(format!("    command: {}", scalar(command)));
    }
    lines.push(format!("    port: {}  # where clients reach it", found.port.unwrap_or(8080)));
    lines.push(match &found.healthcheck {
        Some(path) => format!("    healthcheck: {}", scalar(path)),
        None => "    # healthcheck: /healthz  # a path that answers 200 when the app is well".into(),
    });
    lines.push("    # env: {LOG: info}".into());
    lines.push("    # secrets: [API_KEY]  # taken from norn's environment, never shown".into());
    lines.join("\n") + "\n"
}

fn app(program: &Program) -> App {
    match program {
        Program::Rust { binary, others } => App {
            build: vec![
                ("command", "cargo build --release".into()),
                ("cache", "[target]  # kept from build to build".into()),
                ("test", "cargo test --release".into()),
            ],
            notes: [other_programs(others), Some(listens())].into_iter().flatten().collect(),
            command: Some(format!("./target/release/{binary}")),
        },
        Program::Go { package, others } => App {
            build: vec![
                ("command", scalar(&format!("go build -o bin/app {package}"))),
                ("test", "go test ./...".into()),
            ],
            notes: [other_programs(others), Some(listens())].into_iter().flatten().collect(),
            command: Some("./bin/app".into()),
        },
        Program::Node(node) => node_app(node),
        Program::Python { install, missing, start } => python_app(*install, *missing, start),
        Program::Static { folder } => App {
            notes: vec!["Serves the files as they are.".into()],
            command: Some(match *folder {
                "." => "python3 -m http.server $PORT --bind 127.0.0.1".into(),
                folder => format!("python3 -m http.server $PORT --bind 127.0.0.1 --directory {folder}"),
            }),
            ..App::default()
        },
        Program::Dockerfile => App {
            build: vec![("dockerfile", "Dockerfile".into())],
            notes: vec![
                "Built and run by this machine's Docker engine (`runtime: docker`). In its container the"
                    .into(),
                "app listens on $PORT, which is `port`, on every address.".into(),
            ],
            command: None,
        },
        Program::Unknown => App {
            notes: vec![
                "norn found nothing here that it knows how to start. Put in what starts the app, and".into(),
                "above it, if it has to be built: `build: {command: ..., test: ...}`.".into(),
                listens(),
            ],
            command: Some("./start.sh".into()),
            ..App::default()
        },
    }
}

fn node_app(node: &Node) -> App {
    let (install, run) = match node.manager {
        NodeManager::Npm { locked: true } => ("npm ci", "npm"),
        NodeManager::Npm { locked: false } => ("npm install", "npm"),
        NodeManager::Pnpm => ("pnpm install --frozen-lockfile", "pnpm"),
        NodeManager::Yarn => ("yarn install --frozen-lockfile", "yarn"),
    };
    let mut commands = Vec::new();
    if node.dependencies {
        commands.push(install.to_owned());
    }
    if node.build_script {
        commands.push(format!("{run} run build"));
    }
    let mut build = Vec::new();
    if !commands.is_empty() {
        build.push(("command", commands.join(" && ")));
    }
    // `npm ci` removes the folder first, so that keeping it would help nothing.
    if node.dependencies && node.manager != (NodeManager::Npm { locked: true }) {
        build.push(("cache", "[node_modules]  # kept from build to build".into()));
    }
    if node.test_script {
        build.push(("test", format!("{run} test")));
    }
    let mut notes = Vec::new();
    if let Some(engine) = &node.engine {
        notes.push(format!("package.json asks for Node.js {engine}."));
    }
    if node.start == NodeStart::Missing {
        notes.push("package.json has no `start` script: add one, or put in what starts the app.".into());
    }
    notes.push(listens());
    let command = match &node.start {
        NodeStart::File(file) => format!("node {file}"),
        NodeStart::Script | NodeStart::Missing => format!("{run} start"),
    };
    App { build, notes, command: Some(command) }
}

fn python_app(install: Option<Install>, missing: Option<&'static str>, start: &PythonStart) -> App {
    let packages = [
        install.map(|install| match install {
            Install::Requirements => "-r requirements.txt",
            Install::Project => ".",
        }),
        missing,
    ];
    let packages: Vec<&str> = packages.into_iter().flatten().collect();
    let mut build = Vec::new();
    let mut notes = Vec::new();
    let mut python = "python3";
    if !packages.is_empty() {
        let packages = packages.join(" ");
        build.push((
            "command",
            format!("python3 -m venv .venv && .venv/bin/python -m pip install {packages}"),
        ));
        build.push(("cache", "[.venv]  # kept from build to build".into()));
        // The scripts in .venv/bin name the folder they were installed in, and a release moves.
        python = ".venv/bin/python";
        notes.push("`python -m NAME` rather than .venv/bin/NAME, which names a folder that moves.".into());
    }
    if let Some(missing) = missing {
        notes.push(format!("The project does not name {missing}, which serves it: better add it there."));
    }
    let command = match start {
        PythonStart::Django => {
            notes.push("Django's own server is meant for development: see gunicorn for more.".into());
            format!("{python} manage.py runserver 127.0.0.1:$PORT --noreload")
        }
        PythonStart::Gunicorn(target) => {
            format!("{python} -m gunicorn --bind 127.0.0.1:$PORT {target}")
        }
        PythonStart::Uvicorn(target) => {
            format!("{python} -m uvicorn {target} --host 127.0.0.1 --port $PORT")
        }
        PythonStart::Flask(module) => {
            notes.push("Flask's own server is meant for development: see gunicorn for more.".into());
            format!("{python} -m flask --app {module} run --host 127.0.0.1 --port $PORT")
        }
        PythonStart::Script(script) => {
            notes.push(listens());
            format!("{python} {script}")
        }
        PythonStart::Missing => {
            notes.push("norn could not tell how this app starts: put in what starts it.".into());
            notes.push(listens());
            format!("{python} main.py")
        }
    };
    App { build, notes, command: Some(command) }
}

fn listens() -> String {
    "norn gives each process a port of its own in $PORT: the app must listen there.".into()
}

fn other_programs(others: &[String]) -> Option<String> {
    let list = others.join(", ");
    (!others.is_empty()).then(|| format!("There are more programs, each an app if it should run: {list}."))
}

/// A text as YAML: plain where that reads back as the same text, quoted elsewhere.
fn scalar(text: &str) -> String {
    let plain = serde_yaml::from_str::<serde_json::Value>(text);
    if plain.is_ok_and(|value| value == text) && !text.contains('\n') {
        text.to_owned()
    } else {
        // A JSON string is a double-quoted YAML scalar.
        serde_json::Value::from(text).to_string()
    }
}

#[cfg(test)]
mod tests;
