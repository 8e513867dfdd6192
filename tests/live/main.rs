//! norn against the real thing. A test whose component is missing prints SKIPPED and why.

mod apply;
#[path = "../support/chance.rs"]
mod chance;
mod child;
mod cloudflare;
#[path = "../support/cloudflare.rs"]
mod cloudflare_account;
#[cfg(feature = "failpoints")]
mod crash;
mod git_server;
#[path = "../support/load.rs"]
mod load;
mod local;
#[cfg(feature = "failpoints")]
#[path = "../support/matrix/mod.rs"]
mod matrix;
mod postgres_connect;
#[path = "../support/postgres.rs"]
mod postgres_server;
#[path = "../support/proxy.rs"]
mod proxy;
#[path = "../support/sandbox.rs"]
mod sandbox;
#[path = "../support/mod.rs"]
mod shared;
mod source;
mod state;
mod supervise;
mod support;
