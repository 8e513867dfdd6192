//! Input that is too large to be stored.

use std::time::{Duration, Instant};

use crate::corpus::run;

/// Long enough for a slow machine, and far too short for reading everything.
const LIMIT: Duration = Duration::from_secs(5);

#[test]
fn a_file_of_50_mb_is_refused_at_once() {
    let folder = tempfile::tempdir().expect("a folder can be made");
    let mut text = String::from("version: 1\nproject: shop\napps:\n");
    while text.len() < 50 << 20 {
        text += "  web: {role: webserver, port: 8080, command: ./server}\n";
    }
    std::fs::write(folder.path().join("infraspec.yaml"), &text).expect("a file can be written");
    for (args, input) in [(["validate", "."], ""), (["validate", "-"], text.as_str())] {
        let begun = Instant::now();
        let output = run(folder.path(), args, input.as_bytes());
        let said = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(1), "{said}");
        assert!(said.contains("more than 4 MiB") && said.len() < 2000, "{}", &said[..said.len().min(2000)]);
        assert!(begun.elapsed() < LIMIT, "it took {:?}", begun.elapsed());
    }
}

#[test]
fn one_line_of_a_megabyte_is_cut_in_messages() {
    let folder = tempfile::tempdir().expect("a folder can be made");
    let text = format!("version: 1\nproject: shop\nx: {{{} }}\n", "a,".repeat(500_000));
    let output = run(folder.path(), ["validate", "-"], text.as_bytes());
    let said = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(1), "{said}");
    assert!(said.len() < 4000, "{} bytes", said.len());
}

#[test]
fn hundreds_of_errors_are_all_told_in_time() {
    let folder = tempfile::tempdir().expect("a folder can be made");
    let mut text = String::from("version: 1\nproject: shop\napps:\n");
    for n in 0..500 {
        text += &format!("  a{n}: {{role: wroker, command: ./x, port: {n}, prot: 1}}\n");
    }
    let begun = Instant::now();
    let output = run(folder.path(), ["validate", "-"], text.as_bytes());
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(said.contains("is not valid: 1001 errors"), "{}", &said[said.len().saturating_sub(300)..]);
    assert!(begun.elapsed() < LIMIT, "it took {:?}", begun.elapsed());
}
