//! `norn init`: the draft of every kind of project is valid, and what starts on `$PORT` applies.

use std::process::Command;

use crate::sandbox::{Sandbox, free_port, get};

/// Drafts a spec, checks it, and returns it.
fn draft(sandbox: &Sandbox) -> String {
    let ran = sandbox.norn("init").ok();
    ran.says("wrote").says("infraspec.yaml");
    sandbox.norn("validate").ok();
    sandbox.norn("init").exits(1).one_error().says("is there already");
    let text = sandbox.read("infraspec.yaml");
    std::fs::remove_file(sandbox.path("infraspec.yaml")).expect("it is there");
    assert_eq!(sandbox.norn("init --stdout").ok().out, text);
    sandbox.write("infraspec.yaml", &text);
    text
}

/// Drafts a spec, applies it at a free port, and returns what it answers.
fn served(sandbox: &Sandbox, path: &str) -> String {
    let text = draft(sandbox);
    let port = free_port();
    let line = text.lines().find(|line| line.trim_start().starts_with("port: ")).expect("a port");
    sandbox.write("infraspec.yaml", &text.replace(line, &format!("    port: {port}")));
    sandbox.norn("apply --yes").ok();
    sandbox.norn("plan").ok().prints("No changes");
    get(port, path).expect("it answers")
}

fn missing(program: &str, what: &str) -> bool {
    // `go version` and `--version`: every one of them has one that works.
    let there = [["version"], ["--version"]].iter().any(|arguments| {
        Command::new(program).args(arguments).output().is_ok_and(|output| output.status.success())
    });
    if !there {
        crate::support::skipped(what, &format!("there is no {program}"));
    }
    !there
}

#[test]
fn a_node_project_applies() {
    if missing("npm", "init of a Node.js project") {
        return;
    }
    let sandbox = Sandbox::new();
    sandbox.write(
        "package.json",
        r#"{"name": "page", "version": "1.0.0", "scripts": {"start": "node main.js", "test": "node -e 0"}}"#,
    );
    sandbox.write(
        "main.js",
        "require('http').createServer((q, a) => a.end('from node')).listen(process.env.PORT, '127.0.0.1')\n",
    );
    assert_eq!(served(&sandbox, "/"), "from node");
}

#[test]
fn a_python_project_applies() {
    let sandbox = Sandbox::new();
    sandbox.write("requirements.txt", "# nothing yet\n");
    sandbox.write(
        "main.py",
        "import os\nfrom http.server import BaseHTTPRequestHandler, HTTPServer\nclass H(BaseHTTPRequestHandler):\n    def do_GET(self):\n        self.send_response(200)\n        self.end_headers()\n        self.wfile.write(b'from python')\nHTTPServer(('127.0.0.1', int(os.environ['PORT'])), H).serve_forever()\n",
    );
    assert_eq!(served(&sandbox, "/"), "from python");
}

#[test]
fn a_static_site_applies() {
    let sandbox = Sandbox::new();
    sandbox.write("index.html", "<h1>from a file</h1>\n");
    assert_eq!(served(&sandbox, "/"), "<h1>from a file</h1>\n");
}

#[test]
fn a_go_project_applies() {
    if missing("go", "init of a Go project") {
        return;
    }
    let sandbox = Sandbox::new();
    sandbox.write("go.mod", "module example.com/page\n\ngo 1.20\n");
    sandbox.write(
        "main.go",
        "package main\n\nimport (\n\t\"fmt\"\n\t\"net\"\n\t\"os\"\n)\n\nfunc main() {\n\tl, err := net.Listen(\"tcp\", \"127.0.0.1:\"+os.Getenv(\"PORT\"))\n\tif err != nil {\n\t\tpanic(err)\n\t}\n\tfor {\n\t\tc, err := l.Accept()\n\t\tif err != nil {\n\t\t\tcontinue\n\t\t}\n\t\tgo func() {\n\t\t\tbuf := make([]byte, 4096)\n\t\t\tif n, _ := c.Read(buf); n > 0 {\n\t\t\t\tfmt.Fprint(c, \"HTTP/1.1 200 OK\\r\\nContent-Length: 7\\r\\nConnection: close\\r\\n\\r\\nfrom go\")\n\t\t\t}\n\t\t\tc.Close()\n\t\t}()\n\t}\n}\n",
    );
    assert_eq!(served(&sandbox, "/"), "from go");
}

#[test]
fn a_rust_project_applies() {
    let sandbox = Sandbox::new();
    sandbox.write("Cargo.toml", "[package]\nname = \"page\"\nversion = \"0.1.0\"\nedition = \"2021\"\n");
    sandbox.write(
        "src/main.rs",
        "use std::io::{Read, Write};\nfn main() {\n    let port = std::env::var(\"PORT\").unwrap();\n    let server = std::net::TcpListener::bind(format!(\"127.0.0.1:{port}\")).unwrap();\n    for client in server.incoming() {\n        let mut client = client.unwrap();\n        let mut bytes = [0; 4096];\n        if client.read(&mut bytes).unwrap_or(0) > 0 {\n            let _ = client.write_all(b\"HTTP/1.1 200 OK\\r\\nContent-Length: 9\\r\\nConnection: close\\r\\n\\r\\nfrom rust\");\n        }\n    }\n}\n",
    );
    assert_eq!(served(&sandbox, "/"), "from rust");
}

#[test]
fn every_other_draft_is_valid_and_says_what_to_do() {
    for (file, text, says) in [
        ("Dockerfile", "FROM scratch\nEXPOSE 9000\n", "dockerfile: Dockerfile"),
        ("pyproject.toml", "[project]\nname = \"shop\"\n", "python"),
        ("manage.py", "import django\n", "manage.py runserver"),
        ("notes.txt", "nothing to start\n", "./start.sh"),
    ] {
        let sandbox = Sandbox::new();
        sandbox.write(file, text);
        let draft = draft(&sandbox);
        assert!(draft.contains(says), "{file}: {draft}");
        sandbox.norn("plan").ok();
    }
}

#[test]
fn a_folder_that_cannot_be_written_gets_its_draft_printed() {
    let sandbox = Sandbox::new();
    sandbox.norn("init nowhere").exits(1).one_error().says("nowhere");
    sandbox.write("infraspec.yml", "app: web\ncommand: x\n");
    sandbox.norn("init").exits(1).one_error().says("infraspec.yml").says("--stdout");
}
