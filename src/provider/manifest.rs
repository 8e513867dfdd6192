//! What a registry has under an image's name, asked over its own API and without an engine.
//!
//! Here: the digest of a manifest. Elsewhere: names and logins (`docker::registry`), what a login is asked
//! for by (`challenge`), what refusals mean (`refusal`).
//! Invariants: a login is sent over TLS only, but to a registry that may be asked in the clear; no more
//! than [`LARGEST`] bytes of an answer are read; every call ends in time.

mod challenge;
mod refusal;

use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bollard::auth::DockerCredentials;
use reqwest::header::{ACCEPT, AUTHORIZATION, CONTENT_TYPE, HeaderMap};
use reqwest::redirect::Policy;
use reqwest::{Client, Method, RequestBuilder, Response, StatusCode};
use serde::Deserialize;
use sha2::{Digest, Sha256};
use url::Url;

use self::challenge::{Challenge, challenge};
pub use self::refusal::ManifestError;
use super::docker::registry::{HUB, Logins, registry, repository};
use super::tls;

/// The most that is read of an answer, in bytes. Registries take no larger manifests.
const LARGEST: usize = 4 << 20;
/// How long a connection, and a whole call, may take.
const CONNECT: Duration = Duration::from_secs(10);
const CALL: Duration = Duration::from_secs(30);
/// Where the registry of names that have none answers.
const HUB_SERVER: &str = "registry-1.docker.io";
/// Docker's settings on this machine, of which registries may be asked in the clear.
const SETTINGS: &str = "/etc/docker/daemon.json";

/// What a name may stand for: an image, or one for each platform.
const KINDS: [&str; 4] = [
    "application/vnd.oci.image.index.v1+json",
    "application/vnd.oci.image.manifest.v1+json",
    "application/vnd.docker.distribution.manifest.list.v2+json",
    "application/vnd.docker.distribution.manifest.v2+json",
];

/// Who asks registries.
#[derive(Debug, Clone)]
pub struct Asker {
    /// For all that is asked by TLS, wherever it leads.
    http: Client,
    /// For this machine's own registries, to which no proxy leads.
    near: Client,
    /// For registries that may be asked in the clear, beside those of this machine.
    clear: Client,
    insecure: Vec<String>,
    /// For what gives tokens, beside a registry elsewhere and one of this machine: a login goes nowhere
    /// but where it was asked for.
    tokens: Client,
    near_tokens: Client,
}

/// An image's place in its registry.
struct Place<'a> {
    image: &'a str,
    registry: &'a str,
    /// Such as `library/nginx`.
    path: String,
    /// A tag or a digest.
    reference: &'a str,
}

/// One lookup.
struct Look<'a> {
    http: &'a Client,
    tokens: &'a Client,
    place: Place<'a>,
    login: Option<DockerCredentials>,
    /// Such as `https://registry.example.com`.
    base: String,
    authorization: Option<String>,
}

impl Asker {
    pub fn new() -> Self {
        let builder = |redirect| {
            Client::builder()
                .use_preconfigured_tls(tls::trusting_the_system())
                .redirect(redirect)
                .connect_timeout(CONNECT)
                .timeout(CALL)
                .user_agent(concat!("norn/", env!("CARGO_PKG_VERSION")))
        };
        let built = "a client without files of its own can be built";
        let follows = || builder(Policy::limited(3));
        Self {
            http: follows().https_only(true).build().expect(built),
            near: follows().no_proxy().build().expect(built),
            clear: follows().build().expect(built),
            insecure: insecure(),
            tokens: builder(Policy::none()).build().expect(built),
            near_tokens: builder(Policy::none()).no_proxy().build().expect(built),
        }
    }

    /// What an image's name stands for in its registry now: `sha256:...`.
    ///
    /// # Errors
    /// A registry that cannot be reached or trusted, has no such image, or lets this user see none.
    pub async fn digest(&self, image: &str, logins: &Logins) -> Result<String, ManifestError> {
        let place = Place::of(image);
        let login = logins.credentials(image).await?;
        let near = is_near(place.registry);
        let insecure = self.insecure.iter().any(|host| host == place.registry);
        let in_the_clear = near || insecure;
        let http = match (near, insecure) {
            (true, _) => &self.near,
            (false, true) => &self.clear,
            (false, false) => &self.http,
        };
        let server = if place.registry == HUB { HUB_SERVER } else { place.registry };
        let base = format!("https://{server}");
        let tokens = if near { &self.near_tokens } else { &self.tokens };
        let mut look = Look { http, tokens, place, login, base, authorization: None };
        match look.digest().await {
            Err(ManifestError::Unreachable { .. } | ManifestError::Plain { .. }) if in_the_clear => {
                look.base = format!("http://{server}");
                look.digest().await
            }
            found => found,
        }
    }
}

