//! Images that go to a registry.
//!
//! Here: pushing, and what a registry's refusals mean. Elsewhere: logins and pulling (`registry`).
//! Invariant: the engine sends the layers itself; none of an image is in norn's memory.

use bollard::auth::DockerCredentials;
use bollard::models::PushImageInfo;
use bollard::query_parameters::PushImageOptionsBuilder;
use futures_util::StreamExt;

use super::registry::{Logins, registry};
use super::{Engine, EngineError};

/// Why an image did not get to a registry.
#[derive(Debug, thiserror::Error)]
pub enum PushError {
    #[error(
        "the registry {registry} wants a login to take {image}: {why}; give `registry.username` and `registry.password` in the spec, or log in with `docker login {registry}`"
    )]
    NoLogin { image: String, registry: String, why: String },
    #[error(
        "the registry {registry} does not take {image} with the login of `{user}`: {why}; mend `registry.username` and `registry.password` in the spec, or log in with `docker login {registry}` as one who may push there"
    )]
    Denied { image: String, registry: String, user: String, why: String },
    #[error(
        "the Docker engine cannot reach the registry {registry}: {why}; see that it runs, and that `registry.url` in the spec names its host and port"
    )]
    Unreachable { registry: String, why: String },
    #[error(
        "the registry {registry} speaks plain HTTP, which a Docker engine takes only where it is told to: add \"{registry}\" to `insecure-registries` in the engine's daemon.json, usually in /etc/docker, and restart it"
    )]
    Plain { registry: String },
    #[error(
        "the Docker engine does not trust the certificate of the registry {registry}: {why}; put the certificate of its authority at /etc/docker/certs.d/{registry}/ca.crt"
    )]
    Untrusted { registry: String, why: String },
    #[error(
        "the push of {image} broke off: {why}; see that the registry {registry} runs, then push again: the layers that it has are not sent twice"
    )]
    BrokenOff { image: String, registry: String, why: String },
    #[error(
        "`{image}` is no name for an image: {why}; `registry.url` in the spec is a host, perhaps with a port and a path, in small letters"
    )]
    Name { image: String, why: String },
    #[error(
        "the registry {registry} has no repository for {image} and makes none by itself: {why}; make it there, or name another place with `registry.url` in the spec"
    )]
    NoRepository { image: String, registry: String, why: String },
    #[error(
        "the registry {registry} has no space left for {image}: {why}; delete images there or give it more"
    )]
    Full { image: String, registry: String, why: String },
    #[error(
        "the registry {registry} failed while it was sent {image}: {why}; its own log says why, often its disk is full or its storage cannot be reached"
    )]
    Failing { image: String, registry: String, why: String },
    #[error("the registry {registry} did not take {image}: {why}; its own log may say more")]
    Refused { image: String, registry: String, why: String },
}

