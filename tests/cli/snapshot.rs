//! What people read, kept as files: `NORN_UPDATE=1` writes them anew.

use std::fs;
use std::path::Path;

/// Compares a text with `snapshots/<name>.txt`.
#[track_caller]
pub fn check(name: &str, text: &str) {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/cli/snapshots").join(format!("{name}.txt"));
    if std::env::var_os("NORN_UPDATE").is_some() {
        fs::write(&path, text).expect("the snapshot is written");
        return;
    }
    let kept = fs::read_to_string(&path).unwrap_or_default();
    if kept == text {
        return;
    }
    let diff = similar::TextDiff::from_lines(kept.as_str(), text);
    panic!(
        "{name} differs from its snapshot (NORN_UPDATE=1 writes it anew):\n{}",
        diff.unified_diff().header("kept", "now")
    );
}

/// Replaces what varies from run to run: the sandbox's path, times, durations, ids, digests, ports.
pub fn redact(text: &str, sandbox: &str) -> String {
    let host = rustix::system::uname().nodename().to_string_lossy().into_owned();
    let text = text.replace(&format!("\"name\": \"{host}\""), "\"name\": \"<host>\"");
    let text = redact_times(&text.replace(sandbox, "<sandbox>"));
    let mut out = String::new();
    for line in text.split_inclusive('\n') {
        let mut words: Vec<String> = Vec::new();
        for word in line.split(' ') {
            let word = redact_word(word);
            // `0.4 s` is two words.
            if word.trim_end_matches([',', ':', ')', '\n']) == "s"
                && let Some(last) = words.last_mut()
                && is_number(last)
            {
                *last = "<time>".to_owned();
            }
            words.push(word);
        }
        out += &words.join(" ");
    }
    out
}

/// `2026-11-22T06:17:37.5Z`.
fn redact_times(text: &str) -> String {
    const SHAPE: &[u8] = b"dddd-dd-ddTdd:dd:dd";
    let bytes = text.as_bytes();
    let fits = |at: usize| {
        bytes.len() >= at + SHAPE.len()
            && SHAPE.iter().zip(&bytes[at..]).all(|(want, is)| match want {
                b'd' => is.is_ascii_digit(),
                other => other == is,
            })
    };
    let mut out = Vec::new();
    let mut at = 0;
    while at < bytes.len() {
        if fits(at) {
            out.extend(b"<time>");
            at += SHAPE.len();
            while bytes.get(at).is_some_and(|byte| byte.is_ascii_digit() || *byte == b'.') {
                at += 1;
            }
        } else {
            out.push(bytes[at]);
            at += 1;
        }
    }
    String::from_utf8(out).expect("whole characters were kept")
}

fn redact_word(word: &str) -> String {
    let mut out = String::new();
    let mut run = String::new();
    for c in word.chars().chain(['\0']) {
        if c.is_ascii_alphanumeric() || (c == '-' && !run.is_empty()) {
            run.push(c);
            continue;
        }
        out += &redact_run(&run);
        run.clear();
        if c != '\0' {
            out.push(c);
        }
    }
    redact_clock(&redact_ports(&out))
}

/// A UUID, a date, or a digest.
fn redact_run(run: &str) -> String {
    let hex = run.bytes().all(|byte| byte.is_ascii_hexdigit() || byte == b'-');
    let digits = run.bytes().filter(u8::is_ascii_digit).count();
    // `2026-11-22` of a table.
    let date = run.get(..10).unwrap_or_default().bytes().filter(u8::is_ascii_digit).count() == 8
        && run.bytes().filter(|byte| *byte == b'-').count() == 2;
    if run.len() != 36 && !date && run.contains('-') {
        return run.split('-').map(redact_run).collect::<Vec<_>>().join("-");
    }
    match run.len() {
        10 if date => "<date>".into(),
        36 if hex && run.contains('-') => "<uuid>".into(),
        12.. if hex && digits > 0 => "<hex>".into(),
        _ => run.to_owned(),
    }
}

/// `127.0.0.1:20123` and `PORT=20123`.
fn redact_ports(word: &str) -> String {
    let mut out = word.to_owned();
    for before in ["127.0.0.1:", "PORT=", "[::1]:", "0.0.0.0:"] {
        if let Some(at) = out.find(before) {
            let from = at + before.len();
            let digits = out[from..].bytes().take_while(u8::is_ascii_digit).count();
            out.replace_range(from..from + digits, "<port>");
        }
    }
    out
}

/// `06:17:37`, perhaps with a fraction.
fn redact_clock(word: &str) -> String {
    let bytes = word.as_bytes();
    for at in 0..bytes.len().saturating_sub(7) {
        let shape =
            |i: usize| if i == 2 || i == 5 { bytes[at + i] == b':' } else { bytes[at + i].is_ascii_digit() };
        if (0..8).all(shape) {
            let rest = &word[at + 8..];
            let fraction = rest
                .strip_prefix('.')
                .map_or(0, |digits| 1 + digits.bytes().take_while(u8::is_ascii_digit).count());
            return format!("{}<clock>{}", &word[..at], &rest[fraction..]);
        }
    }
    word.to_owned()
}

fn is_number(word: &str) -> bool {
    !word.is_empty() && word.bytes().all(|byte| byte.is_ascii_digit() || byte == b'.')
}
