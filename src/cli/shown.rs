//! A plan on its way to its readers: a terminal, scripts, a pull request, GitHub.

use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};

use serde_json::Value;

use super::args::{Global, Output};
use super::failure::Failure;
use super::place::same_file;
use super::plan_file;
use super::project::Project;
use crate::plan::Plan;
use crate::render::plan::Header;
use crate::render::{Printer, markdown, plan, plan_json};

/// A plan, and what stands above it.
pub struct Shown<'a> {
    pub header: Header<'a>,
    pub plan: &'a Plan,
}

impl Shown<'_> {
    /// Prints it as `norn plan` does.
    pub fn print(&self, global: &Global, printer: Printer) {
        if global.json {
            printer.data(&self.json());
        } else {
            printer.data(&self.human(printer.out_color));
        }
    }

    pub fn human(&self, color: bool) -> String {
        plan::human(&self.header, self.plan, color)
    }

    pub fn document(&self) -> Value {
        let document = plan_json::document(&self.header, self.plan);
        serde_json::to_value(document).expect("a plan has text keys only")
    }

    fn json(&self) -> String {
        format!("{:#}\n", self.document())
    }

    fn markdown(&self) -> String {
        markdown::plan(&self.header, self.plan)
    }

    /// Writes the files that were asked for.
    pub fn write(&self, output: &Output) -> Result<(), Failure> {
        if let Some(path) = &output.markdown_out {
            write(path, &self.markdown())?;
        }
        if let Some(path) = &output.json_out {
            write(path, &self.json())?;
        }
        Ok(())
    }

    /// On GitHub Actions: the step's summary and its outputs.
    pub fn tell_github(&self) -> Result<(), Failure> {
        if std::env::var_os("GITHUB_ACTIONS").is_none() {
            return Ok(());
        }
        append("GITHUB_STEP_SUMMARY", &self.markdown())?;
        let document = self.document();
        let outputs = ["changes", "destroys", "plan_id"].map(|name| {
            let value = if name == "plan_id" { &document["planId"] } else { &document[name] };
            format!("{name}={}\n", value.as_str().map_or_else(|| value.to_string(), str::to_owned))
        });
        append("GITHUB_OUTPUT", &outputs.concat())
    }
}

impl Output {
    /// Refuses to write two things into one file, however its paths are spelled; `others` are the files
    /// that the command names beside these, each with how it calls it.
    pub fn must_differ(&self, others: &[(&str, &Path)]) -> Result<(), Failure> {
        let own = [("--json-out", &self.json_out), ("--markdown-out", &self.markdown_out)];
        let own = own.iter().filter_map(|(name, path)| Some((*name, path.as_deref()?)));
        let all: Vec<(&str, &Path)> = others.iter().copied().chain(own).collect();
        for (at, (name, path)) in all.iter().enumerate() {
            // What is no file, such as a terminal, takes what comes.
            let other =
                |(_, other): &&(&str, &Path)| same_file(path, other) && (path.is_file() || !path.exists());
            if let Some((first, _)) = all[..at].iter().find(other) {
                return Err(Failure::new(format!("{first} and {name} are one file, {}", path.display()))
                    .help(format!("name another with {name}")));
            }
        }
        Ok(())
    }

    /// Refuses files that are the project's own, before anything is looked up.
    pub fn must_replace_nothing(&self, project: &Project) -> Result<(), Failure> {
        self.files().iter().try_for_each(|path| plan_file::is_no_part(project, path))
    }

    /// The files that are asked for; absolute.
    pub fn files(&self) -> Vec<PathBuf> {
        let named = self.json_out.iter().chain(&self.markdown_out);
        named.filter_map(|path| std::path::absolute(path).ok()).collect()
    }
}

fn write(path: &Path, text: &str) -> Result<(), Failure> {
    fs::write(path, text).map_err(|error| {
        Failure::new(format!("{} cannot be written: {error}", path.display())).help("name another file")
    })
}

/// Appends to the file that a variable of GitHub names, if it names one.
fn append(variable: &str, text: &str) -> Result<(), Failure> {
    let Some(path) = std::env::var_os(variable).filter(|path| !path.is_empty()) else {
        return Ok(());
    };
    let file = fs::OpenOptions::new().append(true).create(true).open(&path);
    file.and_then(|mut file| file.write_all(text.as_bytes())).map_err(|error| {
        Failure::new(format!("{variable} ({}) cannot be written: {error}", Path::new(&path).display()))
    })
}
