//! From a checked spec to what should exist.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv4Addr};
use std::time::Duration;

use super::{
    App, Build, Cloudflare, Command, Definition, Desired, EnvValue, Front, GitRef, Health, ImageBuild,
    Ingress, Kubernetes, Login, ObjectName, Probe, Registry, Resources, Role, Rollout, Route, Runtime,
    Source, Untouched, Values, Volume, Why,
};
use crate::secret::Secret;
use crate::spec;
use crate::spec::load::{Document, Form, Staged};
use crate::spec::model::{self, Project, Secrets};
use crate::spec::name::{AppName, StageName};
use crate::spec::pending;
use crate::spec::problem::Problem;
use crate::spec::reference::Reference;
use crate::spec::value::{EnvName, InnerPath, Label, TimeSpan};

/// Makes of a resolved stage what should exist. `variable` gives norn's environment, for secrets.
///
/// # Errors
/// Every required secret that is not set, with its place.
pub fn from_spec(
    document: &Document,
    staged: &Staged,
    stage: Option<&StageName>,
    variable: &dyn Fn(&str) -> Option<String>,
) -> Result<Desired, Vec<Problem>> {
    let project = staged.project.as_ref().expect("the caller refused a spec with problems");
    let mut values = Values::default();
    let mut problems = Vec::new();
    let mut apps = BTreeMap::new();
    let mut untouched = BTreeMap::new();
    let referred = referred(staged);
    for (name, written) in &project.apps {
        let left_alone = if written.deploy == Some(false) {
            Some(Why::DeployFalse)
        } else {
            pending::left_out(written).map(Why::LeftOut)
        };
        if let Some(why) = left_alone {
            untouched.insert(name.clone(), Untouched { why, was: written.was.clone() });
        } else {
            let mut reader = AppReader {
                document,
                staged,
                project,
                name,
                written,
                referred: &referred,
                variable,
                problems: &mut problems,
            };
            let (mut app, app_values) = reader.read();
            values.insert(name.clone(), app_values);
            if let Source::Git { url, .. } = &mut app.source {
                *url = values.keep_login(name, url);
            }
            apps.insert(name.clone(), app);
        }
    }
    stage_secrets(project, stage, variable, &mut problems);
    if !problems.is_empty() {
        return Err(problems);
    }
    let mut desired = Desired {
        project: project.project.clone(),
        stage: stage.cloned(),
        protected: project.stage.protected,
        locked: project.stage.locked,
        whole: document.form == Form::Project,
        sensitive: sensitive(staged, &values, &apps, variable),
        apps,
        untouched,
        values,
        registry: project.registry.as_ref().map(registry),
        kubernetes: kubernetes(project),
        cloudflare: project.cloudflare.as_ref().map(cloudflare),
        docker: None,
        postgres: project.postgres.as_ref().map(|server| Secret::new(&server.url)),
    };
    if let Some(address) = project.docker.as_ref().and_then(|engine| engine.host.clone()) {
        desired.on_engine(address);
    }
    Ok(desired)
}

fn registry(written: &model::Registry) -> Registry {
    let url = written.url.split_once("://").map_or(written.url.as_str(), |(_, host)| host);
    let login = written.username.clone().zip(written.password.as_ref());
    Registry {
        url: url.trim_end_matches('/').to_owned(),
        login: login.map(|(username, password)| Login { username, password: Secret::new(password) }),
    }
}

fn kubernetes(project: &Project) -> Kubernetes {
    let written = project.kubernetes.clone().unwrap_or_default();
    Kubernetes {
        context: written.context,
        // As version 1.
        namespace: written.namespace.map_or_else(|| "default".to_owned(), |name| name.to_string()),
    }
}

