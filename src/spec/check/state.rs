//! Where the state is kept.

use super::Checks;
use crate::spec::problem::Problem;

const SCHEMES: [&str; 2] = ["postgres://", "postgresql://"];

impl Checks<'_> {
    pub(super) fn state(&mut self) {
        let Some(entry) = self.staged.tree.entry("state") else { return };
        let place = |field| entry.value.entry(field).map(|found| (found.key_span, &found.value));
        match (place("url"), place("path")) {
            (Some((url, _)), Some((path, _))) => self.say(
                Problem::error("two-states", "the state has both a `url` and a `path`")
                    .at(url, "a server")
                    .at(path, "a file")
                    .help("keep one"),
            ),
            (None, None) if entry.value.map().is_some_and(<[_]>::is_empty) => self.say(
                Problem::error("no-place", "`state` does not say where the state is")
                    .at(entry.key_span, "neither a `url` nor a `path`")
                    .help(
                        "write `state: {url: \"${NORN_STATE_URL}\"}`, `state: {path: FILE}`, or leave it out",
                    ),
            ),
            (Some((_, url)), None) => {
                let text = url.scalar().unwrap_or_default();
                let span = url.span;
                // A reference may stand for all of it.
                let Some(rest) = SCHEMES.iter().find_map(|scheme| text.strip_prefix(scheme)) else {
                    if !text.starts_with('$') {
                        self.say(
                            Problem::error("no-postgres-url", "`state.url` is no URL of a PostgreSQL database")
                                .at(span, "begins otherwise")
                                .help("write postgres://user@host:port/database, best as a reference: \"${NORN_STATE_URL}\""),
                        );
                    }
                    return;
                };
                let login = rest.split('/').next().and_then(|host| host.rsplit_once('@'));
                let password =
                    login.and_then(|(login, _)| login.split_once(':')).map(|(_, password)| password);
                if password.is_some_and(|password| !password.is_empty() && !password.contains("${")) {
                    self.say(
                        Problem::warning("password", "`state.url` holds a password")
                            .at(span, "everyone who reads the spec can write to the state")
                            .help("refer to a variable instead: \"${NORN_STATE_URL}\""),
                    );
                }
            }
            // What is no map, or has other fields, is told of for that.
            (None, None) | (None, Some(_)) => {}
        }
    }
}
