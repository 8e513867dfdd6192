//! `norn apply` from spec to running app, as users run it.

mod crash;
mod load;
mod rename;
mod steps;
