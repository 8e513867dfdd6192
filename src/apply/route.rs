//! How the world reaches an app of a cluster: a rule of cloudflared, and a record of the zone.
//!
//! Elsewhere: the text with the rules and the records (`provider::cloudflare`), when and for what
//! (`forge`).
//! Invariants: only what carries the app's mark is changed. A rule is there before its record and gone
//! after it, so what a dead run left is found by the marks in the text; cloudflared is restarted wherever
//! it was not since the text became what it is, whoever died between.

use std::collections::BTreeSet;
use std::time::Duration;

use super::events::StepError;
use super::journal::{Done, InStep, Journal};
use super::walk::Stopped;
use crate::desired::{ObjectName, Route};
use crate::plan::Step;
use crate::provider::cloudflare::tunnel::{self, TunnelError};
use crate::provider::cloudflare::{Cloudflare, CloudflareError, Mark, dns};
use crate::provider::kubernetes::Cluster;
use crate::provider::kubernetes::apply::Change;
use crate::provider::kubernetes::kinds::{Address, Kind};
use crate::provider::kubernetes::rollout::WaitError;
use crate::provider::kubernetes::text::TextError;
use crate::spec::name::AppName;
use crate::state::format;

/// The text of the ConfigMap that cloudflared reads.
const KEY: &str = "config.yaml";
/// On the pods of cloudflared: which text they were started with.
const STARTED_WITH: &str = "dev.norn.config";
/// How long the restart of cloudflared may take.
const RESTARTED: Duration = Duration::from_secs(300);

impl From<CloudflareError> for StepError {
    fn from(error: CloudflareError) -> Self {
        StepError::new(error.to_string())
    }
}

impl From<TextError<TunnelError>> for StepError {
    fn from(error: TextError<TunnelError>) -> Self {
        StepError::new(error.to_string())
    }
}

/// The ways to an app: the one that is to be there, and the one that was.
#[derive(Clone, Copy)]
pub struct Ways<'a> {
    pub app: &'a AppName,
    pub wanted: Option<&'a Route>,
    pub former: Option<&'a Route>,
    /// Where the app is; absent, where the plan puts apps.
    pub namespace: Option<&'a str>,
}

impl<'a> Ways<'a> {
    /// Has the wanted name lead to the app's Service, which its deploy may make only later.
    pub async fn make(&self, journal: &Journal<'_>) -> Result<(), Stopped> {
        let Some(route) = self.wanted else { return Ok(()) };
        journal.step(Step::PatchCloudflared, |step| self.patch(step, route)).await?;
        journal.step(Step::CreateDnsRoute, |step| self.lead(step, route)).await
    }

    /// Has no other name lead to it any more, and cloudflared know of all.
    pub async fn remove(&self, journal: &Journal<'_>) -> Result<(), Stopped> {
        journal.step(Step::RemoveDnsRoute, |step| self.leave(step)).await?;
        journal.step(Step::UnpatchCloudflared, |step| self.unpatch(step)).await?;
        journal.step(Step::RestartCloudflared, |step| self.restart(step)).await
    }

    async fn patch(&self, step: InStep, route: &Route) -> Result<Done, StepError> {
        let _one = step.run.world.names.lock().await;
        step.run.alive()?;
        let cluster = self.cluster(&step);
        let service = format!("http://{}.{}.svc.cluster.local:80", self.app, cluster.namespace);
        let map = &route.config_map;
        let edit = |text: &str| tunnel::with_rule(text, &route.host, &service, &self.mark(&step));
        let changed = cluster.within(&map.namespace).edit_text(&map.name, KEY, edit).await?;
        let said = if changed { "has a rule" } else { "has its rule" };
        Ok(Done::said(format!("configmap/{} {said} for {}", map.name, route.host)))
    }

    async fn lead(&self, step: InStep, route: &Route) -> Result<Done, StepError> {
        let _one = step.run.world.names.lock().await;
        step.run.alive()?;
        let target = dns::target(&route.tunnel);
        let change = account(&step)?.route(&route.zone, &route.host, &target, &self.mark(&step)).await?;
        let said = match change {
            Change::Created | Change::Changed => "leads",
            Change::Same => "leads already",
        };
        Ok(Done::said(format!("{} {said} to {target}", route.host)))
    }

    async fn leave(&self, step: InStep) -> Result<Done, StepError> {
        let _one = step.run.world.names.lock().await;
        let (cluster, mark, account) = (self.cluster(&step), self.mark(&step), account(&step)?);
        let mut names: BTreeSet<(String, String)> =
            self.former.iter().map(|route| (route.zone.clone(), route.host.clone())).collect();
        for map in self.maps() {
            let Some(text) = text(&cluster, map).await? else { continue };
            let marked = tunnel::marked(&text, &mark);
            let marked =
                marked.map_err(|error| StepError::new(format!("configmap/{}: {error}", map.name)))?;
            for host in marked {
                let zones = self.all().map(|route| &route.zone);
                let zones = zones.filter(|zone| host == **zone || host.ends_with(&format!(".{zone}")));
                names.extend(zones.map(|zone| (zone.clone(), host.clone())));
            }
        }
        names.retain(|(zone, host)| {
            self.wanted.is_none_or(|wanted| (&wanted.zone, &wanted.host) != (zone, host))
        });
        let mut said = Vec::new();
        for (zone, host) in names {
            step.run.alive()?;
            if account.remove_route(&zone, &host, &mark).await? {
                said.push(format!("the record of {host} deleted"));
            }
        }
        Ok(told(&said))
    }

