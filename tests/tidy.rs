//! What must stay true of the code itself.

use std::fs;
use std::path::{Path, PathBuf};

/// The longest a file may be, in lines.
const LONGEST: usize = 500;

fn root() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
}

/// Every file below a folder with one of these extensions.
fn files(folder: &Path, extensions: &[&str]) -> Vec<PathBuf> {
    let mut found = Vec::new();
    let mut folders = vec![folder.to_owned()];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(&folder).expect("the folder is readable") {
            let path = entry.expect("the entry is readable").path();
            let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
            if path.is_dir() {
                if !["target", "node_modules", "__pycache__"].contains(&name.as_str())
                    && !name.starts_with('.')
                {
                    folders.push(path);
                }
            } else if path.extension().is_some_and(|e| extensions.contains(&&*e.to_string_lossy())) {
                found.push(path);
            }
        }
    }
    found.sort();
    found
}

fn read(path: &Path) -> String {
    fs::read_to_string(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

/// The files of the program itself, without those that are only built for tests.
fn program(folder: &str) -> Vec<PathBuf> {
    let mut files = files(&root().join(folder), &["rs"]);
    files.retain(|path| {
        let parts: Vec<_> =
            path.components().map(|part| part.as_os_str().to_string_lossy().into_owned()).collect();
        let tests = ["tests", "tests.rs", "conformance", "conformance.rs"];
        !parts.iter().any(|part| tests.contains(&part.as_str()))
    });
    files
}

/// The code of a file without its tests and comments.
fn code(path: &Path) -> String {
    let text = read(path);
    let code = text.split("#[cfg(test)]\nmod tests {").next().unwrap_or_default();
    code.lines().filter(|line| !line.trim_start().starts_with("//")).collect::<Vec<_>>().join("\n")
}

fn complain(problems: &[String]) {
    assert!(problems.is_empty(), "\n{}\n", problems.join("\n"));
}

#[test]
fn the_core_is_pure() {
    let banned = [
        "tokio",
        "reqwest",
        "std::fs",
        "std::net::Tcp",
        "std::env",
        "std::process",
        "Timestamp::now",
        "SystemTime",
        "Instant::now",
    ];
    let mut problems = Vec::new();
    for module in ["spec", "desired", "plan"] {
        for path in program(&format!("src/{module}")) {
            let code = code(&path);
            for word in banned.iter().filter(|word| code.contains(*word)) {
                problems.push(format!("{} names {word}", path.display()));
            }
        }
    }
    complain(&problems);
}

#[test]
fn only_render_prints() {
    let mut problems = Vec::new();
    for path in program("src") {
        if path.starts_with(root().join("src/render")) {
            continue;
        }
        let code = code(&path);
        for word in ["println!", "eprintln!", "print!(", "dbg!("].iter().filter(|word| code.contains(*word)) {
            problems.push(format!("{} uses {word}", path.display()));
        }
    }
    complain(&problems);
}

#[test]
fn apply_is_given_a_plan_and_never_a_spec() {
    let mut problems = Vec::new();
    for path in program("src/apply") {
        let code = code(&path);
        for word in [
            "spec::load",
            "spec::model",
            "spec::shape",
            "desired::from_spec",
            "desired::Desired",
            "desired::App",
        ] {
            if code.contains(word) {
                problems.push(format!("{} names {word}", path.display()));
            }
        }
    }
    complain(&problems);
}

#[test]
fn files_are_short() {
    let long = files(&root(), &["rs"]).into_iter().filter_map(|path| {
        let lines = read(&path).lines().count();
        (lines > LONGEST).then(|| format!("{} has {lines} lines, more than {LONGEST}", path.display()))
    });
    complain(&long.collect::<Vec<_>>());
}

#[test]
fn every_module_says_what_is_in_it() {
    let silent = files(&root().join("src"), &["rs"])
        .into_iter()
        .filter(|path| !read(path).starts_with("//!"))
        .map(|path| format!("{} has no header", path.display()));
    complain(&silent.collect::<Vec<_>>());
}

#[test]
fn nothing_is_called_utils_and_nothing_is_left_to_do() {
    let mut problems = Vec::new();
    for path in files(&root().join("src"), &["rs"]) {
        let name = path.file_stem().unwrap_or_default().to_string_lossy().into_owned();
        if ["utils", "util", "helpers", "common", "misc"].contains(&name.as_str()) {
            problems.push(format!("{}: name it by its concept", path.display()));
        }
        let text = read(&path);
        for word in ["TODO", "FIXME", "todo!(", "unimplemented!("].iter().filter(|word| text.contains(*word))
        {
            problems.push(format!("{} has {word}", path.display()));
        }
    }
    complain(&problems);
}

#[test]
fn the_docs_name_files_that_are_there() {
    let mut problems = Vec::new();
    for name in ["README.md", "ARCHITECTURE.md", "CHANGELOG.md"] {
        let text = read(&root().join(name));
        for target in text.split("](").skip(1).filter_map(|rest| rest.split([')', '#']).next()) {
            let local = !target.is_empty() && !target.contains("://");
            if local && !root().join(target).exists() {
                problems.push(format!("{name} links to {target}, which is not there"));
            }
        }
    }
    complain(&problems);
}
