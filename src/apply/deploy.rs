//! One deploy: clone, build, test, snapshot, migrate, deploy, cleanup.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use serde_json::json;
use tokio::sync::OnceCell;
use uuid::Uuid;

use super::Run;
use super::cluster::Pods;
use super::command;
use super::container::{self, Making, Sees};
use super::events::StepError;
use super::files::{blocking, folder_error};
use super::forge::{self, LiveRoll};
use super::journal::{Done, InStep, Journal, Row};
use super::leavings::{Leavings, inner, recipe};
use super::reached::reached;
use super::remote::{self, Remote};
use super::snapshot;
use super::walk::{Gate, Stopped};
use super::world;
use crate::address::Address;
use crate::desired::{Runtime, Source};
use crate::plan::{DeployWork, Operation, Step};
use crate::provider::docker::registry;
use crate::provider::source::{self, local};
use crate::provider::supervise::client::Observation;
use crate::provider::{machine, releases};
use crate::spec::name::AppName;
use crate::state::format::{self, DeployV1, ForgeV1};
use crate::state::{Change, DeploymentStatus};

/// What a step says that an interrupted attempt has done.
const REUSED: &str = "an interrupted attempt did this, and its release is whole";

/// Does one deploy, and says where the app is reached.
pub async fn deploy(
    run: &Arc<Run>,
    operation: &Operation,
    gate: &Gate,
    work: &DeployWork,
) -> Result<Option<String>, Stopped> {
    let app = &operation.address.name;
    let row = Uuid::now_v7().to_string();
    let mut deploying = Deploying::new(run, app, work, &row);
    let queued = Change::DeploymentQueued {
        id: row.clone(),
        app: app.clone(),
        commit_sha: work.commit.clone(),
        image_tag: work.tag.clone(),
    };
    let leaves = work.back.as_ref().and_then(|back| back.leaves.as_ref());
    let intent = json!({ "forge": deploying.forge, "deploy": deploying.release, "leaves": leaves });
    let journal =
        Journal::open(run, operation, gate, Row::Deployment { id: row }, intent, vec![queued]).await?;
    deploying.must_be_there().await;
    let result = deploying.steps(&journal).await;
    if let Err(stopped) = result {
        deploying.abandon(&stopped).await;
        return Err(stopped);
    }
    let mut with = Vec::new();
    if work.record_only.is_some() {
        with.extend(deploying.live());
        // Where this fails the word is removed with the next attempt's.
        let _ = releases::forget_attempt(&deploying.folder);
        if work.definition.engine.is_some() {
            let _ = remote::tidy(deploying.app, run).await;
        }
    }
    journal.close(with).await?;
    Ok(reached(&work.definition))
}

struct Deploying<'a> {
    run: &'a Arc<Run>,
    app: &'a AppName,
    work: &'a DeployWork,
    /// Where the release is made.
    workshop: PathBuf,
    /// Where it is kept, whole.
    folder: PathBuf,
    /// The records that become current with the release.
    forge: ForgeV1,
    release: DeployV1,
    /// What the release is made of: an interrupted attempt at the same is taken up.
    recipe: String,
    /// Whether such an attempt's release is there, whole.
    made: bool,
    /// The image by its digest, once it is where a cluster pulls it.
    image: OnceCell<String>,
}

impl<'a> Deploying<'a> {
    fn new(run: &'a Arc<Run>, app: &'a AppName, work: &'a DeployWork, row: &str) -> Self {
        let folders = &run.world.folders;
        let name = work.tag.rsplit(':').next().unwrap_or(&work.tag);
        let all = folders.releases(app);
        let release = match work.made() {
            Some(release) => DeployV1 { deployment: row.to_owned(), ..release.clone() },
            None => {
                let inner = match &work.source {
                    Source::Git { path: Some(path), .. } => Path::new(name).join(path),
                    Source::Git { path: None, .. } | Source::Local { .. } | Source::Image { .. } => {
                        PathBuf::from(name)
                    }
                };
                DeployV1 {
                    version: 1,
                    commit: work.commit.clone(),
                    tag: work.tag.clone(),
                    source: work.source.clone(),
                    build: work.build.clone(),
                    folder: format!("releases/{app}/{}", inner.display()),
                    deployment: row.to_owned(),
                    image: None,
                }
            }
        };
        let forge = forge::stored(run, app, &work.definition, work.protected, work.route.clone());
        let recipe = recipe(work, &forge);
        // One that is gone back to may have been made under a former name.
        let folder = match &work.back {
            Some(back) => releases::root(&folders.stage, &back.release.folder),
            None => all.join(name),
        };
        let made = work.made().is_none() && releases::made(&folder).as_ref() == Some(&recipe);
        Self {
            run,
            app,
            work,
            workshop: releases::workshop(&all, name),
            folder,
            forge,
            release,
            recipe,
            made,
            image: OnceCell::new(),
        }
    }