impl Engine {
    /// Pushes an image of this engine as `repository:tag`, and returns the name that holds its digest
    /// there, such as `registry.example.com/shop/web@sha256:...`. What becomes of each layer is told as
    /// it comes; one that is there is not sent again.
    ///
    /// Meanwhile the image has that name here too; a push that is dropped leaves it.
    ///
    /// # Errors
    /// [`PushError`] where the registry does not take the image or has none afterwards; what the
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
                PushError::Name { image: image.clone(), why }.into()
            }
            other => other,
        };
        let credentials = logins.credentials(&image).await?;
        let before = self.found(&image).await.map_err(no_name)?.and_then(|image| image.id);
        let names = self.found(id).await?.and_then(|image| image.repo_tags).unwrap_or_default();
        self.name(id, repository, tag).await.map_err(no_name)?;
        let pushed = self.push_named(repository, tag, credentials, on_line).await;
        let undone = match before {
            Some(before) => self.name(&before, repository, tag).await,
            // An image goes with its last name.
            None if names.is_empty() => Ok(()),
            None => self.remove_image(&image).await,
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
            EngineError::Refused { why, .. } => refusal(&image, user.as_deref(), begun, why).into(),
            other => other,
        };
        let options = PushImageOptionsBuilder::new().tag(tag).build();
        let mut said = self.docker.push_image(repository, Some(options), credentials.clone());
        let mut lines = Lines::default();
        while let Some(info) = said.next().await {
            let info = info.map_err(|error| failed(lines.layers > 0, &error))?;
            lines.take(info, &mut on_line);
        }
        let refused = |why: &str| PushError::Refused {
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

/// What the engine's words for a push that failed mean. `begun`: the registry had answered before.
fn refusal(image: &str, user: Option<&str>, begun: bool, why: String) -> PushError {
    let (image, registry) = (image.to_owned(), registry(image).to_owned());
    let said = why.to_lowercase();
    let says = |words: &[&str]| words.iter().any(|word| said.contains(word));
    if says(&["http response to https client"]) {
        PushError::Plain { registry }
    } else if says(&["x509:", "certificate"]) {
        PushError::Untrusted { registry, why }
    } else if says(&["no space left", "quota", "insufficient storage"]) {
        PushError::Full { image, registry, why }
    } else if says(&["no basic auth", "unauthorized", "denied", "forbidden", "authoriz", "authentic"]) {
        match user {
            Some(user) => PushError::Denied { image, registry, user: user.to_owned(), why },
            None => PushError::NoLogin { image, registry, why },
        }
    } else if says(&["name unknown", "name_unknown"]) {
        PushError::NoRepository { image, registry, why }
    } else if says(&["invalid reference", "name invalid", "name_invalid", "repository name"]) {
        PushError::Name { image, why }
    } else if !begun && says(&["dial tcp", "no such host", "timeout", "deadline", "eof", "connection"]) {
        PushError::Unreachable { registry, why }
    } else if says(&["dial tcp", "timeout", "eof", "connection", "broken pipe"]) {
        PushError::BrokenOff { image, registry, why }
    } else if says(&["http status: 5"]) {
        PushError::Failing { image, registry, why }
    } else {
        PushError::Refused { image, registry, why }
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

#[cfg(test)]
mod tests {
    use super::*;

    fn mend(user: Option<&str>, begun: bool, why: &str) -> String {
        let error = refusal("registry.example.com/shop/web:1", user, begun, why.to_owned()).to_string();
        assert!(error.contains("registry.example.com"), "{error}");
        error.rsplit_once("; ").map_or(error.clone(), |(_, mend)| mend.to_owned())
    }

    /// What registries say that no test has here: those with tokens, quotas, repositories to be made.
    #[test]
    fn what_a_registry_says_comes_with_what_mends_it() {
        let denied = "denied: requested access to the resource is denied";
        assert!(mend(None, true, denied).contains("give `registry.username`"));
        assert!(mend(Some("ada"), true, denied).contains("as one who may push there"));
        let scope = "unauthorized: project shop not found: project shop not found";
        assert!(mend(Some("ada"), true, scope).contains("as one who may push there"));
        let unknown = "name unknown: The repository with name 'shop/web' does not exist in the registry";
        assert!(mend(Some("ada"), true, unknown).starts_with("make it there"));
        let quota = "denied: adding 3 MiB of storage resource, which when updated exceeds the quota";
        assert!(mend(Some("ada"), true, quota).starts_with("delete images there"));
        let trust = "Get \"https://registry.example.com/v2/\": tls: failed to verify certificate: x509: certificate signed by unknown authority";
        assert!(mend(None, false, trust).ends_with("certs.d/registry.example.com/ca.crt"));
        let silent = "Get \"https://registry.example.com/v2/\": net/http: request canceled while waiting for connection (Client.Timeout exceeded while awaiting headers)";
        assert!(mend(None, false, silent).starts_with("see that it runs, and that `registry.url`"));
        assert!(mend(None, true, "unexpected EOF").contains("not sent twice"));
        assert_eq!(mend(None, true, "manifest invalid: manifest invalid"), "its own log may say more");
    }
}
