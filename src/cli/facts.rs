//! Looking up what a plan needs: commits, local digests, what runs here.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::sync::{Arc, OnceLock};

use tokio::sync::Semaphore;
use tokio::task::JoinSet;

use super::args::Selection;
use super::clusters;
use super::engines;
use super::failure::Failure;
use super::project::{Project, store_failure};
use super::refresh;
use crate::address::{Address, Kind};
use crate::apply::{container, recovery, world};
use crate::desired::{App, Desired, GitRef, Source, Values};
use crate::plan::{Facts, Plan, Running, SourceFact, Step, Work, select};
use crate::provider::docker::address::Address as EngineAddress;
use crate::provider::docker::registry::Logins;
use crate::provider::docker::{Engine, EngineError};
use crate::provider::manifest::Asker;
use crate::provider::releases;
use crate::provider::source::{self, Git, GitError, local};
use crate::provider::supervise::client::{Home, Observation};
use crate::render::Printer;
use crate::spec::engine::Site;
use crate::spec::name::AppName;
use crate::state::format::{DeployV1, Host};
use crate::state::{Artifact, ArtifactKind, Deployment, Snapshot};

/// How many deployments back a rollback looks for migrations.
const MOST_ROWS: u32 = 1000;
/// How many look-ups go on at once.
const AT_ONCE: usize = 16;

/// What runs here of every app that the store or the spec knows. Nothing is left of what ran on the
/// `lost` machines.
///
/// # Errors
/// A cluster or an engine of another host that cannot be looked at. Under `offline` none is.
pub async fn running(
    project: &Project,
    stored: &Snapshot,
    desired: &Desired,
    lost: &[String],
    offline: bool,
) -> Result<BTreeMap<AppName, Running>, Failure> {
    let there = clusters::apps(stored, desired);
    let seen = observe(project.home(), stored, Some(desired), lost).await;
    let remote = engines::apps(stored, desired);
    let here = seen.iter().filter(|(name, _)| !there.contains_key(*name) && !remote.contains_key(*name));
    let mut running: BTreeMap<AppName, Running> =
        here.map(|(name, seen)| (name.clone(), state_of(seen))).collect();
    if !offline {
        let seen =
            clusters::look(&project.clusters, &project.scope, &desired.kubernetes, there, lost).await?;
        running.extend(seen.into_iter().map(|(name, seen)| (name, seen.running())));
        running.extend(engines::look(&project.scope, stored, desired, remote, lost).await?);
    }
    Ok(running)
}

/// What every supervisor says of itself.
pub async fn observe(
    home: Home,
    stored: &Snapshot,
    desired: Option<&Desired>,
    lost: &[String],
) -> BTreeMap<AppName, Observation> {
    let known = stored.resources.keys().filter(|a| a.kind == Kind::Forge).map(|address| address.name.clone());
    let wanted = desired.into_iter().flat_map(|desired| desired.apps.keys().cloned());
    let names: BTreeSet<AppName> = known.chain(wanted).collect();
    let present = home.present();
    let own = home.host();
    let mut hosts = recovery::hosts(stored);
    let home = Arc::new(home);
    let mut found = BTreeMap::new();
    let mut tasks = JoinSet::new();
    for name in names {
        // What runs on this machine is to be seen, whatever it is called.
        let lost = |host: &Host| host.machine != own.machine && lost.contains(&host.name);
        let host = hosts.remove(&name).filter(|host| !lost(host));
        if let Some(host) = host.as_ref().filter(|host| host.machine != own.machine) {
            found.insert(name, Observation::OtherMachine { who: host.to_string() });
            continue;
        }
        let there = host.filter(|host| host.folder != own.folder);
        if there.is_none() && present.as_ref().is_some_and(|present| !present.contains(name.as_str())) {
            found.insert(name, Observation::Absent);
            continue;
        }
        let home = Arc::clone(&home);
        tasks.spawn(async move {
            let seen = match there {
                Some(there) => home.observe_there_or_here(&name, &there).await,
                None => home.observe(&name).await,
            };
            (name, seen)
        });
        if tasks.len() >= AT_ONCE
            && let Some(Ok((name, seen))) = tasks.join_next().await
        {
            found.insert(name, seen);
        }
    }
    while let Some(Ok((name, seen))) = tasks.join_next().await {
        found.insert(name, seen);
    }
    found
}