impl Default for Asker {
    fn default() -> Self {
        Self::new()
    }
}

impl<'a> Place<'a> {
    fn of(image: &'a str) -> Self {
        let (registry, repository) = (registry(image), repository(image));
        let inside = repository.strip_prefix(registry).and_then(|inside| inside.strip_prefix('/'));
        let inside = inside.unwrap_or(repository);
        let short = registry == HUB && !inside.contains('/');
        let path = if short { format!("library/{inside}") } else { inside.to_owned() };
        let after = &image[repository.len()..];
        let reference = match after.split_once('@') {
            Some((_, digest)) => digest,
            None => after.strip_prefix(':').unwrap_or("latest"),
        };
        Self { image, registry, path, reference }
    }
}

impl Look<'_> {
    async fn digest(&mut self) -> Result<String, ManifestError> {
        let head = self.ask(Method::HEAD).await?;
        if let Some(digest) = told(&head) {
            return Ok(digest);
        }
        // What went wrong stands in a body; and some registries answer no HEAD, or give no digest with it.
        let answer = self.ask(Method::GET).await?;
        let (status, is_manifest) = (answer.status(), is_manifest(answer.headers()));
        let body = self.body(answer).await?;
        if !status.is_success() {
            return Err(self.refused(status, &body));
        }
        if !is_manifest {
            return Err(self.unclear("what it gives is no manifest of an image"));
        }
        let digest: String = Sha256::digest(&body).iter().map(|byte| format!("{byte:02x}")).collect();
        Ok(format!("sha256:{digest}"))
    }

    /// Asks for the manifest, and once more with what the registry wants for it.
    async fn ask(&mut self, method: Method) -> Result<Response, ManifestError> {
        let url = format!("{}/v2/{}/manifests/{}", self.base, self.place.path, self.place.reference);
        let ask = |authorization: Option<&str>| {
            let request = self.http.request(method.clone(), &url).header(ACCEPT, KINDS.join(", "));
            match authorization {
                Some(authorization) => request.header(AUTHORIZATION, authorization),
                None => request,
            }
        };
        let answer = self.send(ask(self.authorization.as_deref())).await?;
        if answer.status() != StatusCode::UNAUTHORIZED || self.authorization.is_some() {
            return Ok(answer);
        }
        let Some(wanted) = challenge(answer.headers()) else { return Ok(answer) };
        let authorization = match wanted {
            Challenge::Basic => self.basic(),
            Challenge::Bearer { realm, service, scope } => {
                Some(format!("Bearer {}", self.token(&realm, service, scope).await?))
            }
        };
        let Some(authorization) = authorization else { return Ok(answer) };
        let answer = self.send(ask(Some(&authorization))).await?;
        self.authorization = Some(authorization);
        Ok(answer)
    }

    /// A token of the server that the registry trusts, for this login or for anybody.
    async fn token(
        &self,
        realm: &str,
        service: Option<String>,
        scope: Option<String>,
    ) -> Result<String, ManifestError> {
        let mut url = Url::parse(realm)
            .map_err(|_| self.unclear(&format!("it wants a token of `{realm}`, which is no URL")))?;
        let in_the_clear = self.base.starts_with("http://") && url.scheme() == "http";
        if url.scheme() != "https" && !in_the_clear {
            return Err(self.unclear(&format!("it wants a login to be sent to {realm}, without TLS")));
        }
        let scope = scope.unwrap_or_else(|| format!("repository:{}:pull", self.place.path));
        let service = service.unwrap_or_default();
        let refresh = self.login.as_ref().and_then(|login| login.identitytoken.as_deref());
        let request = if let Some(refresh) = refresh {
            self.tokens.post(url).form(&[
                ("grant_type", "refresh_token"),
                ("client_id", "norn"),
                ("service", &service),
                ("scope", &scope),
                ("refresh_token", refresh),
            ])
        } else {
            url.query_pairs_mut().append_pair("service", &service).append_pair("scope", &scope);
            let request = self.tokens.get(url);
            match self.basic() {
                Some(basic) => request.header(AUTHORIZATION, basic),
                None => request,
            }
        };
        let answer = self.send(request).await?;
        let status = answer.status();
        let body = self.body(answer).await?;
        if !status.is_success() {
            return Err(self.refused(status, &body));
        }
        let given: Option<Token> = serde_json::from_slice(&body).ok();
        let token = given.and_then(|given| given.token.or(given.access_token));
        let token = token.filter(|token| token.bytes().all(|byte| byte.is_ascii_graphic()));
        token.ok_or_else(|| self.unclear(&format!("{realm} gives no token")))
    }

    /// What a login with a password is in a header.
    fn basic(&self) -> Option<String> {
        let login = self.login.as_ref()?;
        let (user, password) = (login.username.as_deref()?, login.password.as_deref()?);
        (!user.is_empty()).then(|| format!("Basic {}", STANDARD.encode(format!("{user}:{password}"))))
    }

    async fn send(&self, request: RequestBuilder) -> Result<Response, ManifestError> {
        request.send().await.map_err(|error| self.unreached(error))
    }

    async fn body(&self, mut answer: Response) -> Result<Vec<u8>, ManifestError> {
        let mut body = Vec::new();
        while let Some(part) = answer.chunk().await.map_err(|error| self.unreached(error))? {
            if body.len() + part.len() > LARGEST {
                return Err(self.unclear("its answer is larger than a manifest may be"));
            }
            body.extend_from_slice(&part);
        }
        Ok(body)
    }
}

