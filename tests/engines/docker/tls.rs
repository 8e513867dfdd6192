//! An engine of another host that only those with a certificate reach.

use std::path::Path;
use std::process::Command;

use crate::engine::Engine;
use crate::shared::skipped;
use crate::world::run;

use super::{Shop, WHAT, has};

/// `ca.pem`, `cert.pem` and `key.pem` of a client and of the server, by one authority; `foreign` is a folder
/// with those of another.
const CERTIFICATES: &str = r#"set -e
new="-newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -days 2"
authority() { openssl req -x509 $new -subj "/CN=$1" -keyout $1/ca-key.pem -out $1/ca.pem; }
signed() {
    openssl req $new -subj "/CN=$2" -addext "subjectAltName=$5" -keyout $1/$4 -out $1/request
    openssl x509 -req -in $1/request -CA $1/ca.pem -CAkey $1/ca-key.pem -CAcreateserial -days 2 \
        -copy_extensions copy -out $1/$3
}
for of in own foreign; do
    mkdir $of
    authority $of
    signed $of norn cert.pem key.pem DNS:norn
    signed $of engine server.pem server-key.pem IP:10.77.0.1
done"#;

#[test]
fn an_engine_is_reached_by_tls_by_whom_it_knows_and_who_knows_it() {
    if Command::new("openssl").arg("version").output().is_err() {
        return skipped("TLS to an engine", "there is no openssl");
    }
    let Some(engine) = Engine::apart(WHAT) else { return };
    let folder = tempfile::tempdir().expect("a temporary folder");
    run(Command::new("sh").args(["-c", CERTIFICATES]).current_dir(folder.path()))
        .expect("openssl makes them");
    let (own, foreign) = (folder.path().join("own"), folder.path().join("foreign"));
    engine.kill();
    let address = engine.revive_with_tls(&own);
    let mut shop = Shop::on(&engine);
    shop.web("env: {VERSION: v1}");
    let mut with = |verify: &str, certificates: &Path| {
        for (name, value) in [
            ("DOCKER_HOST", address.as_str()),
            ("DOCKER_TLS_VERIFY", verify),
            ("DOCKER_CERT_PATH", &certificates.display().to_string()),
        ] {
            shop.sandbox.env.insert(name.into(), value.into());
        }
        shop.run("apply --yes")
    };
    // Without, by a stranger, and to a stranger.
    let ran = with("", &own);
    has(&ran.err, &["there is no Docker engine at tcp://10.77.0.1:2376", "HTTPS"]);
    let mixed = folder.path().join("mixed");
    std::fs::create_dir(&mixed).expect("it is made");
    for (from, name) in [(&own, "ca.pem"), (&foreign, "cert.pem"), (&foreign, "key.pem")] {
        std::fs::copy(from.join(name), mixed.join(name)).expect("it is there");
    }
    let stranger = with("1", &mixed);
    has(&stranger.err, &["there is no Docker engine at tcp://10.77.0.1:2376", "received fatal alert"]);
    std::fs::copy(foreign.join("ca.pem"), mixed.join("ca.pem")).expect("it is there");
    let ran = with("1", &mixed);
    has(&ran.err, &["there is no Docker engine at tcp://10.77.0.1:2376", "certificate"]);
    std::fs::remove_file(mixed.join("key.pem")).expect("it is there");
    let ran = with("1", &mixed);
    has(&ran.err, &["key.pem, by which the Docker engine", "DOCKER_CERT_PATH"]);
    let ran = with("1", &own);
    assert_eq!(ran.code, 0, "{}", ran.err);
    shop.plan_is_empty();
    has(&shop.ok("status").out, &["healthy", "http://10.77.0.1:"]);
    has(&shop.ok("logs web").out, &["starts v1"]);
    shop.destroy();
    assert_eq!(shop.containers(), Vec::<String>::new());
}
