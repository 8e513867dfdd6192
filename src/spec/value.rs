//! The texts of a spec that mean something: each is read once, into its own type.

use std::borrow::Cow;
use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use super::platform::{read_image_name, read_object_name, read_tunnel};
use super::schedule::{read_cron, read_zone};
use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Serialize};

/// Why a text is not what its field wants, and how to mend it.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct Complaint {
    pub message: String,
    pub help: String,
}

impl Complaint {
    pub(super) fn new(message: impl Into<String>, help: impl Into<String>) -> Self {
        Self { message: message.into(), help: help.into() }
    }
}

/// Declares a text type: its name, the `format` that the schema gives it, a pattern that editors
/// check, and how it is read.
macro_rules! text {
    ($(#[$doc:meta])* $name:ident, $format:literal, $pattern:literal, $inner:ty, $read:expr) => {
        $(#[$doc])*
        #[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
        #[serde(try_from = "String", into = "String")]
        pub struct $name {
            text: String,
            value: $inner,
        }

        impl $name {
            /// As it was written.
            pub fn as_str(&self) -> &str {
                &self.text
            }

            pub fn value(&self) -> &$inner {
                &self.value
            }
        }

        impl FromStr for $name {
            type Err = Complaint;

            fn from_str(text: &str) -> Result<Self, Complaint> {
                let read: fn(&str) -> Result<$inner, Complaint> = $read;
                Ok(Self { value: read(text)?, text: text.to_owned() })
            }
        }

        impl TryFrom<String> for $name {
            type Error = Complaint;

            fn try_from(text: String) -> Result<Self, Complaint> {
                text.parse()
            }
        }

        impl From<$name> for String {
            fn from(value: $name) -> String {
                value.text
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.text)
            }
        }

        impl PartialOrd for $name {
            fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
                Some(self.cmp(other))
            }
        }

        impl Ord for $name {
            fn cmp(&self, other: &Self) -> std::cmp::Ordering {
                self.text.cmp(&other.text)
            }
        }

        impl JsonSchema for $name {
            fn schema_name() -> Cow<'static, str> {
                stringify!($name).into()
            }

            fn inline_schema() -> bool {
                true
            }

            fn json_schema(_: &mut SchemaGenerator) -> Schema {
                json_schema!({ "type": "string", "format": $format, "pattern": $pattern })
            }
        }
    };
}

text! {
    /// A time span such as `30s`, `5m` or `1h30m`; a number alone counts seconds. At most 30 days.
    TimeSpan, "duration", r"^([0-9]+|([0-9]+d)?([0-9]+h)?([0-9]+m)?([0-9]+s)?([0-9]+ms)?)$", Duration, read_duration
}
text! {
    /// An amount of memory: bytes, or with a suffix; `256m`, `256M` and `256Mi` all mean mebibytes.
    Memory, "memory", r"^[0-9]+(k|K|Ki|m|M|Mi|g|G|Gi)?(B|b)?$", u64, read_memory
}
text! {
    /// An amount of processor time: cores, such as `2` or `0.5`, or thousandths of one, such as `500m`.
    Cpu, "cpu", r"^([0-9]+m|[0-9]+(\.[0-9]{1,3})?)$", u64, read_cpu
}
text! {
    /// The name of an image as `docker pull` takes it, with a tag or a digest.
    ImageName, "image-name", r"^[^-\s]\S*$", (), read_image_name
}
text! {
    /// A cron expression of five fields, or `@hourly`, `@daily`, `@weekly`, `@monthly`, `@yearly`.
    CronText, "cron", r"^(@[a-z]+|\S+( +\S+){4})$", (), read_cron
}
text! {
    /// A time zone of the IANA database, such as `Europe/Berlin`.
    Zone, "timezone", r"^[A-Za-z0-9_+/-]+$", (), read_zone
}
text! {
    /// A name of an environment variable.
    EnvName, "env-name", "^[A-Za-z_][A-Za-z0-9_]*$", (), read_env_name
}
text! {
    /// A path below the folder of the file that names it.
    InnerPath, "path", r"^[^/\x00]", (), read_path
}
text! {
    /// The path of a URL, from its `/` on.
    UrlPath, "url-path", r"^/\S*$", (), read_url_path
}
text! {
    /// A path of a machine, from its `/` on.
    AbsolutePath, "absolute-path", r"^/[^\x00]*$", (), read_absolute_path
}
text! {
    /// A host name such as `api` or `api.example.com`.
    HostName, "host-name", r"^[a-z0-9]([a-z0-9.-]*[a-z0-9])?$", (), read_host
}
text! {
    /// The name of a PostgreSQL database.
    DatabaseName, "database-name", r"^[A-Za-z_][A-Za-z0-9_$-]{0,62}$", (), read_database
}
text! {
    /// A name inside norn's domain, such as a volume's: a lowercase DNS label.
    Label, "label", "^[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?$", (), read_label
}
text! {
    /// An object of a Kubernetes cluster: its namespace and its name.
    ObjectName, "object-name", r"^[a-z0-9]([a-z0-9-]*[a-z0-9])?/[a-z0-9]([a-z0-9.-]*[a-z0-9])?$", (String, String), read_object_name
}
text! {
    /// The id of a tunnel of Cloudflare: a UUID.
    TunnelId, "tunnel-id", r"^[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$", (), read_tunnel
}
text! {
    /// Where a repository is, as `git clone` takes it: a path, `host:path`, or a file, ssh, http or https URL.
    RepoUrl, "repo-url", r"^[^-\s]\S*$", (), read_repo_url
}
text! {
    /// A branch, tag or commit.
    RefName, "ref-name", r"^[^-\s]\S*$", (), read_ref
}
text! {
    /// A branch or tag name pattern of files: `*`, `**`, `?`, `[..]`, `{a,b}`.
    Glob, "glob", r"^[^/]", (), read_glob
}