/// What a server of tokens gives.
#[derive(Deserialize)]
struct Token {
    token: Option<String>,
    access_token: Option<String>,
}

/// The digest that an answer tells of the manifest that it is about.
fn told(answer: &Response) -> Option<String> {
    let told = answer.headers().get("docker-content-digest")?.to_str().ok()?;
    let hex = told.strip_prefix("sha256:")?;
    let whole = hex.len() == 64 && hex.bytes().all(|byte| byte.is_ascii_hexdigit());
    (answer.status().is_success() && is_manifest(answer.headers()) && whole).then(|| told.to_owned())
}

fn is_manifest(headers: &HeaderMap) -> bool {
    let kind = headers.get(CONTENT_TYPE).and_then(|kind| kind.to_str().ok()).unwrap_or_default();
    let kind = kind.split(';').next().unwrap_or_default().trim();
    KINDS.iter().any(|known| known.eq_ignore_ascii_case(kind))
}

/// Whether a registry is on this machine, as Docker tells it: such a one may speak plain HTTP.
fn is_near(registry: &str) -> bool {
    let host = match registry.rsplit_once(':') {
        Some((host, port)) if port.bytes().all(|byte| byte.is_ascii_digit()) => host,
        Some(_) | None => registry,
    };
    let host = host.trim_start_matches('[').trim_end_matches(']');
    host == "localhost" || host.parse::<std::net::IpAddr>().is_ok_and(|address| address.is_loopback())
}

/// The registries that Docker was told to take in the clear.
fn insecure() -> Vec<String> {
    #[derive(Default, Deserialize)]
    struct Settings {
        #[serde(rename = "insecure-registries", default)]
        insecure: Vec<String>,
    }
    let text = std::fs::read_to_string(SETTINGS).unwrap_or_default();
    serde_json::from_str::<Settings>(&text).unwrap_or_default().insecure
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_leads_to_a_place_as_with_docker() {
        let digest = format!("sha256:{}", "0f".repeat(32));
        for (name, path, reference) in [
            ("nginx", "library/nginx", "latest"),
            ("docker.io/nginx:1.27", "library/nginx", "1.27"),
            ("acme/api:1", "acme/api", "1"),
            ("ghcr.io/acme/api", "acme/api", "latest"),
            ("127.0.0.1:5000/a:2", "a", "2"),
            ("localhost:5000/nginx", "nginx", "latest"),
            (&format!("ghcr.io/acme/api:1@{digest}"), "acme/api", &digest),
        ] {
            let place = Place::of(name);
            assert_eq!((&*place.path, place.reference), (path, reference), "{name}");
        }
    }

    #[test]
    fn only_this_machine_is_near() {
        for near in ["localhost", "localhost:5000", "127.0.0.1:5000", "127.1.2.3", "[::1]:5000"] {
            assert!(is_near(near), "{near}");
        }
        for far in ["docker.io", "10.0.0.1:5000", "localhost.example.com", "127.0.0.1.example.com:80"] {
            assert!(!is_near(far), "{far}");
        }
    }
}
