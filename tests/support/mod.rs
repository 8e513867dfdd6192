//! What every test binary may need.

use std::net::{Ipv4Addr, TcpListener};

/// Says that a test, or a part of it, cannot run here and why. In CI nothing may be missing.
pub fn skipped(what: &str, why: &str) {
    eprintln!("SKIPPED: {what}: {why}");
    let ci = std::env::var_os("CI").is_some_and(|value| !value.is_empty());
    assert!(!ci, "{what} is skipped, and CI is to run everything: {why}");
}

/// A port that was free a moment ago.
#[allow(dead_code, reason = "not every test binary listens")]
pub fn free_port() -> u16 {
    // Below the range of outgoing connections, which other tests make by the thousand.
    for _ in 0..100 {
        let [high, low, ..] = *uuid::Uuid::new_v4().as_bytes();
        let port = 20_000 + u16::from_be_bytes([high, low]) % 12_000;
        if TcpListener::bind((Ipv4Addr::LOCALHOST, port)).is_ok() {
            return port;
        }
    }
    panic!("no port is free");
}
