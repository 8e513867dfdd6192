//! Why there is no connection, in words that mend it.
//!
//! Invariant: what the server said itself is kept; a password is never in it.

use std::error::Error as _;
use std::io;
use std::path::PathBuf;
use std::time::Duration;

use rustls::{CertificateError, Error as TlsError};
use tokio_postgres::error::{DbError, Error, SqlState};

use super::tls::roots_of;
use crate::state::postgres::address::{Host, ServerUrl, SslMode};

/// Why a server cannot be used. `server` is `host:port` or the path of a socket, `said` are the
/// server's own words.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ConnectError {
    #[error(
        "the host {host} is not known: {why}; correct the URL, or see why the name does not resolve here"
    )]
    HostNotFound { host: String, why: String },
    #[error("nothing listens at {server}; start PostgreSQL there, or correct the URL's host and port")]
    Refused { server: String },
    #[error("there is no socket {server}; start PostgreSQL, or name its host in the URL")]
    NoSocket { server: String },
    #[error("{server} cannot be reached: {why}; see to the network, or correct the URL")]
    Unreachable { server: String, why: String },
    #[error(
        "{server} did not answer within {} s; see whether it is up and no firewall is in between, or give connect_timeout more seconds", seconds(.after)
    )]
    TimedOut { server: String, after: Duration },
    #[error(
        "{server} cut the connection before it was ready; see whether it is a PostgreSQL server, and its log"
    )]
    Lost { server: String },
    #[error("what listens at {server} does not speak as PostgreSQL does; correct the URL's host and port")]
    NotPostgres { server: String },
    #[error(
        "{server} has no TLS, and sslmode={mode} needs it; switch it on there (`ssl = on`), or take sslmode=prefer"
    )]
    NoTls { server: String, mode: SslMode },
    #[error(
        "the certificate of {server} is signed by nobody that {roots} names; name the file of its root in sslrootcert"
    )]
    Untrusted { server: String, roots: String },
    #[error(
        "the certificate of {server} is not for {host} but for {}; take that name in the URL, or sslmode=verify-ca", its_names(.names)
    )]
    WrongName { server: String, host: String, names: Vec<String> },
    #[error("the certificate of {server} has expired; renew it there")]
    Expired { server: String },
    #[error("the certificate of {server} is not valid yet; see to the clocks here and there")]
    NotYetValid { server: String },
    #[error(
        "the certificate of {server} is of X.509 version 1, which names no host; make one with a subjectAltName there, or take sslmode=require"
    )]
    OldCertificate { server: String },
    #[error("TLS with {server} failed: {why}; see to its certificate and its settings of TLS")]
    Handshake { server: String, why: String },
    /// A file that the URL or the environment names.
    #[error("{what} {} cannot be used: {why}", path.display())]
    File { what: &'static str, path: PathBuf, why: String },
    #[error("{server} asks for the password of {user}, and none is given{}; give it in the URL, in PGPASSWORD or in ~/.pgpass", ignored(.open))]
    NoPassword {
        server: String,
        user: String,
        /// A file of passwords that is not read, as others may read it.
        open: Option<PathBuf>,
    },
    #[error("{server} refuses user {user} with this password: {said}; correct user and password in the URL")]
    Password { server: String, user: String, said: String },
    #[error(
        "{server} does not let {user} in: {said}; create the role there, or name another user in the URL"
    )]
    NoRole { server: String, user: String, said: String },
    #[error("{server} has no database {database}: {said}; create it there, or name another in the URL")]
    NoDatabase { server: String, database: String, said: String },
    #[error(
        "{server} does not admit this connection: {said}; allow it in the server's pg_hba.conf, or take another user, host or sslmode"
    )]
    NotAdmitted { server: String, said: String },
    #[error("{server} asks for a way to log in that norn does not have: {why}; let it ask for scram-sha-256")]
    Method { server: String, why: String },
    #[error("{server} has no connection left: {said}; end some, or raise the limit there")]
    TooMany { server: String, said: String },
    #[error("{server} is not ready: {said}; run the command again when it is")]
    NotReady { server: String, said: String },
    #[error(
        "{server} takes no writes, and target_session_attrs asks for a server that does; name that one in the URL"
    )]
    ReadOnly { server: String },
    #[error("{server} refuses the connection: {said}; correct the URL, or see the server's log")]
    Server { server: String, said: String },
    /// Each of several hosts failed, in their order.
    #[error("none of the URL's {} hosts can be used: {}", .0.len(), each(.0))]
    Several(Vec<ConnectError>),
}

