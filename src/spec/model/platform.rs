//! What a project stands on: where its state is, engines, registries, clusters, tunnels, servers.

use schemars::JsonSchema;
use serde::Deserialize;

use crate::spec::value::{HostName, Label, ObjectName, TunnelId};

/// Where norn keeps what it knows: a server, or a file.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct StateLocation {
    /// A PostgreSQL database, `postgres://user:password@host:port/database?sslmode=verify-full`; the
    /// tables of a stage are in a schema of its name.
    #[schemars(length(min = 1))]
    pub url: Option<String>,
    /// A SQLite file, relative to this file's folder or absolute.
    #[schemars(length(min = 1))]
    pub path: Option<String>,
}

/// A Docker engine.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct DockerEngine {
    /// Its address: `unix:///path/to/docker.sock`, or `tcp://host:port` of one on another host. Default: `DOCKER_HOST`, else
    /// unix:///var/run/docker.sock.
    #[schemars(length(min = 1))]
    pub host: Option<String>,
}

/// A registry of images, and who opens it.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Registry {
    /// Host and port, perhaps with a path, such as `registry.example.com/shop`.
    #[schemars(length(min = 1))]
    pub url: String,
    /// Who logs in. Default: as `docker login` left it.
    pub username: Option<String>,
    /// The password, or a token; best a reference such as `${REGISTRY_PASSWORD}`.
    pub password: Option<String>,
}

/// A Kubernetes cluster.
#[derive(Debug, Clone, Default, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Kubernetes {
    /// The context of the kubeconfig. Default: its current one, or the cluster that norn runs in.
    #[schemars(length(min = 1))]
    pub context: Option<String>,
    /// The namespace of all objects, which must be there. Default: default.
    pub namespace: Option<Label>,
    /// The class of the Ingresses that publish apps under their `hosts.external`. Default: no Ingress.
    pub ingress_class: Option<Label>,
    /// The class of volumes. Default: the cluster's own.
    pub storage_class: Option<Label>,
}

/// A zone and a tunnel of Cloudflare, by which the world reaches the apps of a cluster.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Cloudflare {
    /// The zone that every `hosts.external` lies in, such as `example.com`.
    pub zone: HostName,
    /// The id of the tunnel, as `cloudflared tunnel list` shows it.
    pub tunnel: TunnelId,
    /// A token with the permissions Zone Read and DNS Edit; best a reference such as `${CLOUDFLARE_API_TOKEN}`.
    #[schemars(length(min = 1))]
    pub token: String,
    /// The ConfigMap whose `config.yaml` cloudflared reads. Default: cloudflared/cloudflared.
    pub config_map: Option<ObjectName>,
    /// The Deployment of cloudflared. Default: cloudflared/cloudflared.
    pub deployment: Option<ObjectName>,
}

/// A PostgreSQL server.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct PostgresServer {
    /// `postgres://user:password@host:port`; norn's alone, no app gets it.
    #[schemars(length(min = 1))]
    pub url: String,
}
