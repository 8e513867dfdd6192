//! One change of one resource, with all that apply needs for it.
//!
//! Here: the data. Elsewhere: deciding it (`forge`, `release`, `teardown`, `waits`), its words
//! (`render::words`).

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::FieldDiff;
use super::drift::Found;
use crate::address::Address;
use crate::desired::{Build, Definition, Rollout, Route, Runtime, Source};
use crate::spec::name::AppName;
use crate::state::Digests;
use crate::state::format::{DeployV1, ForgeV1, RemoteEngine};

/// One change of one resource.
#[derive(Debug, Clone, PartialEq)]
pub struct Operation {
    pub address: Address,
    pub action: Action,
    pub reasons: Vec<Reason>,
    pub diff: Vec<FieldDiff>,
    pub steps: Vec<PlannedStep>,
    pub waits: Vec<Wait>,
    pub risk: Risk,
    /// Why apply refuses it.
    pub blocked: Option<Blocked>,
    /// Digests of the records as the plan found them.
    pub before: Digests,
    pub work: Work,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub enum Action {
    Forge,
    Update,
    Teardown,
    Deploy,
    Rollback,
}

impl Action {
    pub fn as_str(self) -> &'static str {
        match self {
            Action::Forge => "forge",
            Action::Update => "update",
            Action::Teardown => "teardown",
            Action::Deploy => "deploy",
            Action::Rollback => "rollback",
        }
    }
}

/// Why an operation is planned: for the reader, never for apply.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub enum Reason {
    NewInSpec,
    NotInSpec,
    /// The user asked for it by `norn destroy`.
    Destroyed,
    RenamedFrom(AppName),
    DefinitionChanged,
    /// Another name of the world leads to it, or none.
    RouteChanged,
    ProtectionChanged {
        now: bool,
    },
    /// On another runtime, or in another namespace.
    Moved {
        from: String,
        to: String,
    },
    /// Nothing was ever put live.
    NoRelease,
    Commit {
        from: String,
        to: String,
    },
    /// With another commit: the branch, tag or commit that was asked for last, and now.
    Ref {
        from: String,
        to: String,
    },
    BuildChanged,
    SourceChanged,
    Redeploy,
    /// The user asked for it by `norn restart`.
    Restart,
    /// The user asked by `norn rollback` that a release is live again.
    RolledBack {
        from: String,
        to: String,
    },
    /// The user asked for it by `--adopt`.
    Adopted,
    /// What is recorded does not run here.
    NotRunning {
        found: Found,
    },
    /// The release's folder is gone.
    ReleaseMissing,
    /// A run died after this release went live: it only has to be written down.
    LiveUnrecorded,
    /// Under `--offline`: what is asked for was never seen.
    CommitUnknown,
    /// The last attempt failed.
    LastFailed {
        error: String,
    },
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub enum Risk {
    Safe,
    /// Clients notice, and why.
    Interrupts(Interruption),
    Destroys,
}

/// Why clients notice that an app is put live.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub enum Interruption {
    /// The app holds its port itself: the old one stops before the new one starts.
    NoFront,
    /// The same port is opened in another way, so it is closed first.
    PortReopened,
    /// No replica is left.
    NoReplicas,
    /// A volume is for one pod at a time: the old one stops before the new one starts.
    OnePodAtATime,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub enum Blocked {
    /// The app's `protected: true` is remembered.
    Protected,
    /// Under `--offline` no commit is known.
    CommitNotLookedUp,
    /// Another machine runs the app.
    ElsewhereRunning { host: String },
    /// The folder of the running release is gone, and no deploy in the plan makes another.
    ReleaseMissing,
    /// The app runs on another runtime, or in another namespace, which only a teardown ends.
    Moves { from: String, to: String },
    /// What a cluster has keeps its name.
    RenamedInCluster { from: AppName },
    /// What an engine of another host has keeps its name.
    RenamedOnEngine { from: AppName },
    /// These volumes would not follow the app from its runtime or its name.
    VolumesStay {
        volumes: Vec<String>,
        /// Such as `the name web`.
        with: String,
    },
    /// Asked by `--refresh`, the cluster says that it would not take these objects, and why.
    Refused { objects: Vec<String> },
    /// The app wants a port of another, which in turn waits for this one.
    PortHeld { port: u16, by: AppName },
    /// What is live needs these, and the spec or the environment does not give them now.
    ValuesMissing { names: Vec<String> },
}

/// The steps of all operations, by their names in the step logs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Step {
    CreateSecret,
    CreateVolumes,
    CreateService,
    CreateDeployment,
    PatchCloudflared,
    CreateDnsRoute,
    RemoveDnsRoute,
    UnpatchCloudflared,
    RestartCloudflared,
    DeleteService,
    DeleteDeployment,
    Clone,
    Build,
    Test,
    Snapshot,
    Migrate,
    Deploy,
    Cleanup,
}

