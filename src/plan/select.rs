//! A part of a plan: `--target` and `--exclude`.

use std::fmt;
use std::str::FromStr;

use crate::address::{Address, AddressError};
use crate::spec::name::AppName;

/// An app with all of its resources, or one resource.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Selector {
    App(AppName),
    Resource(Address),
}

impl FromStr for Selector {
    type Err = AddressError;

    fn from_str(text: &str) -> Result<Self, AddressError> {
        if text.contains('/') { text.parse().map(Self::Resource) } else { Ok(Self::App(text.parse()?)) }
    }
}

impl fmt::Display for Selector {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Selector::App(app) => app.fmt(f),
            Selector::Resource(address) => address.fmt(f),
        }
    }
}

impl Selector {
    fn names(&self, address: &Address) -> bool {
        match self {
            Selector::App(app) => *app == address.name,
            Selector::Resource(other) => other == address,
        }
    }

    pub fn app(&self) -> &AppName {
        match self {
            Selector::App(app) => app,
            Selector::Resource(address) => &address.name,
        }
    }
}

/// What is planned: everything that is targeted (all, if nothing is) and not excluded.
#[derive(Debug, Clone, Default)]
pub struct Selection {
    pub targets: Vec<Selector>,
    pub excluded: Vec<Selector>,
}

impl Selection {
    pub fn takes(&self, address: &Address) -> bool {
        let targeted = self.targets.is_empty() || self.targets.iter().any(|target| target.names(address));
        targeted && !self.excludes(address)
    }

    pub fn excludes(&self, address: &Address) -> bool {
        self.excluded.iter().any(|excluded| excluded.names(address))
    }
}
