//! The specs of `tests/invalid` and `tests/valid`, as `norn` sees them from outside.
//!
//! A case is a file or a folder with an `infraspec.yaml`; beside it stands what `norn validate`
//! prints. `NORN_UPDATE=1` rewrites those. A first line `# norn validate ..` adds arguments.

mod corpus;
mod hostile;
mod invalid;
mod schema;
#[path = "../support/mod.rs"]
mod support;
mod valid;
