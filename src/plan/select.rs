//! A part of a plan: `--target` and `--exclude`.

use std::str::FromStr;

use super::Plan;
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

/// Keeps the operations that are targeted (all, if nothing is) and not excluded. What an
/// operation waited for, and is not in the plan any more, is as it is.
pub fn select(plan: &mut Plan, targets: &[Selector], excluded: &[Selector]) {
    plan.operations.retain(|operation| {
        let address = &operation.address;
        let named = |list: &[Selector]| list.iter().any(|selector| selector.names(address));
        (targets.is_empty() || named(targets)) && !named(excluded)
    });
    let left: Vec<Address> = plan.operations.iter().map(|operation| operation.address.clone()).collect();
    for operation in &mut plan.operations {
        operation.waits.retain(|wait| left.contains(&wait.of));
    }
}
