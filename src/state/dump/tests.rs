//! What a file may say, and what is refused.

use serde_json::json;

use super::*;
use crate::state::format;

/// A store's file with a row here and there.
fn file() -> Value {
    let key = Secret::new("0123456789abcdef".repeat(4));
    let scope =
        Scope { project: "shop".parse().expect("a name"), stage: Some("prod".parse().expect("a name")) };
    let bytes = Dump::empty(scope, key, 7).bytes();
    let mut file: Value = serde_json::from_slice(&bytes).expect("it is JSON");
    let time = "2026-02-03T04:05:06.700000Z";
    let body = json!({"version": 1, "b": [1, {"z": 0, "a": 0}]});
    let tables = &mut file["tables"];
    tables["deployments"] = json!([{
        "id": "d1", "app": "web", "commit_sha": "c0ffee", "image_tag": "web:c0ffee", "status": "deployed",
        "steps": [{"step": "clone", "status": "deployed", "durationMs": 1, "output": ""}], "error": "",
        "started_at": time, "finished_at": null,
    }]);
    tables["norn_runs"] = json!([{
        "id": "r1", "who": "ana@box", "machine_id": "m", "boot_id": "b", "pid_namespace": "n", "pid": 7,
        "start_time": 8, "job_url": null, "reason": "norn apply", "command": "norn apply", "token": 3,
        "started_at": time, "heartbeat_at": time, "ended_at": null, "outcome": "",
    }]);
    tables["norn_operations"] = json!([{
        "id": "o1", "run": "r1", "address": "deploy/web", "action": "deploy", "intent": {},
        "started_at": time, "ended_at": null, "outcome": "",
        "plan": "", "forge_after": null, "deploy_after": null,
    }]);
    tables["norn_steps"] = json!([{
        "id": "s1", "operation": "o1", "step": "build", "key": "k", "detail": {}, "started_at": time,
        "ended_at": null, "outcome": "",
    }]);
    tables["norn_resources"] = json!([{
        "address": "deploy/web", "body": body, "digest": format::digest(&body), "protected": true,
        "updated_at": time,
    }]);
    file
}

fn refused(bytes: &[u8]) -> String {
    Dump::read(bytes).expect_err("it cannot be").to_string()
}

