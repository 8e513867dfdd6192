//! How one app reaches another, by what runs the two.
//!
//! Invariant: pure; where there is a way, it is there for every replica of both.

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
pub fn way(project: &Project, from: &str, to: &AppName) -> Option<Result<Way, NoWay>> {
    let target = project.apps.get(to)?;
    let port = target.port?;
    let from = project.apps.iter().find(|(name, _)| name.as_str() == from).map(|(_, app)| app);
    let here = |app: &App| pending::runtime(app, project);
    let by_name = |port| Ok(Way { host: to.to_string(), port });
    Some(match (from.map_or(Runtime::Process, here), here(target)) {
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
                way(&project, from, &to).expect("it has a port").map_or("-".to_owned(), |way| way.url())
            })
        };
        let from_process = ["http://127.0.0.1:8001", "http://127.0.0.1:8002", "-", "http://shop.example.com"];
        assert_eq!(ways("process"), from_process);
        assert_eq!(ways("worker"), from_process);
        assert_eq!(ways("open"), ["-", "http://open:8002", "-", "http://shop.example.com"]);
        assert_eq!(ways("pod"), ["-", "-", "http://pod", "http://public"]);
        assert_eq!(way(&project, "pod", &"worker".parse().expect("a name")), None);
    }
}
