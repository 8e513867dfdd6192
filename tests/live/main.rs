//! norn against the real thing.

mod supervise;