fn cloudflare(written: &model::Cloudflare) -> Cloudflare {
    let object = |written: &Option<spec::value::ObjectName>| {
        let named = written.as_ref().map(|written| written.value().clone());
        // As version 1.
        let (namespace, name) = named.unwrap_or_else(|| ("cloudflared".to_owned(), "cloudflared".to_owned()));
        ObjectName { namespace, name }
    };
    Cloudflare {
        zone: written.zone.to_string(),
        tunnel: written.tunnel.to_string(),
        token: Secret::new(&written.token),
        config_map: object(&written.config_map),
        deployment: object(&written.deployment),
    }
}

/// The apps to which the references of each app lead, collected once for all.
fn referred(staged: &Staged) -> BTreeMap<&str, Vec<&AppName>> {
    let mut all: BTreeMap<&str, Vec<&AppName>> = BTreeMap::new();
    for used in &staged.uses {
        if let (Reference::App { app, .. }, [apps, owner, ..]) = (&used.reference, used.path.as_slice())
            && apps == "apps"
        {
            all.entry(owner).or_default().push(app);
        }
    }
    all
}

/// The values that norn's environment gave. What stands in the spec itself, as a default or as the
/// address of another app, is no secret.
fn sensitive(
    staged: &Staged,
    values: &Values,
    apps: &BTreeMap<AppName, App>,
    variable: &dyn Fn(&str) -> Option<String>,
) -> Vec<Secret> {
    let given = |name: &str| variable(name).is_some_and(|value| !value.is_empty());
    let from_outside = staged.uses.iter().filter_map(|used| match (&used.reference, used.path.as_slice()) {
        (Reference::Variable { name, .. }, [apps, app, env, key]) if apps == "apps" && env == "env" => {
            given(name).then_some((app.as_str(), key.as_str()))
        }
        (Reference::Variable { .. } | Reference::App { .. }, _) => None,
    });
    let from_outside: BTreeSet<(&str, &str)> = from_outside.collect();
    let mut found: Vec<Secret> = values.logins().cloned().collect();
    let tunnel = staged.project.as_ref().and_then(|project| project.cloudflare.as_ref());
    found.extend(tunnel.map(|tunnel| Secret::new(&tunnel.token)));
    for (app, values) in values.by_app() {
        let secrets = &apps[app].definition.secrets;
        let kept = values.iter().filter(|(name, _)| {
            secrets.contains(*name) || from_outside.contains(&(app.as_str(), name.as_str()))
        });
        found.extend(kept.map(|(_, value)| value.clone()));
    }
    found
}

fn stage_secrets(
    project: &Project,
    stage: Option<&StageName>,
    variable: &dyn Fn(&str) -> Option<String>,
    problems: &mut Vec<Problem>,
) {
    for (name, required) in names(project.stage.secrets.as_ref()) {
        if required && variable(name.as_str()).is_none() {
            let stage = stage.map_or("", StageName::as_str);
            problems.push(
                Problem::error("missing-secret", format!("stage `{stage}` needs {name}, which is not set"))
                    .help(format!("set {name} in norn's environment, or in a file given with --env-file")),
            );
        }
    }
}

/// The secrets of a block with whether each must be set.
fn names(secrets: Option<&Secrets>) -> Vec<(&EnvName, bool)> {
    match secrets {
        Some(Secrets::Names(names)) => names.iter().map(|name| (name, true)).collect(),
        Some(Secrets::Map(map)) => {
            map.iter().map(|(name, rule)| (name, rule.required.unwrap_or(true))).collect()
        }
        None => Vec::new(),
    }
}

struct AppReader<'a> {
    document: &'a Document,
    staged: &'a Staged,
    project: &'a Project,
    name: &'a AppName,
    written: &'a model::App,
    /// The apps that each app refers to.
    referred: &'a BTreeMap<&'a str, Vec<&'a AppName>>,
    variable: &'a dyn Fn(&str) -> Option<String>,
    problems: &'a mut Vec<Problem>,
}

