//! The password of the state's server is seen by nobody but the server.

use std::fs;
use std::path::Path;

use super::{Shop, finished, started};
use crate::postgres_server::PASSWORD;
use crate::support::until;

/// As it is, and as it stands in the URL.
fn in_text(text: &[u8]) -> bool {
    let encoded = "p%40ss%2Fw%3Ard%25%2B%23";
    [PASSWORD, encoded].iter().any(|word| text.windows(word.len()).any(|window| window == word.as_bytes()))
}

#[test]
fn the_password_is_in_no_output_no_file_no_table_and_no_command_line() {
    let Some(mut shop) = Shop::new("the password of a state") else { return };
    // What a careless build says of it is scrubbed.
    shop.sandbox.write("careless", PASSWORD);
    let build = "build: {command: 'cat ../../../../careless; echo \"state [$NORN_STATE_URL]\"; \
                 touch ../../../../building; while [ ! -e ../../../../go ]; do sleep 0.05; done'}";
    shop.version("one", build);
    let norn = started(&mut shop.sandbox.command("apply --yes -v"));
    until("the build runs", || shop.sandbox.path("building").exists());
    let mut said = Vec::new();
    said.push(shop.sandbox.run("apply --yes"));
    said.push(shop.sandbox.run("status"));
    let own = norn.id();
    let mut seen = 0;
    for pid in shop.sandbox.processes() {
        let read = |name| fs::read(format!("/proc/{pid}/{name}")).unwrap_or_default();
        assert!(!in_text(&read("cmdline")), "{pid}");
        // What norn starts has no need of it.
        assert!(pid == own || !in_text(&read("environ")), "{}", String::from_utf8_lossy(&read("cmdline")));
        seen += 1;
    }
    assert!(seen >= 3, "norn, a guard and the build are seen");
    shop.sandbox.write("go", "");
    said.push(finished(norn));
    for line in [
        "plan",
        "plan --json",
        "apply --yes --json",
        "status",
        "status --json",
        "history",
        "history --json",
        "logs web",
        "restart web --yes",
        "spec",
    ] {
        said.push(shop.sandbox.ok(line));
    }
    for pid in shop.sandbox.processes() {
        let read = |name| fs::read(format!("/proc/{pid}/{name}")).unwrap_or_default();
        assert!(!in_text(&read("cmdline")) && !in_text(&read("environ")), "{pid} lives on with it");
    }
    let url = shop.database.url();
    for wrong in
        [url.replace(&shop.database.name, "nowhere"), url.replace("norn:", "stranger:"), url + "?x=1"]
    {
        shop.state_is_at(&wrong);
        said.push(shop.sandbox.run("apply --yes"));
    }
    for ran in &said {
        assert!(!in_text(ran.out.as_bytes()) && !in_text(ran.err.as_bytes()), "{}{}", ran.out, ran.err);
    }
    assert!(!in_text(shop.content().as_bytes()));
    let log = shop.sandbox.read(".norn/logs/web/build.log");
    assert_eq!(log, "***state []\n");
    assert!(shop.sandbox.read(".norn/store").starts_with("postgres://norn@"));
    let files = files_without_it(&shop.sandbox.path(".norn"));
    assert!(files >= 7, "the release, logs and memory are looked at: {files}");
}

/// Looks at each file below a folder, and counts them. The copy of the binary is none of norn's words.
fn files_without_it(folder: &Path) -> usize {
    let entries = fs::read_dir(folder).expect("it is a folder").map(|entry| entry.expect("an entry"));
    let look = |entry: fs::DirEntry| match entry.file_type().expect("it has a kind") {
        kind if kind.is_dir() && entry.file_name() == "bin" => 0,
        kind if kind.is_dir() => files_without_it(&entry.path()),
        kind if kind.is_file() => {
            let path = entry.path();
            assert!(!in_text(&fs::read(&path).expect("it is read")), "{}", path.display());
            1
        }
        _ => 0,
    };
    entries.map(look).sum()
}
