//! Where a command works: the spec it is about, the chosen stage, the environment.

use std::collections::BTreeMap;
use std::fs;
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use super::args::Global;
use super::failure::Failure;
use super::place;
use crate::desired;
use crate::provider::files::SpecFolder;
use crate::render::{Printer, problems};
use crate::spec::engine::{self, Site};
use crate::spec::load::{self, Document, Form, Lookup, Staged};
use crate::spec::name::{AppName, StageName};
use crate::spec::problem::Problem;
use crate::spec::reference::{Absent, AppField, Reference};
use crate::spec::shape::Use;
use crate::spec::value::{Complaint, EnvName};
use crate::spec::way::{self, Way};

const NAMES: [&str; 2] = ["infraspec.yaml", "infraspec.yml"];

/// A root file and its folder.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Root {
    /// Absolute.
    pub folder: PathBuf,
    pub file: String,
}

impl Root {
    /// The spec that the user named, or the nearest one here or above.
    pub fn find(global: &Global) -> Result<Self, Failure> {
        match &global.file {
            Some(path) => Self::at(path),
            None => {
                let here = std::env::current_dir()
                    .map_err(|error| Failure::new(format!("the current folder cannot be read: {error}")))?;
                here.ancestors().find_map(Self::within).ok_or_else(|| {
                    Failure::new(format!("there is no {} here or in a parent folder", NAMES[0]))
                        .help("write one with `norn init`, or name one with `-f FILE`")
                })
            }
        }
    }

    /// The spec at a path, which may be its folder.
    pub fn at(path: &Path) -> Result<Self, Failure> {
        let absolute = std::path::absolute(path)
            .map_err(|error| Failure::new(format!("{} cannot be found: {error}", path.display())))?;
        if absolute.is_dir() {
            return Self::within(&absolute).ok_or_else(|| {
                Failure::new(format!("there is no {} in {}", NAMES[0], path.display()))
                    .help("write one with `norn init`, or name another with `-f FILE`")
            });
        }
        let folder = absolute.parent().unwrap_or(Path::new("/")).to_owned();
        let name = absolute.file_name().and_then(|name| name.to_str());
        let Some(name) = name.filter(|_| absolute.exists()) else {
            return Err(Failure::new(format!("there is no file {}", path.display()))
                .help("check the path, or write a spec with `norn init`"));
        };
        Ok(Self { folder, file: name.to_owned() })
    }

    fn within(folder: &Path) -> Option<Self> {
        let file = NAMES.into_iter().find(|name| folder.join(name).is_file())?;
        Some(Self { folder: folder.to_owned(), file: file.to_owned() })
    }

    pub fn read(&self) -> Document {
        load::read(&SpecFolder::new(&self.folder), &self.file)
    }

    /// The project above that includes this file, if there is one.
    pub fn included_by(&self) -> Option<Root> {
        let own = self.folder.join(&self.file).canonicalize().ok()?;
        self.folder.ancestors().skip(1).find_map(|above| {
            let root = Self::within(above)?;
            let document = root.read();
            let includes = document.form == Form::Project
                && document.sources.iter().skip(1).any(|file| {
                    let name = Path::new(&file.path).file_name().unwrap_or_default();
                    let path = root.folder.join(&file.folder).join(name);
                    path.canonicalize().is_ok_and(|path| path == own)
                });
            includes.then_some(root)
        })
    }
}

/// The variables that references are resolved with: the environment, then `--env-file`.
pub struct Variables(BTreeMap<String, String>);

impl Variables {
    pub fn read(global: &Global) -> Result<Self, Failure> {
        let mut all = BTreeMap::new();
        for path in &global.env_file {
            let text = read_bounded(path)
                .map_err(|error| Failure::new(format!("{} cannot be read: {error}", path.display())))?;
            for (index, line) in text.lines().enumerate() {
                let line = line.trim();
                if line.is_empty() || line.starts_with('#') {
                    continue;
                }
                // The line itself is not shown: its value may be a secret.
                let wrong = |what: String| {
                    let place = format!("{}:{}", path.display(), index + 1);
                    Failure::new(format!("{place} {what}"))
                        .help("write one NAME=value a line; a value may be quoted, comments begin with #")
                };
                let line = line.strip_prefix("export ").unwrap_or(line);
                let Some((name, value)) = line.split_once('=') else {
                    return Err(wrong("is no NAME=value line".into()));
                };
                let name: EnvName = name.trim().parse().map_err(|complaint: Complaint| {
                    wrong(format!("is no NAME=value line: {}", complaint.message))
                })?;
                let value = unquote(value.trim())
                    .ok_or_else(|| wrong(format!("has a value of {name} whose quote does not end")))?;
                all.insert(name.to_string(), value.to_owned());
            }
        }
        // A variable that is no UTF-8 cannot be written into a spec's value.
        all.extend(
            std::env::vars_os().filter_map(|(k, v)| Some((k.into_string().ok()?, v.into_string().ok()?))),
        );
        Ok(Self(all))
    }

    pub fn get(&self, name: &str) -> Option<&str> {
        self.0.get(name).map(String::as_str)
    }

