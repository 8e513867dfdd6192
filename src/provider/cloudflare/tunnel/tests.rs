//! The cases of `tests/tunnel/*.txt`, and what holds for every text.
//!
//! A case begins with what is done (`with HOST SERVICE` or `without HOST`, then perhaps the mark) and has
//! the section `before`; expected is `after`, `error`, or `same` where nothing is to be done.
//! `NORN_UPDATE=1` writes what is expected anew.

use std::fs;
use std::path::{Path, PathBuf};

use proptest::prelude::*;

use super::*;

const HOST: &str = "shop.example.com";
const SERVICE: &str = "http://web.shop.svc.cluster.local:80";

fn ours() -> Mark {
    Mark::read("norn shop/prod web").expect("it is one")
}

fn outcome(order: &str, before: &str) -> (&'static str, String) {
    let words: Vec<&str> = order.split_whitespace().collect();
    let mark = |words: &[&str]| match words {
        [] => ours(),
        words => Mark::read(&words.join(" ")).expect("the case has a mark"),
    };
    let done = match words[..] {
        ["with", host, service, ref rest @ ..] => with_rule(before, host, service, &mark(rest)),
        ["without", host, ref rest @ ..] => without_rule(before, host, &mark(rest)),
        _ => panic!("`{order}` is no order"),
    };
    match done {
        Ok(Some(after)) => ("after", after),
        Ok(None) => ("same", String::new()),
        Err(error) => ("error", format!("{error}\n")),
    }
}

