//! The store in a PostgreSQL database.
//!
//! Here: the front door. In the submodules: what a URL says (`address`).

pub mod address;
