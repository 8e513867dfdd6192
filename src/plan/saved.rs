//! A plan as a file: what `norn plan --out` writes and `norn apply FILE` reads.
//!
//! Here: the document, its seal, and reading it back. In `shape`: the plan in it, in its stored
//! format. Elsewhere: the file itself, and whether its plan may still be applied (`cli`); going on
//! with it (`resume`).
//! Invariants: what is read is what was written, or an error; no value behind a reference or a
//! secret is in it.

mod shape;

use std::collections::BTreeMap;

use jiff::Timestamp;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use serde_json::error::Category;

pub use shape::{OperationV1, PlanV1};

use crate::secret::Secret;
use crate::spec::name::{AppName, ProjectName, StageName};
use crate::state::format;

/// The version of the format that this norn writes and reads.
pub const FORMAT: u32 = 1;

/// How a file begins, whatever its format: how one that was cut off is told from anything else.
const HEAD: &[u8] = b"{\"norn\":\"";

/// What stands in the file, but for the seal.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct SavedV1 {
    /// The version of the norn that wrote it.
    pub norn: String,
    /// The version of this format: 1.
    pub format: u32,
    /// Told apart by it is what the runs of this plan did.
    pub plan_id: String,
    #[schemars(with = "String")]
    pub created_at: Timestamp,
    /// When it may not be applied any more.
    #[schemars(with = "String")]
    pub expires_at: Timestamp,
    pub project: ProjectName,
    pub stage: Option<StageName>,
    pub store: StoreV1,
    /// SHA-256 of each file of the spec, by its path from the root file's folder.
    pub spec: BTreeMap<String, String>,
    pub options: OptionsV1,
    /// Files that `norn plan` wrote beside this one, by their paths from the root file's folder:
    /// they are no part of an app's source.
    pub outputs: Vec<String>,
    /// HMAC-SHA256 of the value of each secret and each reference in `env`, by app and variable.
    pub values: BTreeMap<AppName, BTreeMap<String, String>>,
    pub plan: PlanV1,
}

/// What `norn plan --out` writes.
#[derive(Debug, Serialize, JsonSchema)]
#[schemars(title = "norn plan --out")]
pub struct SealedV1 {
    #[serde(flatten)]
    pub file: SavedV1,
    /// HMAC-SHA256 of all else under a key of the state: what was changed by hand is not applied.
    pub seal: String,
}

/// The state that the plan is for.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct StoreV1 {
    /// What tells it from every other: 16 hex digits.
    pub id: String,
    /// Where it was, for the reader.
    pub place: String,
    /// How many resources it held.
    pub resources: usize,
}

/// How the user bent the plan.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct OptionsV1 {
    pub target: Vec<String>,
    pub exclude: Vec<String>,
    pub redeploy: Vec<AppName>,
    /// Other branches, tags or commits than the spec's, by app.
    pub refs: BTreeMap<AppName, String>,
    pub offline: bool,
    /// Machines that are gone for good, by their host names.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub lost: Vec<String>,
    /// Apps of whose objects others' are taken over.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub adopt: Vec<AppName>,
    /// Whether all of it is torn down; left out where not.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub destroy: bool,
}

/// A file whose seal is not checked yet.
#[derive(Debug)]
pub struct Saved {
    pub file: SavedV1,
    /// The document without its seal, as it stands in the file.
    document: Value,
    seal: String,
}

/// Why a text is no plan that can be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ReadError {
    #[error("is empty")]
    Empty,
    #[error("is no plan of norn")]
    Foreign,
    #[error("is what `norn plan --json` prints, which cannot be applied")]
    Printed,
    #[error("is cut off after {0} bytes")]
    CutOff(usize),
    #[error("is damaged: {0}")]
    Damaged(String),
    #[error("was written by norn {norn} in format {format}, and this norn knows format {FORMAT}")]
    Newer { norn: String, format: u64 },
}

/// The text of a file, sealed with the store's key.
pub fn write(file: &SavedV1, key: &Secret) -> String {
    let mut document = serde_json::to_value(file).expect("a plan has text keys only");
    let seal = format::seal(key, &document);
    document["seal"] = seal.into();
    format!("{document}\n")
}

