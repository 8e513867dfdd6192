//! A Kubernetes cluster: the objects of apps, and what becomes of them.
//!
//! Here: the cluster as the others use it. Elsewhere: the way in (`connect`), what its refusals mean
//! (`refusal`), what objects an app is (`objects`, `kinds`), putting and removing them (`apply`), whose
//! their fields are (`ownership`), how those that are there differ (`drift`), what serves (`seen`), what served before (`history`), waiting
//! until an app runs (`rollout`) and why it does not (`reasons`), what pods write (`logs`), texts in
//! ConfigMaps of others (`text`).
//! Invariants: what is changed carries this project's and this stage's labels, or was adopted on
//! purpose; every call ends in time, but for a log that is followed.

pub mod apply;
mod connect;
pub mod drift;
pub mod history;
pub mod kinds;
pub mod logs;
pub mod objects;
pub mod ownership;
pub mod reasons;
mod refusal;
pub mod rollout;
pub mod seen;
pub mod text;

use std::path::Path;
use std::time::Duration;

use kube::Client;
use kube::api::{Api, ApiResource, DynamicObject, ListParams};
use kube::core::NamespaceResourceScope;
use serde::de::DeserializeOwned;

use kinds::Kind;
pub use refusal::ClusterError;

use crate::failpoint;

/// How long a call may go without an answer.
const PATIENCE: Duration = Duration::from_secs(30);

/// A cluster that answered, and the namespace that is worked in.
#[derive(Clone)]
pub struct Cluster {
    client: Client,
    /// The URL of its apiserver.
    pub server: String,
    pub namespace: String,
    /// What tells this namespace of this cluster from all others; unknown where it may not be looked at.
    pub id: Option<String>,
}

impl Cluster {
    /// The objects of a kind whose fields are looked at by name.
    fn of(&self, kind: Kind) -> Api<DynamicObject> {
        let resource = ApiResource {
            group: kind.group().to_owned(),
            version: "v1".to_owned(),
            api_version: kind.api_version().to_owned(),
            kind: kind.as_str().to_owned(),
            plural: kind.plural().to_owned(),
        };
        Api::namespaced_with(self.client.clone(), &self.namespace, &resource)
    }

    /// The objects of a type.
    fn typed<K>(&self) -> Api<K>
    where
        K: kube::Resource<Scope = NamespaceResourceScope, DynamicType = ()>,
    {
        Api::namespaced(self.client.clone(), &self.namespace)
    }

    /// The objects of a type that are asked for.
    async fn list<K>(&self, params: ListParams) -> Result<Vec<K>, ClusterError>
    where
        K: kube::Resource<Scope = NamespaceResourceScope, DynamicType = ()>,
        K: Clone + std::fmt::Debug + DeserializeOwned,
    {
        let doing = format!("list {}", K::plural(&()));
        let found = self.answer(&doing, self.typed::<K>().list(&params)).await?;
        Ok(found.items)
    }

    /// The answer to a call, or what is the matter; `doing` is such as `list services`.
    async fn answer<T>(
        &self,
        doing: &str,
        call: impl Future<Output = Result<T, kube::Error>>,
    ) -> Result<T, ClusterError> {
        self.in_time(doing, call).await?.map_err(|error| self.refusal(doing, error))
    }

    /// The answer to a call as it is.
    async fn in_time<T>(&self, doing: &str, call: impl Future<Output = T>) -> Result<T, ClusterError> {
        tokio::time::timeout(PATIENCE, call).await.map_err(|_| ClusterError::Unreachable {
            server: self.server.clone(),
            why: format!("asked to {doing}, it said nothing for {} s", PATIENCE.as_secs()),
        })
    }

    /// The answer to a call that changes something.
    async fn change<T>(
        &self,
        doing: &str,
        call: impl Future<Output = Result<T, kube::Error>>,
    ) -> Result<T, ClusterError> {
        self.talk("ask to", doing)?;
        let answer = self.answer(doing, call).await?;
        self.talk("asked to", doing)?;
        Ok(answer)
    }

    /// A boundary of a change: where tests strike.
    fn talk(&self, act: &str, doing: &str) -> Result<(), ClusterError> {
        failpoint::talk(act, Path::new(doing)).map_err(|error| ClusterError::Unreachable {
            server: self.server.clone(),
            why: error.to_string(),
        })
    }

    fn refusal(&self, doing: &str, error: kube::Error) -> ClusterError {
        refusal::read(&self.server, &self.namespace, doing, error)
    }
}

#[cfg(test)]
mod tests;
