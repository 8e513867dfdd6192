//! `norn state`: looking after the state itself.

use std::time::Duration;

use super::apply::holder;
use super::args::Global;
use super::failure::{Exit, Failure};
use super::project::{Project, store_failure};
use crate::render::Printer;

/// Brings the state's schema to this version, which taking the lease does.
pub fn upgrade(global: &Global, printer: Printer) -> Result<Exit, Failure> {
    super::runtime()?.block_on(async {
        let project = Project::open(global, printer)?;
        // A state that is older cannot be read, and is there.
        if project.store.snapshot().await.is_ok_and(|stored| !stored.exists) {
            return Err(Failure::new(format!("there is no state at {}", project.state_label()))
                .help("`norn apply` makes one"));
        }
        project.prepare()?;
        let lease = project.store.lock(&holder("norn state upgrade")?, Duration::ZERO).await;
        let lease = lease.map_err(store_failure)?;
        let remembered = project.remember();
        project.store.unlock(&lease).await.map_err(store_failure)?;
        remembered?;
        printer.talk(&format!("{} is as this version writes it", project.state_label()));
        Ok(Exit::Ok)
    })
}
