//! Records at Cloudflare, against its API as the tests' own account speaks it.

use std::fs;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use norn::provider::cloudflare::dns::{Record, target};
use norn::provider::cloudflare::{Cloudflare, CloudflareError, Limits, Mark};
use norn::provider::kubernetes::apply::Change;
use norn::secret::Secret;

use crate::cloudflare_account::{Account, Fault, Rights};
use crate::shared::{free_port, skipped};

const TOKEN: &str = "0123456789-s3cret-of-nobody";
const ZONE: &str = "example.com";
const HOST: &str = "shop.example.com";
const RECORD: &str = "CNAME shop.example.com 6ff42ae2-765d-4adf-8112-31c55c1551ef.cfargotunnel.com proxied # norn shop/prod web";

fn account() -> Account {
    let account = Account::open(TOKEN);
    account.zone("other.example");
    account.zone(ZONE);
    account
}

fn limits() -> Limits {
    Limits { call: Duration::from_secs(2), pause: Duration::from_millis(5), patience: Duration::from_secs(3) }
}

fn client(url: &str, token: &str) -> Cloudflare {
    Cloudflare::at(url, &Secret::new(token), limits()).expect("it is a URL")
}

fn mark(text: &str) -> Mark {
    Mark::read(text).expect("it is one")
}

async fn route(cloudflare: &Cloudflare) -> Result<Change, CloudflareError> {
    let to = target("6ff42ae2-765d-4adf-8112-31c55c1551ef");
    cloudflare.route(ZONE, HOST, &to, &mark("norn shop/prod web")).await
}

#[tokio::test]
async fn a_name_is_led_to_the_tunnel_once_and_back() {
    let account = account();
    account.short_pages(1);
    account.record(ZONE, "TXT", HOST, "v=1", None);
    account.record(ZONE, "MX", HOST, "mail.example.com", None);
    let cloudflare = client(&format!("{}/", account.url), TOKEN);
    assert_eq!(cloudflare.look(ZONE, HOST).await, Ok(Vec::new()));
    account.calls();
    assert_eq!(route(&cloudflare).await, Ok(Change::Created));
    let zone = format!("/zones/{:032x}", 0x5f0c_0000_0002_u64);
    let calls = account.calls();
    assert_eq!(calls[0], "GET /zones?name=example.com&per_page=50&page=1");
    assert!(
        calls[1].starts_with(&format!("GET {zone}/dns_records?name=shop.example.com&per_page=")),
        "{calls:?}"
    );
    assert!(calls[2].ends_with("&page=2"), "{calls:?}");
    assert_eq!(calls[3..], [format!("POST {zone}/dns_records")]);
    let others = ["MX shop.example.com mail.example.com direct # -", "TXT shop.example.com v=1 direct # -"];
    assert_eq!(account.records(ZONE), [RECORD, others[0], others[1]]);

    assert_eq!(route(&cloudflare).await, Ok(Change::Same));
    assert!(account.calls().iter().all(|call| call.starts_with("GET ")));
    let seen = cloudflare.look(ZONE, HOST).await.expect("it is there");
    let [Record { kind, proxied: Some(true), .. }] = &seen[..] else { panic!("{seen:?}") };
    assert_eq!((&**kind, seen[0].mark()), ("CNAME", Some(mark("norn shop/prod web"))));

    // Another app of the same stage takes the name over; the first cannot remove it then.
    let next = mark("norn shop/prod next");
    assert_eq!(cloudflare.route(ZONE, HOST, "t2.cfargotunnel.com", &next).await, Ok(Change::Changed));
    let changed = "CNAME shop.example.com t2.cfargotunnel.com proxied # norn shop/prod next";
    assert_eq!(account.records(ZONE)[0], changed);
    assert_eq!(cloudflare.remove_route(ZONE, HOST, &mark("norn shop/prod web")).await, Ok(false));
    assert_eq!(account.records(ZONE)[0], changed);
    assert_eq!(cloudflare.remove_route(ZONE, HOST, &next).await, Ok(true));
    assert_eq!(cloudflare.remove_route(ZONE, HOST, &next).await, Ok(false));
    assert_eq!(account.records(ZONE), others);
}

#[tokio::test]
async fn what_others_changed_in_a_record_is_set_right() {
    let account = account();
    let to = target("6ff42ae2-765d-4adf-8112-31c55c1551ef");
    // Not proxied, and an address by now: it is ours by its comment.
    for (kind, content) in [("CNAME", to.as_str()), ("A", "192.0.2.1"), ("CNAME", "elsewhere.example.com")] {
        account.record(ZONE, kind, HOST, content, Some("norn shop/prod web"));
        let cloudflare = client(&account.url, TOKEN);
        assert_eq!(route(&cloudflare).await, Ok(Change::Changed));
        assert_eq!(account.records(ZONE), [RECORD]);
        assert_eq!(route(&cloudflare).await, Ok(Change::Same));
        assert_eq!(cloudflare.remove_route(ZONE, HOST, &mark("norn shop/prod web")).await, Ok(true));
    }
}

