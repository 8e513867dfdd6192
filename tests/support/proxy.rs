//! A TCP proxy that a test tells to be slow, to be silent, or to cut.

#![allow(dead_code, reason = "each test binary uses its part")]

use std::io::{Read, Write};
use std::net::{Ipv4Addr, Shutdown, TcpListener, TcpStream};
use std::sync::{Arc, Condvar, Mutex, MutexGuard};
use std::thread;
use std::time::Duration;

/// Who sends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Side {
    Client = 0,
    Server = 1,
}

/// Passes on what comes to its port. It lives as long as the process; a dropped one only cuts.
pub struct Proxy {
    pub port: u16,
    shared: Arc<Shared>,
}

#[derive(Default)]
struct Shared {
    state: Mutex<State>,
    /// Told when nothing is stalled any more.
    moves: Condvar,
}

#[derive(Default)]
struct State {
    open: Vec<Pair>,
    accepted: usize,
    stalled: bool,
    delay: [Duration; 2],
    /// For the next connection: whose bytes are counted, and how many may pass.
    cut: Option<(Side, usize)>,
    /// The bytes that the newest connection passed on, from each side.
    passed: [usize; 2],
    /// The side that spoke last, and how often the client spoke after the server.
    last: Option<Side>,
    turns: usize,
}

/// The two halves of one connection.
struct Pair {
    number: usize,
    ends: [TcpStream; 2],
}

impl Proxy {
    /// A proxy before a port of this machine.
    pub fn before(port: u16) -> Self {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a port is free");
        let own = listener.local_addr().expect("it is bound").port();
        let shared = Arc::new(Shared::default());
        let accepting = Arc::clone(&shared);
        thread::spawn(move || {
            for client in listener.incoming().flatten() {
                // A server that is away closes the connection, as no proxy can refuse one.
                let Ok(server) = TcpStream::connect((Ipv4Addr::LOCALHOST, port)) else { continue };
                accepting.accept(client, server);
            }
        });
        Self { port: own, shared }
    }

    /// Cuts every connection now.
    pub fn cut(&self) {
        for pair in &self.shared.state().open {
            pair.cut();
        }
    }

    /// Cuts the next connection once so many bytes of this side were passed on.
    pub fn cut_next(&self, from: Side, after: usize) {
        self.shared.state().cut = Some((from, after));
    }

    /// Passes nothing on, though it accepts and keeps connections, until it is told otherwise.
    pub fn stall(&self, stalled: bool) {
        self.shared.state().stalled = stalled;
        self.shared.moves.notify_all();
    }

    /// Passes on so much later what this side sends.
    pub fn delay(&self, from: Side, by: Duration) {
        self.shared.state().delay[from as usize] = by;
    }

    /// The bytes of this side that the newest connection passed on so far.
    pub fn passed(&self, from: Side) -> usize {
        self.shared.state().passed[from as usize]
    }

    /// How often the client spoke after the server did: its round trips. Only with a delay does a
    /// client that sends in parts speak once.
    pub fn turns(&self) -> usize {
        self.shared.state().turns
    }

    /// How many connections were made so far.
    pub fn accepted(&self) -> usize {
        self.shared.state().accepted
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.cut();
        self.stall(false);
    }
}

impl Pair {
    fn cut(&self) {
        for end in &self.ends {
            // An end that is gone already is what was wanted.
            let _gone = end.shutdown(Shutdown::Both);
        }
    }
}

impl Shared {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().expect("no pump panics")
    }

    fn accept(self: &Arc<Self>, client: TcpStream, server: TcpStream) {
        let copy = |end: &TcpStream| {
            end.set_nodelay(true).expect("a socket takes it");
            end.try_clone().expect("a descriptor is free")
        };
        let mut state = self.state();
        state.accepted += 1;
        state.passed = [0; 2];
        let number = state.accepted;
        let cut = state.cut.take();
        let pumps = [(copy(&client), copy(&server)), (copy(&server), copy(&client))];
        state.open.push(Pair { number, ends: [client, server] });
        drop(state);
        for (side, (from, to)) in [Side::Client, Side::Server].into_iter().zip(pumps) {
            let left = cut.filter(|(from, _)| *from == side).map(|(_, bytes)| bytes);
            let shared = Arc::clone(self);
            thread::spawn(move || shared.pump(number, side, from, to, left));
        }
    }

    /// Counts the turns of the newest connection, before the other side can hear this one's.
    fn spoke(&self, number: usize, side: Side) {
        let mut state = self.state();
        if state.accepted == number {
            if side == Side::Client && state.last != Some(side) {
                state.turns += 1;
            }
            state.last = Some(side);
        }
    }

    /// Passes on what one side of a connection sends, until it ends or `left` bytes have passed.
    fn pump(
        &self,
        number: usize,
        side: Side,
        mut from: TcpStream,
        mut to: TcpStream,
        mut left: Option<usize>,
    ) {
        let mut buffer = [0; 1 << 14];
        while left != Some(0) {
            let Ok(read @ 1..) = from.read(&mut buffer) else { break };
            thread::sleep(self.state().delay[side as usize]);
            let stalled = self.moves.wait_while(self.state(), |state| state.stalled);
            drop(stalled.expect("no pump panics"));
            let take = left.map_or(read, |left| left.min(read));
            self.spoke(number, side);
            if to.write_all(&buffer[..take]).is_err() {
                break;
            }
            left = left.map(|left| left - take);
            let mut state = self.state();
            if state.accepted == number {
                state.passed[side as usize] += take;
            }
        }
        let mut state = self.state();
        if let Some(at) = state.open.iter().position(|pair| pair.number == number) {
            state.open.remove(at).cut();
        }
    }
}
