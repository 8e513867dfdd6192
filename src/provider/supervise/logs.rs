//! The log files of an app: replicas append to them by themselves.
//!
//! A replica keeps its file open for as long as it lives, so rotation copies the file and then
//! empties it. What is written between the two is lost; nothing else is.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Seek, SeekFrom};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

/// The size in bytes at which a log is rotated.
pub const ROTATE_AT: u64 = 10 << 20;
/// How many rotated files are kept.
const KEEP: u32 = 3;
/// How much of a log's end is searched for its last lines.
const TAIL: u64 = 64 << 10;
/// A longer line is cut, in characters.
const LINE: usize = 500;

/// Opens a log as a replica gets it: every write goes to the end of the file.
pub fn append(path: &Path) -> io::Result<File> {
    OpenOptions::new().append(true).create(true).mode(0o600).open(path)
}

/// How long a log is; an absent one has no bytes.
pub fn length(path: &Path) -> u64 {
    fs::metadata(path).map_or(0, |file| file.len())
}

/// The last `count` lines written at or after the byte `from`, oldest first.
pub fn tail(path: &Path, from: u64, count: usize) -> Vec<String> {
    read_tail(path, from, count).unwrap_or_default()
}

/// Rotates every replica's log of a folder, and the supervisor's, that has grown to `limit` bytes.
/// The logs of steps are norn's: they are whole.
pub fn rotate_folder(folder: &Path, limit: u64) -> io::Result<()> {
    for entry in fs::read_dir(folder)? {
        let path = entry?.path();
        let name = path.file_name().and_then(|name| name.to_str()?.strip_suffix(".log"));
        let ours = name.is_some_and(|name| name == "supervisor" || name.parse::<u32>().is_ok());
        if ours && length(&path) >= limit {
            rotate(&path)?;
        }
    }
    Ok(())
}

fn rotate(path: &Path) -> io::Result<()> {
    for number in (1..KEEP).rev() {
        match fs::rename(numbered(path, number), numbered(path, number + 1)) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            Ok(()) | Err(_) => {}
        }
    }
    let mut copy = OpenOptions::new();
    let mut copy = copy.write(true).create(true).truncate(true).mode(0o600).open(numbered(path, 1))?;
    io::copy(&mut File::open(path)?, &mut copy)?;
    OpenOptions::new().write(true).open(path)?.set_len(0)
}

fn numbered(path: &Path, number: u32) -> PathBuf {
    path.with_extension(format!("log.{number}"))
}

fn read_tail(path: &Path, from: u64, count: usize) -> io::Result<Vec<String>> {
    let mut file = File::open(path)?;
    let end = file.metadata()?.len();
    // A log shorter than where the replica began was rotated since: all of it is new.
    let from = if from > end { 0 } else { from };
    let start = from.max(end.saturating_sub(TAIL));
    file.seek(SeekFrom::Start(start))?;
    let mut bytes = Vec::new();
    file.take(end - start).read_to_end(&mut bytes)?;
    let text = String::from_utf8_lossy(&bytes);
    let mut lines: Vec<&str> = text.lines().collect();
    // Where the search began inside a line, its beginning is missing.
    if start > from && !lines.is_empty() {
        lines.remove(0);
    }
    let lines = &lines[lines.len().saturating_sub(count)..];
    Ok(lines.iter().map(|line| line.chars().take(LINE).collect()).collect())
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;

    #[test]
    fn rotation_keeps_three_and_the_writer_goes_on() {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let path = folder.path().join("0.log");
        let mut replica = append(&path).expect("the log opens");
        for round in 1..=5 {
            writeln!(replica, "round {round}").expect("the log is written");
            rotate_folder(folder.path(), 8).expect("the log rotates");
        }
        writeln!(replica, "now").expect("the log is written");
        rotate_folder(folder.path(), 8).expect("a short log is left alone");
        fs::write(folder.path().join("build.log"), "longer than the limit").expect("it is written");
        rotate_folder(folder.path(), 8).expect("nothing to rotate");
        let read = |name: &str| fs::read_to_string(folder.path().join(name)).expect("the file is there");
        assert_eq!(read("0.log"), "now\n");
        assert_eq!(read("build.log"), "longer than the limit");
        assert_eq!(read("0.log.1"), "round 5\n");
        assert_eq!(read("0.log.3"), "round 3\n");
        assert!(!folder.path().join("0.log.4").exists());
    }

    #[test]
    fn a_tail_has_only_lines_of_this_start() {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let path = folder.path().join("0.log");
        let mut replica = append(&path).expect("the log opens");
        writeln!(replica, "of the one before").expect("the log is written");
        let from = length(&path);
        for line in 0..30 {
            writeln!(replica, "line {line}").expect("the log is written");
        }
        let lines = tail(&path, from, 20);
        assert_eq!((lines.len(), lines[0].as_str(), lines[19].as_str()), (20, "line 10", "line 29"));
        assert_eq!(tail(&path, from, 100).len(), 30);
        fs::write(&path, "after rotation\n").expect("the log is replaced");
        assert_eq!(tail(&path, from, 20), ["after rotation"]);
    }
}
