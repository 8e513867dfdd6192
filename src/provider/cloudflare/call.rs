//! A call to Cloudflare: its envelope, what its refusals mean, and when it is tried again.

use std::time::Duration;

use reqwest::header::RETRY_AFTER;
use reqwest::{Method, StatusCode};
use serde::Deserialize;
use serde_json::Value;
use tokio::time::sleep;

use super::Cloudflare;
use crate::provider::causes::chain;

/// How often a call is tried at most.
const TRIES: u32 = 6;

/// Why Cloudflare could not be had to do something. No text shows the token.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum CloudflareError {
    #[error("{address} is no place of Cloudflare's API: {why}; correct NORN_CLOUDFLARE_API, or unset it")]
    BadAddress { address: String, why: String },
    #[error(
        "Cloudflare does not know the token of `cloudflare.token` ({why}): make one at My Profile, API Tokens, with the permissions Zone Read and DNS Edit, and give it to norn"
    )]
    BadToken { why: String },
    #[error(
        "Cloudflare could not {doing}: the token of `cloudflare.token` may not ({why}); give it the permissions Zone Read and DNS Edit for this zone"
    )]
    Forbidden { doing: String, why: String },
    #[error(
        "the token of `cloudflare.token` sees no zone {zone}: correct `cloudflare.zone`, or give the token Zone Read and DNS Edit for it"
    )]
    UnknownZone { zone: String },
    #[error("Cloudflare does not answer at {server}: {why}; look whether this machine reaches it")]
    Unreachable { server: String, why: String },
    #[error(
        "the certificate of {server} is not trusted: {why}; name the file of its authority with SSL_CERT_FILE, or add that to the system's"
    )]
    Untrusted { server: String, why: String },
    /// `asked` in seconds, if it said how long.
    #[error(
        "Cloudflare could not {doing}: it limits how often it may be asked{}; wait, then try again",
        asked.map(|asked| format!(", and wants {asked} s of quiet")).unwrap_or_default()
    )]
    Busy { doing: String, asked: Option<u64> },
    #[error(
        "Cloudflare could not {doing}: what answers at {server} does not speak as its API does (HTTP {status}: {begins}); look whether something stands in between"
    )]
    Unclear { doing: String, server: String, status: u16, begins: String },
    /// `record` is such as `A shop.example.com 192.0.2.1`.
    #[error(
        "{host} has a record that is not of this project and stage: {record} ({whose}); delete it at Cloudflare, or make it norn's by the comment `{mark}` there"
    )]
    Foreign { host: String, record: String, whose: String, mark: String },
    #[error("{host} has several records: {}; delete all at Cloudflare but the one that is norn's, if any", records.join(", "))]
    Several { host: String, records: Vec<String> },
    #[error("Cloudflare could not {doing}: {why}")]
    Refused { doing: String, why: String },
}

/// What every answer is.
#[derive(Debug, Default, Deserialize)]
pub(super) struct Answer {
    success: bool,
    #[serde(default)]
    errors: Vec<Said>,
    #[serde(default)]
    pub result: Value,
    #[serde(default)]
    pub result_info: Option<Pages>,
}

#[derive(Debug, Deserialize)]
struct Said {
    #[serde(default)]
    code: u64,
    #[serde(default)]
    message: String,
    #[serde(default)]
    error_chain: Vec<Said>,
}

#[derive(Debug, Deserialize)]
pub(super) struct Pages {
    #[serde(default)]
    pub total_pages: u64,
}

/// A call that failed.
#[derive(Debug)]
pub(super) struct Failed {
    pub error: CloudflareError,
    pub found: Found,
    again: Again,
}

/// What a call that failed met.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Found {
    /// What was named is not there.
    Nothing,
    /// Somebody was faster: there is such a record by now.
    Taken,
    Other,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Again {
    Never,
    /// It may go better later.
    Later,
    /// It said after how long.
    After(Duration),
}

/// How much longer a call is tried.
pub(super) struct Patience<'a> {
    api: &'a Cloudflare,
    tries: u32,
    waited: Duration,
}

impl Patience<'_> {
    /// Waits until a failed call may be tried again.
    ///
    /// # Errors
    /// Why it is not.
    pub async fn wait(&mut self, failed: Failed) -> Result<(), CloudflareError> {
        let limits = self.api.limits;
        let pause = match failed.again {
            Again::Never => return Err(failed.error),
            Again::Later => limits.pause * 2_u32.pow(self.tries),
            Again::After(asked) => asked.max(limits.pause),
        };
        self.tries += 1;
        self.waited += pause;
        if self.tries >= TRIES || self.waited > limits.patience {
            return Err(failed.error);
        }
        sleep(pause).await;
        Ok(())
    }
}

