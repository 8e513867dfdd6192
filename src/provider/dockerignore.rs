//! `.dockerignore`: patterns from a folder's root, of which the last that matches decides.
//!
//! Elsewhere: what a local source is made of (`source::files`), what a build is sent
//! (`docker::context`); both need more than the list says.

use std::path::Path;

use globset::{GlobBuilder, GlobMatcher};

#[derive(Debug, Default)]
pub struct DockerIgnore {
    rules: Vec<Rule>,
}

#[derive(Debug)]
struct Rule {
    matcher: GlobMatcher,
    /// `!`: what it names counts after all.
    back: bool,
}

/// A line that is no pattern.
#[derive(Debug)]
pub struct BadPattern {
    pub line: String,
    pub error: globset::Error,
}

impl DockerIgnore {
    /// Reads a list as docker does: `#` begins a comment, `!` takes back.
    ///
    /// # Errors
    /// The first line that is no pattern.
    pub fn parse(text: &str) -> Result<Self, BadPattern> {
        let mut rules = Vec::new();
        for line in text.trim_start_matches('\u{feff}').lines().map(str::trim) {
            if line.starts_with('#') {
                continue;
            }
            let (pattern, back) = match line.strip_prefix('!') {
                Some(pattern) => (pattern.trim(), true),
                None => (line, false),
            };
            let pattern = cleaned(pattern);
            if pattern.is_empty() {
                continue;
            }
            let glob = GlobBuilder::new(&pattern).literal_separator(true).backslash_escape(true).build();
            let glob = glob.map_err(|error| BadPattern { line: line.to_owned(), error })?;
            rules.push(Rule { matcher: glob.compile_matcher(), back });
        }
        Ok(Self { rules })
    }

    /// Whether a path, from the folder, is left out. A pattern that matches a folder counts for all in it.
    pub fn excludes(&self, name: &Path) -> bool {
        let named = |rule: &&Rule| {
            name.ancestors().any(|part| !part.as_os_str().is_empty() && rule.matcher.is_match(part))
        };
        self.rules.iter().rev().find(named).is_some_and(|rule| !rule.back)
    }

    /// Whether anything that is left out may be taken back.
    pub fn takes_back(&self) -> bool {
        self.rules.iter().any(|rule| rule.back)
    }
}

/// A pattern without `.`, `..` and surplus slashes.
fn cleaned(pattern: &str) -> String {
    let mut parts: Vec<&str> = Vec::new();
    for part in pattern.split('/') {
        match part {
            "" | "." => {}
            ".." => drop(parts.pop()),
            part => parts.push(part),
        }
    }
    parts.join("/")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_list_is_anchored_and_its_last_match_wins() {
        let text = "\u{feff}# comment\n/target\n*.log\n**/*.tmp\n./docs/../notes\n!keep.log\nsub/deep\n!sub/deep/in\n!/\n";
        let ignore = DockerIgnore::parse(text).expect("patterns");
        for (name, excluded) in [
            ("target/debug/x", true),
            ("a/target", false),
            ("x.log", true),
            ("a/x.log", false),
            ("keep.log", false),
            ("a/b/x.tmp", true),
            ("x.tmp", true),
            ("notes", true),
            ("sub/deep/out", true),
            ("sub/deep/in/file", false),
            ("src/main.rs", false),
        ] {
            assert_eq!(ignore.excludes(Path::new(name)), excluded, "{name}");
        }
        assert!(ignore.takes_back());
        assert!(!DockerIgnore::parse("a\n").expect("a pattern").takes_back());
        assert_eq!(DockerIgnore::parse("ok\n ![a\n").expect_err("no pattern").line, "![a");
    }
}
