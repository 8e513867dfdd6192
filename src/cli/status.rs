//! `norn status`: what runs, from one look at the state and at each supervisor.

use std::collections::{BTreeMap, BTreeSet};

use jiff::Timestamp;

use super::args::{Global, Status};
use super::clusters::{self, Seen, Told};
use super::engines;
use super::facts;
use super::failure::{Exit, Failure};
use super::plan::unknown_app;
use super::project::Project;
use crate::address::{Address, Kind};
use crate::apply::{self, recovery};
use crate::desired::Role;
use crate::plan::Running;
use crate::provider::docker::served::sort;
use crate::provider::machine;
use crate::provider::supervise::client::Observation;
use crate::provider::supervise::protocol;
use crate::render::Printer;
use crate::render::status::{AppV1, StatusV1, table};
use crate::spec::name::AppName;
use crate::state::format::{DeployV1, ForgeV1};
use crate::state::{Change, DeploymentStatus, Record, Snapshot};

pub fn run(global: &Global, options: &Status, printer: Printer) -> Result<Exit, Failure> {
    super::runtime()?.block_on(async {
        let project = Project::open(global, printer).await?;
        let mut stored = project.stored().await?;
        let there = match clusters::recorded(&stored).is_empty() {
            true => BTreeMap::new(),
            false => {
                clusters::tell(&project.clusters, &project.scope, &project.kubernetes(global)?, &stored).await
            }
        };
        let remote = engines::tell(&project.scope, &stored).await;
        let seen = facts::observe(project.home(), &stored, None, &[]).await;
        let mut running: BTreeMap<AppName, Running> =
            seen.iter().map(|(name, seen)| (name.clone(), facts::state_of(seen))).collect();
        running.extend(there.iter().map(|(name, told)| (name.clone(), told.running())));
        running.extend(remote.iter().map(|(name, told)| (name.clone(), told.running())));
        let held = stored.lock.clone().filter(|held| machine::alive(&held.holder.process) != Some(false));
        let left = recovery::settle(&mut stored, &running, None, &machine::alive);
        let known: BTreeSet<&AppName> =
            stored.resources.keys().filter(|a| a.kind == Kind::Forge).map(|a| &a.name).collect();
        if let Some(name) = options.app.as_ref().filter(|name| !known.contains(name)) {
            return Err(unknown_app(name, known));
        }
        let wanted = known.into_iter().filter(|name| options.app.as_ref().is_none_or(|only| only == *name));
        let absent = Observation::Absent;
        let told = |name: &AppName| match (there.get(name), remote.get(name)) {
            (Some(told), _) => in_cluster(row(name, &stored), told),
            (None, Some(told)) => on_engine(row(name, &stored), told),
            (None, None) => here(row(name, &stored), seen.get(name).unwrap_or(&absent)),
        };
        let apps = wanted.map(told).collect();
        let status = StatusV1 {
            format_version: 1,
            project: project.scope.project.to_string(),
            stage: project.stage.as_ref().map(ToString::to_string),
            apps,
            running: held.map(|held| held.to_string()),
            unsettled: left.iter().filter_map(|change| unsettled(change, &stored)).collect(),
        };
        if global.json {
            let text = serde_json::to_string_pretty(&status).expect("a status has text keys only");
            printer.data(&text);
        } else if status.apps.is_empty() {
            printer.data("nothing is deployed yet\n");
        } else {
            printer.data(&table(&status, printer.out_color));
        }
        Ok(Exit::Ok)
    })
}

fn unsettled(change: &Change, stored: &Snapshot) -> Option<String> {
    match change {
        Change::DeploymentStatus { id, status, error } => {
            let row = stored.deployments.iter().find(|row| row.id == *id)?;
            Some(match status {
                DeploymentStatus::RolledBack => {
                    format!("deploy/{}: {} was gone back from", row.app, row.image_tag)
                }
                _ => format!("deploy/{}: {error}", row.app),
            })
        }
        Change::ForgeEnded { app, error, .. } => Some(format!("forge/{app}: {error}")),
        Change::RecordPut { address, .. } => Some(format!("{address} serves and is not recorded")),
        _ => None,
    }
}

/// What the state alone tells of an app.
fn row(name: &AppName, stored: &Snapshot) -> AppV1 {
    let record = |address: Address| stored.resources.get(&address);
    let forge: Option<ForgeV1> = record(Address::forge(name)).and_then(Record::read);
    let release: Option<DeployV1> = record(Address::deploy(name)).and_then(Record::read);
    let definition = forge.and_then(|forge| forge.definition);
    let wanted = definition.as_ref().map_or(0, |definition| definition.replicas);
    AppV1 {
        app: name.to_string(),
        role: definition.as_ref().map(|definition| match definition.role {
            Role::Webserver => "webserver",
            Role::Worker => "worker",
        }),
        health: if release.is_some() { "down" } else { "not-deployed" },
        why: None,
        ready: 0,
        wanted,
        commit: release.as_ref().map(|release| release.commit.clone()),
        tag: release.as_ref().map(|release| release.tag.clone()),
        url: definition.as_ref().and_then(apply::reached),
        age_seconds: None,
        restarts: 0,
    }
}