    async fn unpatch(&self, step: InStep) -> Result<Done, StepError> {
        let _one = step.run.world.names.lock().await;
        let (cluster, mark) = (self.cluster(&step), self.mark(&step));
        let mut said = Vec::new();
        for map in self.maps() {
            step.run.alive()?;
            let kept = self.wanted.filter(|wanted| wanted.config_map == *map).map(|wanted| &wanted.host);
            let edit = |text: &str| {
                let mut edited = None;
                let gone = tunnel::marked(text, &mark)?;
                for host in gone.iter().filter(|host| Some(*host) != kept) {
                    let now = edited.as_deref().unwrap_or(text);
                    edited = tunnel::without_rule(now, host, &mark)?.or(edited);
                }
                Ok(edited)
            };
            match cluster.within(&map.namespace).edit_text(&map.name, KEY, edit).await {
                Ok(true) => said.push(format!("rules taken out of configmap/{}", map.name)),
                Ok(false) => {}
                Err(error) if is_gone(&error) => {}
                Err(error) => return Err(error.into()),
            }
        }
        Ok(told(&said))
    }

    /// Has cloudflared read its configuration, where it has not read this one.
    async fn restart(&self, step: InStep) -> Result<Done, StepError> {
        let cluster = self.cluster(&step);
        let mut said = Vec::new();
        let mut done = BTreeSet::new();
        for route in self.all() {
            let (map, program) = (&route.config_map, &route.deployment);
            if !done.insert((&program.namespace, &program.name)) {
                continue;
            }
            let there = cluster.within(&program.namespace);
            let address = Address { kind: Kind::Deployment, name: program.name.clone() };
            let (text, found) = (text(&cluster, map).await?, there.look(&address).await?);
            let (Some(text), Some(found)) = (text, found) else {
                if self.wanted != Some(route) {
                    continue;
                }
                let message = format!("there is no {address} in the namespace {}", program.namespace);
                return Err(StepError::new(message).help("make it, or correct `cloudflare.deployment`"));
            };
            let digest = format::digest(&text.into());
            let started = &found["spec"]["template"]["metadata"]["annotations"][STARTED_WITH];
            if started.as_str() != Some(&digest) {
                step.run.alive()?;
                there.annotate_pods(&program.name, STARTED_WITH, &digest).await?;
                said.push(format!("{address} restarted"));
            }
            let control = &step.run.control;
            let progress = |line: &str| step.output(line);
            let waited = there.rolled_out(&program.name, RESTARTED, control.cancelled(), progress).await;
            waited.map_err(|error| match error {
                WaitError::Cluster(error) => StepError::from(error),
                WaitError::Cancelled => StepError::new(format!("cancelled before {address} was whole")),
                error @ WaitError::Failed { .. } => {
                    let text = step.run.world.scrub.text(&error.to_string()).into_owned();
                    StepError::new(text).help("mend cloudflared and apply again")
                }
            })?;
        }
        Ok(if said.is_empty() { Done::said("it has read this already") } else { Done::said(said.join(", ")) })
    }

    /// The wanted way, then the former one.
    fn all(&self) -> impl Iterator<Item = &'a Route> {
        self.wanted.into_iter().chain(self.former)
    }

    /// The ConfigMaps that a rule may stand in.
    fn maps(&self) -> Vec<&'a ObjectName> {
        let mut maps: Vec<&ObjectName> = self.all().map(|route| &route.config_map).collect();
        maps.dedup();
        maps
    }

    fn mark(&self, step: &InStep) -> Mark {
        Mark::new(&step.run.world.scope, self.app)
    }

    fn cluster(&self, step: &InStep) -> Cluster {
        let world = &step.run.world;
        world.cluster(self.namespace.unwrap_or(&world.namespace)).clone()
    }
}

fn account(step: &InStep) -> Result<&Cloudflare, StepError> {
    let account = step.run.world.cloudflare.as_ref();
    account.ok_or_else(|| StepError::new("norn has no token of Cloudflare"))
}

/// What cloudflared reads, if it is there.
async fn text(cluster: &Cluster, map: &ObjectName) -> Result<Option<String>, StepError> {
    match cluster.within(&map.namespace).text::<TunnelError>(&map.name, KEY).await {
        Ok(text) => Ok(Some(text)),
        Err(error) if is_gone(&error) => Ok(None),
        Err(error) => Err(error.into()),
    }
}

/// Whether there is no text: nothing is to be taken out of it.
fn is_gone(error: &TextError<TunnelError>) -> bool {
    matches!(error, TextError::NoConfigMap { .. } | TextError::NoText { .. })
}

fn told(said: &[String]) -> Done {
    if said.is_empty() { Done::said("nothing was there") } else { Done::said(said.join(", ")) }
}
