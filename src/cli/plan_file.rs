//! The file of a saved plan: writing it whole or not at all, and reading it within bounds.
//!
//! Elsewhere: what stands in it (`plan::saved`), applying it (`apply_file`).

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};

use jiff::{SignedDuration, Timestamp};
use sha2::{Digest, Sha256};
use uuid::Uuid;

use super::args::Plan;
use super::ask::quoted;
use super::failure::Failure;
use super::place::is_within;
use super::plan::Made;
use super::project::{Project, store_failure};
use crate::desired::Values;
use crate::plan::resume::Fingerprints;
use crate::plan::saved::{self, FORMAT, OptionsV1, PlanV1, ReadError, Saved, SavedV1, StoreV1};
use crate::plan::{self, Work};
use crate::scrub::visible;
use crate::secret::Secret;
use crate::spec::load::Document;
use crate::state::format;

/// The largest file that is a plan, in bytes.
const MOST: u64 = 64 << 20;

/// Saves a plan, founding the store where there is none.
pub async fn save(project: &Project, made: &Made, options: &Plan, path: &Path) -> Result<SavedV1, Failure> {
    let key = match &made.stored.key {
        Some(key) => key.clone(),
        None => {
            project.prepare()?;
            let key = project.store.key().await.map_err(store_failure)?;
            project.place.remember(&key)?;
            key
        }
    };
    let created_at = Timestamp::now();
    let valid_for = SignedDuration::try_from(*options.valid_for.value()).ok();
    let expires_at = valid_for.and_then(|time| created_at.checked_add(time).ok());
    let Some(expires_at) = expires_at else {
        return Err(Failure::new("--valid-for is longer than time goes").help("leave it out for 24h"));
    };
    let selection = &options.selection;
    let file = SavedV1 {
        norn: env!("CARGO_PKG_VERSION").into(),
        format: FORMAT,
        plan_id: Uuid::now_v7().to_string(),
        created_at,
        expires_at,
        project: project.scope.project.clone(),
        stage: project.scope.stage.clone(),
        store: StoreV1 {
            id: format::store_id(&key),
            place: project.state_label(),
            resources: made.stored.resources.len(),
        },
        spec: spec(&project.document),
        options: OptionsV1 {
            target: selection.part.target.iter().map(ToString::to_string).collect(),
            exclude: selection.part.exclude.iter().map(ToString::to_string).collect(),
            redeploy: selection.redeploy.clone(),
            refs: selection.reference.iter().cloned().collect(),
            offline: selection.offline,
            lost: selection.part.lost.clone(),
            adopt: selection.adopt.clone(),
            destroy: options.destroy,
        },
        outputs: options.output.files().iter().filter_map(|path| relative(project, path)).collect(),
        values: values(&made.plan, &made.desired.values, &key),
        plan: PlanV1::of(&made.plan),
    };
    let text = saved::write(&file, &key);
    if text.len() as u64 > MOST {
        return Err(Failure::new(format!("the plan has more than {} MiB", MOST >> 20))
            .help("save it in parts, with --target"));
    }
    write(path, &text).map_err(|error| {
        Failure::new(format!("{} cannot be written: {error}", path.display())).help("name another file")
    })?;
    Ok(file)
}

/// Refuses a file that must not be replaced, before anything is looked up.
pub fn may_be_written(project: &Project, path: &Path) -> Result<(), Failure> {
    let why = match fs::metadata(path) {
        Ok(found) if found.is_dir() => "is a folder",
        Ok(found) if !found.is_file() => "is no file",
        Ok(_) | Err(_) => return is_no_part(project, path),
    };
    Err(Failure::new(format!("{} {why}", path.display())).help("name another file with --out"))
}

/// Refuses to write over what the project itself has, however its path is spelled.
pub fn is_no_part(project: &Project, path: &Path) -> Result<(), Failure> {
    let Ok(path) = std::path::absolute(path) else { return Ok(()) };
    if !project.kept().iter().any(|kept| is_within(&path, kept)) {
        return Ok(());
    }
    Err(Failure::new(format!("{} is a file of the spec or of the state", path.display()))
        .help("name another file, outside of .norn and snapshots"))
}

/// A path as it is kept in a file that may be read in another checkout; `None` outside of the
/// root file's folder.
fn relative(project: &Project, path: &Path) -> Option<String> {
    Some(path.strip_prefix(&project.root.folder).ok()?.to_str()?.to_owned())
}

