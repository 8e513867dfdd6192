//! Where a PostgreSQL server is, and as whom to speak to it.
//!
//! Here: a `postgres://` URL, with libpq's environment where it leaves something out. In the
//! submodule: taking the text apart (`text`). Elsewhere: files that a URL names, and the connection
//! itself (`connect`).
//! Invariants: no text made here holds a password, or a piece of one; an empty value counts as
//! none.

#[cfg(test)]
mod tests;
mod text;

use std::fmt;
use std::fs;
use std::path::PathBuf;
use std::time::Duration;

use self::text::{Text, encoded};
use crate::secret::Secret;

/// The parameters that a URL may have.
const PARAMETERS: [&str; 17] = [
    "application_name",
    "channel_binding",
    "connect_timeout",
    "dbname",
    "host",
    "options",
    "passfile",
    "password",
    "port",
    "ssl",
    "sslcert",
    "sslkey",
    "sslmode",
    "sslnegotiation",
    "sslrootcert",
    "target_session_attrs",
    "user",
];

/// Where libpq looks for a server's socket where no host is named: Debian's folder, PostgreSQL's own.
const SOCKETS: [&str; 2] = ["/var/run/postgresql", "/tmp"];

const PORT: u16 = 5432;

/// How long connecting may take where nothing else is asked for.
const TIMEOUT: Duration = Duration::from_secs(10);

/// A server, a database on it, and how to connect. Shown without password and parameters, as
/// `postgres://user@host:5432/database`, but with the options that choose a schema.
#[derive(Clone, PartialEq, Eq)]
pub struct ServerUrl {
    /// At least one; tried in this order.
    pub(super) hosts: Vec<Host>,
    pub(super) user: String,
    pub(super) password: Option<Secret>,
    /// Where a password is looked for when none is given.
    pub(super) passfile: Option<PathBuf>,
    pub(super) database: String,
    pub(super) tls: Tls,
    /// The bound over all hosts together.
    pub(super) timeout: Duration,
    /// Whether a server that takes no writes is passed over.
    pub(super) writable: bool,
    pub(super) binding: Binding,
    pub(super) options: Option<String>,
    pub(super) application_name: Option<String>,
}

/// One server.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Host {
    Tcp {
        name: String,
        port: u16,
    },
    /// The folder of a Unix socket; the port is a part of the socket's name.
    Socket {
        folder: PathBuf,
        port: u16,
    },
}

/// What is asked of TLS.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Tls {
    pub mode: SslMode,
    pub roots: Roots,
    /// The client's certificate, and its key.
    pub certificate: Option<PathBuf>,
    pub key: Option<PathBuf>,
    /// Whether TLS begins without asking the server first, which PostgreSQL 17 brought.
    pub direct: bool,
    /// libpq's folder of certificates, `~/.postgresql`.
    pub folder: Option<PathBuf>,
}

/// libpq's `sslmode`, from the weakest to the strongest.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum SslMode {
    /// Never TLS.
    Disable,
    /// TLS only where the server refuses without.
    Allow,
    /// TLS where the server has it.
    Prefer,
    /// Always TLS; the certificate is checked only where roots are given.
    Require,
    /// Always TLS, and the certificate must be signed by a root.
    VerifyCa,
    /// As `VerifyCa`, and the certificate must be of this host.
    VerifyFull,
}

impl SslMode {
    pub const ALL: [SslMode; 6] = [
        SslMode::Disable,
        SslMode::Allow,
        SslMode::Prefer,
        SslMode::Require,
        SslMode::VerifyCa,
        SslMode::VerifyFull,
    ];

    pub fn as_str(self) -> &'static str {
        match self {
            SslMode::Disable => "disable",
            SslMode::Allow => "allow",
            SslMode::Prefer => "prefer",
            SslMode::Require => "require",
            SslMode::VerifyCa => "verify-ca",
            SslMode::VerifyFull => "verify-full",
        }
    }
}

