//! How one app reaches another, by what runs the two.
//!
//! Invariant: pure; where there is a way, it is there for every replica of both.

use std::net::IpAddr;

use super::engine::{self, Site};
use super::model::{App, Front, Project, Runtime};
use super::name::AppName;
use super::pending;

/// Where an app is reached.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Way {
    pub host: String,
    pub port: u16,
}

impl Way {
    pub fn url(&self) -> String {
        let Self { host, port } = self;
        if *port == HTTP { format!("http://{host}") } else { format!("http://{host}:{port}") }
    }
}

/// Why there is no way, and how to make one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NoWay {
    pub why: &'static str,
    pub help: String,
}

/// The port of Services and Ingresses.
const HTTP: u16 = 80;

/// The way to an app from one with the name `from`, or nothing where it has no port to be reached at.
/// `site` is where the engine of containers is.
pub fn way(project: &Project, site: Site<'_>, from: &str, to: &AppName) -> Option<Result<Way, NoWay>> {
    let target = project.apps.get(to)?;
    let port = target.port?;
    let from = project.apps.iter().find(|(name, _)| name.as_str() == from).map(|(_, app)| app);
    let here = |app: &App| pending::runtime(app, project);
    let by_name = |port| Ok(Way { host: to.to_string(), port });
    let runtimes = (from.map_or(Runtime::Process, here), here(target));
    if let (from, Runtime::Docker, Site::Elsewhere(address)) = (runtimes.0, runtimes.1, site) {
        let host = engine::host_name(address);
        return Some(match from {
            // Its port is the host's own, which containers reach by the gateway.
            Runtime::Docker => by_name(port),
            Runtime::Process => Ok(Way { host: bracketed(host), port }),
            Runtime::Kubernetes if is_loopback(host) => Err(NoWay {
                why: "its engine is known by an address that only this machine understands",
                help: "name the engine's host in `docker.host` as the cluster reaches it".to_owned(),
            }),
            Runtime::Kubernetes => Ok(Way { host: bracketed(host), port }),
        });
    }
    Some(match runtimes {
        (Runtime::Docker, Runtime::Process) if site.elsewhere().is_some() => Err(NoWay {
            why: "a container on another host does not reach what runs on this machine",
            help: "write an address that the engine's host reaches".to_owned(),
        }),
        (Runtime::Docker, Runtime::Docker) if site == Site::Unsaid => by_name(port),
        (Runtime::Process, Runtime::Process | Runtime::Docker) => {
            Ok(Way { host: "127.0.0.1".to_owned(), port })
        }
        // The name stands in the container's own list of hosts, for the machine that it is on.
        (Runtime::Docker, Runtime::Process | Runtime::Docker) if published(target) => by_name(port),
        (Runtime::Docker, Runtime::Process | Runtime::Docker) => Err(NoWay {
            why: "a container does not reach what listens on 127.0.0.1",
            help: format!(
                "give `{to}` the field `front: {{bind: 0.0.0.0}}`, or an address of this machine's network of containers"
            ),
        }),
        (Runtime::Kubernetes, Runtime::Kubernetes) => by_name(HTTP),
        (Runtime::Kubernetes, Runtime::Process | Runtime::Docker) => Err(NoWay {
            why: "a pod does not reach what runs on another machine by its name",
            help: "write an address that the cluster reaches".to_owned(),
        }),
        (Runtime::Process | Runtime::Docker, Runtime::Kubernetes) => {
            let published =
                project.kubernetes.as_ref().is_some_and(|cluster| cluster.ingress_class.is_some());
            let host = target.hosts.as_ref().and_then(|hosts| hosts.external.as_ref());
            match host.filter(|_| published) {
                Some(host) => Ok(Way { host: host.to_string(), port: HTTP }),
                None => Err(NoWay {
                    why: "what runs in a cluster is not reached from outside of it",
                    help: format!(
                        "give `{to}` its `hosts.external` and the project `kubernetes.ingressClass`"
                    ),
                }),
            }
        }
    })
}

/// A host as it stands in a URL.
fn bracketed(host: &str) -> String {
    if host.contains(':') { format!("[{host}]") } else { host.to_owned() }
}

fn is_loopback(host: &str) -> bool {
    host == "localhost" || host.parse::<IpAddr>().is_ok_and(|address| address.is_loopback())
}

/// Whether its front listens for containers, too.
fn published(app: &App) -> bool {
    matches!(&app.front, Some(Front::On(front)) if front.bind.is_some_and(|address| !address.is_loopback()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_way_is_found_by_what_runs_the_two() {
        let project: Project = serde_json::from_value(serde_json::json!({
            "version": 1, "project": "shop", "kubernetes": {"ingressClass": "traefik"},
            "apps": {
                "process": {"role": "webserver", "port": 8001, "runtime": "process"},
                "open": {"role": "webserver", "port": 8002, "runtime": "docker", "front": {"bind": "0.0.0.0"}},
                "pod": {"role": "webserver", "port": 8003, "runtime": "kubernetes"},
                "public": {
                    "role": "webserver", "port": 8004, "runtime": "kubernetes",
                    "hosts": {"external": "shop.example.com"},
                },
                "worker": {"role": "worker", "runtime": "process"},
            },
        }))
        .expect("it is a project");
        let ways = |from: &str| {
            ["process", "open", "pod", "public"].map(|to| {
                let to = to.parse().expect("a name");
                way(&project, Site::of(&project), from, &to)
                    .expect("it has a port")
                    .map_or("-".to_owned(), |way| way.url())
            })
        };
        let from_process = ["http://127.0.0.1:8001", "http://127.0.0.1:8002", "-", "http://shop.example.com"];
        assert_eq!(ways("process"), from_process);
        assert_eq!(ways("worker"), from_process);
        assert_eq!(ways("open"), ["-", "http://open:8002", "-", "http://shop.example.com"]);
        assert_eq!(ways("pod"), ["-", "-", "http://pod", "http://public"]);
        assert_eq!(way(&project, Site::of(&project), "pod", &"worker".parse().expect("a name")), None);
    }

    #[test]
    fn an_engine_of_another_host_is_reached_there() {
        let urls = |host: &str| {
            let project: Project = serde_json::from_value(serde_json::json!({
                "version": 1, "project": "shop", "docker": {"host": host},
                "apps": {
                    "process": {"role": "webserver", "port": 8001, "runtime": "process"},
                    "there": {"role": "webserver", "port": 8002, "runtime": "docker"},
                    "pod": {"role": "webserver", "port": 8003, "runtime": "kubernetes"},
                },
            }))
            .expect("it is a project");
            let url = |from: &str, to: &str| {
                let way = way(&project, Site::of(&project), from, &to.parse().expect("a name"))
                    .expect("it has a port");
                way.map_or("-".to_owned(), |way| way.url())
            };
            [url("process", "there"), url("there", "there"), url("pod", "there"), url("there", "process")]
        };
        let far = urls("tcp://10.0.0.7:2375");
        assert_eq!(far, ["http://10.0.0.7:8002", "http://there:8002", "http://10.0.0.7:8002", "-"]);
        let near = urls("tcp://[::1]:2375");
        assert_eq!(near, ["http://[::1]:8002", "http://there:8002", "-", "-"]);
        // Until it is known, nothing is refused.
        assert_eq!(urls("${ENGINE}")[1], "http://there:8002");
    }
}
