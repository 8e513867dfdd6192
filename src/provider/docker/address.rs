//! Where an engine is and how it is reached: its socket, or its port, plain or by TLS.

use std::path::PathBuf;
use std::time::Duration;

use bollard::{API_DEFAULT_VERSION, Docker};
use serde::{Deserialize, Serialize};
use tokio::time::timeout;

use super::{Engine, EngineError, PATIENCE, cause};

/// Where an engine is unless something is said.
const USUAL: &str = "unix:///var/run/docker.sock";
/// How long an engine may take to answer at first.
const HELLO: Duration = Duration::from_secs(20);
/// The files of a client's certificates, as Docker has them.
const CERTIFICATES: [&str; 3] = ["key.pem", "cert.pem", "ca.pem"];

/// An engine's address.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Address {
    /// As the user would name it.
    pub host: String,
    /// The folder of the client's certificates, where it is reached by TLS.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub certificates: Option<PathBuf>,
}

impl Address {
    /// As named, else as `DOCKER_HOST` says, else the usual place. Docker's own variables say whether it
    /// is reached by TLS.
    pub fn of(named: Option<&str>) -> Self {
        let said = |name: &str| std::env::var(name).ok().filter(|text| !text.is_empty());
        let host = named.map(str::to_owned).or_else(|| said("DOCKER_HOST"));
        let usual = || Some(PathBuf::from(said("HOME")?).join(".docker"));
        let certificates = said("DOCKER_CERT_PATH").map(PathBuf::from).or_else(usual);
        Self {
            host: host.unwrap_or_else(|| USUAL.to_owned()),
            certificates: certificates.filter(|_| said("DOCKER_TLS_VERIFY").is_some()),
        }
    }
}

impl Engine {
    /// Reaches the engine at an address.
    ///
    /// # Errors
    /// One that is none, or does not answer.
    pub async fn connect(address: &Address) -> Result<Self, EngineError> {
        let host = &address.host;
        let unreachable = |why: String| EngineError::Unreachable { host: host.clone(), why };
        let docker = match host.split_once("://") {
            Some(("unix", path)) if path.starts_with('/') => {
                Docker::connect_with_unix(path, PATIENCE, API_DEFAULT_VERSION)
            }
            Some(("tcp" | "http" | "https", place)) if !place.is_empty() => match &address.certificates {
                None if host.starts_with("https") => {
                    return Err(EngineError::NoCertificates { host: host.clone() });
                }
                None => Docker::connect_with_http(host, PATIENCE, API_DEFAULT_VERSION),
                Some(folder) => {
                    let files = CERTIFICATES.map(|name| folder.join(name));
                    if let Some(missing) = files.iter().find(|file| !file.is_file()) {
                        let file = missing.display().to_string();
                        return Err(EngineError::NoCertificate { host: host.clone(), file });
                    }
                    let [key, cert, ca] = files;
                    Docker::connect_with_ssl(host, &key, &cert, &ca, PATIENCE, API_DEFAULT_VERSION)
                }
            },
            Some(("ssh", _)) => return Err(EngineError::Ssh { host: host.clone() }),
            _ => return Err(EngineError::NoAddress { host: host.clone() }),
        };
        let docker = docker.map_err(|error| unreachable(cause(&error)))?;
        match timeout(HELLO, docker.negotiate_version()).await {
            Ok(Ok(docker)) => Ok(Self { docker, address: address.clone() }),
            Ok(Err(error)) if cause(&error).contains("ermission denied") => {
                Err(EngineError::Forbidden { host: host.clone() })
            }
            Ok(Err(error)) => Err(unreachable(cause(&error))),
            Err(_) => Err(unreachable(format!("no answer within {} s", HELLO.as_secs()))),
        }
    }
}
