//! The parts of a PostgreSQL URL, decoded.
//!
//! The `url` crate is of no use here: libpq's URLs name several hosts, and sockets as hosts.

use std::collections::BTreeMap;

use super::{PARAMETERS, UrlError};

/// A URL in parts. A part that is empty is as good as none.
pub(super) struct Text {
    user: String,
    password: String,
    /// As many of the one as of the other.
    hosts: Vec<String>,
    ports: Vec<String>,
    database: String,
    parameters: BTreeMap<String, String>,
}

impl Text {
    pub fn parse(url: &str) -> Result<Self, UrlError> {
        let url = url.trim();
        let rest = url.strip_prefix("postgres://").or_else(|| url.strip_prefix("postgresql://"));
        let rest = rest.ok_or(UrlError::Scheme)?;
        let (authority, rest) = rest.split_at(rest.find(['/', '?']).unwrap_or(rest.len()));
        let (path, query) = rest.split_once('?').unwrap_or((rest, ""));

        let (userinfo, places) = authority.split_once('@').unwrap_or(("", authority));
        if places.contains('@') || path.contains('@') {
            return Err(UrlError::Unescaped);
        }
        let (user, password) = userinfo.split_once(':').unwrap_or((userinfo, ""));
        let mut hosts = Vec::new();
        let mut ports = Vec::new();
        for place in places.split(',') {
            let (host, port) = split(place)?;
            if !port.bytes().all(|byte| byte.is_ascii_digit()) {
                return Err(UrlError::Port);
            }
            hosts.push(decoded(host, "host")?);
            ports.push(port.to_owned());
        }
        Ok(Self {
            user: decoded(user, "user")?,
            password: decoded(password, "password")?,
            hosts,
            ports,
            database: decoded(path.strip_prefix('/').unwrap_or(path), "database")?,
            parameters: parameters(query)?,
        })
    }

    pub fn parameter(&self, name: &str) -> Option<&str> {
        self.parameters.get(name).map(String::as_str).filter(|value| !value.is_empty())
    }

    pub fn user(&self) -> Option<&str> {
        self.parameter("user").or(Some(&self.user)).filter(|user| !user.is_empty())
    }

    pub fn password(&self) -> Option<&str> {
        self.parameter("password").or(Some(&self.password)).filter(|password| !password.is_empty())
    }

    pub fn database(&self) -> Option<&str> {
        self.parameter("dbname").or(Some(&self.database)).filter(|database| !database.is_empty())
    }

    pub fn hosts(&self) -> Vec<String> {
        self.parameter("host").map_or_else(|| self.hosts.clone(), list)
    }

    pub fn ports(&self) -> Vec<String> {
        self.parameter("port").map_or_else(|| self.ports.clone(), list)
    }
}

/// A text in a part of a URL.
pub(super) fn encoded(text: &str) -> String {
    let mut encoded = String::new();
    for byte in text.bytes() {
        match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' => {
                encoded.push(char::from(byte));
            }
            other => encoded.push_str(&format!("%{other:02X}")),
        }
    }
    encoded
}

fn list(text: &str) -> Vec<String> {
    text.split(',').map(str::to_owned).collect()
}

/// Parts a host from its port.
fn split(place: &str) -> Result<(&str, &str), UrlError> {
    if let Some(rest) = place.strip_prefix('[') {
        let (host, rest) = rest.split_once(']').ok_or(UrlError::Brackets)?;
        return match rest.strip_prefix(':') {
            Some(port) => Ok((host, port)),
            None if rest.is_empty() => Ok((host, "")),
            None => Err(UrlError::Brackets),
        };
    }
    match place.split_once(':') {
        Some((_, port)) if port.contains(':') => Err(UrlError::Brackets),
        Some(parts) => Ok(parts),
        None => Ok((place, "")),
    }
}

fn parameters(query: &str) -> Result<BTreeMap<String, String>, UrlError> {
    let mut parameters = BTreeMap::new();
    for parameter in query.split('&').filter(|parameter| !parameter.is_empty()) {
        let (name, value) = parameter.split_once('=').ok_or(UrlError::NoValue)?;
        let name = decoded(name, "parameter")?;
        if !PARAMETERS.contains(&name.as_str()) {
            // It may be what follows a `?` in a password.
            let name_like = name.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_');
            let stray = value.contains('@') || !name_like;
            return Err(if stray { UrlError::Unescaped } else { UrlError::Parameter { name } });
        }
        parameters.insert(name, decoded(value, "parameter")?);
    }
    Ok(parameters)
}

fn decoded(part: &str, what: &'static str) -> Result<String, UrlError> {
    let mut bytes = Vec::with_capacity(part.len());
    let mut rest = part.bytes();
    while let Some(byte) = rest.next() {
        if byte != b'%' {
            bytes.push(byte);
            continue;
        }
        let mut digit = || rest.next().and_then(|byte| char::from(byte).to_digit(16));
        let (Some(high), Some(low)) = (digit(), digit()) else { return Err(UrlError::Encoding(what)) };
        let byte = u8::try_from(high * 16 + low).expect("two hex digits are a byte");
        bytes.push(byte);
    }
    // A server's messages end their texts with a NUL.
    if bytes.contains(&0) {
        return Err(UrlError::Encoding(what));
    }
    String::from_utf8(bytes).map_err(|_| UrlError::Encoding(what))
}
