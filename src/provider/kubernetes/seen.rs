//! What a Deployment says of itself: which release serves, under which definition, how well.
//!
//! Invariant: pure.

use serde_json::Value;

use super::objects::{DEFINITION, RELEASE};

/// What serves of an app.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Serving {
    /// The release that it is, once no other serves beside it.
    pub release: Option<String>,
    pub definition: Option<String>,
    /// The image by its digest.
    pub image: Option<String>,
    pub wanted: u32,
    pub ready: u32,
    /// Where a rollout goes on, what it says.
    pub why: Option<String>,
}

/// Reads a Deployment.
pub fn serving(deployment: &Value) -> Serving {
    let (metadata, spec, status) = (&deployment["metadata"], &deployment["spec"], &deployment["status"]);
    let number = |value: &Value| value.as_u64().and_then(|n| u32::try_from(n).ok()).unwrap_or(0);
    let conditions = || status["conditions"].as_array().into_iter().flatten();
    let progressing = conditions().find(|condition| condition["type"] == "Progressing");
    let reason = progressing.and_then(|condition| condition["reason"].as_str()).unwrap_or_default();
    let looked_at = status["observedGeneration"].as_u64() >= metadata["generation"].as_u64();
    // The controller says so once, and takes it back with the next version only.
    let complete = looked_at && reason == "NewReplicaSetAvailable";
    let annotation = |name: &str| metadata["annotations"][name].as_str().map(str::to_owned);
    let image = spec["template"]["spec"]["containers"][0]["image"].as_str().map(str::to_owned);
    let said = progressing.and_then(|condition| condition["message"].as_str()).map(str::to_owned);
    Serving {
        release: annotation(RELEASE).filter(|_| complete),
        definition: annotation(DEFINITION).filter(|_| complete),
        image,
        wanted: spec["replicas"].as_u64().map_or(1, |_| number(&spec["replicas"])),
        ready: number(&status["availableReplicas"]),
        why: said.filter(|_| !complete),
    }
}
