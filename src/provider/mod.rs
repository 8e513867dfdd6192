//! The outside world, one module per system; the only code that changes it.

pub mod files;
pub mod machine;
pub mod supervise;
pub mod survey;
