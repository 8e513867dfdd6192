//! Images that a registry is asked for without an engine.

use std::collections::BTreeMap;
use std::io::{Read, Write};
use std::net::{Ipv4Addr, TcpListener};
use std::sync::{Arc, Mutex};
use std::thread;

use norn::desired::{Login, Registry as Own};
use norn::provider::docker::registry::Logins;
use norn::provider::manifest::Asker;
use norn::secret::Secret;

use crate::containers::greeter;
use crate::engine::Engine;
use crate::registry::{PASSWORD, Registry, Rules, USER};
use crate::shared::free_port;
use crate::world::World;

const WHAT: &str = "images asked for";
const MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
const DIGEST: &str = "sha256:0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef";

/// What a registry says of an image to whoever logs in so, or the error.
fn digest(image: &str, password: Option<&str>) -> Result<String, String> {
    let login = password.map(|password| Login { username: USER.into(), password: Secret::new(password) });
    let url = image.split_once('/').expect("it names a registry").0.to_owned();
    let logins = Logins { own: Some(Own { url, login }) };
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    runtime.block_on(Asker::new().digest(image, &logins)).map_err(|error| error.to_string())
}

fn says(image: &str, password: Option<&str>, words: &[&str]) {
    let error = digest(image, password).expect_err("it is not told");
    for word in words {
        assert!(error.contains(word), "`{word}` is not in: {error}");
    }
    assert!(!error.contains(PASSWORD), "{error}");
}

#[test]
fn a_registry_tells_what_a_name_stands_for_as_the_engine_does() {
    let (Some(engine), Some(registry)) = (Engine::own(WHAT), Registry::shared(WHAT)) else { return };
    let image = greeter(engine, registry, "asked/for:1", "asked");
    let pinned = engine.push(&image);
    let (_, expected) = pinned.split_once('@').expect("it has a digest");
    assert_eq!(digest(&image, None).as_deref(), Ok(expected));
    assert_eq!(digest(&pinned, None).as_deref(), Ok(expected));

    let host = registry.host();
    let none = registry.image("asked/for:2");
    let told =
        format!("the registry {host} has no image {none}: manifest unknown (HTTP 404); correct its name");
    says(&none, None, &[&told]);
    let away = format!("127.0.0.1:{}", free_port());
    let told = format!("the registry {away} cannot be reached: ");
    says(&format!("{away}/web:1"), None, &[&told, "onnection refused", "; see that it runs"]);
    says("registry.invalid/web:1", None, &["the registry registry.invalid cannot be reached: "]);
    // Elsewhere, what is not told to be insecure is asked over TLS only.
    let plain = registry.elsewhere();
    let told = format!("the registry {plain} speaks plain HTTP");
    says(&format!("{plain}/asked/for:1"), None, &[&told, "insecure-registries"]);
}

#[test]
fn a_registry_that_wants_a_login_gets_it_and_one_without_is_told() {
    let (Some(engine), Some(world)) = (Engine::own(WHAT), World::shared(WHAT)) else { return };
    let rules = Rules { login: true, ..Rules::default() };
    let Some(registry) = Registry::start(&world, rules, WHAT) else { return };
    let engine = &engine.stranger(engine.host());
    registry.login(engine);
    let image = registry.image("closed:1");
    engine.build_base(&image);
    let pinned = engine.push(&image);
    let (_, expected) = pinned.split_once('@').expect("it has a digest");
    assert_eq!(digest(&image, Some(PASSWORD)).as_deref(), Ok(expected));
    let host = registry.host();
    let none = format!("the registry {host} shows no image {image} without a login: ");
    let mend = format!("or log in with `docker login {host}`");
    says(
        &image,
        None,
        &[&none, "HTTP 401", "; see that its name is right, and give `registry.username`", &mend],
    );
    let wrong = format!("the registry {host} does not show {image} with the login of `{USER}`: ");
    says(
        &image,
        Some("wrong"),
        &[&wrong, "HTTP 401", "; mend `registry.username`", "as one who may pull it"],
    );
}

/// What a request is answered with: status, further headers, body.
type Answer = (u16, String, Vec<u8>);

/// A server on this machine that answers what a function says of `GET /path` and its authorization, and keeps
/// what it was asked. No registry here has tokens, and none misbehaves on demand.
fn serve(
    answer: impl Fn(&str, Option<&str>) -> Answer + Send + 'static,
) -> (String, Arc<Mutex<Vec<String>>>) {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a port is free");
    let host = listener.local_addr().expect("it is bound").to_string();
    let asked = Arc::new(Mutex::new(Vec::new()));
    let keeps = Arc::clone(&asked);
    thread::spawn(move || {
        for mut client in listener.incoming().flatten() {
            let mut head = Vec::new();
            let mut byte = [0];
            while !head.ends_with(b"\r\n\r\n") && client.read(&mut byte).is_ok_and(|read| read == 1) {
                head.push(byte[0]);
                // A greeting of TLS has no lines.
                if head[0] == 0x16 {
                    break;
                }
            }
            let head = String::from_utf8_lossy(&head).into_owned();
            let mut lines = head.lines();
            let Some((request, _)) = lines.next().and_then(|line| line.rsplit_once(' ')) else {
                let _told = client.write_all(b"HTTP/1.0 400 Bad Request\r\n\r\n");
                continue;
            };
            let headers: BTreeMap<String, &str> = lines
                .filter_map(|line| line.split_once(": "))
                .map(|(name, value)| (name.to_ascii_lowercase(), value))
                .collect();
            let authorization = headers.get("authorization").copied();
            keeps.lock().expect("nobody panics").push(format!("{request} {}", authorization.unwrap_or("-")));
            let (status, more, body) = answer(request, authorization);
            let length = body.len();
            let answer =
                format!("HTTP/1.1 {status} X\r\nConnection: close\r\nContent-Length: {length}\r\n{more}\r\n");
            let body = if request.starts_with("HEAD") { Vec::new() } else { body };
            let _told = client.write_all(&[answer.as_bytes(), &body].concat());
        }
    });
    (host, asked)
}

