//! The store in a PostgreSQL database.
//!
//! Here: the front door. In the submodules: what a URL says (`address`), and a connection made
//! from it (`connect`).

pub mod address;
pub mod connect;
