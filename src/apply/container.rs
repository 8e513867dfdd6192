//! Releases that are images: building them, and what runs in them.
//!
//! The folder of such a release holds one file, which names the image by its content. Everything
//! else about the folder is as for other releases: an attempt, a whole one, what is swept.
//! Elsewhere: the engine (`provider::docker`), the folder (`deploy`).

use std::collections::BTreeMap;
use std::fs::File;
use std::io;
use std::path::Path;
use std::time::Duration;

use super::command;
use super::events::StepError;
use super::files::{blocking, folder_error};
use super::journal::{Done, InStep};
use super::world::World;
use crate::desired::{self, Definition, ImageBuild, Registry, Source, Volume};
use crate::failpoint;
use crate::provider::child::output::Writer;
use crate::provider::docker::context::Context;
use crate::provider::docker::hold::{Hold, Look};
use crate::provider::docker::image::Recipe;
use crate::provider::docker::{Engine, EngineError, Labels};
use crate::provider::releases;
use crate::provider::supervise::protocol::Command;
use crate::spec::name::AppName;
use crate::state::Scope;

/// The file of a release's folder that names its image.
const FILE: &str = "image";
/// How long a replica may take to end after SIGTERM. Its supervisor waits 10 s, of which a busy engine
/// needs some to end and remove the container: a holder that is killed first leaves it behind.
const REPLICA: Duration = Duration::from_secs(5);
/// How long a test or a migration may take to end when it is cancelled; its guard waits longer.
const ONE_OFF: Duration = Duration::from_secs(4);

/// The image that a release's folder names.
pub fn image(dir: &Path) -> io::Result<String> {
    Ok(std::fs::read_to_string(dir.join(FILE))?.trim().to_owned())
}

impl From<EngineError> for StepError {
    fn from(error: EngineError) -> Self {
        Self::new(error.to_string())
    }
}

impl World {
    /// The engine of this stage.
    pub async fn engine(&self) -> Result<Engine, StepError> {
        Ok(Engine::connect(&self.docker).await?)
    }

    pub fn labels(&self, app: &AppName) -> Labels {
        Labels::new(&self.scope, app).of_store(&self.store)
    }

    /// The name of an app's images, without their tags, such as `shop-prod/web`.
    fn repository(&self, app: &AppName) -> String {
        let stage = self.scope.stage.as_ref().map(|stage| format!("-{stage}")).unwrap_or_default();
        format!("{}{stage}/{app}", self.scope.project)
    }

    /// The command that holds a replica of an app in its image. `operation` is the roll that starts it.
    pub fn replica(
        &self,
        app: &AppName,
        definition: &Definition,
        dir: &Path,
        operation: &str,
    ) -> Result<Command, StepError> {
        let image = image(dir).map_err(|error| folder_error(&dir.join(FILE), &error))?;
        Ok(Command::Exec(self.container(app, definition, image, operation).command_line()))
    }

    /// The container of a replica.
    pub fn container(&self, app: &AppName, definition: &Definition, image: String, operation: &str) -> Hold {
        let hold = self.hold(app, definition, image, operation);
        let hold = Hold { command: definition.command.clone(), port: definition.port, ..hold };
        self.with_volumes(app, definition, hold)
    }

    /// The command that runs another in the container of the replica that probes itself with it.
    pub fn look(&self, app: &AppName, operation: &str, line: &str) -> Vec<String> {
        let labels = self.labels(app).and("operation", operation);
        Look { engine: self.docker.clone(), labels: labels.into(), line: line.to_owned() }.command_line()
    }

    /// The container with the app's volumes, and the variables that name them.
    fn with_volumes(&self, app: &AppName, definition: &Definition, mut hold: Hold) -> Hold {
        hold.env.extend(definition.volumes.iter().map(Volume::variable));
        Hold { mounts: self.mounts(app, definition), ..hold }
    }

    fn hold(&self, app: &AppName, definition: &Definition, image: String, operation: &str) -> Hold {
        let own = definition.env.keys().chain(&definition.secrets);
        Hold {
            engine: self.docker.clone(),
            image,
            labels: self.labels(app).and("operation", operation).into(),
            env: own.cloned().collect(),
            hosts: definition.referred().map(|app| app.to_string()).collect(),
            command: None,
            mounts: Vec::new(),
            port: None,
            memory: definition.resources.memory,
            cpu: definition.resources.cpu,
            grace: REPLICA,
        }
    }
}

