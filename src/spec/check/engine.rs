//! What an engine on another host asks of an app.

use super::Checks;
use crate::spec::engine::{self, Site};
use crate::spec::model::{App, Front, Healthcheck, Role, Runtime};
use crate::spec::name::AppName;
use crate::spec::pending;
use crate::spec::problem::Problem;

impl Checks<'_> {
    /// That an engine can be reached at the address that the spec names.
    pub(super) fn engine_address(&mut self) {
        let Some(address) = self.project.docker.as_ref().and_then(|engine| engine.host.as_deref()) else {
            return;
        };
        let Some(no_use) = engine::no_use(address) else { return };
        if self.staged.unsure.contains(["docker", "host"].map(str::to_owned).as_slice()) {
            return;
        }
        let node = self.staged.tree.get("docker").and_then(|docker| docker.get("host"));
        // What the environment says is told when the engine is wanted.
        let Some(span) = node.map(|node| node.span) else { return };
        self.say(
            Problem::error("engine-address", format!("no Docker engine can be reached at `{address}`"))
                .at(span, no_use)
                .help("write unix:///path/to/docker.sock, or tcp://host:port for an engine on another host"),
        );
    }

    /// Nothing of norn's is there: a container has its port itself.
    pub(super) fn engine(&mut self, name: &AppName, app: &App) {
        let Some(address) = Site::of(self.project).elsewhere() else { return };
        if engine::no_use(address).is_some() {
            return;
        }
        if pending::runtime(app, self.project) != Runtime::Docker || self.unsure(name, "runtime") {
            return;
        }
        if let Some(live) = self.key(name, "healthcheck").filter(|_| asks_for_ever(app)) {
            self.say(
                Problem::error(
                    "no-live-probe",
                    format!("nobody asks app `{name}` whether it is alive: its engine {address} is on another host"),
                )
                .at(live, "has `live`")
                .help("take `healthcheck.live` out: the engine starts a container again when it ends"),
            );
        }
        let webserver = app.role == Role::Webserver && !self.unsure(name, "role");
        if let Some(front) = self.key(name, "front").filter(|_| webserver)
            && app.front != Some(Front::Switch(false))
        {
            self.say(
                Problem::error(
                    "no-front",
                    format!("app `{name}` cannot have a front: its engine {address} is on another host"),
                )
                .at(front, "nothing of norn's listens there")
                .help(
                    "take `front` out: clients connect to `port` of the engine's host, and a deploy stops the app for a moment",
                ),
            );
        } else if webserver && app.replicas.unwrap_or(1) > 1 && app.front.is_none() {
            self.say(
                Problem::error(
                    "shared-port",
                    format!(
                        "the replicas of app `{name}` cannot share one port: its engine {address} is on another host"
                    ),
                )
                .at(self.value(name, "replicas"), "more than one")
                .help("run one replica, or several apps with a port each"),
            );
        }
    }
}

/// Whether a live app is to be asked whether it still is.
fn asks_for_ever(app: &App) -> bool {
    matches!(&app.healthcheck, Some(Healthcheck::Probe(health)) if health.live.is_some())
}