#[tokio::test]
async fn records_of_others_are_refused_and_never_touched() {
    for (comment, whose) in [
        (None, "it has no comment"),
        (Some("the old page"), "its comment is `the old page`"),
        (Some("norn shop/dev web"), "it is of project shop, stage dev"),
        (Some("norn other web"), "it is of project other, no stage"),
    ] {
        let account = account();
        account.record(ZONE, "A", HOST, "192.0.2.1", comment);
        let before = account.records(ZONE);
        let cloudflare = client(&account.url, TOKEN);
        let refused = route(&cloudflare).await.expect_err("it is another's");
        assert!(matches!(refused, CloudflareError::Foreign { .. }), "{refused}");
        let told = refused.to_string();
        for part in ["A shop.example.com 192.0.2.1", whose, "the comment `norn shop/prod web`"] {
            assert!(told.contains(part), "{told}");
        }
        assert_eq!(cloudflare.remove_route(ZONE, HOST, &mark("norn shop/prod web")).await, Ok(false));
        assert_eq!(account.records(ZONE), before);
    }
    let account = account();
    account.record(ZONE, "A", HOST, "192.0.2.1", Some("norn shop/prod web"));
    account.record(ZONE, "AAAA", HOST, "2001:db8::1", None);
    let refused = route(&client(&account.url, TOKEN)).await.expect_err("there are two");
    let CloudflareError::Several { records, .. } = &refused else { panic!("{refused}") };
    assert_eq!(records, &["A shop.example.com 192.0.2.1", "AAAA shop.example.com 2001:db8::1"]);
}

#[tokio::test]
async fn an_answer_that_was_lost_makes_no_second_record() {
    let account = account();
    let cloudflare = client(&account.url, TOKEN);
    account.fail("POST", Fault::Lost);
    assert_eq!(route(&cloudflare).await, Ok(Change::Created));
    assert_eq!(account.records(ZONE), [RECORD]);
    let posts = |calls: Vec<String>| calls.iter().filter(|call| call.starts_with("POST")).count();
    assert_eq!(posts(account.calls()), 1);

    // What is repeated although it was done.
    account.fail("DELETE", Fault::Lost);
    assert_eq!(cloudflare.remove_route(ZONE, HOST, &mark("norn shop/prod web")).await, Ok(true));
    assert_eq!(account.records(ZONE), Vec::<String>::new());

    for fault in [Fault::Status(503, None), Fault::Page(502), Fault::Status(429, None)] {
        account.fail("GET", fault.clone());
        account.fail("GET", fault.clone());
        account.fail("POST", fault.clone());
        account.calls();
        assert_eq!(route(&cloudflare).await, Ok(Change::Created), "{fault:?}");
        assert_eq!(posts(account.calls()), 2);
        account.fail("DELETE", fault);
        assert_eq!(cloudflare.remove_route(ZONE, HOST, &mark("norn shop/prod web")).await, Ok(true));
    }
}

#[tokio::test]
async fn limits_are_waited_for_and_not_for_ever() {
    let account = account();
    let cloudflare = client(&account.url, TOKEN);
    account.fail("GET", Fault::Status(429, Some(1)));
    let began = Instant::now();
    assert_eq!(route(&cloudflare).await, Ok(Change::Created));
    assert!(began.elapsed() >= Duration::from_secs(1), "{:?}", began.elapsed());

    account.calls();
    account.fail("GET", Fault::Status(429, Some(300)));
    let began = Instant::now();
    let refused = route(&cloudflare).await.expect_err("it is longer than anybody waits");
    assert!(matches!(refused, CloudflareError::Busy { asked: Some(300), .. }), "{refused}");
    assert!(refused.to_string().contains("wants 300 s of quiet"), "{refused}");
    assert!(began.elapsed() < Duration::from_secs(1), "{:?}", began.elapsed());
    assert_eq!(account.calls().len(), 1);

    for _ in 0..20 {
        account.fail("GET", Fault::Status(500, None));
    }
    let refused = route(&cloudflare).await.expect_err("it never gets better");
    assert!(matches!(refused, CloudflareError::Refused { .. }), "{refused}");
    assert_eq!(account.calls().len(), 6);
}

