//! What volumes hold, which no plan may lose: what a teardown keeps of them, and what cannot follow an
//! app.

use super::{Blocked, Context};
use crate::desired::{Definition, Runtime, Volume};

/// What is left of an app's volumes, such as `volumes data, uploads`.
pub fn kept(live: Option<&Definition>) -> Option<String> {
    let names: Vec<&str> = live?.volumes.iter().map(|volume| volume.name.as_str()).collect();
    match names.as_slice() {
        [] => None,
        [one] => Some(format!("volume {one}")),
        many => Some(format!("volumes {}", many.join(", "))),
    }
}

impl Context<'_> {
    /// Volumes that the app would go on without: those of another runtime, and under another name those
    /// that an engine or a cluster knows by the app's.
    pub fn volumes_stay(&self) -> Option<Blocked> {
        let (live, new) = (self.known.live()?, &self.app.definition);
        let own = |volume: &Volume| volume.host_path.is_none();
        let goes_on = |old: &Volume| {
            own(old) && new.volumes.iter().any(|volume| own(volume) && volume.name == old.name)
        };
        let volumes = live.volumes.iter().filter(|old| goes_on(old)).map(|old| old.name.clone());
        let volumes: Vec<String> = volumes.collect();
        let with = match self.renamed_from {
            _ if volumes.is_empty() => return None,
            _ if new.runtime != live.runtime => format!("the runtime {}", live.runtime.as_str()),
            Some(old) if live.runtime != Runtime::Process => format!("the name {old}"),
            Some(_) | None => return None,
        };
        Some(Blocked::VolumesStay { volumes, with })
    }
}
