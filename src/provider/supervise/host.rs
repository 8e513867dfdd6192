//! Which machine and folder a project's supervisors are in, and looking into another folder.

use super::client::{Home, Observation};
use crate::provider::folders::real;
use crate::provider::machine;
use crate::spec::name::AppName;
use crate::state::format::Host;

impl Home {
    /// This machine, and the folder in which this home's supervisors are.
    pub fn host(&self) -> Host {
        Host { machine: machine::id(), name: machine::host_name(), folder: real(&self.run) }
    }

    /// What supervises an app that was put live in another folder of this machine: what lives there,
    /// else what is here, as a folder can have been moved.
    pub async fn observe_there_or_here(&self, app: &AppName, there: &Host) -> Observation {
        let (logs, bin) = (self.logs.clone(), self.bin.clone());
        let seen = Home::with_executable(there.folder.clone(), logs, bin, self.executable.clone())
            .observe(app)
            .await;
        let nothing = match &seen {
            Observation::Absent | Observation::Rebooted => true,
            Observation::Unsupervised { replicas } => replicas.is_empty(),
            Observation::Running(_) | Observation::OtherMachine { .. } | Observation::Silent { .. } => false,
        };
        if nothing { self.observe(app).await } else { Observation::OtherMachine { who: there.to_string() } }
    }
}
