//! Cloudflare: names of the world that lead to apps, through a tunnel.
//!
//! Here: the account as the others use it, and whose a thing is. Elsewhere: a call and what its
//! refusals mean (`call`), records of a zone (`dns`), the rules of the tunnel's own program
//! (`tunnel`), the ConfigMap that these stand in (`kubernetes::text`).
//! Invariants: what is changed carries this project's and this stage's mark; the token stands in no
//! error and no other text; every call ends in time.

mod call;
pub mod dns;
pub mod tunnel;

use std::fmt;
use std::path::Path;
use std::time::Duration;

pub use call::CloudflareError;

use crate::failpoint;
use crate::provider::tls;
use crate::secret::Secret;
use crate::spec::name::{AppName, ProjectName, StageName};
use crate::state::Scope;

/// Where Cloudflare answers, unless `NORN_CLOUDFLARE_API` names another place.
const API: &str = "https://api.cloudflare.com/client/v4";

/// Whose a record or a rule is: it stands in the record's comment, or behind the rule.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mark {
    pub project: ProjectName,
    pub stage: Option<StageName>,
    pub app: AppName,
}

impl Mark {
    pub fn new(scope: &Scope, app: &AppName) -> Self {
        Self { project: scope.project.clone(), stage: scope.stage.clone(), app: app.clone() }
    }

    /// The mark that a comment is, if it is one.
    pub fn read(comment: &str) -> Option<Self> {
        let mut words = comment.split_ascii_whitespace();
        let (norn, scope, app) = (words.next()?, words.next()?, words.next()?);
        if norn != "norn" || words.next().is_some() {
            return None;
        }
        let (project, stage) = match scope.split_once('/') {
            Some((project, stage)) => (project, Some(stage.parse().ok()?)),
            None => (scope, None),
        };
        Some(Self { project: project.parse().ok()?, stage, app: app.parse().ok()? })
    }

    /// Whether both are of one project and stage.
    pub fn is_near(&self, other: &Self) -> bool {
        self.project == other.project && self.stage == other.stage
    }
}

/// As it is written: `norn shop/prod web`, without a stage `norn shop web`.
impl fmt::Display for Mark {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "norn {}", self.project)?;
        if let Some(stage) = &self.stage {
            write!(f, "/{stage}")?;
        }
        write!(f, " {}", self.app)
    }
}

/// How long is waited for Cloudflare.
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    /// For the answer to one call.
    pub call: Duration,
    /// Before the second try of a call that failed; before each further one twice as long.
    pub pause: Duration,
    /// For all pauses of one call, those that Cloudflare asks for too.
    pub patience: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            call: Duration::from_secs(20),
            pause: Duration::from_millis(500),
            patience: Duration::from_secs(60),
        }
    }
}

/// An account of Cloudflare, as far as a token opens it.
#[derive(Debug, Clone)]
pub struct Cloudflare {
    http: reqwest::Client,
    /// Without a `/` at its end.
    base: String,
    token: Secret,
    limits: Limits,
}

impl Cloudflare {
    /// The account that a token opens, at `NORN_CLOUDFLARE_API` or where Cloudflare is.
    ///
    /// # Errors
    /// A place that is no URL, or would be sent the token in the clear.
    pub fn new(token: &Secret) -> Result<Self, CloudflareError> {
        let named = std::env::var("NORN_CLOUDFLARE_API").ok().filter(|named| !named.is_empty());
        Self::at(named.as_deref().unwrap_or(API), token, Limits::default())
    }

    /// The same at this URL.
    ///
    /// # Errors
    /// As [`new`](Self::new).
    pub fn at(base: &str, token: &Secret, limits: Limits) -> Result<Self, CloudflareError> {
        let bad = |why: &str| CloudflareError::BadAddress { address: base.to_owned(), why: why.to_owned() };
        let url = url::Url::parse(base).map_err(|error| bad(&error.to_string()))?;
        let mut builder = reqwest::Client::builder()
            .redirect(reqwest::redirect::Policy::none())
            .connect_timeout(limits.call.min(Duration::from_secs(10)))
            .timeout(limits.call)
            .user_agent(concat!("norn/", env!("CARGO_PKG_VERSION")));
        match url.scheme() {
            "https" => builder = builder.use_preconfigured_tls(tls::trusting_the_system()),
            "http" if matches!(url.host_str(), Some("127.0.0.1" | "[::1]" | "localhost")) => {}
            _ => return Err(bad("the token is sent over https only, but to this machine")),
        }
        let http = builder.build().map_err(|error| bad(&error.to_string()))?;
        Ok(Self { http, base: base.trim_end_matches('/').to_owned(), token: token.clone(), limits })
    }

    /// A boundary of a change: where tests strike.
    fn talk(&self, act: &str, doing: &str) -> Result<(), CloudflareError> {
        failpoint::talk(act, Path::new(doing)).map_err(|error| CloudflareError::Unreachable {
            server: self.base.clone(),
            why: error.to_string(),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mark_is_read_as_it_is_written() {
        let mark = |stage: Option<&str>| Mark {
            project: "shop".parse().expect("a name"),
            stage: stage.map(|stage| stage.parse().expect("a name")),
            app: "web".parse().expect("a name"),
        };
        for (mark, text) in [(mark(Some("prod")), "norn shop/prod web"), (mark(None), "norn shop web")] {
            assert_eq!(mark.to_string(), text);
            assert_eq!(Mark::read(text), Some(mark.clone()));
            assert_eq!(Mark::read(&format!("  {text} ")), Some(mark));
        }
        assert!(!mark(None).is_near(&mark(Some("prod"))));
        for bad in
            ["", "norn", "norn shop", "norn shop/ web", "norn /prod web", "norn shop web x", "nor shop web"]
        {
            assert_eq!(Mark::read(bad), None, "{bad}");
        }
    }

    #[test]
    fn the_token_goes_nowhere_in_the_clear_and_is_never_shown() {
        let token = Secret::new("s3cret-token");
        for bad in ["http://api.example.com/v4", "ftp://127.0.0.1", "nowhere"] {
            let refused = Cloudflare::at(bad, &token, Limits::default()).expect_err("it is no place for it");
            assert!(matches!(refused, CloudflareError::BadAddress { .. }), "{refused}");
        }
        let there = Cloudflare::at(API, &token, Limits::default()).expect("it is a URL");
        assert!(!format!("{there:?}").contains("s3cret"), "{there:?}");
    }
}