/// Reads the text of a file; its seal is another matter.
///
/// # Errors
/// Why it is no plan, or none that this norn can use.
pub fn read(text: &[u8]) -> Result<Saved, ReadError> {
    if text.iter().all(u8::is_ascii_whitespace) {
        return Err(ReadError::Empty);
    }
    let mut document: Value = serde_json::from_slice(text).map_err(|error| match error.classify() {
        _ if !begins(text) => ReadError::Foreign,
        Category::Eof => ReadError::CutOff(text.len()),
        Category::Syntax | Category::Data | Category::Io => ReadError::Damaged(error.to_string()),
    })?;
    let (Some(norn), Some(format)) = (document["norn"].as_str(), document["format"].as_u64()) else {
        let printed = document["formatVersion"].is_u64() && document["operations"].is_array();
        return Err(if printed { ReadError::Printed } else { ReadError::Foreign });
    };
    if format > u64::from(FORMAT) {
        return Err(ReadError::Newer { norn: norn.to_owned(), format });
    }
    let seal = document.as_object_mut().and_then(|fields| fields.shift_remove("seal"));
    let Some(Value::String(seal)) = seal else {
        return Err(ReadError::Damaged("it has no seal".into()));
    };
    let file = SavedV1::deserialize(&document).map_err(|error| ReadError::Damaged(error.to_string()))?;
    // Within the parts that stored records share, serde looks over what it does not know.
    if serde_json::to_value(&file).ok().as_ref() != Some(&document) {
        return Err(ReadError::Damaged("it has fields that this norn does not know".into()));
    }
    Ok(Saved { file, document, seal })
}

/// Whether a text begins like a plan, however it is spaced.
pub fn begins(text: &[u8]) -> bool {
    let mut dense = text.iter().filter(|byte| !byte.is_ascii_whitespace());
    HEAD.iter().all(|byte| dense.next() == Some(byte))
}

impl Saved {
    /// Whether the document is as the norn that holds this key sealed it.
    pub fn sealed_with(&self, key: &Secret) -> bool {
        format::seal(key, &self.document) == self.seal
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn file() -> SavedV1 {
        let name = "the tests' names are names";
        SavedV1 {
            norn: "0.1.0".into(),
            format: FORMAT,
            plan_id: "0199".into(),
            created_at: Timestamp::UNIX_EPOCH,
            expires_at: Timestamp::UNIX_EPOCH,
            project: "shop".parse().expect(name),
            stage: Some("prod".parse().expect(name)),
            store: StoreV1 { id: "ab".into(), place: ".norn/state.db".into(), resources: 3 },
            spec: [("infraspec.yaml".to_owned(), "cd".to_owned())].into(),
            options: OptionsV1::default(),
            outputs: Vec::new(),
            values: BTreeMap::new(),
            plan: PlanV1::of(&crate::plan::Plan::default()),
        }
    }

    #[test]
    fn what_was_written_is_read() {
        let key = Secret::new("k1");
        let saved = read(write(&file(), &key).as_bytes()).expect("it is a plan");
        assert_eq!(saved.file, file());
        assert!(saved.sealed_with(&key));
        assert!(!saved.sealed_with(&Secret::new("k2")));
    }

    #[test]
    fn no_byte_of_it_can_be_another() {
        let key = Secret::new("k1");
        let text = write(&file(), &key);
        for at in 0..text.len() - 1 {
            let mut other = text.clone().into_bytes();
            other[at] = if other[at] == b'7' { b'8' } else { b'7' };
            let accepted = read(&other).is_ok_and(|saved| saved.sealed_with(&key));
            assert!(!accepted, "byte {at}: {}", String::from_utf8_lossy(&other));
            assert!(read(&text.as_bytes()[..at]).is_err(), "cut off at {at}");
        }
    }

    #[test]
    fn a_fingerprint_of_a_chosen_value_is_no_seal() {
        let key = Secret::new("k1");
        let document = serde_json::json!({ "norn": "0.1.0" });
        let chosen = Secret::new(format::digest(&document));
        assert_ne!(format::seal(&key, &document), format::fingerprint(&key, &chosen));
    }

    #[test]
    fn what_is_no_plan_says_what_it_is() {
        let text = write(&file(), &Secret::new("k1"));
        let newer = text.replace("\"format\":1", "\"format\":2").replace("0.1.0", "0.9.0");
        let more = text.replace("\"plan\":{", "\"plan\":{\"more\":1,");
        let without = text.split_once(",\"seal\"").expect("it is sealed").0.to_owned() + "}";
        let spaced = text.replace(',', ",\n  ");
        let cases = [
            ("", "is empty"),
            (" \n", "is empty"),
            ("a letter", "is no plan of norn"),
            ("{", "is no plan of norn"),
            ("{}", "is no plan of norn"),
            ("[1]", "is no plan of norn"),
            (r#"{"formatVersion": 1, "operations": []}"#, "is what `norn plan --json` prints"),
            (&text[..text.len() / 2], "is cut off after"),
            (&spaced[..spaced.len() / 2], "is cut off after"),
            (&text.replace("\"stage\":", "\"stage\";"), "is damaged: expected `:`"),
            (&text.replace("\"prod\"", "\"Prod\""), "is damaged: a name has lowercase letters"),
            (&text.replace("\"planId\"", "\"planIt\""), "is damaged: unknown field `planIt`"),
            (&more, "is damaged: unknown field `more`"),
            (&without, "is damaged: it has no seal"),
            (&newer, "was written by norn 0.9.0 in format 2"),
        ];
        for (text, expected) in cases {
            let error = read(text.as_bytes()).expect_err(text).to_string();
            assert!(error.starts_with(expected), "{error:?} for {text:?}");
        }
    }
}
