//! Volumes of processes and containers: where an app's are, and that they are there before anything
//! sees them.
//!
//! Here: folders beside the stage's state, and what a container is given. Elsewhere: whether a plan
//! may go on with them (`plan::volumes`), volumes of an engine (`provider::docker::hold`), of a cluster
//! (`provider::kubernetes`).
//! Invariant: what a volume holds is never removed; it follows its app to another name or nothing is done.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};

use super::events::StepError;
use super::files::folder_error;
use super::world::{Folders, World};
use crate::desired::{Definition, Runtime, Volume};
use crate::failpoint;
use crate::provider::docker::hold::Mount;
use crate::provider::releases::private_folder;
use crate::spec::name::AppName;

impl Folders {
    /// Where the apps' volumes are.
    fn all_volumes(&self) -> PathBuf {
        self.stage.join("volumes")
    }

    /// Where an app's volumes are, a folder each.
    pub fn volumes(&self, app: &AppName) -> PathBuf {
        self.all_volumes().join(app.as_str())
    }
}

impl World {
    /// What an app's migrations and replicas get: its environment, and where its volumes are. The
    /// folders of a process are there then.
    pub fn env_with_volumes(
        &self,
        app: &AppName,
        definition: &Definition,
    ) -> Result<BTreeMap<String, String>, StepError> {
        let mut env = self.env(app, definition);
        for volume in &definition.volumes {
            let place = match definition.runtime {
                Runtime::Process => self.folder_of(app, volume)?.display().to_string(),
                Runtime::Docker | Runtime::Kubernetes => volume.path.clone(),
            };
            env.insert(volume.variable(), place);
        }
        Ok(env)
    }

    /// The folder that is a process's volume.
    fn folder_of(&self, app: &AppName, volume: &Volume) -> Result<PathBuf, StepError> {
        if let Some(path) = &volume.host_path {
            let path = PathBuf::from(path);
            return if path.is_dir() {
                Ok(path)
            } else {
                let message =
                    format!("there is no folder {}, which is the volume `{}`", path.display(), volume.name);
                Err(StepError::new(message)
                    .help("make it, or take `hostPath` out for a folder that norn makes"))
            };
        }
        let own = self.folders.volumes(app);
        if own.is_symlink() {
            let message = format!("{} leads to the volumes of an app that had this name", own.display());
            return Err(StepError::new(message).help(
                "what runs of that app may be using it: restart it with `norn restart`, and apply again",
            ));
        }
        let path = own.join(&volume.name);
        private_folder(&path).map_err(|error| folder_error(&path, &error))?;
        Ok(path)
    }

    /// What a container of an app is given.
    pub fn mounts(&self, app: &AppName, definition: &Definition) -> Vec<Mount> {
        let stage = self.scope.stage.as_ref().map(|stage| format!(".{stage}")).unwrap_or_default();
        let mount = |volume: &Volume| Mount {
            // No part has a dot in it, so no two volumes have one name.
            from: volume
                .host_path
                .clone()
                .unwrap_or_else(|| format!("{}{stage}.{app}.{}", self.scope.project, volume.name)),
            path: volume.path.clone(),
        };
        definition.volumes.iter().map(mount).collect()
    }
}

/// Gives the folder of a former name's volumes the new name. What runs knows the former one, which
/// leads to it until [`forget`].
///
/// # Errors
/// Where it cannot be done, and where the new name has volumes of an app that is gone.
pub fn follow(folders: &Folders, app: &AppName, from: &AppName) -> Result<(), StepError> {
    let (old, new) = (folders.volumes(from), folders.volumes(app));
    let moved = || {
        if leads(&new, &old) {
            // Back to a name that it had before.
            fs::remove_file(&new)?;
        }
        if is_folder(&old) {
            failpoint::before("follow", &new)?;
            fs::rename(&old, &new)?;
            failpoint::after("follow", &new)?;
        }
        if is_folder(&new) && !old.is_symlink() { symlink(app.as_str(), &old) } else { Ok(()) }
    };
    if is_folder(&old) && new.symlink_metadata().is_ok() && !leads(&new, &old) {
        let message = format!("{} is in the way of the volumes of {from}, which is now {app}", new.display());
        return Err(StepError::new(message)
            .help("an app of this name was there before and left its volumes: move that folder away"));
    }
    moved().map_err(|error| folder_error(&new, &error))
}

/// Removes the former names of an app's volumes, once nothing runs that knows them.
pub fn forget(folders: &Folders, app: &AppName) -> io::Result<()> {
    let own = folders.volumes(app);
    let Ok(entries) = fs::read_dir(folders.all_volumes()) else { return Ok(()) };
    let former: Vec<PathBuf> = entries.flatten().map(|entry| entry.path()).collect();
    let former: Vec<&PathBuf> = former.iter().filter(|path| leads(path, &own)).collect();
    former.into_iter().try_for_each(fs::remove_file)
}

fn is_folder(path: &Path) -> bool {
    path.symlink_metadata().is_ok_and(|found| found.is_dir())
}

/// Whether a link ends in a folder.
fn leads(link: &Path, folder: &Path) -> bool {
    link.is_symlink() && is_folder(folder) && link.canonicalize().ok() == folder.canonicalize().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(folders: &Folders) -> Vec<String> {
        let entries = fs::read_dir(folders.all_volumes()).expect("it is there");
        let mut names: Vec<String> =
            entries.map(|entry| entry.expect("one").file_name().to_string_lossy().into_owned()).collect();
        names.sort();
        names
    }

    #[test]
    fn volumes_follow_their_app_and_are_found_under_the_former_names() {
        let temp = tempfile::tempdir().expect("a folder");
        let stage = temp.path().to_owned();
        let folders = Folders { norn: stage.clone(), snapshots: stage.join("snapshots"), stage };
        let [web, site, page] = ["web", "site", "page"].map(|name| name.parse::<AppName>().expect("a name"));
        follow(&folders, &site, &web).expect("nothing is to be done");
        fs::create_dir_all(folders.volumes(&web).join("data")).expect("made");
        fs::write(folders.volumes(&web).join("data/x"), "1").expect("written");
        let holds = |app: &AppName| {
            fs::read_to_string(folders.volumes(app).join("data/x")).is_ok_and(|text| text == "1")
        };
        for _ in 0..2 {
            follow(&folders, &site, &web).expect("moved");
            assert!(is_folder(&folders.volumes(&site)) && holds(&site) && holds(&web));
        }
        // A run that died between the two.
        fs::remove_file(folders.volumes(&web)).expect("a link");
        follow(&folders, &site, &web).expect("gone on with");
        assert!(holds(&web));

        follow(&folders, &page, &site).expect("moved");
        assert!(is_folder(&folders.volumes(&page)) && [&page, &site, &web].map(holds) == [true; 3]);
        forget(&folders, &site).expect("it is not its own");
        assert_eq!(names(&folders), ["page", "site", "web"]);
        // Back to the first name.
        follow(&folders, &web, &page).expect("moved");
        assert!(is_folder(&folders.volumes(&web)) && [&page, &site, &web].map(holds) == [true; 3]);
        forget(&folders, &web).expect("forgotten");
        assert_eq!(names(&folders), ["web"]);
        assert!(holds(&web));

        // What an app of the name left is not mixed with it, nor lost.
        fs::create_dir_all(folders.volumes(&site).join("data")).expect("made");
        let error = follow(&folders, &site, &web).expect_err("it is in the way");
        assert!(error.message.contains("volumes/site is in the way"), "{error:?}");
        assert!(holds(&web) && !holds(&site));
    }
}
