//! Keeps the replicas of one app running, and puts releases live without losing a connection.
//!
//! Two sides meet at a Unix socket and speak [`protocol`]. norn's side is [`client`]: it finds,
//! starts and replaces supervisors and sends them orders. The other side is [`server`]: one
//! detached process an app, which owns the app's replicas and the front on the app's port.
//!
//! Invariants:
//! - Whatever process a supervisor starts is in its record file before anyone is told of it, and
//!   carries the marker variable, so the next norn finds what a killed supervisor left.
//! - Old replicas go on serving until every new one is healthy.
//! - Values of the environment are in memory only.
//!
//! Elsewhere: what a release is made of, and what state remembers of it.

pub mod client;
pub mod protocol;
pub mod server;

mod context;
mod drain;
mod fleet;
mod former;
mod front;
#[cfg(any(test, fuzzing))]
pub mod fuzz;
mod handover;
mod host;
mod journal;
mod launch;
mod logs;
mod orders;
mod place;
pub mod probe;
pub mod process;
mod procfs;
mod record;
mod relay;
mod replica;
mod roll;
mod sweep;
mod text;
mod wire;
