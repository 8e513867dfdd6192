//! Builds on an engine from before BuildKit.

use std::io::{self, Read, Write};
use std::net::Shutdown;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::Path;
use std::thread;

use super::{Shop, has};

/// What an engine of API 1.38 says of itself: the last that had no BuildKit.
const VERSION: &str = r#"{"Version":"18.06.3-ce","ApiVersion":"1.38","MinAPIVersion":"1.12","Components":[{"Name":"Engine","Version":"18.06.3-ce","Details":{"ApiVersion":"1.38"}}]}"#;

#[test]
fn an_engine_without_buildkit_builds_with_the_classic_builder() {
    let Some(mut shop) = Shop::new() else { return };
    let Some(real) = shop.engine.host().strip_prefix("unix://") else { return };
    let socket = shop.path("old.sock");
    older(&socket, real);
    shop.sandbox.env.insert("DOCKER_HOST".into(), format!("unix://{}", socket.display()));
    shop.web("env: {VERSION: v1}\nbuild: {args: {COLOUR: red}, test: 'echo test of $VERSION'}");
    shop.ok("apply --yes");
    assert_eq!(shop.get().expect("it serves"), "v1 red one");
    // Only the classic builder counts steps so.
    has(&shop.rows()[0].output("build"), &[" : FROM norn-base:1", "Step 2/", "Successfully built"]);
    shop.plan_is_empty();
    shop.write("web/Dockerfile", "FROM norn-base:1\nRUN echo last words; exit 3\n");
    let ran = shop.fails("apply --yes", 1);
    has(&ran.err, &["the Docker engine could not build the image", "last words", "non-zero code: 3"]);
    shop.comes_to(1, 1);
    shop.destroy();
    shop.comes_to(0, 0);
}

/// The engine as an older one: it says so, and all else is passed on. Each request has a connection of its own.
fn older(socket: &Path, real: &str) {
    let listener = UnixListener::bind(socket).expect("the folder is there");
    let real = real.to_owned();
    thread::spawn(move || {
        for client in listener.incoming().flatten() {
            let real = real.clone();
            // A client or an engine that hangs up has what it wanted.
            thread::spawn(move || drop(serve(client, &real)));
        }
    });
}

fn serve(mut client: UnixStream, real: &str) -> io::Result<()> {
    let mut head = [0; 4096];
    let read = client.read(&mut head)?;
    let said = String::from_utf8_lossy(&head[..read]);
    let path = said.split_whitespace().nth(1).unwrap_or_default();
    if path.ends_with("/version") {
        let length = VERSION.len();
        let answer = format!(
            "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: {length}\r\nConnection: close\r\n\r\n{VERSION}"
        );
        return client.write_all(answer.as_bytes());
    }
    let mut engine = UnixStream::connect(real)?;
    engine.write_all(&head[..read])?;
    let (mut from, mut to) = (client.try_clone()?, engine.try_clone()?);
    thread::spawn(move || {
        let _cut = io::copy(&mut from, &mut to);
        let _gone = to.shutdown(Shutdown::Write);
    });
    io::copy(&mut engine, &mut client)?;
    client.shutdown(Shutdown::Both)
}
