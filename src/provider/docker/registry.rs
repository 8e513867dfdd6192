//! Images of registries: what a name stands for there, and who may ask.
//!
//! Logins come from the spec, else from where `docker login` leaves them: Docker's own settings or the
//! helper that those name.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bollard::auth::DockerCredentials;
use bollard::errors::Error;
use bollard::query_parameters::CreateImageOptionsBuilder;
use futures_util::StreamExt;
use serde::Deserialize;
use serde_json::json;
use tokio::io::AsyncWriteExt;
use tokio::process::Command;
use tokio::time::timeout;

use super::refusal::unreached;
use super::{Engine, EngineError};
use crate::desired::Registry;
use crate::secret::Secret;

/// The registry of names that have none, and what Docker's settings call it.
pub const HUB: &str = "docker.io";
const HUB_IN_SETTINGS: &str = "https://index.docker.io/v1/";
/// How long a helper may take to give a login.
const HELPER: Duration = Duration::from_secs(20);

/// Logins, the spec's before Docker's own.
#[derive(Debug, Clone, Default)]
pub struct Logins {
    pub own: Option<Registry>,
}

/// Docker's settings, as far as they are about logins.
#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct Settings {
    auths: BTreeMap<String, Auth>,
    cred_helpers: BTreeMap<String, String>,
    creds_store: Option<String>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "lowercase", default)]
struct Auth {
    /// `user:password` in base64.
    auth: Option<String>,
    identitytoken: Option<String>,
}

/// What a helper says.
#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Given {
    username: String,
    secret: String,
}

/// The registry of an image's name: what stands before the first `/`, if it can be a host.
pub fn registry(name: &str) -> &str {
    match name.split_once('/') {
        Some((host, _)) if host.contains(['.', ':']) || host == "localhost" => host,
        Some(_) | None => HUB,
    }
}

/// A name without its tag and digest.
pub fn repository(name: &str) -> &str {
    let name = name.split_once('@').map_or(name, |(name, _)| name);
    match name.rsplit_once(':') {
        // A port stands before a `/`.
        Some((repository, tag)) if !tag.contains('/') => repository,
        Some(_) | None => name,
    }
}

impl Logins {
    /// What opens the registry of an image, if anything is known.
    ///
    /// # Errors
    /// Settings that cannot be read, and a helper that fails.
    async fn of(&self, image: &str) -> Result<Option<DockerCredentials>, String> {
        let registry = registry(image);
        let own = self.own.as_ref().filter(|own| self::registry(&format!("{}/", own.url)) == registry);
        if let Some(own) = own.and_then(|own| own.login.as_ref()) {
            return Ok(Some(login(registry, &own.username, own.password.expose())));
        }
        let Some(path) = settings_path().filter(|path| path.exists()) else { return Ok(None) };
        let settings = settings(&path)?;
        let known = in_settings(registry);
        let helper = settings.cred_helpers.get(registry).or(settings.creds_store.as_ref());
        if let Some(helper) = helper {
            return ask(helper, known, registry).await;
        }
        let Some(auth) = settings.auths.get(known).or_else(|| settings.auths.get(registry)) else {
            return Ok(None);
        };
        if let Some(token) = auth.identitytoken.as_ref().filter(|token| !token.is_empty()) {
            let token = Some(token.clone());
            return Ok(Some(DockerCredentials { identitytoken: token, ..login(registry, "", "") }));
        }
        let Some(auth) = auth.auth.as_ref().filter(|auth| !auth.is_empty()) else { return Ok(None) };
        let unclear =
            || format!("the login of {registry} in {} is no `user:password` in base64", path.display());
        let text = STANDARD.decode(auth.trim()).ok().and_then(|bytes| String::from_utf8(bytes).ok());
        let text = text.ok_or_else(unclear)?;
        let (user, password) = text.split_once(':').ok_or_else(unclear)?;
        Ok(Some(login(registry, user, password.trim_end_matches('\0'))))
    }

