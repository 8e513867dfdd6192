//! Clients of a port of 127.0.0.1 that notice every request that fails.

use std::net::Ipv4Addr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::task::JoinSet;

/// Clients at work; every request that fails is kept.
pub struct Load {
    over: Arc<AtomicBool>,
    clients: JoinSet<(usize, Vec<String>)>,
}

impl Load {
    pub fn start(port: u16) -> Self {
        let over = Arc::new(AtomicBool::new(false));
        let mut clients = JoinSet::new();
        for _ in 0..3 {
            clients.spawn(fresh(port, Arc::clone(&over)));
        }
        for _ in 0..8 {
            clients.spawn(keep_alive(port, Arc::clone(&over)));
        }
        Self { over, clients }
    }

    /// Ends the load; returns how many requests were answered and what failed.
    pub async fn end(self) -> (usize, Vec<String>) {
        self.over.store(true, Ordering::Relaxed);
        let results = self.clients.join_all().await;
        let answered = results.iter().map(|(answered, _)| answered).sum();
        (answered, results.into_iter().flat_map(|(_, failed)| failed).collect())
    }
}

/// A new connection for each request.
async fn fresh(port: u16, over: Arc<AtomicBool>) -> (usize, Vec<String>) {
    let (mut answered, mut failed) = (0, Vec::new());
    while !over.load(Ordering::Relaxed) {
        match get(port, "/").await {
            Ok(_) => answered += 1,
            Err(error) => failed.push(format!("fresh: {error}")),
        }
        tokio::time::sleep(Duration::from_millis(3)).await;
    }
    (answered, failed)
}

/// One connection with pauses. As every HTTP client does, it connects again if the other side had
/// closed before it sends.
async fn keep_alive(port: u16, over: Arc<AtomicBool>) -> (usize, Vec<String>) {
    let (mut answered, mut failed) = (0, Vec::new());
    let mut open: Option<TcpStream> = None;
    while !over.load(Ordering::Relaxed) {
        let kept = open.take().filter(|stream| {
            let closed = stream.try_read(&mut [0]);
            matches!(closed, Err(error) if error.kind() == std::io::ErrorKind::WouldBlock)
        });
        match exchange(port, kept).await {
            Ok(stream) => {
                answered += 1;
                open = Some(stream);
            }
            Err(error) => failed.push(format!("keep-alive: {error}")),
        }
        let pause = async {
            while !over.load(Ordering::Relaxed) {
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
        };
        let _over = tokio::time::timeout(Duration::from_secs(2), pause).await;
    }
    (answered, failed)
}

async fn exchange(port: u16, kept: Option<TcpStream>) -> std::io::Result<TcpStream> {
    let mut stream = match kept {
        Some(stream) => stream,
        None => TcpStream::connect((Ipv4Addr::LOCALHOST, port)).await?,
    };
    stream.write_all(b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n").await?;
    let mut answer = Vec::new();
    loop {
        if stream.read_buf(&mut answer).await? == 0 {
            return Err(std::io::Error::other("closed before the answer was whole"));
        }
        let text = String::from_utf8_lossy(&answer);
        let Some((head, body)) = text.split_once("\r\n\r\n") else { continue };
        let length = head.lines().find_map(|line| line.strip_prefix("Content-Length: "));
        let length: usize = length.and_then(|length| length.parse().ok()).expect("the server gives a length");
        if body.len() == length {
            return Ok(stream);
        }
    }
}

/// One request on a connection of its own.
pub async fn get(port: u16, path: &str) -> std::io::Result<String> {
    let mut stream = TcpStream::connect((Ipv4Addr::LOCALHOST, port)).await?;
    let request = format!("GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).await?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await?;
    match answer.split_once("\r\n\r\n") {
        Some((head, body)) if head.starts_with("HTTP/1.1 200 ") => Ok(body.to_owned()),
        _ => Err(std::io::Error::other(answer)),
    }
}
