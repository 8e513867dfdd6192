//! What must hold whatever the input, a function a parser: they panic where it does not.
//!
//! Each says whether the input was taken for what it should be, so that who makes inputs knows how
//! far they get. Here: their list. In `tests`: inputs made by chance on stable Rust. Elsewhere:
//! inputs that follow the code's branches (`fuzz/`), the bodies (beside what they test).

#[cfg(test)]
mod tests;

pub use crate::plan::fuzz::plan_file;
pub use crate::provider::cloudflare::tunnel::fuzz::tunnel;
pub use crate::provider::supervise::fuzz::protocol;
pub use crate::spec::fuzz::{cron, spec};
pub use crate::state::fuzz::state_import;
