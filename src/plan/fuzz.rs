//! Whatever the bytes: a file is refused as a plan, or its plan can be shown, gone on with, and
//! written again as it is.

use std::collections::BTreeMap;

use super::resume::{At, resume};
use super::saved;
use crate::render;
use crate::secret::Secret;
use crate::state::{Scope, Snapshot};

/// Reads a saved plan. Its seal is another matter, so that what lies behind it is reached.
pub fn plan_file(input: &[u8]) -> bool {
    let saved = match saved::read(input) {
        Ok(saved) => saved,
        Err(error) => {
            assert!(!error.to_string().is_empty());
            return false;
        }
    };
    let file = &saved.file;
    let key = Secret::new("the key of a state");
    let text = saved::write(file, &key);
    let again = saved::read(text.as_bytes()).expect("what was written is read");
    assert!(again.file == *file && again.sealed_with(&key));

    let plan = file.plan.clone().plan();
    assert_eq!(saved::PlanV1::of(&plan), file.plan);
    let scope = Scope { project: file.project.clone(), stage: file.stage.clone() };
    let state = file.store.place.clone();
    let header = render::plan::Header {
        scope: &scope,
        state,
        resources: 0,
        lost: &file.options.lost,
        saved: Some(file),
    };
    let shown = render::plan::human(&header, &plan, false);
    let steers = |c: char| c.is_control() && !['\n', '\t'].contains(&c);
    assert!(!shown.contains(steers), "the plan steers the terminal: {shown:?}");
    render::markdown::plan(&header, &plan);
    serde_json::to_string(&render::plan_json::document(&header, &plan)).expect("it has text keys only");
    let stored = Snapshot::default();
    let at = At { stored: &stored, applied: &[], values: &BTreeMap::new(), running: &BTreeMap::new() };
    // What is there is nothing: the plan may be of something.
    let _moved = resume(&plan, &at);
    true
}
