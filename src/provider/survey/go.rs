//! What go.mod and the folders of its packages say.

use std::io;
use std::path::Path;

use super::{Hint, entries, read};
use crate::spec::init::Program;

/// `None` where neither this folder nor one under `cmd` is a program.
pub(super) fn look(folder: &Path) -> io::Result<Option<Hint>> {
    let Some(module) = read(&folder.join("go.mod"))? else { return Ok(None) };
    let mut commands = Vec::new();
    if is_program(folder)? {
        commands.push(".".to_owned());
    }
    let cmd = folder.join("cmd");
    if cmd.is_dir() {
        for name in entries(&cmd)? {
            if cmd.join(&name).is_dir() && is_program(&cmd.join(&name))? {
                commands.push(format!("./cmd/{name}"));
            }
        }
    }
    if commands.is_empty() {
        return Ok(None);
    }
    let package = commands.remove(0);
    let path = module.lines().find_map(|line| line.trim().strip_prefix("module "));
    let name = match package.strip_prefix("./cmd/") {
        Some(command) => Some(command),
        None => path.and_then(module_name),
    };
    let name = name.map(str::to_owned);
    Ok(Some(Hint { program: Program::Go { package, others: commands }, name }))
}

/// The last part of a module's path that is not its major version.
fn module_name(path: &str) -> Option<&str> {
    let is_version = |part: &str| {
        part.strip_prefix('v')
            .is_some_and(|rest| !rest.is_empty() && rest.bytes().all(|b| b.is_ascii_digit()))
    };
    path.trim().trim_matches('"').rsplit('/').find(|part| !is_version(part))
}

fn is_program(folder: &Path) -> io::Result<bool> {
    for name in entries(folder)? {
        if !name.ends_with(".go") || name.ends_with("_test.go") {
            continue;
        }
        let source = read(&folder.join(&name))?.unwrap_or_default();
        // A script beside the package, which is left out of its build.
        let ignored = source.lines().any(|line| line.trim_end() == "//go:build ignore");
        if !ignored
            && source.lines().any(|line| line.split("//").next().map(str::trim_end) == Some("package main"))
        {
            return Ok(true);
        }
    }
    Ok(false)
}
