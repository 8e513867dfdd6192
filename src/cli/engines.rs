//! What runs on Docker engines of other hosts: looked at by one list of containers an engine.

use std::collections::{BTreeMap, BTreeSet};

use serde::Deserialize;

use super::failure::{Exit, Failure};
use super::recorded;
use crate::apply::recovery;
use crate::desired::{Definition, Desired, Runtime};
use crate::plan::{Operation, Plan, Running, Step, Work};
use crate::provider::docker::address::Address as EngineAddress;
use crate::provider::docker::served::{Container, Sorted, sort};
use crate::provider::docker::{Engine, EngineError, Labels};
use crate::spec::engine::Site;
use crate::spec::name::AppName;
use crate::state::format::{RemoteEngine, store_id};
use crate::state::{Scope, Snapshot};

impl From<EngineError> for Failure {
    fn from(error: EngineError) -> Self {
        Failure::new(error.to_string())
    }
}

/// The apps that are on an engine of another host, and which, as far as that is recorded.
pub fn recorded(stored: &Snapshot) -> BTreeMap<AppName, RemoteEngine> {
    recorded::places(stored, "engine")
}

/// The apps on engines that are `lost`.
pub fn lost(stored: &Snapshot, lost: &[String]) -> BTreeSet<AppName> {
    let there = recorded(stored).into_iter().filter(|(_, engine)| lost.contains(&engine.address));
    there.map(|(app, _)| app).collect()
}

/// The apps that are on such an engine, or are to be.
pub fn apps(stored: &Snapshot, desired: &Desired) -> BTreeMap<AppName, Option<RemoteEngine>> {
    recorded::with_new(recorded(stored), stored, desired, |definition| definition.engine.is_some())
}

/// Connects to an engine, and says which it is.
///
/// # Errors
/// One that cannot be reached.
pub async fn reach(address: &EngineAddress) -> Result<(Engine, RemoteEngine), EngineError> {
    let engine = Engine::connect(address).await?;
    let id = engine.id().await?;
    Ok((engine, RemoteEngine { address: address.host.clone(), id }))
}

/// What runs of these apps. Nothing is left of what ran on the `lost` engines.
///
/// # Errors
/// An engine that cannot be looked at.
pub async fn look(
    scope: &Scope,
    stored: &Snapshot,
    desired: &Desired,
    apps: BTreeMap<AppName, Option<RemoteEngine>>,
    lost: &[String],
) -> Result<BTreeMap<AppName, Running>, Failure> {
    if apps.is_empty() {
        return Ok(BTreeMap::new());
    }
    let own = stored.key.as_ref().map(store_id);
    refuse_what_answers(stored, desired, lost).await?;
    let address = desired.docker.as_deref().filter(|address| Site::at(address).elsewhere().is_some());
    let there = match address.filter(|address| !lost.iter().any(|lost| lost == address)) {
        Some(address) => {
            let (engine, place) = reach(&EngineAddress::of(Some(address))).await?;
            Some((place, by_app(engine.serving(&Labels::of_scope(scope)).await?)))
        }
        None => None,
    };
    let seen = apps.into_iter().map(|(app, recorded)| {
        let recorded = recorded.filter(|recorded| !lost.contains(&recorded.address));
        let running = match (&there, recorded) {
            (Some((place, _)), Some(recorded)) if !recorded.is(place) => elsewhere(&recorded),
            (None, Some(recorded)) => elsewhere(&recorded),
            (Some((place, found)), _) => {
                let found = found.get(app.as_str()).map_or(&[][..], Vec::as_slice);
                match foreign(found, own.as_deref()) {
                    Some(container) => {
                        let host = format!("{place}, as {} of another state", container.name);
                        Running::Elsewhere { host }
                    }
                    None => running(found),
                }
            }
            (None, None) => Running::Nothing,
        };
        (app, running)
    });
    Ok(seen.collect())
}

