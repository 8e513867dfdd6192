//! What Cargo.toml says: the programs of a package, or of a workspace's members.

use std::collections::BTreeSet;
use std::io;
use std::path::{Path, PathBuf};

use toml::{Table, Value};

use super::{Hint, entries, is_plain, read_toml};
use crate::spec::init::Program;

/// `None` where nothing here compiles to a program, such as for a library.
pub(super) fn look(folder: &Path) -> io::Result<Option<Hint>> {
    let Some(manifest) = read_toml(&folder.join("Cargo.toml"))? else { return Ok(None) };
    let package = package_name(&manifest);
    let mut binaries = binaries(folder, &manifest)?;
    if binaries.is_empty() {
        for member in members(folder, &manifest)? {
            if let Some(manifest) = read_toml(&member.join("Cargo.toml"))? {
                binaries.extend(self::binaries(&member, &manifest)?);
            }
        }
    }
    let default = at(&manifest, &["package", "default-run"]).and_then(Value::as_str);
    let wanted = [default, package].into_iter().flatten().find(|name| binaries.contains(*name));
    let Some(binary) = wanted.or(binaries.first().map(String::as_str)).map(str::to_owned) else {
        return Ok(None);
    };
    binaries.remove(&binary);
    let name = package.map_or_else(|| binary.clone(), str::to_owned);
    let program = Program::Rust { binary, others: binaries.into_iter().collect() };
    Ok(Some(Hint { program, name: Some(name) }))
}

/// The names of a package's programs: those listed, src/main.rs, and those in src/bin.
fn binaries(folder: &Path, manifest: &Table) -> io::Result<BTreeSet<String>> {
    let mut names = BTreeSet::new();
    let Some(package) = package_name(manifest) else { return Ok(names) };
    let listed = manifest.get("bin").and_then(Value::as_array).map_or(&[][..], Vec::as_slice);
    names.extend(listed.iter().filter_map(|bin| bin.get("name")?.as_str()).map(str::to_owned));
    if at(manifest, &["package", "autobins"]).and_then(Value::as_bool) != Some(false) {
        let main_is_listed =
            listed.iter().any(|bin| bin.get("path").and_then(Value::as_str) == Some("src/main.rs"));
        if folder.join("src/main.rs").is_file() && !main_is_listed {
            names.insert(package.to_owned());
        }
        let bins = folder.join("src/bin");
        if bins.is_dir() {
            for entry in entries(&bins)? {
                if let Some(name) = entry.strip_suffix(".rs") {
                    names.insert(name.to_owned());
                } else if bins.join(&entry).join("main.rs").is_file() {
                    names.insert(entry);
                }
            }
        }
    }
    names.retain(|name| is_plain(name));
    Ok(names)
}

/// The folders of a workspace's members, of which only `folder/*` is taken for a pattern.
fn members(folder: &Path, manifest: &Table) -> io::Result<Vec<PathBuf>> {
    let members = at(manifest, &["workspace", "members"]).and_then(Value::as_array);
    let mut folders = Vec::new();
    for member in members.into_iter().flatten().filter_map(Value::as_str) {
        match member.strip_suffix("/*") {
            Some(parent) if folder.join(parent).is_dir() => {
                let parent = folder.join(parent);
                folders.extend(entries(&parent)?.into_iter().map(|name| parent.join(name)));
            }
            Some(_) => {}
            None => folders.push(folder.join(member)),
        }
    }
    Ok(folders)
}

fn package_name(manifest: &Table) -> Option<&str> {
    at(manifest, &["package", "name"]).and_then(Value::as_str)
}

/// The value below a table, key by key.
pub(super) fn at<'a>(table: &'a Table, keys: &[&str]) -> Option<&'a Value> {
    let (first, rest) = keys.split_first()?;
    rest.iter().try_fold(table.get(*first)?, |value, key| value.get(*key))
}
