//! A connection to the server that a URL names.
//!
//! Here: which host, which address, with or without TLS, and how long all of it may take. In the
//! submodules: certificates (`tls`), libpq's file of passwords (`passfile`), what went wrong
//! (`error`).
//! Invariants: connecting ends in time, whatever the other side does; nothing is set in the session,
//! and nothing but `application_name` is asked for that a pooler may refuse.

mod error;
mod passfile;
mod tls;

use std::io;
use std::net::{IpAddr, ToSocketAddrs};
use std::path::PathBuf;
use std::thread;
use std::time::Duration;

use tokio::sync::oneshot;
use tokio::time::{Instant, sleep, timeout};
use tokio_postgres::config::{ChannelBinding, SslMode as Negotiated, SslNegotiation, TargetSessionAttrs};
use tokio_postgres::{Client, Config};
use tokio_postgres_rustls::MakeRustlsConnect;

pub use self::error::{ConnectError, words};
use self::passfile::Found;
use super::address::{Binding, Host, ServerUrl, SslMode};

/// How often a server is asked again that starts or stops just now.
const PAUSE: Duration = Duration::from_millis(200);

/// How long a connection may be silent before the other side is asked whether it is there, and
/// how often and how many times it is asked.
const IDLE: Duration = Duration::from_secs(15);
const INTERVAL: Duration = Duration::from_secs(5);
const RETRIES: u32 = 3;

/// How long what was sent may stay unconfirmed: as long as silence may.
const UNCONFIRMED: Duration = Duration::from_secs(30);

/// Connects to the first of the URL's hosts that can be used, within the URL's time for all of
/// them together. A server that is starting is waited for within that time.
///
/// The connection lives in a task of its own until the client is dropped. `application_name` is
/// what the server shows of it where the URL has no other.
///
/// # Errors
/// Why no host can be used: the one that turned us away, or all that are out of reach.
pub async fn connect(url: &ServerUrl, application_name: &str) -> Result<Client, ConnectError> {
    let connecting =
        Connecting { url, application_name, tls: tls(url)?, deadline: Instant::now() + url.timeout };
    loop {
        match connecting.round().await {
            Err(error) if error.passes() && Instant::now() + PAUSE < connecting.deadline => {
                sleep(PAUSE).await
            }
            result => return result,
        }
    }
}

/// What TLS begins with, where it may be used.
fn tls(url: &ServerUrl) -> Result<MakeRustlsConnect, ConnectError> {
    let unused =
        url.tls.mode == SslMode::Disable || url.hosts.iter().all(|host| matches!(host, Host::Socket { .. }));
    let plain =
        super::address::Tls { mode: SslMode::Disable, certificate: None, folder: None, ..url.tls.clone() };
    tls::config(if unused { &plain } else { &url.tls }).map(MakeRustlsConnect::new)
}

struct Connecting<'a> {
    url: &'a ServerUrl,
    application_name: &'a str,
    tls: MakeRustlsConnect,
    deadline: Instant,
}

