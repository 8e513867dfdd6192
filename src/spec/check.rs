//! Rules between the fields of a document.
//!
//! Here: what is wrong although every value alone is right. Elsewhere: single values (`shape`,
//! `value`), loops between apps (`cycle`).

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use super::cycle;
use super::load::Staged;
use super::model::{App, Command, Front, Healthcheck, Project, Role, Runtime, Secrets};
use super::name::AppName;
use super::pending;
use super::problem::{Problem, did_you_mean};
use super::reference::Reference;
use super::source::{Sources, Span};
use super::value::{InnerPath, TimeSpan};
use super::yaml::Node;

/// Everything that is wrong between the fields of a document.
pub fn check(staged: &Staged, sources: &Sources) -> Vec<Problem> {
    let Some(project) = &staged.project else { return Vec::new() };
    let mut checks = Checks { staged, sources, project, problems: Vec::new() };
    checks.whole();
    for (name, app) in &project.apps {
        checks.required(name, app);
        checks.source(name, app);
        checks.reach(name, app);
        checks.environment(name, app);
        checks.times(name, app);
        checks.paths(name, app);
        checks.unused(name, app);
    }
    checks.ports();
    checks.relations();
    checks.problems
}

struct Checks<'a> {
    staged: &'a Staged,
    sources: &'a Sources,
    project: &'a Project,
    problems: Vec<Problem>,
}

