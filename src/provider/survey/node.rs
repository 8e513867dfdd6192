//! What package.json and the lock files beside it say.

use std::io;
use std::path::Path;

use serde_json::Value;

use super::{Hint, invalid, is_plain, read};
use crate::spec::init::{Node, NodeManager, NodeStart, Program};

pub(super) fn look(folder: &Path) -> io::Result<Option<Hint>> {
    let path = folder.join("package.json");
    let Some(text) = read(&path)? else { return Ok(None) };
    let package: Value = serde_json::from_str(&text).map_err(|error| invalid(&path, error))?;
    let script = |name: &str| package["scripts"][name].as_str();
    let some = |key: &str| package[key].as_object().is_some_and(|map| !map.is_empty());

    let manager = if folder.join("pnpm-lock.yaml").is_file() {
        NodeManager::Pnpm
    } else if folder.join("yarn.lock").is_file() {
        NodeManager::Yarn
    } else {
        let lock = ["package-lock.json", "npm-shrinkwrap.json"];
        NodeManager::Npm { locked: lock.iter().any(|lock| folder.join(lock).is_file()) }
    };
    let start = if script("start").is_some() {
        NodeStart::Script
    } else {
        // npm starts a server.js where no script says otherwise; the others do not.
        let main = ["server.js", package["main"].as_str().unwrap_or_default()];
        let mut files = main.into_iter().filter(|file| is_file_below(folder, file));
        files.next().map_or(NodeStart::Missing, |file| {
            NodeStart::File(file.strip_prefix("./").unwrap_or(file).to_owned())
        })
    };
    // What `npm init` puts in always fails.
    let test_script = script("test").is_some_and(|test| !test.contains("no test specified"));
    // A few plain characters, for it gets into a comment.
    let engine = package["engines"]["node"].as_str().map(str::trim);
    let engine = engine.filter(|engine| {
        (1..=40).contains(&engine.len()) && engine.chars().all(|c| c.is_ascii_graphic() || c == ' ')
    });
    let node = Node {
        manager,
        dependencies: some("dependencies") || some("devDependencies"),
        build_script: script("build").is_some(),
        test_script,
        start,
        engine: engine.map(str::to_owned),
    };
    // `@shop/api` is the package `api` of the scope `shop`.
    let name = package["name"].as_str().and_then(|name| name.rsplit('/').next()).map(str::to_owned);
    Ok(Some(Hint { program: Program::Node(node), name }))
}

fn is_file_below(folder: &Path, file: &str) -> bool {
    let file = file.strip_prefix("./").unwrap_or(file);
    file.split('/').all(is_plain) && folder.join(file).is_file()
}
