//! The names under which the world reaches apps through a tunnel.

use std::collections::BTreeMap;

use super::Checks;
use crate::spec::model::{Role, Runtime};
use crate::spec::name::AppName;
use crate::spec::pending;
use crate::spec::problem::Problem;
use crate::spec::source::Span;

impl Checks<'_> {
    /// Names that the tunnel is to lead to apps lie in its zone, and each leads to one app.
    pub(super) fn hosts(&mut self) {
        let Some(tunnel) = &self.project.cloudflare else { return };
        let zone = tunnel.zone.as_str();
        let unsure = ["cloudflare".to_owned(), "zone".to_owned()].to_vec();
        let certain = !self.staged.unsure.contains(&unsure);
        let place = self.staged.tree.get("cloudflare").and_then(|block| block.get("zone"));
        let place = place.map_or(self.staged.tree.span, |zone| zone.span);
        let mut seen: BTreeMap<&str, (&AppName, Span)> = BTreeMap::new();
        let mut apps: Vec<_> = self.project.apps.iter().collect();
        // The first in the spec keeps it.
        apps.sort_by_key(|(name, _)| self.value(name, "hosts.external"));
        for (name, app) in apps {
            let takes_part = app.role == Role::Webserver
                && pending::runtime(app, self.project) == Runtime::Kubernetes
                && !["role", "runtime", "hosts.external"].iter().any(|field| self.unsure(name, field));
            let host = app.hosts.as_ref().and_then(|hosts| hosts.external.as_ref());
            let Some(host) = host.filter(|_| takes_part).map(|host| host.as_str()) else { continue };
            let at = self.value(name, "hosts.external");
            let inside = host == zone || host.strip_suffix(zone).is_some_and(|rest| rest.ends_with('.'));
            if certain && !inside {
                self.say(
                    Problem::error(
                        "outside-zone",
                        format!("`{host}` of app `{name}` is not in the zone `{zone}`"),
                    )
                    .at(at, "cannot lead to the tunnel")
                    .at(place, "the zone")
                    .help(format!("write a name such as {name}.{zone}, or correct `cloudflare.zone`")),
                );
                continue;
            }
            match seen.get(host) {
                None => _ = seen.insert(host, (name, at)),
                Some((first, earlier)) => self.say(
                    Problem::error(
                        "host-clash",
                        format!("apps `{first}` and `{name}` both want the name `{host}`"),
                    )
                    .at(at, "taken already")
                    .at(*earlier, format!("`{first}` has it first"))
                    .help("give each its own name: the tunnel leads a name to one app"),
                ),
            }
        }
    }
}