    /// A release that is an image is whole only where the engine has the image.
    async fn must_be_there(&mut self) {
        if self.made && self.release.is_image() {
            let (image, engine) = (container::image(&self.dir()), self.run.world.engine().await);
            self.made = match (image, engine) {
                (Ok(image), Ok(engine)) => engine.has(&image).await.unwrap_or_default(),
                _ => false,
            };
        }
    }

    async fn steps(&self, journal: &Journal<'_>) -> Result<(), Stopped> {
        journal.step(Step::Clone, |step| self.fetch(step)).await?;
        journal.step(Step::Build, |step| self.build(step)).await?;
        journal.step(Step::Test, |step| self.test(step)).await?;
        if self.work.made().is_none()
            && !self.made
            && !self.pulled_there()
            && let Err(error) = self.finish().await
        {
            return Err(journal.fail(Step::Build, error).await);
        }
        let database = self.work.snapshot.as_deref();
        let snapshot = async |step| {
            let database = database.expect("the step is skipped without a database");
            snapshot::take(&step, self.app, database, &self.work.commit).await
        };
        journal.step(Step::Snapshot, snapshot).await?;
        journal.step(Step::Migrate, |step| self.migrate(step)).await?;
        journal.step(Step::Deploy, |step| self.roll(step)).await?;
        journal.step(Step::Cleanup, |step| self.cleanup(step)).await
    }

    /// Gives what was built and tested the release's name.
    async fn finish(&self) -> Result<(), StepError> {
        if self.folder.exists() && self.serves().await {
            return Err(StepError::new(format!(
                "{} is in use, so it is not replaced",
                self.folder.display()
            )));
        }
        let inside = self.inside();
        if let Some(making) = self.making(&inside) {
            making.name(&self.run.world, &self.release.tag).await?;
        }
        let (workshop, folder, recipe) = (self.workshop.clone(), self.folder.clone(), self.recipe.clone());
        blocking(move || releases::finish(&workshop, &folder, &recipe))
            .await
            .map_err(|error| folder_error(&self.folder, &error))
    }

    /// How the release is made, where it is an image; `inside` is the app's folder in the workshop.
    fn making<'b>(&'b self, inside: &'b Path) -> Option<Making<'b>> {
        let work = self.work;
        self.release.is_image().then_some(Making {
            app: self.app,
            commit: &work.commit,
            definition: &work.definition,
            source: &work.source,
            build: work.build.image.as_ref(),
            workshop: &self.workshop,
            inside,
        })
    }

    /// The app's folder in the workshop.
    fn inside(&self) -> PathBuf {
        self.workshop.join(inner(&self.work.source))
    }

    /// The app's folder in the release.
    fn dir(&self) -> PathBuf {
        self.run.world.folders.stage.join(&self.release.folder)
    }

    /// Makes the folders that a release is made in, and removes what earlier attempts left there.
    async fn prepare(&self) -> Result<(), StepError> {
        let folders = &self.run.world.folders;
        let (releases, cache) = (folders.releases(self.app), folders.cache(self.app));
        let (cached, inner) = (self.work.build.cache.clone(), inner(&self.work.source));
        let prepared = blocking({
            let releases = releases.clone();
            move || {
                releases::private_folder(&releases)?;
                releases::private_folder(&cache)?;
                releases::sweep(&releases, &cache, &cached, &inner)
            }
        });
        prepared.await.map_err(|error| folder_error(&releases, &error)).map(drop)
    }

    async fn fetch(&self, step: InStep) -> Result<Done, StepError> {
        let world = &self.run.world;
        if self.made {
            return Ok(Done::said(REUSED));
        }
        self.prepare().await?;
        match &self.work.source {
            Source::Local { folder, ignore } => {
                let from = world.root.join(folder);
                let skip = world::skipped(&world.skip, &from, ignore);
                let version = tokio::select! {
                    version = local::copy(&world.git, &from, &skip, &self.workshop) => version,
                    () = self.run.control.cancelled() => return Err(StepError::new("cancelled")),
                };
                let version = version.map_err(|error| StepError::new(error.to_string()))?.to_string();
                if version != self.work.commit {
                    return Err(StepError::new(format!(
                        "{} changed since the plan: it is {version}, planned was {}",
                        from.display(),
                        self.work.commit
                    ))
                    .help(
                        "plan again; a build that writes into its own source belongs under `build.ignore`",
                    ));
                }
                Ok(Done::said(format!("copied {folder} at {version}")))
            }
            Source::Image { .. } => Ok(Done::said("an image has no code")),
            Source::Git { url, reference, path } => {
                let repo = world.repo(self.app, url, Some(reference.as_str()), path.as_deref());
                let commit = self.work.commit.parse().expect("the plan holds a full commit");
                let log = command::log(&step)?;
                let leash = command::leash(self.run);
                let mut on_line = |line: &str| step.output(line);
                let cloned =
                    source::clone(&world.git, &repo, &commit, &self.workshop, &leash, &log, &mut on_line);
                cloned.await.map_err(|error| StepError::new(error.to_string()))?;
                let shown = world.scrub.text(url).into_owned();
                Ok(Done::said(format!("cloned {shown} ({}) at {commit}", reference.as_str())))
            }
        }
    }