#[tokio::test]
async fn each_refusal_says_what_it_is() {
    let account = account();
    account.token("only-looks", Rights::Look);
    for token in ["of-nobody-at-all", "a b", "", "line\nbreak"] {
        let refused = route(&client(&account.url, token)).await.expect_err("nobody knows it");
        assert!(matches!(refused, CloudflareError::BadToken { .. }), "{refused}");
    }
    let refused = route(&client(&account.url, "only-looks")).await.expect_err("it may not");
    let CloudflareError::Forbidden { doing, .. } = &refused else { panic!("{refused}") };
    assert_eq!(doing, "list the records of shop.example.com");
    assert!(refused.to_string().contains("DNS Edit"), "{refused}");

    let cloudflare = client(&account.url, TOKEN);
    let refused = cloudflare.look("of-nobody.example", HOST).await.expect_err("there is no such zone");
    assert_eq!(refused, CloudflareError::UnknownZone { zone: "of-nobody.example".into() });

    account.fail("", Fault::Page(200));
    let refused = cloudflare.look(ZONE, HOST).await.expect_err("it is no JSON");
    let CloudflareError::Unclear { status: 200, begins, .. } = &refused else { panic!("{refused}") };
    assert_eq!(begins, "<html> <body>bad gateway");

    let nowhere = format!("http://127.0.0.1:{}", free_port());
    let refused = client(&nowhere, TOKEN).look(ZONE, HOST).await.expect_err("nobody is there");
    assert!(matches!(refused, CloudflareError::Unreachable { .. }), "{refused}");
    assert!(refused.to_string().contains("refused"), "{refused}");

    let silent = std::net::TcpListener::bind("127.0.0.1:0").expect("a port is free");
    let address = format!("http://{}", silent.local_addr().expect("it is bound"));
    let brief = Limits { call: Duration::from_millis(100), ..limits() };
    let silent = Cloudflare::at(&address, &Secret::new(TOKEN), brief).expect("it is a URL");
    let refused = silent.look(ZONE, HOST).await.expect_err("it says nothing");
    assert!(matches!(refused, CloudflareError::Unreachable { .. }), "{refused}");
}

#[tokio::test]
async fn no_refusal_shows_the_token() {
    // Who answers repeats what it was told.
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a port is free");
    let url = format!("http://{}", listener.local_addr().expect("it is bound"));
    tokio::spawn(async move {
        let echo = axum::Router::new().fallback(|request: axum::extract::Request| async move {
            let login = request.headers()["authorization"].to_str().unwrap_or_default().to_owned();
            let json = format!(r#"{{"success":false,"errors":[{{"code":1,"message":"{login}"}}]}}"#);
            (
                axum::http::StatusCode::BAD_REQUEST,
                if request.uri().path().contains("page") { login } else { json },
            )
        });
        axum::serve(listener, echo).await.expect("it serves");
    });
    for url in [url.clone(), format!("{url}/page")] {
        let refused = client(&url, TOKEN).look(ZONE, HOST).await.expect_err("it answers nonsense");
        assert!(refused.to_string().contains("Bearer ***"), "{refused}");
        assert!(!format!("{refused} {refused:?}").contains("s3cret"), "{refused:?}");
    }
}

/// What tells a test that its parent made the server which it is to talk to.
const TRUSTED: &str = "NORN_TEST_TRUSTED_SERVER";

#[test]
fn a_server_is_trusted_if_the_system_trusts_who_made_its_certificate() {
    if Command::new("openssl").arg("version").output().is_err() {
        return skipped("TLS to Cloudflare", "there is no openssl");
    }
    let folder = tempfile::tempdir().expect("a temporary folder");
    let make = "req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -days 2 -subj /CN=here \
                -addext subjectAltName=IP:127.0.0.1 -addext basicConstraints=critical,CA:FALSE -keyout key -out certificate";
    let openssl = |arguments: &str| {
        let mut command = Command::new("openssl");
        command.args(arguments.split_whitespace()).current_dir(folder.path());
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        command
    };
    assert!(openssl(make).status().expect("it runs").success());
    // It answers with the file that a target names.
    let empty = r#"{"success":true,"errors":[],"result":[]}"#;
    fs::write(folder.path().join("zones?name=example.com&per_page=50&page=1"), empty).expect("it is written");
    let port = free_port();
    let serve = format!("s_server -quiet -WWW -accept 127.0.0.1:{port} -cert certificate -key key");
    let mut server = openssl(&serve).spawn().expect("it runs");
    let began = Instant::now();
    while std::net::TcpStream::connect(("127.0.0.1", port)).is_err() {
        assert!(began.elapsed() < Duration::from_secs(10), "openssl does not listen");
        std::thread::sleep(Duration::from_millis(20));
    }
    let told = |trusted: bool| {
        let mut child = Command::new(std::env::current_exe().expect("this is a program"));
        child.args(["--exact", "cloudflare::a_server_of_the_test_above", "--nocapture"]);
        child.env(TRUSTED, format!("https://127.0.0.1:{port}"));
        if trusted {
            child.env("SSL_CERT_FILE", folder.path().join("certificate"));
        }
        String::from_utf8_lossy(&child.output().expect("it runs").stdout).into_owned()
    };
    let (with, without) = (told(true), told(false));
    server.kill().expect("it is ours");
    server.wait().expect("it is ours");
    assert!(with.contains("sees no zone example.com"), "{with}");
    assert!(without.contains("is not trusted"), "{without}");
}

#[tokio::test]
async fn a_server_of_the_test_above() {
    let Ok(url) = std::env::var(TRUSTED) else { return };
    let refused = client(&url, TOKEN).look(ZONE, HOST).await.expect_err("it knows no zone");
    println!("{refused}");
}
