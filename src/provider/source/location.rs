//! The URL of a repository: which there are, and how its password is kept apart.
//!
//! Here: checking and taking apart. Elsewhere: speaking to it (`git`).

use std::path::PathBuf;

use url::Url;

use crate::secret::Secret;

/// What git may use to reach a repository, for `GIT_ALLOW_PROTOCOL`.
const PROTOCOLS: &str = "git:http:https:ssh";

/// A repository's URL in parts.
pub(super) struct Location {
    /// What git is given and people are shown: without a password.
    pub url: String,
    /// Whether it is a path of this machine.
    pub local: bool,
    pub login: Option<Login>,
}

/// What stood in an `http(s)` URL before the `@`.
pub(super) struct Login {
    /// `https://host:port`: nobody else is told.
    pub origin: String,
    pub user: Secret,
    pub password: Secret,
}

/// A URL that norn does not give to git. None of them shows a password.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum UrlError {
    #[error("the URL of the repository is empty")]
    Empty,
    #[error("the URL of the repository starts with `-` or names a host that does: it would be an option")]
    Option,
    #[error("the URL of the repository holds a control character")]
    Control,
    #[error(
        "norn reaches no repository over {0:?}: use https, http, ssh, git, file, user@host:path or a path"
    )]
    Transport(String),
    #[error("the URL of the repository cannot be read: {0}")]
    Broken(String),
}

impl Location {
    pub fn parse(url: &str) -> Result<Self, UrlError> {
        if url.is_empty() {
            return Err(UrlError::Empty);
        }
        if url.starts_with('-') {
            return Err(UrlError::Option);
        }
        if url.chars().any(char::is_control) {
            return Err(UrlError::Control);
        }
        let transport = |name: &str| UrlError::Transport(name.to_owned());
        let word = url.split([':', '/', '@']).next().unwrap_or_default();
        // `[::1]:path` names a host.
        if !word.starts_with('[') && url[word.len()..].starts_with("::") {
            return Err(transport(&format!("{word}::")));
        }
        if let Some((scheme, rest)) = url.split_once("://") {
            return match scheme.to_ascii_lowercase().as_str() {
                "file" => Ok(Self { url: url.to_owned(), local: true, login: None }),
                "http" | "https" | "ssh" | "git" => Self::remote(url),
                // The user part would be all of a URL without a scheme, so it is not shown.
                _ if rest.is_empty() || scheme.contains('@') => Err(transport("://")),
                other => Err(transport(other)),
            };
        }
        match url.split_once(':') {
            // As git reads it: `host:path`, unless a slash stands before the colon.
            Some((host, _)) if !host.contains('/') => {
                let name = host.rsplit_once('@').map_or(host, |(_, name)| name);
                if name.starts_with('-') {
                    return Err(UrlError::Option);
                }
                Ok(Self { url: url.to_owned(), local: false, login: None })
            }
            _ => {
                let path = std::path::absolute(PathBuf::from(url));
                let path = path.map_err(|why| UrlError::Broken(why.to_string()))?;
                let url = path.into_os_string().into_string();
                let url = url.map_err(|_| UrlError::Broken("this folder's path is not UTF-8".into()))?;
                Ok(Self { url, local: true, login: None })
            }
        }
    }

    fn remote(url: &str) -> Result<Self, UrlError> {
        let mut parsed = Url::parse(url).map_err(|why| UrlError::Broken(why.to_string()))?;
        if parsed.host_str().unwrap_or_default().starts_with('-') {
            return Err(UrlError::Option);
        }
        // Setting fails only for URLs without a host, which these schemes do not allow.
        let cannot = |()| UrlError::Broken("it has no host".into());
        let decoded = |text: &str| Secret::new(percent_decoded(text));
        let (user, password) = (decoded(parsed.username()), decoded(parsed.password().unwrap_or_default()));
        parsed.set_password(None).map_err(cannot)?;
        let mut login = None;
        // The user of ssh is no secret; before an http host a lone token stands in its place.
        if parsed.scheme().starts_with("http") {
            parsed.set_username("").map_err(cannot)?;
            if !user.expose().is_empty() || !password.expose().is_empty() {
                login = Some(Login { origin: parsed.origin().ascii_serialization(), user, password });
            }
        }
        Ok(Self { url: parsed.into(), local: false, login })
    }

    /// The protocols that it and its submodules may use: only what is on this machine itself may
    /// lead to more of this machine.
    pub fn protocols(&self) -> String {
        if self.local { format!("file:{PROTOCOLS}") } else { PROTOCOLS.to_owned() }
    }
}

fn percent_decoded(text: &str) -> String {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let [first, tail @ ..] = rest {
        let hex = tail.get(..2).and_then(|hex| std::str::from_utf8(hex).ok());
        match hex.and_then(|hex| u8::from_str_radix(hex, 16).ok()) {
            Some(byte) if *first == b'%' => {
                bytes.push(byte);
                rest = &tail[2..];
            }
            _ => {
                bytes.push(*first);
                rest = tail;
            }
        }
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_way_to_a_repository_is_known_and_its_password_kept_apart() {
        for (given, url, local, login) in [
            ("https://host/a.git", "https://host/a.git", false, None),
            ("https://me:p%40ss@host:8443/a", "https://host:8443/a", false, Some(("me", "p@ss"))),
            ("http://token@host/a", "http://host/a", false, Some(("token", ""))),
            ("ssh://git:pass@host:22/a", "ssh://git@host:22/a", false, None),
            ("git@host:a/b.git", "git@host:a/b.git", false, None),
            ("[::1]:a.git", "[::1]:a.git", false, None),
            ("file:///srv/a.git", "file:///srv/a.git", true, None),
            ("/srv/a:b.git", "/srv/a:b.git", true, None),
        ] {
            let location = Location::parse(given).expect(given);
            assert_eq!((location.url.as_str(), location.local), (url, local), "{given}");
            let found = location.login.as_ref().map(|login| (login.user.expose(), login.password.expose()));
            assert_eq!(found, login, "{given}");
        }
    }

    #[test]
    fn a_hostile_url_is_refused() {
        for url in [
            "",
            "--upload-pack=touch x",
            "-x",
            "ext::sh -c id",
            "fd::17",
            "ftp://host/a",
            "ssh://-oProxyCommand=id/a",
            "-oProxyCommand=id:a",
            "git@-oProxyCommand=id:a",
            "https://host/a\nb",
            "http://",
            "persistent-https://host/a",
        ] {
            assert!(Location::parse(url).is_err(), "{url:?}");
        }
    }
}
