//! norn turns one `infraspec.yaml` into running software.

pub mod address;
pub mod apply;
pub mod cli;
pub mod desired;
pub mod failpoint;
#[cfg(any(test, fuzzing))]
pub mod fuzz;
pub mod plan;
pub mod provider;
pub mod render;
pub mod scrub;
pub mod secret;
pub mod spec;
pub mod state;