/// The digests of the spec's files, by their paths from the root file's folder.
pub fn spec(document: &Document) -> BTreeMap<String, String> {
    let digests = document.sources.iter().map(|file| {
        let name = Path::new(&file.path).file_name().unwrap_or_default();
        let path = Path::new(&file.folder).join(name).display().to_string();
        (path, Sha256::digest(&file.text).iter().map(|byte| format!("{byte:02x}")).collect())
    });
    digests.collect()
}

/// The fingerprints of all values that the plan's definitions name and do not hold.
pub fn values(plan: &plan::Plan, values: &Values, key: &Secret) -> Fingerprints {
    let definitions = plan.operations.iter().filter_map(|operation| {
        let definition = match &operation.work {
            Work::Forge(work) => &work.roll.as_ref()?.definition,
            Work::Deploy(work) => &work.definition,
            Work::Teardown(_) => return None,
        };
        Some((&operation.address.name, definition))
    });
    let of = definitions
        .map(|(app, definition)| (app.clone(), format::fingerprints(definition, values.of(app), key)));
    of.collect()
}

/// Writes a file, mode 0600, whole or not at all.
fn write(path: &Path, text: &str) -> io::Result<()> {
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty());
    let mut file = tempfile::NamedTempFile::new_in(folder.unwrap_or(Path::new(".")))?;
    file.write_all(text.as_bytes())?;
    file.as_file().sync_all()?;
    file.persist(path).map(drop).map_err(|error| error.error)
}

/// The saved plans in a folder, by how they begin: what norn wrote is no part of an app's source.
pub fn within(folder: &Path) -> impl Iterator<Item = PathBuf> {
    let begins = |path: &PathBuf| {
        let mut text = Vec::new();
        let read = File::open(path).and_then(|file| file.take(64).read_to_end(&mut text));
        read.is_ok() && saved::begins(&text)
    };
    let files = fs::read_dir(folder).into_iter().flatten().flatten().filter(|entry| {
        // Opening a pipe would wait for its writer.
        entry.file_type().is_ok_and(|kind| kind.is_file())
    });
    files.map(|entry| entry.path()).filter(begins)
}

/// Reads a saved plan. Its seal is not checked: that takes the store's key.
///
/// # Errors
/// What the file is instead, and how to mend that.
pub fn load(path: &Path) -> Result<Saved, Failure> {
    let shown = path.display();
    let again = "`norn plan --out FILE` saves a plan";
    let text = bounded(path).map_err(|error| {
        let what = match error.kind() {
            io::ErrorKind::NotFound => format!("there is no file {shown}"),
            io::ErrorKind::IsADirectory => format!("{shown} is a folder"),
            io::ErrorKind::FileTooLarge => {
                format!("{shown} is no plan of norn: it has more than {} MiB", MOST >> 20)
            }
            _ => format!("{shown} cannot be read: {error}"),
        };
        Failure::new(what).help(again)
    })?;
    saved::read(&text).map_err(|error| {
        let help = match &error {
            ReadError::Foreign => "`norn plan --out FILE` saves a plan; a spec is named with -f",
            ReadError::Empty | ReadError::Printed => again,
            ReadError::CutOff(_) | ReadError::Damaged(_) => "fetch it again whole, or plan again",
            ReadError::Newer { .. } => "use that norn, or plan again with this one",
        };
        // What is quoted of a file that anyone may have written must not steer a terminal.
        Failure::new(format!("{shown} {}", visible(&error.to_string()))).help(help)
    })
}

fn bounded(path: &Path) -> io::Result<Vec<u8>> {
    let found = fs::metadata(path)?;
    if found.is_dir() {
        return Err(io::ErrorKind::IsADirectory.into());
    }
    let mut text = Vec::new();
    if found.len() <= MOST {
        File::open(path)?.take(MOST + 1).read_to_end(&mut text)?;
    }
    // What is no regular file does not tell its size before.
    if found.len().max(text.len() as u64) > MOST { Err(io::ErrorKind::FileTooLarge.into()) } else { Ok(text) }
}

/// The command that applies a file.
pub fn command(path: &Path) -> String {
    format!("norn apply {}", quoted(&path.display().to_string()))
}
