//! Projects that run processes.

pub use crate::sandbox::*;
use crate::supervise::world::{SERVER, interpreter};

impl Sandbox {
    /// A project of one webserver `web`, of which `more` says more.
    pub fn webserver(port: u16, more: &str) -> Self {
        let sandbox = Self::new();
        sandbox.write("web/server.py", SERVER);
        sandbox.spec(&web("web", port, more));
        sandbox
    }
}

/// A webserver in the folder `web`, as a spec says it.
pub fn web(name: &str, port: u16, more: &str) -> String {
    let python = interpreter();
    let more: String = more.lines().map(|line| format!("    {line}\n")).collect();
    format!(
        "  {name}:\n    role: webserver\n    path: ./web\n    port: {port}\n    replicas: 2\n    \
         command: [\"{python}\", \"-S\", server.py]\n    healthcheck: {{path: /healthz, interval: 1s, startup: 20s}}\n    \
         rollout: {{drain: 8s}}\n{more}"
    )
}