impl fmt::Display for SslMode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// The certificates that vouch for a server's.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Roots {
    /// None are named: `~/.postgresql/root.crt` where it is there, else the system's.
    Default,
    System,
    File(PathBuf),
}

/// libpq's `channel_binding`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Binding {
    Disable,
    Prefer,
    Require,
}

/// Why a text is no URL of a PostgreSQL server. No variant holds a piece of a password.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum UrlError {
    #[error(
        "the URL begins with neither postgres:// nor postgresql://; write it as postgres://user:password@host:5432/database"
    )]
    Scheme,
    #[error(
        "the URL's user or password has one of `@ : / ? # %` in it as it is; write these as %40 %3A %2F %3F %23 %25"
    )]
    Unescaped,
    #[error("the URL's {0} has a % without two hex digits after it, or no UTF-8; write a % itself as %25")]
    Encoding(&'static str),
    #[error("an IPv6 address stands in brackets, as in postgres://user@[::1]:5432/database")]
    Brackets,
    #[error("one of several hosts is empty; write them as postgres://user@one:5432,two:5432/database")]
    EmptyHost,
    #[error("a port is a number from 1 to 65535; in a password, write : as %3A and @ as %40")]
    Port,
    #[error("there are {ports} ports for {hosts} hosts; give one port, or one for each host")]
    Ports { hosts: usize, ports: usize },
    #[error("the URL has a parameter without a value; write parameters as ?name=value&name=value")]
    NoValue,
    #[error("norn does not know the URL's parameter `{name}`; it knows {}", PARAMETERS.join(", "))]
    Parameter { name: String },
    /// `setting` is the parameter or the variable.
    #[error("{setting} is `{value}`, and can be {can_be}")]
    Value { setting: &'static str, value: String, can_be: &'static str },
    #[error(
        "sslrootcert=system is for sslmode=verify-full, not for {mode}; leave sslmode out or name a file"
    )]
    WeakForSystem { mode: SslMode },
    #[error("sslnegotiation=direct needs sslmode=require or a stronger one, not {mode}")]
    WeakForDirect { mode: SslMode },
}

impl ServerUrl {
    /// Reads a URL as libpq does. What it leaves out comes from the variables that `env` gives:
    /// PGHOST, PGPORT, PGDATABASE, PGUSER, PGPASSWORD, PGPASSFILE (else `~/.pgpass`), PGSSLMODE,
    /// PGSSLROOTCERT, PGSSLCERT, PGSSLKEY, PGSSLNEGOTIATION, PGCHANNELBINDING, PGCONNECT_TIMEOUT,
    /// PGTARGETSESSIONATTRS and PGOPTIONS, and HOME for libpq's files. `connect_timeout` bounds
    /// all hosts together; without one, or with 0, it is 10 seconds.
    ///
    /// # Errors
    /// A text that is no such URL, or a setting with a value that norn does not know.
    pub fn parse(url: &Secret, env: &dyn Fn(&str) -> Option<String>) -> Result<Self, UrlError> {
        let text = Text::parse(url.expose())?;
        let env = |name: &str| env(name).filter(|value| !value.is_empty());
        let given = |parameter: &'static str, variable: &'static str| {
            let own = text.parameter(parameter).map(|value| (parameter, value.to_owned()));
            own.or_else(|| env(variable).map(|value| (variable, value)))
        };
        let value = |parameter, variable| given(parameter, variable).map(|(_, value)| value);
        let home = env("HOME").map(PathBuf::from);

        let user = text.user().map(str::to_owned).or_else(|| env("PGUSER"));
        let user = user.or_else(account).or_else(|| env("USER")).unwrap_or_else(|| "postgres".to_owned());
        let database = text.database().map(str::to_owned).or_else(|| env("PGDATABASE"));
        let passfile = value("passfile", "PGPASSFILE").map(PathBuf::from);
        Ok(Self {
            hosts: hosts(&text, env("PGHOST"), env("PGPORT"))?,
            password: text.password().map(str::to_owned).or_else(|| env("PGPASSWORD")).map(Secret::new),
            passfile: passfile.or_else(|| home.as_ref().map(|home| home.join(".pgpass"))),
            database: database.unwrap_or_else(|| user.clone()),
            user,
            tls: Tls {
                certificate: value("sslcert", "PGSSLCERT").map(PathBuf::from),
                key: value("sslkey", "PGSSLKEY").map(PathBuf::from),
                folder: home.map(|home| home.join(".postgresql")),
                ..tls(text.parameter("ssl"), &given)?
            },
            timeout: timeout(given("connect_timeout", "PGCONNECT_TIMEOUT"))?,
            writable: writable(given("target_session_attrs", "PGTARGETSESSIONATTRS"))?,
            binding: binding(given("channel_binding", "PGCHANNELBINDING"))?,
            options: value("options", "PGOPTIONS"),
            application_name: text.parameter("application_name").map(str::to_owned),
        })
    }

