//! The names that users give: projects, stages and apps.

use std::borrow::Cow;
use std::fmt;
use std::str::FromStr;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Serialize};

/// Why a text is no name.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum NameError {
    #[error("a name cannot be empty")]
    Empty,
    #[error("a name has at most 63 characters, this one has {0}")]
    TooLong(usize),
    #[error("a name has lowercase letters a-z, digits and '-', not {0:?}")]
    Character(char),
    #[error("a name starts and ends with a letter or a digit")]
    Edge,
}

/// Checks a DNS label (RFC 1123): 1 to 63 of `a-z`, `0-9` and inner `-`, as Kubernetes wants
/// the names of namespaces and workloads.
fn dns_label(text: &str) -> Result<(), NameError> {
    if text.is_empty() {
        return Err(NameError::Empty);
    }
    let allowed = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-';
    if let Some(other) = text.chars().find(|c| !allowed(*c)) {
        return Err(NameError::Character(other));
    }
    if text.len() > 63 {
        return Err(NameError::TooLong(text.len()));
    }
    if text.starts_with('-') || text.ends_with('-') {
        return Err(NameError::Edge);
    }
    Ok(())
}

/// The label closest to `text`: its letters and digits in lower case, with one '-' for whatever
/// stands between them. `None` where it has none.
fn nearest_label(text: &str) -> Option<String> {
    let mut label = String::new();
    for c in text.chars().map(|c| c.to_ascii_lowercase()) {
        if c.is_ascii_lowercase() || c.is_ascii_digit() {
            label.push(c);
        } else if !label.is_empty() && !label.ends_with('-') {
            label.push('-');
        }
    }
    label.truncate(63);
    let label = label.trim_end_matches('-');
    (!label.is_empty()).then(|| label.to_owned())
}

macro_rules! name {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        ///
        /// Invariant: a lowercase DNS label of 1 to 63 bytes.
        #[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        #[serde(try_from = "String", into = "String")]
        pub struct $name(String);

        impl $name {
            pub fn as_str(&self) -> &str {
                &self.0
            }

            /// The name closest to a text that is none, such as that of a folder; `None` where it
            /// has neither a letter nor a digit.
            pub fn nearest(text: &str) -> Option<Self> {
                nearest_label(text).map(Self)
            }
        }

        impl FromStr for $name {
            type Err = NameError;

            fn from_str(text: &str) -> Result<Self, NameError> {
                dns_label(text).map(|()| Self(text.to_owned()))
            }
        }

        impl TryFrom<String> for $name {
            type Error = NameError;

            fn try_from(text: String) -> Result<Self, NameError> {
                text.parse()
            }
        }

        impl From<$name> for String {
            fn from(name: $name) -> String {
                name.0
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }

        impl JsonSchema for $name {
            fn schema_name() -> Cow<'static, str> {
                stringify!($name).into()
            }

            fn inline_schema() -> bool {
                true
            }

            fn json_schema(_: &mut SchemaGenerator) -> Schema {
                json_schema!({
                    "type": "string",
                    "format": "label",
                    "pattern": "^[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?$",
                })
            }
        }
    };
}

name! {
    /// The name of an app, unique in its project.
    AppName
}
name! {
    /// The name of a project: it names the lock and the labels.
    ProjectName
}
name! {
    /// The name of a stage, such as `prod`.
    StageName
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_is_a_dns_label() {
        for good in ["a", "web", "web-2", "0x", &"a".repeat(63)] {
            assert!(good.parse::<AppName>().is_ok(), "{good}");
        }
        for (bad, error) in [
            ("", NameError::Empty),
            ("Web", NameError::Character('W')),
            ("web_1", NameError::Character('_')),
            ("-web", NameError::Edge),
            ("web-", NameError::Edge),
            (&"a".repeat(64), NameError::TooLong(64)),
        ] {
            assert_eq!(bad.parse::<AppName>(), Err(error), "{bad}");
        }
    }
    #[test]
    fn the_nearest_name_keeps_letters_and_digits() {
        let long = "a".repeat(62) + ".b";
        for (text, name) in [
            ("web", Some("web")),
            ("My App_2", Some("my-app-2")),
            ("@scope/web", Some("scope-web")),
            ("--x--", Some("x")),
            ("caf\u{e9}!bar", Some("caf-bar")),
            ("\u{65e5}\u{672c}", None),
            ("", None),
            (&long, Some(&*"a".repeat(62))),
        ] {
            let nearest = AppName::nearest(text);
            assert_eq!(nearest.as_ref().map(AppName::as_str), name, "{text}");
            assert!(nearest.is_none_or(|name| name.as_str().parse::<AppName>().is_ok()), "{text}");
        }
    }
}
