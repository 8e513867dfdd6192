//! The bodies of records as they are stored. Changing a working type never breaks an old store.

use std::collections::BTreeMap;
use std::fmt;
use std::path::PathBuf;

use hmac::{Hmac, KeyInit, Mac};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use sha2::{Digest, Sha256};

use super::change::Change;
use super::record::{ArtifactKind, Record};
use crate::desired::{Build, Definition, EnvValue, Route, Source};
use crate::scrub::visible;
use crate::secret::Secret;
use crate::spec::name::AppName;

/// The body of a `forge/<app>` record.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct ForgeV1 {
    pub version: u32,
    /// What is live; absent until the first release is.
    pub definition: Option<Definition>,
    /// HMAC-SHA256 of the value of each secret and each reference in `env`, by variable.
    pub values: BTreeMap<String, String>,
    pub protected: bool,
    /// Where it was put live, or is to be; unknown of what an earlier norn wrote.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub host: Option<Host>,
    /// Where it is instead, on Kubernetes; known before anything is live there.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub namespace: Option<Namespace>,
    /// Where it is instead, on a Docker engine of another host; known before anything is live there.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub engine: Option<RemoteEngine>,
    /// How the world reaches it by a tunnel, or would before this is done.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub route: Option<Route>,
}

/// A namespace of a cluster.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Namespace {
    pub name: String,
    /// Its UID, which no other of any cluster has; unknown where norn might not look at it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub id: Option<String>,
    /// The URL of the apiserver, for readers.
    pub server: String,
}

impl fmt::Display for Namespace {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&visible(&format!("namespace {} of {}", self.name, self.server)))
    }
}

/// A Docker engine of another host.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct RemoteEngine {
    /// As `docker.host` or `DOCKER_HOST` has it.
    pub address: String,
    /// What no other engine has; absent where the engine has no name that stays.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub id: Option<String>,
}

impl RemoteEngine {
    /// Whether two are the same, as far as they can be told apart.
    pub fn is(&self, other: &Self) -> bool {
        match (&self.id, &other.id) {
            (Some(one), Some(other)) => one == other,
            (Some(_), None) | (None, _) => self.address == other.address,
        }
    }
}

impl fmt::Display for RemoteEngine {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&visible(&format!("the Docker engine at {}", self.address)))
    }
}

/// A folder of supervisors, on its machine.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Host {
    /// As `ProcessIdentity::machine_id`.
    pub machine: String,
    /// The machine's host name.
    pub name: String,
    /// Without links.
    pub folder: PathBuf,
}

impl fmt::Display for Host {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // A state may come from anywhere.
        f.write_str(&visible(&format!("{}:{}", self.name, self.folder.display())))
    }
}

impl ForgeV1 {
    /// What tells two definitions apart, values included, without holding any.
    pub fn definition_digest(&self) -> String {
        // By which of its addresses an engine is reached changes nothing of what runs there.
        let plain = |definition: &Definition| Definition {
            engine: definition.engine.as_ref().map(|_| String::new()),
            ..definition.clone()
        };
        let definition = self.definition.as_ref().map(plain);
        digest(&serde_json::json!({ "definition": definition, "values": self.values }))
    }
}

/// The body of a `deploy/<app>` record: the release that is live.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct DeployV1 {
    pub version: u32,
    /// 40 hex digits, or `local:` and 64, or an image's `sha256:` and 64.
    pub commit: String,
    /// `app:<first 12>`, then `-2`, `-3` for further builds of one commit.
    pub tag: String,
    pub source: Source,
    pub build: Build,
    /// The release's folder, relative to the stage's.
    pub folder: String,
    /// The row in `deployments`.
    pub deployment: String,
    /// The image by its digest in a registry, where a cluster pulls it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub image: Option<String>,
}

impl DeployV1 {
    /// Whether the release is an image, whose folder only names it.
    pub fn is_image(&self) -> bool {
        self.build.image.is_some() || matches!(self.source, Source::Image { .. })
    }
}

/// A body and its digest.
pub fn record<T: Serialize>(body: &T, protected: bool) -> Record {
    let body = serde_json::to_value(body).expect("a body has text keys only");
    let digest = digest(&body);
    Record { body, digest, protected }
}

/// SHA-256 of a value's canonical JSON (sorted keys, no spaces), in hex.
pub fn digest(value: &Value) -> String {
    let mut hasher = Sha256::new();
    hash(value, &mut hasher);
    hex(&hasher.finalize())
}

