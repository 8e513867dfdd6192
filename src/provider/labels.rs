//! The labels by which what norn made is found and told from others, on an engine as in a cluster.

use std::collections::BTreeMap;

use crate::spec::name::AppName;
use crate::state::Scope;

/// What tells an app from the others of its project.
pub const APP: &str = "dev.norn.app";

/// The store that knows of it: that of another has apps of the same names.
pub const STORE: &str = "dev.norn.store";

/// Those of all that a project and stage have.
pub fn of_stage(scope: &Scope) -> BTreeMap<String, String> {
    let stage = scope.stage.as_ref().map(ToString::to_string).unwrap_or_default();
    let pairs = [("dev.norn.project", scope.project.to_string()), ("dev.norn.stage", stage)];
    pairs.into_iter().map(|(name, value)| (name.to_owned(), value)).collect()
}

/// Those of all that an app has.
pub fn of_app(scope: &Scope, app: &AppName) -> BTreeMap<String, String> {
    let mut labels = of_stage(scope);
    labels.insert(APP.to_owned(), app.to_string());
    labels
}
