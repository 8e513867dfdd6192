//! The files of a spec on disk.

use std::fs::{self, File};
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use globset::GlobBuilder;

use crate::spec::load::Files;
use crate::spec::yaml::MAX_FILE;

/// Reads a spec's files below the folder of its root file.
pub struct SpecFolder {
    folder: PathBuf,
    /// How messages show the folder: empty, or ending in `/`.
    shown: String,
}

impl SpecFolder {
    pub fn new(folder: &Path) -> Self {
        let current = std::env::current_dir().unwrap_or_default();
        let absolute = std::path::absolute(folder).unwrap_or_else(|_| folder.to_owned());
        let shown = absolute.strip_prefix(&current).unwrap_or(folder).display().to_string();
        let shown = match shown.as_str() {
            "" | "." => String::new(),
            _ => format!("{}/", shown.trim_end_matches('/')),
        };
        Self { folder: folder.to_owned(), shown }
    }

    fn list(&self, folder: &str, depth: usize, found: &mut Vec<String>) -> io::Result<()> {
        for entry in fs::read_dir(self.folder.join(folder))? {
            let entry = entry?;
            // A name that is no UTF-8 can match no pattern of a spec.
            let Ok(name) = entry.file_name().into_string() else { continue };
            let path = if folder.is_empty() { name.clone() } else { format!("{folder}/{name}") };
            let kind = entry.file_type()?;
            if kind.is_dir() {
                let hidden = name.starts_with('.') || name == "node_modules" || name == "target";
                if depth > 0 && !hidden {
                    self.list(&path, depth - 1, found)?;
                }
            } else {
                found.push(path);
            }
        }
        Ok(())
    }
}

impl Files for SpecFolder {
    fn read(&self, path: &str) -> Result<Vec<u8>, String> {
        let full = self.folder.join(path);
        let real = full.canonicalize().map_err(|error| error.to_string())?;
        let home = self.folder.canonicalize().map_err(|error| error.to_string())?;
        if !real.starts_with(&home) && path.contains('/') {
            return Err("it leads out of the project".into());
        }
        let kind = fs::metadata(&real).map_err(|error| error.to_string())?;
        if kind.is_dir() {
            return Err("it is a folder".into());
        }
        // Opening a pipe waits for a writer; only the root, which the user names, may be one.
        if !kind.is_file() && path.contains('/') {
            return Err("it is no file".into());
        }
        let file = File::open(&real).map_err(|error| error.to_string())?;
        // One byte more than is allowed tells a file that is too large, whatever its size.
        let mut bytes = Vec::new();
        let limit = MAX_FILE as u64 + 1;
        file.take(limit).read_to_end(&mut bytes).map_err(|error| error.to_string())?;
        Ok(bytes)
    }

    fn matching(&self, pattern: &str) -> Result<Vec<String>, String> {
        let pattern = pattern.trim_start_matches("./");
        if !pattern.contains(['*', '?', '[', '{']) {
            let there = self.folder.join(pattern).is_file();
            return Ok(if there { vec![pattern.to_owned()] } else { Vec::new() });
        }
        let glob = GlobBuilder::new(pattern).literal_separator(true).build();
        let matcher = glob.map_err(|error| error.kind().to_string())?.compile_matcher();
        let depth = if pattern.contains("**") { 16 } else { pattern.matches('/').count() };
        let mut found = Vec::new();
        self.list("", depth, &mut found).map_err(|error| error.to_string())?;
        found.retain(|path| matcher.is_match(path));
        found.sort();
        Ok(found)
    }

    fn shown(&self, path: &str) -> String {
        format!("{}{path}", self.shown)
    }
}