    pub fn user(&self) -> &str {
        &self.user
    }

    pub fn database(&self) -> &str {
        &self.database
    }

    /// The password in the URL or the environment; one in a file is read when it is needed.
    pub fn password(&self) -> Option<&Secret> {
        self.password.as_ref()
    }
}

impl fmt::Display for ServerUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "postgres://{}@", encoded(&self.user))?;
        for (index, host) in self.hosts.iter().enumerate() {
            f.write_str(if index == 0 { "" } else { "," })?;
            match host {
                Host::Tcp { name, port } if name.contains(':') => write!(f, "[{name}]:{port}")?,
                Host::Tcp { name, port } => write!(f, "{}:{port}", encoded(name))?,
                Host::Socket { folder, port } => {
                    write!(f, "{}:{port}", encoded(&folder.display().to_string()))?;
                }
            }
        }
        write!(f, "/{}", encoded(&self.database))?;
        // Another search path is another store.
        match &self.options {
            Some(options) if options.contains("search_path") => write!(f, "?options={}", encoded(options)),
            Some(_) | None => Ok(()),
        }
    }
}

impl fmt::Debug for ServerUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// How a person names a server: `host:5432`, or the path of its socket.
impl fmt::Display for Host {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Host::Tcp { name, port } if name.contains(':') => write!(f, "[{name}]:{port}"),
            Host::Tcp { name, port } => write!(f, "{name}:{port}"),
            Host::Socket { folder, port } => write!(f, "{}/.s.PGSQL.{port}", folder.display()),
        }
    }
}

fn hosts(text: &Text, pghost: Option<String>, pgport: Option<String>) -> Result<Vec<Host>, UrlError> {
    let list = |text: String| text.split(',').map(str::to_owned).collect::<Vec<_>>();
    let mut names = text.hosts();
    if names.iter().all(String::is_empty) {
        names = pghost.map_or_else(|| SOCKETS.map(str::to_owned).to_vec(), list);
    }
    let mut ports = text.ports();
    if ports.iter().all(String::is_empty) {
        ports = pgport.map_or_else(|| vec![String::new()], list);
    }
    if ports.len() != 1 && ports.len() != names.len() {
        return Err(UrlError::Ports { hosts: names.len(), ports: ports.len() });
    }
    let ports = ports.iter().map(|port| match port.as_str() {
        "" => Ok(PORT),
        port => port.parse().ok().filter(|port| *port != 0).ok_or(UrlError::Port),
    });
    let ports = ports.collect::<Result<Vec<u16>, _>>()?;
    let ports = ports.iter().copied().cycle();
    let host = |(name, port): (String, u16)| match name {
        name if name.is_empty() => Err(UrlError::EmptyHost),
        name if name.starts_with('/') => Ok(Host::Socket { folder: name.into(), port }),
        name => Ok(Host::Tcp { name, port }),
    };
    names.into_iter().zip(ports).map(host).collect()
}

