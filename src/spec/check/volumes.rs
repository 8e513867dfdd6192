//! Rules between the volumes of one app.

use std::collections::{BTreeMap, BTreeSet};

use super::Checks;
use crate::spec::model::{App, Volume, Volumes};
use crate::spec::name::AppName;
use crate::spec::problem::Problem;
use crate::spec::source::Span;
use crate::spec::yaml::{Kind, Node};

impl Checks<'_> {
    pub(super) fn volumes(&mut self, name: &AppName, app: &App) {
        let Some(volumes) = &app.volumes else { return };
        if let Volumes::List(list) = volumes {
            let mut seen = BTreeSet::new();
            for volume in list.iter().filter(|volume| !seen.insert(&volume.name)) {
                self.say(
                    Problem::error(
                        "duplicate-volume",
                        format!("app `{name}` has two volumes called `{}`", volume.name),
                    )
                    .at(self.value(name, "volumes"), "in this list")
                    .help("rename one of them"),
                );
            }
        }
        self.mounts(name);
        let variables: BTreeSet<String> =
            volumes.by_name().iter().map(|(volume, _)| Volume::variable(volume.as_str())).collect();
        for variable in variables {
            let set = [self.key(name, &format!("env.{variable}")), self.secret(name, &variable)];
            for at in set.into_iter().flatten() {
                self.say(
                    Problem::error(
                        "reserved",
                        format!("app `{name}` sets {variable}, which norn sets for its volume"),
                    )
                    .at(at, "taken by norn")
                    .help("take it out, or call it something else"),
                );
            }
        }
    }

    /// Where a container would see the volumes.
    fn mounts(&mut self, name: &AppName) {
        let mut taken: BTreeMap<String, Span> = BTreeMap::new();
        for (path, span) in self.mount_paths(name) {
            // Another spelling is the same place.
            let parts: Vec<&str> = path.split('/').filter(|part| !part.is_empty() && *part != ".").collect();
            let place = format!("/{}", parts.join("/"));
            if parts.is_empty() {
                self.say(
                    Problem::error(
                        "mounted-root",
                        format!("a volume of app `{name}` would hide all there is"),
                    )
                    .at(span, "the root of the container")
                    .help("mount it at a folder, such as /data"),
                );
            } else if let Some(first) = taken.get(&place) {
                self.say(
                    Problem::error(
                        "duplicate-mount",
                        format!("app `{name}` has two volumes at one place, {place}"),
                    )
                    .at(*first, "taken here")
                    .at(span, "again here")
                    .help("mount one of them elsewhere"),
                );
            } else {
                taken.insert(place, span);
            }
        }
    }

    /// What stands for `mountPath`, in the order of the spec.
    fn mount_paths(&self, name: &AppName) -> Vec<(String, Span)> {
        let Some((_, volumes)) = self.entry(name, "volumes") else { return Vec::new() };
        let all: Vec<&Node> = match &volumes.kind {
            Kind::List(items) => items.iter().collect(),
            _ => volumes.map().into_iter().flatten().map(|entry| &entry.value).collect(),
        };
        let paths = all.into_iter().filter_map(|volume| {
            let path = &volume.entry("mountPath")?.value;
            // Anything else is said to be none already.
            let text = path.scalar().filter(|text| text.starts_with('/'))?;
            Some((text.to_owned(), path.span))
        });
        paths.collect()
    }

    /// Where a secret is named.
    fn secret(&self, name: &AppName, secret: &str) -> Option<Span> {
        let listed = self.items(name, "secrets", secret).into_iter().next();
        listed.or_else(|| self.key(name, &format!("secrets.{secret}")))
    }
}
