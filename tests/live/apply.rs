//! `norn apply` from spec to running app, as users run it.

mod chance;
mod crash;
mod git;
mod load;
mod postgres;
mod rename;
mod rollback;
mod saved;
mod steps;
mod volumes;
