//! Paths that a spec names, and whether they stay in the project.

use super::Checks;
use crate::spec::model::App;
use crate::spec::name::AppName;
use crate::spec::problem::Problem;
use crate::spec::source::Span;
use crate::spec::value::InnerPath;

impl Checks<'_> {
    pub(super) fn paths(&mut self, name: &AppName, app: &App) {
        let home = self.home(name);
        let build = app.build.as_ref();
        let mut inside: Vec<(&str, &str, &InnerPath)> = Vec::new();
        inside.extend(app.path.as_ref().map(|path| (home.as_str(), "path", path)));
        inside.extend(
            app.repo.as_ref().and_then(|repo| repo.path.as_ref()).map(|path| ("", "repo.path", path)),
        );
        inside.extend(build.and_then(|b| b.dockerfile.as_ref()).map(|path| ("", "build.dockerfile", path)));
        inside.extend(build.and_then(|b| b.context.as_ref()).map(|path| ("", "build.context", path)));
        let mut found: Vec<(Span, String)> = Vec::new();
        for (base, field, path) in inside {
            if leaves(base, path.as_str()) {
                found.push((self.value(name, field), path.to_string()));
            }
        }
        for (field, list) in
            [("build.cache", build.map(|b| &b.cache)), ("build.ignore", build.map(|b| &b.ignore))]
        {
            for path in list.into_iter().flatten() {
                let at = self.item(name, field, path.as_str());
                if leaves("", path.as_str()) {
                    found.push((at, path.to_string()));
                } else if normal("", path.as_str()).is_some_and(|parts| parts.is_empty()) {
                    self.say(
                        Problem::error("bad-value", format!("`{path}` in `{field}` is the whole folder"))
                            .at(at, "names everything")
                            .help("name a folder inside it, such as target"),
                    );
                }
            }
        }
        for (at, path) in found {
            self.say(
                Problem::error("outside", format!("`{path}` leaves the project"))
                    .at(at, "points outside")
                    .help("norn reads code only below its project's folder: move the code in, or use `repo`"),
            );
        }
    }
}

/// Whether `path`, taken from `base`, leaves the folder that `base` is in.
fn leaves(base: &str, path: &str) -> bool {
    normal(base, path).is_none()
}

/// The parts of `base/path` without `.` and `..`; none where it climbs out.
pub fn normal<'a>(base: &'a str, path: &'a str) -> Option<Vec<&'a str>> {
    let mut parts = Vec::new();
    for part in base.split('/').chain(path.split('/')) {
        match part {
            "" | "." => {}
            ".." => {
                parts.pop()?;
            }
            part => parts.push(part),
        }
    }
    Some(parts)
}
