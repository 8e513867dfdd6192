//! Where the state of a stage is, who said so, and whether it is where it was.
//!
//! In the submodule: the file that remembers it (`memory`).

mod memory;

use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use self::memory::Remembered;
use super::args::Global;
use super::failure::Failure;
use super::project::{store_failure, unwritten};
use super::workspace::{Root, Variables};
use crate::apply::world::Folders;
use crate::provider::folders::real;
use crate::secret::Secret;
use crate::spec::load::{Lookup, Staged};
use crate::spec::name::StageName;
use crate::spec::reference::{self, Part};
use crate::spec::shape::Use;
use crate::state::postgres::PostgresStore;
use crate::state::postgres::address::ServerUrl;
use crate::state::sqlite::{self, SqliteStore};
use crate::state::{Scope, Store, format};

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
    /// The variable that names it.
    variable: Option<&'static str>,
    /// The file that remembers the place.
    memory: PathBuf,
    /// Where the state was, if that has another name: the same store must be here.
    was: Option<Remembered>,
}

/// Where a stage's state and folders are unless something else is said.
pub struct Usual {
    path: PathBuf,
    folders: Folders,
    memory: PathBuf,
}

impl Usual {
    pub fn new(root: &Root, stage: Option<&StageName>) -> Self {
        let norn = root.folder.join(".norn");
        let snapshots = root.folder.join("snapshots");
        let (stage, snapshots) = match stage {
            Some(stage) => (norn.join("stages").join(stage.as_str()), snapshots.join(stage.as_str())),
            None => (norn.clone(), snapshots),
        };
        Self {
            path: stage.join("state.db"),
            memory: stage.join("store"),
            folders: Folders { norn, stage, snapshots },
        }
    }

    /// The place that is found: `--state`, the variables, the spec, else the usual.
    ///
    /// # Errors
    /// What is no place, and one that cannot be where the state was; whether it is one that can be
    /// shows in the store there: see [`StatePlace::must_be_known`].
    pub fn or_found(
        self,
        global: &Global,
        root: &Root,
        staged: &Staged,
    ) -> Result<(StatePlace, Folders), Failure> {
        let variables = Variables::read(global)?;
        let mut variable = None;
        let location = match &global.state {
            Some(place) => Some(flagged("--state", place, &variables)?),
            None => match named_by_variable(&variables)? {
                Some((name, location)) => {
                    variable = Some(name);
                    Some(location)
                }
                None => written(root, staged, &variables)?,
            },
        };
        let (place, folders) = self.or_named(location);
        let mut place = StatePlace { by_flag: global.state.is_some(), variable, ..place };
        place.was = place.elsewhere()?;
        place.must_last()?;
        Ok((place, folders))
    }

    /// The place that is typed behind a flag, as a spec with it would have it.
    pub fn or_typed(
        self,
        flag: &str,
        text: &str,
        variables: &Variables,
    ) -> Result<(StatePlace, Folders), Failure> {
        let location = match flagged(flag, Path::new(text), variables)? {
            Location::File(path) if same_file(&path, &self.path) => None,
            Location::File(path) => Some(Location::File(real(&path))),
            server => Some(server),
        };
        Ok(self.or_named(location))
    }

    fn or_named(self, named: Option<Location>) -> (StatePlace, Folders) {
        let Self { path, folders, memory } = self;
        let place = |location, named| StatePlace {
            location,
            named,
            by_flag: false,
            variable: None,
            memory,
            was: None,
        };
        match named {
            // What belongs to a state lies beside it: a checkout that is cleaned must not take it along.
            Some(Location::File(other)) if !same_file(&other, &path) => {
                let beside = PathBuf::from(format!("{}.d", other.display()));
                let folders = Folders { norn: beside.clone(), stage: beside, ..folders };
                (place(Location::File(other), true), folders)
            }
            Some(Location::Server(url)) => (place(Location::Server(url), true), folders),
            named => (place(Location::File(path), named.is_some()), folders),
        }
    }
}

impl StatePlace {
    /// The store there, which is neither made nor read yet.
    pub fn store(&self, scope: &Scope) -> Result<Arc<dyn Store>, Failure> {
        let scope = scope.clone();
        Ok(match &self.location {
            Location::File(path) => Arc::new(SqliteStore::open(path, scope).map_err(store_failure)?),
            Location::Server(url) => Arc::new(PostgresStore::new((**url).clone(), scope)),
        })
    }

    /// As a reader here would name it, without a password.
    pub fn label(&self) -> String {
        match &self.location {
            Location::File(path) => {
                let here = std::env::current_dir().unwrap_or_default();
                path.strip_prefix(&here).unwrap_or(path).display().to_string()
            }
            Location::Server(url) => url.to_string(),
        }
    }

