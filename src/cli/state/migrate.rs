//! `norn state migrate`: the state goes to another place, whole, and the one that was left says so.
//!
//! Invariants: the old store is the one in use until it is marked; the new one is whole, and was
//! compared, before that. Ended anywhere, the same command goes on.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use crate::apply::Control;
use crate::apply::lease::{self, Keeper};
use crate::apply::world::Folders;
use crate::cli::args::Global;
use crate::cli::failure::{Exit, Failure};
use crate::cli::locked::{holder, tell_waiting};
use crate::cli::place::{Location, StatePlace};
use crate::cli::project::{Project, store_failure};
use crate::provider::folders::{self, InTheWay};
use crate::render::Printer;
use crate::state::{Dump, Lease, Store, StoreError};

pub fn run(global: &Global, to: &str, wait: Duration, printer: Printer) -> Result<Exit, Failure> {
    crate::cli::runtime()?.block_on(async {
        let project = Project::open(global, printer).await?;
        let (place, folders) = target(global, &project, to)?;
        let moving = Moving {
            store: place.store(&project.scope)?,
            project: &project,
            place,
            folders,
            typed: Path::new(to),
        };
        match project.store.lease().await {
            // It was ended after the mark.
            Err(StoreError::Moved { to, .. }) if moving.place.is(&to) => moving.settle().await?,
            Err(error) => return Err(store_failure(error)),
            Ok(None) if super::is_absent(&project).await => return Err(super::absent(&project)),
            // A database of v1 has no lock yet, which taking it makes.
            Ok(None | Some(_)) => moving.run(wait, printer).await?,
        }
        moving.tell(printer);
        Ok(Exit::Ok)
    })
}

/// Where it is to go.
fn target(global: &Global, project: &Project, to: &str) -> Result<(StatePlace, Folders), Failure> {
    if to.is_empty() {
        return Err(Failure::new("no place is named").help("name a file or a database with --to"));
    }
    let (place, folders) = project.elsewhere(global, to)?;
    if project.place.is(&place.name()) {
        return Err(
            Failure::new(format!("the state is in {to} already")).help("name another place with --to")
        );
    }
    Ok((place, folders))
}

struct Moving<'a> {
    project: &'a Project,
    store: Arc<dyn Store>,
    place: StatePlace,
    folders: Folders,
    /// What the user calls it.
    typed: &'a Path,
}

