//! One probe of one replica: is it healthy, and if not, what did it answer?

use std::net::{Ipv4Addr, SocketAddr};
use std::time::{Duration, Instant};

use reqwest::header::HOST;
use rustix::process::Signal;
use tokio::io::AsyncReadExt;
use tokio::net::TcpStream;
use tokio::net::unix::pipe;
use tokio::process::Command;
use tokio::time::timeout;

use super::context::Context;
use super::process;
use super::protocol::{Probe, Roll};

/// How much of an answer's body is shown, in bytes.
const BODY: usize = 512;

/// How long a connection has to stay open. An engine takes connections for a container whose network is
/// still coming up; that nothing listens there it learns within the 3 s in which addresses are looked for.
const KEPT: Duration = Duration::from_millis(3500);

/// The client for probes.
///
/// # Errors
/// Where the client cannot be set up at all.
pub fn client() -> reqwest::Result<reqwest::Client> {
    let redirect = reqwest::redirect::Policy::none();
    reqwest::Client::builder().no_proxy().redirect(redirect).pool_max_idle_per_host(0).build()
}

/// Probes a replica that was started at `started`. The error is the answer, as a reader needs it.
pub async fn healthy(
    context: &Context,
    roll: &Roll,
    index: u32,
    port: Option<u16>,
    started: Instant,
) -> Result<(), String> {
    let limit = roll.health.timeout;
    match (&roll.health.probe, port) {
        (Probe::Http { path, host }, Some(port)) => get(&context.http, &here(port), path, host, limit).await,
        (Probe::Tcp, Some(port)) => connect(&here(port), limit).await.map(drop),
        (Probe::Accepts, Some(port)) => accepts(&here(port), limit).await,
        (Probe::Http { .. } | Probe::Tcp | Probe::Accepts, None) => {
            Err("the app has no port to probe".to_owned())
        }
        (Probe::Command(line), port) => {
            run(context, roll, process::shell(line), line, (index, port), limit).await
        }
        (Probe::Exec { named, words }, port) => {
            run(context, roll, process::exec(words), named, (index, port), limit).await
        }
        (Probe::Lives(span), _) => {
            let lived = started.elapsed();
            let short =
                || format!("it has lived {:.1} s of {:.1} s", lived.as_secs_f64(), span.as_secs_f64());
            if lived >= *span { Ok(()) } else { Err(short()) }
        }
    }
}

/// Probes the `live` path, where the roll has one.
pub async fn live(context: &Context, roll: &Roll, port: Option<u16>) -> Result<(), String> {
    let (Some(path), Some(port)) = (&roll.health.live, port) else { return Ok(()) };
    let host = match &roll.health.probe {
        Probe::Http { host, .. } => host,
        Probe::Tcp | Probe::Accepts | Probe::Command(_) | Probe::Exec { .. } | Probe::Lives(_) => "localhost",
    };
    get(&context.http, &here(port), path, host, roll.health.timeout).await
}

/// Where a replica of this machine listens.
fn here(port: u16) -> String {
    SocketAddr::from((Ipv4Addr::LOCALHOST, port)).to_string()
}

/// Asks what listens at `place`, such as `127.0.0.1:8080`, for a path. The error is the answer.
pub async fn get(
    http: &reqwest::Client,
    place: &str,
    path: &str,
    host: &str,
    limit: Duration,
) -> Result<(), String> {
    let url = format!("http://{place}/{}", path.trim_start_matches('/'));
    let ask = async {
        let mut answer = http.get(url).header(HOST, host).send().await?;
        let status = answer.status();
        let mut body = Vec::new();
        // The status decides; a body that breaks off only shows less.
        while !good(status) && body.len() < BODY {
            let Ok(Some(chunk)) = answer.chunk().await else { break };
            body.extend_from_slice(&chunk);
        }
        Ok::<_, reqwest::Error>((status, body))
    };
    match timeout(limit, ask).await {
        Ok(Ok((status, _))) if good(status) => Ok(()),
        Ok(Ok((status, body))) => {
            let body = start_of(&body);
            let colon = if body.is_empty() { "" } else { ": " };
            Err(format!("GET {path}: {status}{colon}{body}"))
        }
        Ok(Err(error)) if error.is_connect() => Err(format!("GET {path}: connection refused on {place}")),
        Ok(Err(error)) if error.is_builder() => Err(format!("GET {path}: no path that can be asked for")),
        Ok(Err(_)) => Err(format!("GET {path}: no HTTP answer on {place}")),
        Err(_) => Err(format!("GET {path}: no answer within {:.1} s", limit.as_secs_f64())),
    }
}

