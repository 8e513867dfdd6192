//! What an app uses beside itself: databases, key-value namespaces, topics, buckets.

use schemars::JsonSchema;
use serde::Deserialize;

use crate::spec::value::{DatabaseName, InnerPath};

/// What an app uses.
#[derive(Debug, Clone, Default, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Services {
    /// A PostgreSQL database; dumped before every migration.
    pub postgres: Option<PostgresService>,
    /// v1: a key-value namespace.
    pub kv: Option<KvService>,
    /// v1: event topics.
    pub events: Option<EventsService>,
    /// v1: a bucket.
    pub storage: Option<StorageService>,
}

#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct PostgresService {
    /// The database's name.
    pub database: DatabaseName,
    /// v1: a folder of migrations.
    pub migrations: Option<InnerPath>,
}

#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct KvService {
    /// The prefix of the app's keys.
    pub namespace: String,
}

#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct EventsService {
    /// The topics.
    #[serde(default)]
    pub topics: Vec<String>,
}

#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct StorageService {
    /// The bucket's name.
    pub bucket: String,
    /// v1: whose storage it is.
    pub provider: Option<String>,
}