impl Connecting<'_> {
    /// Asks each host once.
    async fn round(&self) -> Result<Client, ConnectError> {
        let mut errors = Vec::new();
        let hosts = &self.url.hosts;
        for (index, host) in hosts.iter().enumerate() {
            let end = share(self.deadline, hosts.len() - index);
            match self.host(host, end).await {
                Err(error) if error.of_this_host() => errors.push(error),
                result => return result,
            }
        }
        let last = errors.pop().expect("a URL has a host");
        if errors.is_empty() {
            return Err(last);
        }
        errors.push(last);
        Err(ConnectError::Several(errors))
    }

    /// Asks one host, at each of its addresses.
    async fn host(&self, host: &Host, end: Instant) -> Result<Client, ConnectError> {
        let (name, port) = match host {
            Host::Socket { .. } => return self.address(host, None, end).await,
            Host::Tcp { name, port } => (name.as_str(), *port),
        };
        let began = Instant::now();
        let not_found = |why| ConnectError::HostNotFound { host: name.to_owned(), why };
        let addresses = match timeout(end - began, resolve(name, port)).await {
            Ok(Ok(addresses)) => addresses,
            Ok(Err(error)) => return Err(not_found(lookup_words(&error))),
            Err(_) => return Err(not_found("no name server answered in time".to_owned())),
        };
        let mut last = not_found("it has no address".to_owned());
        for (index, address) in addresses.iter().enumerate() {
            let end = share(end, addresses.len() - index);
            match self.address(host, Some(*address), end).await {
                Err(error) if error.of_this_host() => last = error,
                result => return result,
            }
        }
        Err(last)
    }

    /// Asks at one address, with and without TLS as `sslmode` has it.
    async fn address(
        &self,
        host: &Host,
        address: Option<IpAddr>,
        end: Instant,
    ) -> Result<Client, ConnectError> {
        let (first, second) = match (host, self.url.tls.mode) {
            // libpq has no TLS on a socket, whatever is asked for.
            (Host::Socket { .. }, _) | (Host::Tcp { .. }, SslMode::Disable) => (Negotiated::Disable, None),
            (Host::Tcp { .. }, SslMode::Allow) => (Negotiated::Disable, Some(Negotiated::Require)),
            (Host::Tcp { .. }, SslMode::Prefer) => (Negotiated::Prefer, Some(Negotiated::Disable)),
            (Host::Tcp { .. }, SslMode::Require | SslMode::VerifyCa | SslMode::VerifyFull) => {
                (Negotiated::Require, None)
            }
        };
        let refused = match (self.attempt(host, address, first, end).await, second) {
            (Err(error @ ConnectError::NotAdmitted { .. }), Some(_)) => error,
            (result, _) => return result,
        };
        // A line of pg_hba.conf may be for connections with TLS only, or without only.
        let second = second.expect("it was matched");
        match self.attempt(host, address, second, end).await {
            Err(ConnectError::NotAdmitted { .. } | ConnectError::NoTls { .. }) => Err(refused),
            result => result,
        }
    }

    async fn attempt(
        &self,
        host: &Host,
        address: Option<IpAddr>,
        negotiated: Negotiated,
        end: Instant,
    ) -> Result<Client, ConnectError> {
        let limit = end.saturating_duration_since(Instant::now());
        let (config, open) = self.config(host, address, negotiated, limit);
        match timeout(limit, config.connect(self.tls.clone())).await {
            Ok(Ok((client, connection))) => {
                // Its end is told to whoever waits for an answer.
                let _task = tokio::spawn(async move { drop(connection.await) });
                #[cfg(feature = "failpoints")]
                severed::open(_task.abort_handle());
                Ok(client)
            }
            Ok(Err(error)) => Err(error::classify(&error, self.url, host, open)),
            Err(_) => Err(ConnectError::TimedOut { server: host.to_string(), after: limit }),
        }
    }

    /// What the client is told, and a file of passwords that was not read.
    fn config(
        &self,
        host: &Host,
        address: Option<IpAddr>,
        negotiated: Negotiated,
        limit: Duration,
    ) -> (Config, Option<PathBuf>) {
        let url = self.url;
        let mut config = Config::new();
        config
            .user(&url.user)
            .dbname(&url.database)
            .application_name(url.application_name.as_deref().unwrap_or(self.application_name))
            .ssl_mode(negotiated)
            // Whoever asks the server to cancel a statement is bound by this too; here `limit` ends first.
            .connect_timeout(limit + PAUSE)
            .keepalives_idle(IDLE)
            .keepalives_interval(INTERVAL)
            .keepalives_retries(RETRIES)
            .tcp_user_timeout(UNCONFIRMED)
            .channel_binding(match url.binding {
                Binding::Disable => ChannelBinding::Disable,
                Binding::Prefer => ChannelBinding::Prefer,
                Binding::Require => ChannelBinding::Require,
            });
        match host {
            Host::Tcp { name, port } => config.host(name).port(*port),
            Host::Socket { folder, port } => config.host_path(folder).port(*port),
        };
        if let Some(address) = address {
            config.hostaddr(address);
        }
        if url.tls.direct && negotiated == Negotiated::Require {
            config.ssl_negotiation(SslNegotiation::Direct);
        }
        if url.writable {
            config.target_session_attrs(TargetSessionAttrs::ReadWrite);
        }
        if let Some(options) = &url.options {
            config.options(options);
        }
        let (password, open) = match &url.password {
            Some(password) => (Some(password.clone()), None),
            None => match passfile::look(url, host) {
                Found::Password(password) => (Some(password), None),
                Found::Nothing => (None, None),
                Found::Open(path) => (None, Some(path)),
            },
        };
        if let Some(password) = password {
            config.password(password.expose());
        }
        (config, open)
    }
}

/// When the first of `parts` has to end, where each may take as long as the others.
fn share(end: Instant, parts: usize) -> Instant {
    let now = Instant::now();
    let parts = u32::try_from(parts).unwrap_or(u32::MAX).max(1);
    now + end.saturating_duration_since(now) / parts
}

/// Connections that a test can cut.
#[cfg(feature = "failpoints")]
pub mod severed {
    use std::sync::{Mutex, PoisonError};

    use tokio::task::AbortHandle;

    static OPEN: Mutex<Vec<AbortHandle>> = Mutex::new(Vec::new());

    pub fn open(connection: AbortHandle) {
        OPEN.lock().unwrap_or_else(PoisonError::into_inner).push(connection);
    }

    /// Ends every connection of this process, whatever is under way on it.
    pub fn all() {
        let open = std::mem::take(&mut *OPEN.lock().unwrap_or_else(PoisonError::into_inner));
        open.iter().for_each(AbortHandle::abort);
    }
}

/// Asks the system for the addresses of a host.
async fn resolve(name: &str, port: u16) -> io::Result<Vec<IpAddr>> {
    if let Ok(address) = name.parse() {
        return Ok(vec![address]);
    }
    let name = name.to_owned();
    let (answer, answered) = oneshot::channel();
    // A name server may be silent for longer than we wait. Tokio's own threads would hold up the end
    // of the process until then.
    thread::Builder::new().spawn(move || {
        let found = (name.as_str(), port).to_socket_addrs();
        // Who asked may be gone.
        let _gone = answer.send(found.map(|all| all.map(|address| address.ip()).collect()));
    })?;
    answered.await.map_err(io::Error::other)?
}

fn lookup_words(error: &io::Error) -> String {
    let words = error::io_words(error);
    words.trim_start_matches("failed to lookup address information: ").to_owned()
}