impl ConnectError {
    /// Whether the next host may do better. As with libpq, who is turned away asks no other host.
    pub(super) fn of_this_host(&self) -> bool {
        match self {
            Self::HostNotFound { .. }
            | Self::Refused { .. }
            | Self::NoSocket { .. }
            | Self::Unreachable { .. }
            | Self::TimedOut { .. }
            | Self::Lost { .. }
            | Self::NotPostgres { .. }
            | Self::NotReady { .. }
            | Self::ReadOnly { .. } => true,
            Self::NoTls { .. }
            | Self::Untrusted { .. }
            | Self::WrongName { .. }
            | Self::Expired { .. }
            | Self::NotYetValid { .. }
            | Self::OldCertificate { .. }
            | Self::Handshake { .. }
            | Self::File { .. }
            | Self::NoPassword { .. }
            | Self::Password { .. }
            | Self::NoRole { .. }
            | Self::NoDatabase { .. }
            | Self::NotAdmitted { .. }
            | Self::Method { .. }
            | Self::TooMany { .. }
            | Self::Server { .. }
            | Self::Several(_) => false,
        }
    }

    /// Whether some server will be ready in a moment.
    pub(super) fn passes(&self) -> bool {
        if let Self::Several(errors) = self {
            return errors.iter().any(Self::passes);
        }
        matches!(self, Self::NotReady { .. })
    }
}

/// What an error of a statement, or of the connection under it, means.
pub fn words(error: &Error) -> String {
    if let Some(said) = error.as_db_error() {
        return format!("{} (SQLSTATE {})", said_by(said), said.code().code());
    }
    if error.is_closed() {
        return "the connection to the server was cut".to_owned();
    }
    if let Some(broken) = error.source().and_then(|cause| cause.downcast_ref::<io::Error>()) {
        return format!("the connection to the server broke: {}", io_words(broken));
    }
    let mut words = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        words = format!("{words}: {error}");
        cause = error.source();
    }
    words
}

/// The words of the system, without its number.
pub(super) fn io_words(error: &io::Error) -> String {
    let text = error.to_string();
    let text = text.split(" (os error").next().unwrap_or_default();
    let mut letters = text.chars();
    letters.next().map(|first| first.to_lowercase().chain(letters).collect()).unwrap_or_default()
}

/// What a failed attempt at one host comes to.
pub(super) fn classify(error: &Error, url: &ServerUrl, host: &Host, open: Option<PathBuf>) -> ConnectError {
    let server = host.to_string();
    if let Some(said) = error.as_db_error() {
        return refusal(said, url, server);
    }
    if error.is_closed() {
        return ConnectError::Lost { server };
    }
    let Some(cause) = error.source() else { return ConnectError::NotPostgres { server } };
    if let Some(error) = cause.downcast_ref::<io::Error>() {
        let inner = error.get_ref().and_then(|inner| inner.downcast_ref::<TlsError>());
        return match inner {
            Some(error) => handshake(error, url, host),
            None => broken(error, server),
        };
    }
    // The rest are sentences of the client's own.
    match cause.to_string().as_str() {
        "password missing" => ConnectError::NoPassword { server, user: url.user.clone(), open },
        "server does not support TLS" => ConnectError::NoTls { server, mode: url.tls.mode },
        why => ConnectError::Method { server, why: why.to_owned() },
    }
}

