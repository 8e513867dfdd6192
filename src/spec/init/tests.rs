//! Drafts, as they are written.

use super::*;

fn found(program: Program) -> Found {
    Found {
        project: "shop".parse().expect("a name"),
        app: "api".parse().expect("a name"),
        program,
        port: None,
        healthcheck: None,
        dockerfile_too: false,
    }
}

/// Checks the lines between `role` and `port`, which depend on the program.
fn check(program: Program, expected: &str) {
    let text = draft(&found(program));
    let (_, rest) = text.split_once("without a port\n").expect("the role comes first");
    let (lines, _) = rest.split_once("    port: 8080").expect("the port comes last");
    assert_eq!(lines, expected);
}

#[test]
fn a_draft_says_what_was_found_and_how_to_go_on() {
    let text = draft(&Found {
        port: Some(9000),
        healthcheck: Some("/up".into()),
        dockerfile_too: true,
        ..found(Program::Rust { binary: "api".into(), others: vec!["admin".into(), "seed".into()] })
    });
    assert_eq!(
        text,
        "\
# What should run here. `norn validate` checks this file, `norn plan` shows what would
# change, `norn apply` makes it so.
version: 1
project: shop

apps:
  api:
    role: webserver  # a program that answers no requests is a worker, without a port
    # There is a Dockerfile too. This app is built and runs without it.
    build:
      command: cargo build --release
      cache: [target]  # kept from build to build
      test: cargo test --release
    # There are more programs, each an app if it should run: admin, seed.
    # norn gives each process a port of its own in $PORT: the app must listen there.
    command: ./target/release/api
    port: 9000  # where clients reach it
    healthcheck: /up
    # env: {LOG: info}
    # secrets: [API_KEY]  # taken from norn's environment, never shown
"
    );
}

#[test]
fn a_go_program_is_built_from_its_package() {
    check(
        Program::Go { package: "./cmd/api".into(), others: vec![] },
        "    build:
      command: go build -o bin/app ./cmd/api
      test: go test ./...
    # norn gives each process a port of its own in $PORT: the app must listen there.
    command: ./bin/app
",
    );
}

#[test]
fn a_node_app_runs_its_scripts() {
    let node = Node {
        manager: NodeManager::Npm { locked: true },
        dependencies: true,
        build_script: true,
        test_script: true,
        start: NodeStart::Script,
        engine: Some(">=20".into()),
    };
    check(
        Program::Node(node.clone()),
        "    build:
      command: npm ci && npm run build
      test: npm test
    # package.json asks for Node.js >=20.
    # norn gives each process a port of its own in $PORT: the app must listen there.
    command: npm start
",
    );
    let bare = Node {
        manager: NodeManager::Pnpm,
        build_script: false,
        test_script: false,
        start: NodeStart::Missing,
        engine: None,
        ..node.clone()
    };
    check(
        Program::Node(bare),
        "    build:
      command: pnpm install --frozen-lockfile
      cache: [node_modules]  # kept from build to build
    # package.json has no `start` script: add one, or put in what starts the app.
    # norn gives each process a port of its own in $PORT: the app must listen there.
    command: pnpm start
",
    );
    let file = Node {
        dependencies: false,
        build_script: false,
        test_script: false,
        start: NodeStart::File("lib/index.js".into()),
        engine: None,
        ..node
    };
    check(
        Program::Node(file),
        "    # norn gives each process a port of its own in $PORT: the app must listen there.
    command: node lib/index.js
",
    );
}