impl AppReader<'_> {
    fn read(&mut self) -> (App, BTreeMap<String, Secret>) {
        let mut values = BTreeMap::new();
        let definition = self.definition(&mut values);
        let app = self.written;
        let services = app.services.as_ref();
        let rollout = app.rollout.clone().unwrap_or_default();
        let usual = Rollout::default();
        let app = App {
            name: self.name.clone(),
            definition,
            route: self.route(),
            source: self.source(),
            build: self.build(),
            migrate: app.migrations.as_ref().map(|migrations| migrations.command.clone()),
            snapshot: services.and_then(|s| s.postgres.as_ref()).map(|pg| pg.database.to_string()),
            rollout: Rollout {
                timeout: rollout.timeout.map_or(usual.timeout, |time| *time.value()),
                drain: rollout.drain.map_or(usual.drain, |time| *time.value()),
            },
            depends_on: self.depends_on(),
            was: app.was.clone(),
            protected: app.protected.unwrap_or(false),
        };
        (app, values)
    }

    fn definition(&mut self, values: &mut BTreeMap<String, Secret>) -> Definition {
        let app = self.written;
        let env = self.env(values);
        let secrets = self.secrets(values);
        let webserver = app.role == model::Role::Webserver;
        let resources = app.resources.as_ref();
        Definition {
            role: if webserver { Role::Webserver } else { Role::Worker },
            runtime: self.runtime(),
            engine: None,
            command: app.command.clone().map(|command| match command {
                model::Command::Shell(text) => Command::Shell(text),
                model::Command::Exec(argv) => Command::Exec(argv),
            }),
            env,
            secrets,
            port: app.port.filter(|_| webserver),
            front: match &app.front {
                Some(model::Front::Switch(false)) => Front::Off,
                Some(model::Front::On(front)) => Front::On(front.bind.unwrap_or(LOOPBACK)),
                Some(model::Front::Switch(true)) | None => Front::On(LOOPBACK),
            },
            replicas: app.replicas.unwrap_or(1),
            health: health(app, webserver),
            resources: Resources {
                cpu: resources.and_then(|limits| limits.cpu.as_ref()).map(|cpu| *cpu.value()),
                memory: resources.and_then(|limits| limits.memory.as_ref()).map(|memory| *memory.value()),
            },
            volumes: self.volumes(),
            ingress: self.ingress().filter(|_| webserver),
        }
    }

    fn volumes(&self) -> Vec<Volume> {
        let Some(written) = &self.written.volumes else { return Vec::new() };
        let pods = self.runtime() == Runtime::Kubernetes;
        let class = self.project.kubernetes.as_ref().and_then(|cluster| cluster.storage_class.clone());
        let volume = |(name, volume): (Label, model::UnnamedVolume)| Volume {
            name: name.to_string(),
            path: volume.mount_path.to_string(),
            size: volume.size.as_ref().map(|size| *size.value()).filter(|_| pods),
            host_path: volume.host_path.as_ref().map(ToString::to_string),
            class: class.as_ref().map(ToString::to_string).filter(|_| pods),
        };
        let mut volumes: Vec<Volume> = written.by_name().into_iter().map(volume).collect();
        // Their order in the spec means nothing.
        volumes.sort_by(|a, b| a.name.cmp(&b.name));
        volumes
    }

    /// How the world reaches the app, where the cluster has an ingress class.
    fn ingress(&self) -> Option<Ingress> {
        let class = self.project.kubernetes.as_ref()?.ingress_class.as_ref()?;
        let host = self.written.hosts.as_ref()?.external.as_ref()?;
        let ingress = Ingress { class: class.to_string(), host: host.to_string() };
        (self.runtime() == Runtime::Kubernetes).then_some(ingress)
    }

    /// How the world reaches the app by the project's tunnel, if it has one.
    fn route(&self) -> Option<Route> {
        let Cloudflare { zone, tunnel, token: _, config_map, deployment } =
            cloudflare(self.project.cloudflare.as_ref()?);
        let host = self.written.hosts.as_ref()?.external.as_ref()?.to_string();
        let there = self.written.role == model::Role::Webserver && self.runtime() == Runtime::Kubernetes;
        there.then_some(Route { zone, host, tunnel, config_map, deployment })
    }

    fn runtime(&self) -> Runtime {
        match pending::runtime(self.written, self.project) {
            model::Runtime::Process => Runtime::Process,
            model::Runtime::Docker => Runtime::Docker,
            model::Runtime::Kubernetes => Runtime::Kubernetes,
        }
    }

    fn build(&self) -> Build {
        let written = self.written.build.clone().unwrap_or_default();
        let path =
            |path: Option<InnerPath>, usual: &str| path.map_or(usual.to_owned(), |path| path.to_string());
        let image = ImageBuild {
            dockerfile: path(written.dockerfile, "Dockerfile"),
            context: path(written.context, "."),
            target: written.target,
            args: written.args.into_iter().map(|(name, value)| (name.to_string(), value)).collect(),
        };
        let (command, cache, image) = match self.runtime() {
            Runtime::Process => (written.command, written.cache, None),
            Runtime::Docker | Runtime::Kubernetes => {
                let built = self.written.image.is_none();
                (None, Vec::new(), built.then_some(image))
            }
        };
        Build { command, test: written.test, cache: cache.iter().map(ToString::to_string).collect(), image }
    }

    fn env(&self, values: &mut BTreeMap<String, Secret>) -> BTreeMap<String, EnvValue> {
        let spelled = |key: &EnvName| {
            let path = ["apps", self.name.as_str(), "env", key.as_str()].map(str::to_owned);
            self.staged.spelled.get(path.as_slice())
        };
        let pair = |(key, value): (&EnvName, &String)| {
            let value = match spelled(key) {
                Some(spelling) => {
                    values.insert(key.to_string(), Secret::new(value));
                    EnvValue::Reference(spelling.clone())
                }
                None => EnvValue::Literal(value.clone()),
            };
            (key.to_string(), value)
        };
        self.written.env.iter().map(pair).collect()
    }

    fn secrets(&mut self, values: &mut BTreeMap<String, Secret>) -> BTreeSet<String> {
        let mut found = BTreeSet::new();
        for (secret, required) in names(self.written.secrets.as_ref()) {
            match (self.variable)(secret.as_str()) {
                Some(value) => {
                    values.insert(secret.to_string(), Secret::new(value));
                    found.insert(secret.to_string());
                }
                None if required => {
                    let app = self.name;
                    let problem = Problem::error(
                        "missing-secret",
                        format!("app `{app}` needs the secret {secret}, which is not set"),
                    )
                    .help(format!("set {secret} in norn's environment, or in a file given with --env-file"));
                    let apps = self.staged.tree.get("apps");
                    let at = apps.and_then(|apps| apps.get(app.as_str())?.entry("secrets"));
                    self.problems.push(match at {
                        Some(entry) => problem.at(entry.key_span, "named here"),
                        None => problem,
                    });
                }
                None => {}
            }
        }
        found
    }

    fn source(&self) -> Source {
        let app = self.written;
        if let Some(image) = &app.image {
            return Source::Image { name: image.to_string() };
        }
        if let Some(repo) = &app.repo {
            let reference = match (&repo.reference, &repo.branch) {
                (Some(reference), _) => GitRef::Any(reference.to_string()),
                (None, Some(branch)) => GitRef::Branch(branch.to_string()),
                // v1's default.
                (None, None) => GitRef::Branch("main".into()),
            };
            let path = repo.path.as_ref().map(ToString::to_string);
            return Source::Git { url: repo.url.to_string(), reference, path };
        }
        let home = self.staged.home(&self.document.sources, self.name.as_str());
        let path = app.path.as_ref().map_or(".", |path| path.as_str());
        let parts = spec::normal_path(home, path).expect("a path that leaves the project was refused");
        let folder = if parts.is_empty() { ".".to_owned() } else { parts.join("/") };
        let ignore = app.build.iter().flat_map(|build| &build.ignore).map(ToString::to_string).collect();
        Source::Local { folder, ignore }
    }

    /// What is named, and what is referred to.
    fn depends_on(&self) -> BTreeSet<AppName> {
        let referred = self.referred.get(self.name.as_str()).into_iter().flatten().copied();
        let all = self.written.depends_on.iter().chain(referred);
        let here = |app: &&AppName| *app != self.name && self.project.apps.contains_key(*app);
        all.filter(here).cloned().collect()
    }
}

