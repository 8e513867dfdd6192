//! Rules within one app.

use std::collections::BTreeSet;

use super::Checks;
use crate::spec::model::{App, Command, Front, Healthcheck, Role, Runtime, Secrets};
use crate::spec::name::AppName;
use crate::spec::pending;
use crate::spec::problem::Problem;
use crate::spec::value::TimeSpan;

impl Checks<'_> {
    pub(super) fn required(&mut self, name: &AppName, app: &App) {
        if self.unsure(name, "role") || self.unsure(name, "runtime") {
            return;
        }
        let runtime = pending::runtime(app, self.project);
        let missing = |field: &str, why: &str, help: &str| {
            Problem::error("missing-field", format!("app `{name}` has no `{field}`, which {why} needs"))
                .help(help.to_owned())
        };
        let mut found = Vec::new();
        if app.role == Role::Webserver && app.port.is_none() {
            found.push(missing("port", "a webserver", "add the port at which clients reach it, such as `port: 8080`; the app itself listens on $PORT"));
        }
        if app.role == Role::Cron && app.schedule.is_none() {
            found.push(missing(
                "schedule",
                "a cron app",
                "add when it runs, such as `schedule: \"0 6 * * *\"`",
            ));
        }
        let runs_command = runtime == Runtime::Process
            && matches!(app.role, Role::Webserver | Role::Worker | Role::Function);
        if app.command.is_none() && (app.role == Role::Cron || runs_command) {
            let why = if app.role == Role::Cron { "a cron app" } else { "the runtime process" };
            found.push(missing(
                "command",
                why,
                "add what starts it, such as `command: ./server`, run in the release's folder",
            ));
        }
        for problem in found {
            self.say(problem.at(self.name(name), "this app"));
        }
        if let Some(Command::Exec(argv)) = &app.command
            && argv.first().is_some_and(|program| program.trim().is_empty())
        {
            self.say(
                Problem::error("empty", format!("the command of app `{name}` names no program"))
                    .at(self.value(name, "command"), "its first entry is empty")
                    .help("list the program and its arguments, such as [\"./app\", \"--verbose\"]"),
            );
        }
    }

    pub(super) fn source(&mut self, name: &AppName, app: &App) {
        if let (Some(path), Some(repo)) = (self.key(name, "path"), self.key(name, "repo")) {
            self.say(
                Problem::error("two-sources", format!("app `{name}` has both a local `path` and a `repo`"))
                    .at(path, "a local folder")
                    .at(repo, "a repository")
                    .help("keep one; a folder inside the repository is `repo.path`"),
            );
        }
        if let Some(image) = self.key(name, "image") {
            for field in ["path", "repo"] {
                if let Some(code) = self.key(name, field) {
                    self.say(
                        Problem::error(
                            "two-sources",
                            format!("app `{name}` has both an `image` and `{field}`"),
                        )
                        .at(image, "is pulled as it is")
                        .at(code, "code to build from")
                        .help("keep one"),
                    );
                }
            }
            if pending::runtime(app, self.project) == Runtime::Process && !self.unsure(name, "runtime") {
                self.say(
                    Problem::error(
                        "no-image",
                        format!("app `{name}` has an `image`, and its runtime runs none"),
                    )
                    .at(image, "an image")
                    .help("make its runtime docker, or give it code and a `command` instead"),
                );
            }
        }
        if let (Some(branch), Some(reference)) = (self.key(name, "repo.branch"), self.key(name, "repo.ref")) {
            self.say(
                Problem::error("two-refs", format!("the repo of app `{name}` has both `branch` and `ref`"))
                    .at(branch, "a branch")
                    .at(reference, "a branch, tag or commit")
                    .help("keep one"),
            );
        }
        if app.repo.is_some()
            && let Some(ignore) = self.key(name, "build.ignore")
        {
            self.say(
                Problem::warning("no-effect", "`build.ignore` has no effect on a repository")
                    .at(ignore, "only a local `path` is filtered")
                    .help("take it out: what git does not track is not cloned"),
            );
        }
    }

    pub(super) fn reach(&mut self, name: &AppName, app: &App) {
        if let Some(Healthcheck::Probe(probe)) = &app.healthcheck
            && probe.command.is_some()
        {
            for field in ["path", "host", "live"] {
                if let Some(at) = self.key(name, &format!("healthcheck.{field}")) {
                    self.say(
                        Problem::error(
                            "two-probes",
                            format!("the health check of app `{name}` is both a command and a request"),
                        )
                        .at(at, "part of a request")
                        .help("keep `command`, or keep the fields of the request"),
                    );
                }
            }
        }
        let asks_http = match &app.healthcheck {
            Some(Healthcheck::Path(_)) => true,
            Some(Healthcheck::Probe(probe)) => probe.path.is_some() || probe.live.is_some(),
            None => false,
        };
        if asks_http && app.port.is_none() && app.role == Role::Worker {
            self.say(
                Problem::error("no-port", format!("app `{name}` has no port that its health check could ask"))
                    .at(self.value(name, "healthcheck"), "asks over HTTP")
                    .help("make it `healthcheck: {command: ./check.sh}`, or take it out: a worker counts as healthy when it lives 5 s"),
            );
        }
        if let Some(front) = self.key(name, "front") {
            if app.role != Role::Webserver && !self.unsure(name, "role") {
                self.say(
                    Problem::error("no-front", "only a webserver has a front")
                        .at(front, "not for this role")
                        .help("take `front` out"),
                );
            } else if app.front == Some(Front::Switch(false))
                && app.replicas.unwrap_or(1) > 1
                && pending::runtime(app, self.project) != Runtime::Kubernetes
            {
                self.say(
                    Problem::error(
                        "shared-port",
                        format!("the replicas of app `{name}` cannot share one port without a front"),
                    )
                    .at(front, "no front")
                    .at(self.value(name, "replicas"), "more than one")
                    .help("take `front: false` out, or run one replica"),
                );
            }
        }
        if let Some(host) = app.hosts.as_ref().and_then(|hosts| hosts.internal.as_ref()) {
            let text = host.as_str();
            let label = text.parse::<AppName>().is_ok() && text.starts_with(|c: char| c.is_ascii_lowercase());
            if !label && !self.unsure(name, "hosts.internal") {
                self.say(
                    Problem::error("bad-name", format!("`{text}` cannot be the name of a service"))
                        .at(self.value(name, "hosts.internal"), "Kubernetes refuses it")
                        .help("start with a letter and use lowercase letters, digits and inner `-`, at most 63, without dots"),
                );
            }
        }
    }

    /// What a cluster asks of an app.
    pub(super) fn cluster(&mut self, name: &AppName, app: &App) {
        if pending::runtime(app, self.project) != Runtime::Kubernetes || self.unsure(name, "runtime") {
            return;
        }
        if name.as_str().starts_with(|c: char| c.is_ascii_digit()) {
            self.say(
                Problem::error("bad-name", format!("`{name}` cannot be the name of an app on kubernetes"))
                    .at(self.name(name), "begins with a digit")
                    .help("begin it with a letter: Kubernetes wants that of a Service"),
            );
        }
        if app.image.is_none() && self.project.registry.is_none() {
            self.say(
                Problem::error(
                    "no-registry",
                    format!("the image of app `{name}` has no registry to be pushed to"),
                )
                .at(self.name(name), "is built, and pulled by the cluster")
                .help(
                    "name one with `registry: {url: registry.example.com/shop}`, or give the app an `image`",
                ),
            );
        }
    }

    pub(super) fn environment(&mut self, name: &AppName, app: &App) {
        if let Some(at) = self.key(name, "env.PORT") {
            self.say(
                Problem::error("reserved", format!("app `{name}` sets PORT, which norn sets"))
                    .at(at, "taken by norn")
                    .help("take it out: the port clients use is `port`, and the app listens on the $PORT it is given"),
            );
        }
        let names: Vec<&str> = match &app.secrets {
            Some(Secrets::Names(names)) => names.iter().map(|name| name.as_str()).collect(),
            Some(Secrets::Map(map)) => map.keys().map(|name| name.as_str()).collect(),
            None => Vec::new(),
        };
        let mut seen = BTreeSet::new();
        for secret in names {
            if !seen.insert(secret) {
                let places = self.items(name, "secrets", secret);
                let labels = places.into_iter().enumerate();
                let problem = Problem::error(
                    "duplicate-secret",
                    format!("app `{name}` names the secret {secret} twice"),
                )
                .help("name it once");
                self.say(labels.fold(problem, |problem, (index, span)| {
                    problem.at(span, if index == 0 { "first here" } else { "again here" })
                }));
                continue;
            }
            if let Some(at) = self.key(name, &format!("env.{secret}")) {
                let also = self.item(name, "secrets", secret);
                self.say(
                    Problem::error(
                        "two-values",
                        format!("{secret} of app `{name}` is both in `env` and in `secrets`"),
                    )
                    .at(at, "a plain value")
                    .at(also, "a secret")
                    .help("keep it in `secrets`, or rename one"),
                );
            }
        }
    }

    pub(super) fn times(&mut self, name: &AppName, app: &App) {
        let mut positive: Vec<(&str, &TimeSpan)> = Vec::new();
        if let Some(Healthcheck::Probe(probe)) = &app.healthcheck {
            let fields =
                [("startup", &probe.startup), ("interval", &probe.interval), ("timeout", &probe.timeout)];
            let names = ["healthcheck.startup", "healthcheck.interval", "healthcheck.timeout"];
            positive.extend(
                names.into_iter().zip(fields).filter_map(|(name, (_, span))| Some((name, span.as_ref()?))),
            );
        }
        positive.extend(
            app.rollout.as_ref().and_then(|r| r.timeout.as_ref()).map(|span| ("rollout.timeout", span)),
        );
        for (field, span) in positive {
            if span.value().is_zero() && !self.unsure(name, field) {
                self.say(
                    Problem::error("out-of-range", format!("`{field}` of app `{name}` cannot be zero"))
                        .at(self.value(name, field), "no time at all")
                        .help("give it a time such as 5s"),
                );
            }
        }
    }

    pub(super) fn unused(&mut self, name: &AppName, app: &App) {
        if self.unsure(name, "role") {
            return;
        }
        let mut found: Vec<(&str, &str)> = Vec::new();
        if app.role != Role::Cron {
            let fields = ["schedule", "timezone", "overlap", "timeout"];
            found.extend(fields.map(|field| (field, "only a cron app has it")));
        }
        if app.role != Role::Function {
            found.push(("function", "only a function has it"));
        }
        if app.role == Role::Worker {
            found.push(("port", "clients reach only webservers"));
        }
        match pending::runtime(app, self.project) {
            _ if self.unsure(name, "runtime") => {}
            Runtime::Process => {
                let fields = ["build.dockerfile", "build.context", "build.target", "build.args"];
                found.extend(fields.map(|field| (field, "a process runs without an image")));
                found.extend([("resources", "only a container has limits")]);
            }
            runtime @ (Runtime::Docker | Runtime::Kubernetes) => {
                if app.image.is_some() {
                    let fields = ["build.dockerfile", "build.context", "build.target", "build.args"];
                    found.extend(fields.map(|field| (field, "the image is pulled")));
                }
                found.extend([
                    ("build.command", "the Dockerfile builds"),
                    ("build.cache", "the Dockerfile builds"),
                ]);
                if runtime == Runtime::Kubernetes && app.role == Role::Webserver {
                    found.push(("front", "a Service leads to it"));
                }
            }
        }
        if app.services.as_ref().is_some_and(|s| s.postgres.is_some()) && app.migrations.is_some() {
            found.push(("services.postgres.migrations", "`migrations.command` is run instead"));
        }
        for (field, why) in found {
            if let Some(at) = self.key(name, field) {
                self.say(
                    Problem::warning("no-effect", format!("`{field}` has no effect on app `{name}`"))
                        .at(at, why)
                        .help("take it out, or change the role or the runtime"),
                );
            }
        }
    }
}
