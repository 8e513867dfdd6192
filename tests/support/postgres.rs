//! A PostgreSQL server of the test process's own, with TLS, and a pooler in front of it.
//!
//! Both end with the process, however it ends. `NORN_TEST_POSTGRES_URL` names another server to
//! make databases on: as a superuser, with a password, by TCP. The module that has this one also
//! has `tests/support/mod.rs`, as `shared`.

#![allow(dead_code, reason = "each test binary uses its part")]

use std::fs;
use std::io::Write;
use std::os::unix::fs::{PermissionsExt, chown};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU32, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use url::Url;

use super::shared::{free_port, skipped};

pub const USER: &str = "norn";
pub const PASSWORD: &str = "p@ss/w:rd%+#";

/// A server, and a superuser's way into it.
pub struct Server {
    /// The URL of its database `postgres`.
    url: Url,
    bin: PathBuf,
    /// Where it lives if it is ours.
    home: Option<Home>,
}

/// The server that this process makes its databases on. `what` is not tested where there is none.
pub fn server(what: &str) -> Option<&'static Server> {
    static NAMED: OnceLock<Option<Server>> = OnceLock::new();
    let named = NAMED.get_or_init(|| {
        let url = std::env::var("NORN_TEST_POSTGRES_URL").ok().filter(|url| !url.is_empty())?;
        let url = Url::parse(&url).expect("NORN_TEST_POSTGRES_URL is a URL");
        Some(Server { url, bin: bin().unwrap_or_default(), home: None })
    });
    named.as_ref().or_else(|| own(what))
}

/// The same, but always a server of this process's own.
pub fn own(what: &str) -> Option<&'static Server> {
    static OWN: OnceLock<Option<Server>> = OnceLock::new();
    let own = OWN.get_or_init(|| Server::start("")).as_ref();
    if own.is_none() {
        skipped(what, "PostgreSQL is not installed");
    }
    own
}

/// Where PostgreSQL's programs are: Debian has them in folders of their version.
fn bin() -> Option<PathBuf> {
    let debian = fs::read_dir("/usr/lib/postgresql").into_iter().flatten().flatten();
    let mut folders: Vec<PathBuf> = debian.map(|entry| entry.path().join("bin")).collect();
    folders.sort();
    let path = std::env::var_os("PATH").unwrap_or_default();
    let mut all = folders.into_iter().rev().chain(std::env::split_paths(&path));
    all.find(|folder| folder.join("initdb").exists())
}

impl Server {
    /// A further server, with lines of `postgresql.conf`. None where PostgreSQL is not installed.
    pub fn start(config: &str) -> Option<Self> {
        let bin = bin()?;
        let mut home = Home::new();
        fs::write(home.path("password"), PASSWORD).expect("it is written");
        home.run(&format!(
            "{}/initdb -D data -U {USER} --auth-host=scram-sha-256 --auth-local=trust --pwfile=password -N \
             -E UTF8 --locale=C",
            bin.display()
        ));
        certificates(&home);
        let port = free_port();
        let folder = home.folder.display().to_string();
        let lines = format!(
            "port = {port}\nlisten_addresses = '127.0.0.1'\nunix_socket_directories = '{folder}'\n\
             max_connections = 200\nfsync = off\nfull_page_writes = off\nsynchronous_commit = off\nssl = on\n\
             ssl_cert_file = '{folder}/good.crt'\nssl_key_file = '{folder}/server.key'\n\
             ssl_ca_file = '{folder}/ca.crt'\n{config}\n"
        );
        let file = home.path("data/postgresql.conf");
        let usual = fs::read_to_string(&file).expect("initdb made it");
        fs::write(&file, usual + &lines).expect("it is written");
        let program = bin.join("postgres").display().to_string();
        home.serve("QUIT", &format!("{program} -D {folder}/data"));
        let url = Url::parse(&format!("postgres://{USER}@127.0.0.1:{port}/postgres"));
        let mut url = url.expect("it is a URL");
        url.set_password(Some(&encoded(PASSWORD))).expect("it has a host");
        let server = Self { url, bin, home: Some(home) };
        server.until(|| server.psql("postgres", "SELECT 1").is_ok());
        Some(server)
    }

