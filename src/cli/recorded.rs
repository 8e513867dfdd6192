//! Where apps are that are not on this machine, as far as that is recorded.

use std::collections::BTreeMap;

use serde::de::DeserializeOwned;

use crate::address::{Address, Kind};
use crate::desired::{Definition, Desired};
use crate::spec::name::AppName;
use crate::state::{Record, Snapshot};

/// The apps whose forge record has a place in this field.
pub fn places<T: DeserializeOwned>(stored: &Snapshot, field: &str) -> BTreeMap<AppName, T> {
    let forged = stored.resources.iter().filter(|(address, _)| address.kind == Kind::Forge);
    // Every plan asks, of all apps: the rest of a record is not looked at.
    let there = |(address, record): (&Address, &Record)| {
        Some((address.name.clone(), T::deserialize(record.body.get(field)?).ok()?))
    };
    forged.filter_map(there).collect()
}

/// The apps that are in a place, and those of the spec that are `to_be` in one and are not known yet.
pub fn with_new<T>(
    recorded: BTreeMap<AppName, T>,
    stored: &Snapshot,
    desired: &Desired,
    to_be: impl Fn(&Definition) -> bool,
) -> BTreeMap<AppName, Option<T>> {
    let wanted = desired.apps.values().filter(|app| to_be(&app.definition));
    let new = wanted.filter(|app| !stored.resources.contains_key(&Address::forge(&app.name)));
    let recorded = recorded.into_iter().map(|(name, place)| (name, Some(place)));
    new.map(|app| (app.name.clone(), None)).chain(recorded).collect()
}
