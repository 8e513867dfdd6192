//! Taking a snapshot of a database.
//!
//! Elsewhere: where `pg_dump` connects and the file (`provider::dump`), when (`deploy`).

use jiff::Timestamp;

use super::command;
use super::events::StepError;
use super::files::{blocking, folder_error};
use super::journal::{Done, InStep};
use crate::provider::supervise::protocol::Command;
use crate::provider::{dump, releases};
use crate::spec::name::AppName;

/// Dumps a database beside the spec. `commit` is what is about to change it.
///
/// # Errors
/// What pg_dump says, and a folder that cannot be written.
pub async fn take(step: &InStep, app: &AppName, database: &str, commit: &str) -> Result<Done, StepError> {
    let world = &step.run.world;
    let folder = &world.folders.snapshots;
    releases::private_folder(folder).map_err(|error| folder_error(folder, &error))?;
    let path = folder.join(dump::file_name(database, commit, Timestamp::now()));
    // One an app: what a killed dump left is begun anew.
    let partial = folder.join(format!(".{app}.part"));
    dump::begin(&partial).map_err(|error| folder_error(folder, &error))?;
    let mut env = world.environment.base.clone();
    match &world.postgres {
        Some(server) => env.extend(dump::libpq(server).map_err(|error| StepError::new(error.to_string()))?),
        None => env.extend(world.environment.postgres.clone()),
    }
    env.entry("PGCONNECT_TIMEOUT".into()).or_insert_with(|| "30".into());
    let command = Command::Exec(dump::arguments(database, &partial));
    let result = command::run(step, &command, "pg_dump", folder, &env).await;
    let dumped = result.map_err(|error| {
        let _ = std::fs::remove_file(&partial);
        let where_to = if world.postgres.is_some() { "`postgres.url`" } else { "the PG* variables" };
        error.help(format!(
            "check {where_to} and that pg_dump is installed and not older than the server; nothing was changed"
        ))
    })?;
    let kept = blocking(move || dump::keep(&partial, &path)).await;
    let kept = kept.map_err(|error| folder_error(folder, &error))?;
    let name = kept.path.file_name().unwrap_or_default().to_string_lossy();
    let said = format!("snapshots/{name}, {} bytes, sha256 {}\n{dumped}", kept.bytes, kept.checksum);
    Ok(Done::said(said))
}