/// What a plan needs of it.
pub fn state_of(seen: &Observation) -> Running {
    match seen {
        Observation::Absent => Running::Nothing,
        Observation::Rebooted => Running::Rebooted,
        Observation::Unsupervised { replicas } => Running::Unsupervised { replicas: replicas.len() },
        Observation::OtherMachine { who } => Running::Elsewhere { host: who.clone() },
        Observation::Silent { why } => Running::Silent { why: why.clone() },
        Observation::Running(status) => {
            let healthy = status.replicas.iter().filter(|replica| replica.healthy).count();
            Running::Serving {
                tag: status.release.as_ref().map(|release| release.tag.clone()),
                definition: status.definition.clone(),
                wanted: status.wanted,
                healthy: u32::try_from(healthy).unwrap_or(u32::MAX),
                reached: true,
                image: None,
            }
        }
    }
}

/// The version that each local source of a plan's deploys has now, or why it has none.
///
/// # Errors
/// Where there is no git.
pub async fn local_versions(
    project: &Project,
    desired: &Desired,
    plan: &Plan,
) -> Result<BTreeMap<AppName, Result<String, String>>, Failure> {
    let look = Look::new(project, desired, true).await?;
    let mut tasks = JoinSet::new();
    for operation in &plan.operations {
        let Work::Deploy(work) = &operation.work else { continue };
        if let (Source::Local { folder, ignore }, None) = (&work.source, &work.record_only) {
            let (look, name) = (Arc::clone(&look), operation.address.name.clone());
            let (folder, ignore) = (folder.clone(), ignore.clone());
            tasks.spawn(async move { (name, look.local(&folder, &ignore).await) });
        }
    }
    Ok(tasks.join_all().await.into_iter().collect())
}

/// The facts for a plan.
///
/// # Errors
/// Every source that could not be looked up, in one failure.
pub async fn gather(
    project: &Project,
    desired: &Desired,
    stored: &Snapshot,
    running: BTreeMap<AppName, Running>,
    lost: BTreeSet<AppName>,
    selection: &Selection,
) -> Result<Facts, Failure> {
    let offline = selection.offline;
    let look = Look::new(project, desired, offline).await?;
    let mut tasks = JoinSet::new();
    for app in desired.apps.values() {
        let (look, app) = (Arc::clone(&look), app.clone());
        let seen = last_seen(&app, stored);
        tasks.spawn(async move {
            let fact = look.source(&app, seen).await;
            (app.name, fact)
        });
    }
    let mut sources = BTreeMap::new();
    let mut failures = BTreeMap::new();
    let part = select::Selection::from(&selection.part);
    while let Some(joined) = tasks.join_next().await {
        let (name, fact) = joined.expect("looking up a source does not panic");
        match fact {
            Ok(fact) => {
                sources.insert(name, fact);
            }
            // An app that is left out keeps nobody from the others.
            Err(_) if !part.takes(&Address::deploy(&name)) => {}
            Err(why) => {
                failures.insert(name, why);
            }
        }
    }
    if !failures.is_empty() {
        let mut failure = Failure::new(match failures.len() {
            1 => "the source of an app cannot be looked up".to_owned(),
            n => format!("the sources of {n} apps cannot be looked up"),
        });
        failure.details = failures.iter().map(|(name, why)| format!("{name}: {why}")).collect();
        let remote = |name: &AppName| !matches!(desired.apps[name].source, Source::Local { .. });
        return Err(failure.help(if failures.keys().any(remote) {
            "nothing was changed; with --offline norn plans from what the state saw last"
        } else {
            "nothing was changed; check the `path` of the app in the spec"
        }));
    }
    let records = stored.resources.iter().filter(|(address, _)| address.kind == Kind::Deploy);
    let live = records.filter_map(|(address, record)| Some((&address.name, record.read::<DeployV1>()?)));
    // What is lost went with its engine.
    let live = live.filter(|(app, _)| !lost.contains(*app));
    let releases = releases(project, desired, stored, live, offline).await?;
    let fields = match selection.refresh {
        true => refresh::fields(&project.clusters, &project.scope, desired, stored, &running).await?,
        false => BTreeMap::new(),
    };
    Ok(Facts { sources, running, fields, lost, releases, ..Facts::default() })
}

