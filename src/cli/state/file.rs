//! `norn state export` and `import`: all of the state in one file.

use std::fs::File;
use std::io::{self, Write};
use std::os::fd::AsFd;
use std::path::Path;
use std::time::Duration;

use rustix::fs::{FileType, fstat};

use crate::apply::Control;
use crate::apply::lease;
use crate::cli::args::Global;
use crate::cli::failure::{Exit, Failure};
use crate::cli::locked::{holder, tell_waiting};
use crate::cli::project::{Project, store_failure};
use crate::provider::machine;
use crate::render::Printer;
use crate::state::Dump;
use crate::state::dump::MOST;

pub fn export(global: &Global, file: &Path, printer: Printer) -> Result<Exit, Failure> {
    crate::cli::runtime()?.block_on(async {
        let project = Project::open(global, printer).await?;
        let dump = project.store.export().await.map_err(store_failure)?;
        let Some(dump) = dump else { return Err(super::absent(&project)) };
        let row = project.store.lease().await.map_err(store_failure)?;
        let bytes = dump.bytes();
        if file == Path::new("-") {
            let text = String::from_utf8(bytes).expect("JSON is a text");
            printer.data(&text);
            warn(&dump, text.len(), printer);
            printer.talk(if is_open_to_others(io::stdout()) {
                "warning: this holds the key of the state's fingerprints, and others can read the file that it went into: make it 0600, or use `norn state export FILE`, which writes one that only you can read"
            } else {
                "this holds the key of the state's fingerprints: keep it like a password"
            });
        } else {
            write_new(file, &bytes).map_err(|error| match error.kind() {
                io::ErrorKind::AlreadyExists => Failure::new(format!("{} is there already", file.display()))
                    .help("name a file that is not, or move that one away"),
                // In the words of its kind: the error itself names a temporary file.
                kind => {
                    Failure::new(format!("{} cannot be written: {}", file.display(), io::Error::from(kind)))
                        .help("name another file")
                }
            })?;
            warn(&dump, bytes.len(), printer);
            printer.talk(&format!("wrote {} of {}, {}", file.display(), project.scope, words(&dump)));
        }
        if let Some(held) = row.and_then(|row| row.blocker(machine::alive)) {
            printer.talk(&format!("warning: {held} is at work: this is how far it was"));
        }
        Ok(Exit::Ok)
    })
}

pub fn import(global: &Global, file: &Path, wait: Duration, printer: Printer) -> Result<Exit, Failure> {
    crate::cli::runtime()?.block_on(async {
        let project = Project::open(global, printer).await?;
        let unread = |why: String| {
            Failure::new(format!("{} is no state that can be imported: {why}", file.display()))
                .help("import a file that `norn state export` wrote")
        };
        let dump = if file == Path::new("-") {
            Dump::read(io::stdin().lock()).map_err(|error| unread(error.to_string()))?
        } else {
            let opened = File::open(file)
                .map_err(|error| Failure::new(format!("{} cannot be read: {error}", file.display())))?;
            Dump::read(opened).map_err(|error| unread(error.to_string()))?
        };
        if dump.scope != project.scope {
            return Err(unread(format!("it is of {}, not of {}", dump.scope, project.scope))
                .help("name the spec and the stage that it is of, with -f and --stage"));
        }
        // Before the first write, so that a refusal leaves all as it was.
        let there = project.store.export().await.map_err(store_failure)?;
        super::must_be_empty(&project.state_label(), there.as_ref())?;
        project.prepare()?;
        let store = &project.store;
        let (holder, control) = (holder("norn state import")?, Control::default());
        let taken = lease::take(&**store, &holder, wait, &control, &mut tell_waiting(printer)).await;
        let (lease, _) = taken.map_err(store_failure)?.expect("nothing stops it");
        let imported = store.import(&lease, &dump).await;
        let _ = store.unlock(&lease).await;
        imported.map_err(store_failure)?;
        project.place.remember_filled(&dump.key)?;
        printer.talk(&format!("{} has {} now", project.state_label(), words(&dump)));
        Ok(Exit::Ok)
    })
}

/// Whether it is a file that more than its owner can read.
fn is_open_to_others(stream: impl AsFd) -> bool {
    fstat(stream).is_ok_and(|file| {
        FileType::from_raw_mode(file.st_mode) == FileType::RegularFile && file.st_mode & 0o044 != 0
    })
}

/// Writes a file that is not there yet, mode 0600, whole or not at all.
fn write_new(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let mut file = tempfile::NamedTempFile::new_in(folder)?;
    file.write_all(bytes)?;
    file.as_file().sync_all()?;
    file.persist_noclobber(path).map_err(|error| error.error)?;
    File::open(folder)?.sync_all()
}

fn warn(dump: &Dump, bytes: usize, printer: Printer) {
    super::warn_of_left_out(dump, printer);
    if bytes as u64 > MOST {
        printer.talk(&format!(
            "warning: this is more than the {} MiB that `norn state import` reads; `norn state migrate` has no such bound",
            MOST >> 20
        ));
    }
}

/// Such as `2 resources and 14 deployments`.
fn words(dump: &Dump) -> String {
    let count = |table: &str, one: &str| match dump.count(table) {
        1 => format!("1 {one}"),
        n => format!("{n} {one}s"),
    };
    format!("{} and {}", count("norn_resources", "resource"), count("deployments", "deployment"))
}