#[test]
fn every_case_is_edited_as_its_file_says() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/tunnel");
    let entries = fs::read_dir(folder).expect("the cases are in the repository");
    let mut paths: Vec<PathBuf> = entries.map(|entry| entry.expect("it can be listed").path()).collect();
    paths.sort();
    assert!(paths.len() >= 25, "only {} cases were found", paths.len());
    let mut wrong = Vec::new();
    for path in paths {
        let text = fs::read_to_string(&path).expect("a case is UTF-8");
        let (order, rest) = text.split_once("\n-- before --\n").expect("a case has a text to edit");
        let ends = ["\n-- after --\n", "\n-- same --\n", "\n-- error --\n"];
        let end = ends.iter().filter_map(|end| rest.find(end)).min().map_or(rest.len(), |at| at + 1);
        let before = &rest[..end];
        let (kind, told) = outcome(order, before);
        let now = format!("{order}\n-- before --\n{before}-- {kind} --\n{told}");
        if std::env::var_os("NORN_UPDATE").is_some() {
            fs::write(&path, &now).expect("it is written");
        } else if now != text {
            wrong.push(format!("{}:\n{now}", path.display()));
        }
        if let ("after", ["with", ..]) = (kind, &order.split_whitespace().collect::<Vec<_>>()[..]) {
            assert_eq!(outcome(order, &told).0, "same", "{}", path.display());
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn what_has_no_place_in_a_file_of_cases() {
    let text =
        "ingress:\r\n  - hostname: a.example.com\r\n    service: http://a\r\n  - service: http_status:404";
    let with = with_rule(text, HOST, SERVICE, &ours()).expect("it is edited").expect("it is new");
    let new = format!("  - hostname: {HOST} # norn shop/prod web\r\n    service: {SERVICE}\r\n");
    assert_eq!(with, text.replace("  - service: http_s", &format!("{new}  - service: http_s")));
    assert_eq!(without_rule(&with, HOST, &ours()), Ok(Some(text.to_owned())));
    for (text, line, odd) in [
        ("ingress:\n\t- service: x\n", 2, Odd::Tab),
        ("ingress:\n  -\tservice: x\n", 2, Odd::Tab),
        ("a: 1\ringress:\n  - service: x\n", 1, Odd::Return),
    ] {
        let refused = with_rule(text, HOST, SERVICE, &ours());
        assert_eq!(refused, Err(TunnelError::Odd { line, odd }), "{text:?}");
    }
    let marked = "\u{feff}ingress:\n- service: http_status:404\n";
    let with = with_rule(marked, HOST, SERVICE, &ours()).expect("it is edited").expect("it is new");
    assert!(with.starts_with("\u{feff}ingress:\n- hostname: shop"), "{with}");
}

#[test]
fn a_value_that_would_be_more_than_a_value_is_refused() {
    let text = "ingress:\n  - service: http_status:404\n";
    for service in ["http://a # b", "http://a\n  - service: http://b", "a: b", "*x", "&x y", "[a]", "'a", ""]
    {
        let refused = with_rule(text, HOST, service, &ours());
        assert!(matches!(refused, Err(TunnelError::Unproved { .. })), "{service:?}: {refused:?}");
    }
    for host in ["a.example.com: x", "1.2", "*.example.com", "a #", "true"] {
        let refused = with_rule(text, host, SERVICE, &ours());
        assert!(matches!(refused, Err(TunnelError::Unproved { .. })), "{host:?}: {refused:?}");
    }
}

#[test]
fn a_rule_is_told_with_its_mark() {
    let text =
        "ingress:\n  - hostname: Shop.example.com # norn shop web\n    service: http://a\n  - service: b\n";
    let found = rule(text, HOST).expect("it is read").expect("it is there");
    assert_eq!(found, Rule { service: "http://a".to_owned(), mark: Mark::read("norn shop web") });
    assert_eq!(rule(text, "other.example.com"), Ok(None));
}

/// Rules of others as people write them, with `D` for the margin of the list and `G` for the gap after `-`.
const RULES: &[&str] = &[
    "D-Ghostname: a.example.com\nD G service: http://a:80\n",
    "D-Gservice: \"http://b\"  # quoted\nD G hostname: 'b.example.com'\n",
    "D-Ghostname: c.example.com # norn other/prod web\nD G service: http://c\nD G originRequest:\nD G   noTLSVerify: true\n",
    "D-\nD    hostname: d.example.com\nD    path: ^/x#y\n\nD    service: http://d\n",
    "D-G{hostname: e.example.com, service: \"http://e # no comment\"}\n",
    "D-Ghostname: f.example.com\nD G service: http://f\nD G originRequest:\nD G   httpHostHeader: |+\nD G     # text\n\n",
    "D-Gpath: /health\nD G service: hello_world\n",
    "D-Ghostname: 'it''s.example.com'\nD G service: unix:/tmp/a b.sock\n",
];
const BETWEEN: &[&str] =
    &["", "\n", "D# about the next\n", "D    # - hostname: old\n", "# far left\n\n", "   \n"];
const HEAD: &[&str] =
    &["", "tunnel: x\n", "# top\n---\n", "a: |\n  ingress:\n   - b\n", "warp-routing:\n  enabled: true\n"];
const TAIL: &[&str] =
    &["", "# end\n", "metrics: 0.0.0.0:2000\n", "\n\nloglevel: \"info\" # not debug\n", "# ingress:\n"];

fn texts() -> impl Strategy<Value = String> {
    let one = |of: &'static [&'static str]| prop::sample::select(of);
    let rules = prop::collection::vec((one(RULES), one(BETWEEN)), 0..6);
    let ends = (one(HEAD), one(BETWEEN), one(TAIL));
    (ends, rules, 0..4_usize, 1..4_usize, any::<bool>(), any::<bool>()).prop_map(
        |((head, first, tail), rules, margin, gap, windows, last)| {
            let mut text = format!("{head}ingress:  # the rules\n{first}");
            for (rule, between) in rules {
                text.push_str(rule);
                text.push_str(between);
            }
            text.push_str("D-Gservice: http_status:404\n");
            text.push_str(tail);
            let (margin, gap) = (" ".repeat(margin), " ".repeat(gap));
            let mut text = text
                .lines()
                .map(|line| {
                    let dashes = line.strip_prefix('D').map(|rest| format!("{margin}{rest}"));
                    let line = dashes.unwrap_or_else(|| line.to_owned());
                    line.replacen("-G", &format!("-{gap}"), 1).replacen(" G ", &format!(" {gap}"), 1)
                })
                .collect::<Vec<_>>()
                .join("\n");
            if last {
                text.push('\n');
            }
            if windows { text.replace('\n', "\r\n") } else { text }
        },
    )
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(300) })]

    #[test]
    fn a_rule_that_came_and_went_leaves_every_byte(text in texts()) {
        let with = with_rule(&text, HOST, SERVICE, &ours()).expect("people write so").expect("it is new");
        let found = rule(&with, HOST).expect("it is read").expect("it is there");
        prop_assert_eq!(found, Rule { service: SERVICE.to_owned(), mark: Some(ours()) });
        prop_assert_eq!(with_rule(&with, HOST, SERVICE, &ours()), Ok(None));
        let other = with_rule(&with, HOST, "http://other:81", &ours()).expect("it is ours").expect("it is new");
        prop_assert_eq!(other.replace("http://other:81", SERVICE), with.clone());
        let theirs = Mark::read("norn shop web").expect("it is one");
        prop_assert_eq!(without_rule(&with, HOST, &theirs), Ok(None));
        let refused = with_rule(&with, HOST, SERVICE, &theirs);
        let foreign = matches!(refused, Err(TunnelError::Foreign { .. }));
        prop_assert!(foreign);
        prop_assert_eq!(without_rule(&with, HOST, &ours()), Ok(Some(text)));
    }

    #[test]
    fn two_rules_go_in_any_order(text in texts(), first in any::<bool>()) {
        let second = "two.example.com";
        let both = with_rule(&text, HOST, SERVICE, &ours()).expect("people write so").expect("it is new");
        let both = with_rule(&both, second, SERVICE, &ours()).expect("people write so").expect("it is new");
        let order = if first { [HOST, second] } else { [second, HOST] };
        let one = without_rule(&both, order[0], &ours()).expect("it is ours").expect("it was there");
        prop_assert_eq!(without_rule(&one, order[1], &ours()), Ok(Some(text)));
    }
}