/// With what its cluster tells.
fn in_cluster(mut out: AppV1, told: &Told) -> AppV1 {
    match told {
        _ if out.health == "not-deployed" => {}
        Told::Unknown(why) => {
            out.health = "silent";
            out.why = Some(why.clone());
        }
        Told::Seen(Seen::Elsewhere(namespace), _) => {
            out.health = "elsewhere";
            out.why = Some(format!("it runs in {namespace}"));
        }
        Told::Seen(Seen::Nothing, _) if out.wanted == 0 => out.health = "scaled-to-zero",
        Told::Seen(Seen::Nothing, _) => out.why = Some("nothing runs; `norn apply` starts it".into()),
        Told::Seen(Seen::Serving(serving), pods) => {
            out.ready = serving.ready;
            out.restarts = pods.restarts;
            let age = pods.since.map(|since| Timestamp::now().duration_since(since).as_secs());
            out.age_seconds = age.and_then(|age| u64::try_from(age).ok());
            out.health = health(out.ready, out.wanted);
            out.why = pods.why.clone().or_else(|| serving.why.clone());
        }
    }
    out
}

/// With what its engine on another host tells.
fn on_engine(mut out: AppV1, told: &engines::Told) -> AppV1 {
    match told {
        _ if out.health == "not-deployed" => {}
        engines::Told::Unknown(why) => {
            out.health = "silent";
            out.why = Some(why.clone());
        }
        engines::Told::Elsewhere(engine) => {
            out.health = "elsewhere";
            out.why = Some(format!("it runs on {engine}, which is another now"));
        }
        engines::Told::Seen(containers) => {
            let serving = sort(containers).live;
            out.ready =
                u32::try_from(serving.iter().filter(|container| container.runs).count()).unwrap_or(u32::MAX);
            out.health = health(out.ready, out.wanted);
            let idle = serving.iter().find(|container| !container.runs);
            let nothing = !serving.iter().any(|container| container.is_up());
            out.why = match (idle, nothing && out.wanted > 0) {
                (_, true) => Some("nothing runs there; `norn apply` starts it".into()),
                (Some(container), _) => Some(format!("{}: {}", container.name, container.status)),
                (None, false) => None,
            };
            let oldest = serving.iter().map(|container| container.created).min();
            let age = oldest.map(|created| Timestamp::now().as_second() - created);
            out.age_seconds = age.and_then(|age| u64::try_from(age).ok());
        }
    }
    out
}

/// With what its supervisor tells.
fn here(mut out: AppV1, seen: &Observation) -> AppV1 {
    match seen {
        _ if out.health == "not-deployed" => {}
        Observation::Running(status) => serving(&mut out, status),
        _ if out.wanted == 0 => out.health = "scaled-to-zero",
        Observation::Unsupervised { replicas } if replicas.is_empty() => {
            out.why = Some("its processes and their supervisor are gone; `norn apply` starts it".into());
        }
        Observation::Absent => out.why = Some("nothing runs here; `norn apply` starts it".into()),
        Observation::Rebooted => {
            out.health = "stopped";
            out.why = Some("the machine was started anew; `norn apply` starts it".into());
        }
        Observation::Unsupervised { replicas } => {
            out.health = "unsupervised";
            let n = replicas.len();
            let left = if n == 1 { "1 process is".to_owned() } else { format!("{n} processes are") };
            out.why = Some(format!("the supervisor is gone, {left} left; `norn apply` mends it"));
        }
        Observation::Silent { why } => {
            out.health = "silent";
            out.why = Some(format!("the supervisor does not answer: {why}"));
        }
        Observation::OtherMachine { who } => {
            out.health = "elsewhere";
            out.why = Some(format!("it runs on {who}"));
        }
    }
    out
}

fn serving(out: &mut AppV1, status: &protocol::Status) {
    let healthy = status.replicas.iter().filter(|replica| replica.healthy).count();
    out.ready = u32::try_from(healthy).unwrap_or(u32::MAX);
    out.age_seconds = status.replicas.iter().map(|replica| replica.age_seconds).max();
    out.restarts = status.replicas.iter().map(|replica| replica.restarts).sum();
    out.why =
        status.replicas.iter().filter(|replica| !replica.healthy).find_map(|replica| replica.answer.clone());
    out.health = health(out.ready, out.wanted);
}

fn health(ready: u32, wanted: u32) -> &'static str {
    match (ready, wanted) {
        (_, 0) => "scaled-to-zero",
        (0, _) => "down",
        (ready, wanted) if ready < wanted => "degraded",
        _ => "healthy",
    }
}
