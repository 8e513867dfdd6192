//! What runs here against what is recorded.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::facts::{Facts, Running};
use super::known::Known;
use crate::spec::name::AppName;

/// One thing that is not as norn left it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Drift {
    pub app: AppName,
    pub found: Found,
    /// Whether the plan has an operation that mends it.
    pub repaired: bool,
}

/// How an app differs from its records.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub enum Found {
    NothingRuns,
    /// The machine was started anew since.
    Rebooted,
    /// Processes that it left may live.
    SupervisorGone {
        replicas: usize,
    },
    Silent {
        why: String,
    },
    OtherRelease {
        serves: Option<String>,
        recorded: String,
    },
    OtherDefinition,
    /// What leads to it is missing, or more leads to it or serves beside it than norn put.
    Unreached,
    Unhealthy {
        healthy: u32,
        wanted: u32,
    },
    /// Supervised on another machine, which cannot be seen from here.
    Elsewhere {
        host: String,
    },
    ReleaseMissing {
        tag: String,
    },
    /// Somebody changed its objects in the cluster.
    Fields {
        fields: Vec<FieldDrift>,
    },
}

/// A field of an object in a cluster that is not as norn put it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct FieldDrift {
    /// Such as `deployment/web`.
    pub object: String,
    /// Such as `spec.replicas`; empty for the whole object.
    pub field: String,
    /// As JSON; absent where the field or the object is to go.
    pub wanted: Option<String>,
    /// As JSON; absent where it is not there.
    pub found: Option<String>,
}

impl Found {
    /// Whether putting the app live again mends it. A supervisor restarts what crashes by itself
    /// and takes no order while it is silent; what runs elsewhere is mended there; a release that
    /// is gone is made anew, which is a deploy.
    pub fn mended_by_a_roll(&self) -> bool {
        match self {
            Found::NothingRuns
            | Found::Rebooted
            | Found::SupervisorGone { .. }
            | Found::OtherRelease { .. }
            | Found::Fields { .. }
            | Found::OtherDefinition
            | Found::Unreached => true,
            Found::ReleaseMissing { .. }
            | Found::Unhealthy { .. }
            | Found::Silent { .. }
            | Found::Elsewhere { .. } => false,
        }
    }
}

/// How what is there of an app differs from its records, if it does.
pub fn found(known: &Known, facts: &Facts, app: &AppName) -> Option<Found> {
    let fields = || {
        let fields = facts.fields.get(app).filter(|fields| !fields.is_empty())?;
        known.deploy.as_ref()?;
        Some(Found::Fields { fields: fields.clone() })
    };
    // They are why it does not run as it was to.
    fields().or_else(|| runs(known, facts.running.get(app)))
}

fn runs(known: &Known, running: Option<&Running>) -> Option<Found> {
    let release = known.deploy.as_ref()?;
    let forge = known.forge.as_ref()?;
    let live = forge.definition.as_ref()?;
    match running? {
        // Nothing is to run, so nothing is missing.
        Running::Nothing | Running::Rebooted | Running::Unsupervised { replicas: 0 }
            if live.replicas == 0 =>
        {
            None
        }
        Running::Nothing => Some(Found::NothingRuns),
        Running::Rebooted => Some(Found::Rebooted),
        Running::Unsupervised { replicas } => Some(Found::SupervisorGone { replicas: *replicas }),
        Running::Silent { why } => Some(Found::Silent { why: why.clone() }),
        Running::Elsewhere { host } => Some(Found::Elsewhere { host: host.clone() }),
        Running::Serving { tag, .. } if tag.as_ref() != Some(&release.tag) => {
            Some(Found::OtherRelease { serves: tag.clone(), recorded: release.tag.clone() })
        }
        Running::Serving { definition, .. } if definition.as_ref() != Some(&forge.definition_digest()) => {
            Some(Found::OtherDefinition)
        }
        Running::Serving { reached: false, .. } => Some(Found::Unreached),
        Running::Serving { healthy, wanted, .. } if healthy < wanted => {
            Some(Found::Unhealthy { healthy: *healthy, wanted: *wanted })
        }
        Running::Serving { .. } => None,
    }
}
