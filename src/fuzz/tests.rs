//! Each body on its corpus, and for a while on what becomes of the corpus by chance.
//!
//! `NORN_FUZZ_SECONDS` says how long (2), `NORN_SEED` which chances are taken. An input that fails is
//! kept in `fuzz/artifacts`; once mended it belongs into `fuzz/corpus`.

#[path = "../../tests/support/chance.rs"]
mod chance;
mod mutate;

use std::fs;
use std::panic::{self, AssertUnwindSafe};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use rustix::time::{ClockId, clock_gettime};

use self::chance::Chance;

/// The most time that a processor may spend on one input of at most [`MOST`] bytes. Without
/// optimisation all takes several times as long.
const SLOW: Duration = Duration::from_secs(if cfg!(debug_assertions) { 4 } else { 1 });
/// The largest input that is made, in bytes.
const MOST: usize = 32 << 10;
/// How many inputs that were taken are kept to go on from.
const KEPT: usize = 500;

struct Target {
    name: &'static str,
    body: fn(&[u8]) -> bool,
    /// Folders and files of inputs, beside `fuzz/corpus/<name>`.
    more: &'static [&'static str],
    /// What inputs are made of.
    words: &'static [&'static str],
}

#[test]
fn spec() {
    Target {
        name: "spec",
        body: super::spec,
        more: &["tests/valid", "tests/invalid", "examples", "infraspec.example.yaml"],
        words: &[
            "${",
            "}",
            "${apps.web.url}",
            "${A:-b}",
            "${A:?no}",
            "$$",
            "*a",
            "&a ",
            "<<: *a\n",
            "null",
            "~",
            "- ",
            "? ",
            "{",
            "[",
            "|\n",
            ">-\n",
            "!!str ",
            "---\n",
            "...\n",
            "\u{2028}",
            "\u{feff}",
            "\u{0}",
            "\t",
            "\u{1b}[31m",
            "99999999999999999999",
            "-1",
            "1e999",
            "0x1f",
            ".inf",
            "yes",
            "apps:\n",
            "  web:\n",
            "    role: webserver\n",
            "    role: worker\n",
            "    port: 8080\n",
            "    replicas: 3\n",
            "    env: {A: b}\n",
            "    dependsOn: [web]\n",
            "    was: [old]\n",
            "stages:\n  prod:\n",
            "defaults:\n",
            "include: ['*']\n",
            "version: 1\n",
            "project: shop\n",
            "secrets: [A]\n",
        ],
    }
    .run();
}

#[test]
fn cron() {
    Target {
        name: "cron",
        body: super::cron,
        more: &[],
        words: &[
            "*",
            "/",
            "-",
            ",",
            "?",
            "L",
            "W",
            "#",
            " ",
            "\n",
            "0",
            "7",
            "29",
            "30",
            "31",
            "59",
            "60",
            "99999999999",
            "JAN",
            "feb",
            "SUN",
            "MON-FRI",
            "@daily",
            "@every 5m",
            "*/0",
            "1-0",
            "5-5/1",
            "2",
            "UTC",
            "Europe/Berlin",
            "America/Sao_Paulo",
            "Pacific/Apia",
            "\u{130}",
            "\u{0}",
        ],
    }
    .run();
}

#[test]
fn protocol() {
    Target {
        name: "protocol",
        body: super::protocol,
        more: &[],
        words: &[
            "\n",
            "{",
            "}",
            "[",
            "]",
            "\"",
            ":",
            ",",
            "null",
            "true",
            "-1",
            "1e400",
            "18446744073709551616",
            "\\ud800",
            "\\u0000",
            "\u{0}",
            "\"kind\":\"status\"",
            "\"kind\":\"ask\"",
            "\"kind\":\"stop\"",
            "\"protocol\":1",
            "\"protocol\":2",
            "\"order\":",
            "\"secs\":",
            "\"nanos\":4294967295",
            "\"key\":\"k\"",
            "\"fence\":0",
            "\"off\"",
            "{\"on\":\"::1\"}",
        ],
    }
    .run();
}

#[test]
fn plan_file() {
    Target { name: "plan_file", body: super::plan_file, more: &[], words: JSON }.run();
}

#[test]
fn state_import() {
    Target { name: "state_import", body: super::state_import, more: &[], words: JSON }.run();
}

#[test]
fn tunnel() {
    Target {
        name: "tunnel",
        body: super::tunnel,
        more: &[],
        words: &[
            "\n",
            "\r\n",
            "\r",
            "\t",
            "- ",
            "-\n",
            "  ",
            " # ",
            "\"",
            "'",
            "|\n",
            ">-\n",
            "&a ",
            "*a",
            "<<: *a\n",
            "{",
            "}",
            "[",
            "]",
            "? ",
            "!!str ",
            "---\n",
            "...\n",
            "\u{feff}",
            "\u{2028}",
            "\u{85}",
            "\u{0}",
            "ingress:\n",
            "- hostname: shop.example.com\n",
            "  service: http://web\n",
            "- service: http_status:404\n",
            "path: /x\n",
            "hostname: \"*.example.com\"\n",
            "# norn shop/prod web",
            "# norn shop/dev web",
        ],
    }
    .run();
}