    /// What a Kubernetes Secret of the type `kubernetes.io/dockerconfigjson` holds so that nodes can pull
    /// an image; none where no login is known.
    ///
    /// # Errors
    /// A login that cannot be looked up, and one that nodes cannot use.
    pub async fn docker_config(&self, image: &str) -> Result<Option<Secret>, EngineError> {
        let Some(found) = self.credentials(image).await? else { return Ok(None) };
        let registry = registry(image);
        if found.identitytoken.is_some() {
            return Err(EngineError::Login {
                registry: registry.to_owned(),
                why: "what `docker login` left is a token, which nodes of a cluster cannot use: give \
                      `registry.username` and `registry.password` in the spec"
                    .to_owned(),
            });
        }
        let (user, password) = (found.username.unwrap_or_default(), found.password.unwrap_or_default());
        let auth = STANDARD.encode(format!("{user}:{password}"));
        let login = json!({"username": user, "password": password, "auth": auth});
        Ok(Some(Secret::new(json!({"auths": {in_settings(registry): login}}).to_string())))
    }

    /// What opens the registry of an image, if anything is known.
    ///
    /// # Errors
    /// A login that cannot be looked up.
    pub async fn credentials(&self, image: &str) -> Result<Option<DockerCredentials>, EngineError> {
        self.of(image).await.map_err(|why| EngineError::Login { registry: registry(image).to_owned(), why })
    }
}

/// What Docker's settings call a registry, and Kubernetes with them.
fn in_settings(registry: &str) -> &str {
    if registry == HUB { HUB_IN_SETTINGS } else { registry }
}

fn login(registry: &str, user: &str, password: &str) -> DockerCredentials {
    DockerCredentials {
        username: Some(user.to_owned()),
        password: Some(password.to_owned()),
        serveraddress: Some(registry.to_owned()),
        ..DockerCredentials::default()
    }
}

fn settings_path() -> Option<PathBuf> {
    let named = std::env::var_os("DOCKER_CONFIG").filter(|folder| !folder.is_empty()).map(PathBuf::from);
    let usual = || Some(PathBuf::from(std::env::var_os("HOME")?).join(".docker"));
    Some(named.or_else(usual)?.join("config.json"))
}

fn settings(path: &Path) -> Result<Settings, String> {
    let text = std::fs::read_to_string(path)
        .map_err(|error| format!("{} cannot be read: {error}", path.display()))?;
    serde_json::from_str(&text)
        .map_err(|error| format!("{} is not as Docker writes it: {error}", path.display()))
}

/// Asks the helper that keeps the logins.
async fn ask(helper: &str, known: &str, registry: &str) -> Result<Option<DockerCredentials>, String> {
    let program = format!("docker-credential-{helper}");
    let failed = |why: String| format!("`{program} get` has no login for {registry}: {why}");
    let child = Command::new(&program)
        .arg("get")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .kill_on_drop(true)
        .spawn();
    let mut child = child.map_err(|error| failed(error.to_string()))?;
    let mut input = child.stdin.take().expect("it is piped");
    let talk = async {
        input.write_all(known.as_bytes()).await?;
        drop(input);
        child.wait_with_output().await
    };
    let output = timeout(HELPER, talk).await;
    let output = output.map_err(|_| failed(format!("no answer within {} s", HELPER.as_secs())))?;
    let output = output.map_err(|error| failed(error.to_string()))?;
    if !output.status.success() {
        let said = String::from_utf8_lossy(&output.stdout).trim().to_owned();
        // This is how it says that it has none.
        return if said.contains("not found") { Ok(None) } else { Err(failed(said)) };
    }
    let given: Given =
        serde_json::from_slice(&output.stdout).map_err(|_| failed("its answer is unclear".into()))?;
    if given.username == "<token>" {
        let token = Some(given.secret);
        return Ok(Some(DockerCredentials { identitytoken: token, ..login(registry, "", "") }));
    }
    Ok(Some(login(registry, &given.username, &given.secret)))
}

impl Engine {
    /// What an image's name stands for in its registry now: `sha256:...`.
    ///
    /// # Errors
    /// A registry that cannot be reached, has no such image, or lets this user see none.
    pub async fn digest(&self, image: &str, logins: &Logins) -> Result<String, EngineError> {
        let credentials = logins.credentials(image).await?;
        let seen = self.docker.inspect_registry_image(image, credentials).await;
        let digest = seen.map_err(|error| self.unseen(image, &error))?.descriptor.digest;
        digest.ok_or_else(|| EngineError::Refused {
            doing: format!("look up {image}"),
            why: "its registry gives it no digest".into(),
        })
    }

