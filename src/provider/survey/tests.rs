//! What a look at a folder finds.

use std::fs;

use super::*;
use crate::spec::init::{Install, NodeManager, PythonStart, draft};

/// A folder called `My_Shop` that holds `files`.
fn folder(files: &[(&str, &str)]) -> (tempfile::TempDir, std::path::PathBuf) {
    let temp = tempfile::tempdir().expect("a temporary folder");
    let folder = temp.path().join("My_Shop");
    fs::create_dir(&folder).expect("it is ours");
    for (name, text) in files {
        let path = folder.join(name);
        fs::create_dir_all(path.parent().expect("a file has a folder")).expect("it is ours");
        fs::write(path, text).expect("it is ours");
    }
    (temp, folder)
}

fn look(files: &[(&str, &str)]) -> Found {
    let (_temp, folder) = folder(files);
    let found = survey(&folder).expect("the folder can be read");
    let text = draft(&found);
    let read: serde_json::Value = serde_yaml::from_str(&text).unwrap_or_else(|e| panic!("{e}:\n{text}"));
    assert_eq!(read["apps"][found.app.as_str()]["role"], "webserver", "{text}");
    found
}

fn rust(binary: &str, others: &[&str]) -> Program {
    Program::Rust { binary: binary.into(), others: others.iter().map(|&other| other.into()).collect() }
}

fn python(install: Option<Install>, start: PythonStart) -> Program {
    Program::Python { install, missing: None, start }
}

#[test]
fn names_come_from_the_folder_and_the_package() {
    let found = look(&[("Cargo.toml", "[package]\nname = \"shop_api\"\n"), ("src/main.rs", "")]);
    assert_eq!((found.project.as_str(), found.app.as_str()), ("my-shop", "shop-api"));
    let found = look(&[]);
    assert_eq!((found.project.as_str(), found.app.as_str()), ("my-shop", "my-shop"));
    assert_eq!(found.program, Program::Unknown);
}

#[test]
fn a_cargo_package_has_the_programs_that_cargo_finds() {
    let package = "[package]\nname = \"shop\"\n";
    let files = [("src/main.rs", ""), ("src/bin/seed.rs", ""), ("src/bin/admin/main.rs", "")];
    let with = |manifest| {
        let mut all = vec![("Cargo.toml", manifest)];
        all.extend(files);
        look(&all).program
    };
    assert_eq!(with(package), rust("shop", &["admin", "seed"]));
    assert_eq!(
        with("[package]\nname = \"shop\"\ndefault-run = \"seed\"\n"),
        rust("seed", &["admin", "shop"])
    );
    assert_eq!(
        with(
            "[package]\nname = \"shop\"\nautobins = false\n[[bin]]\nname = \"till\"\npath = \"src/main.rs\"\n"
        ),
        rust("till", &[])
    );
    assert_eq!(look(&[("Cargo.toml", package), ("src/lib.rs", "")]).program, Program::Unknown);
}

#[test]
fn a_cargo_workspace_has_its_members_programs() {
    let found = look(&[
        ("Cargo.toml", "[workspace]\nmembers = [\"crates/*\", \"tools\", \"gone\", \"none/*\"]\n"),
        ("crates/api/Cargo.toml", "[package]\nname = \"api\"\n"),
        ("crates/api/src/main.rs", ""),
        ("crates/core/Cargo.toml", "[package]\nname = \"core\"\n"),
        ("crates/core/src/lib.rs", ""),
        ("tools/Cargo.toml", "[package]\nname = \"tools\"\n[[bin]]\nname = \"seed\"\n"),
    ]);
    assert_eq!(found.program, rust("api", &["seed"]));
    assert_eq!(found.app.as_str(), "api");
}

