//! Work on files in steps, and what its errors mean.

use std::path::Path;

use super::events::StepError;

/// Work on files, which may take long, away from what must go on meanwhile.
pub async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> std::io::Result<T> + Send + 'static,
) -> std::io::Result<T> {
    tokio::task::spawn_blocking(work).await.map_err(std::io::Error::other)?
}

pub fn folder_error(folder: &Path, error: &std::io::Error) -> StepError {
    let shown = folder.display();
    match error.kind() {
        std::io::ErrorKind::StorageFull | std::io::ErrorKind::QuotaExceeded => {
            StepError::new(format!("no space is left for {shown}"))
                .help("free some space on its disk and apply again")
        }
        std::io::ErrorKind::PermissionDenied | std::io::ErrorKind::ReadOnlyFilesystem => {
            StepError::new(format!("{shown} cannot be written: {error}"))
                .help("give this user write access to the folder")
        }
        _ => StepError::new(format!("{shown}: {error}")),
    }
}