impl Step {
    pub fn as_str(self) -> &'static str {
        match self {
            Step::CreateSecret => "create-secret",
            Step::CreateVolumes => "create-volumes",
            Step::CreateService => "create-service",
            Step::CreateDeployment => "create-deployment",
            Step::PatchCloudflared => "patch-cloudflared",
            Step::CreateDnsRoute => "create-dns-route",
            Step::RemoveDnsRoute => "remove-dns-route",
            Step::UnpatchCloudflared => "unpatch-cloudflared",
            Step::RestartCloudflared => "restart-cloudflared",
            Step::DeleteService => "delete-service",
            Step::DeleteDeployment => "delete-deployment",
            Step::Clone => "clone",
            Step::Build => "build",
            Step::Test => "test",
            Step::Snapshot => "snapshot",
            Step::Migrate => "migrate",
            Step::Deploy => "deploy",
            Step::Cleanup => "cleanup",
        }
    }

    /// Whether it is of the route, which does not depend on what is live.
    pub fn is_of_route(self) -> bool {
        match self {
            Step::PatchCloudflared
            | Step::CreateDnsRoute
            | Step::RemoveDnsRoute
            | Step::UnpatchCloudflared
            | Step::RestartCloudflared => true,
            Step::CreateSecret
            | Step::CreateVolumes
            | Step::CreateService
            | Step::CreateDeployment
            | Step::DeleteService
            | Step::DeleteDeployment
            | Step::Clone
            | Step::Build
            | Step::Test
            | Step::Snapshot
            | Step::Migrate
            | Step::Deploy
            | Step::Cleanup => false,
        }
    }
}

/// A step, or why it is skipped.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct PlannedStep {
    pub step: Step,
    pub skip: Option<Skip>,
}

/// Why a step has nothing to do.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub enum Skip {
    /// The deploy in the same plan puts release and definition live.
    DeployPutsLive,
    /// No release was ever live.
    NothingLive,
    /// Only what norn remembers changes.
    NothingChanges,
    /// The release serves already.
    Serves,
    /// An image is pulled.
    NoCode,
    /// The cluster pulls the image, and nothing else needs it.
    PulledThere,
    NoBuild,
    NoTest,
    NoDatabase,
    NoMigration,
}

/// `step` of this operation starts after `of` has done `until`, or after all of it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Wait {
    pub step: Step,
    pub of: Address,
    pub until: Option<Step>,
}

/// What apply does.
#[derive(Debug, Clone, PartialEq)]
pub enum Work {
    Forge(Box<ForgeWork>),
    Deploy(Box<DeployWork>),
    Teardown(TeardownWork),
}

#[derive(Debug, Clone, PartialEq)]
pub struct ForgeWork {
    pub renamed_from: Option<AppName>,
    /// What is to run it.
    pub runtime: Runtime,
    pub protected: bool,
    /// How the world is to reach it, by a tunnel.
    pub route: Option<Route>,
    /// What is live now, which stays where nothing is rolled.
    pub live: Option<ForgeV1>,
    /// The running release and the definition to which it is rolled; absent where a deploy does it.
    pub roll: Option<Roll>,
}

/// A stored release under a new definition.
#[derive(Debug, Clone, PartialEq)]
pub struct Roll {
    pub release: DeployV1,
    pub definition: Definition,
    pub rollout: Rollout,
    /// Whether what runs is started again where nothing of it changes.
    pub restart: bool,
    /// Whether objects of others are taken over.
    pub adopt: bool,
    /// Whether fields that others have set are set again.
    pub force: bool,
}

#[derive(Debug, Clone, PartialEq)]
pub struct DeployWork {
    pub source: Source,
    /// 40 hex digits, or `local:` and 64.
    pub commit: String,
    pub tag: String,
    pub build: Build,
    pub migrate: Option<String>,
    /// The database to dump.
    pub snapshot: Option<String>,
    pub definition: Definition,
    pub rollout: Rollout,
    pub protected: bool,
    /// How the world reaches it by then: its forge saw to that.
    pub route: Option<Route>,
    /// A release that serves already: nothing is built, it is written down.
    pub record_only: Option<DeployV1>,
    /// A release that was live before and is to be again: nothing is built, it is put live.
    pub back: Option<Back>,
    /// What is live before.
    pub former: Option<Former>,
    /// Whether objects of others are taken over.
    pub adopt: bool,
    /// Whether fields that others have set are set again.
    pub force: bool,
}

/// A release that is gone back to.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Back {
    pub release: DeployV1,
    /// The row of the release that is left, which becomes `rolled_back`.
    pub leaves: Option<String>,
    /// The tags of the deploys since it was made whose migrations ran: those stay.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub migrated: Vec<String>,
    /// The snapshots of the database as it was before the first of them.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub snapshots: Vec<String>,
}

/// A live release and its definition, which a change that fails goes back to.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Former {
    pub tag: String,
    /// What tells the definition from others, values included.
    pub definition: String,
    pub replicas: u32,
}

#[derive(Debug, Clone, PartialEq)]
pub struct TeardownWork {
    /// The folder of the live release, relative to the stage's.
    pub release: Option<String>,
    /// What ran it.
    pub runtime: Runtime,
    /// Where, on Kubernetes.
    pub namespace: Option<String>,
    /// Where, on an engine of another host.
    pub engine: Option<RemoteEngine>,
    /// The folders of releases that others made while they had its name, and live on.
    pub spares: Vec<String>,
    /// How the world reaches it.
    pub route: Option<Box<Route>>,
    /// What is left, such as `snapshots`.
    pub keeps: Vec<String>,
}

impl DeployWork {
    /// The release, where it is there already.
    pub fn made(&self) -> Option<&DeployV1> {
        self.record_only.as_ref().or(self.back.as_ref().map(|back| &back.release))
    }
}

impl Operation {
    /// The definition that is live once the operation is done, if it puts one live.
    pub fn puts_live(&self) -> Option<&Definition> {
        match &self.work {
            Work::Forge(work) => work.roll.as_ref().map(|roll| &roll.definition),
            Work::Deploy(work) => work.record_only.is_none().then_some(&work.definition),
            Work::Teardown(_) => None,
        }
    }
}