#[test]
fn libfuzzer_has_every_target() {
    let manifest = fs::read_to_string(root().join("fuzz/Cargo.toml")).expect("it is there");
    let folders = fs::read_dir(root().join("fuzz/corpus")).expect("it is there");
    let mut names: Vec<String> = folders
        .map(|entry| entry.expect("it can be listed").file_name().to_string_lossy().into_owned())
        .collect();
    names.sort();
    assert_eq!(names, ["cron", "plan_file", "protocol", "spec", "state_import", "tunnel"]);
    for name in names {
        let target = fs::read_to_string(root().join(format!("fuzz/fuzz_targets/{name}.rs")));
        assert!(target.expect("it is there").contains(&format!("norn::fuzz::{name}(input);")), "{name}");
        assert!(manifest.contains(&format!("path = \"fuzz_targets/{name}.rs\"")), "{name}");
    }
}

/// Values of stored documents, and what breaks them.
const JSON: &[&str] = &[
    "\n",
    "{",
    "}",
    "[",
    "]",
    "\"",
    ":",
    ",",
    "null",
    "true",
    "false",
    "-1",
    "0",
    "2",
    "1e400",
    "0.5",
    "18446744073709551616",
    "9223372036854775807",
    "\\ud800",
    "\\u0000",
    "\\u001b[31m",
    "\u{0}",
    "\"web\"",
    "\"deploy/web\"",
    "\"forge/web\"",
    "\"Web\"",
    "\"\"",
    "\"2026-02-03T04:05:06.700000Z\"",
    "\"-009999-01-02T01:59:59Z\"",
    "\"9999-12-30T22:00:00Z\"",
    "\"format\":1",
    "\"format\":2",
    "\"format\":0",
    "\"schema\":1",
    "\"stage\":\"prod\"",
    "\"stage\":null",
    "{\"a\":1,\"a\":2}",
    "[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[",
    "{\"secs\":1,\"nanos\":1000000000}",
];

impl Target {
    fn run(&self) {
        let mut corpus: Vec<Vec<u8>> = Vec::new();
        let own = format!("fuzz/corpus/{}", self.name);
        for place in [own.as_str()].iter().chain(self.more) {
            let found = files(&root().join(place));
            assert!(!found.is_empty(), "{place} has inputs");
            corpus.extend(found.iter().map(|path| fs::read(path).expect("an input can be read")));
        }
        let taken = corpus.iter().filter(|input| self.check(input, "the corpus")).cloned();
        // What is taken, and what was still taken after a change: most ways go on from there.
        let mut good: Vec<Vec<u8>> = taken.collect();
        assert!((1..corpus.len()).contains(&good.len()), "{} of the corpus are taken", good.len());

        let time = chance::time(Duration::from_secs(2));
        let mut chance = Chance::from_env();
        let seed = chance.0;
        let begin = Instant::now();
        let (mut made, mut taken) = (0, 0);
        while begin.elapsed() < time {
            let from = if chance.below(3) == 0 { &corpus } else { &good };
            let mut input = chance.one(from).clone();
            for _ in 0..=chance.below(4) {
                mutate::mutate(&mut input, &mut chance, self.words, &corpus);
            }
            input.truncate(MOST);
            made += 1;
            if self.check(&input, &format!("NORN_SEED={seed}")) {
                taken += 1;
                match good.len() {
                    KEPT.. => good[chance.below(KEPT)] = input,
                    _ => good.push(input),
                }
            }
        }
        let (name, of) = (self.name, begin.elapsed().as_secs());
        eprintln!("{name}: {made} inputs in {of} s, {taken} of them taken (NORN_SEED={seed})");
        assert!(made < 2000 || (1..made).contains(&taken), "{taken} of {made} inputs were taken");
    }

    /// Tries one input. It is kept where anybody finds it should the whole process die of it.
    fn check(&self, input: &[u8], whence: &str) -> bool {
        let running = root().join("target").join(format!("fuzz-{}-running", self.name));
        fs::write(&running, input).expect("the folder is there");
        let begin = time();
        let result = panic::catch_unwind(AssertUnwindSafe(|| (self.body)(input)));
        let took = time().saturating_sub(begin);
        let wrong = match result {
            Ok(_) if took > SLOW => format!("takes {took:?}"),
            Ok(taken) => return taken,
            Err(_) => "panics".to_owned(),
        };
        let folder = root().join("fuzz/artifacts").join(self.name);
        fs::create_dir_all(&folder).expect("the folder can be made");
        let kept = folder.join(format!("{}-bytes-{}", input.len(), uuid::Uuid::new_v4().simple()));
        fs::write(&kept, input).expect("it can be written");
        panic!("{} {wrong}, of {whence}: the input is {}", self.name, kept.display());
    }
}

/// The time that this thread was at work: other processes do not make it longer.
fn time() -> Duration {
    let time = clock_gettime(ClockId::ThreadCPUTime);
    Duration::try_from(time).expect("it does not run backwards")
}

fn root() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
}

/// The inputs at a place, in the order of their names: all files, of a spec's folder its YAML.
fn files(place: &Path) -> Vec<PathBuf> {
    if place.is_file() {
        return vec![place.to_owned()];
    }
    let entries = fs::read_dir(place).unwrap_or_else(|error| panic!("{}: {error}", place.display()));
    let mut paths: Vec<PathBuf> = entries.map(|entry| entry.expect("it can be listed").path()).collect();
    paths.sort();
    let yaml = |path: &PathBuf| path.extension().is_some_and(|extension| extension == "yaml");
    let corpus = place.starts_with(root().join("fuzz"));
    let found = paths.into_iter().flat_map(|path| if path.is_dir() { files(&path) } else { vec![path] });
    found.filter(|path| corpus || yaml(path)).collect()
}