impl Moving<'_> {
    async fn run(&self, wait: Duration, printer: Printer) -> Result<(), Failure> {
        let from = &self.project.store;
        folders::can_lead(&self.project.folders.stage, &self.folders.stage).map_err(in_the_way)?;
        // What cannot take it is refused before anything is locked.
        self.store.export().await.map_err(there)?;
        let (lease, keeper) = lock(from, wait, printer, store_failure).await?;
        let moved = self.locked(&lease, printer).await;
        drop(keeper);
        let _ = from.unlock(&lease).await;
        moved
    }

    async fn locked(&self, lease: &Lease, printer: Printer) -> Result<(), Failure> {
        let from = &self.project.store;
        let dump = from.export().await.map_err(store_failure)?.expect("a store that was locked is there");
        super::warn_of_left_out(&dump, printer);
        let found = self.store.export().await.map_err(there)?;
        let copied = found.as_ref().is_some_and(|there| !there.is_empty() && there.same_as(&dump));
        if copied {
            printer.talk(&format!("{} has a whole copy already", self.place.label()));
        } else {
            self.must_be_free(&dump, found.as_ref())?;
            self.fill(&dump, printer).await?;
        }
        let copy = self.store.export().await.map_err(there)?;
        if !copy.is_some_and(|copy| copy.same_as(&dump)) {
            return Err(Failure::new(format!(
                "{} does not have what was written to it, so the state stays where it is",
                self.place.label()
            ))
            .help("see to that place, and name another with --to"));
        }
        self.lead()?;
        from.mark_moved(lease, &self.place.name()).await.map_err(store_failure)?;
        self.place.remember(&dump.key)
    }

    fn must_be_free(&self, dump: &Dump, there: Option<&Dump>) -> Result<(), Failure> {
        super::must_be_empty(&self.place.label(), there).map_err(|failure| match there {
            Some(there) if there.key == dump.key => Failure::new(format!(
                "{} has a copy of this state, and the two are not the same any more",
                self.place.label()
            ))
            .help("remove that one if it is the older, or name another place with --to"),
            _ => failure,
        })
    }

    async fn fill(&self, dump: &Dump, printer: Printer) -> Result<(), Failure> {
        let (lease, keeper) = lock(&self.store, Duration::ZERO, printer, there).await?;
        let filled = self.store.import(&lease, dump).await;
        drop(keeper);
        let _ = self.store.unlock(&lease).await;
        filled.map_err(there)
    }

    /// What was left to do after the mark.
    async fn settle(&self) -> Result<(), Failure> {
        self.lead()?;
        match self.store.known_key().await.map_err(store_failure)? {
            Some(key) => self.place.remember(&key),
            None => Err(Failure::new(format!("the state was moved to {}, and is gone", self.place.label()))
                .help("put it back; `norn state import` fills a new one from an export")),
        }
    }

    /// Makes the folder of the new place lead to what the old one's has.
    fn lead(&self) -> Result<(), Failure> {
        let (from, to) = (&self.project.folders.stage, &self.folders.stage);
        if from == to {
            return Ok(());
        }
        folders::can_lead(from, to).map_err(in_the_way)?;
        folders::lead(from, to).map_err(|error| {
            Failure::new(format!("{} cannot be written: {error}", to.display()))
                .help("see to that folder, or name another place with --to")
        })
    }

    fn tell(&self, printer: Printer) {
        let (old, new) = (self.project.state_label(), self.place.label());
        let rest = match (&self.project.place.location, &self.project.stage) {
            (Location::File(_), _) => format!("{old} is marked as moved, and can be removed"),
            // Other stages have schemas of their own there.
            (Location::Server(_), Some(stage)) => {
                format!("the schema {stage} of {old} is marked as moved, and can be dropped")
            }
            (Location::Server(_), None) => {
                format!("norn's tables in {old} are marked as moved, and can be dropped")
            }
        };
        printer.talk(&format!("the state is in {new} now; {rest}"));
        if let Some(stays) = folders::stayed(&self.folders.stage) {
            printer.talk(&format!(
                "releases, logs and what runs stay in {}; {} leads there, so keep both",
                shown(&stays),
                shown(&self.folders.stage)
            ));
        }
        let root = &self.project.root;
        let spec = root.folder.join(&root.file);
        let change = match &self.place.location {
            Location::File(_) if !self.place.named => format!("take `state` out of {}", shown(&spec)),
            Location::File(path) => {
                let here = std::env::current_dir().is_ok_and(|here| here == root.folder);
                let path = if here { self.typed } else { path };
                format!("write `state: {{path: {}}}` into {}", path.display(), shown(&spec))
            }
            Location::Server(_) => format!(
                "write `state: {{url: \"${{NORN_STATE_URL}}\"}}` into {}, and set NORN_STATE_URL where norn runs",
                shown(&spec)
            ),
        };
        let of_stage = self.project.stage.as_ref().map(|stage| format!(", for the stage {stage}"));
        printer.talk(&format!("{change}{}", of_stage.unwrap_or_default()));
    }
}

async fn lock(
    store: &Arc<dyn Store>,
    wait: Duration,
    printer: Printer,
    of: fn(StoreError) -> Failure,
) -> Result<(Lease, Keeper), Failure> {
    let (holder, control) = (holder("norn state migrate")?, Control::default());
    let taken = lease::take(&**store, &holder, wait, &control, &mut tell_waiting(printer)).await;
    let (lease, taken) = taken.map_err(of)?.expect("nothing stops it");
    let keeper = Keeper::start(Arc::clone(store), lease.clone(), taken, control);
    Ok((lease, keeper))
}

/// What is wrong with the place that the state is to go to, which `--to` names.
fn there(error: StoreError) -> Failure {
    let what = match &error {
        StoreError::OtherScope { place, theirs, ours } => {
            format!("the state in {place} belongs to {theirs}, not to {ours}")
        }
        StoreError::Foreign { place, why } => format!("{place} is no state of norn: {why}"),
        StoreError::Moved { place, to } => {
            return Failure::new(format!("{place} has a state that was moved to {to}"))
                .help("remove what is left there, or name another place with --to");
        }
        StoreError::Newer { place, .. } => format!("{place} has a state that a newer norn wrote"),
        StoreError::Older { place, .. } => format!("{place} has a state already, of an older schema"),
        StoreError::ReadOnly { place, why, mend } => {
            return Failure::new(format!("the state in {place} cannot be written: {why}"))
                .help(format!("{mend}, or name another place with --to"));
        }
        StoreError::Locked { .. }
        | StoreError::LeaseLost { .. }
        | StoreError::NotEmpty { .. }
        | StoreError::Unreachable { .. }
        | StoreError::Full { .. }
        | StoreError::Broken { .. } => return store_failure(error),
    };
    Failure::new(what).help("name another place with --to")
}

fn in_the_way(InTheWay(path): InTheWay) -> Failure {
    Failure::new(format!("{} is there already, and belongs to no state", path.display()))
        .help("move it away, or name another place with --to")
}

fn shown(path: &Path) -> String {
    let here = std::env::current_dir().unwrap_or_default();
    let path: PathBuf = path.strip_prefix(&here).map_or_else(|_| path.to_owned(), Path::to_owned);
    path.display().to_string()
}
