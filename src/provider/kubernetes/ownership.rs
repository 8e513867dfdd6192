//! Which fields are norn's: taking over objects of others, and having what was written count as applied.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{FieldsV1, ManagedFieldsEntry};
use kube::api::{Patch, PatchParams, PostParams};
use serde_json::{Value, json};
use tokio::time::sleep;

use super::history::{PAUSE, TRIES};
use super::kinds::{Address, Kind, Object};
use super::refusal::MANAGER;
use super::{Cluster, ClusterError};

impl Cluster {
    /// Makes an object of others be as it is to be, but for fields that norn does not know: a list is
    /// norn's as a whole, so that a container or a port of theirs is not left beside its own.
    ///
    /// # Errors
    /// A claim that its pods would lose, and what every call can meet. With `dry_run` the server only says
    /// what it would do.
    pub(super) async fn take_over(
        &self,
        object: &Object,
        found: &Value,
        dry_run: bool,
    ) -> Result<(), ClusterError> {
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
        let params =
            PatchParams { dry_run, field_manager: Some(MANAGER.to_owned()), ..PatchParams::default() };
        let (objects, patch) = (self.of(address.kind), Patch::Merge(&patch));
        let (doing, call) = (format!("take over {address}"), objects.patch(&address.name, &params, &patch));
        if dry_run {
            return self.answer(&doing, call).await.map(drop);
        }
        self.change(&doing, call).await?;
        self.claim_as_applied(address).await
    }

    /// Has a Service of others lead to ports by their numbers, as pods under a definition of norn's have
    /// other names for them.
    ///
    /// # Errors
    /// What every call can meet.
    pub async fn lead_by_number(
        &self,
        service: &Address,
        found: &Value,
        deployment: &Value,
    ) -> Result<(), ClusterError> {
        let containers =
            deployment["spec"]["template"]["spec"]["containers"].as_array().into_iter().flatten();
        let named: Vec<&Value> =
            containers.flat_map(|container| container["ports"].as_array().into_iter().flatten()).collect();
        let mut ports = found["spec"]["ports"].clone();
        let mut changed = false;
        for port in ports.as_array_mut().into_iter().flatten() {
            let target = port["targetPort"].as_str();
            let number = target.and_then(|name| named.iter().find(|port| port["name"] == name));
            if let Some(number) = number.map(|port| port["containerPort"].clone()) {
                port["targetPort"] = number;
                changed = true;
            }
        }
        if !changed {
            return Ok(());
        }
        let patch = json!({"spec": {"ports": ports}});
        let (objects, patch) = (self.of(service.kind), Patch::Merge(&patch));
        let params = PatchParams::default();
        let call = objects.patch(&service.name, &params, &patch);
        self.change(&format!("have {service} lead by number"), call).await.map(drop)
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
            self.talk("ask to", &doing)?;
            match self.in_time(&doing, objects.replace(&address.name, &as_norn(), &found)).await? {
                // A controller wrote into it meanwhile.
                Err(kube::Error::Api(status)) if status.is_conflict() && tries < TRIES => sleep(PAUSE).await,
                Err(error) => return Err(self.refusal(&doing, error)),
                Ok(_) => return self.talk("asked to", &doing),
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

/// Whether norn put an object: what others copied from one has its labels only.
pub fn is_norns(found: &Value) -> bool {
    let mut entries = found["metadata"]["managedFields"].as_array().into_iter().flatten();
    entries.any(|entry| entry["manager"] == MANAGER)
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
