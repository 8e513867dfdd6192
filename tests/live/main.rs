//! norn against the real thing. A test whose component is missing prints SKIPPED and why.

mod child;
mod git_server;
mod local;
mod source;
mod supervise;
