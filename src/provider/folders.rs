//! The folders of a stage that stay where they are when its state moves: what runs has its files,
//! logs and sockets there under their names, so the new place gets links to them.

use std::fs;
use std::io;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};

use super::releases::private_folder;

/// What lies in a stage's folder and belongs to its state.
const PARTS: [&str; 5] = ["releases", "cache", "volumes", "logs", "run"];

/// A folder that is no link and not empty where a link would be.
#[derive(Debug, PartialEq, Eq)]
pub struct InTheWay(pub PathBuf);

/// Whether `to` can lead to what is in `from`: nothing of its own may be there.
pub fn can_lead(from: &Path, to: &Path) -> Result<(), InTheWay> {
    for part in PARTS {
        let (from, link) = (from.join(part), to.join(part));
        let empty = || fs::read_dir(&link).is_ok_and(|mut entries| entries.next().is_none());
        if link.symlink_metadata().is_ok() && !leads(&link, &from) && !empty() {
            return Err(InTheWay(link));
        }
    }
    Ok(())
}

/// Makes `to` lead to what is in `from`; done twice it changes nothing.
pub fn lead(from: &Path, to: &Path) -> io::Result<()> {
    private_folder(to)?;
    for part in PARTS {
        let (from, link) = (from.join(part), to.join(part));
        private_folder(&from)?;
        if leads(&link, &from) {
            continue;
        }
        if link.is_dir() {
            // Only an empty one can be removed so.
            fs::remove_dir(&link)?;
        }
        symlink(from.canonicalize()?, &link)?;
    }
    fs::File::open(to)?.sync_all()
}

/// The folder that a stage's folder leads to, where its state was moved.
pub fn stayed(stage: &Path) -> Option<PathBuf> {
    let link = stage.join("releases");
    if !link.is_symlink() {
        return None;
    }
    Some(link.canonicalize().ok()?.parent()?.to_owned())
}

/// How many links are followed, one after the other.
const LINKS: u32 = 40;

/// A path with its links followed, as far as it is there.
pub fn real(path: &Path) -> PathBuf {
    followed(path, LINKS)
}

fn followed(path: &Path, links: u32) -> PathBuf {
    if let Ok(path) = path.canonicalize() {
        return path;
    }
    let (Some(folder), Some(name)) = (path.parent(), path.file_name()) else { return path.to_owned() };
    // The folder of a bare name is the one that the user is in.
    let folder = if folder.as_os_str().is_empty() { Path::new(".") } else { folder };
    let folder = followed(folder, links);
    match fs::read_link(path) {
        // One that leads to what is not there yet.
        Ok(to) if links > 0 => followed(&folder.join(to), links - 1),
        Ok(_) | Err(_) => folder.join(name),
    }
}

fn leads(link: &Path, to: &Path) -> bool {
    let real = |path: &Path| path.canonicalize().ok();
    real(link).is_some_and(|end| real(to) == Some(end))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_folder_that_leads_to_another_is_that_other() {
        let temp = tempfile::tempdir().expect("a folder");
        let at = |name: &str| temp.path().canonicalize().expect("a folder").join(name);
        fs::create_dir_all(at("old/releases/web")).expect("there is room");
        fs::create_dir_all(at("new/logs")).expect("there is room");
        for _ in 0..2 {
            assert_eq!(can_lead(&at("old"), &at("new")), Ok(()));
            lead(&at("old"), &at("new")).expect("nothing is in the way");
        }
        assert!(at("new/releases/web").is_dir());
        fs::write(at("new/logs/web.log"), "").expect("there is room");
        assert!(at("old/logs/web.log").exists());
        assert_eq!(stayed(&at("new")), Some(at("old")));
        assert_eq!(stayed(&at("old")), None);

        // Moved once more, it leads to where the files are, and not to a link.
        lead(&at("new"), &at("newer")).expect("nothing is in the way");
        fs::remove_dir_all(at("new")).expect("it is ours");
        assert!(at("newer/releases/web").is_dir());
        assert_eq!(stayed(&at("newer")), Some(at("old")));

        // And back to where it was.
        assert_eq!(can_lead(&at("newer"), &at("old")), Ok(()));
        lead(&at("newer"), &at("old")).expect("it is there already");
        fs::create_dir_all(at("other/run/socket")).expect("there is room");
        assert_eq!(can_lead(&at("old"), &at("other")), Err(InTheWay(at("other/run"))));
        assert!(lead(&at("old"), &at("other")).is_err());
        assert!(at("other/run/socket").is_dir());
    }
}
