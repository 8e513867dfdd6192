//! What the container engines that norn works on do in tests. A test whose engine cannot be here
//! prints SKIPPED and why.

#[path = "../support/cloudflare.rs"]
mod cloudflare;
#[path = "../support/cluster/mod.rs"]
mod cluster;
mod clustered;
mod containers;
#[cfg(feature = "failpoints")]
mod crash;
mod docker;
#[path = "../support/engine.rs"]
mod engine;
mod images;
mod kubernetes;
#[path = "../support/load.rs"]
mod load;
mod manifests;
#[cfg(feature = "failpoints")]
#[path = "../support/matrix/mod.rs"]
mod matrix;
mod pods;
#[path = "../support/registry.rs"]
mod registry;
#[path = "../support/sandbox.rs"]
mod sandbox;
#[path = "../support/mod.rs"]
mod shared;
mod tunnel;
#[path = "../support/world.rs"]
mod world;
mod worlds;

use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::{Duration, Instant};

/// The body of the answer to a GET, or why there is none.
fn get(host: &str, port: u16) -> Result<String, String> {
    let ask = || -> std::io::Result<String> {
        let mut stream = TcpStream::connect((host, port))?;
        stream.set_read_timeout(Some(Duration::from_secs(5)))?;
        write!(stream, "GET / HTTP/1.0\r\nHost: {host}\r\n\r\n")?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer)?;
        Ok(answer)
    };
    let answer = ask().map_err(|error| error.to_string())?;
    match answer.split_once("\r\n\r\n") {
        Some((head, body)) if head.contains(" 200 ") => Ok(body.trim().to_owned()),
        Some(_) | None => Err(answer),
    }
}

/// Asks until there is an answer, for ten seconds.
fn get_soon(host: &str, port: u16) -> String {
    let began = Instant::now();
    loop {
        match get(host, port) {
            Ok(body) => return body,
            Err(error) => assert!(began.elapsed() < Duration::from_secs(10), "{host}:{port}: {error}"),
        }
        std::thread::sleep(Duration::from_millis(20));
    }
}