/// What a rollback of an app needs: which of its releases are there, and what was done to its database.
///
/// # Errors
/// An engine that has to be asked and does not answer, and a state that cannot be read.
pub async fn to_go_back(
    project: &Project,
    desired: &Desired,
    stored: &Snapshot,
    app: &AppName,
) -> Result<Facts, Failure> {
    let of_app = |artifact: &&Artifact| artifact.app == *app && artifact.kind == ArtifactKind::Release;
    let kept = stored.artifacts.iter().filter(of_app);
    let kept = kept.filter_map(|kept| Some((&kept.app, kept.read::<DeployV1>()?)));
    let releases = releases(project, desired, stored, kept, false).await?;
    let rows = project.store.history(Some(app), MOST_ROWS).await.map_err(store_failure)?;
    let migrated = |row: &Deployment| {
        row.steps.iter().any(|log| log.step == Step::Migrate.as_str() && log.status != "skipped")
    };
    let migrated = rows.into_iter().filter(migrated).map(|row| row.id).collect();
    let names = std::fs::read_dir(&project.folders.snapshots).into_iter().flatten().flatten();
    let mut snapshots: Vec<String> =
        names.map(|entry| entry.file_name().to_string_lossy().into_owned()).collect();
    snapshots.sort();
    Ok(Facts { releases, migrated, snapshots, ..Facts::default() })
}

/// The tags of these releases that are there: the folder, and the image where it is one.
async fn releases(
    project: &Project,
    desired: &Desired,
    stored: &Snapshot,
    of: impl Iterator<Item = (&AppName, DeployV1)>,
    offline: bool,
) -> Result<BTreeSet<String>, Failure> {
    let mut there = BTreeSet::new();
    let mut engine = None;
    let remote = engines::recorded(stored);
    let host = EngineAddress::of(desired.docker.as_deref());
    for (app, release) in of {
        let dir = project.folders.stage.join(&release.folder);
        let image = match (&release.image, remote.contains_key(app)) {
            (Some(image), true) if !offline && Site::at(&host.host).elsewhere().is_some() => {
                Ok(image.clone())
            }
            (Some(_), _) => {
                // A cluster has it, or pulls it; or its engine is not asked.
                there.insert(release.tag);
                continue;
            }
            (None, _) if !release.is_image() => {
                if dir.is_dir() {
                    there.insert(release.tag);
                }
                continue;
            }
            (None, _) => container::image(&dir),
        };
        let Ok(image) = image else { continue };
        let engine = match &engine {
            Some(engine) => engine,
            None => engine.insert(Engine::connect(&host).await?),
        };
        if engine.has(&image).await? {
            there.insert(release.tag);
        }
    }
    Ok(there)
}

/// What deserves a word about local sources, before they are planned.
pub async fn warn_of_shallow(project: &Project, desired: &Desired, printer: Printer) -> Result<(), Failure> {
    let mut folders = desired.apps.values().filter_map(|app| match &app.source {
        Source::Local { folder, .. } => Some(project.root.folder.join(folder)),
        Source::Git { .. } | Source::Image { .. } => None,
    });
    // One repository holds the root file and all that is local.
    let Some(folder) = folders.find(|folder| folder.is_dir()) else { return Ok(()) };
    let failure = |error: GitError| Failure::new(error.to_string());
    let git = Git::new().await.map_err(failure)?;
    if local::shallow(&git, &folder).await.map_err(failure)? {
        printer.talk(
            "warning: this is a shallow clone, in which every commit seems to change every local app: fetch the whole history (GitHub: `fetch-depth: 0`, GitLab: `GIT_DEPTH: \"0\"`)",
        );
    }
    Ok(())
}

