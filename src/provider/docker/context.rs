//! What a build is sent: the files of a folder, less what `.dockerignore` names, as a stream.
//!
//! Never the whole in memory: a thread packs while the engine reads.

use std::fs;
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use bytes::Bytes;
use futures_util::Stream;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;

use crate::provider::dockerignore::DockerIgnore;

/// How much is handed over at once, in bytes.
const CHUNK: usize = 256 * 1024;
/// How many such pieces may wait for the engine.
const AHEAD: usize = 8;

#[derive(Debug, thiserror::Error)]
pub enum ContextError {
    #[error("there is no Dockerfile at {0}: name it with `build.dockerfile`")]
    NoDockerfile(String),
    #[error("there is no folder {0}: name the build's folder with `build.context`")]
    NoFolder(String),
    #[error("`{pattern}` in {file} is no pattern: {why}")]
    Pattern { file: String, pattern: String, why: String },
    #[error("{path} cannot be read: {why}")]
    Unreadable { path: String, why: String },
}

/// A folder that is built from.
#[derive(Debug)]
pub struct Context {
    folder: PathBuf,
    /// The Dockerfile, from the folder.
    pub dockerfile: String,
    ignored: DockerIgnore,
}

impl Context {
    /// Looks at a folder and its Dockerfile, which is named from the folder too.
    pub fn open(folder: &Path, dockerfile: &str) -> Result<Self, ContextError> {
        if !folder.is_dir() {
            return Err(ContextError::NoFolder(folder.display().to_string()));
        }
        let file = folder.join(dockerfile);
        if !file.is_file() {
            return Err(ContextError::NoDockerfile(dockerfile.to_owned()));
        }
        // The Dockerfile's own list comes before the folder's, as docker has it.
        let own = folder.join(format!("{dockerfile}.dockerignore"));
        let list = if own.is_file() { own } else { folder.join(".dockerignore") };
        let text = match fs::read_to_string(&list) {
            Ok(text) => text,
            Err(error) if error.kind() == io::ErrorKind::NotFound => String::new(),
            Err(error) => {
                return Err(ContextError::Unreadable {
                    path: list.display().to_string(),
                    why: error.to_string(),
                });
            }
        };
        // The engine needs the Dockerfile whatever the list says.
        let ignored = DockerIgnore::parse(&format!("{text}\n!/{dockerfile}\n"));
        let ignored = ignored.map_err(|bad| ContextError::Pattern {
            file: list.file_name().unwrap_or_default().to_string_lossy().into_owned(),
            pattern: bad.line,
            why: bad.error.kind().to_string(),
        })?;
        Ok(Self { folder: folder.to_owned(), dockerfile: dockerfile.to_owned(), ignored })
    }

    /// The files as an archive, packed while it is read. An error while packing breaks it off.
    pub fn archive(self) -> impl Stream<Item = io::Result<Bytes>> + Send + 'static {
        let (sender, receiver) = mpsc::channel::<io::Result<Bytes>>(AHEAD);
        tokio::task::spawn_blocking(move || {
            let out = Pieces { sender: sender.clone(), piece: Vec::with_capacity(CHUNK) };
            if let Err(error) = self.pack(out) {
                // Where nobody reads any longer the build is over.
                let _ = sender.blocking_send(Err(error));
            }
        });
        ReceiverStream::new(receiver)
    }

    fn pack(&self, out: Pieces) -> io::Result<()> {
        let mut archive = tar::Builder::new(out);
        archive.follow_symlinks(false);
        archive.mode(tar::HeaderMode::Complete);
        self.folder(&mut archive, Path::new(""))?;
        archive.into_inner()?.flush()
    }

    fn folder(&self, archive: &mut tar::Builder<Pieces>, inner: &Path) -> io::Result<()> {
        let mut entries = fs::read_dir(self.folder.join(inner))?.collect::<io::Result<Vec<_>>>()?;
        entries.sort_by_key(fs::DirEntry::file_name);
        for entry in entries {
            let inner = inner.join(entry.file_name());
            let named =
                |error: io::Error| io::Error::new(error.kind(), format!("{}: {error}", inner.display()));
            let out = self.ignored.excludes(&inner);
            let kind = entry.file_type().map_err(named)?;
            if kind.is_dir() {
                if !out {
                    archive.append_dir(&inner, entry.path()).map_err(named)?;
                }
                // What is taken back, such as the Dockerfile, lies in folders that are left out.
                self.folder(archive, &inner)?;
            } else if !out && (kind.is_file() || kind.is_symlink()) {
                archive.append_path_with_name(entry.path(), &inner).map_err(named)?;
            }
        }
        Ok(())
    }
}

/// Hands what is written over in pieces; waits where the engine is slower.
struct Pieces {
    sender: mpsc::Sender<io::Result<Bytes>>,
    piece: Vec<u8>,
}

impl Write for Pieces {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let taken = bytes.len().min(CHUNK - self.piece.len());
        self.piece.extend_from_slice(&bytes[..taken]);
        if self.piece.len() == CHUNK {
            self.flush()?;
        }
        Ok(taken)
    }

    fn flush(&mut self) -> io::Result<()> {
        if self.piece.is_empty() {
            return Ok(());
        }
        let piece = std::mem::replace(&mut self.piece, Vec::with_capacity(CHUNK));
        let gone = |_| io::Error::new(io::ErrorKind::BrokenPipe, "the engine reads no longer");
        self.sender.blocking_send(Ok(piece.into())).map_err(gone)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn left_out(list: &str, paths: &[&str]) -> Vec<String> {
        let temp = tempfile::tempdir().expect("a folder");
        fs::write(temp.path().join("Dockerfile"), "FROM scratch\n").expect("there is room");
        fs::write(temp.path().join(".dockerignore"), list).expect("there is room");
        let context = Context::open(temp.path(), "Dockerfile").expect("a context");
        paths
            .iter()
            .filter(|path| context.ignored.excludes(Path::new(path)))
            .map(|path| (*path).to_owned())
            .collect()
    }

    #[test]
    fn a_list_is_read_as_docker_reads_it() {
        let paths =
            ["a.md", "README.md", "docs/a.md", "docs/keep.md", "target/x/y", "x/target", "Dockerfile"];
        assert_eq!(left_out("*.md\n!README.md", &paths), ["a.md"]);
        assert_eq!(left_out("**/*.md\n!docs/keep.md", &paths), ["a.md", "README.md", "docs/a.md"]);
        assert_eq!(left_out("/target/\n# x/target", &paths), ["target/x/y"]);
        assert_eq!(left_out("docs\n!docs/keep.md\n", &paths), ["docs/a.md"]);
        assert_eq!(
            left_out("*\n!a.md", &paths),
            ["README.md", "docs/a.md", "docs/keep.md", "target/x/y", "x/target"]
        );
        assert_eq!(left_out("**/target\n", &paths), ["target/x/y", "x/target"]);
    }

    #[test]
    fn a_pattern_that_is_none_is_named() {
        let temp = tempfile::tempdir().expect("a folder");
        fs::write(temp.path().join("Dockerfile"), "FROM scratch\n").expect("there is room");
        fs::write(temp.path().join(".dockerignore"), "ok\n[a\n").expect("there is room");
        let error = Context::open(temp.path(), "Dockerfile").expect_err("a bad pattern");
        assert!(error.to_string().starts_with("`[a` in .dockerignore is no pattern: "), "{error}");
        let error = Context::open(temp.path(), "Other").expect_err("no Dockerfile");
        assert_eq!(error.to_string(), "there is no Dockerfile at Other: name it with `build.dockerfile`");
    }
}
