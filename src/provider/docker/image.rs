//! Images: built from code, named, looked up.

use std::collections::{BTreeMap, HashMap};
use std::time::Duration;

use bollard::body_try_stream;
use bollard::errors::Error;
use bollard::models::{BuildInfo, BuildInfoAux, ImageInspect};
use bollard::query_parameters::{
    BuildImageOptionsBuilder, BuilderVersion, ListImagesOptionsBuilder, RemoveImageOptions,
    TagImageOptionsBuilder,
};
use futures_util::StreamExt;
use uuid::Uuid;

use super::context::Context;
use super::{Engine, EngineError, Labels};
use crate::provider::labels::STORE;

/// How long it may take until the engine has what it builds from.
const CONTEXT: Duration = Duration::from_secs(3600);

/// What an image is made of, and how.
#[derive(Debug)]
pub struct Recipe<'a> {
    pub context: Context,
    pub target: Option<&'a str>,
    pub args: &'a BTreeMap<String, String>,
    pub labels: &'a Labels,
}

impl Engine {
    /// Builds an image and returns its id, `sha256:...`. Each line of the build is told as it comes.
    ///
    /// # Errors
    /// What the build said last, or why there was none.
    pub async fn build(
        &self,
        recipe: Recipe<'_>,
        mut on_line: impl FnMut(&str),
    ) -> Result<String, EngineError> {
        let args: HashMap<String, String> = recipe.args.clone().into_iter().collect();
        let mut options = BuildImageOptionsBuilder::new()
            .dockerfile(&recipe.context.dockerfile)
            .labels(&recipe.labels.map())
            .buildargs(&args)
            .rm(true)
            .forcerm(true);
        if let Some(target) = recipe.target {
            options = options.target(target);
        }
        if self.has_buildkit().await {
            options = options.version(BuilderVersion::BuilderBuildKit).session(&Uuid::new_v4().to_string());
        }
        let failed = |error: &Error| self.failed("build the image", error);
        // The classic builder says nothing until it has the whole context.
        let docker = self.docker.clone().with_timeout(CONTEXT);
        let mut said =
            docker.build_image(options.build(), None, Some(body_try_stream(recipe.context.archive())));
        let (mut id, mut lines) = (None, Lines::default());
        while let Some(info) = said.next().await {
            let info = info.map_err(|error| {
                lines.finish(&mut on_line);
                failed(&error)
            })?;
            lines.take(&info, &mut on_line);
            if let Some(BuildInfoAux::Default(image)) = info.aux {
                id = image.id;
            }
        }
        lines.finish(&mut on_line);
        id.ok_or_else(|| EngineError::Refused {
            doing: "build the image".into(),
            why: "it named none".into(),
        })
    }

    /// Whether the engine can build with BuildKit: Docker's own can from its API 1.39 on.
    async fn has_buildkit(&self) -> bool {
        let Ok(version) = self.docker.version().await else { return false };
        let docker = version.components.iter().flatten().any(|component| component.name == "Engine");
        let number = |text: String| text.strip_prefix("1.")?.parse::<u32>().ok();
        docker && version.api_version.and_then(number).is_some_and(|minor| minor >= 39)
    }

    /// Gives an image a name.
    pub async fn name(&self, id: &str, repository: &str, tag: &str) -> Result<(), EngineError> {
        let (options, name) =
            (TagImageOptionsBuilder::new().repo(repository).tag(tag).build(), format!("{repository}:{tag}"));
        self.talk("give the image the name", &name)?;
        let named = self.docker.tag_image(id, Some(options)).await;
        named.map_err(|error| self.failed("name the image", &error))?;
        self.talk("gave the image the name", &name)
    }

    /// The ids of the images with these labels; all of norn's where there are none.
    pub async fn images(&self, labels: &Labels) -> Result<Vec<Image>, EngineError> {
        let options = ListImagesOptionsBuilder::new().all(false).filters(&labels.filter()).build();
        let found = self.docker.list_images(Some(options)).await;
        let found = found.map_err(|error| self.failed("list its images", &error))?;
        let image = |summary: bollard::models::ImageSummary| Image {
            id: summary.id,
            names: summary.repo_tags.into_iter().filter(|name| name != "<none>:<none>").collect(),
        };
        Ok(found.into_iter().map(image).collect())
    }

    /// Takes the names of a repository, such as `shop-prod/web`, from the images that have them, but for those
    /// that another store than `own` knows of. An image that has no other name goes with its last.
    pub async fn unname(&self, repository: &str, own: &str) -> Result<(), EngineError> {
        let filter = HashMap::from([("reference", vec![repository])]);
        let options = ListImagesOptionsBuilder::new().filters(&filter).build();
        let found = self.docker.list_images(Some(options)).await;
        let found = found.map_err(|error| self.failed("list its images", &error))?;
        let prefix = format!("{repository}:");
        let found =
            found.into_iter().filter(|image| image.labels.get(STORE).is_none_or(|store| store == own));
        for name in found.flat_map(|image| image.repo_tags).filter(|name| name.starts_with(&prefix)) {
            self.remove_image(&name).await?;
        }
        Ok(())
    }

    /// Whether the engine has an image, by its id.
    pub async fn has(&self, id: &str) -> Result<bool, EngineError> {
        Ok(self.found(id).await?.is_some())
    }

    /// What the engine knows of an image, by its id or a name.
    pub(super) async fn found(&self, id: &str) -> Result<Option<ImageInspect>, EngineError> {
        match self.docker.inspect_image(id).await {
            Ok(image) => Ok(Some(image)),
            Err(Error::DockerResponseServerError { status_code: 404, .. }) => Ok(None),
            Err(error) => Err(self.failed("look at an image", &error)),
        }
    }

    /// Removes an image that nothing uses, or one of its names; one that is gone is as wanted.
    pub async fn remove_image(&self, id: &str) -> Result<(), EngineError> {
        let options = RemoveImageOptions { force: true, ..RemoveImageOptions::default() };
        self.talk("remove the image", id)?;
        match self.docker.remove_image(id, Some(options), None).await {
            Ok(_) | Err(Error::DockerResponseServerError { status_code: 404 | 409, .. }) => {}
            Err(error) => return Err(self.failed("remove an image", &error)),
        }
        self.talk("removed the image", id)
    }
}

/// An image that norn made.
#[derive(Debug, Clone)]
pub struct Image {
    pub id: String,
    pub names: Vec<String>,
}

/// Puts the fragments of a build's output together to lines, without the engine's colours.
#[derive(Default)]
struct Lines {
    rest: String,
}

impl Lines {
    fn take(&mut self, info: &BuildInfo, on_line: &mut impl FnMut(&str)) {
        if let Some(BuildInfoAux::BuildKit(status)) = &info.aux {
            for vertex in
                status.vertexes.iter().filter(|vertex| vertex.completed.is_none() && vertex.started.is_some())
            {
                on_line(&vertex.name);
            }
            for log in &status.logs {
                self.text(&String::from_utf8_lossy(&log.msg), on_line);
            }
        }
        if let Some(text) = &info.stream {
            self.text(text, on_line);
        }
    }

    fn text(&mut self, text: &str, on_line: &mut impl FnMut(&str)) {
        self.rest += &text.replace("\u{1b}[91m", "").replace("\u{1b}[0m", "").replace('\r', "\n");
        while let Some(end) = self.rest.find('\n') {
            let line: String = self.rest.drain(..=end).collect();
            if !line.trim().is_empty() {
                on_line(line.trim_end());
            }
        }
    }

    fn finish(&mut self, on_line: &mut impl FnMut(&str)) {
        self.text("\n", on_line);
    }
}
