//! Copies the bytes of one connection both ways.
//!
//! A buffer exists only while bytes are under way, so idle connections cost no memory. A reader
//! waits for the other side's writer, so a slow peer slows its sender down and nothing piles up.

use std::io;
use std::os::fd::AsFd;
use std::sync::Mutex;
use std::time::{Duration, Instant};

use rustix::net::{RecvFlags, Shutdown, recv, shutdown};
use tokio::net::TcpStream;
use tokio::task::coop::consume_budget;

/// How many bytes are taken at a time.
const CHUNK: usize = 32 << 10;

/// Which way bytes went last, and when.
#[derive(Debug)]
pub struct Activity(Mutex<(Toward, Instant)>);

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Toward {
    Client,
    Replica,
}

impl Activity {
    /// A connection on which nothing was said yet owes the client nothing.
    pub fn new() -> Self {
        Self(Mutex::new((Toward::Client, Instant::now())))
    }

    /// Whether the client had the last byte, and that was at least so long ago.
    pub fn idle(&self, span: Duration) -> bool {
        let (toward, at) = *self.0.lock().expect("no holder of this lock panics");
        toward == Toward::Client && at.elapsed() >= span
    }

    fn note(&self, toward: Toward) {
        *self.0.lock().expect("no holder of this lock panics") = (toward, Instant::now());
    }
}

/// Copies until both sides have said all they had to say; each one's end is passed on.
pub async fn relay(client: &TcpStream, replica: &TcpStream, activity: &Activity) -> io::Result<()> {
    let up = pump(client, replica, Toward::Replica, activity);
    let down = pump(replica, client, Toward::Client, activity);
    tokio::try_join!(up, down).map(|_| ())
}

/// Whether bytes wait to be read.
pub fn readable(stream: &TcpStream) -> bool {
    let mut byte = [0];
    let peeked = recv(stream.as_fd(), &mut byte, RecvFlags::PEEK | RecvFlags::DONTWAIT);
    matches!(peeked, Ok((1.., _)))
}

async fn pump(from: &TcpStream, to: &TcpStream, toward: Toward, activity: &Activity) -> io::Result<()> {
    loop {
        from.readable().await?;
        match pass(from, to, || activity.note(toward)) {
            Ok(Passed::End) => return Ok(shutdown(to, Shutdown::Write)?),
            Ok(Passed::All) => {}
            Ok(Passed::Rest(rest)) => {
                write_all(to, &rest).await?;
                activity.note(toward);
            }
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
            Err(error) => return Err(error),
        }
        consume_budget().await;
    }
}

enum Passed {
    End,
    All,
    /// What the other side would not take yet.
    Rest(Vec<u8>),
}

/// Takes what is there and hands on what is taken, without waiting. The buffer is on the stack
/// and gone before anyone waits.
fn pass(from: &TcpStream, to: &TcpStream, note: impl FnOnce()) -> io::Result<Passed> {
    let mut buffer = [0; CHUNK];
    let got = match from.try_read(&mut buffer)? {
        0 => return Ok(Passed::End),
        count => &buffer[..count],
    };
    note();
    let sent = match to.try_write(got) {
        Err(error) if error.kind() == io::ErrorKind::WouldBlock => 0,
        other => other?,
    };
    Ok(if sent == got.len() { Passed::All } else { Passed::Rest(got[sent..].to_vec()) })
}

async fn write_all(to: &TcpStream, mut rest: &[u8]) -> io::Result<()> {
    while !rest.is_empty() {
        to.writable().await?;
        match to.try_write(rest) {
            Ok(count) => rest = &rest[count..],
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
            Err(error) => return Err(error),
        }
    }
    Ok(())
}