/// An image that is made of an app's code, or pulled.
pub struct Making<'a> {
    pub app: &'a AppName,
    pub commit: &'a str,
    pub definition: &'a Definition,
    pub source: &'a Source,
    /// Absent where it is pulled.
    pub build: Option<&'a ImageBuild>,
    /// The folder in which the release is made, and the app's part of it.
    pub workshop: &'a Path,
    pub inside: &'a Path,
}

/// What a command in an image is given besides the app's environment.
pub enum Sees<'a> {
    /// Nothing.
    Image,
    /// The app's volumes, and these variables.
    Volumes(&'a BTreeMap<String, String>),
}

impl Making<'_> {
    /// Builds the image of the code in the workshop, which has no other use; or pulls it.
    pub async fn make(&self, step: &InStep) -> Result<Done, StepError> {
        let world = &step.run.world;
        let engine = world.engine().await?;
        let log = command::log(step)?;
        let file = File::create(&log).map_err(|error| folder_error(&log, &error))?;
        let mut writer = Writer::new(file, &log, &world.scrub);
        let mut told = |line: &str| step.output(line);
        // A log that cannot be written is no reason to give a build up.
        let on_line = |line: &str| drop(writer.push(format!("{line}\n").as_bytes(), &mut told));
        let talk = |act: &str| failpoint::talk(act, Path::new(self.app.as_str()));
        talk("make an image for").map_err(|error| StepError::new(error.to_string()))?;
        let made = tokio::select! {
            made = self.made(step, &engine, on_line) => made,
            () = step.run.control.cancelled() => return Err(StepError::new("cancelled")),
        };
        let output = writer.finish(&mut told).unwrap_or_default();
        let id = made.map_err(|error| {
            let error = command::with_last_words(error, output.clone());
            if output.is_empty() { error } else { error.help(command::whole_output(&log)) }
        })?;
        talk("made an image for").map_err(|error| StepError::new(error.to_string()))?;
        let (workshop, inside, named) = (self.workshop.to_owned(), self.inside.to_owned(), id.clone());
        let kept = blocking(move || {
            if workshop.exists() {
                std::fs::remove_dir_all(&workshop)?;
            }
            std::fs::create_dir_all(&inside)?;
            std::fs::write(inside.join(FILE), format!("{named}\n"))
        });
        kept.await.map_err(|error| folder_error(self.workshop, &error))?;
        Ok(Done { note: short(&id), output, ..Done::default() })
    }

    /// The id of the image.
    async fn made(
        &self,
        step: &InStep,
        engine: &Engine,
        on_line: impl FnMut(&str),
    ) -> Result<String, StepError> {
        let world = &step.run.world;
        let build = match (self.source, self.build) {
            (Source::Image { name }, _) => {
                return Ok(engine.pull(name, self.commit, &world.logins, on_line).await?);
            }
            (Source::Local { .. } | Source::Git { .. }, build) => build.expect("code has a build"),
        };
        let folder = self.inside.join(&build.context);
        let context = Context::open(&folder, &build.dockerfile).map_err(EngineError::Context)?;
        if !releases::stays_inside(self.inside, Path::new(&build.context)) {
            return Err(StepError::new(format!(
                "`build.context` {} leaves the code by a link",
                build.context
            )));
        }
        let labels = world.labels(self.app).and("commit", self.commit).and("operation", &step.id);
        let recipe = Recipe { context, target: build.target.as_deref(), args: &build.args, labels: &labels };
        Ok(engine.build(recipe, on_line).await?)
    }

    /// Runs a command of the spec in the image.
    pub async fn run(
        &self,
        step: &InStep,
        dir: &Path,
        line: &str,
        sees: Sees<'_>,
    ) -> Result<Done, StepError> {
        let world = &step.run.world;
        let image = image(dir).map_err(|error| folder_error(&dir.join(FILE), &error))?;
        let hold = world.hold(self.app, self.definition, image, &step.id);
        let hold = Hold { command: Some(desired::Command::Shell(line.to_owned())), grace: ONE_OFF, ..hold };
        let (hold, env) = match sees {
            Sees::Image => (hold, world.env(self.app, self.definition)),
            Sees::Volumes(more) => {
                let mut hold = world.with_volumes(self.app, self.definition, hold);
                hold.env.extend(more.keys().cloned());
                let mut env = world.env_with_volumes(self.app, self.definition)?;
                env.extend(more.clone());
                (hold, env)
            }
        };
        let output = command::run(step, &Command::Exec(hold.command_line()), line, dir, &env).await?;
        Ok(Done { output, ..Done::default() })
    }

    /// Gives the image the release's name in the engine: `shop-prod/web:4385c4627574`.
    pub async fn name(&self, world: &World, tag: &str) -> Result<(), StepError> {
        let image = image(self.inside).map_err(|error| folder_error(&self.inside.join(FILE), &error))?;
        let tag = tag.rsplit_once(':').map_or(tag, |(_, tag)| tag);
        Ok(world.engine().await?.name(&image, &world.repository(self.app), tag).await?)
    }
}

