//! What people and scripts read; the only code that prints.
//!
//! Here: turning plans, problems, events and records into text and JSON. Elsewhere: making them.
//! Invariants: stdout is data, stderr is talk; nothing depends on colour; a reader that goes
//! away (`norn plan | head`) ends no work and is no error.

pub mod bars;
mod definition;
pub mod document;
mod echo;
pub mod events_json;
pub mod lines;
pub mod lock;
pub mod markdown;
pub mod plan;
pub mod plan_json;
pub mod printer;
pub mod problems;
pub mod records;
pub mod status;
pub mod summary;
pub mod words;

pub use printer::Printer;
