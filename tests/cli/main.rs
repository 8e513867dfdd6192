//! The built norn, run as a user runs it, in a sandbox.

mod apply;
mod ask;
mod cancel;
mod carrying;
mod ci;
mod dying;
mod examples;
mod failing;
mod help;
mod init;
mod input;
mod lock;
mod looking;
mod place;
mod run;
mod sandbox;
mod saved;
mod secrets;
mod snapshot;
mod state;
#[path = "../support/mod.rs"]
mod support;