fn refusal(error: &DbError, url: &ServerUrl, server: String) -> ConnectError {
    let said = said_by(error);
    let (user, database) = (url.user.clone(), url.database.clone());
    // A server may speak any language, but its routines keep their names.
    let role = error.routine() == Some("InitializeSessionUserId");
    match error.code() {
        code if *code == SqlState::INVALID_PASSWORD => ConnectError::Password { server, user, said },
        code if *code == SqlState::INVALID_AUTHORIZATION_SPECIFICATION && role => {
            ConnectError::NoRole { server, user, said }
        }
        code if *code == SqlState::INVALID_AUTHORIZATION_SPECIFICATION => {
            ConnectError::NotAdmitted { server, said }
        }
        code if *code == SqlState::INVALID_CATALOG_NAME => {
            ConnectError::NoDatabase { server, database, said }
        }
        code if *code == SqlState::TOO_MANY_CONNECTIONS => ConnectError::TooMany { server, said },
        code if *code == SqlState::CANNOT_CONNECT_NOW => ConnectError::NotReady { server, said },
        // A pooler has this code for all, and always the same words.
        code if *code == SqlState::PROTOCOL_VIOLATION && said.ends_with("authentication failed") => {
            ConnectError::Password { server, user, said }
        }
        code if *code == SqlState::PROTOCOL_VIOLATION
            && (said.starts_with("no such database") || said.ends_with("does not exist")) =>
        {
            ConnectError::NoDatabase { server, database, said }
        }
        _ => ConnectError::Server { server, said },
    }
}

fn broken(error: &io::Error, server: String) -> ConnectError {
    match error.kind() {
        io::ErrorKind::ConnectionRefused => ConnectError::Refused { server },
        io::ErrorKind::NotFound => ConnectError::NoSocket { server },
        io::ErrorKind::ConnectionReset | io::ErrorKind::ConnectionAborted | io::ErrorKind::BrokenPipe => {
            ConnectError::Lost { server }
        }
        _ if error.raw_os_error().is_some() => ConnectError::Unreachable { server, why: io_words(error) },
        // Not the system's but the client's own: what it read, or did not get to read.
        io::ErrorKind::PermissionDenied => ConnectError::ReadOnly { server },
        io::ErrorKind::InvalidData | io::ErrorKind::InvalidInput => ConnectError::NotPostgres { server },
        _ => ConnectError::Lost { server },
    }
}

fn handshake(error: &TlsError, url: &ServerUrl, host: &Host) -> ConnectError {
    let server = host.to_string();
    match error {
        TlsError::InvalidCertificate(CertificateError::UnknownIssuer | CertificateError::BadSignature) => {
            ConnectError::Untrusted { server, roots: roots_of(&url.tls) }
        }
        TlsError::InvalidCertificate(CertificateError::NotValidForNameContext { expected, presented }) => {
            ConnectError::WrongName { server, host: expected.to_str().into_owned(), names: presented.clone() }
        }
        TlsError::InvalidCertificate(CertificateError::Expired | CertificateError::ExpiredContext { .. }) => {
            ConnectError::Expired { server }
        }
        TlsError::InvalidCertificate(
            CertificateError::NotValidYet | CertificateError::NotValidYetContext { .. },
        ) => ConnectError::NotYetValid { server },
        // The library that judges has no name here for its own findings, but shows them.
        TlsError::InvalidCertificate(CertificateError::Other(other)) => match format!("{other:?}") {
            found if found.contains("CaUsedAsEndEntity") => {
                ConnectError::Untrusted { server, roots: roots_of(&url.tls) }
            }
            found if found.contains("UnsupportedCertVersion") => ConnectError::OldCertificate { server },
            why => ConnectError::Handshake { server, why },
        },
        error => ConnectError::Handshake { server, why: error.to_string() },
    }
}

/// What the server said, with its detail and its hint.
fn said_by(error: &DbError) -> String {
    [Some(error.message()), error.detail(), error.hint()].into_iter().flatten().collect::<Vec<_>>().join("; ")
}

fn seconds(time: &Duration) -> f64 {
    (time.as_secs_f64() * 10.0).round() / 10.0
}

/// The names of a certificate, without how the TLS library marks their kinds.
fn its_names(names: &[String]) -> String {
    let bare = |name: &String| match name.split_once("(\"").and_then(|(_, rest)| rest.split_once('"')) {
        Some((name, _)) => name.to_owned(),
        None => name.clone(),
    };
    if names.is_empty() {
        "no name at all".to_owned()
    } else {
        names.iter().map(bare).collect::<Vec<_>>().join(", ")
    }
}

fn ignored(open: &Option<PathBuf>) -> String {
    match open {
        Some(path) => format!(", as {} is open to others and not read (run chmod 600 on it)", path.display()),
        None => String::new(),
    }
}

fn each(errors: &[ConnectError]) -> String {
    errors.iter().map(ToString::to_string).collect::<Vec<_>>().join(" | ")
}