#[test]
fn a_go_module_has_a_program_at_its_root_or_below_cmd() {
    let module = ("go.mod", "module example.com/shop/api/v2\n\ngo 1.24\n");
    let found = look(&[
        module,
        ("main.go", "// The shop.\npackage main // really\n"),
        ("cmd/seed/x.go", "package main\n"),
    ]);
    assert_eq!(found.program, Program::Go { package: ".".into(), others: vec!["./cmd/seed".into()] });
    assert_eq!(found.app.as_str(), "api");
    let found = look(&[
        module,
        ("shop.go", "package shop\n"),
        ("gen.go", "//go:build ignore\n\npackage main\n"),
        ("cmd/serve/main.go", "package main\n"),
        ("cmd/lib/lib.go", "package lib\n"),
    ]);
    assert_eq!(found.program, Program::Go { package: "./cmd/serve".into(), others: vec![] });
    assert_eq!(found.app.as_str(), "serve");
}

#[test]
fn a_node_package_says_what_to_run() {
    let found = look(&[
        (
            "package.json",
            r#"{"name": "@shop/web", "engines": {"node": ">=20"}, "devDependencies": {"vite": "*"},
                "scripts": {"start": "node .", "build": "vite build", "test": "node --test"}}"#,
        ),
        ("package-lock.json", "{}"),
        ("index.html", ""),
    ]);
    assert_eq!(found.app.as_str(), "web");
    let full = Node {
        manager: NodeManager::Npm { locked: true },
        dependencies: true,
        build_script: true,
        test_script: true,
        start: NodeStart::Script,
        engine: Some(">=20".into()),
    };
    assert_eq!(found.program, Program::Node(full));

    let bare = Node {
        manager: NodeManager::Yarn,
        dependencies: false,
        build_script: false,
        test_script: false,
        start: NodeStart::Missing,
        engine: None,
    };
    let npm_init = r#"{"main": "./lib/index.js", "engines": {"node": "20\n  evil: 1"},
        "scripts": {"test": "echo \"Error: no test specified\" && exit 1"}}"#;
    let found = look(&[("package.json", npm_init), ("yarn.lock", "")]);
    assert_eq!(found.program, Program::Node(bare.clone()));
    let found = look(&[("package.json", npm_init), ("yarn.lock", ""), ("lib/index.js", "")]);
    assert_eq!(found.program, Program::Node(Node { start: NodeStart::File("lib/index.js".into()), ..bare }));
    let outside = look(&[("package.json", r#"{"main": "../../etc/x y.js"}"#)]);
    assert!(matches!(outside.program, Program::Node(Node { start: NodeStart::Missing, .. })));
}

#[test]
fn a_python_project_is_served_by_what_it_asks_for() {
    let requirements = Some(Install::Requirements);
    for (files, program) in [
        (
            &[("manage.py", ""), ("package.json", r#"{"scripts": {"start": "x"}}"#)][..],
            python(None, PythonStart::Django),
        ),
        (
            &[("manage.py", ""), ("requirements.txt", "Django>=5\ngunicorn\n"), ("site/wsgi.py", "")],
            python(requirements, PythonStart::Gunicorn("site.wsgi".into())),
        ),
        (
            &[
                ("requirements.txt", "# web\nFlask==3\n"),
                ("app.py", "import flask\nweb = flask.Flask(__name__)\n"),
            ],
            python(requirements, PythonStart::Flask("app".into())),
        ),
        (
            &[("requirements.txt", "flask\ngunicorn\n"), ("wsgi.py", "app: Flask = create_app()\n")],
            python(requirements, PythonStart::Gunicorn("wsgi:app".into())),
        ),
        (
            &[
                ("requirements.txt", "flask\ngunicorn\n"),
                ("shop/__init__.py", "def create_app():\n    app = Flask(__name__)\n"),
            ],
            python(requirements, PythonStart::Gunicorn("'shop:create_app()'".into())),
        ),
        (
            &[
                ("pyproject.toml", "[project]\nname = \"a\"\ndependencies = [\"fastapi[standard]>=0.1\"]\n"),
                ("shop/main.py", "app = FastAPI()\n"),
            ],
            python(Some(Install::Project), PythonStart::Uvicorn("shop.main:app".into())),
        ),
        (
            &[
                ("pyproject.toml", "[tool.poetry.dependencies]\nfastapi = \"*\"\n[build-system]\n"),
                ("main.py", "api = fastapi.FastAPI(title=\"a\")\n"),
            ],
            Program::Python {
                install: Some(Install::Project),
                missing: Some("uvicorn"),
                start: PythonStart::Uvicorn("main:api".into()),
            },
        ),
        (
            &[("pyproject.toml", "[tool.ruff]\n"), ("server.py", "")],
            python(None, PythonStart::Script("server.py".into())),
        ),
        (&[("requirements.txt", "-r other.txt\nrequests\n")], python(requirements, PythonStart::Missing)),
        (&[("requirements.txt", "fastapi\n")], python(requirements, PythonStart::Missing)),
    ] {
        assert_eq!(look(files).program, program, "{files:?}");
    }
}

#[test]
fn pages_are_served_where_nothing_else_is() {
    assert_eq!(look(&[("index.html", "")]).program, Program::Static { folder: "." });
    assert_eq!(look(&[("public/index.html", "")]).program, Program::Static { folder: "public" });
}

#[test]
fn a_dockerfile_gives_hints_and_comes_last() {
    let docker = ("Dockerfile", "FROM x\nEXPOSE 3000\nHEALTHCHECK CMD curl http://localhost:3000/up\n");
    let found = look(&[docker]);
    assert_eq!((found.program, found.dockerfile_too), (Program::Dockerfile, false));
    let found = look(&[docker, ("index.html", "")]);
    assert_eq!((found.program, found.dockerfile_too), (Program::Static { folder: "." }, true));
    assert_eq!((found.port, found.healthcheck.as_deref()), (Some(3000), Some("/up")));
}

#[test]
fn what_cannot_be_read_is_named() {
    let large = " ".repeat((1 << 20) + 1);
    for (file, text, says) in [
        ("package.json", "{", "package.json: EOF"),
        ("Cargo.toml", "name = ", "Cargo.toml: "),
        ("pyproject.toml", "[a", "pyproject.toml: "),
        ("Dockerfile", large.as_str(), "Dockerfile: is larger than 1 MiB"),
    ] {
        let (_temp, folder) = folder(&[(file, text)]);
        let error = survey(&folder).expect_err(file).to_string();
        assert!(error.contains(says) && !error.contains('\n'), "{error}");
    }
    let (_temp, folder) = folder(&[]);
    let error = survey(&folder.join("gone")).expect_err("it is gone");
    assert_eq!(error.kind(), io::ErrorKind::NotFound);
}

#[test]
fn odd_shapes_and_bytes_are_no_reason_to_fail() {
    let found = look(&[
        ("package.json", "\u{feff}[1]"),
        ("Cargo.toml", "package = 1\nbin = 2\nworkspace = {members = [3]}\n"),
        ("go.mod", ""),
        ("pyproject.toml", "project = []\ntool = 4\n"),
        ("Dockerfile/EXPOSE", ""),
    ]);
    assert!(matches!(found.program, Program::Python { start: PythonStart::Missing, .. }), "{found:?}");
    let (_temp, folder) = folder(&[]);
    fs::write(folder.join("Dockerfile"), b"\xff\xfe\nEXPOSE 3000").expect("it is ours");
    assert_eq!(survey(&folder).expect("bytes are replaced").port, Some(3000));
}

#[test]
fn the_examples_are_recognised() {
    let examples = Path::new(env!("CARGO_MANIFEST_DIR")).join("examples");
    let look = |name: &str| survey(&examples.join(name)).expect("the example can be read");
    assert_eq!(look("rust-web").program, rust("links", &[]));
    assert_eq!(look("python-web").program, python(None, PythonStart::Script("web.py".into())));
    let node = look("node-web");
    assert_eq!((node.project.as_str(), node.app.as_str()), ("node-web", "contrast"));
    assert!(matches!(node.program, Program::Node(Node { start: NodeStart::Script, test_script: true, .. })));
}
