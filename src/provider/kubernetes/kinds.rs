//! The kinds of objects that norn makes, and how one is named.

use std::fmt;

use serde_json::Value;

/// The kinds of objects that norn makes, in the order in which they are put.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Kind {
    Secret,
    PersistentVolumeClaim,
    Job,
    Deployment,
    Service,
    Ingress,
}

impl Kind {
    pub const ALL: [Kind; 6] = [
        Kind::Secret,
        Kind::PersistentVolumeClaim,
        Kind::Job,
        Kind::Deployment,
        Kind::Service,
        Kind::Ingress,
    ];

    pub fn as_str(self) -> &'static str {
        match self {
            Kind::Secret => "Secret",
            Kind::PersistentVolumeClaim => "PersistentVolumeClaim",
            Kind::Job => "Job",
            Kind::Deployment => "Deployment",
            Kind::Service => "Service",
            Kind::Ingress => "Ingress",
        }
    }

    pub fn plural(self) -> &'static str {
        match self {
            Kind::Secret => "secrets",
            Kind::PersistentVolumeClaim => "persistentvolumeclaims",
            Kind::Job => "jobs",
            Kind::Deployment => "deployments",
            Kind::Service => "services",
            Kind::Ingress => "ingresses",
        }
    }

    /// Whether an object of it may hold what nothing brings back: it is not made anew.
    pub fn holds_data(self) -> bool {
        self == Kind::PersistentVolumeClaim
    }

    /// Empty for the core.
    pub fn group(self) -> &'static str {
        match self {
            Kind::Secret | Kind::PersistentVolumeClaim | Kind::Service => "",
            Kind::Job => "batch",
            Kind::Deployment => "apps",
            Kind::Ingress => "networking.k8s.io",
        }
    }

    pub fn api_version(self) -> &'static str {
        match self {
            Kind::Secret | Kind::PersistentVolumeClaim | Kind::Service => "v1",
            Kind::Job => "batch/v1",
            Kind::Deployment => "apps/v1",
            Kind::Ingress => "networking.k8s.io/v1",
        }
    }
}

/// An object within a namespace, such as `deployment/api`.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Address {
    pub kind: Kind,
    pub name: String,
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.kind.as_str().to_lowercase(), self.name)
    }
}

/// An object as it is to be.
#[derive(Debug, Clone, PartialEq)]
pub struct Object {
    pub address: Address,
    /// What norn owns of it.
    pub body: Value,
}

impl Object {
    /// The object to be put over the one that is there. The ports of a Service keep their names: proxies
    /// find the pods by them, and for a moment find none when one changes.
    pub(super) fn over(&self, found: &Value) -> Self {
        let mut object = self.clone();
        if self.address.kind != Kind::Service {
            return object;
        }
        for port in object.body["spec"]["ports"].as_array_mut().into_iter().flatten() {
            let mut there = found["spec"]["ports"].as_array().into_iter().flatten();
            let there = there.find(|one| ["port", "protocol"].iter().all(|field| one[field] == port[field]));
            let Some((port, there)) = port.as_object_mut().zip(there) else { continue };
            match there.get("name") {
                Some(name) => port.insert("name".to_owned(), name.clone()),
                None => port.remove("name"),
            };
        }
        object
    }
}