/// Checks a text against a `format` of the schema; an unknown format has no rule.
pub fn check(format: &str, text: &str) -> Result<(), Complaint> {
    match format {
        "duration" => read_duration(text).map(drop),
        "memory" => read_memory(text).map(drop),
        "cpu" => read_cpu(text).map(drop),
        "image-name" => read_image_name(text),
        "cron" => read_cron(text),
        "timezone" => read_zone(text),
        "env-name" => read_env_name(text),
        "path" => read_path(text),
        "url-path" => read_url_path(text),
        "absolute-path" => read_absolute_path(text),
        "host-name" => read_host(text),
        "database-name" => read_database(text),
        "label" => read_label(text),
        "object-name" => read_object_name(text).map(drop),
        "tunnel-id" => read_tunnel(text),
        "repo-url" => read_repo_url(text),
        "ref-name" => read_ref(text),
        "glob" => read_glob(text),
        "ip" => text.parse::<std::net::IpAddr>().map(drop).map_err(|_| {
            Complaint::new(
                format!("`{text}` is no IP address"),
                "write one such as 127.0.0.1, 0.0.0.0 or ::1",
            )
        }),
        _ => Ok(()),
    }
}

const LONGEST: Duration = Duration::from_secs(30 * 24 * 3600);

fn read_duration(text: &str) -> Result<Duration, Complaint> {
    const HELP: &str = "write a number with a unit, such as 500ms, 30s, 5m, 2h, 1d or 1h30m";
    let bad = || Complaint::new(format!("`{text}` is no time span"), HELP);
    let mut rest = text;
    let mut total = Duration::ZERO;
    let mut last_unit = u64::MAX;
    if rest.is_empty() {
        return Err(bad());
    }
    while !rest.is_empty() {
        let digits = rest.len() - rest.trim_start_matches(|c: char| c.is_ascii_digit()).len();
        let number: u64 = rest[..digits].parse().map_err(|_| bad())?;
        rest = &rest[digits..];
        let letters = rest.len() - rest.trim_start_matches(|c: char| c.is_ascii_alphabetic()).len();
        let unit = match &rest[..letters] {
            "ms" => 1,
            "s" => 1_000,
            "" if digits == text.len() => 1_000,
            "m" => 60_000,
            "h" => 3_600_000,
            "d" => 86_400_000,
            _ => return Err(bad()),
        };
        if unit >= last_unit {
            return Err(bad());
        }
        last_unit = unit;
        rest = &rest[letters..];
        let millis = number.checked_mul(unit).ok_or_else(bad)?;
        total = total.checked_add(Duration::from_millis(millis)).ok_or_else(bad)?;
    }
    if total > LONGEST {
        return Err(Complaint::new(format!("`{text}` is longer than 30 days"), "give a shorter time"));
    }
    Ok(total)
}