#[test]
fn a_token_is_had_from_the_server_that_the_registry_names() {
    let basic = format!("Basic {}", "bm9ybjpwQHNzL3c6cmQlKyM=");
    let known = basic.clone();
    let (tokens, asked_for_tokens) = serve(move |_, authorization| match authorization {
        None => (200, String::new(), br#"{"token": "of-anybody"}"#.to_vec()),
        Some(given) if given == known => (200, String::new(), br#"{"access_token": "of-norn"}"#.to_vec()),
        Some(_) => (401, String::new(), br#"{"details": "incorrect username or password"}"#.to_vec()),
    });
    let realm = format!(
        "Www-Authenticate: Bearer realm=\"http://{tokens}/token\",service=\"tests\",scope=\"repository:shop/web:pull\"\r\n"
    );
    let (host, asked) = serve(move |request, authorization| {
        let refused =
            br#"{"errors": [{"code": "DENIED", "message": "requested access is denied"}]}"#.to_vec();
        let found = format!("Content-Type: {MANIFEST}\r\nDocker-Content-Digest: {DIGEST}\r\n");
        match authorization {
            Some("Bearer of-norn") => (200, found, b"{}".to_vec()),
            Some("Bearer of-anybody") if request.contains(":open") || request.contains("/open") => {
                (200, found, b"{}".to_vec())
            }
            _ => (401, realm.clone(), refused),
        }
    });
    assert_eq!(digest(&format!("{host}/shop/web:open"), None).as_deref(), Ok(DIGEST));
    let closed = format!("{host}/shop/web:closed");
    assert_eq!(digest(&closed, Some(PASSWORD)).as_deref(), Ok(DIGEST));
    let service = "service=tests&scope=repository%3Ashop%2Fweb%3Apull";
    let token = format!("GET /token?{service}");
    assert_eq!(
        *asked_for_tokens.lock().expect("nobody panics"),
        [format!("{token} -"), format!("{token} {basic}")]
    );
    // The password goes to the server of tokens alone.
    let asked = std::mem::take(&mut *asked.lock().expect("nobody panics"));
    assert!(!asked.is_empty() && asked.iter().all(|one| !one.contains("Basic")), "{asked:?}");

    says(&closed, None, &["shows no image", "requested access is denied (HTTP 401)", "docker login"]);
    says(&closed, Some("wrong"), &["with the login of `norn`: incorrect username or password (HTTP 401)"]);
}

#[test]
fn what_misbehaves_is_told_and_nothing_large_is_read() {
    let manifest = br#"{"schemaVersion": 2}"#.to_vec();
    let (host, asked) = serve(move |request, _| {
        let of = |kind: &str| format!("Content-Type: {kind}\r\n");
        match request.rsplit('/').next().unwrap_or_default() {
            "no-head" if request.starts_with("HEAD") => (405, String::new(), Vec::new()),
            "no-head" | "no-digest" => (200, of(MANIFEST), manifest.clone()),
            "page" => (200, of("text/html"), b"<html>please log in</html>".to_vec()),
            "large" => (200, of(MANIFEST), vec![b' '; (4 << 20) + 1]),
            "busy" => (429, String::new(), br#"{"errors": [{"code": "TOOMANYREQUESTS"}]}"#.to_vec()),
            "broken" => (503, String::new(), Vec::new()),
            "in-the-clear" => {
                (401, "Www-Authenticate: Bearer realm=\"ftp://elsewhere/token\"\r\n".to_owned(), Vec::new())
            }
            other => panic!("{other}"),
        }
    });
    let image = |tag: &str| format!("{host}/web:{tag}");
    let computed = "sha256:c5d902c53b4afcf32ad746fd9d696431650d3fbe8f7b10ca10519543fefd772c";
    for tag in ["no-head", "no-digest"] {
        assert_eq!(digest(&image(tag), None).as_deref(), Ok(computed), "{tag}");
    }
    says(&image("page"), None, &["does not speak as one", "is no manifest of an image"]);
    says(&image("large"), None, &["does not speak as one", "larger than a manifest may be"]);
    says(&image("busy"), None, &["limits how often", "TOOMANYREQUESTS (HTTP 429)", "; wait"]);
    says(&image("broken"), None, &["failed when it was asked for", "HTTP 503"]);
    asked.lock().expect("nobody panics").clear();
    says(&image("in-the-clear"), Some(PASSWORD), &["ftp://elsewhere/token, without TLS"]);
    assert_eq!(asked.lock().expect("nobody panics").len(), 1);
}
