//! Connections to a real PostgreSQL server, and what is said where there is none.

mod tls;

use std::collections::BTreeMap;
use std::fs;
use std::io::{Read, Write};
use std::net::{Ipv4Addr, TcpListener};
use std::os::unix::fs::PermissionsExt;
use std::thread;
use std::time::{Duration, Instant};

use norn::secret::Secret;
use norn::state::postgres::address::ServerUrl;
use norn::state::postgres::connect::{ConnectError, connect, words};
use tempfile::TempDir;
use tokio_postgres::Client;

use crate::postgres_server::{PASSWORD, Pooler, Server, own};
use crate::proxy::{Proxy, Side};
use crate::shared::free_port;

async fn reach(url: &str, env: &BTreeMap<String, String>) -> Result<Client, ConnectError> {
    let url = ServerUrl::parse(&Secret::new(url), &|name| env.get(name).cloned()).expect("it is a URL");
    connect(&url, "norn test").await
}

/// Asks the server what kind of connection this is.
async fn kind(client: &Client) -> String {
    let asked = "SELECT coalesce(ssl, false), current_user::text, current_database()::text \
                 FROM pg_stat_ssl WHERE pid = pg_backend_pid()";
    let row = client.query_one(asked, &[]).await.unwrap_or_else(|error| panic!("{}", words(&error)));
    let (user, database): (String, String) = (row.get(1), row.get(2));
    format!("{}, {user}, {database}", if row.get(0) { "TLS" } else { "plain" })
}

/// What comes of several URLs, as text.
struct Told {
    env: BTreeMap<String, String>,
    /// What differs from run to run, and what stands for it.
    names: Vec<(String, &'static str)>,
    text: String,
}

impl Told {
    /// With a home of its own, that a server's files can be named in.
    fn new(home: &TempDir, server: &Server) -> Self {
        let home = home.path().display().to_string();
        let mut told = Self {
            env: BTreeMap::from([("HOME".to_owned(), home.clone())]),
            names: vec![(home, "~")],
            text: String::new(),
        };
        told.name(server.port(), "PORT");
        // Resolvers differ in their words.
        told.name("Name or service not known", "WHY");
        told.name("Temporary failure in name resolution", "WHY");
        told
    }

    fn name(&mut self, value: impl ToString, name: &'static str) {
        self.names.insert(0, (value.to_string(), name));
    }

    async fn tell(&mut self, case: &str, url: &str) -> Option<Client> {
        let (said, client) = match reach(url, &self.env).await {
            Ok(client) => (kind(&client).await, Some(client)),
            Err(error) => {
                let said = error.to_string();
                assert!(!format!("{said} {error:?}").contains("p@ss"), "{case}: {error:?}");
                (said, None)
            }
        };
        let said = self.names.iter().fold(said, |said, (value, name)| said.replace(value, name));
        self.text += &format!("{case}\n  {said}\n");
        client
    }

    /// The server's database `postgres` with these parameters.
    async fn parameters(&mut self, server: &Server, cases: &[&str]) {
        let folder = server.folder().display().to_string();
        self.name(&folder, "DIR");
        for case in cases {
            self.tell(case, &format!("{}?{}", server.url("postgres"), case.replace("DIR", &folder))).await;
        }
    }

