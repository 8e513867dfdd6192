//! The outside world, one module per system; the only code that changes it.

pub mod child;
pub mod guard;
pub mod machine;
pub mod source;

pub mod supervise;
mod tree;