    /// Pulls an image at a digest, and returns its id. Each layer's state is told as it comes.
    ///
    /// # Errors
    /// The same as those of [`digest`](Self::digest).
    pub async fn pull(
        &self,
        image: &str,
        digest: &str,
        logins: &Logins,
        mut on_line: impl FnMut(&str),
    ) -> Result<String, EngineError> {
        let credentials = logins.credentials(image).await?;
        let pinned = format!("{}@{digest}", repository(image));
        let options = CreateImageOptionsBuilder::new().from_image(&pinned).build();
        let mut said = self.docker.create_image(Some(options), None, credentials);
        while let Some(info) = said.next().await {
            let info = info.map_err(|error| self.unseen(image, &error))?;
            // How far a layer is would be a line every few milliseconds.
            if let Some(status) =
                info.status.filter(|_| info.progress_detail.is_none_or(|detail| detail.total.is_none()))
            {
                on_line(&info.id.map_or(status.clone(), |id| format!("{id}: {status}")));
            }
        }
        let seen = self
            .docker
            .inspect_image(&pinned)
            .await
            .map_err(|error| self.failed("pull the image", &error))?;
        seen.id.ok_or_else(|| EngineError::Refused {
            doing: "pull the image".into(),
            why: "it has no id".into(),
        })
    }

    fn unseen(&self, image: &str, error: &Error) -> EngineError {
        match self.failed(&format!("look up {image}"), error) {
            EngineError::Refused { why, .. } => match unreached(registry(image), &why) {
                Some(error) => error.into(),
                None => EngineError::NoImage {
                    image: image.to_owned(),
                    registry: registry(image).to_owned(),
                    why,
                },
            },
            other => other,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::desired::Login;

    #[test]
    fn a_name_is_taken_apart_as_docker_does() {
        for (name, host, path) in [
            ("nginx", HUB, "nginx"),
            ("nginx:1.27", HUB, "nginx"),
            ("acme/api:1", HUB, "acme/api"),
            ("ghcr.io/acme/api:1.8.2", "ghcr.io", "ghcr.io/acme/api"),
            ("localhost/api", "localhost", "localhost/api"),
            ("127.0.0.1:5000/api", "127.0.0.1:5000", "127.0.0.1:5000/api"),
            ("127.0.0.1:5000/a/b:2@sha256:00", "127.0.0.1:5000", "127.0.0.1:5000/a/b"),
        ] {
            assert_eq!((registry(name), repository(name)), (host, path), "{name}");
        }
    }

    #[tokio::test]
    async fn the_specs_login_is_for_its_registry_only() {
        let logins = own("registry.example.com/shop");
        let found =
            logins.of("registry.example.com/shop/api:1").await.expect("it is known").expect("a login");
        assert_eq!(found.username.as_deref(), Some("ada"));
    }

    fn own(url: &str) -> Logins {
        let login = Login { username: "ada".into(), password: Secret::new("p@ss\"w:rd") };
        Logins { own: Some(Registry { url: url.into(), login: Some(login) }) }
    }

    #[tokio::test]
    async fn nodes_get_a_login_under_the_name_that_their_keyring_knows() {
        for (url, image, name) in [
            (
                "registry.example.com:5000/shop",
                "registry.example.com:5000/shop/api:1",
                "registry.example.com:5000",
            ),
            ("docker.io/acme", "docker.io/acme/api@sha256:00", HUB_IN_SETTINGS),
            ("acme", "acme/api:1", HUB_IN_SETTINGS),
        ] {
            let config = own(url).docker_config(image).await.expect("it is known").expect("a login");
            let login = r#"{"username":"ada","password":"p@ss\"w:rd","auth":"YWRhOnBAc3MidzpyZA=="}"#;
            assert_eq!(config.expose(), format!(r#"{{"auths":{{"{name}":{login}}}}}"#));
        }
    }
}