    /// A further server that follows this one and takes no writes; what this one holds is there
    /// when it is returned.
    pub fn standby(&self) -> Self {
        let mut home = Home::new();
        let port = free_port();
        let (folder, primary) = (home.folder.display().to_string(), self.folder().display());
        home.run(&format!(
            "{}/pg_basebackup -D data -R -N -c fast -h {primary} -p {} -U {USER}",
            self.bin.display(),
            self.port()
        ));
        let file = home.path("data/postgresql.conf");
        let copied = fs::read_to_string(&file).expect("it was copied");
        let lines = format!("port = {port}\nunix_socket_directories = '{folder}'\n");
        fs::write(&file, copied + &lines).expect("it is written");
        home.serve("QUIT", &format!("{} -D {folder}/data", self.bin.join("postgres").display()));
        let mut url = self.url.clone();
        url.set_port(Some(port)).expect("it has a host");
        let standby = Self { url, bin: self.bin.clone(), home: Some(home) };
        let end = self.sql("postgres", "SELECT pg_current_wal_lsn()");
        let there = format!("SELECT pg_last_wal_replay_lsn() >= '{end}'");
        standby.until(|| standby.psql("postgres", &there).as_deref() == Ok("t"));
        standby
    }

    /// A fresh, empty database.
    pub fn database(&self) -> Database<'_> {
        static MADE: AtomicU32 = AtomicU32::new(0);
        let number = MADE.fetch_add(1, Ordering::Relaxed);
        let name = format!("norn_test_{}_{number}", std::process::id());
        self.sql("postgres", &format!("CREATE DATABASE {name} TEMPLATE template0"));
        Database { server: self, name }
    }

    /// Runs a statement as the superuser, and gives its answer: `|` between columns.
    pub fn sql(&self, database: &str, sql: &str) -> String {
        self.psql(database, sql).unwrap_or_else(|error| panic!("{sql}: {error}"))
    }

    pub fn psql(&self, database: &str, sql: &str) -> Result<String, String> {
        let place = match &self.home {
            // By its socket: neither TLS nor a password takes time there.
            Some(home) => {
                format!("host={} port={} user={USER} dbname={database}", home.folder.display(), self.port())
            }
            None => self.url(database),
        };
        let mut psql = Command::new(self.bin.join("psql"));
        psql.args(["-XAtq", "-v", "ON_ERROR_STOP=1", "-c", sql, &place]).stdin(Stdio::null());
        let output = psql.output().expect("psql runs");
        let text = |bytes| String::from_utf8_lossy(bytes).trim().to_owned();
        if output.status.success() { Ok(text(&output.stdout)) } else { Err(text(&output.stderr)) }
    }

    /// The URL of a database, with the superuser's password.
    pub fn url(&self, database: &str) -> String {
        self.url_at(self.port(), database)
    }

    /// The same through another port of this machine: a proxy's, or a pooler's.
    pub fn url_at(&self, port: u16, database: &str) -> String {
        let mut url = self.url.clone();
        if port != self.port() {
            url.set_host(Some("127.0.0.1")).expect("it is a host");
        }
        url.set_port(Some(port)).expect("it has a host");
        url.set_path(database);
        url.to_string()
    }

    pub fn host(&self) -> &str {
        self.url.host_str().expect("the URL has a host")
    }

    pub fn port(&self) -> u16 {
        self.url.port().unwrap_or(5432)
    }

    /// The programs of PostgreSQL: `psql`, `pg_restore`.
    pub fn program(&self, name: &str) -> PathBuf {
        self.bin.join(name)
    }

    /// The folder of the server's socket and certificates, if it is ours: `ca.crt`, `foreign.crt`
    /// (an authority that signed nothing here), `client.crt` with `client.key`.
    pub fn folder(&self) -> &Path {
        &self.home.as_ref().expect("the server is ours").folder
    }

    /// Changes a setting of `postgresql.conf` and waits until it holds.
    pub fn set(&self, name: &str, value: &str) {
        self.sql("postgres", &format!("ALTER SYSTEM SET {name} = '{value}'"));
        self.reload(&|| self.psql("postgres", &format!("SHOW {name}")).as_deref() == Ok(value));
    }

    /// Shows `good.crt`, `expired.crt`, `other.crt` (of db.example.com) or `self.crt` from now on.
    pub fn show_certificate(&self, file: &str) {
        self.set("ssl_cert_file", &self.folder().join(file).display().to_string());
    }

    /// Puts these lines before the server's own of `pg_hba.conf`.
    pub fn admit(&self, lines: &str) {
        let file = self.folder().join("data/pg_hba.conf");
        let text = fs::read_to_string(&file).expect("initdb made it");
        fs::write(&file, format!("{lines}\n{text}")).expect("it is written");
        let first = lines.split_whitespace().nth(1).expect("a line names a database");
        let read = format!(
            "SELECT count(*) > 0 FROM pg_hba_file_rules WHERE line_number = 1 AND database = '{{{first}}}'"
        );
        self.reload(&|| self.psql("postgres", &read).as_deref() == Ok("t"));
    }

    fn reload(&self, done: &dyn Fn() -> bool) {
        self.sql("postgres", "SELECT pg_reload_conf()");
        self.until(done);
        // A process that the server began before it read the files has the former settings.
        thread::sleep(Duration::from_millis(100));
    }

    fn until(&self, done: impl Fn() -> bool) {
        let began = Instant::now();
        while !done() {
            let log = self.home.as_ref().map(|home| fs::read_to_string(home.path("log")).unwrap_or_default());
            assert!(began.elapsed() < Duration::from_secs(30), "the server is not ready: {log:?}");
            thread::sleep(Duration::from_millis(20));
        }
    }
}