    async fn build(&self, step: InStep) -> Result<Done, StepError> {
        if self.made {
            return Ok(Done::said(REUSED));
        }
        let inside = self.inside();
        if let Some(making) = self.making(&inside) {
            if matches!(self.work.source, Source::Image { .. }) {
                self.prepare().await?;
            }
            return making.make(&step).await;
        }
        let command = self.work.build.command.as_deref().expect("the step is skipped without a command");
        let cached = &self.work.build.cache;
        let (dir, cache) = (self.inside(), self.run.world.folders.cache(self.app));
        releases::lend(&cache, &dir, cached).map_err(|error| folder_error(&dir, &error))?;
        let env = self.run.world.env(self.app, &self.work.definition);
        let done = command::shell(&step, command, &dir, &env).await?;
        releases::keep_copy(&dir, &cache, cached).await.map_err(|error| folder_error(&cache, &error))?;
        Ok(done)
    }

    async fn test(&self, step: InStep) -> Result<Done, StepError> {
        let command = self.work.build.test.as_deref().expect("the step is skipped without a command");
        if self.made {
            return Ok(Done::said(REUSED));
        }
        let inside = self.inside();
        if let Some(making) = self.making(&inside) {
            return making.run(&step, &inside, command, Sees::Image).await;
        }
        let env = self.run.world.env(self.app, &self.work.definition);
        command::shell(&step, command, &inside, &env).await
    }

    async fn migrate(&self, step: InStep) -> Result<Done, StepError> {
        let world = &self.run.world;
        let command = self.work.migrate.as_deref().expect("the step is skipped without a command");
        if self.work.definition.runtime.is_kubernetes() {
            let release = self.pinned(&step).await?;
            return Pods::new(&self.live_roll(&release), &step).await?.job(command).await;
        }
        let mut env = world.env_with_volumes(self.app, &self.work.definition)?;
        let own = world.postgres.is_some() || env.contains_key("DATABASE_URL");
        let postgres = if own { BTreeMap::new() } else { world.environment.postgres.clone() };
        let (dir, inside) = (self.dir(), self.inside());
        if let Some(making) = self.making(&inside) {
            return making.run(&step, &dir, command, Sees::Volumes(&postgres)).await;
        }
        env.extend(postgres);
        command::shell(&step, command, &dir, &env).await
    }

    async fn roll(&self, step: InStep) -> Result<Done, StepError> {
        if self.work.definition.runtime.is_kubernetes() {
            let release = self.pinned(&step).await?;
            let mut done = Pods::new(&self.live_roll(&release), &step).await?.put_live().await?;
            let _ = releases::forget_attempt(&self.folder);
            done.changes.extend(self.live());
            return Ok(done);
        }
        if self.work.definition.engine.is_some() {
            let release = self.named()?;
            let live = self.live_roll(&release);
            let mut done = Remote::new(&live, &step).await?.put(true).await?;
            let _ = releases::forget_attempt(&self.folder);
            done.changes.extend(self.live());
            return Ok(done);
        }
        let dir = self.dir();
        if !dir.is_dir() || !dir.starts_with(&self.folder) {
            return Err(StepError::new(format!("the release's folder {} is not there", dir.display())));
        }
        let mut done = self.live_roll(&self.release).put(&step).await?;
        // What serves is current, whatever becomes of this word; the cleanup tries again.
        let _ = releases::forget_attempt(&self.folder);
        done.changes.extend(self.live());
        Ok(done)
    }

    fn live_roll<'b>(&'b self, release: &'b DeployV1) -> LiveRoll<'b> {
        LiveRoll {
            app: self.app,
            forge: &self.forge,
            release,
            definition: &self.work.definition,
            rollout: self.work.rollout,
            former: self.work.former.as_ref(),
            adopt: self.work.adopt,
            force: self.work.force,
        }
    }

    /// Whether the engine of this machine has images of the app.
    fn has_images(&self) -> bool {
        self.work.definition.runtime != Runtime::Process && !self.pulled_there()
    }

    /// Whether the cluster pulls the image, and nothing here has a use for it.
    fn pulled_there(&self) -> bool {
        let pulled = matches!(self.work.source, Source::Image { .. });
        self.work.definition.runtime.is_kubernetes() && pulled && self.work.build.test.is_none()
    }

