//! Where the Docker engine of the runtime docker is: on this machine, or on another host.
//!
//! Elsewhere: reaching it (`provider::docker`).
//! Invariant: pure.

use super::model::{DockerEngine, Project};
use super::reference::{Absent, Reference};
use super::shape::{Lookup, Use};
use super::source::Span;

/// The variable that names the engine where the spec does not.
pub const VARIABLE: &str = "DOCKER_HOST";

/// Where an engine is, as far as its address tells.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Site<'a> {
    Here,
    /// On another host, at this address.
    Elsewhere(&'a str),
    /// Behind a reference that is not resolved yet.
    Unsaid,
}

impl<'a> Site<'a> {
    /// Where a project's engine is.
    pub fn of(project: &'a Project) -> Self {
        project.docker.as_ref().and_then(|engine| engine.host.as_deref()).map_or(Site::Here, Site::at)
    }

    /// Where the engine of an address is. What is reached by a network counts as another host's, even
    /// at 127.0.0.1: such an address may lead anywhere.
    pub fn at(address: &'a str) -> Self {
        match address.split_once("://") {
            Some(("tcp" | "http" | "https" | "ssh", _)) => Site::Elsewhere(address),
            _ if address.contains("${") => Site::Unsaid,
            _ => Site::Here,
        }
    }

    /// The address of an engine on another host.
    pub fn elsewhere(self) -> Option<&'a str> {
        match self {
            Site::Elsewhere(address) => Some(address),
            Site::Here | Site::Unsaid => None,
        }
    }
}

/// Why an engine cannot be reached at an address, if it cannot; nothing where a reference is not resolved yet.
pub fn no_use(address: &str) -> Option<&'static str> {
    match address.split_once("://") {
        _ if address.contains("${") => None,
        Some(("unix", path)) if path.starts_with('/') => None,
        Some(("unix", _)) => Some("the path of a socket is absolute"),
        Some(("tcp" | "http" | "https", _)) if !host_name(address).is_empty() => None,
        Some(("tcp" | "http" | "https", _)) => Some("it names no host"),
        Some(("ssh", _)) => Some("norn does not reach engines by ssh"),
        Some(_) => Some("that is no scheme of an engine"),
        None => Some("it has no scheme"),
    }
}

/// The host of an engine's address, such as `build.example.com` of `tcp://build.example.com:2375`.
pub fn host_name(address: &str) -> &str {
    let rest = address.split_once("://").map_or(address, |(_, rest)| rest);
    let rest = rest.split(['/', '?', '#']).next().unwrap_or_default();
    let rest = rest.rsplit_once('@').map_or(rest, |(_, host)| host);
    match rest.strip_prefix('[').and_then(|rest| rest.split_once(']')) {
        Some((address, _)) => address,
        None => rest.rsplit_once(':').map_or(rest, |(host, _)| host),
    }
}

/// Has the environment name the engine where the spec does not.
pub fn from_environment(project: &mut Project, span: Span, lookup: &dyn Fn(&Use) -> Lookup) {
    let engine = project.docker.get_or_insert(DockerEngine { host: None });
    if engine.host.is_none() {
        let absent = Absent::Default(String::new());
        let reference = Reference::Variable { name: VARIABLE.to_owned(), absent };
        let path = ["docker", "host"].map(str::to_owned).into();
        if let Lookup::Value(value) = lookup(&Use { path, span, reference }) {
            engine.host = Some(value).filter(|value| !value.is_empty());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_tells_its_host() {
        for (address, host) in [
            ("tcp://build.example.com:2375", "build.example.com"),
            ("tcp://10.0.0.7:2376/", "10.0.0.7"),
            ("tcp://build", "build"),
            ("tcp://[fd00::7]:2375", "fd00::7"),
            ("ssh://ada@build.example.com", "build.example.com"),
        ] {
            assert_eq!(host_name(address), host);
            assert_eq!(Site::at(address), Site::Elsewhere(address));
        }
        for (address, why) in [
            ("unix:///run/docker.sock", None),
            ("tcp://10.0.0.7:2376", None),
            ("tcp://${ENGINE}:2376", None),
            ("unix://docker.sock", Some("the path of a socket is absolute")),
            ("tcp://", Some("it names no host")),
            ("tcp://:2375", Some("it names no host")),
            ("ssh://ada@build", Some("norn does not reach engines by ssh")),
            ("ftp://build", Some("that is no scheme of an engine")),
            ("build:2375", Some("it has no scheme")),
        ] {
            assert_eq!(no_use(address), why, "{address}");
        }
        assert_eq!(Site::at("unix:///run/docker.sock"), Site::Here);
        assert_eq!(Site::at("${ENGINE}"), Site::Unsaid);
    }
}
