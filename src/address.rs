//! Where a resource stands in the project: `forge/web`, `deploy/web`.

use std::fmt;
use std::str::FromStr;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::spec::name::{AppName, NameError};

/// What kind of thing an address names; the order is the order of applying.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Kind {
    /// What an app stands on, and the definition it runs under.
    Forge,
    /// The release of an app.
    Deploy,
}

impl Kind {
    pub const ALL: [Kind; 2] = [Kind::Forge, Kind::Deploy];

    pub fn as_str(self) -> &'static str {
        match self {
            Kind::Forge => "forge",
            Kind::Deploy => "deploy",
        }
    }
}

/// The address of one resource, written `kind/name`.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(try_from = "String", into = "String")]
#[schemars(with = "String")]
pub struct Address {
    pub kind: Kind,
    pub name: AppName,
}

impl Address {
    pub fn forge(app: &AppName) -> Self {
        Self { kind: Kind::Forge, name: app.clone() }
    }

    pub fn deploy(app: &AppName) -> Self {
        Self { kind: Kind::Deploy, name: app.clone() }
    }
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.kind.as_str(), self.name)
    }
}

/// Why a text is no address.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum AddressError {
    #[error("an address is KIND/NAME, such as forge/web or deploy/web")]
    Shape,
    #[error("there is no kind {0:?}: the kinds are forge and deploy")]
    Kind(String),
    #[error(transparent)]
    Name(#[from] NameError),
}

impl FromStr for Address {
    type Err = AddressError;

    fn from_str(text: &str) -> Result<Self, AddressError> {
        let (kind, name) = text.split_once('/').ok_or(AddressError::Shape)?;
        let kind = Kind::ALL
            .into_iter()
            .find(|k| k.as_str() == kind)
            .ok_or_else(|| AddressError::Kind(kind.to_owned()))?;
        Ok(Self { kind, name: name.parse()? })
    }
}

impl TryFrom<String> for Address {
    type Error = AddressError;

    fn try_from(text: String) -> Result<Self, AddressError> {
        text.parse()
    }
}

impl From<Address> for String {
    fn from(address: Address) -> String {
        address.to_string()
    }
}