#[test]
fn a_python_app_runs_in_a_venv_that_may_move() {
    check(
        Program::Python {
            install: Some(Install::Requirements),
            missing: None,
            start: PythonStart::Gunicorn("shop.wsgi".into()),
        },
        "    build:
      command: python3 -m venv .venv && .venv/bin/python -m pip install -r requirements.txt
      cache: [.venv]  # kept from build to build
    # `python -m NAME` rather than .venv/bin/NAME, which names a folder that moves.
    command: .venv/bin/python -m gunicorn --bind 127.0.0.1:$PORT shop.wsgi
",
    );
    check(
        Program::Python {
            install: Some(Install::Project),
            missing: Some("uvicorn"),
            start: PythonStart::Uvicorn("main:app".into()),
        },
        "    build:
      command: python3 -m venv .venv && .venv/bin/python -m pip install . uvicorn
      cache: [.venv]  # kept from build to build
    # `python -m NAME` rather than .venv/bin/NAME, which names a folder that moves.
    # The project does not name uvicorn, which serves it: better add it there.
    command: .venv/bin/python -m uvicorn main:app --host 127.0.0.1 --port $PORT
",
    );
}

#[test]
fn a_python_app_without_packages_needs_no_build() {
    let start = |start| Program::Python { install: None, missing: None, start };
    check(
        start(PythonStart::Django),
        "    # Django's own server is meant for development: see gunicorn for more.
    command: python3 manage.py runserver 127.0.0.1:$PORT --noreload
",
    );
    check(
        start(PythonStart::Flask("app".into())),
        "    # Flask's own server is meant for development: see gunicorn for more.
    command: python3 -m flask --app app run --host 127.0.0.1 --port $PORT
",
    );
    check(
        start(PythonStart::Script("server.py".into())),
        "    # norn gives each process a port of its own in $PORT: the app must listen there.
    command: python3 server.py
",
    );
    check(
        start(PythonStart::Missing),
        "    # norn could not tell how this app starts: put in what starts it.
    # norn gives each process a port of its own in $PORT: the app must listen there.
    command: python3 main.py
",
    );
}

#[test]
fn files_are_served_from_their_folder() {
    check(
        Program::Static { folder: "." },
        "    # Serves the files as they are.
    command: python3 -m http.server $PORT --bind 127.0.0.1
",
    );
    check(
        Program::Static { folder: "public" },
        "    # Serves the files as they are.
    command: python3 -m http.server $PORT --bind 127.0.0.1 --directory public
",
    );
}

#[test]
fn what_runs_in_a_container_or_is_unknown_is_said() {
    check(
        Program::Dockerfile,
        "    build:
      dockerfile: Dockerfile
    # Built and run by this machine's Docker engine (`runtime: docker`). In its container the
    # app listens on $PORT, which is `port`, on every address.
",
    );
    check(
        Program::Unknown,
        "    # norn found nothing here that it knows how to start. Put in what starts the app, and
    # above it, if it has to be built: `build: {command: ..., test: ...}`.
    # norn gives each process a port of its own in $PORT: the app must listen there.
    command: ./start.sh
",
    );
}

#[test]
fn a_text_that_yaml_would_read_otherwise_is_quoted() {
    for plain in ["web", "./app", "npm ci && npm run build", "/up?x=1"] {
        assert_eq!(scalar(plain), plain);
    }
    for (text, quoted) in [
        ("8080", "\"8080\""),
        ("null", "\"null\""),
        ("true", "\"true\""),
        ("/a #b", "\"/a #b\""),
        ("/a: b", "\"/a: b\""),
        ("a\nb", "\"a\\nb\""),
        ("[x", "\"[x\""),
        ("", "\"\""),
    ] {
        assert_eq!(scalar(text), quoted);
        let read: String = serde_yaml::from_str(quoted).expect("a quoted scalar is YAML");
        assert_eq!(read, text);
    }
}

#[test]
fn names_that_look_like_numbers_stay_names() {
    let spec = Found {
        project: "2048".parse().expect("a name"),
        app: "null".parse().expect("a name"),
        ..found(Program::Unknown)
    };
    let read: serde_json::Value = serde_yaml::from_str(&draft(&spec)).expect("a draft is YAML");
    assert_eq!(read["project"], "2048");
    assert_eq!(read["apps"]["null"]["port"], 8080);
}
