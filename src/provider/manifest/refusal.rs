//! What it means when a registry does not tell of an image, and what mends it.

use reqwest::StatusCode;
use serde::Deserialize;

use super::Look;
use crate::provider::causes::chain;
use crate::provider::docker::EngineError;

/// Why it is not known what an image's name stands for.
#[derive(Debug, thiserror::Error)]
pub enum ManifestError {
    #[error(
        "the registry {registry} has no image {image}: {why}; correct its name in the spec, or push it there"
    )]
    NoImage { image: String, registry: String, why: String },
    #[error(
        "the registry {registry} shows no image {image} without a login: {why}; see that its name is right, and give `registry.username` and `registry.password` in the spec, or log in with `docker login {registry}`"
    )]
    NoLogin { image: String, registry: String, why: String },
    #[error(
        "the registry {registry} does not show {image} with the login of `{user}`: {why}; mend `registry.username` and `registry.password` in the spec, or log in with `docker login {registry}` as one who may pull it"
    )]
    Denied { image: String, registry: String, user: String, why: String },
    #[error(
        "the registry {registry} cannot be reached: {why}; see that it runs, and that the name of {image} in the spec is right"
    )]
    Unreachable { image: String, registry: String, why: String },
    #[error(
        "the registry {registry} speaks plain HTTP, which is taken only where Docker is told to: add \"{registry}\" to `insecure-registries` in /etc/docker/daemon.json"
    )]
    Plain { registry: String },
    #[error(
        "the certificate of the registry {registry} is not trusted: {why}; name the file of its authority with SSL_CERT_FILE, or add that to the system's"
    )]
    Untrusted { registry: String, why: String },
    #[error(
        "the registry {registry} limits how often it may be asked for {image}: {why}; wait, or log in with `docker login {registry}`"
    )]
    Busy { image: String, registry: String, why: String },
    #[error(
        "the registry {registry} does not speak as one when it is asked for {image}: {why}; see that the name of the image in the spec is right, and that nothing stands in between"
    )]
    Unclear { image: String, registry: String, why: String },
    #[error("the registry {registry} failed when it was asked for {image}: {why}; its own log says why")]
    Failing { image: String, registry: String, why: String },
    #[error(transparent)]
    Login(#[from] EngineError),
}

/// What registries and servers of tokens write when they refuse.
#[derive(Default, Deserialize)]
#[serde(default)]
struct Said {
    errors: Vec<One>,
    details: Option<String>,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct One {
    code: String,
    message: String,
}

impl Look<'_> {
    /// What became of a call that was not answered.
    pub(super) fn unreached(&self, error: reqwest::Error) -> ManifestError {
        let (image, registry) = (self.place.image.to_owned(), self.place.registry.to_owned());
        let why = chain(&error.without_url());
        // Rustls has kinds for both, but what stands in between hands them on as text.
        if why.contains("InvalidContentType") {
            ManifestError::Plain { registry }
        } else if why.contains("invalid peer certificate") {
            ManifestError::Untrusted { registry, why }
        } else {
            ManifestError::Unreachable { image, registry, why }
        }
    }

    /// What an answer means that is a refusal.
    pub(super) fn refused(&self, status: StatusCode, body: &[u8]) -> ManifestError {
        let (image, registry) = (self.place.image.to_owned(), self.place.registry.to_owned());
        let why = words(status, body);
        match status {
            StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN => match &self.login {
                Some(login) => {
                    let user = login.username.clone().filter(|user| !user.is_empty());
                    let user = user.unwrap_or_else(|| "a token".to_owned());
                    ManifestError::Denied { image, registry, user, why }
                }
                None => ManifestError::NoLogin { image, registry, why },
            },
            StatusCode::NOT_FOUND => ManifestError::NoImage { image, registry, why },
            StatusCode::TOO_MANY_REQUESTS => ManifestError::Busy { image, registry, why },
            status if status.is_server_error() => ManifestError::Failing { image, registry, why },
            _ => ManifestError::Unclear { image, registry, why },
        }
    }

    pub(super) fn unclear(&self, why: &str) -> ManifestError {
        let (image, registry) = (self.place.image.to_owned(), self.place.registry.to_owned());
        ManifestError::Unclear { image, registry, why: why.to_owned() }
    }
}

/// What a refusal says of itself, in one line.
fn words(status: StatusCode, body: &[u8]) -> String {
    let said: Said = serde_json::from_slice(body).unwrap_or_default();
    let first = said.errors.into_iter().next();
    let message = first.map(|one| if one.message.is_empty() { one.code } else { one.message });
    let message = message.or(said.details).unwrap_or_default();
    let message: String = message.chars().filter(|letter| !letter.is_control()).take(200).collect();
    let status = format!("HTTP {}", status.as_u16());
    if message.trim().is_empty() { status } else { format!("{} ({status})", message.trim()) }
}
