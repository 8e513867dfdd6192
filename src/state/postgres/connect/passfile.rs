//! libpq's file of passwords: lines of `host:port:database:user:password`.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::PathBuf;

use crate::secret::Secret;
use crate::state::postgres::address::{Host, ServerUrl};

/// What the file had to say.
pub(super) enum Found {
    Password(Secret),
    Nothing,
    /// Others may read the file, so it is not used.
    Open(PathBuf),
}

/// Looks for the password of one of the URL's hosts.
pub(super) fn look(url: &ServerUrl, host: &Host) -> Found {
    let Some(path) = &url.passfile else { return Found::Nothing };
    match fs::metadata(path) {
        Ok(file) if file.is_file() && file.mode() & 0o077 == 0 => {}
        Ok(file) if file.is_file() => return Found::Open(path.clone()),
        Ok(_) | Err(_) => return Found::Nothing,
    }
    let Ok(text) = fs::read_to_string(path) else { return Found::Nothing };
    find(&text, host, &url.database, &url.user).map_or(Found::Nothing, Found::Password)
}

fn find(text: &str, host: &Host, database: &str, user: &str) -> Option<Secret> {
    let (name, port) = match host {
        Host::Tcp { name, port } => (name.clone(), port),
        Host::Socket { folder, port } => (folder.display().to_string(), port),
    };
    let port = port.to_string();
    let wanted = [name.as_str(), port.as_str(), database, user];
    let socket = matches!(host, Host::Socket { .. });
    let mut lines = text.lines().filter(|line| !line.starts_with('#'));
    lines.find_map(|line| {
        let fields = fields(line);
        let [its_host, its_port, its_database, its_user, password] = &fields[..] else { return None };
        let own = [its_host, its_port, its_database, its_user];
        let matches = own.iter().zip(wanted).enumerate().all(|(index, (field, wanted))| {
            field.as_str() == "*" || *field == wanted || (index == 0 && socket && *field == "localhost")
        });
        (matches && !password.is_empty()).then(|| Secret::new(password))
    })
}

/// The fields of a line, where `\` takes the next character as it is.
fn fields(line: &str) -> Vec<String> {
    let mut fields = vec![String::new()];
    let mut characters = line.chars();
    while let Some(character) = characters.next() {
        let taken = match character {
            ':' if fields.len() < 5 => {
                fields.push(String::new());
                continue;
            }
            '\\' => characters.next().unwrap_or('\\'),
            other => other,
        };
        fields.last_mut().expect("it begins with one").push(taken);
    }
    fields
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_line_that_fits_gives_the_password() {
        let file = "# host:port:database:user:password\n\
                    h:5432:db:norn:first\n\
                    h:*:*:norn:second\n\
                    h:5432:db:us\\:er:p\\:a\\\\ss:w:ord\n\
                    localhost:5432:*:socket:local\n\
                    too:few:fields\n\
                    *:*:*:empty:\n\
                    *:*:other:*:last";
        let tcp = |name: &str, port| Host::Tcp { name: name.into(), port };
        let socket = || Host::Socket { folder: "/run/pg".into(), port: 5432 };
        let cases = [
            (tcp("h", 5432), "db", "norn", Some("first")),
            (tcp("h", 5433), "db", "norn", Some("second")),
            (tcp("h", 5432), "db", "us:er", Some("p:a\\ss:w:ord")),
            (tcp("g", 5432), "db", "norn", None),
            (tcp("g", 5432), "other", "norn", Some("last")),
            (tcp("h", 5432), "db", "empty", None),
            (socket(), "db", "socket", Some("local")),
            (tcp("too", 5432), "db", "norn", None),
        ];
        for (host, database, user, expected) in cases {
            let found = find(file, &host, database, user);
            assert_eq!(found.as_ref().map(Secret::expose), expected, "{host} {database} {user}");
        }
    }
}
