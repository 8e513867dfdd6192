//! What a Dockerfile says about the port and the health of what it builds.

use std::io;
use std::path::Path;

use super::read;

#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Docker {
    pub port: Option<u16>,
    pub healthcheck: Option<String>,
}

/// `None` where there is no Dockerfile.
pub(super) fn look(folder: &Path) -> io::Result<Option<Docker>> {
    Ok(read(&folder.join("Dockerfile"))?.map(|text| parse(&text)))
}

/// The last EXPOSE and HEALTHCHECK count: they stand in the last stage, or its base.
fn parse(text: &str) -> Docker {
    let mut docker = Docker::default();
    for instruction in instructions(text) {
        let (word, rest) = instruction.split_once(char::is_whitespace).unwrap_or((&instruction, ""));
        match word.to_ascii_uppercase().as_str() {
            "EXPOSE" => {
                // Below 1024 a port takes a right that few users have.
                let ports = rest.split_ascii_whitespace().filter(|port| !port.ends_with("/udp"));
                let mut ports = ports.filter_map(|port| port.split('/').next()?.parse().ok());
                docker.port = ports.find(|port| *port >= 1024).or(docker.port);
            }
            "HEALTHCHECK" => docker.healthcheck = health_path(rest),
            _ => {}
        }
    }
    docker
}

/// Logical lines: without comments, continued lines joined.
fn instructions(text: &str) -> Vec<String> {
    let mut lines = Vec::new();
    let mut line = String::new();
    for part in text.lines().map(str::trim).filter(|part| !part.starts_with('#')) {
        match part.strip_suffix('\\') {
            Some(part) => line = line + part + " ",
            None => lines.push(std::mem::take(&mut line) + part),
        }
    }
    lines.push(line);
    lines
}

/// The path of the first address of this machine in a health check's command.
fn health_path(command: &str) -> Option<String> {
    let hosts = ["://localhost", "://127.0.0.1", "://0.0.0.0", "://[::1]"];
    let rest = hosts.iter().find_map(|host| command.split_once(host).map(|(_, rest)| rest))?;
    let end = rest.find(|c: char| c.is_whitespace() || "\"'`|;&)>,".contains(c)).unwrap_or(rest.len());
    let (_, path) = rest[..end].split_once('/')?;
    let plain = path.chars().all(|c| c.is_ascii_alphanumeric() || "/._-?=~".contains(c));
    plain.then(|| format!("/{path}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn port_and_health_come_from_the_last_instructions() {
        for (text, port, health) in [
            ("", None, None),
            ("FROM x\nEXPOSE 3000/tcp\n", Some(3000), None),
            ("EXPOSE 80 5353/udp 8443\n", Some(8443), None),
            ("EXPOSE 80\n", None, None),
            ("EXPOSE $PORT\nexpose 4000", Some(4000), None),
            ("# EXPOSE 1\nEXPOSE 99999", None, None),
            ("HEALTHCHECK CMD curl -f http://localhost:80/up || exit 1", None, Some("/up")),
            (
                "HEALTHCHECK --interval=5s \\\n  # often\n  CMD [\"wget\", \"http://127.0.0.1:80/a/b?c=d\"]",
                None,
                Some("/a/b?c=d"),
            ),
            ("HEALTHCHECK CMD curl http://localhost/$X", None, None),
            ("HEALTHCHECK CMD curl http://localhost", None, None),
            ("HEALTHCHECK CMD curl http://localhost/a\nHEALTHCHECK NONE", None, None),
            ("EXPOSE 3000 \\", Some(3000), None),
        ] {
            let expected = Docker { port, healthcheck: health.map(str::to_owned) };
            assert_eq!(parse(text), expected, "{text}");
        }
    }
}
