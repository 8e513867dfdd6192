//! Texts in ConfigMaps of others, such as the configuration of cloudflared.
//!
//! Invariants: nothing of a ConfigMap but the one text is changed; what somebody else wrote meanwhile
//! is read again, never written over.

use std::time::Duration;

use k8s_openapi::api::core::v1::ConfigMap;
use kube::api::{Patch, PatchParams};
use serde_json::json;
use tokio::time::sleep;

use super::refusal::MANAGER;
use super::{Cluster, ClusterError};

/// How often a text is edited anew because others were faster.
const TRIES: u32 = 40;
/// The pause before that, at most.
const PAUSE: Duration = Duration::from_millis(250);

/// Why a text was not edited. `place` is such as `cloudflared/cloudflared`.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum TextError<E> {
    #[error(
        "there is no ConfigMap {place} in the cluster at {server}: make it, or correct the setting that names it"
    )]
    NoConfigMap { place: String, server: String },
    #[error("the ConfigMap {place} has no text `{key}` (it has {}): add it", listed(known))]
    NoText { place: String, key: String, known: Vec<String> },
    #[error("the ConfigMap {place} is immutable: make it anew without `immutable: true`")]
    Immutable { place: String },
    #[error(
        "the ConfigMap {place} was changed by others {TRIES} times while norn changed it: look who does so"
    )]
    Contended { place: String },
    #[error("the ConfigMap {place}: {error}")]
    Text { place: String, error: E },
    #[error(transparent)]
    Cluster(#[from] ClusterError),
}

impl Cluster {
    /// The same cluster, worked in another namespace.
    pub fn within(&self, namespace: &str) -> Self {
        Self { namespace: namespace.to_owned(), ..self.clone() }
    }

    /// A text of a ConfigMap.
    ///
    /// # Errors
    /// One that is not there, and what every call can meet; no [`TextError::Text`].
    pub async fn text<E>(&self, name: &str, key: &str) -> Result<String, TextError<E>> {
        self.versioned(name, key).await.map(|(text, _)| text)
    }

    /// Edits a text of a ConfigMap; whether that changed it. `edit` gives the new text, or nothing where
    /// the old one is as wanted, and is asked again when others changed it meanwhile.
    ///
    /// # Errors
    /// [`TextError`].
    pub async fn edit_text<E>(
        &self,
        name: &str,
        key: &str,
        edit: impl Fn(&str) -> Result<Option<String>, E>,
    ) -> Result<bool, TextError<E>> {
        let place = format!("{}/{name}", self.namespace);
        for round in 0..TRIES {
            let (text, version) = self.versioned(name, key).await?;
            let edited = edit(&text).map_err(|error| TextError::Text { place: place.clone(), error })?;
            let Some(edited) = edited else { return Ok(false) };
            // With its version in the patch the server refuses it where another write came between.
            let patch = json!({"metadata": {"resourceVersion": version}, "data": {key: edited}});
            let params = PatchParams { field_manager: Some(MANAGER.to_owned()), ..PatchParams::default() };
            let maps = self.typed::<ConfigMap>();
            let patch = Patch::Merge(&patch);
            let put = async {
                match maps.patch(name, &params, &patch).await {
                    Err(kube::Error::Api(status)) if status.is_conflict() => Ok(false),
                    other => other.map(|_| true),
                }
            };
            if self.change(&format!("change configmap/{name}"), put).await? {
                return Ok(true);
            }
            sleep(PAUSE.min(Duration::from_millis(10) * round)).await;
        }
        Err(TextError::Contended { place })
    }

    async fn versioned<E>(&self, name: &str, key: &str) -> Result<(String, String), TextError<E>> {
        let place = || format!("{}/{name}", self.namespace);
        let doing = format!("look at configmap/{name}");
        let found = self.answer(&doing, self.typed::<ConfigMap>().get_opt(name)).await?;
        let Some(map) = found else {
            return Err(TextError::NoConfigMap { place: place(), server: self.server.clone() });
        };
        if map.immutable == Some(true) {
            return Err(TextError::Immutable { place: place() });
        }
        let mut data = map.data.unwrap_or_default();
        let Some(text) = data.remove(key) else {
            let binary = map.binary_data.unwrap_or_default().into_keys();
            let known = data.into_keys().chain(binary).collect();
            return Err(TextError::NoText { place: place(), key: key.to_owned(), known });
        };
        Ok((text, map.metadata.resource_version.unwrap_or_default()))
    }
}

fn listed(keys: &[String]) -> String {
    if keys.is_empty() { "none at all".to_owned() } else { keys.join(", ") }
}
