//! Taking images to a registry.

use bollard::query_parameters::{PushImageOptionsBuilder, TagImageOptionsBuilder};
use futures_util::StreamExt;

use super::registry::Logins;
use super::{Engine, EngineError};

impl Engine {
    pub async fn push(
        &self,
        id: &str,
        repository: &str,
        tag: &str,
        logins: &Logins,
        mut on_line: impl FnMut(&str),
    ) -> Result<String, EngineError> {
        let options = TagImageOptionsBuilder::new().repo(repository).tag(tag).build();
        self.docker
            .tag_image(id, Some(options))
            .await
            .map_err(|error| self.failed("name an image", &error))?;
        let name = format!("{repository}:{tag}");
        let credentials = self.credentials(&name, logins).await?;
        let options = PushImageOptionsBuilder::new().tag(tag).build();
        let mut said = self.docker.push_image(repository, Some(options), credentials);
        while let Some(info) = said.next().await {
            let info = info.map_err(|error| self.failed("push the image", &error))?;
            if let Some(status) = info.status {
                on_line(&status);
            }
        }
        Ok(format!("{repository}@{}", self.digest(&name, logins).await?))
    }
}