fn good(status: reqwest::StatusCode) -> bool {
    status.is_success() || status.is_redirection()
}

async fn connect(place: &str, limit: Duration) -> Result<TcpStream, String> {
    match timeout(limit, TcpStream::connect(place)).await {
        Ok(Ok(stream)) => Ok(stream),
        Ok(Err(_)) => Err(format!("connection refused on {place}")),
        Err(_) => Err(format!("no connection to {place} within {:.1} s", limit.as_secs_f64())),
    }
}

/// Whether what listens at `place` in a container takes a connection, which is still open after a
/// moment. The error is the answer.
pub async fn accepts(place: &str, limit: Duration) -> Result<(), String> {
    let mut stream = connect(place, limit).await?;
    match timeout(KEPT.min(limit), stream.read(&mut [0])).await {
        // Some speak first.
        Err(_) | Ok(Ok(1..)) => Ok(()),
        Ok(Ok(0) | Err(_)) => Err(format!(
            "connection closed at once on {place}: in its container the app must listen on $PORT of 0.0.0.0"
        )),
    }
}

/// Runs a probe's command in a group of its own, which is gone when this returns.
async fn run(
    context: &Context,
    roll: &Roll,
    mut command: Command,
    line: &str,
    (index, port): (u32, Option<u16>),
    limit: Duration,
) -> Result<(), String> {
    let failed = |error: std::io::Error| format!("`{line}` could not be run: {error}");
    let (mut child, mut output) = {
        let (reader, writer) = std::io::pipe().map_err(failed)?;
        process::surround(&mut command, context, roll, index, port);
        command.stdout(writer.try_clone().map_err(failed)?).stderr(writer);
        let child = command.spawn().map_err(failed)?;
        (child, pipe::Receiver::from_owned_fd(reader.into()).map_err(failed)?)
    };
    let group = child.id().map(GroupGuard);
    let mut said = Vec::new();
    let ended = timeout(limit, wait_reading(&mut child, &mut output, &mut said)).await;
    drop(group);
    match ended {
        Ok(Ok(status)) if status.success() => Ok(()),
        Ok(Ok(status)) => {
            Err(format!("`{line}`: {status}: {}", start_of(&said)).trim_end_matches(": ").to_owned())
        }
        Ok(Err(error)) => Err(failed(error)),
        Err(_) => Err(format!("`{line}`: not finished within {:.1} s", limit.as_secs_f64())),
    }
}

/// Waits for a child while reading its output, so that it never blocks on a full pipe.
async fn wait_reading(
    child: &mut tokio::process::Child,
    output: &mut pipe::Receiver,
    said: &mut Vec<u8>,
) -> std::io::Result<std::process::ExitStatus> {
    let mut chunk = [0; 4096];
    let mut open = true;
    loop {
        tokio::select! {
            // What was said before the end is read before the end is seen.
            biased;
            got = output.read(&mut chunk), if open => match got {
                Ok(count @ 1..) => said.extend_from_slice(&chunk[..count.min(BODY.saturating_sub(said.len()))]),
                Ok(0) | Err(_) => open = false,
            },
            status = child.wait() => return status,
        }
    }
}

/// Kills the group of a probe's command, also where the probe is given up half-way.
struct GroupGuard(u32);

impl Drop for GroupGuard {
    fn drop(&mut self) {
        process::signal_group(self.0, Signal::KILL);
    }
}

/// The beginning of a text on one line.
fn start_of(bytes: &[u8]) -> String {
    let text = String::from_utf8_lossy(&bytes[..bytes.len().min(BODY)]);
    let plain = text.chars().map(|c| if c.is_control() { ' ' } else { c }).collect::<String>();
    plain.split_ascii_whitespace().collect::<Vec<_>>().join(" ")
}
