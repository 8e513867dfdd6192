//! Which fields are norn's: taking over objects of others, and having what was written count as applied.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{FieldsV1, ManagedFieldsEntry};
use kube::api::{Patch, PatchParams, PostParams};
use serde_json::Value;

use super::history::TRIES;
use super::kinds::{Address, Kind, Object};
use super::refusal::MANAGER;
use super::{Cluster, ClusterError};

impl Cluster {
    /// Makes an object of others be as it is to be, but for fields that norn does not know: a list is
    /// norn's as a whole, so that a container or a port of theirs is not left beside its own.
    ///
    /// # Errors
    /// A claim that its pods would lose, and what every call can meet.
    pub(super) async fn take_over(&self, object: &Object, found: &Value) -> Result<(), ClusterError> {
        let Object { address, body } = object;
        let lost: Vec<String> =
            claims(found).filter(|claim| !claims(body).any(|own| own == *claim)).collect();
        if !lost.is_empty() {
            return Err(ClusterError::Refused {
                doing: format!("take over {address}"),
                why: format!(
                    "its pods would lose {}: give the app the volume (the claim of volume `data` is {}-data), or \
                     take it from {address} first",
                    lost.join(", "),
                    address.name
                ),
            });
        }
        let mut patch = body.clone();
        // What this way of replacing pods has no use for.
        if patch["spec"]["strategy"]["type"] == "Recreate" {
            patch["spec"]["strategy"]["rollingUpdate"] = Value::Null;
        }
        let params = PatchParams { field_manager: Some(MANAGER.to_owned()), ..PatchParams::default() };
        let (objects, patch) = (self.of(address.kind), Patch::Merge(&patch));
        self.change(&format!("take over {address}"), objects.patch(&address.name, &params, &patch)).await?;
        self.claim_as_applied(address).await
    }

    /// Has the fields that norn wrote be its own as if they had been applied: the next apply takes out
    /// what it does not want of them, which it does with no others.
    pub(super) async fn claim_as_applied(&self, address: &Address) -> Result<(), ClusterError> {
        let doing = format!("claim the fields of {address}");
        let objects = self.of(address.kind);
        let mut tries = 0;
        loop {
            let mut found = self.answer(&doing, objects.get(&address.name)).await?;
            let entries = found.metadata.managed_fields.take().unwrap_or_default();
            let (written, mut entries): (Vec<_>, Vec<_>) =
                entries.into_iter().partition(|entry| own(entry, "Update"));
            for mut entry in written {
                match entries.iter_mut().find(|entry| own(entry, "Apply")) {
                    Some(applied) => {
                        let fields = entry.fields_v1.map(|fields| fields.0).unwrap_or_default();
                        merge(&mut applied.fields_v1.get_or_insert_with(|| FieldsV1(Value::Null)).0, fields);
                    }
                    None => {
                        entry.operation = Some("Apply".to_owned());
                        entries.push(entry);
                    }
                }
            }
            found.metadata.managed_fields = Some(entries);
            tries += 1;
            match objects.replace(&address.name, &as_norn(), &found).await {
                // A controller wrote into it meanwhile.
                Err(kube::Error::Api(status)) if status.is_conflict() && tries < TRIES => {}
                other => return other.map(drop).map_err(|error| self.refusal(&doing, error)),
            }
        }
    }
}

/// Whether norn wrote fields of an object that do not count as applied yet: it was killed before.
pub(super) fn unclaimed(found: &Value) -> bool {
    let entries = found["metadata"]["managedFields"].as_array().into_iter().flatten();
    let mut own = entries.filter(|entry| entry["manager"] == MANAGER && entry["subresource"].is_null());
    own.any(|entry| entry["operation"] == "Update")
}

pub(super) fn as_norn() -> PostParams {
    PostParams { field_manager: Some(MANAGER.to_owned()), ..PostParams::default() }
}

fn own(entry: &ManagedFieldsEntry, operation: &str) -> bool {
    let of = (entry.manager.as_deref(), entry.operation.as_deref(), entry.subresource.as_deref());
    of == (Some(MANAGER), Some(operation), None)
}

/// The claims that the pods of a Deployment have.
fn claims(object: &Value) -> impl Iterator<Item = String> {
    let volumes = object["spec"]["template"]["spec"]["volumes"].as_array().into_iter().flatten();
    let named = volumes.filter_map(|volume| volume["persistentVolumeClaim"]["claimName"].as_str());
    named.map(|name| Address { kind: Kind::PersistentVolumeClaim, name: name.to_owned() }.to_string())
}

/// Adds to a tree of fields those of another.
fn merge(into: &mut Value, other: Value) {
    match (into, other) {
        (Value::Object(into), Value::Object(other)) => {
            for (name, fields) in other {
                merge(into.entry(name).or_insert(Value::Null), fields);
            }
        }
        (into @ Value::Null, other) => *into = other,
        (_, _) => {}
    }
}