/// A database of one test's own.
pub struct Database<'a> {
    server: &'a Server,
    pub name: String,
}

impl Database<'_> {
    pub fn url(&self) -> String {
        self.server.url(&self.name)
    }

    pub fn url_at(&self, port: u16) -> String {
        self.server.url_at(port, &self.name)
    }

    pub fn sql(&self, sql: &str) -> String {
        self.server.sql(&self.name, sql)
    }
}

impl Drop for Database<'_> {
    fn drop(&mut self) {
        // Our own server goes as a whole.
        if self.server.home.is_none() {
            let _left =
                self.server.psql("postgres", &format!("DROP DATABASE IF EXISTS {} WITH (FORCE)", self.name));
        }
    }
}

/// A pooler in transaction mode in front of a server.
pub struct Pooler {
    pub port: u16,
    _home: Home,
}

impl Pooler {
    /// None where pgbouncer is not installed.
    pub fn start(server: &Server) -> Option<Self> {
        let path = std::env::var_os("PATH").unwrap_or_default();
        let folders = std::env::split_paths(&path).chain(["/usr/sbin".into(), "/usr/local/sbin".into()]);
        let mut programs = folders.map(|folder| folder.join("pgbouncer"));
        let Some(program) = programs.find(|program| program.exists()) else {
            skipped("a pooler", "pgbouncer is not installed");
            return None;
        };
        let mut home = Home::new();
        let port = free_port();
        let password = decoded(server.url.password().unwrap_or_default());
        let user = format!("\"{}\" \"{}\"\n", server.url.username(), password.replace('"', "\"\""));
        fs::write(home.path("users"), user).expect("it is written");
        let config = format!(
            "[databases]\n* = host={} port={}\n[pgbouncer]\nlisten_addr = 127.0.0.1\nlisten_port = {port}\n\
             unix_socket_dir =\nauth_type = scram-sha-256\nauth_file = {}\npool_mode = transaction\n\
             max_client_conn = 200\n",
            server.host(),
            server.port(),
            home.path("users").display(),
        );
        fs::write(home.path("config"), config).expect("it is written");
        home.serve("TERM", &format!("{} {}", program.display(), home.path("config").display()));
        server.until(|| std::net::TcpStream::connect(("127.0.0.1", port)).is_ok());
        Some(Self { port, _home: home })
    }
}

/// A folder with a server in it. Both go when this does, or the process.
struct Home {
    folder: PathBuf,
    /// PostgreSQL does not run as root: its own user does it then.
    user: Option<u32>,
    group: Option<u32>,
    watcher: Child,
}

