//! `norn init`: a first spec, written after a look at the project.

use std::fs::OpenOptions;
use std::io::{ErrorKind, Write};
use std::path::Path;

use super::args::Init;
use super::failure::{Exit, Failure};
use crate::provider::survey::survey;
use crate::render::Printer;
use crate::spec::init::draft;

pub fn run(options: &Init, printer: Printer) -> Result<Exit, Failure> {
    let folder = options.folder.as_deref().unwrap_or(Path::new("."));
    let found = survey(folder).map_err(|error| {
        Failure::new(format!("{} cannot be looked at: {error}", folder.display()))
            .help("name a project's folder")
    })?;
    let text = draft(&found);
    if options.stdout {
        printer.data(&text);
        return Ok(Exit::Ok);
    }
    let path = folder.join("infraspec.yaml");
    let other = folder.join("infraspec.yml");
    if other.exists() {
        return Err(exists(&other));
    }
    let file = OpenOptions::new().write(true).create_new(true).open(&path);
    let written = file.and_then(|mut file| file.write_all(text.as_bytes()));
    written.map_err(|error| match error.kind() {
        ErrorKind::AlreadyExists => exists(&path),
        _ => Failure::new(format!("{} cannot be written: {error}", path.display()))
            .help("print it with --stdout instead"),
    })?;
    printer.talk(&format!(
        "wrote {}: look at it, then `norn plan` shows what it would do and `norn apply` does it",
        path.display()
    ));
    Ok(Exit::Ok)
}

fn exists(path: &Path) -> Failure {
    Failure::new(format!("{} is there already", path.display()))
        .help("print a new draft beside it with `norn init --stdout`")
}