    /// As it is named from anywhere, without a password.
    pub fn name(&self) -> String {
        match &self.location {
            Location::File(path) => path.display().to_string(),
            Location::Server(url) => url.to_string(),
        }
    }

    /// Whether a [`name`](Self::name) is of this place.
    pub fn is(&self, name: &str) -> bool {
        match &self.location {
            Location::File(path) => !is_url(name) && same_file(path, Path::new(name)),
            Location::Server(url) => url.to_string() == name,
        }
    }

    /// What opens the state, and must stand in no log.
    pub fn password(&self) -> Option<&Secret> {
        match &self.location {
            Location::File(_) => None,
            Location::Server(url) => url.password(),
        }
    }

    /// The file of the state.
    pub fn file(&self) -> Option<&Path> {
        match &self.location {
            Location::File(path) => Some(path),
            Location::Server(_) => None,
        }
    }

    /// Refuses a place of another name than it had, unless the store that was there is here. Whether
    /// there is one is only asked where the name is another.
    pub async fn must_be_known(&self, store: &dyn Store) -> Result<(), Failure> {
        match &self.was {
            None => Ok(()),
            // The snapshot that a command reads tells whether it is the store that was there.
            Some(was) if self.is(&was.place) => Ok(()),
            Some(_) => match store.known_key().await {
                Ok(key) => self.must_hold(key.as_ref()),
                // The command meets the same error, and has the words for it.
                Err(_) => Ok(()),
            },
        }
    }

    /// Refuses a store that is not the one that was here, and none where there was one.
    pub fn must_hold(&self, key: Option<&Secret>) -> Result<(), Failure> {
        match &self.was {
            Some(was) if key.map(format::store_id) != was.id => Err(self.refused(was)),
            Some(_) | None => Ok(()),
        }
    }

    /// Writes down where the state is and which store that is, where there is a folder for it.
    pub fn remember(&self, key: &Secret) -> Result<(), Failure> {
        self.must_hold(Some(key))?;
        self.write_down(key)
    }

    /// As [`Self::remember`], of a store that was filled and has the key of its copy since. One that
    /// `--state` names is a copy beside the project's own.
    pub fn remember_filled(&self, key: &Secret) -> Result<(), Failure> {
        let was = || Remembered::read(&self.memory).ok().flatten();
        let own = || was().is_some_and(|was| self.is(&was.place));
        if self.by_flag && !own() { Ok(()) } else { self.write_down(key) }
    }

    fn write_down(&self, key: &Secret) -> Result<(), Failure> {
        let Some(folder) = self.memory.parent().filter(|folder| folder.is_dir()) else { return Ok(()) };
        let now = Remembered { place: self.name(), id: Some(format::store_id(key)) };
        match now.write(&self.memory) {
            // A project that only others may write to works with a state elsewhere all the same.
            Err(error) if denied(&error) && !self.file().is_some_and(|file| file.starts_with(folder)) => {
                Ok(())
            }
            written => written.map_err(|error| unwritten(&self.memory, &error)),
        }
    }

    /// The folder of the file that remembers the place.
    pub fn memory_folder(&self) -> &Path {
        self.memory.parent().expect("it is a file in the stage's folder")
    }

    /// Where the state was, if it was elsewhere by name and the same store may be here.
    fn elsewhere(&self) -> Result<Option<Remembered>, Failure> {
        if self.by_flag {
            return Ok(None);
        }
        let unreadable = |error: io::Error| {
            let memory = self.memory.display();
            Failure::new(format!("{memory}, which remembers where the state is, cannot be read: {error}"))
                .help("remove it, and norn takes the state to be where it is named now")
        };
        let Some(was) = Remembered::read(&self.memory).map_err(unreadable)? else { return Ok(None) };
        if self.is(&was.place) {
            return Ok(was.id.is_some().then_some(was));
        }
        // Either it was moved to the new place, or from there, and the store itself will say so.
        let to_here = was.is_there() && sqlite::moved(Path::new(&was.place)).is_some_and(|to| self.is(&to));
        let from_here = self
            .file()
            .and_then(sqlite::moved)
            .is_some_and(|to| to == was.place || same_file(to.as_ref(), was.place.as_ref()));
        if to_here || from_here {
            return Ok(None);
        }
        // Beside a file that is still there, what is here can only be a copy.
        if was.is_there() || was.id.is_none() {
            return Err(self.refused(&was));
        }
        Ok(Some(was))
    }

