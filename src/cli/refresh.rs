//! `--refresh`: how the objects of apps in clusters differ from what norn put, field by field, and what
//! clusters would refuse of a plan.

use std::collections::BTreeMap;

use serde_json::Value;
use uuid::Uuid;

use super::clusters::{Reached, recorded};
use super::failure::Failure;
use crate::address::Address;
use crate::apply::container::pushed_as;
use crate::desired::{Definition, Desired, Rollout, Source};
use crate::plan::{Blocked, DeployWork, FieldDrift, Operation, Plan, Roll, Running, Work};
use crate::provider::docker::registry;
use crate::provider::kubernetes::apply::{How, Live};
use crate::provider::kubernetes::drift::{drift, is_within};
use crate::provider::kubernetes::objects::{App, Extra, pull_secret};
use crate::provider::kubernetes::ownership::is_norns;
use crate::provider::kubernetes::seen::{match_labels, pulls_with};
use crate::provider::kubernetes::{ClusterError, kinds};
use crate::provider::labels::APP;
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
    reached: &Reached,
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
        let cluster = reached.at(&desired.kubernetes, &name).await?;
        let live = cluster.live(scope).await?;
        for app in apps {
            let put = Put { scope, key, desired, stored, live: &live };
            fields.insert(app.clone(), put.differs(&app).unwrap_or_default());
        }
    }
    Ok(fields)
}

/// Has the clusters say, object by object, what they would refuse of a plan, by all their rules; an
/// operation with such an object is blocked. Returns why some could not be tried out.
///
/// # Errors
/// A cluster that cannot be reached, or does not take the login.
pub async fn try_out(
    reached: &Reached,
    scope: &Scope,
    desired: &Desired,
    stored: &Snapshot,
    plan: &mut Plan,
) -> Result<Vec<String>, Failure> {
    let spec = &desired.kubernetes;
    let due = plan.operations.iter_mut().filter(|operation| operation.blocked.is_none());
    let mut due =
        due.filter(|operation| operation.puts_live().is_some_and(|put| put.runtime.is_kubernetes()));
    let mut untried = Vec::new();
    let Some(first) = due.next() else { return Ok(untried) };
    let cluster = reached.at(spec, &spec.namespace).await?;
    // A store that was never written to has no key yet. It goes into names, which must tell nothing.
    let key = stored.key.clone().unwrap_or_else(|| Secret::new(Uuid::new_v4().to_string()));
    for operation in std::iter::once(first).chain(due) {
        let app = &operation.address.name;
        let Some(coming) = Coming::of(operation, scope, desired) else { continue };
        let found = kinds::Address { kind: kinds::Kind::Deployment, name: app.to_string() };
        let deployment = cluster.look(&found).await?.unwrap_or_default();
        let extra = Extra { selector: match_labels(&deployment), ..Extra::default() };
        let app = App {
            scope,
            name: app,
            definition: coming.definition,
            image: &coming.image,
            values: desired.values.of(app),
            key: &key,
            rollout: coming.rollout,
            extra: &extra,
        };
        let how = How { adopt: coming.adopt, force: coming.force, ..How::default() };
        let objects = app.objects();
        let tried = objects.iter().map(|object| cluster.try_out(scope, object, how));
        let mut objects = Vec::new();
        for tried in futures_util::future::join_all(tried).await {
            match tried {
                Ok(()) => {}
                Err(error) if error.is_of_the_object() => objects.push(error.to_string()),
                // Another may apply it who has the right to.
                Err(error @ ClusterError::Forbidden { .. }) => untried.push(error.to_string()),
                Err(error) => return Err(error.into()),
            }
        }
        if !objects.is_empty() {
            operation.blocked = Some(Blocked::Refused { objects });
        }
    }
    Ok(untried)
}

/// What an operation is to put into a cluster.
struct Coming<'a> {
    definition: &'a Definition,
    rollout: Rollout,
    /// By its tag where its digest is not known before it is built.
    image: String,
    adopt: bool,
    force: bool,
}

impl<'a> Coming<'a> {
    fn of(operation: &'a Operation, scope: &Scope, desired: &Desired) -> Option<Self> {
        match &operation.work {
            Work::Forge(work) => {
                let Roll { release, definition, rollout, adopt, force, .. } = work.roll.as_ref()?;
                let image = release.image.clone()?;
                Some(Self { definition, rollout: *rollout, image, adopt: *adopt, force: *force })
            }
            Work::Deploy(work) => {
                let image = match &work.source {
                    Source::Image { name } => format!("{}@{}", registry::repository(name), work.commit),
                    Source::Git { .. } | Source::Local { .. } => {
                        let registry = desired.registry.as_ref()?;
                        let (name, tag) = pushed_as(registry, scope, &operation.address.name, &work.tag);
                        format!("{name}:{tag}")
                    }
                };
                let DeployWork { definition, rollout, adopt, force, .. } = &**work;
                Some(Self { definition, rollout: *rollout, image, adopt: *adopt, force: *force })
            }
            Work::Teardown(_) => None,
        }
    }
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
        let pull = pull_secret(app);
        let extra = Extra {
            pull_secrets: if pulls_with(deployment, &pull) { vec![pull] } else { Vec::new() },
            selector: match_labels(deployment),
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
        // Only who has the login can put it, so it is no object that is compared.
        let pull = kinds::Address { kind: kinds::Kind::Secret, name: pull_secret(app) };
        if !extra.pull_secrets.is_empty() && !self.live.contains_key(&pull) {
            let (object, field) = (pull.to_string(), String::new());
            all.push(FieldDrift { object, field, wanted: None, found: None });
        }
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
        let wanted: Vec<kinds::Address> = put.ways().map(|way| way.address).collect();
        let reaches = |address: &&kinds::Address| {
            [kinds::Kind::Service, kinds::Kind::Ingress].contains(&address.kind) && !wanted.contains(address)
        };
        let own = |object: &Value| {
            object["metadata"]["labels"][APP].as_str() == Some(app.as_str()) && is_norns(object)
        };
        let unwanted = self.live.iter().filter(|(address, object)| reaches(address) && own(object));
        all.extend(unwanted.map(|(address, _)| FieldDrift {
            object: address.to_string(),
            field: String::new(),
            wanted: None,
            found: Some("there".to_owned()),
        }));
        Some(all)
    }
}

/// Whether a field is of how a release takes over, which no record holds.
fn of_a_rollout(field: &str) -> bool {
    is_within(field, &["progressDeadlineSeconds", "terminationGracePeriodSeconds", "lifecycle"])
}
