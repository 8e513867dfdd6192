//! `norn hold`: the process that is a container to whoever started it. No user types it.

use std::process::ExitCode;

use super::failure::Failure;
use super::runtime;
use crate::provider::docker::hold::{Held, NOT_STARTED};
use crate::render::Printer;

/// Ends as the container ended, as a shell would tell it.
pub fn run(container: &str, printer: Printer) -> ExitCode {
    let held = serde_json::from_str::<Held>(container)
        .map_err(|error| Failure::new(format!("this is no container to hold: {error}")))
        .and_then(|hold| runtime()?.block_on(hold.run()).map_err(|error| Failure::new(error.to_string())));
    let code = held.unwrap_or_else(|failure| {
        printer.alert(&failure.render(false));
        NOT_STARTED
    });
    ExitCode::from(u8::try_from(code).unwrap_or(u8::MAX))
}
