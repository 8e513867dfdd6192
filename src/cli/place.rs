//! Where the state of a stage is, who said so, and the file that remembers it.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::args::Global;
use super::failure::Failure;
use super::project::{private_file, store_failure};
use super::workspace::{Root, Variables};
use crate::secret::Secret;
use crate::spec::load::{Lookup, Staged};
use crate::spec::reference::{self, Part};
use crate::spec::shape::Use;
use crate::state::postgres::PostgresStore;
use crate::state::postgres::address::ServerUrl;
use crate::state::sqlite::SqliteStore;
use crate::state::{Scope, Store};

/// A SQLite file, or a PostgreSQL database.
#[derive(Debug, Clone)]
pub enum Location {
    /// Absolute.
    File(PathBuf),
    Server(Box<ServerUrl>),
}

/// The variables that name a server, the one that counts first.
const VARIABLES: [&str; 2] = ["NORN_STATE_URL", "NORN_DATABASE_URL"];

/// Where the state is, and who said so.
#[derive(Debug, Clone)]
pub struct StatePlace {
    pub location: Location,
    /// Named by a flag, a variable or the spec, and not only by default.
    pub named: bool,
    /// Named by `--state`.
    by_flag: bool,
    /// The file that remembers the place.
    memory: PathBuf,
}

impl StatePlace {
    /// Finds the place: `--state`, the variables, the spec, else a file in `default`.
    ///
    /// # Errors
    /// What is no place, and one that is not where the state was: see [`Self::remembered`].
    pub fn find(global: &Global, root: &Root, staged: &Staged, default: &Path) -> Result<Self, Failure> {
        let variables = Variables::read(global)?;
        let by_flag = global.state.is_some();
        let location = match &global.state {
            Some(path) => Some(flagged(path, &variables)?),
            None => match named_by_variable(&variables)? {
                Some(location) => Some(location),
                None => written(root, staged, &variables)?,
            },
        };
        let named = location.is_some();
        let location = location.unwrap_or_else(|| Location::File(default.join("state.db")));
        let place = Self { location, named, by_flag, memory: default.join("store") };
        place.remembered()?;
        place.must_last()?;
        Ok(place)
    }

    /// The store there, which is not opened yet.
    pub fn store(&self, scope: Scope) -> Result<Arc<dyn Store>, Failure> {
        Ok(match &self.location {
            Location::File(path) => Arc::new(SqliteStore::open(path, scope).map_err(store_failure)?),
            Location::Server(url) => Arc::new(PostgresStore::new((**url).clone(), scope)),
        })
    }

    /// The place as a plan's first line names it, without a password.
    pub fn label(&self) -> String {
        match &self.location {
            Location::File(path) => {
                let here = std::env::current_dir().unwrap_or_default();
                path.strip_prefix(&here).unwrap_or(path).display().to_string()
            }
            Location::Server(url) => url.to_string(),
        }
    }

    /// What opens the state, and must stand in no log.
    pub fn password(&self) -> Option<&Secret> {
        match &self.location {
            Location::File(_) => None,
            Location::Server(url) => url.password(),
        }
    }

    /// The files of the state: SQLite writes beside the database while a command is at work.
    pub fn files(&self) -> Vec<PathBuf> {
        let Location::File(path) = &self.location else { return Vec::new() };
        let beside = |end| {
            let mut path = path.clone().into_os_string();
            path.push(end);
            PathBuf::from(path)
        };
        ["", "-wal", "-shm", "-journal"].map(beside).into()
    }

    /// Writes down where the state is, for [`Self::remembered`].
    pub fn remember(&self) -> Result<(), (PathBuf, std::io::Error)> {
        let Some(folder) = self.memory.parent().filter(|folder| folder.is_dir()) else { return Ok(()) };
        let text = format!("{}\n", self.text());
        if fs::read_to_string(&self.memory).ok().as_deref() != Some(text.as_str()) {
            private_file(&self.memory, &text).map_err(|error| (folder.to_owned(), error))?;
        }
        Ok(())
    }

    fn text(&self) -> String {
        match &self.location {
            Location::File(path) => path.display().to_string(),
            Location::Server(url) => url.to_string(),
        }
    }

