//! Clients that notice every lost request while `norn apply` puts releases live.

use crate::load::Load;
use crate::supervise::world::free_port;
use crate::support::{Sandbox, get, web};

#[tokio::test(flavor = "multi_thread")]
async fn thirty_applies_lose_no_request() {
    let port = free_port();
    let mut sandbox = Sandbox::webserver(port, "env: {VERSION: v0}");
    sandbox.ok("apply --yes");
    let load = Load::start(port);
    for round in 1..=20 {
        sandbox.write("web/version", &round.to_string());
        sandbox.spec(&web("web", port, &format!("env: {{VERSION: v{}}}", round / 2)));
        if round == 10 {
            // Another build of norn: its supervisor takes over.
            let newer = sandbox.path("newer-norn");
            std::fs::copy(&sandbox.norn, &newer).expect("the binary is copied");
            let mut bytes = std::fs::OpenOptions::new().append(true).open(&newer).expect("it opens");
            std::io::Write::write_all(&mut bytes, &[0]).expect("it grows");
            drop(bytes);
            sandbox.norn = newer;
        }
        sandbox.ok("apply --yes");
    }
    for round in 1..=10 {
        sandbox.spec(&web("web", port, &format!("env: {{VERSION: d{round}}}")));
        sandbox.ok("apply --yes");
        assert!(get(port, "/").expect("it serves").starts_with(&format!("d{round} ")));
    }
    let (answered, failed) = load.end().await;
    assert_eq!(failed, Vec::<String>::new(), "of {answered}");
    assert!(answered > 1000, "{answered} requests are no load");
    assert_eq!(sandbox.processes().len(), 3, "a supervisor and two replicas");
    assert_eq!(sandbox.rows().len(), 21, "a definition alone is no deployment");
    sandbox.plan_is_empty();
}