impl Checks<'_> {
    /// Where a field of an app stands: its key and its value.
    fn entry(&self, app: &AppName, field: &str) -> Option<(Span, &Node)> {
        let mut node = self.staged.tree.get("apps")?.get(app.as_str())?;
        let mut key = None;
        for part in field.split('.') {
            let entry = node.entry(part)?;
            key = Some(entry.key_span);
            node = &entry.value;
        }
        key.map(|key| (key, node))
    }

    fn key(&self, app: &AppName, field: &str) -> Option<Span> {
        self.entry(app, field).map(|(key, _)| key)
    }

    /// The value of a field if it is a scalar, else its key.
    fn value(&self, app: &AppName, field: &str) -> Span {
        match self.entry(app, field) {
            Some((_, node)) if node.scalar().is_some() => node.span,
            Some((key, _)) => key,
            None => self.name(app),
        }
    }

    fn name(&self, app: &AppName) -> Span {
        let entry = self.staged.tree.get("apps").and_then(|apps| apps.entry(app.as_str()));
        entry.map_or(self.staged.tree.span, |entry| entry.key_span)
    }

    /// The entry of a list field, or the field's key.
    fn item(&self, app: &AppName, field: &str, text: &str) -> Span {
        let list = self.entry(app, field).map(|(_, node)| &node.kind);
        if let Some(super::yaml::Kind::List(items)) = list
            && let Some(item) = items.iter().find(|item| item.scalar() == Some(text))
        {
            return item.span;
        }
        self.key(app, field).unwrap_or_else(|| self.name(app))
    }

    /// Whether a field has a stand-in, of which no rule can say anything.
    fn unsure(&self, app: &AppName, field: &str) -> bool {
        let mut path = vec!["apps".to_owned(), app.to_string()];
        path.extend(field.split('.').map(str::to_owned));
        self.staged.unsure.contains(&path)
    }

    fn say(&mut self, problem: Problem) {
        self.problems.push(problem);
    }

    fn whole(&mut self) {
        let tree = &self.staged.tree;
        if self.project.apps.is_empty() && tree.get("apps").and_then(Node::map).is_none_or(<[_]>::is_empty) {
            let at = tree.entry("apps").map_or(Span::new(tree.span.file, 0, 0), |entry| entry.key_span);
            self.say(
                Problem::error("no-apps", "the spec has no apps")
                    .at(at, "no app here")
                    .help("add one: `apps: {web: {role: webserver, port: 8080, command: ./server}}`; `norn destroy` removes what runs"),
            );
        }
    }

    fn required(&mut self, name: &AppName, app: &App) {
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

    fn source(&mut self, name: &AppName, app: &App) {
        if let (Some(path), Some(repo)) = (self.key(name, "path"), self.key(name, "repo")) {
            self.say(
                Problem::error("two-sources", format!("app `{name}` has both a local `path` and a `repo`"))
                    .at(path, "a local folder")
                    .at(repo, "a repository")
                    .help("keep one; a folder inside the repository is `repo.path`"),
            );
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

    fn reach(&mut self, name: &AppName, app: &App) {
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
            } else if app.front == Some(Front::Switch(false)) && app.replicas.unwrap_or(1) > 1 {
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

    fn environment(&mut self, name: &AppName, app: &App) {
        if let Some(at) = self.key(name, "env.PORT") {
            self.say(
                Problem::error("reserved", format!("app `{name}` sets PORT, which norn sets"))
                    .at(at, "taken by norn")
                    .help("take it out: the port clients use is `port`, and the app listens on the $PORT it is given"),
            );
        }
        let mut names: Vec<&str> = match &app.secrets {
            Some(Secrets::Names(names)) => names.iter().map(|name| name.as_str()).collect(),
            Some(Secrets::Map(map)) => map.keys().map(|name| name.as_str()).collect(),
            None => Vec::new(),
        };
        let all = names.len();
        names.sort_unstable();
        names.dedup();
        if names.len() < all {
            self.say(
                Problem::error("duplicate-secret", format!("app `{name}` names a secret twice"))
                    .at(self.value(name, "secrets"), "in this list")
                    .help("name each secret once"),
            );
        }
        for secret in names {
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

    fn times(&mut self, name: &AppName, app: &App) {
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

    fn paths(&mut self, name: &AppName, app: &App) {
        let home = self.staged.home(self.sources, name.as_str()).to_owned();
        let build = app.build.as_ref();
        let mut inside: Vec<(&str, &str, &InnerPath)> = Vec::new();
        inside.extend(app.path.as_ref().map(|path| (home.as_str(), "path", path)));
        inside.extend(
            app.repo.as_ref().and_then(|repo| repo.path.as_ref()).map(|path| ("", "repo.path", path)),
        );
        inside.extend(build.and_then(|b| b.dockerfile.as_ref()).map(|path| ("", "build.dockerfile", path)));
        let mut found: Vec<(Span, String)> = Vec::new();
        for (base, field, path) in inside {
            if leaves(base, path.as_str()) {
                found.push((self.value(name, field), path.to_string()));
            }
        }
        for (field, list) in
            [("build.cache", build.map(|b| &b.cache)), ("build.ignore", build.map(|b| &b.ignore))]
        {
            for path in list.into_iter().flatten() {
                let at = self.item(name, field, path.as_str());
                if leaves("", path.as_str()) {
                    found.push((at, path.to_string()));
                } else if normal("", path.as_str()).is_some_and(|parts| parts.is_empty()) {
                    self.say(
                        Problem::error("bad-value", format!("`{path}` in `{field}` is the whole folder"))
                            .at(at, "names everything")
                            .help("name a folder inside it, such as target"),
                    );
                }
            }
        }
        for (at, path) in found {
            self.say(
                Problem::error("outside", format!("`{path}` leaves the project"))
                    .at(at, "points outside")
                    .help("norn reads code only below its project's folder: move the code in, or use `repo`"),
            );
        }
    }

    fn unused(&mut self, name: &AppName, app: &App) {
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
        if app.services.as_ref().is_some_and(|s| s.postgres.is_some()) && app.migrations.is_some() {
            found.push(("services.postgres.migrations", "`migrations.command` is run instead"));
        }
        for (field, why) in found {
            if let Some(at) = self.key(name, field) {
                self.say(
                    Problem::warning("no-effect", format!("`{field}` has no effect on app `{name}`"))
                        .at(at, why)
                        .help("take it out, or change the role"),
                );
            }
        }
    }

    /// Two apps on one machine cannot listen on one port.
    fn ports(&mut self) {
        let mut taken: BTreeMap<u16, Vec<(&AppName, IpAddr)>> = BTreeMap::new();
        for (name, app) in &self.project.apps {
            let here =
                app.role == Role::Webserver && pending::runtime(app, self.project) != Runtime::Kubernetes;
            let Some(port) = app.port.filter(|_| here && !self.unsure(name, "port")) else { continue };
            let bind = match &app.front {
                Some(Front::On(front)) => front.bind.unwrap_or(IpAddr::from([127, 0, 0, 1])),
                // The app itself may listen anywhere.
                Some(Front::Switch(false)) => IpAddr::from([0, 0, 0, 0]),
                Some(Front::Switch(true)) | None => IpAddr::from([127, 0, 0, 1]),
            };
            let others = taken.entry(port).or_default();
            let clash = others
                .iter()
                .find(|(_, other)| other.is_unspecified() || bind.is_unspecified() || *other == bind);
            if let Some((other, _)) = clash {
                let problem = Problem::error(
                    "port-clash",
                    format!("apps `{other}` and `{name}` both want port {port}"),
                )
                .at(self.value(name, "port"), "taken already")
                .at(self.value(other, "port"), format!("`{other}` took it here"))
                .help("give one of them another port");
                self.problems.push(problem);
            }
            others.push((name, bind));
        }
    }

    /// What apps say of each other.
    fn relations(&mut self) {
        let apps: BTreeSet<&AppName> = self.project.apps.keys().collect();
        let mut edges: BTreeMap<&AppName, BTreeMap<&AppName, Span>> = BTreeMap::new();
        for (name, app) in &self.project.apps {
            for other in &app.depends_on {
                let at = self.item(name, "dependsOn", other.as_str());
                if !apps.contains(other) {
                    self.unknown_app(other, at);
                } else {
                    edges.entry(name).or_default().entry(other).or_insert(at);
                }
            }
            for old in &app.was {
                let at = self.item(name, "was", old.as_str());
                if apps.contains(old) {
                    self.say(
                        Problem::error(
                            "was-exists",
                            format!("app `{name}` cannot have been `{old}`, which is an app"),
                        )
                        .at(at, "still here")
                        .help("`was` takes former names: remove the old app, or take the name out"),
                    );
                }
                let claims =
                    self.project.apps.iter().find(|(other, app)| *other < name && app.was.contains(old));
                if let Some((other, _)) = claims {
                    self.say(
                        Problem::error(
                            "was-twice",
                            format!("both `{other}` and `{name}` say they were `{old}`"),
                        )
                        .at(at, "claimed again")
                        .at(self.item(other, "was", old.as_str()), "claimed first")
                        .help("only one app can carry on the old one"),
                    );
                }
            }
        }
        for used in &self.staged.uses {
            let Reference::App { app: other, .. } = &used.reference else { continue };
            let Some(target) = self.project.apps.get(other) else {
                self.unknown_app(other, used.span);
                continue;
            };
            if target.role != Role::Webserver && !self.unsure(other, "role") {
                self.say(
                    Problem::error("no-way", format!("app `{other}` cannot be reached: it is no webserver"))
                        .at(used.span, "refers to it")
                        .help("refer to a webserver"),
                );
            }
            let owner = used.path.get(1).filter(|_| used.path.first().is_some_and(|p| p == "apps"));
            match owner.and_then(|owner| apps.iter().find(|app| app.as_str() == owner)) {
                // An app may name itself: it needs no one else for that.
                Some(owner) if *owner == other => {}
                Some(owner) => {
                    let other = apps.get(other).expect("the app was just looked up");
                    edges.entry(owner).or_default().entry(other).or_insert(used.span);
                }
                None => self.say(
                    Problem::error("no-way", "only an app can refer to an app")
                        .at(used.span, "outside of any app")
                        .help("write the address itself"),
                ),
            }
        }
        if let Some(loop_) = cycle::find(&edges) {
            let names: Vec<String> = loop_.iter().map(|(name, _)| format!("`{name}`")).collect();
            let mut problem =
                Problem::error("cycle", format!("the apps {} wait for each other", names.join(", ")))
                    .help("take one of these dependencies out");
            for (name, span) in &loop_ {
                problem = problem.at(*span, format!("`{name}` waits here"));
            }
            self.say(problem);
        }
    }

    fn unknown_app(&mut self, name: &AppName, at: Span) {
        let near = did_you_mean(name.as_str(), self.project.apps.keys().map(AppName::as_str));
        let help = match near {
            Some(near) => format!("did you mean `{near}`?"),
            None => format!(
                "the apps are {}",
                self.project.apps.keys().map(AppName::as_str).collect::<Vec<_>>().join(", ")
            ),
        };
        self.say(
            Problem::error("unknown-app", format!("there is no app `{name}`"))
                .at(at, "not in this spec")
                .help(help),
        );
    }
}

/// Whether `path`, taken from `base`, leaves the folder that `base` is in.
fn leaves(base: &str, path: &str) -> bool {
    normal(base, path).is_none()
}

/// The parts of `base/path` without `.` and `..`; none where it climbs out.
pub fn normal<'a>(base: &'a str, path: &'a str) -> Option<Vec<&'a str>> {
    let mut parts = Vec::new();
    for part in base.split('/').chain(path.split('/')) {
        match part {
            "" | "." => {}
            ".." => {
                parts.pop()?;
            }
            part => parts.push(part),
        }
    }
    Some(parts)
}