    fn refused(&self, was: &Remembered) -> Failure {
        let (place, here, memory) = (&was.place, self.name(), self.memory.display());
        if self.is(place) {
            let what = if was.is_gone() { "is gone" } else { "is not the one that was there" };
            return Failure::new(format!("the state in {place} {what}"))
                .help(format!("put it back; to begin anew, or with what is there now: remove {memory}"));
        }
        if was.is_gone() {
            return Failure::new(format!(
                "the state was in {place}, which is gone, and would now be in {here}"
            ))
            .help(format!(
                "put it back, or name the one you mean with --state; to begin anew: remove {memory}"
            ));
        }
        let mend = match self.variable {
            Some(variable) => format!("unset {variable}, or name the one you mean with --state"),
            None => "name the one you mean with --state".to_owned(),
        };
        Failure::new(format!("the state was in {place} and would now be in {here}"))
            .help(format!("{mend}; to move it: `norn state migrate`; to begin anew: remove {memory}"))
    }

    /// In CI a file that nobody named would be forgotten with the checkout.
    fn must_last(&self) -> Result<(), Failure> {
        let Some(path) = self.file().filter(|_| !self.named) else { return Ok(()) };
        if std::env::var_os("CI").is_none_or(|ci| ci.is_empty()) || path.exists() {
            return Ok(());
        }
        Err(Failure::new(format!("there is no state at {}, and this is CI", path.display())).help(
            "a fresh checkout would deploy everything anew and forget it: name a state that lasts with NORN_STATE_URL, --state FILE or `state:` in the spec",
        ))
    }
}

/// Whether this user may not write, as opposed to that it failed.
pub fn denied(error: &io::Error) -> bool {
    [io::ErrorKind::PermissionDenied, io::ErrorKind::ReadOnlyFilesystem].contains(&error.kind())
}

/// Whether two paths name one file, which need not be there.
pub fn same_file(one: &Path, other: &Path) -> bool {
    // A folder can be mounted at two paths, of which none is a link.
    let identity = |path: &Path| fs::metadata(path).ok().map(|file| (file.dev(), file.ino()));
    one == other || real(one) == real(other) || identity(one).is_some_and(|own| identity(other) == Some(own))
}

/// Whether a path names a file or folder, or something in that folder.
pub fn is_within(path: &Path, folder: &Path) -> bool {
    real(path).starts_with(real(folder))
}

/// What a flag names.
fn flagged(flag: &str, path: &Path, variables: &Variables) -> Result<Location, Failure> {
    let Some(url) = path.to_str().filter(|text| is_url(text)) else {
        if path.to_str().is_some_and(|text| text.contains("://")) {
            return Err(Failure::new(format!("{flag} is neither a file nor a PostgreSQL database"))
                .help("name a SQLite file, or postgres://user@host:port/database"));
        }
        let path = std::path::absolute(path).map_err(|error| Failure::new(format!("{flag}: {error}")))?;
        return Ok(Location::File(path));
    };
    let location = server(flag, &Secret::new(url), variables)?;
    let login = url.split("://").nth(1).and_then(|rest| rest.split('/').next()?.rsplit_once('@'));
    let open = login.is_some_and(|(login, _)| login.contains(':')) || url.contains("password=");
    if open {
        return Err(Failure::new(format!(
            "{flag} holds a password, which every user of this machine can read"
        ))
        .help("leave it out, and set PGPASSWORD or write it into ~/.pgpass"));
    }
    Ok(location)
}

fn named_by_variable(variables: &Variables) -> Result<Option<(&'static str, Location)>, Failure> {
    let set = |name: &&str| variables.get(name).is_some_and(|value| !value.is_empty());
    let Some(name) = VARIABLES.into_iter().find(|name| set(name)) else { return Ok(None) };
    let location = server(name, &Secret::new(variables.get(name).unwrap_or_default()), variables)?;
    Ok(Some((name, location)))
}

/// What the spec's `state` names.
fn written(root: &Root, staged: &Staged, variables: &Variables) -> Result<Option<Location>, Failure> {
    let Some(state) = staged.tree.get("state") else { return Ok(None) };
    let text = |field| state.get(field).and_then(|node| node.scalar());
    if let Some(url) = text("url") {
        let url = resolve("state.url", url, staged, variables)?;
        if url.is_empty() {
            return Err(Failure::new("`state.url` refers to a variable that is empty")
                .help("set it to postgres://user:password@host:port/database"));
        }
        let url = Secret::new(url);
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
pub fn resolve(field: &str, text: &str, staged: &Staged, variables: &Variables) -> Result<String, Failure> {
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