impl Cloudflare {
    pub(super) fn patience(&self) -> Patience<'_> {
        Patience { api: self, tries: 0, waited: Duration::ZERO }
    }

    /// A call that may be made twice, tried until it is answered.
    pub(super) async fn call(
        &self,
        doing: &str,
        method: &Method,
        path: &str,
        body: Option<&Value>,
    ) -> Result<Answer, Failed> {
        let mut patience = self.patience();
        loop {
            match self.once(doing, method, path, body).await {
                Ok(answer) => return Ok(answer),
                Err(failed) if failed.again == Again::Never => return Err(failed),
                Err(failed) => patience.wait(failed).await.map_err(Failed::from)?,
            }
        }
    }

    /// One call, made once. `doing` is such as `list the zones`.
    pub(super) async fn once(
        &self,
        doing: &str,
        method: &Method,
        path: &str,
        body: Option<&Value>,
    ) -> Result<Answer, Failed> {
        let mut request = self
            .http
            .request(method.clone(), format!("{}{path}", self.base))
            .bearer_auth(self.token.expose());
        if let Some(body) = body {
            request = request.header("content-type", "application/json").body(body.to_string());
        }
        let unreachable = |error: &reqwest::Error| {
            if error.is_builder() {
                let why = "it holds characters that no token has".to_owned();
                return Failed::from(CloudflareError::BadToken { why });
            }
            let why = self.scrubbed(&chain(error));
            // Rustls has a kind for it, but what stands in between hands it on as text.
            if why.contains("invalid peer certificate") {
                return Failed::from(CloudflareError::Untrusted { server: self.base.clone(), why });
            }
            let error = CloudflareError::Unreachable { server: self.base.clone(), why };
            Failed { again: Again::Later, ..Failed::from(error) }
        };
        let answer = request.send().await.map_err(|error| unreachable(&error))?;
        let status = answer.status();
        let after =
            answer.headers().get(RETRY_AFTER).and_then(|after| after.to_str().ok()?.trim().parse().ok());
        let text = answer.text().await.map_err(|error| unreachable(&error))?;
        self.read(doing, status, after, &text)
    }

    fn read(
        &self,
        doing: &str,
        status: StatusCode,
        after: Option<u64>,
        text: &str,
    ) -> Result<Answer, Failed> {
        let doing = doing.to_owned();
        let again = match (status, after) {
            (StatusCode::TOO_MANY_REQUESTS | StatusCode::SERVICE_UNAVAILABLE, Some(after)) => {
                Again::After(Duration::from_secs(after))
            }
            (StatusCode::TOO_MANY_REQUESTS, None) => Again::Later,
            _ if status.is_server_error() => Again::Later,
            _ => Again::Never,
        };
        let read = serde_json::from_str::<Answer>(text);
        if status == StatusCode::TOO_MANY_REQUESTS {
            let error = CloudflareError::Busy { doing, asked: after };
            return Err(Failed { again, ..Failed::from(error) });
        }
        let Ok(answer) = read else {
            let begins: String = self.scrubbed(text).split_whitespace().collect::<Vec<_>>().join(" ");
            let begins = begins.chars().filter(|c| !c.is_control()).take(80).collect();
            let server = self.base.clone();
            let error = CloudflareError::Unclear { doing, server, status: status.as_u16(), begins };
            return Err(Failed { again, ..Failed::from(error) });
        };
        if answer.success && status.is_success() {
            return Ok(answer);
        }
        let mut said: Vec<&Said> = answer.errors.iter().collect();
        said.extend(answer.errors.iter().flat_map(|error| &error.error_chain));
        let codes: Vec<u64> = said.iter().map(|said| said.code).collect();
        let told: Vec<String> =
            said.iter().map(|said| format!("{} (code {})", said.message, said.code)).collect();
        let told = if told.is_empty() { format!("HTTP {}", status.as_u16()) } else { told.join(", ") };
        let why = self.scrubbed(&told);
        let has = |known: &[u64]| codes.iter().any(|code| known.contains(code));
        // 9109 is both: a token that nobody knows, and one that may not.
        let unknown = has(&[9109]) && why.to_ascii_lowercase().contains("token");
        let error = if status == StatusCode::UNAUTHORIZED || has(&[1000, 6003, 6111, 9106]) || unknown {
            CloudflareError::BadToken { why }
        } else if status == StatusCode::FORBIDDEN || has(&[9109, 10000]) {
            CloudflareError::Forbidden { doing, why }
        } else {
            CloudflareError::Refused { doing, why }
        };
        let found = if status == StatusCode::NOT_FOUND || has(&[81044]) {
            Found::Nothing
        } else if has(&[81053, 81057, 81058]) {
            Found::Taken
        } else {
            Found::Other
        };
        Err(Failed { error, found, again })
    }

    /// A text of others, which may repeat the token.
    fn scrubbed(&self, text: &str) -> String {
        match self.token.expose() {
            "" => text.to_owned(),
            token => text.replace(token, "***"),
        }
    }
}

impl From<CloudflareError> for Failed {
    fn from(error: CloudflareError) -> Self {
        Self { error, found: Found::Other, again: Again::Never }
    }
}