/// Takes the image of a release to the registry of the spec, and gives its name and digest there.
pub async fn push(step: &InStep, app: &AppName, tag: &str, dir: &Path) -> Result<String, StepError> {
    let world = &step.run.world;
    let image = image(dir).map_err(|error| folder_error(&dir.join(FILE), &error))?;
    let registry = world.logins.own.as_ref().ok_or_else(|| {
        StepError::new("there is no registry that the cluster could pull the image from")
            .help("name one with `registry.url`")
    })?;
    let (repository, tag) = pushed_as(registry, &world.scope, app, tag);
    let talk = |act: &str| failpoint::talk(act, Path::new(app.as_str()));
    talk("push the image of").map_err(|error| StepError::new(error.to_string()))?;
    let engine = world.engine().await?;
    let pushed = tokio::select! {
        pushed = engine.push(&image, &repository, &tag, &world.logins, |line| step.output(line)) => pushed,
        () = step.run.control.cancelled() => return Err(StepError::new("cancelled")),
    };
    let pushed = pushed?;
    talk("pushed the image of").map_err(|error| StepError::new(error.to_string()))?;
    Ok(pushed)
}

/// The name and the tag that the image of a release gets in the registry of the spec.
pub fn pushed_as(registry: &Registry, scope: &Scope, app: &AppName, tag: &str) -> (String, String) {
    let stage = scope.stage.as_ref().map(|stage| format!("{stage}-")).unwrap_or_default();
    let tag = tag.rsplit_once(':').map_or(tag, |(_, tag)| tag);
    (format!("{}/{app}", registry.url), format!("{stage}{tag}"))
}

/// Removes what attempts at an app's images left in the engine: containers whose holders are dead, and
/// images that have no name. One that is in use stays.
pub async fn sweep(world: &World, app: &AppName) -> Result<(), StepError> {
    let engine = world.engine().await?;
    let labels = world.labels(app);
    engine.sweep(&labels).await?;
    for image in engine.images(&labels).await? {
        if image.names.is_empty() {
            engine.remove_image(&image.id).await?;
        }
    }
    Ok(())
}

/// Removes what a deploy that came to nothing left in the engine, and the image that proved unfit.
pub async fn give_up(world: &World, app: &AppName, unfit: Option<&str>) -> Result<(), StepError> {
    if let Some(image) = unfit {
        world.engine().await?.remove_image(image).await?;
    }
    sweep(world, app).await
}

/// Removes all of an app that the engine has, but for its volumes, and the images of these folders of
/// releases.
pub async fn remove(world: &World, app: &AppName, spares: &[String]) -> Result<(), StepError> {
    let spared: Vec<String> =
        spares.iter().filter_map(|folder| image(&world.folders.stage.join(folder)).ok()).collect();
    let engine = world.engine().await?;
    let labels = world.labels(app);
    engine.sweep(&labels).await?;
    for image in engine.images(&labels).await? {
        if !spared.contains(&image.id) {
            engine.remove_image(&image.id).await?;
        }
    }
    // What was pulled has no label of ours, and may serve others.
    if spared.is_empty() {
        engine.unname(&world.repository(app), &world.store).await?;
    }
    Ok(())
}

/// `sha256:` and so much of an image's id as tells it from others.
fn short(id: &str) -> String {
    id.chars().take("sha256:".len() + 12).collect()
}
