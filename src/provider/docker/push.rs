//! Images that go to a registry.
//!
//! Here: pushing, and what is told of it. Elsewhere: logins (`registry`), what a refusal means (`refusal`).
//! Invariant: the engine sends the layers itself; none of an image is in norn's memory.

use bollard::auth::DockerCredentials;
use bollard::models::PushImageInfo;
use bollard::query_parameters::PushImageOptionsBuilder;
use futures_util::StreamExt;

use super::refusal::{RegistryError, not_pushed};
use super::registry::{Logins, registry};
use super::{Engine, EngineError};

impl Engine {
    /// Pushes an image of this engine as `repository:tag`, and returns the name that holds its digest
    /// there, such as `registry.example.com/shop/web@sha256:...`. What becomes of each layer is told as
    /// it comes; one that is there is not sent again.
    ///
    /// Meanwhile the image has that name here too. It keeps it where it has no other, and a push that is
    /// dropped leaves it to the next one of the image.
    ///
    /// # Errors
    /// [`RegistryError`] where the registry does not take the image or has none afterwards; what the
    /// engine cannot do.
    pub async fn push(
        &self,
        id: &str,
        repository: &str,
        tag: &str,
        logins: &Logins,
        on_line: impl FnMut(&str),
    ) -> Result<String, EngineError> {
        let image = format!("{repository}:{tag}");
        let no_name = |error| match error {
            EngineError::Refused { why, .. } if why.contains("invalid") => {
                RegistryError::Name { image: image.clone(), why }.into()
            }
            other => other,
        };
        let credentials = logins.credentials(&image).await?;
        let before = self.found(&image).await.map_err(no_name)?.and_then(|image| image.id);
        let pushed = self.found(id).await?;
        // Where it is the image's already, a push that was killed left it.
        let before =
            before.filter(|before| pushed.as_ref().and_then(|image| image.id.as_ref()) != Some(before));
        // An image goes with its last name; a digest is one too, but goes with the tags of its repository.
        let own = format!("{repository}@");
        let named = pushed.is_some_and(|pushed| {
            let tags = pushed.repo_tags.into_iter().flatten().filter(|name| *name != image);
            let digests = pushed.repo_digests.into_iter().flatten().filter(|name| !name.starts_with(&own));
            tags.chain(digests).next().is_some()
        });
        self.name(id, repository, tag).await.map_err(no_name)?;
        let pushed = self.push_named(repository, tag, credentials, on_line).await;
        let undone = match before {
            Some(before) => self.name(&before, repository, tag).await,
            None if named => self.remove_image(&image).await,
            None => Ok(()),
        };
        let digest = pushed?;
        undone?;
        Ok(format!("{repository}@{digest}"))
    }

    /// Pushes what has the name here; the digest at which the registry then has it.
    async fn push_named(
        &self,
        repository: &str,
        tag: &str,
        credentials: Option<DockerCredentials>,
        mut on_line: impl FnMut(&str),
    ) -> Result<String, EngineError> {
        let image = format!("{repository}:{tag}");
        let user = credentials.as_ref().and_then(|login| login.username.clone());
        let user = user.filter(|user| !user.is_empty());
        let failed = |begun: bool, error: &_| match self.failed("push the image", error) {
            EngineError::Refused { why, .. } => not_pushed(&image, user.as_deref(), begun, why).into(),
            other => other,
        };
        let options = PushImageOptionsBuilder::new().tag(tag).build();
        let mut said = self.docker.push_image(repository, Some(options), credentials.clone());
        let mut lines = Lines::default();
        while let Some(info) = said.next().await {
            let info = info.map_err(|error| failed(lines.layers > 0, &error))?;
            lines.take(info, &mut on_line);
        }
        let refused = |why: &str| RegistryError::Refused {
            image: image.clone(),
            registry: registry(&image).to_owned(),
            why: why.to_owned(),
        };
        let digest = lines.digest.ok_or_else(|| refused("the engine names no digest of it"))?;
        let pinned = format!("{repository}@{digest}");
        let seen = self.docker.inspect_registry_image(&pinned, credentials).await;
        let seen = seen.map_err(|error| failed(true, &error))?.descriptor.digest;
        if seen.as_ref() != Some(&digest) {
            return Err(refused(&format!("it has nothing at {digest}")).into());
        }
        Ok(digest)
    }
}

/// What is told of a push. Of the engine's messages bollard keeps no layer's id, so layers are counted.
#[derive(Default)]
struct Lines {
    layers: usize,
    /// The layers that are in the registry.
    there: usize,
    /// The seconds until the engine tries again, as it counts them down.
    pause: u64,
    digest: Option<String>,
}

impl Lines {
    fn take(&mut self, info: PushImageInfo, on_line: &mut impl FnMut(&str)) {
        let Some(status) = info.status else { return };
        let Some(progress) = info.progress_detail else {
            // Not of a layer. The last such is `TAG: digest: sha256:... size: 947`.
            let digest = status.split_whitespace().find(|word| word.starts_with("sha256:"));
            self.digest = digest.map(str::to_owned).or(self.digest.take());
            return on_line(&status);
        };
        // How far a layer is would be a line every few milliseconds.
        if progress.current.is_some() || progress.total.is_some() {
            return;
        }
        if let Some(rest) = status.strip_prefix("Retrying in ") {
            let pause = rest.split(' ').next().and_then(|seconds| seconds.parse().ok()).unwrap_or_default();
            if pause > self.pause {
                on_line(&status);
            }
            self.pause = pause;
            return;
        }
        match status.as_str() {
            "Preparing" => self.layers += 1,
            "Waiting" => {}
            _ => {
                self.there += 1;
                on_line(&format!("layer {} of {}: {status}", self.there, self.layers));
            }
        }
    }
}
