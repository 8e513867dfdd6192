//! norn against the real thing. A test whose component is missing prints SKIPPED and why.

mod apply;
mod child;
mod git_server;
mod local;
mod source;
mod supervise;
mod support;
