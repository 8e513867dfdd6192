//! `norn state`: looking after the state itself.

pub mod file;
pub mod migrate;
pub mod show;

use std::time::Duration;

use super::args::Global;
use super::failure::{Exit, Failure};
use super::locked::holder;
use super::project::{Project, store_failure};
use crate::render::Printer;
use crate::state::{Dump, StoreError};

/// Brings the state's schema to this version, which taking the lease does.
pub fn upgrade(global: &Global, printer: Printer) -> Result<Exit, Failure> {
    super::runtime()?.block_on(async {
        let project = Project::open(global, printer).await?;
        if is_absent(&project).await {
            return Err(absent(&project));
        }
        project.prepare()?;
        let lease = project.store.lock(&holder("norn state upgrade")?, Duration::ZERO).await;
        let lease = lease.map_err(store_failure)?;
        let key = project.store.key().await.map_err(store_failure);
        let remembered = key.and_then(|key| project.place.remember(&key));
        project.store.unlock(&lease).await.map_err(store_failure)?;
        remembered?;
        printer.talk(&format!("{} is as this version writes it", project.state_label()));
        Ok(Exit::Ok)
    })
}

/// Whether there is no state; one that is older cannot be read, and is there.
async fn is_absent(project: &Project) -> bool {
    project.store.snapshot().await.is_ok_and(|stored| !stored.exists)
}

fn absent(project: &Project) -> Failure {
    Failure::new(format!("there is no state at {}", project.state_label())).help("`norn apply` makes one")
}

/// Refuses a store with records, where one is to be filled.
fn must_be_empty(place: &str, there: Option<&Dump>) -> Result<(), Failure> {
    let filled = there.and_then(|dump| dump.tables.iter().find(|table| !table.rows.is_empty()));
    match filled {
        None => Ok(()),
        Some(rows) => {
            Err(store_failure(StoreError::NotEmpty { place: place.to_owned(), table: rows.table.name }))
        }
    }
}

fn warn_of_left_out(dump: &Dump, printer: Printer) {
    if !dump.left_out.is_empty() {
        printer.talk(&format!(
            "warning: the database has more than norn knows, which is left out: {}",
            dump.left_out.join(", ")
        ));
    }
}