/// The commit that the store saw last for the very same reference.
fn last_seen(app: &App, stored: &Snapshot) -> Option<String> {
    let record = stored.resources.get(&Address::deploy(&app.name))?;
    let release: DeployV1 = record.read()?;
    (release.source == app.source).then_some(release.commit)
}

struct Look {
    git: Git,
    root: PathBuf,
    skip: Vec<PathBuf>,
    cache: PathBuf,
    slots: Semaphore,
    values: Values,
    /// Where the Docker engine is, and what opens registries.
    docker: EngineAddress,
    logins: Logins,
    registries: OnceLock<Asker>,
    offline: bool,
}

impl Look {
    async fn new(project: &Project, desired: &Desired, offline: bool) -> Result<Arc<Self>, Failure> {
        Ok(Arc::new(Self {
            git: Git::new().await.map_err(|error| Failure::new(error.to_string()))?,
            root: project.root.folder.clone(),
            skip: project.skip(),
            cache: std::env::temp_dir(),
            slots: Semaphore::new(AT_ONCE),
            values: desired.values.clone(),
            docker: EngineAddress::of(desired.docker.as_deref()),
            logins: Logins { own: desired.registry.clone() },
            registries: OnceLock::new(),
            offline,
        }))
    }

    /// The version of a folder, named from the root file's.
    async fn local(&self, folder: &str, ignore: &[String]) -> Result<String, String> {
        let _slot = self.slots.acquire().await.expect("the slots are never closed");
        let folder = self.root.join(folder);
        if !folder.is_dir() {
            return Err(format!("there is no folder {}", folder.display()));
        }
        if !releases::stays_inside(&self.root, folder.strip_prefix(&self.root).unwrap_or(&folder)) {
            return Err(format!("{} leaves the project by a link", folder.display()));
        }
        let skip = world::skipped(&self.skip, &folder, ignore);
        let version = local::version(&self.git, &folder, &skip).await;
        version.map(|version| version.to_string()).map_err(|error| error.to_string())
    }

    async fn by_engine(&self, image: &str) -> Result<String, EngineError> {
        Engine::connect(&self.docker).await?.digest(image, &self.logins).await
    }

    async fn source(&self, app: &App, seen: Option<String>) -> Result<SourceFact, String> {
        match &app.source {
            Source::Local { folder, ignore } => self.local(folder, ignore).await.map(SourceFact::Version),
            Source::Image { name } => {
                if self.offline {
                    return Ok(seen.map_or(SourceFact::NotLookedUp, SourceFact::LastSeen));
                }
                let _slot = self.slots.acquire().await.expect("the slots are never closed");
                let digest = if app.definition.runtime.is_kubernetes() {
                    let asker = self.registries.get_or_init(Asker::new);
                    asker.digest(name, &self.logins).await.map_err(|error| error.to_string())
                } else {
                    // The engine pulls it by its own settings: those tell what the name stands for.
                    self.by_engine(name).await.map_err(|error| error.to_string())
                };
                digest.map(SourceFact::Version)
            }
            Source::Git { url, reference, path } => {
                let _slot = self.slots.acquire().await.expect("the slots are never closed");
                let exact = reference.as_str().len() == 40
                    && matches!(reference, GitRef::Any(name) if name.bytes().all(|b| b.is_ascii_hexdigit()));
                if self.offline && !exact {
                    return Ok(seen.map_or(SourceFact::NotLookedUp, SourceFact::LastSeen));
                }
                let name = match reference {
                    GitRef::Branch(name) => format!("refs/heads/{name}"),
                    GitRef::Any(name) => name.clone(),
                };
                let url = self.values.url(&app.name, url);
                let repo = world::repo(&self.root, url, Some(&name), path.as_deref());
                let commit = source::resolve(&self.git, &repo, &self.cache).await;
                commit
                    .map(|commit| SourceFact::Version(commit.to_string()))
                    .map_err(|error| error.to_string())
            }
        }
    }
}