/// A setting, and where it stands.
type Given = Option<(&'static str, String)>;

fn tls(ssl: Option<&str>, given: &dyn Fn(&'static str, &'static str) -> Given) -> Result<Tls, UrlError> {
    let roots = match given("sslrootcert", "PGSSLROOTCERT") {
        None => Roots::Default,
        Some((_, value)) if value == "system" => Roots::System,
        Some((_, file)) => Roots::File(file.into()),
    };
    // JDBC's spelling, which libpq takes too.
    let required = match ssl {
        None => None,
        Some("true") => Some(("ssl", "require".to_owned())),
        Some(value) => {
            return Err(UrlError::Value { setting: "ssl", value: value.to_owned(), can_be: "true" });
        }
    };
    let mode = match given("sslmode", "PGSSLMODE").filter(|(at, _)| required.is_none() || *at == "sslmode") {
        None => match (required, &roots) {
            (Some(_), _) => SslMode::Require,
            (None, Roots::System) => SslMode::VerifyFull,
            (None, Roots::Default | Roots::File(_)) => SslMode::Prefer,
        },
        Some((setting, value)) => {
            let can_be = "disable, allow, prefer, require, verify-ca or verify-full";
            let mode = SslMode::ALL.into_iter().find(|mode| mode.as_str() == value);
            mode.ok_or(UrlError::Value { setting, value, can_be })?
        }
    };
    if roots == Roots::System && mode != SslMode::VerifyFull {
        return Err(UrlError::WeakForSystem { mode });
    }
    let direct = match given("sslnegotiation", "PGSSLNEGOTIATION") {
        None => false,
        Some((setting, value)) => match value.as_str() {
            "postgres" => false,
            "direct" => true,
            _ => return Err(UrlError::Value { setting, value, can_be: "postgres or direct" }),
        },
    };
    if direct && mode < SslMode::Require {
        return Err(UrlError::WeakForDirect { mode });
    }
    Ok(Tls { mode, roots, certificate: None, key: None, direct, folder: None })
}

fn timeout(given: Given) -> Result<Duration, UrlError> {
    let Some((setting, value)) = given else { return Ok(TIMEOUT) };
    match value.trim().parse::<i32>() {
        Ok(seconds) => Ok(match u64::try_from(seconds) {
            Ok(0) | Err(_) => TIMEOUT,
            Ok(seconds) => Duration::from_secs(seconds),
        }),
        Err(_) => Err(UrlError::Value { setting, value, can_be: "a number of seconds" }),
    }
}

fn writable(given: Given) -> Result<bool, UrlError> {
    let Some((setting, value)) = given else { return Ok(false) };
    match value.as_str() {
        "any" => Ok(false),
        "read-write" | "primary" => Ok(true),
        _ => {
            let can_be = "any, read-write or primary, as norn writes its state";
            Err(UrlError::Value { setting, value, can_be })
        }
    }
}

fn binding(given: Given) -> Result<Binding, UrlError> {
    let Some((setting, value)) = given else { return Ok(Binding::Prefer) };
    match value.as_str() {
        "disable" => Ok(Binding::Disable),
        "prefer" => Ok(Binding::Prefer),
        "require" => Ok(Binding::Require),
        _ => Err(UrlError::Value { setting, value, can_be: "disable, prefer or require" }),
    }
}

/// The name of this process's user.
fn account() -> Option<String> {
    let own = rustix::process::geteuid().as_raw().to_string();
    let users = fs::read_to_string("/etc/passwd").ok()?;
    let fields = users.lines().map(|line| line.split(':').collect::<Vec<_>>());
    let mut matching = fields.filter(|fields| fields.get(2) == Some(&own.as_str()));
    matching.find_map(|fields| fields.first().map(|name| (*name).to_owned()))
}
