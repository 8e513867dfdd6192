//! URLs and environments, and what they say.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use super::*;

/// Shows all that a URL says, but for what nobody asked for; passwords only here.
fn shown(url: &ServerUrl) -> String {
    let ServerUrl { hosts: _, user: _, database: _, password, passfile, .. } = url;
    let mut text = url.to_string();
    assert_eq!(text, format!("{url:?}"));
    let mut say = |name: &str, value: Option<String>| {
        if let Some(value) = value {
            write!(text, " {name}={value}").expect("a text takes all");
        }
    };
    say("password", password.as_ref().map(|password| password.expose().to_owned()));
    say("passfile", passfile.as_ref().map(|file| file.display().to_string()));
    say("sslmode", (url.tls.mode != SslMode::Prefer).then(|| url.tls.mode.to_string()));
    say(
        "roots",
        match &url.tls.roots {
            Roots::Default => None,
            Roots::System => Some("system".into()),
            Roots::File(file) => Some(file.display().to_string()),
        },
    );
    say("certificate", url.tls.certificate.as_ref().map(|file| file.display().to_string()));
    say("key", url.tls.key.as_ref().map(|file| file.display().to_string()));
    say("folder", url.tls.folder.as_ref().map(|file| file.display().to_string()));
    say("direct", url.tls.direct.then(|| "yes".into()));
    say("timeout", (url.timeout != TIMEOUT).then(|| url.timeout.as_secs().to_string()));
    say("writable", url.writable.then(|| "yes".into()));
    say("binding", (url.binding != Binding::Prefer).then(|| format!("{:?}", url.binding)));
    say("options", url.options.clone());
    say("name", url.application_name.clone());
    text
}

/// Each case is the variables and the URL, then what they say.
#[test]
fn urls_say_what_libpq_reads() {
    for case in include_str!("cases.txt").split("\n\n").filter(|case| !case.trim().is_empty()) {
        let lines = case.lines().filter(|line| !line.starts_with('#')).collect::<Vec<_>>();
        let [given, expected] = lines[..] else { panic!("a case has two lines: {case}") };
        let mut variables = BTreeMap::new();
        let mut url = "";
        for word in given.split(' ') {
            match word.split_once('=') {
                Some((name, value)) if name.starts_with("PG") || name == "HOME" => {
                    variables.insert(name, value);
                }
                Some(_) | None => url = word,
            }
        }
        variables.entry("PGUSER").or_insert("me");
        let env = |name: &str| variables.get(name).map(|value| (*value).to_owned());
        let said = match ServerUrl::parse(&Secret::new(url), &env) {
            Ok(url) => shown(&url),
            Err(error) => format!("error: {error}"),
        };
        assert_eq!(said, expected, "\n{given}");
    }
}

#[test]
fn without_a_user_it_is_that_of_the_process() {
    let url = ServerUrl::parse(&Secret::new("postgres://h"), &|_| None).expect("it is a URL");
    assert_eq!(Some(url.user()), account().as_deref());
    assert_eq!(url.database(), url.user());
}

#[test]
fn no_error_tells_a_piece_of_a_password() {
    let wrong = [
        "postgres://u:hunter/2@h/db",
        "postgres://u:hunter?2@h/db",
        "postgres://u:hunter?a=2@h/db",
        "postgres://u:hunter@2@h/db",
        "postgres://u:x@hunter/2@h/db",
        "postgres://u:x@hunter?2@h/db",
        "postgres://u:hunter%zz@h/db",
        "postgres://u:hunter",
        "mysql://u:hunter@h/db",
        "u:hunter@h",
    ];
    for url in wrong {
        let error = ServerUrl::parse(&Secret::new(url), &|_| None).expect_err(url);
        assert!(!format!("{error} {error:?}").contains("hunter"), "{url}: {error} {error:?}");
    }
}
