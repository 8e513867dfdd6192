//! Snapshots of PostgreSQL databases by `pg_dump`.
//!
//! Here: where `pg_dump` connects, and a file that appears only when it is complete. Elsewhere:
//! when a snapshot is taken (`apply`).

use std::collections::BTreeMap;
use std::fs::{File, OpenOptions};
use std::io::{self, Read};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use jiff::Timestamp;
use sha2::{Digest, Sha256};
use url::Url;

use crate::failpoint;
use crate::secret::Secret;
use crate::state::format::short;

/// Why a server's URL cannot be used. No text shows a password.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ServerError {
    #[error("`postgres.url` is no URL: {0}")]
    NoUrl(String),
    #[error("`postgres.url` begins with {0}://, not with postgres://")]
    Scheme(String),
    #[error("`postgres.url` has the parameter {0}, which norn does not know")]
    Parameter(String),
}

/// A server as libpq's variables name it, so that no password stands in a process list.
///
/// # Errors
/// A text that is no `postgres://` URL, or has a parameter without a variable.
pub fn libpq(server: &Secret) -> Result<BTreeMap<String, String>, ServerError> {
    let url = Url::parse(server.expose()).map_err(|error| ServerError::NoUrl(error.to_string()))?;
    if !["postgres", "postgresql"].contains(&url.scheme()) {
        return Err(ServerError::Scheme(url.scheme().to_owned()));
    }
    let mut env = BTreeMap::new();
    let mut set = |name: &str, value: String| {
        if !value.is_empty() {
            env.insert(name.to_owned(), value);
        }
    };
    set("PGHOST", decoded(url.host_str().unwrap_or_default()).trim_matches(['[', ']']).to_owned());
    set("PGPORT", url.port().map(|port| port.to_string()).unwrap_or_default());
    set("PGUSER", decoded(url.username()));
    set("PGPASSWORD", decoded(url.password().unwrap_or_default()));
    for (name, value) in url.query_pairs() {
        let variable = match &*name {
            "host" => "PGHOST",
            "port" => "PGPORT",
            "user" => "PGUSER",
            "password" => "PGPASSWORD",
            "sslmode" => "PGSSLMODE",
            "sslrootcert" => "PGSSLROOTCERT",
            "sslcert" => "PGSSLCERT",
            "sslkey" => "PGSSLKEY",
            "connect_timeout" => "PGCONNECT_TIMEOUT",
            "options" => "PGOPTIONS",
            "application_name" => "PGAPPNAME",
            _ => return Err(ServerError::Parameter(name.into_owned())),
        };
        set(variable, value.into_owned());
    }
    Ok(env)
}

fn decoded(part: &str) -> String {
    // `+` stands for itself outside of a query.
    let query = format!("x={}", part.replace('+', "%2B"));
    url::form_urlencoded::parse(query.as_bytes())
        .next()
        .map(|(_, value)| value.into_owned())
        .unwrap_or_default()
}

/// `<db>_<sha12>_<YYYYMMDDTHHMMSSZ>.dump`; read from the right, as a database may have `_` in it.
pub fn file_name(database: &str, commit: &str, now: Timestamp) -> String {
    format!("{database}_{}_{}.dump", short(commit), now.strftime("%Y%m%dT%H%M%SZ"))
}

/// Database, commit and time of a snapshot's name; `None` where it is no such name.
pub fn parse(name: &str) -> Option<(&str, &str, &str)> {
    let mut parts = name.strip_suffix(".dump")?.rsplitn(3, '_');
    let (time, commit, database) = (parts.next()?, parts.next()?, parts.next()?);
    let known =
        !database.is_empty() && commit.bytes().all(|byte| byte.is_ascii_hexdigit()) && time.ends_with('Z');
    known.then_some((database, commit, time))
}

/// The arguments of `pg_dump`: custom format, never a question.
pub fn arguments(database: &str, into: &Path) -> Vec<String> {
    let into = format!("--file={}", into.display());
    ["pg_dump", "--format=custom", "--no-password", &into, database].map(str::to_owned).to_vec()
}

/// Makes an empty file of mode 0600 for a dump, in place of what an earlier one left.
///
/// # Errors
/// Where it cannot be made.
pub fn begin(partial: &Path) -> io::Result<()> {
    match std::fs::remove_file(partial) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        Ok(()) | Err(_) => {}
    }
    OpenOptions::new().write(true).create_new(true).mode(0o600).open(partial).map(drop)
}

/// A complete snapshot.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Snapshot {
    pub path: PathBuf,
    pub bytes: u64,
    /// SHA-256, in hex.
    pub checksum: String,
}

/// Makes a finished dump durable under its own name.
///
/// # Errors
/// Where the dump cannot be read, flushed or renamed.
pub fn keep(partial: &Path, path: &Path) -> io::Result<Snapshot> {
    let mut file = File::open(partial)?;
    let mut hasher = Sha256::new();
    let mut buffer = vec![0; 1 << 16];
    let mut bytes = 0;
    loop {
        let read = file.read(&mut buffer)?;
        if read == 0 {
            break;
        }
        hasher.update(&buffer[..read]);
        bytes += read as u64;
    }
    file.sync_all()?;
    failpoint::before("keep the dump", partial)?;
    std::fs::rename(partial, path)?;
    failpoint::after("keep the dump", partial)?;
    if let Some(folder) = path.parent() {
        File::open(folder)?.sync_all()?;
    }
    let checksum = hasher.finalize().iter().map(|byte| format!("{byte:02x}")).collect();
    Ok(Snapshot { path: path.to_owned(), bytes, checksum })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_url_becomes_variables_and_never_an_argument() {
        let url = Secret::new(
            "postgres://norn:p%40ss+word@db.example.com:5433/?sslmode=verify-full&sslrootcert=/ca.pem",
        );
        let env = libpq(&url).expect("a good URL");
        let shown: Vec<String> = env.iter().map(|(name, value)| format!("{name}={value}")).collect();
        assert_eq!(
            shown,
            [
                "PGHOST=db.example.com",
                "PGPASSWORD=p@ss+word",
                "PGPORT=5433",
                "PGSSLMODE=verify-full",
                "PGSSLROOTCERT=/ca.pem",
                "PGUSER=norn",
            ]
        );
        assert_eq!(libpq(&Secret::new("mysql://x")), Err(ServerError::Scheme("mysql".into())));
        assert_eq!(libpq(&Secret::new("postgres://x/?magic=1")), Err(ServerError::Parameter("magic".into())));
        assert!(matches!(libpq(&Secret::new("x")), Err(ServerError::NoUrl(_))));
    }

    #[test]
    fn a_name_is_read_from_the_right() {
        let now = Timestamp::from_second(1_700_000_000).expect("in range");
        assert_eq!(
            file_name("shop_api", "0123456789abcdef0123456789abcdef01234567", now),
            "shop_api_0123456789ab_20231114T221320Z.dump"
        );
        assert_eq!(file_name("a", "local:fedcba9876543210", now), "a_fedcba987654_20231114T221320Z.dump");
        assert_eq!(file_name("a", "sha256:fedcba9876543210", now), "a_fedcba987654_20231114T221320Z.dump");
        let name = "shop_api_0123456789ab_20231114T221320Z.dump";
        assert_eq!(parse(name), Some(("shop_api", "0123456789ab", "20231114T221320Z")));
        for other in ["shop.dump", "_a_20231114T221320Z.dump", "a_xyz_20231114T221320Z.dump", ".web.part"] {
            assert_eq!(parse(other), None, "{other}");
        }
    }
}
