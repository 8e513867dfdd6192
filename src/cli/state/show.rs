//! `norn state show`: what is recorded.

use std::collections::{BTreeMap, BTreeSet};

use crate::address::Address;
use crate::cli::args::Global;
use crate::cli::failure::{Exit, Failure};
use crate::cli::project::{Project, store_failure};
use crate::render::Printer;
use crate::render::records::{AppV1, DeploymentV1, OperationV1, ResourceV1, StateV1, record, table};
use crate::spec::name::AppName;
use crate::state::{Deployment, Operated, Snapshot};

/// How many operations on one address are shown.
const OPERATIONS: u32 = 20;

pub fn run(global: &Global, address: Option<&Address>, printer: Printer) -> Result<Exit, Failure> {
    crate::cli::runtime()?.block_on(async {
        let project = Project::open(global, printer).await?;
        let store = &project.store;
        let stored = project.stored().await?;
        let updated = store.updated().await.map_err(store_failure)?;
        let mut operations = None;
        if let Some(address) = address {
            if !stored.resources.contains_key(address) {
                return Err(unknown(address, &stored));
            }
            let rows = store.operations(address, OPERATIONS).await.map_err(store_failure)?;
            operations = Some(rows.into_iter().map(operation).collect());
        }
        let shown = |named: &&Address| address.is_none_or(|only| only == *named);
        let resources =
            stored.resources.iter().filter(|(named, _)| shown(named)).map(|(named, stored)| ResourceV1 {
                address: named.to_string(),
                digest: stored.digest.clone(),
                protected: stored.protected,
                updated_at: updated.get(named).map(ToString::to_string),
                record: address.map(|_| stored.body.clone()),
                operations: operations.take(),
            });
        let document = StateV1 {
            format_version: 1,
            project: project.scope.project.to_string(),
            stage: project.stage.as_ref().map(ToString::to_string),
            state: project.state_label(),
            resources: resources.collect(),
            apps: apps(&stored, address.map(|address| &address.name)),
        };
        let text = match (global.json, address, document.resources.first()) {
            (true, ..) => serde_json::to_string_pretty(&document).expect("a state has text keys only"),
            (false, Some(_), Some(resource)) => record(resource, printer.out_color),
            (false, ..) => table(&document),
        };
        printer.data(&text);
        Ok(Exit::Ok)
    })
}

fn apps(stored: &Snapshot, only: Option<&AppName>) -> Vec<AppV1> {
    // A later row takes the place of an earlier one.
    let newest: BTreeMap<&AppName, &Deployment> =
        stored.deployments.iter().map(|row| (&row.app, row)).collect();
    let names: BTreeSet<&AppName> = stored.forges.keys().chain(newest.keys().copied()).collect();
    let shown = names.into_iter().filter(|name| only.is_none_or(|only| only == *name));
    let apps = shown.map(|name| AppV1 {
        app: name.to_string(),
        forge: stored.forges.get(name).map(|row| row.status.as_str()),
        deployment: newest.get(name).map(|row| DeploymentV1 {
            id: row.id.clone(),
            image_tag: row.image_tag.clone(),
            status: row.status.as_str(),
            started_at: row.started_at.to_string(),
        }),
    });
    apps.collect()
}

fn operation(row: Operated) -> OperationV1 {
    OperationV1 {
        action: row.action,
        who: row.who,
        command: row.command,
        started_at: row.started_at.to_string(),
        outcome: row.ended_at.is_some().then_some(row.outcome),
        ended_at: row.ended_at.map(|time| time.to_string()),
    }
}

fn unknown(address: &Address, stored: &Snapshot) -> Failure {
    let known: Vec<String> = stored.resources.keys().map(ToString::to_string).collect();
    let failure = Failure::new(format!("nothing is recorded of {address}"));
    match known.as_slice() {
        [] => failure.help("nothing is recorded at all: `norn apply` deploys"),
        _ => failure.help(format!("recorded are {}", known.join(", "))),
    }
}
