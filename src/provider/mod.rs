//! The outside world, one module per system; the only code that changes it.

mod causes;
pub mod child;
pub mod cloudflare;
pub mod docker;
mod dockerignore;
pub mod dump;
pub mod files;
pub mod folders;
pub mod guard;
pub mod kubernetes;
pub mod labels;
pub mod machine;
pub mod manifest;
pub mod releases;
pub mod source;
pub mod supervise;
pub mod survey;
mod tls;
mod tree;
