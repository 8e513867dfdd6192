//! The app's port: accepts connections and forwards each to a healthy replica.
//!
//! The front knows bytes, not requests, so it serves every protocol over TCP. Elsewhere: copying
//! the bytes (`relay`), counting and closing connections (`drain`).

use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::os::fd::{AsFd, OwnedFd};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::task::JoinHandle;
use tokio::time::{sleep, timeout};

use super::drain::{Guard, LOOK, Pool, SILENCE, Stage};
use super::procfs;
use super::protocol::FailureReason;
use super::relay::{Activity, readable, relay};

/// How many connections the kernel keeps until they are accepted.
const BACKLOG: u32 = 4096;
/// How long a replica may take to accept a connection.
const CONNECT: Duration = Duration::from_secs(5);
/// Files this process needs beside its connections.
const SPARE_FILES: u64 = 256;

/// A front at work. Dropped, it stops listening; open connections go on.
#[derive(Debug)]
pub struct Front {
    pub address: SocketAddr,
    pool: Arc<Mutex<Arc<Pool>>>,
    open: Mutex<Option<Open>>,
}

/// What a closed front has no more.
#[derive(Debug)]
struct Open {
    listener: Arc<TcpListener>,
    accepting: JoinHandle<()>,
}

impl Front {
    /// Forwards what arrives at the listener to the pool. `files` is how many this process may
    /// open: connections beyond that wait in the kernel's queue.
    pub fn serve(listener: TcpListener, address: SocketAddr, pool: Arc<Pool>, files: u64) -> Self {
        let listener = Arc::new(listener);
        let pool = Arc::new(Mutex::new(pool));
        let most = usize::try_from(files.saturating_sub(SPARE_FILES).max(SPARE_FILES) / 2);
        let room = Arc::new(Semaphore::new(most.unwrap_or(usize::MAX).min(Semaphore::MAX_PERMITS)));
        let accepting = tokio::spawn(accept(Arc::clone(&listener), Arc::clone(&pool), room));
        Self { address, pool, open: Mutex::new(Some(Open { listener, accepting })) }
    }

    /// New connections go to this pool from here on. Returns the one before.
    pub fn swap(&self, pool: Arc<Pool>) -> Arc<Pool> {
        std::mem::replace(&mut self.pool.lock().expect("no holder of this lock panics"), pool)
    }

    /// Another descriptor of the listening socket, for a successor; `None` once closed.
    pub fn descriptor(&self) -> io::Result<Option<OwnedFd>> {
        let open = self.open.lock().expect("no holder of this lock panics");
        open.as_ref().map(|open| open.listener.as_fd().try_clone_to_owned()).transpose()
    }

    /// Stops accepting, and returns when the port is given up. Again is fine.
    pub async fn close(&self) {
        let open = self.open.lock().expect("no holder of this lock panics").take();
        if let Some(Open { listener, accepting }) = open {
            accepting.abort();
            let _aborted = accepting.await;
            drop(listener);
        }
    }
}

impl Drop for Front {
    fn drop(&mut self) {
        if let Ok(Some(open)) = self.open.get_mut() {
            open.accepting.abort();
        }
    }
}

/// Opens the app's port.
///
/// # Errors
/// [`FailureReason::PortUnavailable`], with who holds the port and how to mend it.
pub fn open(address: SocketAddr) -> Result<TcpListener, FailureReason> {
    listen(address).map_err(|error| {
        let port = address.port();
        let (error, holder) = match error.kind() {
            io::ErrorKind::AddrInUse => (format!("{address} is in use"), procfs::holder(port)),
            io::ErrorKind::PermissionDenied => (
                format!(
                    "this user may not open port {port} ({error}): use a port of 1024 or above, or lower \
                     the sysctl net.ipv4.ip_unprivileged_port_start"
                ),
                None,
            ),
            io::ErrorKind::AddrNotAvailable => {
                (format!("{} is no address of this machine", address.ip()), None)
            }
            _ => (error.to_string(), None),
        };
        FailureReason::PortUnavailable { port, error, holder }
    })
}

/// Takes over a listening socket that another process opened.
pub fn adopt(descriptor: OwnedFd) -> io::Result<TcpListener> {
    let listener = std::net::TcpListener::from(descriptor);
    listener.set_nonblocking(true)?;
    TcpListener::from_std(listener)
}

fn listen(address: SocketAddr) -> io::Result<TcpListener> {
    let socket = if address.is_ipv4() { TcpSocket::new_v4() } else { TcpSocket::new_v6() }?;
    socket.set_reuseaddr(true)?;
    socket.bind(address)?;
    socket.listen(BACKLOG)
}

async fn accept(listener: Arc<TcpListener>, pool: Arc<Mutex<Arc<Pool>>>, room: Arc<Semaphore>) {
    let mut pause = Duration::from_millis(5);
    loop {
        let permit = Arc::clone(&room).acquire_owned().await.expect("the semaphore is never closed");
        match listener.accept().await {
            Ok((client, _)) => {
                pause = Duration::from_millis(5);
                // Counted under the lock under which the pool is replaced: no connection slips
                // into a fleet that is thought to have none.
                let guard = pool.lock().expect("no holder of this lock panics").enter();
                tokio::spawn(serve(client, guard, permit));
            }
            // Mostly files have run out; connections that end give some back.
            Err(_) => {
                sleep(pause).await;
                pause = (pause * 2).min(Duration::from_secs(1));
            }
        }
    }
}

async fn serve(client: TcpStream, guard: Guard, _permit: OwnedSemaphorePermit) {
    let Some(replica) = reach(&guard).await else {
        reset(&client);
        return;
    };
    let _no_delay = client.set_nodelay(true).and_then(|()| replica.set_nodelay(true));
    let activity = Activity::new();
    let outcome = tokio::select! {
        result = relay(&client, &replica, &activity) => result,
        () = idle(&guard, &client, &replica, &activity) => Ok(()),
        () = guard.reached(Stage::Cut) => {
            guard.count_cut();
            // Between two answers a plain end is the truth.
            if activity.idle(LOOK) && !readable(&client) { Ok(()) } else { Err(io::ErrorKind::TimedOut.into()) }
        }
    };
    // A plain end would tell the client that it has the whole answer.
    if outcome.is_err() {
        reset(&client);
        reset(&replica);
    }
}

/// Connects to the first replica that accepts; none has seen a byte of the connection.
async fn reach(guard: &Guard) -> Option<TcpStream> {
    for port in guard.pool().ports() {
        let address = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
        if let Ok(Ok(replica)) = timeout(CONNECT, TcpStream::connect(address)).await {
            return Some(replica);
        }
    }
    None
}

/// Returns when the pool drains and the connection can be closed without harm.
async fn idle(guard: &Guard, client: &TcpStream, replica: &TcpStream, activity: &Activity) {
    guard.reached(Stage::Draining).await;
    while !activity.idle(SILENCE) || readable(client) || readable(replica) {
        sleep(LOOK).await;
    }
}

/// Makes the peer see a reset when the connection is dropped.
fn reset(stream: &TcpStream) {
    let _closed_already = stream.set_zero_linger();
}