/// An engine that is said to be lost and answers where the spec has it.
async fn refuse_what_answers(stored: &Snapshot, desired: &Desired, lost: &[String]) -> Result<(), Failure> {
    let Some(address) = desired.docker.as_ref().filter(|address| lost.contains(address)) else {
        return Ok(());
    };
    let Ok((_, there)) = reach(&EngineAddress::of(Some(address))).await else { return Ok(()) };
    match recorded(stored).into_values().any(|engine| engine.is(&there)) {
        true => Err(Failure::new(format!("{there} answers, so what it has is not lost"))
            .help("leave --lost out; what is of another state there is taken away from where that state is")),
        false => Ok(()),
    }
}

/// Ends the tests and migrations that dead runs left on engines of other hosts; how many there were.
///
/// # Errors
/// An engine that cannot be looked at: a migration may go on there.
pub async fn end_commands(scope: &Scope, stored: &Snapshot, lost: &[String]) -> Result<usize, Failure> {
    let Some(own) = stored.key.as_ref().map(store_id) else { return Ok(0) };
    let mut ended = 0;
    for operation in recovery::left_in(stored, &[Step::Test, Step::Migrate]) {
        let Ok(there) = RemoteEngine::deserialize(&operation.intent["forge"]["engine"]) else { continue };
        if lost.contains(&there.address) {
            continue;
        }
        let (engine, now) = reach(&EngineAddress::of(Some(&there.address))).await?;
        if there.is(&now) {
            ended += engine.sweep(&Labels::new(scope, &operation.address.name).of_store(&own)).await?;
        }
    }
    Ok(ended)
}

fn elsewhere(engine: &RemoteEngine) -> Running {
    Running::Elsewhere { host: engine.to_string() }
}

fn by_app(containers: Vec<Container>) -> BTreeMap<String, Vec<Container>> {
    let mut found: BTreeMap<String, Vec<Container>> = BTreeMap::new();
    for container in containers {
        found.entry(container.app.clone()).or_default().push(container);
    }
    found
}

/// What a plan needs of an app's containers.
fn running(containers: &[Container]) -> Running {
    let Sorted { live, whole, left } = sort(containers);
    let up = live.iter().filter(|container| container.is_up()).count();
    let Some(one) = live.first().filter(|_| up > 0) else {
        return match left.is_empty() {
            true => Running::Nothing,
            // What a killed exchange left beside nothing.
            false => Running::Serving {
                tag: None,
                definition: None,
                wanted: 0,
                healthy: 0,
                reached: false,
                image: None,
            },
        };
    };
    let healthy = live.iter().filter(|container| container.runs).count();
    Running::Serving {
        tag: Some(one.release.clone()),
        // Where one is missing, it is not what was put live.
        definition: Some(one.definition.clone()).filter(|_| whole && up == live.len()),
        wanted: one.replicas,
        healthy: u32::try_from(healthy).unwrap_or(u32::MAX),
        reached: left.is_empty(),
        image: Some(one.image.clone()),
    }
}

/// The first container that another state knows of: it is not this one's to touch.
fn foreign<'a>(containers: &'a [Container], own: Option<&str>) -> Option<&'a Container> {
    containers.iter().find(|container| Some(container.store.as_str()) != own)
}

/// What `norn status` tells of an app on such an engine.
#[derive(Debug, Clone)]
pub enum Told {
    Seen(Vec<Container>),
    /// It is another engine by now.
    Elsewhere(RemoteEngine),
    /// The engine cannot be looked at, and why.
    Unknown(String),
}

impl Told {
    /// What a plan would need of it.
    pub fn running(&self) -> Running {
        match self {
            Told::Seen(containers) => running(containers),
            Told::Elsewhere(engine) => elsewhere(engine),
            Told::Unknown(why) => Running::Silent { why: why.clone() },
        }
    }
}

