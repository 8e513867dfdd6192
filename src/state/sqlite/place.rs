//! Which database file it is, and whose.

use std::path::PathBuf;

use crate::state::{Scope, StoreError};

pub struct Place {
    /// Absolute, so it cannot be one of the names that SQLite reads otherwise (`:memory:`).
    pub path: PathBuf,
    /// The path as errors name it.
    pub name: String,
    pub scope: Scope,
}

impl Place {
    pub fn foreign(&self, why: String) -> StoreError {
        StoreError::Foreign { place: self.name.clone(), why }
    }
}
