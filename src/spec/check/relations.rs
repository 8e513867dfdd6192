//! Rules between apps: ports, names, references, loops.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use super::Checks;
use crate::spec::cycle;
use crate::spec::engine::Site;
use crate::spec::model::{Front, Role, Runtime};
use crate::spec::name::AppName;
use crate::spec::pending;
use crate::spec::problem::{Problem, did_you_mean};
use crate::spec::reference::Reference;
use crate::spec::source::Span;
use crate::spec::way::{NoWay, way};

impl Checks<'_> {
    /// Two apps on one machine cannot listen on one port.
    pub(super) fn ports(&mut self) {
        let mut wanted: BTreeMap<(bool, u16), Vec<(&AppName, IpAddr)>> = BTreeMap::new();
        for (name, app) in &self.project.apps {
            let runtime = pending::runtime(app, self.project);
            let here = app.role == Role::Webserver && runtime != Runtime::Kubernetes;
            let elsewhere = runtime == Runtime::Docker && Site::of(self.project).elsewhere().is_some();
            let Some(port) = app.port.filter(|_| here && !self.unsure(name, "port")) else { continue };
            let bind = match &app.front {
                _ if elsewhere => IpAddr::from([0, 0, 0, 0]),
                Some(Front::On(front)) => front.bind.unwrap_or(IpAddr::from([127, 0, 0, 1])),
                // The app itself may listen anywhere.
                Some(Front::Switch(false)) => IpAddr::from([0, 0, 0, 0]),
                Some(Front::Switch(true)) | None => IpAddr::from([127, 0, 0, 1]),
            };
            wanted.entry((elsewhere, port)).or_default().push((name, bind));
        }
        for ((_, port), mut apps) in wanted {
            // The first in the spec keeps it.
            apps.sort_by_key(|(name, _)| self.value(name, "port"));
            let (first, address) = apps[0];
            let clash =
                |other: &IpAddr| other.is_unspecified() || address.is_unspecified() || *other == address;
            let others: Vec<&AppName> =
                apps[1..].iter().filter(|(_, other)| clash(other)).map(|(name, _)| *name).collect();
            let Some((last, rest)) = others.split_last() else { continue };
            let names =
                |names: &[&AppName]| names.iter().map(|n| format!("`{n}`")).collect::<Vec<_>>().join(", ");
            let named = [&[first], rest].concat();
            let all = if others.len() == 1 { "both" } else { "all" };
            let mut problem = Problem::error(
                "port-clash",
                format!("apps {} and `{last}` {all} want port {port}", names(&named)),
            )
            .help("give each its own port");
            let mut spans = BTreeMap::new();
            for name in [&[first], others.as_slice()].concat() {
                spans.entry(self.value(name, "port")).or_insert_with(Vec::new).push(name);
            }
            // Where to look comes first: the last of them.
            for (span, apps) in spans.iter().rev() {
                let taken = apps.contains(&first);
                problem = problem.at(
                    *span,
                    match taken {
                        true if apps.len() == 1 => format!("{} has it first", names(apps)),
                        true => format!("for {}", names(apps)),
                        false => "taken already".into(),
                    },
                );
            }
            self.say(problem);
        }
    }

    /// What apps say of each other.
    pub(super) fn relations(&mut self) {
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
            if used.path.get(2).is_some_and(|field| field == "port") {
                self.say(
                    Problem::error(
                        "no-way",
                        "a port cannot come from an app: it is what apps are reached by",
                    )
                    .at(used.span, "refers to an app")
                    .help("write the number itself, or take it from a variable such as ${PORT_WEB}"),
                );
                continue;
            }
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
            let from = used.path.get(1).map_or("", String::as_str);
            if let Some(Err(NoWay { why, help })) = way(self.project, Site::of(self.project), from, other) {
                let message = format!("app `{from}` cannot reach app `{other}`: {why}");
                self.say(Problem::error("no-way", message).at(used.span, "refers to it").help(help));
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
        if let Some([(name, span)]) = cycle::find(&edges).as_deref() {
            self.say(
                Problem::error("cycle", format!("app `{name}` waits for itself"))
                    .at(*span, "names the app it belongs to")
                    .help(format!("take `{name}` out")),
            );
        } else if let Some(loop_) = cycle::find(&edges) {
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
