//! norn turns one `infraspec.yaml` into running software.

pub mod address;
pub mod provider;
pub mod scrub;
pub mod secret;
pub mod spec;
pub mod state;