const LOOPBACK: IpAddr = IpAddr::V4(Ipv4Addr::LOCALHOST);

fn health(app: &model::App, webserver: bool) -> Health {
    let probe = match &app.healthcheck {
        Some(model::Healthcheck::Path(path)) => {
            model::HealthProbe { path: Some(path.clone()), ..Default::default() }
        }
        Some(model::Healthcheck::Probe(probe)) => (**probe).clone(),
        None => model::HealthProbe::default(),
    };
    let hosts = app.hosts.as_ref();
    let host = probe
        .host
        .as_ref()
        .or_else(|| hosts.and_then(|h| h.external.as_ref()))
        .or_else(|| hosts.and_then(|h| h.internal.as_ref()))
        .map_or_else(|| "localhost".to_owned(), ToString::to_string);
    let kind = match (&probe.command, &probe.path) {
        (Some(command), _) => Probe::Command(command.clone()),
        (None, Some(path)) => Probe::Http { path: path.to_string(), host },
        (None, None) if webserver => Probe::Tcp,
        (None, None) => Probe::Lives(Duration::from_secs(5)),
    };
    Health {
        probe: kind,
        live: probe.live.as_ref().map(ToString::to_string),
        startup: span(probe.startup.as_ref(), 150),
        interval: span(probe.interval.as_ref(), 10),
        timeout: span(probe.timeout.as_ref(), 5),
    }
}

