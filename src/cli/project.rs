//! A project as commands open it: its spec, its stage, its state and its folders.

use std::collections::BTreeSet;
use std::fs::{self, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use super::args::Global;
use super::clusters::Reached;
use super::failure::{Exit, Failure};
use super::place::{self, StatePlace, Usual, denied};
use super::plan::unknown_app;
use super::plan_file;
use super::workspace::{self, Root, Variables};
use crate::apply::world::Folders;
use crate::desired::{self, Desired, Kubernetes};
use crate::failpoint;
use crate::provider::folders;
use crate::provider::machine;
use crate::provider::releases::private_folder;
use crate::provider::supervise::client::Home;
use crate::render::{Printer, problems};
use crate::secret::Secret;
use crate::spec::load::{Document, Form, Staged};
use crate::spec::name::{AppName, StageName};
use crate::spec::problem;
use crate::state::sqlite::SqliteStore;
use crate::state::{Scope, Snapshot, Store, StoreError};

/// How long another norn is given to bring a state to this version.
const UPGRADE: Duration = Duration::from_secs(10);
const PAUSE: Duration = Duration::from_millis(100);

/// A project whose state can be opened.
pub struct Project {
    pub root: Root,
    pub document: Document,
    pub stage: Option<StageName>,
    pub scope: Scope,
    pub place: StatePlace,
    pub folders: Folders,
    pub store: Arc<dyn Store>,
    /// The stage with its references as they are spelled.
    plain: Staged,
    /// The files of `--env-file`; absolute.
    env_files: Vec<PathBuf>,
    /// Files of plans that this command reads or writes; absolute. They are no part of a source.
    pub plan_files: Vec<PathBuf>,
    pub clusters: Reached,
}

impl Project {
    /// Opens a project without resolving its references, for commands that only look.
    pub async fn open(global: &Global, printer: Printer) -> Result<Self, Failure> {
        let root = Root::find(global)?;
        let document = root.read();
        if document.failed() {
            return Err(workspace::refuse(&document.problems, &document, printer));
        }
        if document.form == Form::App
            && let Some(project) = root.included_by()
        {
            let name = document.tree.get("apps").and_then(|a| a.map()?.first()).map(|e| e.key.clone());
            return Err(Failure::new(format!(
                "{} is a part of the project {}",
                root.folder.join(&root.file).display(),
                project.folder.join(&project.file).display()
            ))
            .help(format!("use the project's spec with `--target {}`", name.unwrap_or_default())));
        }
        let stage = workspace::choose_stage(global, &document)?;
        let staged = document.stage(stage.as_ref(), None);
        if staged.failed() {
            return Err(workspace::refuse(&staged.problems, &document, printer));
        }
        let project = staged.project.as_ref().expect("a spec without problems is read").project.clone();
        let scope = Scope { project, stage: stage.clone() };
        let env_files = global.env_file.iter().filter_map(|path| std::path::absolute(path).ok()).collect();
        let (place, folders) = Usual::new(&root, stage.as_ref()).or_found(global, &root, &staged)?;
        let store = place.store(&scope)?;
        #[cfg(feature = "failpoints")]
        let store: Arc<dyn Store> = Arc::new(crate::state::faulty::FaultyStore::new(store));
        place.must_be_known(&*store).await?;
        Ok(Self {
            root,
            document,
            stage,
            scope,
            place,
            folders,
            store,
            plain: staged,
            env_files,
            plan_files: Vec::new(),
            clusters: Reached::default(),
        })
    }

    /// What should exist, with every reference resolved.
    pub fn desired(&self, variables: &Variables, printer: Printer) -> Result<Desired, Failure> {
        let variable = |name: &str| variables.get(name).map(str::to_owned);
        let resolved;
        // Without a reference there is nothing to resolve, but the engine that only a variable names.
        let staged = if self.plain.uses.is_empty() && variables.engine().is_none() {
            &self.plain
        } else {
            resolved = workspace::resolve(&self.document, self.stage.as_ref(), &self.plain, variables);
            &resolved
        };
        if staged.failed() {
            let mut problems = staged.problems.clone();
            // A reader who sets what is missing should hear of all of it, secrets too.
            problems.extend(workspace::missing(&self.document, self.stage.as_ref(), &self.plain, variables));
            problem::sort(&mut problems, &self.document.sources);
            return Err(workspace::refuse(&problems, &self.document, printer));
        }
        desired::from_spec(&self.document, staged, self.stage.as_ref(), &variable)
            .map_err(|problems| workspace::refuse(&problems, &self.document, printer))
    }

    /// What should exist, with references as they are spelled but for those by which it is reached:
    /// enough to look at it, and to take it away.
    ///
    /// # Errors
    /// A variable that is needed to reach an engine or a cluster and is not set.
    pub fn desired_without_values(&self, variables: &Variables) -> Result<Desired, Failure> {
        let anything = |_: &str| Some(String::new());
        let mut desired = desired::from_spec(&self.document, &self.plain, self.stage.as_ref(), &anything)
            .expect("with every variable set, nothing is missing");
        let resolved = |field: &str, text: &String| place::resolve(field, text, &self.plain, variables);
        let engine = match desired.docker.take() {
            Some(host) => Some(resolved("docker.host", &host)?),
            None => variables.engine(),
        };
        if let Some(address) = engine {
            desired.on_engine(address);
        }
        if let Some(context) = &mut desired.kubernetes.context {
            *context = resolved("kubernetes.context", context)?;
        }
        Ok(desired)
    }

    /// Where its clusters are, for commands that only look.
    ///
    /// # Errors
    /// A variable that is needed to reach them and is not set.
    pub fn kubernetes(&self, global: &Global) -> Result<Kubernetes, Failure> {
        Ok(self.desired_without_values(&Variables::read(global)?)?.kubernetes)
    }

    /// What should exist, of a project that is to be torn down: a run without its values must be able
    /// to take it away.
    ///
    /// # Errors
    /// A locked stage keeps its state.
    pub fn desired_to_destroy(&self, variables: &Variables) -> Result<Desired, Failure> {
        let mut desired = self.desired_without_values(variables)?;
        if let Some(tunnel) = &mut desired.cloudflare {
            // Where it is not set and a route is to go, that is told then.
            let token = place::resolve("cloudflare.token", tunnel.token.expose(), &self.plain, variables);
            tunnel.token = Secret::new(token.unwrap_or_default());
            desired.sensitive.push(tunnel.token.clone());
        }
        if !desired.locked {
            return Ok(desired);
        }
        let stage = desired.stage.as_ref().map(ToString::to_string).unwrap_or_default();
        Err(Failure::new(format!("stage `{stage}` is locked: its state cannot be deleted"))
            .help("take `locked: true` out of the stage first"))
    }

    /// Tells of what runs by a state from before the spec had stages: no stage knows it.
    async fn warn_of_unstaged(&self, printer: Printer) {
        let path = self.root.folder.join(".norn/state.db");
        if self.stage.is_none() || !path.exists() {
            return;
        }
        let scope = Scope { stage: None, ..self.scope.clone() };
        let Ok(store) = SqliteStore::open(&path, scope) else { return };
        if store.snapshot().await.is_ok_and(|stored| !stored.resources.is_empty()) {
            let path = path.strip_prefix(std::env::current_dir().unwrap_or_default()).unwrap_or(&path);
            printer.talk(&format!(
                "warning: what was applied before the spec had stages runs on, and no stage knows it; to end it: \
                 take `stages` out, `norn destroy`, put them back ({})",
                path.display()
            ));
        }
    }

    /// Tells what the spec has that deserves a word, before anything is planned.
    pub async fn warn(&self, printer: Printer) {
        self.warn_of_unstaged(printer).await;
        if !self.plain.problems.is_empty() {
            let sources = &self.document.sources;
            printer.talk(&problems::human(&self.plain.problems, sources, printer.err_color, printer.width));
        }
    }

    pub fn home(&self) -> Home {
        Home::new(self.folders.run(), self.folders.logs(), self.folders.bin())
    }

    /// What is no part of a local source.
    pub fn skip(&self) -> Vec<PathBuf> {
        let plans = self.plan_files.iter().cloned().chain(plan_file::within(&self.root.folder));
        self.kept().into_iter().chain(plans).collect()
    }

    /// What the project itself has beside its sources: no command may replace it.
    pub fn kept(&self) -> Vec<PathBuf> {
        let files = self.document.sources.iter().map(|file| {
            let name = Path::new(&file.path).file_name().unwrap_or_default();
            self.root.folder.join(&file.folder).join(name)
        });
        let kept = [".norn", "snapshots"].map(|name| self.root.folder.join(name));
        // What a state that was moved left: its folder, and beside that its file.
        let stayed = folders::stayed(&self.folders.stage);
        let left = stayed.iter().filter_map(|folder| Some(folder.to_str()?.strip_suffix(".d")?.into()));
        // SQLite writes beside the file while a command is at work.
        let state = left.chain(self.place.file().map(Path::to_owned)).flat_map(|path: PathBuf| {
            ["", "-wal", "-shm", "-journal"].map(|end| PathBuf::from(format!("{}{end}", path.display())))
        });
        let values = self.env_files.iter().cloned();
        let own = stayed.iter().cloned().chain([self.folders.norn.clone()]);
        files.chain(kept).chain(own).chain(state).chain(values).collect()
    }

    /// What the first line of a plan says of the state.
    pub fn state_label(&self) -> String {
        self.place.label()
    }

    /// What is typed back before something that weighs much: the stage's name, without stages the
    /// project's.
    pub fn name(&self) -> &str {
        self.stage.as_ref().map_or(self.scope.project.as_str(), StageName::as_str)
    }

    /// Another place for the state, as a spec with it would have it.
    pub fn elsewhere(&self, global: &Global, to: &str) -> Result<(StatePlace, Folders), Failure> {
        Usual::new(&self.root, self.stage.as_ref()).or_typed("--to", to, &Variables::read(global)?)
    }

    /// The state as it stands. Where another norn is bringing it to this version at this very moment,
    /// that is waited for.
    ///
    /// # Errors
    /// One that stays older is locked by who works on it, or to be brought to this version by the user.
    pub async fn stored(&self) -> Result<Snapshot, Failure> {
        let mut waited = Duration::ZERO;
        loop {
            let error = match self.store.snapshot().await {
                Err(error @ StoreError::Older { .. }) => error,
                read => {
                    let stored = read.map_err(store_failure)?;
                    self.place.must_hold(stored.key.as_ref())?;
                    return Ok(stored);
                }
            };
            let row = self.store.lease().await.map_err(store_failure)?;
            match (row.and_then(|row| row.blocker(machine::alive)), error) {
                // It may have taken the lock, or given it back, since the state was read.
                (None, _) if waited.is_zero() => {}
                (Some(_), _) if waited < UPGRADE => {}
                (Some(held), StoreError::Older { place, .. }) => {
                    return Err(store_failure(StoreError::Locked { place, held: Box::new(held) }));
                }
                (_, error) => return Err(store_failure(error)),
            }
            tokio::time::sleep(PAUSE).await;
            waited += PAUSE;
        }
    }

    /// An app that neither the spec nor the state knows is a slip.
    pub async fn must_know(&self, app: &AppName) -> Result<(), Failure> {
        let stored = self.stored().await?;
        let staged = self.document.stage(self.stage.as_ref(), None);
        let written = staged.project.iter().flat_map(|project| project.apps.keys());
        let known: BTreeSet<&AppName> =
            stored.resources.keys().map(|address| &address.name).chain(written).collect();
        // What was torn down has a history and logs still.
        let was = self.store.history(Some(app), 1).await.map_err(store_failure)?;
        if known.contains(app) || !was.is_empty() { Ok(()) } else { Err(unknown_app(app, known)) }
    }

    /// Makes the folders that a change needs.
    pub fn prepare(&self) -> Result<(), Failure> {
        for folder in [&self.folders.norn, &self.folders.stage] {
            private_folder(folder).map_err(|error| unwritten(folder, &error))?;
        }
        ignored(&self.folders.norn).map_err(|error| unwritten(&self.folders.norn, &error))?;
        self.prepare_memory()
    }

    /// Makes the folder of what remembers a state that is elsewhere.
    fn prepare_memory(&self) -> Result<(), Failure> {
        let folder = self.place.memory_folder();
        match private_folder(folder).and_then(|()| ignored(&self.root.folder.join(".norn"))) {
            // A project that only others may write to works with a state elsewhere all the same.
            Err(error) if denied(&error) => Ok(()),
            made => made.map_err(|error| unwritten(folder, &error)),
        }
    }
}

/// Keeps a folder out of version control.
fn ignored(folder: &Path) -> io::Result<()> {
    let ignore = folder.join(".gitignore");
    if fs::metadata(&ignore).is_ok_and(|file| file.len() > 0) {
        return Ok(());
    }
    private_file(&ignore, "*\n")
}

pub fn unwritten(path: &Path, error: &io::Error) -> Failure {
    let mend = match error.kind() {
        io::ErrorKind::StorageFull => "free some space on its disk",
        _ => "give this user write access to it, or name another place with --state FILE",
    };
    Failure::new(format!("{} cannot be written: {error}", path.display())).help(mend)
}

/// Writes a file of one line, mode 0600. Where norn dies before it is whole, it is empty, which counts
/// as absent.
pub fn private_file(path: &Path, text: &str) -> io::Result<()> {
    failpoint::before("write", path)?;
    let mut file = OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(path)?;
    failpoint::after("empty", path)?;
    file.write_all(text.as_bytes())?;
    failpoint::after("write", path)
}

/// A store's error with the exit code it has.
pub fn store_failure(error: StoreError) -> Failure {
    let exit = match &error {
        StoreError::Locked { .. } => Exit::Locked,
        _ => Exit::Error,
    };
    let help = match &error {
        StoreError::Locked { .. } => Some(
            "`norn lock status` shows what it does; wait for it with --lock-wait 5m, or end that process",
        ),
        _ => None,
    };
    let failure = Failure::new(error.to_string()).exit(exit);
    match help {
        Some(help) => failure.help(help),
        None => failure,
    }
}