/// Waits for a signal and a command on its input, starts the command, and ends it by the signal
/// when the input ends. Whenever that is, the folder goes too.
const WATCHER: &str = r#"folder=$1
if read -r signal command; then
    $command >"$folder/log" 2>&1 </dev/null & child=$!
    read -r _
    kill -$signal $child; wait $child
fi
# What was still at work in it may have ended meanwhile.
rm -rf "$folder" || { sleep 2; rm -rf "$folder"; }"#;

impl Home {
    fn new() -> Self {
        let folder =
            tempfile::Builder::new().prefix("norn-pg-").tempdir().expect("a temporary folder").keep();
        let root = rustix::process::getuid().is_root();
        let id = |which| {
            let output = Command::new("id").args([which, "postgres"]).output().expect("id runs");
            let text = String::from_utf8_lossy(&output.stdout).trim().to_owned();
            text.parse().expect("there is a user postgres")
        };
        let (user, group) = if root { (Some(id("-u")), Some(id("-g"))) } else { (None, None) };
        chown(&folder, user, group).expect("it is ours");
        fs::set_permissions(&folder, fs::Permissions::from_mode(0o755)).expect("it is ours");
        let mut command = as_user(&folder, user, group, WATCHER);
        // An interrupt at the terminal is not for it: it has yet to clear up.
        command.arg("watcher").arg(&folder).process_group(0);
        command.stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::null());
        let watcher = command.spawn().expect("sh runs");
        Self { folder, user, group, watcher }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.join(name)
    }

    fn run(&self, script: &str) {
        let output = as_user(&self.folder, self.user, self.group, script).output().expect("sh runs");
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{script}: {said}");
    }

    /// Starts a command that this signal ends.
    fn serve(&mut self, signal: &str, command: &str) {
        let input = self.watcher.stdin.as_mut().expect("it is piped");
        writeln!(input, "{signal} {command}").expect("the watcher lives");
    }
}

impl Drop for Home {
    fn drop(&mut self) {
        drop(self.watcher.stdin.take());
        let _ended = self.watcher.wait();
    }
}

fn as_user(folder: &Path, user: Option<u32>, group: Option<u32>, script: &str) -> Command {
    let mut command = Command::new("sh");
    command.args(["-c", script]).current_dir(folder).stdin(Stdio::null());
    command.env_clear().env("PATH", std::env::var_os("PATH").unwrap_or_default());
    if let (Some(user), Some(group)) = (user, group) {
        command.uid(user).gid(group);
    }
    command
}

/// Makes an authority, certificates of the server that it signed, and one that signed itself.
fn certificates(home: &Home) {
    home.run(
        r#"set -e
        new="-newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes"
        self() { openssl req -x509 $new -days 2 -subj "/CN=$2" -keyout $1.key -out $1.crt; }
        signed() {
            openssl req -new -key server.key -subj "/CN=$2" -addext "subjectAltName=$3" -out $1.csr
            openssl x509 -req -in $1.csr -CA ca.crt -CAkey ca.key -CAcreateserial -days $4 \
                -copy_extensions copy -out $1.crt
        }
        self ca norn-test
        self foreign foreign
        self client norn
        openssl req -new $new -subj "/CN=norn" -keyout client.key -out client.csr
        openssl x509 -req -in client.csr -CA ca.crt -CAkey ca.key -CAcreateserial -days 2 -out client.crt
        openssl ecparam -name prime256v1 -genkey -noout -out server.key
        openssl req -x509 -key server.key -days 2 -subj /CN=localhost -addext subjectAltName=DNS:localhost \
            -out self.crt
        signed good localhost DNS:localhost,IP:127.0.0.1 2
        signed expired localhost DNS:localhost,IP:127.0.0.1 -1
        signed other db.example.com DNS:db.example.com 2
        chmod 600 *.key"#,
    );
}

fn encoded(text: &str) -> String {
    let bytes = text.chars().map(|letter| match letter {
        'a'..='z' | 'A'..='Z' | '0'..='9' => letter.to_string(),
        other => format!("%{:02X}", u32::from(other)),
    });
    bytes.collect()
}

fn decoded(text: &str) -> String {
    let text = text.replace('+', "%2B");
    url::form_urlencoded::parse(text.as_bytes()).map(|(name, _)| name.into_owned()).next().unwrap_or_default()
}
