//! Putting objects into a cluster and taking them out again.
//!
//! Server-side apply: norn is the manager of the fields that it sets, and of no others. Invariants: an
//! object without this project's and stage's labels is changed only where it is adopted; fields of
//! other managers are taken over then only.

use std::collections::BTreeMap;
use std::time::Duration;

use kube::api::{
    DeleteParams, DynamicObject, ListParams, Patch, PatchParams, Preconditions, PropagationPolicy,
    ValidationDirective,
};
use serde_json::Value;
use tokio::time::{Instant, sleep};

use super::kinds::{Address, Kind, Object};
use super::objects::joined;
use super::ownership::unclaimed;
use super::refusal::MANAGER;
use super::{Cluster, ClusterError};
use crate::provider::labels::{self, APP};
use crate::state::Scope;

/// How often an object that is to go is looked for.
const LOOK: Duration = Duration::from_millis(250);

/// How objects are put.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct How {
    /// The server only says what it would do, all its rules included.
    pub dry_run: bool,
    /// Objects of others become this project's and stage's, fields of other managers too.
    pub adopt: bool,
    /// Fields of other managers become norn's, of its own objects only.
    pub force: bool,
}

/// What became of an object.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Change {
    Created,
    Changed,
    Same,
}

/// An object after it was put.
#[derive(Debug, Clone)]
pub struct Applied {
    pub change: Change,
    /// All of it, as the server has it; of a Secret without what is in it.
    pub body: Value,
}

/// The objects of a project and stage that are there.
pub type Live = BTreeMap<Address, Value>;

impl Cluster {
    /// What is there of a project and stage, by one call a kind. Secrets come without what is in them.
    ///
    /// # Errors
    /// A kind that may not be listed, and what every call can meet.
    pub async fn live(&self, scope: &Scope) -> Result<Live, ClusterError> {
        self.found(&Kind::ALL, &labels::of_stage(scope)).await
    }

    /// The objects of these kinds that have these labels, by one call a kind. Secrets come without what
    /// is in them.
    ///
    /// # Errors
    /// A kind that may not be listed, and what every call can meet.
    pub async fn found(
        &self,
        kinds: &[Kind],
        labels: &BTreeMap<String, String>,
    ) -> Result<Live, ClusterError> {
        let params = ListParams::default().labels(&joined(labels));
        let lists = kinds.iter().copied().map(|kind| {
            let params = &params;
            async move {
                let doing = format!("list {}", kind.plural());
                self.answer(&doing, self.of(kind).list(params)).await.map(|list| (kind, list))
            }
        });
        let mut live = Live::new();
        for list in futures_util::future::join_all(lists).await {
            let (kind, list) = list?;
            for object in list.items {
                let name = object.metadata.name.clone().unwrap_or_default();
                live.insert(Address { kind, name }, shown(kind, object));
            }
        }
        Ok(live)
    }

    /// An object, if it is there; a Secret without what is in it.
    ///
    /// # Errors
    /// What every call can meet.
    pub async fn look(&self, address: &Address) -> Result<Option<Value>, ClusterError> {
        let doing = format!("look at {address}");
        let found = self.answer(&doing, self.of(address.kind).get_opt(&address.name)).await?;
        Ok(found.map(|object| shown(address.kind, object)))
    }

    /// Makes an object be as it is to be.
    ///
    /// # Errors
    /// One of others, fields of others, fields that cannot be changed, rules and quotas of the cluster.
    pub async fn apply(&self, scope: &Scope, object: &Object, how: How) -> Result<Applied, ClusterError> {
        let address = &object.address;
        let before = self.look(address).await?;
        let object = &before.as_ref().map_or_else(|| object.clone(), |before| object.over(before));
        let body = &object.body;
        let foreign = |before: &Value| {
            self.own(scope, address, before).and_then(|()| of_one_app(self, object, before)).err()
        };
        if let Some(before) = &before {
            match foreign(before) {
                Some(error) if !how.adopt => return Err(error),
                Some(_) => {
                    self.take_over(object, before, how.dry_run).await?;
                    if how.dry_run {
                        return Ok(Applied { change: Change::Changed, body: before.clone() });
                    }
                }
                None if !how.dry_run && unclaimed(before) => self.claim_as_applied(address).await?,
                None => {}
            }
        }
        let put = |force: bool| async move {
            let params = PatchParams {
                dry_run: how.dry_run,
                force,
                field_manager: Some(MANAGER.to_owned()),
                field_validation: Some(ValidationDirective::Strict),
            };
            let call = self.of(address.kind);
            let (doing, patch) = (format!("apply {address}"), Patch::Apply(body));
            let call = call.patch(&address.name, &params, &patch);
            if how.dry_run { self.answer(&doing, call).await } else { self.change(&doing, call).await }
        };
        let after = match put(how.adopt || how.force).await {
            // What norn itself set before it applied on the server.
            Err(ClusterError::Conflict { claims, .. })
                if claims.iter().all(|(manager, _)| manager == MANAGER) =>
            {
                put(true).await?
            }
            other => other?,
        };
        let after = shown(address.kind, after);
        let version = |object: &Value| object["metadata"]["resourceVersion"].clone();
        let change = match &before {
            None => Change::Created,
            // A dry run gives no new version: what differs tells.
            Some(before) if how.dry_run && same(before, &after) => Change::Same,
            Some(before) if !how.dry_run && version(before) == version(&after) => Change::Same,
            Some(_) => Change::Changed,
        };
        Ok(Applied { change, body: after })
    }

