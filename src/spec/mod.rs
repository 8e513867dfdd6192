//! What the user wrote.
//!
//! Here: an infraspec from text to checked values, with every problem and its place. The way is
//! `load` (files, include, stage, defaults) -> `shape` (single values) -> `model` (types) ->
//! `check` (rules between fields). Elsewhere: what should exist (`desired`).
//! Invariant: pure; files and variables are given.

mod check;
mod cycle;
pub mod engine;
#[cfg(any(test, fuzzing))]
pub mod fuzz;
pub mod init;
pub mod load;
mod mend;
mod merge;
pub mod model;
pub mod name;
pub mod pending;
mod platform;
pub mod problem;
pub mod reference;
mod schedule;
pub mod schema;
pub mod shape;
pub mod source;
mod syntax;
pub mod value;
pub mod way;
mod words;
pub mod yaml;

pub use check::normal as normal_path;