    /// The release with its image where the cluster pulls it.
    async fn pinned(&self, step: &InStep) -> Result<DeployV1, StepError> {
        if self.work.back.is_some() && self.release.image.is_some() {
            return Ok(self.release.clone());
        }
        let pin = async || match &self.work.source {
            Source::Image { name } => Ok(format!("{}@{}", registry::repository(name), self.work.commit)),
            Source::Local { .. } | Source::Git { .. } => {
                let dir = self.dir();
                container::push(step, self.app, &self.release.tag, &dir).await
            }
        };
        let image = self.image.get_or_try_init(pin).await?.clone();
        Ok(DeployV1 { image: Some(image), ..self.release.clone() })
    }

    /// The release with its image as the engine of another host has it: no folder here is needed later.
    fn named(&self) -> Result<DeployV1, StepError> {
        if self.work.back.is_some() && self.release.image.is_some() {
            return Ok(self.release.clone());
        }
        let dir = self.dir();
        let image = container::image(&dir).map_err(|error| folder_error(&dir, &error))?;
        let _ = self.image.set(image.clone());
        Ok(DeployV1 { image: Some(image), ..self.release.clone() })
    }

    /// What becomes true once the release serves.
    fn live(&self) -> Vec<Change> {
        let image = self.image.get().or(self.release.image.as_ref()).cloned();
        let release = DeployV1 { image, ..self.release.clone() };
        let record = |address, record| Change::RecordPut { address, record };
        let deployed = format::record(&release, self.work.protected);
        let more = match &self.work.back {
            // It is kept since it was made.
            Some(back) => back.leaves.clone().map(|id| Change::DeploymentStatus {
                id,
                status: DeploymentStatus::RolledBack,
                error: String::new(),
            }),
            None => Some(format::kept(self.app, &release, &deployed)),
        };
        let forged = format::record(&self.forge, self.work.protected);
        let live = [record(Address::forge(self.app), forged), record(Address::deploy(self.app), deployed)];
        live.into_iter().chain(more).collect()
    }

    async fn cleanup(&self, _: InStep) -> Result<Done, StepError> {
        let folders = &self.run.world.folders;
        let left = Leavings::new(folders, self.app, Some((&self.work.source, &self.work.build)));
        let (all, left, own) =
            (folders.releases(self.app), left.keep([self.folder.clone()]), self.folder.clone());
        let swept = blocking(move || {
            releases::forget_attempt(&own)?;
            left.sweep()
        });
        let swept = swept.await.map_err(|error| folder_error(&all, &error))?;
        if self.has_images() {
            container::sweep(&self.run.world, self.app).await?;
        }
        let said = if swept == 0 { "nothing was left" } else { "removed what earlier attempts left" };
        Ok(Done::said(said))
    }

    /// Gives back what an attempt borrowed that came to nothing. A finished release stays, for the
    /// next run to take up, unless it proved unfit. What cannot be removed now is swept by the next.
    async fn abandon(&self, stopped: &Stopped) {
        // Another run may be at work in the same folders; a release that is gone back to was borrowed.
        if self.run.control.lost() || self.work.back.is_some() {
            return;
        }
        let failed = match stopped {
            Stopped::Failed { step: Some(Step::Migrate | Step::Deploy), error } => !error.open,
            Stopped::Failed { .. } | Stopped::NotStarted { .. } | Stopped::Cancelled => false,
        };
        let unfit = failed && self.work.record_only.is_none() && !self.serves().await;
        let image = if unfit { container::image(&self.dir()).ok() } else { None };
        let (inside, workshop, folder) = (self.inside(), self.workshop.clone(), self.folder.clone());
        let (cache, cached) = (self.run.world.folders.cache(self.app), self.work.build.cache.clone());
        let given_up = blocking(move || {
            releases::put_back(&inside, &cache, &cached)?;
            if workshop.exists() {
                std::fs::remove_dir_all(&workshop)?;
            }
            if unfit && !machine::works_in(&folder) { releases::remove_attempt(&folder) } else { Ok(()) }
        });
        let _ = given_up.await;
        if self.has_images() {
            let image = image.filter(|_| !self.folder.exists());
            let _ = container::give_up(&self.run.world, self.app, image.as_deref()).await;
        }
    }

    /// Whether the release's folder may be in use, by the supervisor's own word.
    async fn serves(&self) -> bool {
        match self.run.world.home.observe(self.app).await {
            Observation::Running(status) => {
                status.release.is_some_and(|release| release.dir.starts_with(&self.folder))
            }
            Observation::Absent | Observation::Rebooted | Observation::Unsupervised { .. } => false,
            Observation::OtherMachine { .. } | Observation::Silent { .. } => true,
        }
    }
}