#[test]
fn a_file_that_is_read_and_written_is_the_same() {
    let dump = Dump::read(file().to_string().as_bytes()).expect("it is a dump");
    assert_eq!(
        (dump.token, dump.count("deployments"), dump.scope.to_string().as_str()),
        (7, 1, "project shop, stage prod")
    );
    let bytes = dump.bytes();
    assert_eq!(Dump::read(&*bytes).expect("it was written").bytes(), bytes);
    let text = String::from_utf8(bytes).expect("JSON is a text");
    assert!(text.contains(r#""body":{"b":[1,{"a":0,"z":0}],"version":1}"#), "{text}");
}

#[test]
fn what_is_live_in_an_older_norn_s_file_is_kept() {
    let mut file = file();
    let body = json!({"version": 1, "tag": "web:one", "deployment": "d1"});
    file["tables"]["norn_resources"][0]["digest"] = json!(format::digest(&body));
    file["tables"]["norn_resources"][0]["body"] = body;
    file["schema"] = json!(3);
    file["tables"].as_object_mut().expect("a map").shift_remove("norn_artifacts");
    let dump = Dump::read(file.to_string().as_bytes()).expect("an older norn's dump");
    let text = String::from_utf8(dump.bytes()).expect("JSON is a text");
    let kept = r#"{"id":"d1","app":"web","kind":"release","name":"web:one","body":{"deployment":"d1","tag":"web:one","version":1},"bytes":null,"created_at":"2026-02-03T04:05:06.700000Z"}"#;
    assert!(text.contains(kept), "{text}");
}

#[test]
fn a_file_that_was_cut_off_anywhere_is_refused() {
    let bytes = Dump::read(file().to_string().as_bytes()).expect("it is a dump").bytes();
    for end in 0..bytes.len() - 2 {
        assert!(matches!(Dump::read(&bytes[..end]), Err(DumpError::CutOff)), "{end}");
    }
}

#[test]
fn every_wrong_value_is_told_with_its_place() {
    let cases: [(&str, Value, &str); 26] = [
        (
            "/format",
            json!(2),
            "a newer norn wrote it (format 2, this one knows 1): import it with that one at line 1",
        ),
        ("/format", json!("1"), "invalid type: string \"1\", expected u32"),
        ("/schema", json!(99), "a newer norn wrote it (schema 99, this one knows"),
        ("/schema", json!(0), "there is no schema 0"),
        ("/project", json!("Shop!"), "`project`: "),
        ("/stage", json!(""), "`stage`: "),
        ("/key", json!("short"), "`key` is not 64 hex digits"),
        ("/token", json!(-1), "invalid value: integer `-1`, expected u64"),
        ("/token", json!(u64::MAX), "`token` is larger than any that norn gives"),
        ("/tables", json!([]), "expected the tables of a state"),
        ("/tables/deployments", json!({}), "expected the rows of deployments"),
        ("/tables/deployments/0", json!("web"), "expected a row of deployments"),
        ("/tables/deployments/0/app", json!(null), "`app` of deployments must be a text at line 1"),
        ("/tables/deployments/0/app", json!("a\0b"), "a text has a NUL, which no database keeps"),
        ("/tables/deployments/0/app", json!("a b"), "row 1 of deployments cannot be: its app: "),
        (
            "/tables/deployments/0/status",
            json!("paused"),
            "row 1 of deployments cannot be: its status is \"paused\"",
        ),
        (
            "/tables/deployments/0/steps",
            json!({"a": 1}),
            "row 1 of deployments cannot be: its steps are no step logs: ",
        ),
        (
            "/tables/deployments/0/started_at",
            json!("today"),
            "`started_at` of deployments must be a time such as",
        ),
        (
            "/tables/deployments/0/finished_at",
            json!(7),
            "must be a time such as 2026-01-31T12:00:00.000000Z, or null",
        ),
        ("/tables/norn_runs/0/pid", json!(-1), "row 1 of norn_runs cannot be: its pid is -1"),
        ("/tables/norn_runs/0/token", json!(1.5), "`token` of norn_runs must be a whole number"),
        (
            "/tables/norn_operations/0/run",
            json!("r2"),
            "row 1 of norn_operations cannot be: there is no run \"r2\" in norn_runs",
        ),
        (
            "/tables/norn_operations/0/address",
            json!("web"),
            "row 1 of norn_operations cannot be: its address: an address is KIND/NAME",
        ),
        ("/tables/norn_steps/0/operation", json!("o2"), "there is no operation \"o2\" in norn_operations"),
        (
            "/tables/norn_resources/0/protected",
            json!(1),
            "`protected` of norn_resources must be true or false",
        ),
        (
            "/tables/norn_resources/0/body",
            json!({"version": 2}),
            "row 1 of norn_resources cannot be: its digest is not that of its body",
        ),
    ];
    for (place, value, expected) in cases {
        let mut file = file();
        *file.pointer_mut(place).expect("it is there") = value;
        let error = refused(file.to_string().as_bytes());
        assert!(error.contains(expected), "{place}: {error}");
    }
}

#[test]
fn what_is_missing_unknown_or_twice_is_told() {
    for name in ["format", "schema", "project", "stage", "key", "token", "tables"] {
        let mut file = file();
        file.as_object_mut().expect("a map").shift_remove(name);
        let error = refused(file.to_string().as_bytes());
        assert!(error.contains(&format!("it has no `{name}`, so it is no export of a state")), "{error}");
    }
    let text = file().to_string();
    for (from, to, expected) in [
        ("\"token\":7", "\"token\":7,\"token\":8", "`token` stands there twice"),
        ("\"token\":7", "\"token\":7,\"colour\":8", "the file has `colour`, which this norn does not know"),
        (
            "\"health_checks\":[]",
            "\"health_checks\":[],\"health_checks\":[]",
            "the table health_checks stands there twice",
        ),
        (
            "\"health_checks\":[]",
            "\"health_check\":[]",
            "`tables` has `health_check`, which this norn does not know",
        ),
        ("\"health_checks\":[],", "", "`tables` has no health_checks"),
        ("\"id\":\"d1\"", "\"id\":\"d1\",\"id\":\"d2\"", "a row of deployments has `id` twice"),
        (
            "\"id\":\"d1\"",
            "\"id\":\"d1\",\"ids\":\"d2\"",
            "a row of deployments has `ids`, which this norn does not know",
        ),
        ("\"id\":\"d1\",", "", "row 1 of deployments has no `id`"),
        ("\"version\":1", "\"version\":1,\"version\":1", "`version` stands there twice"),
    ] {
        assert!(text.contains(from), "{from}");
        let error = refused(text.replacen(from, to, 1).as_bytes());
        assert!(error.contains(expected), "{error}");
    }
    let mut twice = file();
    let row = twice["tables"]["deployments"][0].clone();
    twice["tables"]["deployments"].as_array_mut().expect("rows").push(row);
    assert_eq!(
        refused(twice.to_string().as_bytes()),
        "row 2 of deployments cannot be: another has the id \"d1\""
    );
    assert!(refused(format!("{text} more").as_bytes()).contains("trailing characters"));
}

#[test]
fn a_file_that_is_made_to_harm_is_refused_quickly() {
    let body = |json: String| {
        let text = file().to_string();
        let from = r#""body":{"#;
        text.replacen(from, &format!(r#""body":{json},"body":{{"#), 1)
    };
    let begun = std::time::Instant::now();
    let deep = body("[".repeat(1_000_000));
    assert!(refused(deep.as_bytes()).contains("recursion limit exceeded"));
    let wide = body(format!("[{}0]", "[],".repeat(2_000_000)));
    assert!(refused(wide.as_bytes()).contains("more than 1048576 parts"));
    struct Endless;
    impl std::io::Read for Endless {
        fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
            into.fill(b' ');
            Ok(into.len())
        }
    }
    assert!(matches!(Dump::read(Endless), Err(DumpError::TooLarge)));
    assert!(refused(b"PK\x03\x04").contains("expected value at line 1 column 1"));
    assert!(refused(b"\"\xff\"").contains("invalid"));
    assert!(begun.elapsed().as_secs() < 20, "{:?}", begun.elapsed());
}

#[test]
fn a_file_names_no_process_that_is_to_be_ended() {
    let mut file = file();
    file["tables"]["norn_steps"][0]["detail"] =
        json!({"child": {"mark": "m", "group": {"pid": 1}}, "rest": 1});
    let dump = Dump::read(file.to_string().as_bytes()).expect("it is a dump");
    let text = String::from_utf8(dump.bytes()).expect("JSON is a text");
    assert!(text.contains(r#""detail":{"rest":1}"#) && !text.contains("child"), "{text}");
}