fn span(written: Option<&TimeSpan>, default_seconds: u64) -> Duration {
    written.map_or(Duration::from_secs(default_seconds), |span| *span.value())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::spec::load::{Files, Lookup, read};
    use crate::spec::reference::Reference;
    use crate::spec::shape::Use;

    struct One(&'static str);

    impl Files for One {
        fn read(&self, _: &str) -> Result<Vec<u8>, String> {
            Ok(self.0.into())
        }

        fn matching(&self, _: &str) -> Result<Vec<String>, String> {
            Ok(Vec::new())
        }

        fn shown(&self, path: &str) -> String {
            path.to_owned()
        }
    }

    #[test]
    fn the_tunnel_is_where_version_1_has_it_unless_the_spec_says_otherwise() {
        let files = One("version: 1
project: shop
cloudflare: {zone: example.com, tunnel: 6ff42ae2-765d-4adf-8112-31c55c1551ef, token: \"${T}\", deployment: a/b.c}
apps: {web: {role: worker, command: ./run}}
");
        let document = read(&files, "infraspec.yaml");
        let lookup = |used: &Use| match &used.reference {
            Reference::Variable { name, .. } if name == "T" => Lookup::Value("s3cret-token".to_owned()),
            Reference::Variable { .. } | Reference::App { .. } => Lookup::Value(String::new()),
        };
        let staged = document.stage(None, Some(&lookup));
        let desired = from_spec(&document, &staged, None, &|_| None).expect("it is a spec");
        assert!(!format!("{desired:?}").contains("s3cret"), "{desired:?}");
        assert!(desired.sensitive.contains(&Secret::new("s3cret-token")));
        let tunnel = desired.cloudflare.expect("it has one");
        assert_eq!(tunnel.token.expose(), "s3cret-token");
        let object =
            |namespace: &str, name: &str| ObjectName { namespace: namespace.into(), name: name.into() };
        assert_eq!(tunnel.config_map, object("cloudflared", "cloudflared"));
        assert_eq!(tunnel.deployment, object("a", "b.c"));
    }
}