    /// Refuses a state that is elsewhere than it was, unless `--state` says so.
    fn remembered(&self) -> Result<(), Failure> {
        let Ok(text) = fs::read_to_string(&self.memory) else { return Ok(()) };
        let (was, now) = (text.trim(), self.text());
        // A file that is gone holds nothing that could be forgotten.
        let gone = !was.starts_with("postgres") && !Path::new(was).exists();
        if self.by_flag || was == now || gone {
            return Ok(());
        }
        Err(Failure::new(format!("the state was in {was} and would now be in {now}")).help(format!(
            "name the one you mean with --state; to move for good, remove {}",
            self.memory.display()
        )))
    }

    /// In CI a file that nobody named would be forgotten with the checkout.
    fn must_last(&self) -> Result<(), Failure> {
        let Location::File(path) = &self.location else { return Ok(()) };
        if self.named || std::env::var_os("CI").is_none_or(|ci| ci.is_empty()) || path.exists() {
            return Ok(());
        }
        Err(Failure::new(format!("there is no state at {}, and this is CI", path.display())).help(
            "a fresh checkout would deploy everything anew and forget it: name a state that lasts with NORN_STATE_URL, --state FILE or `state:` in the spec",
        ))
    }
}

/// What `--state` names.
fn flagged(path: &Path, variables: &Variables) -> Result<Location, Failure> {
    let Some(url) = path.to_str().filter(|text| is_url(text)) else {
        let path = std::path::absolute(path).map_err(|error| Failure::new(format!("--state: {error}")))?;
        return Ok(Location::File(path));
    };
    let secret = Secret::new(url);
    let location = server("--state", &secret, variables)?;
    let login = url.split("://").nth(1).and_then(|rest| rest.split('/').next()?.rsplit_once('@'));
    let open = login.is_some_and(|(login, _)| login.contains(':')) || url.contains("password=");
    if open {
        return Err(Failure::new("--state holds a password, which every user of this machine can read")
            .help("set NORN_STATE_URL instead, or leave the password out and set PGPASSWORD"));
    }
    Ok(location)
}

fn named_by_variable(variables: &Variables) -> Result<Option<Location>, Failure> {
    let set = |name: &&str| variables.get(name).is_some_and(|value| !value.is_empty());
    let Some(name) = VARIABLES.into_iter().find(|name| set(name)) else { return Ok(None) };
    server(name, &Secret::new(variables.get(name).unwrap_or_default()), variables).map(Some)
}

/// What the spec's `state` names.
fn written(root: &Root, staged: &Staged, variables: &Variables) -> Result<Option<Location>, Failure> {
    let Some(state) = staged.tree.get("state") else { return Ok(None) };
    let text = |field| state.get(field).and_then(|node| node.scalar());
    if let Some(url) = text("url") {
        let url = Secret::new(resolve("state.url", url, staged, variables)?);
        return server("`state.url`", &url, variables).map(Some);
    }
    let Some(path) = text("path") else { return Ok(None) };
    Ok(Some(Location::File(root.folder.join(resolve("state.path", path, staged, variables)?))))
}

fn server(who: &str, url: &Secret, variables: &Variables) -> Result<Location, Failure> {
    let variable = |name: &str| variables.get(name).map(str::to_owned);
    let url = ServerUrl::parse(url, &variable).map_err(|error| Failure::new(format!("{who}: {error}")))?;
    Ok(Location::Server(Box::new(url)))
}

fn is_url(text: &str) -> bool {
    text.starts_with("postgres://") || text.starts_with("postgresql://")
}

/// A field's text with its references replaced.
fn resolve(field: &str, text: &str, staged: &Staged, variables: &Variables) -> Result<String, Failure> {
    let parts =
        reference::parse(text).map_err(|complaint| Failure::new(complaint.message).help(complaint.help))?;
    let mut whole = String::new();
    for part in parts {
        match part {
            Part::Text(text) => whole.push_str(&text),
            Part::Reference(reference) => {
                let used = Use { path: Vec::new(), span: staged.tree.span, reference };
                match variables.lookup(&used, &|_| None) {
                    Lookup::Value(value) => whole.push_str(&value),
                    Lookup::Missing(complaint) => {
                        return Err(
                            Failure::new(format!("`{field}`: {}", complaint.message)).help(complaint.help)
                        );
                    }
                }
            }
        }
    }
    Ok(whole)
}
