//! Real supervisors with real replicas: small HTTP servers in python3.

mod failing;
mod load;
mod surviving;
mod world;