fn read_memory(text: &str) -> Result<u64, Complaint> {
    let bad = || {
        Complaint::new(
            format!("`{text}` is no amount of memory"),
            "write a whole number with k, m or g, such as 256m or 1g (mebibytes, gibibytes)",
        )
    };
    let digits = text.len() - text.trim_start_matches(|c: char| c.is_ascii_digit()).len();
    let number: u64 = text[..digits].parse().map_err(|_| bad())?;
    let factor = match text[digits..].trim_end_matches(['B', 'b']) {
        "" => 1,
        "k" | "K" | "Ki" => 1 << 10,
        "m" | "M" | "Mi" => 1 << 20,
        "g" | "G" | "Gi" => 1 << 30,
        _ => return Err(bad()),
    };
    number.checked_mul(factor).filter(|bytes| *bytes > 0).ok_or_else(bad)
}

fn read_cpu(text: &str) -> Result<u64, Complaint> {
    let bad = || {
        Complaint::new(
            format!("`{text}` is no amount of processor time"),
            "write cores, such as 2 or 0.5, or thousandths of one, such as 500m",
        )
    };
    let digits =
        |text: &str| text.bytes().all(|byte| byte.is_ascii_digit()).then(|| text.parse::<u64>().ok())?;
    let thousandths = match text.strip_suffix('m') {
        Some(number) => digits(number),
        None => {
            let (whole, part) = text.split_once('.').unwrap_or((text, "0"));
            let part = (1..=3).contains(&part.len()).then(|| digits(&format!("{part:0<3}"))).flatten();
            digits(whole)
                .and_then(|whole| whole.checked_mul(1000))
                .zip(part)
                .map(|(whole, part)| whole + part)
        }
    };
    // No machine has more cores.
    thousandths.filter(|amount| (1..=1_000_000).contains(amount)).ok_or_else(bad)
}

fn read_env_name(text: &str) -> Result<(), Complaint> {
    let first = text.chars().next().is_some_and(|c| c.is_ascii_alphabetic() || c == '_');
    if first && text.chars().all(|c| c.is_ascii_alphanumeric() || c == '_') {
        return Ok(());
    }
    if let Some((name, _)) = text.split_once('=') {
        return Err(Complaint::new(
            "a name of an environment variable holds no `=`",
            format!("write the name alone, `{name}`: a secret's value comes from norn's environment"),
        ));
    }
    let mended: String = text.chars().map(|c| if c.is_ascii_alphanumeric() { c } else { '_' }).collect();
    let mended = mended.trim_matches('_');
    let help = match mended.starts_with(|c: char| c.is_ascii_alphabetic()) {
        true => format!("use letters, digits and `_`, such as {mended}"),
        false => "use letters, digits and `_`, and start with no digit".to_owned(),
    };
    Err(Complaint::new(format!("`{text}` is no name of an environment variable"), help))
}

fn read_path(text: &str) -> Result<(), Complaint> {
    const HELP: &str = "write a path relative to this file's folder, such as ./apps/web";
    if text.is_empty() || text.contains('\0') {
        return Err(Complaint::new("the path is empty or holds a NUL", HELP));
    }
    if text.starts_with('/') || text.starts_with('~') {
        return Err(Complaint::new(format!("`{text}` leaves the project"), HELP));
    }
    Ok(())
}

fn read_url_path(text: &str) -> Result<(), Complaint> {
    if text.starts_with('/') && !text.contains(|c: char| c.is_whitespace() || c.is_control()) {
        return Ok(());
    }
    // Of a whole URL, the part behind the host is what is meant.
    let path = match text.split_once("://") {
        Some((_, rest)) => rest.split_once('/').map_or("", |(_, path)| path),
        None => text.trim_start_matches('/'),
    };
    let path = path.split_whitespace().next().unwrap_or("healthz");
    Err(Complaint::new(
        format!("`{text}` is no path of a URL"),
        format!("write it from the `/` on, such as /{path}"),
    ))
}

fn read_absolute_path(text: &str) -> Result<(), Complaint> {
    if text.starts_with('/') && !text.split('/').any(|part| part == "..") {
        return Ok(());
    }
    let help =
        format!("write the whole path without `..`, such as /{}", text.trim_start_matches(['.', '/', '~']));
    Err(Complaint::new(format!("`{text}` is no whole path"), help))
}

