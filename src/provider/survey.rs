//! A look at a project's folder: what it holds and how that starts, for the draft of an infraspec.
//!
//! Here: which kind of program it is. Below: what each kind's own files say. Elsewhere: the draft
//! (`spec::init`). Nothing is run and nothing is written.
//! Invariant: what gets into a `Found` can stand in a shell command as it is. A file with another
//! name counts as not there.

mod cargo;
mod dockerfile;
mod go;
mod node;
mod python;

use std::fs;
use std::io::{self, Read};
use std::path::Path;

use crate::spec::init::{Found, Node, NodeStart, Program};
use crate::spec::name::{AppName, ProjectName};

/// A file that is read is at most this many bytes.
const LARGEST_FILE: u64 = 1 << 20;

/// What one kind's files say.
struct Hint {
    program: Program,
    /// The name of the package, as it is written there.
    name: Option<String>,
}

/// Looks at `folder`.
///
/// # Errors
/// The folder or one of the files above cannot be read, is larger than 1 MiB, or is not JSON or
/// TOML where it should be. The text names the file.
pub fn survey(folder: &Path) -> io::Result<Found> {
    let folder = folder.canonicalize().map_err(|error| at(folder, &error))?;
    // An unreadable folder is an error, not an empty one.
    entries(&folder)?;
    let docker = dockerfile::look(&folder)?;
    let hint = first_hint(&folder)?;
    let dockerfile_too = docker.is_some() && hint.is_some();
    let fallback = if docker.is_some() { Program::Dockerfile } else { Program::Unknown };
    let hint = hint.unwrap_or(Hint { program: fallback, name: None });

    let folder_name = folder.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
    let app = hint.name.as_deref().and_then(AppName::nearest).or_else(|| AppName::nearest(&folder_name));
    let project = ProjectName::nearest(&folder_name)
        .or_else(|| app.as_ref().and_then(|app| ProjectName::nearest(app.as_str())));
    let docker = docker.unwrap_or_default();
    Ok(Found {
        project: project.unwrap_or_else(|| "app".parse().expect("it is a DNS label")),
        app: app.unwrap_or_else(|| "app".parse().expect("it is a DNS label")),
        program: hint.program,
        port: docker.port,
        healthcheck: docker.healthcheck,
        dockerfile_too,
    })
}

/// The surest hint: what compiles to a program, then what has a framework or says how it starts.
fn first_hint(folder: &Path) -> io::Result<Option<Hint>> {
    if let Some(hint) = cargo::look(folder)? {
        return Ok(Some(hint));
    }
    if let Some(hint) = go::look(folder)? {
        return Ok(Some(hint));
    }
    // Many a Django project has a package.json for what its pages load.
    if folder.join("manage.py").is_file() {
        return python::look(folder);
    }
    let node = node::look(folder)?;
    let starts =
        |hint: &Hint| !matches!(&hint.program, Program::Node(Node { start: NodeStart::Missing, .. }));
    if node.as_ref().is_some_and(starts) {
        return Ok(node);
    }
    if let Some(hint) = python::look(folder)? {
        return Ok(Some(hint));
    }
    if node.is_some() {
        return Ok(node);
    }
    let page = [(".", "index.html"), ("public", "public/index.html")];
    let page = page.into_iter().find(|(_, page)| folder.join(page).is_file());
    Ok(page.map(|(folder, _)| Hint { program: Program::Static { folder }, name: None }))
}

/// The text of a file; `None` where there is none. Bytes that are no UTF-8 are replaced.
fn read(path: &Path) -> io::Result<Option<String>> {
    if !path.is_file() {
        return Ok(None);
    }
    let mut bytes = Vec::new();
    let file = fs::File::open(path).map_err(|error| at(path, &error))?;
    file.take(LARGEST_FILE + 1).read_to_end(&mut bytes).map_err(|error| at(path, &error))?;
    if bytes.len() as u64 > LARGEST_FILE {
        return Err(invalid(path, "is larger than 1 MiB"));
    }
    Ok(Some(String::from_utf8_lossy(&bytes).trim_start_matches('\u{feff}').to_owned()))
}

fn read_toml(path: &Path) -> io::Result<Option<toml::Table>> {
    let Some(text) = read(path)? else { return Ok(None) };
    text.parse().map(Some).map_err(|error: toml::de::Error| invalid(path, error.message()))
}

/// The names in a folder, sorted; those that are not plain are left out.
fn entries(folder: &Path) -> io::Result<Vec<String>> {
    let mut names = Vec::new();
    for entry in fs::read_dir(folder).map_err(|error| at(folder, &error))? {
        let entry = entry.map_err(|error| at(folder, &error))?;
        names.extend(entry.file_name().to_str().filter(|name| is_plain(name)).map(str::to_owned));
    }
    names.sort();
    Ok(names)
}

/// Whether a name can stand in a command as it is, and is not hidden.
fn is_plain(name: &str) -> bool {
    name.starts_with(|c: char| c.is_ascii_alphanumeric() || c == '_')
        && name.chars().all(|c| c.is_ascii_alphanumeric() || "._-".contains(c))
}

fn at(path: &Path, error: &io::Error) -> io::Error {
    io::Error::new(error.kind(), format!("{}: {error}", path.display()))
}

fn invalid(path: &Path, what: impl std::fmt::Display) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, format!("{}: {what}", path.display()))
}

#[cfg(test)]
mod tests;
