//! The state in a PostgreSQL database, as users of the binary meet it.

mod away;
mod cuts;
mod elsewhere;
mod hosts;
mod races;
mod refused;
mod takeover;
mod unseen;
mod whole;

use std::process::{Child, Command, Output, Stdio};

use crate::postgres_server::{Database, Server, own};
use crate::shared::free_port;
use crate::support::{Ran, Row, Sandbox, get, until, web};

/// A build that ends once there is a file `go`.
const BUILD_UNTIL_TOLD: &str =
    "build: {command: 'touch ../../../../building; while [ ! -e ../../../../go ]; do sleep 0.05; done'}";

/// A project of one webserver whose state is in a database of its own.
struct Shop {
    sandbox: Sandbox,
    server: &'static Server,
    database: Database<'static>,
    port: u16,
}

impl Shop {
    /// None where PostgreSQL is not installed.
    fn new(what: &str) -> Option<Self> {
        let server = own(what)?;
        let (database, port) = (server.database(), free_port());
        let mut sandbox = Sandbox::webserver(port, "");
        sandbox.env.insert("NORN_STATE_URL".into(), database.url());
        Some(Self { sandbox, server, database, port })
    }

    /// With its database by the server's socket: another machine has a network of its own.
    fn by_socket(what: &str) -> Option<Self> {
        let mut shop = Self::new(what)?;
        let (name, port) = (&shop.database.name, shop.server.port());
        let url = format!("postgres://norn@/{name}?host={}&port={port}", shop.socket());
        shop.state_is_at(&url);
        Some(shop)
    }

    /// The folder of the server's socket.
    fn socket(&self) -> String {
        self.server.folder().display().to_string()
    }

    /// The same project in a folder of another machine's.
    fn elsewhere(&self) -> Sandbox {
        let mut sandbox = Sandbox::webserver(self.port, "");
        sandbox.env = self.sandbox.env.clone();
        sandbox.env.insert("HOME".into(), sandbox.path("home").display().to_string());
        sandbox
    }

    fn state_is_at(&mut self, url: &str) {
        self.sandbox.env.insert("NORN_STATE_URL".into(), url.to_owned());
    }

    /// Another version of the source, of which the spec says more.
    fn version(&self, version: &str, more: &str) {
        write_version(&self.sandbox, self.port, version, more);
    }

    /// Everything that the database holds.
    fn content(&self) -> String {
        self.database.sql("SELECT database_to_xml(true, false, '')")
    }

    /// The deployments, oldest first.
    fn rows(&self) -> Vec<Row> {
        let rows = self.database.sql(
            "SELECT coalesce(json_agg(json_build_array(app, image_tag, status, error, steps::text) \
             ORDER BY started_at, id), '[]') FROM deployments",
        );
        let rows: Vec<[String; 5]> = serde_json::from_str(&rows).expect("rows of texts");
        let row = |[app, tag, status, error, steps]: [String; 5]| Row { app, tag, status, error, steps };
        rows.into_iter().map(row).collect()
    }

    fn statuses(&self) -> String {
        self.rows().iter().map(|row| row.status.clone()).collect::<Vec<_>>().join(" ")
    }

    /// What stands between a run that was undone and one that never was: nothing unsettled, one
    /// supervisor with its replicas, an empty plan.
    fn is_sound(&self, moment: &str) {
        let open = "SELECT (SELECT count(*) FROM norn_runs WHERE ended_at IS NULL) + \
                    (SELECT count(*) FROM norn_operations WHERE ended_at IS NULL) + \
                    (SELECT count(*) FROM norn_steps WHERE ended_at IS NULL) + \
                    (SELECT count(*) FROM norn_locks WHERE run IS NOT NULL)";
        assert_eq!(self.database.sql(open), "0", "{moment}: everything in the journal has ended");
        let rows = self.rows();
        let settled = |row: &Row| ["deployed", "failed", "rolled_back"].contains(&row.status.as_str());
        assert!(rows.iter().all(settled), "{moment}: {rows:?}");
        self.sandbox.plan_is_empty();
        until("the old replicas have ended", || self.sandbox.processes().len() == 3);
        assert_eq!(self.sandbox.processes_of("server.py").len(), 2, "{moment}");
        assert_eq!(self.sandbox.names(".norn/releases/web", "."), Vec::<String>::new(), "{moment}");
    }

    fn serves(&self, version: &str) {
        let answer = get(self.port, "/").expect("it serves");
        assert!(answer.starts_with(version), "{answer}");
    }

    /// What a run said, without what differs from test to test.
    fn plain(&self, text: &str) -> String {
        let folder = self.sandbox.dir.path().display().to_string();
        let port = self.server.port().to_string();
        text.replace(&folder, "DIR").replace(&self.database.name, "DB").replace(&port, "PORT")
    }

    /// Runs norn, which must refuse with this and nothing else, and change nothing.
    fn refused(&self, arguments: &str, code: i32, words: &str) {
        let before = (self.content(), self.sandbox.names(".norn", ""));
        let ran = self.sandbox.run(arguments);
        self.said(&ran, arguments, code, words);
        assert_eq!(ran.out, "", "{arguments}");
        assert_eq!(self.sandbox.processes(), Vec::<u32>::new(), "{arguments}");
        assert!(before == (self.content(), self.sandbox.names(".norn", "")), "{arguments}: nothing changes");
    }

    /// Whether norn ended with this code and these words, the beginnings of lines aside.
    fn said(&self, ran: &Ran, arguments: &str, code: i32, words: &str) {
        let said = flush(&self.plain(&ran.err));
        assert_eq!(said, flush(words), "norn {arguments}:\n{said}\n");
        assert_eq!(ran.code, code, "norn {arguments}: {said}");
    }
}

fn write_version(sandbox: &Sandbox, port: u16, version: &str, more: &str) {
    sandbox.write("web/version", version);
    sandbox.spec(&web("web", port, &format!("env: {{VERSION: {version}}}\n{more}")));
}

fn flush(text: &str) -> String {
    text.trim().lines().map(str::trim).collect::<Vec<_>>().join("\n")
}

/// Starts a command, of which [`finished`] gives what it said.
fn started(command: &mut Command) -> Child {
    command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("it starts")
}

fn finished(child: Child) -> Ran {
    let Output { status, stdout, stderr } = child.wait_with_output().expect("it is ours");
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).expect("norn writes UTF-8");
    Ran { code: status.code().unwrap_or(-1), out: text(stdout), err: text(stderr) }
}
