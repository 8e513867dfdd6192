//! `norn supervise`: the process that keeps one app running. No user types it.

use super::args::Supervise;
use super::failure::{Exit, Failure};
use super::runtime;
use crate::provider::supervise::server::{self, Options};

pub fn run(options: Supervise) -> Result<Exit, Failure> {
    let Supervise { app, run, logs, next, after } = options;
    runtime()?
        .block_on(server::run(Options { app, run, logs, next, after }))
        .map_err(|error| Failure::new(error.to_string()))?;
    Ok(Exit::Ok)
}