    /// The address of the Docker engine, where the spec names none.
    pub fn engine(&self) -> Option<String> {
        self.get(engine::VARIABLE).filter(|address| !address.is_empty()).map(str::to_owned)
    }

    /// What a reference stands for. `way` tells how the app that refers reaches another.
    pub fn lookup(&self, used: &Use, way: &dyn Fn(&Use, &AppName) -> Option<Way>) -> Lookup {
        match &used.reference {
            Reference::Variable { name, absent } => match (self.get(name), absent) {
                (Some(value), Absent::Error) => Lookup::Value(value.to_owned()),
                (Some(value), _) if !value.is_empty() => Lookup::Value(value.to_owned()),
                (_, Absent::Default(value)) => Lookup::Value(value.clone()),
                (_, Absent::Message(message)) => Lookup::Missing(Complaint {
                    message: format!("{name} is not set: {message}"),
                    help: format!("set {name} in norn's environment, or in a file given with --env-file"),
                }),
                (_, Absent::Error) => Lookup::Missing(Complaint {
                    message: format!("{name} is not set"),
                    help: format!("set {name} in norn's environment, or in a file given with --env-file"),
                }),
            },
            Reference::App { app, field } => match (way(used, app), field) {
                (Some(Way { host, .. }), AppField::Host) => Lookup::Value(host),
                (Some(Way { port, .. }), AppField::Port) => Lookup::Value(port.to_string()),
                (Some(way), AppField::Url) => Lookup::Value(way.url()),
                (None, _) => Lookup::Missing(Complaint {
                    message: format!("app `{app}` has no port"),
                    help: format!("give `{app}` a `port`"),
                }),
            },
        }
    }
}

/// The value between its quotes, if it has any; `None` where the closing one is missing.
fn unquote(value: &str) -> Option<&str> {
    match ['"', '\''].into_iter().find_map(|quote| Some((quote, value.strip_prefix(quote)?))) {
        Some((quote, rest)) => rest.strip_suffix(quote),
        None => Some(value),
    }
}

/// The text of a file of variables, which no device can fill the memory with.
fn read_bounded(path: &Path) -> io::Result<String> {
    const MOST: u64 = 1 << 20;
    let mut text = String::new();
    fs::File::open(path)?.take(MOST + 1).read_to_string(&mut text)?;
    if text.len() as u64 > MOST {
        return Err(io::Error::other("it has more than 1 MiB"));
    }
    Ok(text)
}

/// The stage of the document that a command is about.
pub fn choose_stage(global: &Global, document: &Document) -> Result<Option<StageName>, Failure> {
    let stages = document.stages();
    let listed = || stages.iter().map(StageName::as_str).collect::<Vec<_>>().join(", ");
    match global.stage()?.or_else(|| document.default_stage()) {
        Some(stage) if stages.contains(&stage) => Ok(Some(stage)),
        Some(stage) if stages.is_empty() => Err(Failure::new(format!("the spec has no stage `{stage}`"))
            .help("it has no stages at all: leave --stage (or NORN_STAGE) out")),
        Some(stage) => Err(Failure::new(format!("the spec has no stage `{stage}`"))
            .help(format!("its stages are {}", listed()))),
        None if stages.is_empty() => Ok(None),
        None => Err(Failure::new("the spec has stages, and none is chosen")
            .help(format!("choose with --stage, NORN_STAGE or `defaultStage`: {}", listed()))),
    }
}

/// The document for one stage with every reference resolved; `plain` is the same without.
pub fn resolve(
    document: &Document,
    stage: Option<&StageName>,
    plain: &Staged,
    variables: &Variables,
) -> Staged {
    // How apps reach each other depends on where the engine is.
    let named = plain.project.as_ref().and_then(|project| project.docker.as_ref()?.host.as_deref());
    let address = match named {
        // What is missing is told of the field itself.
        Some(host) => Some(place::resolve("docker.host", host, plain, variables).unwrap_or(host.to_owned())),
        None => variables.engine(),
    };
    let site = address.as_deref().map_or(Site::Here, Site::at);
    let way = |used: &Use, app: &AppName| {
        let from = used.path.get(1).map_or("", String::as_str);
        way::way(plain.project.as_ref()?, site, from, app)?.ok()
    };
    document.stage(stage, Some(&|used: &Use| variables.lookup(used, &way)))
}

/// The secrets that are not set, of a stage whose references are as they are spelled.
pub fn missing(
    document: &Document,
    stage: Option<&StageName>,
    plain: &Staged,
    variables: &Variables,
) -> Vec<Problem> {
    let variable = |name: &str| variables.get(name).map(str::to_owned);
    desired::from_spec(document, plain, stage, &variable).err().unwrap_or_default()
}

/// The error of a command that needs a good spec, with every problem shown before.
pub fn refuse(found: &[Problem], document: &Document, printer: Printer) -> Failure {
    printer.alert(&problems::human(found, &document.sources, printer.err_color, printer.width));
    let root = document.sources.iter().next().map_or("the spec", |file| file.path.as_str());
    Failure::new(format!("{root} cannot be used: {}", problems::summary(found)))
}
