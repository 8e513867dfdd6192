//! What a Python project's files say: its packages, and the object or script that serves it.

use std::collections::BTreeSet;
use std::io;
use std::path::Path;

use toml::{Table, Value};

use super::cargo::at;
use super::{Hint, entries, is_plain, read, read_toml};
use crate::spec::init::{Install, Program, PythonStart};

/// Where an app object or a script is looked for, the likeliest first.
const FILES: [&str; 6] = ["app.py", "main.py", "wsgi.py", "asgi.py", "server.py", "web.py"];

/// `None` where no file speaks of Python.
pub(super) fn look(folder: &Path) -> io::Result<Option<Hint>> {
    let requirements = read(&folder.join("requirements.txt"))?;
    let project = read_toml(&folder.join("pyproject.toml"))?;
    let is_django = folder.join("manage.py").is_file();
    let script = FILES.iter().find(|file| folder.join(file).is_file());
    if requirements.is_none() && project.is_none() && script.is_none() && !is_django {
        return Ok(None);
    }
    let packages = packages(requirements.as_deref(), project.as_ref());
    let uses = |package: &str| packages.contains(package);
    let install = if requirements.is_some() {
        Some(Install::Requirements)
    } else {
        // Often the file only holds the settings of tools, and there is nothing to install.
        let described = ["project", "build-system"]
            .iter()
            .any(|key| project.as_ref().is_some_and(|project| project.contains_key(*key)));
        described.then_some(Install::Project)
    };

    let mut missing = None;
    let start = if is_django {
        let wsgi = entries(folder)?.into_iter().find(|name| folder.join(name).join("wsgi.py").is_file());
        match wsgi {
            Some(package) if uses("gunicorn") => PythonStart::Gunicorn(format!("{package}.wsgi")),
            Some(_) | None => PythonStart::Django,
        }
    } else if uses("fastapi") || uses("starlette") || uses("uvicorn") {
        if !uses("uvicorn") {
            missing = Some("uvicorn");
        }
        let target = find_object(folder, &["FastAPI(", "Starlette("])?;
        target.map_or(PythonStart::Missing, |target| PythonStart::Uvicorn(target.name()))
    } else if uses("flask") {
        match find_object(folder, &["Flask(", "create_app("])? {
            Some(target) if uses("gunicorn") => PythonStart::Gunicorn(target.name()),
            Some(target) => PythonStart::Flask(target.module),
            None => PythonStart::Missing,
        }
    } else {
        script.map_or(PythonStart::Missing, |script| PythonStart::Script((*script).to_owned()))
    };
    if start == PythonStart::Missing {
        missing = None;
    }
    let name = project.as_ref().and_then(|project| {
        let name = at(project, &["project", "name"]).or_else(|| at(project, &["tool", "poetry", "name"]));
        name?.as_str().map(str::to_owned)
    });
    Ok(Some(Hint { program: Program::Python { install, missing, start }, name }))
}

/// The names of the packages that are asked for, in lower case and with '-' for '_'.
fn packages(requirements: Option<&str>, project: Option<&Table>) -> BTreeSet<String> {
    let mut names = BTreeSet::new();
    for line in requirements.unwrap_or_default().lines() {
        add_package(line, &mut names);
    }
    let Some(project) = project else { return names };
    let listed = at(project, &["project", "dependencies"]).and_then(Value::as_array);
    for requirement in listed.into_iter().flatten().filter_map(Value::as_str) {
        add_package(requirement, &mut names);
    }
    let poetry = at(project, &["tool", "poetry", "dependencies"]).and_then(Value::as_table);
    for name in poetry.into_iter().flat_map(Table::keys) {
        add_package(name, &mut names);
    }
    names
}

fn add_package(requirement: &str, names: &mut BTreeSet<String>) {
    let requirement = requirement.trim().to_ascii_lowercase().replace('_', "-");
    let is_name = |c: char| c.is_ascii_alphanumeric() || "-.".contains(c);
    let end = requirement.find(|c| !is_name(c)).unwrap_or(requirement.len());
    let (name, rest) = requirement.split_at(end);
    // `-r other.txt` is an option, not a package.
    if name.starts_with(|c: char| c.is_ascii_alphanumeric()) {
        names.insert(name.to_owned());
    }
    // These extras bring the server along.
    if name == "fastapi" && (rest.starts_with("[standard") || rest.starts_with("[all")) {
        names.insert("uvicorn".to_owned());
    }
}

/// An app object, or the function `create_app` that makes one.
struct Target {
    module: String,
    object: Option<String>,
}

impl Target {
    /// As gunicorn and uvicorn take it. A call has to be quoted for the shell.
    fn name(&self) -> String {
        match &self.object {
            Some(object) => format!("{}:{object}", self.module),
            None => format!("'{}:create_app()'", self.module),
        }
    }
}

/// Looks in this folder and then in those directly below it for an object made by one of `makers`.
fn find_object(folder: &Path, makers: &[&str]) -> io::Result<Option<Target>> {
    let mut modules: Vec<(String, String)> = FILES.map(|file| (file.to_owned(), module(file))).into();
    for name in entries(folder)?.iter().filter(|name| is_identifier(name) && folder.join(name).is_dir()) {
        modules.push((format!("{name}/__init__.py"), name.clone()));
        modules.extend(FILES.map(|file| (format!("{name}/{file}"), format!("{name}.{}", module(file)))));
    }
    let mut factory = None;
    for (file, module) in modules {
        let source = read(&folder.join(file))?.unwrap_or_default();
        if let Some(object) = source.lines().find_map(|line| assigned(line, makers)) {
            return Ok(Some(Target { module, object: Some(object.to_owned()) }));
        }
        // Only Flask's servers know what to do with a function.
        if makers.contains(&"create_app(") && source.lines().any(|line| line.starts_with("def create_app(")) {
            factory = factory.or(Some(Target { module, object: None }));
        }
    }
    Ok(factory)
}

fn module(file: &str) -> String {
    file.trim_end_matches(".py").to_owned()
}

/// `app` of `app = Flask(...)` or `app: Flask = flask.Flask(...)` at the start of a line.
fn assigned<'a>(line: &'a str, makers: &[&str]) -> Option<&'a str> {
    let (left, right) = line.split_once('=')?;
    let right = right.trim_start();
    let name = left.split(':').next().unwrap_or_default().trim_end();
    let call = right.split_once('(').map(|(call, _)| call.rsplit('.').next().unwrap_or(call))?;
    let is_maker = makers.iter().any(|maker| maker.strip_suffix('(') == Some(call));
    (is_maker && is_identifier(name)).then_some(name)
}

fn is_identifier(name: &str) -> bool {
    is_plain(name)
        && !name.starts_with(|c: char| c.is_ascii_digit())
        && name.chars().all(|c| c.is_ascii_alphanumeric() || c == '_')
}
