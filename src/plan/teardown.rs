//! What is known and no longer wanted.

use std::collections::{BTreeMap, BTreeSet};

use super::known::Known;
use super::{
    Action, Blocked, Facts, Operation, Options, PlannedStep, Reason, Risk, Running, Step, TeardownWork, Work,
    forge, volumes,
};
use crate::address::{Address, Kind};
use crate::desired::{Desired, Runtime, Why};
use crate::spec::name::AppName;
use crate::state::format::DeployV1;
use crate::state::{Artifact, ForgeStatus, Snapshot};

/// The apps to tear down. `renames` are the names that live on under another.
pub fn removed(
    desired: &Desired,
    stored: &Snapshot,
    renames: &BTreeMap<AppName, AppName>,
    options: &Options,
) -> Vec<AppName> {
    let lives_on: BTreeMap<&AppName, &AppName> = renames.iter().map(|(new, old)| (old, new)).collect();
    // `deploy: false` keeps an app as it is whatever happens to the others.
    let kept = |name: &AppName| match desired.untouched.get(*lives_on.get(name).unwrap_or(&name)) {
        Some(untouched) => untouched.why == Why::DeployFalse || !options.destroy,
        None => false,
    };
    let wanted = |name: &AppName| desired.apps.contains_key(name) || lives_on.contains_key(name);
    let leaves = |name: &&AppName| {
        let speaks_for = desired.whole || wanted(name);
        let unwanted = options.destroy || !wanted(name);
        speaks_for && unwanted && !kept(name)
    };
    let known: BTreeSet<&AppName> = stored
        .resources
        .keys()
        .filter(|address| address.kind == Kind::Forge)
        .map(|address| &address.name)
        .collect();
    known.into_iter().filter(leaves).cloned().collect()
}

/// The teardown of an app.
pub fn plan(app: &AppName, stored: &Snapshot, facts: &Facts, options: &Options) -> Operation {
    let known = Known::of(app, stored);
    let protected = known.forge.as_ref().is_some_and(|forge| forge.protected);
    let elsewhere = match facts.running.get(app) {
        Some(Running::Elsewhere { host }) => Some(Blocked::ElsewhereRunning { host: host.clone() }),
        _ => None,
    };
    let mut reasons = vec![if options.destroy { Reason::Destroyed } else { Reason::NotInSpec }];
    if let Some(forge) = stored.forges.get(app).filter(|forge| forge.status == ForgeStatus::ForgeFailed) {
        reasons.push(Reason::LastFailed { error: forge.error.clone() });
    }
    let keeps = ["snapshots", "logs"].map(str::to_owned);
    let keeps = keeps.into_iter().chain(volumes::kept(known.live())).collect();
    let lost = facts.lost.contains(app);
    // Of what is lost nothing can be removed but what is here.
    let runtime = if lost { Runtime::Process } else { known.runtime() };
    let route = known.forge.as_ref().and_then(|forge| forge.route.clone()).map(Box::new);
    let namespace = known.forge.as_ref().and_then(|forge| forge.namespace.as_ref());
    let steps: &[Step] = match runtime {
        Runtime::Process | Runtime::Docker => &[Step::DeleteDeployment],
        Runtime::Kubernetes => &[Step::DeleteService, Step::DeleteDeployment],
    };
    Operation {
        address: Address::forge(app),
        action: Action::Teardown,
        reasons,
        diff: Vec::new(),
        steps: forge::route_steps(false, route.is_some())
            .chain(steps.iter().map(|step| PlannedStep { step: *step, skip: None }))
            .collect(),
        waits: Vec::new(),
        risk: Risk::Destroys,
        blocked: if protected { Some(Blocked::Protected) } else { elsewhere },
        before: known.before,
        work: Work::Teardown(TeardownWork {
            runtime,
            spares: spared(app, stored),
            namespace: namespace.map(|namespace| namespace.name.clone()),
            engine: known.forge.as_ref().and_then(|forge| forge.engine.clone()).filter(|_| !lost),
            route,
            release: known.deploy.map(|release| release.folder),
            keeps,
        }),
    }
}

/// The releases of other apps, live or kept, that lie with an app's: they were made under its name.
fn spared(app: &AppName, stored: &Snapshot) -> Vec<String> {
    let own = format!("releases/{app}/");
    let others =
        stored.resources.iter().filter(|(address, _)| address.kind == Kind::Deploy && address.name != *app);
    let live = others.filter_map(|(_, record)| record.read::<DeployV1>());
    let kept = stored.artifacts.iter().filter(|kept| kept.app != *app).filter_map(Artifact::read::<DeployV1>);
    let folders: BTreeSet<String> = live.chain(kept).map(|release| release.folder).collect();
    folders.into_iter().filter(|folder| folder.starts_with(&own)).collect()
}
