//! The cases, and norn run on them.

use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

/// One spec of `tests/`.
pub struct Case {
    /// The name as norn is given it, in the case's own folder.
    pub name: String,
    pub folder: PathBuf,
    pub args: Vec<String>,
}

impl Case {
    /// Where the expected text stands.
    pub fn beside(&self, extension: &str) -> PathBuf {
        self.folder.join(format!("{}.{extension}", self.name.trim_end_matches(".yaml")))
    }

    /// The root file.
    pub fn root(&self) -> PathBuf {
        let path = self.folder.join(&self.name);
        if path.is_dir() { path.join("infraspec.yaml") } else { path }
    }

    pub fn validate(&self) -> Output {
        let args = ["validate"].into_iter().chain(self.args.iter().map(String::as_str)).chain([&*self.name]);
        run(&self.folder, args, b"")
    }
}

/// The cases of a folder in `tests/`, in the order of their names.
pub fn cases(folder: &str) -> Vec<Case> {
    let folder = tests().join(folder);
    let entries = fs::read_dir(&folder).expect("the corpus is there");
    let mut names: Vec<String> = entries
        .map(|entry| {
            entry.expect("the corpus can be listed").file_name().into_string().expect("a name is text")
        })
        .filter(|name| name.ends_with(".yaml") || folder.join(name).is_dir())
        .collect();
    names.sort();
    names
        .into_iter()
        .map(|name| {
            let mut case = Case { name, folder: folder.clone(), args: Vec::new() };
            let text = fs::read(case.root()).expect("a case has a root file");
            let first = String::from_utf8_lossy(text.split(|byte| *byte == b'\n').next().unwrap_or_default());
            if let Some(args) = first.strip_prefix("# norn validate ") {
                case.args = args.split_whitespace().map(str::to_owned).collect();
            }
            case
        })
        .collect()
}

pub fn tests() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests")
}

/// Runs norn with nothing in its environment.
pub fn run<'a>(folder: &Path, args: impl IntoIterator<Item = &'a str>, input: &[u8]) -> Output {
    let mut child = Command::new(env!("CARGO_BIN_EXE_norn"))
        .args(args)
        .current_dir(folder)
        .env_clear()
        .env("COLUMNS", "100")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("norn starts");
    let mut stdin = child.stdin.take().expect("stdin is a pipe");
    // Who does not read its input closes the pipe, which is its right.
    let _ = stdin.write_all(input);
    drop(stdin);
    child.wait_with_output().expect("norn ends")
}

/// Compares a text with the one that stands in a file, or writes the file. An empty text has none.
pub fn compare(path: &Path, actual: &str, failures: &mut Vec<String>) {
    if std::env::var_os("NORN_UPDATE").is_some_and(|value| !value.is_empty()) {
        match actual {
            "" if path.exists() => fs::remove_file(path).expect("the expected text can be removed"),
            "" => {}
            text => fs::write(path, text).expect("the expected text can be written"),
        }
        return;
    }
    let expected = fs::read_to_string(path).unwrap_or_default();
    if expected != actual {
        failures.push(format!("{}\n--- expected\n{expected}\n--- actual\n{actual}", path.display()));
    }
}

pub fn report(failures: &[String]) {
    assert!(failures.is_empty(), "{}\n(NORN_UPDATE=1 rewrites)", failures.join("\n"));
}