    /// Has the server say whether it would take an object, by all its rules. One that would have to be made
    /// anew counts as taken, unless it holds data.
    ///
    /// # Errors
    /// As [`apply`](Self::apply).
    pub async fn try_out(&self, scope: &Scope, object: &Object, how: How) -> Result<(), ClusterError> {
        match self.apply(scope, object, How { dry_run: true, ..how }).await {
            Err(ClusterError::Immutable { .. }) if !object.address.kind.holds_data() => Ok(()),
            other => other.map(drop),
        }
    }

    /// Removes an object and what belongs to it, and waits until they are gone; one that is not there is
    /// as wanted.
    ///
    /// # Errors
    /// One of others, and one that is still there after `patience`.
    pub async fn delete(
        &self,
        scope: &Scope,
        address: &Address,
        patience: Duration,
    ) -> Result<(), ClusterError> {
        let Some(found) = self.look(address).await? else { return Ok(()) };
        self.own(scope, address, &found)?;
        let uid = found["metadata"]["uid"].as_str().map(str::to_owned);
        let params = DeleteParams {
            propagation_policy: Some(PropagationPolicy::Foreground),
            preconditions: Some(Preconditions { uid: uid.clone(), resource_version: None }),
            ..DeleteParams::default()
        };
        let objects = self.of(address.kind);
        let gone = async {
            match objects.delete(&address.name, &params).await {
                Err(kube::Error::Api(status)) if status.is_not_found() => Ok(()),
                other => other.map(|_| ()),
            }
        };
        self.change(&format!("delete {address}"), gone).await?;
        let began = Instant::now();
        while let Some(left) = self.look(address).await? {
            if left["metadata"]["uid"].as_str() != uid.as_deref() {
                break;
            }
            if began.elapsed() > patience {
                let holders = left["metadata"]["finalizers"].as_array().cloned().unwrap_or_default();
                let holders: Vec<&str> = holders.iter().filter_map(Value::as_str).collect();
                return Err(ClusterError::Refused {
                    doing: format!("delete {address} within {} s", patience.as_secs()),
                    why: format!("it is held by {}", holders.join(", ")),
                });
            }
            sleep(LOOK).await;
        }
        Ok(())
    }

    /// That an object is this project's and stage's.
    fn own(&self, scope: &Scope, address: &Address, found: &Value) -> Result<(), ClusterError> {
        let labels = &found["metadata"]["labels"];
        let ours = labels::of_stage(scope);
        if ours.iter().all(|(name, value)| labels[name.as_str()].as_str() == Some(value)) {
            return Ok(());
        }
        Err(ClusterError::Foreign {
            object: address.clone(),
            namespace: self.namespace.clone(),
            whose: whose(labels),
        })
    }
}

/// That an object is not another app's, whose name and volume make the same name.
fn of_one_app(cluster: &Cluster, object: &Object, found: &Value) -> Result<(), ClusterError> {
    let app = |object: &Value| object["metadata"]["labels"][APP].as_str().map(str::to_owned);
    match (app(found), app(&object.body)) {
        (Some(theirs), Some(own)) if theirs != own => Err(ClusterError::Foreign {
            object: object.address.clone(),
            namespace: cluster.namespace.clone(),
            whose: format!("it is of app {theirs}"),
        }),
        _ => Ok(()),
    }
}

/// Whose an object is that is not ours.
fn whose(labels: &Value) -> String {
    let said = |name: &str| labels[name].as_str().filter(|value| !value.is_empty());
    if let Some(project) = said("dev.norn.project") {
        let stage = said("dev.norn.stage").map_or("no stage".to_owned(), |stage| format!("stage {stage}"));
        return format!("it is of project {project}, {stage}");
    }
    if said("managed-by") == Some(MANAGER) {
        return "an earlier norn made it".to_owned();
    }
    match said("app.kubernetes.io/managed-by") {
        Some(manager) => format!("{manager} manages it"),
        None => "nobody says that it is theirs".to_owned(),
    }
}

/// An object as JSON, a Secret without what is in it.
fn shown(kind: Kind, object: DynamicObject) -> Value {
    let mut body = serde_json::to_value(object).expect("it came as JSON");
    if let Some(fields) = body.as_object_mut().filter(|_| kind == Kind::Secret) {
        fields.remove("data");
    }
    body
}

/// Whether two states of an object differ in nothing but what the server counts.
fn same(before: &Value, after: &Value) -> bool {
    let bare = |object: &Value| {
        let mut object = object.clone();
        if let Some(fields) = object.as_object_mut() {
            fields.remove("status");
        }
        if let Some(fields) = object["metadata"].as_object_mut() {
            for counted in ["managedFields", "resourceVersion", "generation"] {
                fields.remove(counted);
            }
        }
        object
    };
    bare(before) == bare(after)
}