/// What is told of the apps that are on engines of other hosts.
pub async fn tell(scope: &Scope, stored: &Snapshot) -> BTreeMap<AppName, Told> {
    let mut engines: BTreeMap<String, Vec<(AppName, RemoteEngine)>> = BTreeMap::new();
    for (app, engine) in recorded(stored) {
        engines.entry(engine.address.clone()).or_default().push((app, engine));
    }
    let mut told = BTreeMap::new();
    let store = stored.key.as_ref().map(store_id);
    for (address, apps) in engines {
        let looked = async {
            let (engine, own) = reach(&EngineAddress::of(Some(&address))).await?;
            let labels = Labels::of_scope(scope).of_store(store.as_deref().unwrap_or_default());
            Ok::<_, EngineError>((own, by_app(engine.serving(&labels).await?)))
        };
        let looked = looked.await;
        told.extend(apps.into_iter().map(|(app, recorded)| {
            let seen = match &looked {
                Ok((own, _)) if !recorded.is(own) => Told::Elsewhere(recorded),
                Ok((_, found)) => Told::Seen(found.get(app.as_str()).cloned().unwrap_or_default()),
                Err(error) => Told::Unknown(error.to_string()),
            };
            (app, seen)
        }));
    }
    told
}

/// The engine of another host that a plan works on, if it does; `lost` are given up by it.
///
/// # Errors
/// One that cannot be reached, and another than the plan was made for.
pub async fn of(
    plan: &Plan,
    address: &EngineAddress,
    lost: &[String],
) -> Result<Option<RemoteEngine>, Failure> {
    let definitions = plan.operations.iter().filter_map(|operation| match &operation.work {
        Work::Forge(work) => {
            let recorded = work.live.as_ref().is_some_and(|live| live.engine.is_some());
            work.roll.as_ref().map(|roll| (&roll.definition, recorded))
        }
        Work::Deploy(work) => Some((&work.definition, false)),
        Work::Teardown(_) => None,
    });
    let forged = plan
        .operations
        .iter()
        .any(|operation| matches!(&operation.work, Work::Forge(work) if work.runtime == Runtime::Docker));
    let there = Site::at(&address.host).elsewhere();
    let mut wanted = forged && there.is_some();
    for (Definition { engine, .. }, recorded) in definitions.filter(|(d, _)| d.runtime == Runtime::Docker) {
        // What is recorded is known by the engine's id, whatever its address is now.
        let other = if recorded { engine.is_some() != there.is_some() } else { engine.as_deref() != there };
        if other {
            return Err(another(engine.as_deref().unwrap_or("on this machine"), address));
        }
        wanted |= engine.is_some();
    }
    wanted |= plan
        .operations
        .iter()
        .any(|operation| matches!(&operation.work, Work::Teardown(work) if work.engine.is_some()));
    if !wanted {
        if there.is_none() && plan.operations.iter().any(on_docker) {
            // Nothing is begun that could not be ended.
            Engine::connect(address).await?;
        }
        return Ok(None);
    }
    let (_, own) = reach(address).await?;
    let mut known = plan.operations.iter().filter_map(|operation| match &operation.work {
        Work::Forge(work) => work.live.as_ref()?.engine.as_ref(),
        Work::Teardown(work) => work.engine.as_ref(),
        Work::Deploy(_) => None,
    });
    match known.find(|engine| !lost.contains(&engine.address) && !engine.is(&own)) {
        Some(engine) => Err(another(&engine.address, address)),
        None => Ok(Some(own)),
    }
}

fn on_docker(operation: &Operation) -> bool {
    let runtime = match &operation.work {
        Work::Forge(work) => work.runtime,
        Work::Deploy(work) => work.definition.runtime,
        Work::Teardown(work) => work.runtime,
    };
    runtime == Runtime::Docker
}

fn another(planned: &str, address: &EngineAddress) -> Failure {
    Failure::new(format!(
        "the plan is for the Docker engine {planned}, and the engine is {} now",
        address.host
    ))
    .exit(Exit::Outdated)
    .help("set `docker.host` or DOCKER_HOST as it was when the plan was made, or plan again")
}
