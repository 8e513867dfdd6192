//! `--refresh`: how the objects of apps in clusters differ from what norn put, field by field.

use std::collections::BTreeMap;

use super::clusters::recorded;
use super::failure::Failure;
use crate::address::Address;
use crate::desired::Desired;
use crate::plan::{FieldDrift, Running};
use crate::provider::kubernetes::apply::Live;
use crate::provider::kubernetes::drift::drift;
use crate::provider::kubernetes::objects::{App, Extra, pull_secret};
use crate::provider::kubernetes::{Cluster, kinds};
use crate::secret::Secret;
use crate::spec::name::AppName;
use crate::state::format::{self, DeployV1, ForgeV1};
use crate::state::{Scope, Snapshot};

/// The fields in clusters that are not as norn put them, by app: one list a kind of object. An app of
/// which something else differs is set right as a whole.
///
/// # Errors
/// A cluster that cannot be looked at.
pub async fn fields(
    scope: &Scope,
    desired: &Desired,
    stored: &Snapshot,
    running: &BTreeMap<AppName, Running>,
) -> Result<BTreeMap<AppName, Vec<FieldDrift>>, Failure> {
    let Some(key) = &stored.key else { return Ok(BTreeMap::new()) };
    let mut namespaces: BTreeMap<String, Vec<AppName>> = BTreeMap::new();
    for (app, namespace) in recorded(stored) {
        if matches!(running.get(&app), Some(Running::Serving { .. })) {
            namespaces.entry(namespace.name).or_default().push(app);
        }
    }
    let mut fields = BTreeMap::new();
    for (name, apps) in namespaces {
        let cluster = Cluster::connect(desired.kubernetes.context.as_deref(), &name).await?;
        let live = cluster.live(scope).await?;
        for app in apps {
            let put = Put { scope, key, desired, stored, live: &live };
            fields.insert(app.clone(), put.differs(&app).unwrap_or_default());
        }
    }
    Ok(fields)
}

/// What norn put into a namespace, as far as it is recorded.
struct Put<'a> {
    scope: &'a Scope,
    key: &'a Secret,
    desired: &'a Desired,
    stored: &'a Snapshot,
    live: &'a Live,
}

impl Put<'_> {
    /// How the objects of an app differ from what was put; nothing where that is not known any more.
    fn differs(&self, app: &AppName) -> Option<Vec<FieldDrift>> {
        let forge: ForgeV1 = self.stored.resources.get(&Address::forge(app))?.read()?;
        let release: DeployV1 = self.stored.resources.get(&Address::deploy(app))?.read()?;
        let definition = forge.definition.as_ref()?;
        let values = self.desired.values.of(app);
        // Another value makes another Secret: that is a change of the spec.
        if format::fingerprints(definition, values, self.key) != forge.values {
            return None;
        }
        let found = |kind| self.live.get(&kinds::Address { kind, name: app.to_string() });
        let deployment = found(kinds::Kind::Deployment)?;
        let pulls = deployment["spec"]["template"]["spec"]["imagePullSecrets"].is_array();
        let extra = Extra {
            pull_secrets: if pulls { vec![pull_secret(app)] } else { Vec::new() },
            selector: serde_json::from_value(deployment["spec"]["selector"]["matchLabels"].clone()).ok(),
            commit: Some(release.commit.clone()),
            operation: deployment["metadata"]["labels"]["dev.norn.operation"].as_str().map(str::to_owned),
            release: Some(release.tag.clone()),
            digest: Some(forge.definition_digest()),
        };
        let put = App {
            scope: self.scope,
            name: app,
            definition,
            image: release.image.as_deref()?,
            values,
            key: self.key,
            rollout: self.desired.apps.get(app).map(|app| app.rollout).unwrap_or_default(),
            extra: &extra,
        };
        let mut all = Vec::new();
        for object in put.objects() {
            let named = object.address.to_string();
            let Some(there) = self.live.get(&object.address) else {
                all.push(FieldDrift { object: named, field: String::new(), wanted: None, found: None });
                continue;
            };
            let differences = drift(&object, there).into_iter().filter(|one| !of_a_rollout(&one.field));
            all.extend(differences.map(|one| FieldDrift {
                object: named.clone(),
                field: one.field,
                wanted: one.wanted.map(|value| value.to_string()),
                found: one.found.map(|value| value.to_string()),
            }));
        }
        Some(all)
    }
}

/// Whether a field is of how a release takes over, which no record holds.
fn of_a_rollout(field: &str) -> bool {
    ["progressDeadlineSeconds", "terminationGracePeriodSeconds", "lifecycle"]
        .iter()
        .any(|part| field.split('.').any(|name| name == *part))
}