fn hash(value: &Value, hasher: &mut Sha256) {
    match value {
        Value::Object(object) => {
            hasher.update(b"{");
            let sorted: BTreeMap<&String, &Value> = object.iter().collect();
            for (key, value) in sorted {
                hasher.update(Value::from(key.as_str()).to_string());
                hasher.update(b":");
                hash(value, hasher);
                hasher.update(b",");
            }
            hasher.update(b"}");
        }
        Value::Array(items) => {
            hasher.update(b"[");
            for item in items {
                hash(item, hasher);
                hasher.update(b",");
            }
            hasher.update(b"]");
        }
        other => hasher.update(other.to_string()),
    }
}

/// HMAC-SHA256 under the store's key, in hex.
pub fn fingerprint(key: &Secret, value: &Secret) -> String {
    let mut mac = Hmac::<Sha256>::new_from_slice(key.expose().as_bytes()).expect("HMAC takes any key");
    mac.update(value.expose().as_bytes());
    hex(&mac.finalize().into_bytes())
}

/// HMAC-SHA256 of a document, in hex, under a key that is made of the store's. Were it the store's
/// own, whoever chooses a value could have its fingerprint stand for the seal of a document.
pub fn seal(key: &Secret, document: &Value) -> String {
    let own = digest(&serde_json::json!(["seal", key.expose()]));
    fingerprint(&Secret::new(own), &Secret::new(digest(document)))
}

/// What tells stores apart without telling their keys: 16 hex digits.
pub fn store_id(key: &Secret) -> String {
    digest(&serde_json::json!(["store", key.expose()]))[..16].to_owned()
}

/// The fingerprints of every value that a definition names but does not hold.
pub fn fingerprints(
    definition: &Definition,
    values: Option<&BTreeMap<String, Secret>>,
    key: &Secret,
) -> BTreeMap<String, String> {
    let referred =
        definition.env.iter().filter(|(_, v)| matches!(v, EnvValue::Reference(_))).map(|(name, _)| name);
    let names = referred.chain(&definition.secrets);
    let pairs = names.filter_map(|name| {
        let value = values?.get(name)?;
        Some((name.clone(), fingerprint(key, value)))
    });
    pairs.collect()
}

fn hex(bytes: &[u8]) -> String {
    use std::fmt::Write;
    bytes.iter().fold(String::with_capacity(bytes.len() * 2), |mut text, byte| {
        // Writing to a String cannot fail.
        let _ = write!(text, "{byte:02x}");
        text
    })
}

/// What keeps a release for a rollback; `record` is the one under which it is live.
pub fn kept(app: &AppName, release: &DeployV1, record: &Record) -> Change {
    Change::ArtifactKept {
        id: release.deployment.clone(),
        app: app.clone(),
        kind: ArtifactKind::Release,
        name: release.tag.clone(),
        body: record.body.clone(),
    }
}

/// The hex digits of a version: of a commit, of a folder's `local:` or of an image's `sha256:`.
pub fn digits(commit: &str) -> &str {
    commit.trim_start_matches("local:").trim_start_matches("sha256:")
}

/// The first 12 of them, by which releases and snapshots are named.
pub fn short(commit: &str) -> &str {
    let digits = digits(commit);
    digits.get(..12).unwrap_or(digits)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_host_steers_no_terminal() {
        let host = Host { machine: "m".into(), name: "e\u{1b}[2Jvil".into(), folder: "/a\nb".into() };
        assert_eq!(host.to_string(), "e\\u{1b}[2Jvil:/a\\nb");
    }

    #[test]
    fn a_digest_depends_on_content_and_not_on_order() {
        let one = digest(&json!({ "a": 1, "b": [1, 2] }));
        assert_eq!(one, digest(&json!({ "b": [1, 2], "a": 1 })));
        assert_ne!(one, digest(&json!({ "a": 1, "b": [2, 1] })));
        assert_ne!(digest(&json!(["ab"])), digest(&json!(["a", "b"])));
    }

    #[test]
    fn a_fingerprint_depends_on_the_key() {
        let value = Secret::new("hunter22");
        assert_ne!(fingerprint(&Secret::new("k1"), &value), fingerprint(&Secret::new("k2"), &value));
        assert_eq!(fingerprint(&Secret::new("k1"), &value).len(), 64);
    }
}
