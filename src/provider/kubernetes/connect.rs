//! The way into a cluster, by kubectl's rules: the files of `KUBECONFIG`, else `~/.kube/config`, else
//! what a pod finds; contexts, and programs that give logins.

use std::path::{Path, PathBuf};
use std::time::Duration;

use k8s_openapi::api::core::v1::Namespace;
use kube::Api;
use kube::config::{KubeConfigOptions, Kubeconfig};
use kube::{Client, Config};
use tokio::runtime::Handle;
use tokio::sync::oneshot;
use tokio::time::timeout;

use super::{Cluster, ClusterError, refusal};
use crate::provider::causes::chain;

/// How long a connection may take to be there.
const CONNECT: Duration = Duration::from_secs(10);

/// How long a program may take to give a login: it may have somebody log in at a browser.
const LOGIN: Duration = Duration::from_secs(300);

/// What tells a process that it is in a pod.
const IN_POD: &str = "KUBERNETES_SERVICE_HOST";

impl Cluster {
    /// Reaches the cluster of a context (none: the current one) and logs in.
    ///
    /// # Errors
    /// No or a bad kubeconfig, an unknown context, a namespace that is not there, a server that does not answer or is not trusted,
    /// a login that it does not take.
    pub async fn connect(context: Option<&str>, namespace: &str) -> Result<Self, ClusterError> {
        Self::connect_by(&files(), context, namespace).await
    }

    /// The same by these kubeconfigs; of what two say, the first's counts.
    ///
    /// # Errors
    /// As [`connect`](Self::connect).
    pub async fn connect_by(
        files: &[PathBuf],
        context: Option<&str>,
        namespace: &str,
    ) -> Result<Self, ClusterError> {
        let mut config = match read(files)? {
            Some(kubeconfig) => chosen(kubeconfig, context).await?,
            None if std::env::var_os(IN_POD).is_some() && context.is_none() => {
                Config::incluster().map_err(|error| ClusterError::NoAccount { why: chain(&error) })?
            }
            None => return Err(ClusterError::NoKubeconfig { looked: shown(files) }),
        };
        config.connect_timeout = Some(CONNECT);
        let server = config.cluster_url.to_string().trim_end_matches('/').to_owned();
        let program = config.auth_info.exec.as_ref().and_then(|exec| exec.command.clone());
        let logged_in = timeout(LOGIN, log_in(config)).await.map_err(|_| ClusterError::LoginProgram {
            server: server.clone(),
            program: refusal::program(program.as_deref()),
            why: format!("gave nothing for {} s", LOGIN.as_secs()),
        })?;
        let client = logged_in.map_err(|error| match error {
            kube::Error::Auth(error) => refusal::login(&server, program.as_deref(), &error),
            other => ClusterError::BadKubeconfig { why: chain(&other) },
        })?;
        Self { client, server, namespace: namespace.to_owned(), id: None }.again().await
    }

    /// The same with the same login, and which namespace it is by now.
    ///
    /// # Errors
    /// A namespace that is not there, a server that does not answer, a login that it does not take any more.
    pub async fn again(&self) -> Result<Self, ClusterError> {
        let namespaces = Api::<Namespace>::all(self.client.clone());
        let found = self.answer("look at the namespace", namespaces.get(&self.namespace)).await;
        let id = match found {
            Ok(found) => found.metadata.uid,
            // Who may work in a namespace need not see it.
            Err(ClusterError::Forbidden { .. }) => None,
            Err(error) => return Err(error),
        };
        Ok(Self { id, ..self.clone() })
    }
}

/// Runs the login's program, if it has one. That blocks, so it has a thread of its own, which nobody
/// waits for where it never ends.
async fn log_in(config: Config) -> Result<Client, kube::Error> {
    let (sender, client) = oneshot::channel();
    let runtime = Handle::current();
    std::thread::spawn(move || {
        let _entered = runtime.enter();
        let _gave_up = sender.send(Client::try_from(config));
    });
    client.await.expect("making a client does not panic")
}

/// Where kubeconfigs are.
fn files() -> Vec<PathBuf> {
    let named = std::env::var_os("KUBECONFIG").filter(|named| !named.is_empty());
    let usual = || std::env::home_dir().map(|home| home.join(".kube/config"));
    match named {
        Some(named) => std::env::split_paths(&named).filter(|path| !path.as_os_str().is_empty()).collect(),
        None => usual().into_iter().collect(),
    }
}

fn shown(files: &[PathBuf]) -> String {
    let files: Vec<String> = files.iter().map(|path| path.display().to_string()).collect();
    if files.is_empty() { "no file at all".to_owned() } else { files.join(", ") }
}

/// All that the files say; none of them there is nothing. As with kubectl, some may be missing.
fn read(files: &[PathBuf]) -> Result<Option<Kubeconfig>, ClusterError> {
    let mut whole: Option<Kubeconfig> = None;
    for path in files.iter().filter(|path| path.exists()) {
        let bad = |error| ClusterError::BadKubeconfig { why: told(path, &error) };
        let one = Kubeconfig::read_from(path).map_err(bad)?;
        whole = Some(match whole {
            None => one,
            Some(before) => before.merge(one).map_err(bad)?,
        });
    }
    Ok(whole.filter(|whole| !(whole.contexts.is_empty() && whole.clusters.is_empty())))
}

/// What is the matter with a file: the first line only, as parsers go on to quote it, tokens and all.
fn told(path: &Path, error: &(dyn std::error::Error + 'static)) -> String {
    let why = chain(error);
    format!("{}: {}", path.display(), why.lines().next().unwrap_or_default())
}

async fn chosen(kubeconfig: Kubeconfig, context: Option<&str>) -> Result<Config, ClusterError> {
    let mut known: Vec<String> = kubeconfig.contexts.iter().map(|context| context.name.clone()).collect();
    known.sort();
    let current = kubeconfig.current_context.clone().filter(|current| !current.is_empty());
    let Some(context) = context.map(str::to_owned).or(current) else {
        return Err(ClusterError::NoContext { known });
    };
    if !known.contains(&context) {
        return Err(ClusterError::UnknownContext { context, known });
    }
    let options = KubeConfigOptions { context: Some(context.clone()), ..KubeConfigOptions::default() };
    Config::from_custom_kubeconfig(kubeconfig, &options)
        .await
        .map_err(|error| ClusterError::BadKubeconfig { why: format!("context {context}: {}", chain(&error)) })
}