    fn is(&mut self, expected: &str) {
        let told = std::mem::take(&mut self.text);
        let lines = |text: &str| text.trim().lines().map(str::trim).collect::<Vec<_>>().join("\n");
        assert_eq!(lines(&told), lines(expected), "\n{told}");
    }
}

#[tokio::test]
async fn who_is_turned_away_is_told_why() {
    let Some(server) = own("connections to a database") else { return };
    let database = server.database();
    let home = tempfile::tempdir().expect("a temporary folder");
    let mut told = Told::new(&home, server);
    told.name(&database.name, "DATABASE");
    let url = database.url();
    let password =
        url.split_once(':').and_then(|(_, rest)| rest.split_once(':')).expect("it has a password").1;
    let password = password.split_once('@').expect("it has a host").0;

    told.tell("right", &url).await;
    told.tell("wrong password", &url.replace(password, "hunter2")).await;
    told.tell("unknown role", &url.replace("norn:", "nobody:")).await;
    told.tell("missing database", &format!("{url}?dbname=nowhere")).await;
    told.tell("a startup option", &format!("{url}?options=-c%20nonsense%3D1")).await;
    database.sql("CREATE ROLE norn_test_limited LOGIN PASSWORD 'one' CONNECTION LIMIT 0");
    told.tell("too many", &format!("{url}?user=norn_test_limited&password=one")).await;
    database.sql("DROP ROLE norn_test_limited");
    database.sql(&format!("ALTER DATABASE {} SET default_transaction_read_only = on", database.name));
    told.tell("any", &format!("{url}?target_session_attrs=any")).await;
    told.tell("writable", &format!("{url}?target_session_attrs=read-write")).await;

    let bare = url.replace(&format!(":{password}@"), "@");
    told.tell("no password", &bare).await;
    told.env.insert("PGPASSWORD".into(), PASSWORD.into());
    told.tell("PGPASSWORD", &bare).await;
    told.env.remove("PGPASSWORD");
    let file = home.path().join(".pgpass");
    fs::write(&file, format!("*:*:*:norn:{}\n", PASSWORD.replace(':', "\\:"))).expect("it is written");
    fs::set_permissions(&file, fs::Permissions::from_mode(0o644)).expect("it is ours");
    told.tell("open .pgpass", &bare).await;
    fs::set_permissions(&file, fs::Permissions::from_mode(0o600)).expect("it is ours");
    told.tell(".pgpass", &bare).await;
    told.is(
        r#"
        right
          TLS, norn, DATABASE
        wrong password
          127.0.0.1:PORT refuses user norn with this password: password authentication failed for user "norn"; correct user and password in the URL
        unknown role
          127.0.0.1:PORT refuses user nobody with this password: password authentication failed for user "nobody"; correct user and password in the URL
        missing database
          127.0.0.1:PORT has no database nowhere: database "nowhere" does not exist; create it there, or name another in the URL
        a startup option
          127.0.0.1:PORT refuses the connection: unrecognized configuration parameter "nonsense"; correct the URL, or see the server's log
        too many
          127.0.0.1:PORT has no connection left: too many connections for role "norn_test_limited"; end some, or raise the limit there
        any
          TLS, norn, DATABASE
        writable
          127.0.0.1:PORT takes no writes, and target_session_attrs asks for a server that does; name that one in the URL
        no password
          127.0.0.1:PORT asks for the password of norn, and none is given; give it in the URL, in PGPASSWORD or in ~/.pgpass
        PGPASSWORD
          TLS, norn, DATABASE
        open .pgpass
          127.0.0.1:PORT asks for the password of norn, and none is given, as ~/.pgpass is open to others and not read (run chmod 600 on it); give it in the URL, in PGPASSWORD or in ~/.pgpass
        .pgpass
          TLS, norn, DATABASE
        "#,
    );
}

#[tokio::test]
async fn what_is_out_of_reach_is_told_in_time() {
    let Some(server) = own("connections to a database") else { return };
    let database = server.database();
    let home = tempfile::tempdir().expect("a temporary folder");
    let mut told = Told::new(&home, server);
    told.name(&database.name, "DATABASE");
    let proxy = Proxy::before(server.port());
    told.name(proxy.port, "PROXY");
    let closed = free_port();
    told.name(closed, "CLOSED");
    let through = database.url_at(proxy.port);

    told.tell("nothing listens", &database.url_at(closed)).await;
    told.tell("no such host", &format!("{}?host=nowhere.invalid", database.url())).await;
    told.tell("no socket", &format!("{}?host=/nowhere", database.url())).await;
    let http = answering(1, b"HTTP/1.1 400 Bad Request\r\n\r\n");
    told.name(http, "HTTP");
    // A message of PostgreSQL's, at the wrong time.
    let nonsense = answering(1, b"Z\0\0\0\x05I");
    told.name(nonsense, "NONSENSE");
    told.tell("nonsense", &format!("{}?sslmode=disable", database.url_at(nonsense))).await;
    told.tell("another service", &format!("{}?sslmode=disable", database.url_at(http))).await;
    proxy.cut_next(Side::Server, 100);
    told.tell("cut while TLS begins", &through).await;
    proxy.cut_next(Side::Server, 20);
    told.tell("cut while the password is asked for", &format!("{through}?sslmode=disable")).await;

    let began = Instant::now();
    proxy.stall(true);
    told.tell("silent", &format!("{through}?connect_timeout=1")).await;
    told.tell("silent without TLS", &format!("{through}?connect_timeout=1&sslmode=disable")).await;
    proxy.stall(false);
    // The answer that TLS may begin comes in time, the next one does not.
    proxy.delay(Side::Server, Duration::from_millis(700));
    told.tell("silent while TLS begins", &format!("{through}?connect_timeout=1&sslmode=require")).await;
    proxy.delay(Side::Server, Duration::ZERO);
    assert!(began.elapsed() < Duration::from_secs(5), "{:?}", began.elapsed());

    // Each host has its share of the time, and the first that answers is taken.
    proxy.stall(true);
    let two = |last: u16| {
        let url = format!("?host=127.0.0.1,127.0.0.1,127.0.0.1&port={closed},{},{last}", proxy.port);
        database.url() + &url + "&connect_timeout=2"
    };
    let began = Instant::now();
    told.tell("the last of several", &two(server.port())).await;
    told.tell("none of several", &two(closed)).await;
    assert!(began.elapsed() < Duration::from_secs(5), "{:?}", began.elapsed());
    let wrong =
        format!("{}?host=127.0.0.1,127.0.0.1&port={},{closed}&user=nobody", database.url(), server.port());
    told.tell("turned away by the first of several", &wrong).await;
    told.is(
        r#"
        nothing listens
          nothing listens at 127.0.0.1:CLOSED; start PostgreSQL there, or correct the URL's host and port
        no such host
          the host nowhere.invalid is not known: WHY; correct the URL, or see why the name does not resolve here
        no socket
          there is no socket /nowhere/.s.PGSQL.PORT; start PostgreSQL, or name its host in the URL
        nonsense
          what listens at 127.0.0.1:NONSENSE does not speak as PostgreSQL does; correct the URL's host and port
        another service
          127.0.0.1:HTTP cut the connection before it was ready; see whether it is a PostgreSQL server, and its log
        cut while TLS begins
          127.0.0.1:PROXY cut the connection before it was ready; see whether it is a PostgreSQL server, and its log
        cut while the password is asked for
          127.0.0.1:PROXY cut the connection before it was ready; see whether it is a PostgreSQL server, and its log
        silent
          127.0.0.1:PROXY did not answer within 1 s; see whether it is up and no firewall is in between, or give connect_timeout more seconds
        silent without TLS
          127.0.0.1:PROXY did not answer within 1 s; see whether it is up and no firewall is in between, or give connect_timeout more seconds
        silent while TLS begins
          127.0.0.1:PROXY did not answer within 1 s; see whether it is up and no firewall is in between, or give connect_timeout more seconds
        the last of several
          TLS, norn, DATABASE
        none of several
          none of the URL's 3 hosts can be used: nothing listens at 127.0.0.1:CLOSED; start PostgreSQL there, or correct the URL's host and port | 127.0.0.1:PROXY did not answer within 1 s; see whether it is up and no firewall is in between, or give connect_timeout more seconds | nothing listens at 127.0.0.1:CLOSED; start PostgreSQL there, or correct the URL's host and port
        turned away by the first of several
          127.0.0.1:PORT refuses user nobody with this password: password authentication failed for user "nobody"; correct user and password in the URL
        "#,
    );
}

/// Answers every client the same, so often; then it closes.
fn answering(times: usize, answer: &'static [u8]) -> u16 {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a port is free");
    let port = listener.local_addr().expect("it is bound").port();
    thread::spawn(move || {
        for client in listener.incoming().take(times) {
            let mut client = client.expect("a client came");
            let _startup = client.read(&mut [0; 1024]).expect("it is sent");
            client.write_all(answer).expect("it is taken");
        }
    });
    port
}

/// What a server says that is starting; its length stands in the fifth byte.
const STARTING: &[u8] = b"E\0\0\0\x3eSFATAL\0VFATAL\0C57P03\0Mthe database system is starting up\0\0";

#[tokio::test]
async fn a_server_that_starts_is_waited_for() {
    let Some(server) = own("connections to a database") else { return };
    let database = server.database();
    let home = tempfile::tempdir().expect("a temporary folder");
    let mut told = Told::new(&home, server);
    told.name(&database.name, "DATABASE");
    let long = answering(100, STARTING);
    let short = answering(2, STARTING);
    told.name(long, "LONG");
    told.name(short, "SHORT");
    let began = Instant::now();
    told.tell("for long", &format!("{}?sslmode=disable&connect_timeout=1", database.url_at(long))).await;
    let took = began.elapsed();
    assert!(took > Duration::from_millis(600) && took < Duration::from_secs(2), "{took:?}");
    told.tell("and then it is gone", &format!("{}?sslmode=disable", database.url_at(short))).await;
    told.is(r#"
        for long
          127.0.0.1:LONG is not ready: the database system is starting up; run the command again when it is
        and then it is gone
          nothing listens at 127.0.0.1:SHORT; start PostgreSQL there, or correct the URL's host and port
        "#);
}

#[tokio::test]
async fn a_socket_and_a_pooler_serve_as_well() {
    let Some(server) = own("connections to a database") else { return };
    let database = server.database();
    let home = tempfile::tempdir().expect("a temporary folder");
    let mut told = Told::new(&home, server);
    told.name(&database.name, "DATABASE");
    let url = database.url();
    let socket = format!("{url}?host={}&sslmode=verify-full", server.folder().display());
    told.tell("socket", &socket).await;
    told.is(r#"
    socket
      plain, norn, DATABASE
    "#);
    let Some(pooler) = Pooler::start(server) else { return };
    told.name(pooler.port, "POOLER");
    let url = database.url_at(pooler.port);
    let client = told.tell("pooler", &url).await.expect("it is connected");
    let name = client.query_one("SELECT current_setting('application_name')", &[]).await;
    assert_eq!(name.expect("it is asked").get::<_, String>(0), "norn test");
    told.tell("pooler with TLS", &format!("{url}?sslmode=require")).await;
    told.tell("pooler, wrong password", &format!("{url}?password=wrong")).await;
    told.tell("pooler, unknown role", &format!("{url}?user=nobody")).await;
    told.tell("pooler, missing database", &format!("{url}?dbname=nowhere")).await;
    told.tell("pooler, an option", &format!("{url}?options=-cx%3Dy")).await;
    told.is(
        r#"
        pooler
          plain, norn, DATABASE
        pooler with TLS
          127.0.0.1:POOLER has no TLS, and sslmode=require needs it; switch it on there (`ssl = on`), or take sslmode=prefer
        pooler, wrong password
          127.0.0.1:POOLER refuses user norn with this password: SASL authentication failed; correct user and password in the URL
        pooler, unknown role
          127.0.0.1:POOLER refuses user nobody with this password: SASL authentication failed; correct user and password in the URL
        pooler, missing database
          127.0.0.1:POOLER has no database nowhere: database "nowhere" does not exist; create it there, or name another in the URL
        pooler, an option
          127.0.0.1:POOLER refuses the connection: unsupported startup parameter: options; correct the URL, or see the server's log
        "#,
    );
}

#[tokio::test]
async fn errors_of_statements_are_told_in_words() {
    let Some(server) = own("connections to a database") else { return };
    let database = server.database();
    let proxy = Proxy::before(server.port());
    let env = BTreeMap::new();
    let client = reach(&database.url_at(proxy.port), &env).await.expect("it is connected");
    let mut said = String::new();
    let mut say = |error: tokio_postgres::Error| said += &format!("{}\n", words(&error));
    say(client.query("SELEC 1", &[]).await.expect_err("it is no SQL"));
    say(client.query("SELECT nothing()", &[]).await.expect_err("there is no such function"));
    say(client.query("SELECT 1::int8", &[]).await.expect("a row")[0]
        .try_get::<_, String>(0)
        .expect_err("a number"));
    let asleep = client.query("SELECT pg_sleep(20)", &[]);
    let cut = async {
        tokio::time::sleep(Duration::from_millis(200)).await;
        proxy.cut();
    };
    say(tokio::join!(asleep, cut).0.expect_err("it was cut"));
    say(client.query("SELECT 1", &[]).await.expect_err("it is cut"));
    assert_eq!(
        said,
        "syntax error at or near \"SELEC\" (SQLSTATE 42601)\n\
         function nothing() does not exist; No function matches the given name and argument types. You might \
         need to add explicit type casts. (SQLSTATE 42883)\n\
         error deserializing column 0: cannot convert between the Rust type `alloc::string::String` and the \
         Postgres type `int8`\n\
         the connection to the server was cut\n\
         the connection to the server was cut\n"
    );
}
