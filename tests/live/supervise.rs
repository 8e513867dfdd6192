//! Real supervisors with real replicas: small HTTP servers in python3.

pub mod failing;
pub mod load;
pub mod surviving;
pub mod world;