pub(super) fn read_host(text: &str) -> Result<(), Complaint> {
    let label = |label: &str| {
        (1..=63).contains(&label.len())
            && label.chars().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-')
            && !label.starts_with('-')
            && !label.ends_with('-')
    };
    if text.len() <= 253 && text.split('.').all(label) {
        return Ok(());
    }
    let help = if text.contains("://") {
        "write the host alone, without scheme and path, such as api.example.com"
    } else {
        "write lowercase letters, digits, `-` and `.`, such as api.example.com"
    };
    Err(Complaint::new(format!("`{text}` is no host name"), help))
}

fn read_database(text: &str) -> Result<(), Complaint> {
    let first = text.chars().next().is_some_and(|c| c.is_ascii_alphabetic() || c == '_');
    let rest = text.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '_' | '-' | '$'));
    if first && rest && text.len() <= 63 {
        return Ok(());
    }
    Err(Complaint::new(
        format!("`{text}` is no database name that norn takes"),
        "use letters, digits, `_`, `-` and `$`, start with a letter, at most 63 characters",
    ))
}

pub(super) fn read_label(text: &str) -> Result<(), Complaint> {
    text.parse::<super::name::AppName>().map(drop).map_err(|error| {
        let mended: String = text
            .chars()
            .map(|c| if c.is_ascii_alphanumeric() { c.to_ascii_lowercase() } else { '-' })
            .collect();
        let mended = mended.trim_matches('-');
        let help = match mended.parse::<super::name::AppName>() {
            Ok(name) => format!("call it `{name}`: lowercase letters, digits and inner `-`"),
            Err(_) => "use lowercase letters, digits and inner `-`, at most 63".to_owned(),
        };
        Complaint::new(format!("`{text}` is no name: {error}"), help)
    })
}

fn read_repo_url(text: &str) -> Result<(), Complaint> {
    const HELP: &str = "write what `git clone` takes: https://host/path.git, git@host:path.git, or a path";
    if text.is_empty()
        || text.starts_with('-')
        || text.contains(|c: char| c.is_whitespace() || c.is_control())
    {
        return Err(Complaint::new(format!("`{text}` is no repository"), HELP));
    }
    if let Some((scheme, _)) = text.split_once("://")
        && !["http", "https", "ssh", "file", "git"].contains(&scheme)
    {
        return Err(Complaint::new(
            format!("norn clones over http, https, ssh and file, not `{scheme}`"),
            HELP,
        ));
    }
    if text.contains("::") {
        return Err(Complaint::new("norn clones through no remote helper (`::`)", HELP));
    }
    Ok(())
}

fn read_ref(text: &str) -> Result<(), Complaint> {
    let forbidden = |c: char| {
        c.is_whitespace() || c.is_control() || matches!(c, '~' | '^' | ':' | '?' | '*' | '[' | '\\')
    };
    if text.is_empty() || text.starts_with('-') || text.contains(forbidden) || text.contains("..") {
        return Err(Complaint::new(
            format!("`{text}` is no branch, tag or commit"),
            "write its name as git lists it, such as main, v1.8.2 or a commit's hash",
        ));
    }
    Ok(())
}

fn read_glob(text: &str) -> Result<(), Complaint> {
    if text.starts_with(['/', '~']) || text.split('/').any(|part| part == "..") {
        return Err(Complaint::new(
            format!("`{text}` leaves the project"),
            "write a pattern below this file's folder, such as apps/*/infraspec.yaml",
        ));
    }
    read_path(text)?;
    globset::Glob::new(text).map(drop).map_err(|error| {
        Complaint::new(
            format!("`{text}` is no pattern: {}", error.kind()),
            "write one such as apps/*/infraspec.yaml",
        )
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn time_spans() {
        for (text, millis) in
            [("90", 90_000), ("500ms", 500), ("30s", 30_000), ("1h30m", 5_400_000), ("0", 0)]
        {
            assert_eq!(read_duration(text), Ok(Duration::from_millis(millis)), "{text}");
        }
        for bad in ["", "s", "5 m", "5x", "-1s", "1m1h", "1s1s", "31d", "99999999999999999999", "1.5h"] {
            assert!(read_duration(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn memory_has_one_meaning() {
        for text in ["256m", "256M", "256Mi", "256MB", "268435456"] {
            assert_eq!(read_memory(text), Ok(268_435_456), "{text}");
        }
        for bad in ["", "0", "m", "1.5g", "1t", "99999999999g", "-1m"] {
            assert!(read_memory(bad).is_err(), "{bad}");
        }
    }
}
