//! With and without TLS, and whose certificate will do. The server changes its settings meanwhile, so
//! each test has one of its own.

use std::fs;

use super::Told;
use crate::postgres_server::Server;
use crate::shared::skipped;

#[tokio::test]
async fn tls_is_used_and_certificates_are_checked_as_sslmode_says() {
    let Some(server) = Server::start("") else {
        return skipped("TLS with a database", "PostgreSQL is not installed");
    };
    let home = tempfile::tempdir().expect("a temporary folder");
    let mut told = Told::new(&home, &server);
    let cases = [
        "sslmode=disable",
        "sslmode=allow",
        "host=127.0.0.1",
        "sslmode=prefer&sslrootcert=DIR/foreign.crt",
        "sslmode=require",
        "sslmode=require&sslrootcert=DIR/ca.crt",
        "sslmode=verify-ca&sslrootcert=DIR/ca.crt",
        "sslmode=verify-full&sslrootcert=DIR/ca.crt",
        "sslmode=verify-full&sslrootcert=DIR/ca.crt&host=localhost",
        "sslmode=require&channel_binding=require",
        "sslmode=disable&channel_binding=require",
        "sslmode=require&sslrootcert=DIR/foreign.crt",
        "sslmode=verify-ca&sslrootcert=DIR/foreign.crt",
        "sslmode=verify-full&sslrootcert=DIR/foreign.crt",
        "sslmode=verify-full",
        "sslrootcert=system",
        "sslmode=verify-full&sslrootcert=DIR/none.crt",
        "sslmode=verify-full&sslrootcert=DIR/good.csr",
        "sslmode=require&sslnegotiation=direct",
    ];
    told.parameters(&server, &cases).await;
    told.is(
        r#"
        sslmode=disable
          plain, norn, postgres
        sslmode=allow
          plain, norn, postgres
        host=127.0.0.1
          TLS, norn, postgres
        sslmode=prefer&sslrootcert=DIR/foreign.crt
          TLS, norn, postgres
        sslmode=require
          TLS, norn, postgres
        sslmode=require&sslrootcert=DIR/ca.crt
          TLS, norn, postgres
        sslmode=verify-ca&sslrootcert=DIR/ca.crt
          TLS, norn, postgres
        sslmode=verify-full&sslrootcert=DIR/ca.crt
          TLS, norn, postgres
        sslmode=verify-full&sslrootcert=DIR/ca.crt&host=localhost
          TLS, norn, postgres
        sslmode=require&channel_binding=require
          TLS, norn, postgres
        sslmode=disable&channel_binding=require
          127.0.0.1:PORT asks for a way to log in that norn does not have: server did not use channel binding; let it ask for scram-sha-256
        sslmode=require&sslrootcert=DIR/foreign.crt
          the certificate of 127.0.0.1:PORT is signed by nobody that DIR/foreign.crt names; name the file of its root in sslrootcert
        sslmode=verify-ca&sslrootcert=DIR/foreign.crt
          the certificate of 127.0.0.1:PORT is signed by nobody that DIR/foreign.crt names; name the file of its root in sslrootcert
        sslmode=verify-full&sslrootcert=DIR/foreign.crt
          the certificate of 127.0.0.1:PORT is signed by nobody that DIR/foreign.crt names; name the file of its root in sslrootcert
        sslmode=verify-full
          the certificate of 127.0.0.1:PORT is signed by nobody that the system names; name the file of its root in sslrootcert
        sslrootcert=system
          the certificate of 127.0.0.1:PORT is signed by nobody that the system names; name the file of its root in sslrootcert
        sslmode=verify-full&sslrootcert=DIR/none.crt
          the root certificate DIR/none.crt cannot be used: no such file or directory
        sslmode=verify-full&sslrootcert=DIR/good.csr
          the root certificate DIR/good.csr cannot be used: there is no certificate in it, as PEM writes one
        sslmode=require&sslnegotiation=direct
          127.0.0.1:PORT cut the connection before it was ready; see whether it is a PostgreSQL server, and its log
        "#,
    );

    // libpq's own place for roots.
    fs::create_dir(home.path().join(".postgresql")).expect("it is made");
    let root = home.path().join(".postgresql/root.crt");
    fs::copy(server.folder().join("foreign.crt"), &root).expect("it is copied");
    told.parameters(&server, &["sslmode=prefer", "sslmode=require", "sslmode=verify-full"]).await;
    fs::copy(server.folder().join("ca.crt"), &root).expect("it is copied");
    told.parameters(&server, &["sslmode=require", "sslmode=verify-full"]).await;
    told.is(
        r#"
        sslmode=prefer
          TLS, norn, postgres
        sslmode=require
          the certificate of 127.0.0.1:PORT is signed by nobody that ~/.postgresql/root.crt names; name the file of its root in sslrootcert
        sslmode=verify-full
          the certificate of 127.0.0.1:PORT is signed by nobody that ~/.postgresql/root.crt names; name the file of its root in sslrootcert
        sslmode=require
          TLS, norn, postgres
        sslmode=verify-full
          TLS, norn, postgres
        "#,
    );

    let modes = ["sslmode=require", "sslmode=verify-ca", "sslmode=verify-full"];
    server.show_certificate("other.crt");
    fs::remove_file(&root).expect("it is there");
    let checked = modes.map(|mode| format!("{mode}&sslrootcert=DIR/ca.crt"));
    let checked = checked.each_ref().map(String::as_str);
    told.parameters(&server, &checked).await;
    server.show_certificate("expired.crt");
    told.parameters(&server, &["sslmode=require"]).await;
    told.parameters(&server, &checked).await;
    told.is(
        r#"
        sslmode=require&sslrootcert=DIR/ca.crt
          TLS, norn, postgres
        sslmode=verify-ca&sslrootcert=DIR/ca.crt
          TLS, norn, postgres
        sslmode=verify-full&sslrootcert=DIR/ca.crt
          the certificate of 127.0.0.1:PORT is not for 127.0.0.1 but for db.example.com; take that name in the URL, or sslmode=verify-ca
        sslmode=require
          TLS, norn, postgres
        sslmode=require&sslrootcert=DIR/ca.crt
          the certificate of 127.0.0.1:PORT has expired; renew it there
        sslmode=verify-ca&sslrootcert=DIR/ca.crt
          the certificate of 127.0.0.1:PORT has expired; renew it there
        sslmode=verify-full&sslrootcert=DIR/ca.crt
          the certificate of 127.0.0.1:PORT has expired; renew it there
        "#,
    );

    // A certificate that signed itself is its own root.
    server.show_certificate("self.crt");
    let own = modes.map(|mode| format!("{mode}&host=localhost&sslrootcert=DIR/self.crt"));
    told.parameters(&server, &own.each_ref().map(String::as_str)).await;
    told.parameters(&server, &["sslmode=verify-full&sslrootcert=DIR/self.crt"]).await;
    told.parameters(&server, &["sslmode=verify-ca&sslrootcert=DIR/ca.crt"]).await;
    told.is(
        r#"
        sslmode=require&host=localhost&sslrootcert=DIR/self.crt
          TLS, norn, postgres
        sslmode=verify-ca&host=localhost&sslrootcert=DIR/self.crt
          TLS, norn, postgres
        sslmode=verify-full&host=localhost&sslrootcert=DIR/self.crt
          TLS, norn, postgres
        sslmode=verify-full&sslrootcert=DIR/self.crt
          the certificate of 127.0.0.1:PORT is not for 127.0.0.1 but for localhost; take that name in the URL, or sslmode=verify-ca
        sslmode=verify-ca&sslrootcert=DIR/ca.crt
          the certificate of 127.0.0.1:PORT is signed by nobody that DIR/ca.crt names; name the file of its root in sslrootcert
        "#,
    );

    server.set("ssl", "off");
    let all = ["disable", "allow", "prefer", "require", "verify-ca", "verify-full"];
    told.parameters(&server, &all.map(|mode| format!("sslmode={mode}")).each_ref().map(String::as_str)).await;
    told.is(
        r#"
        sslmode=disable
          plain, norn, postgres
        sslmode=allow
          plain, norn, postgres
        sslmode=prefer
          plain, norn, postgres
        sslmode=require
          127.0.0.1:PORT has no TLS, and sslmode=require needs it; switch it on there (`ssl = on`), or take sslmode=prefer
        sslmode=verify-ca
          127.0.0.1:PORT has no TLS, and sslmode=verify-ca needs it; switch it on there (`ssl = on`), or take sslmode=prefer
        sslmode=verify-full
          127.0.0.1:PORT has no TLS, and sslmode=verify-full needs it; switch it on there (`ssl = on`), or take sslmode=prefer
        "#,
    );
}

#[tokio::test]
async fn pg_hba_may_ask_for_tls_for_none_and_for_a_certificate() {
    let Some(server) = Server::start("") else {
        return skipped("TLS with a database", "PostgreSQL is not installed");
    };
    let home = tempfile::tempdir().expect("a temporary folder");
    let mut told = Told::new(&home, &server);
    for database in ["secure", "open", "certified", "closed", "unlocked"] {
        server.sql("postgres", &format!("CREATE DATABASE {database}"));
    }
    server.admit(
        "hostnossl secure all all reject\nhostssl open all all reject\nhostssl certified all all cert\n\
         host closed all all reject\nhost unlocked all all trust",
    );
    let cases = [
        "dbname=secure&sslmode=disable",
        "dbname=secure&sslmode=allow",
        "dbname=secure&sslmode=prefer",
        "dbname=open&sslmode=allow",
        "dbname=open&sslmode=prefer",
        "dbname=open&sslmode=require",
        "dbname=closed&sslmode=allow",
        "dbname=closed&sslmode=prefer",
        "dbname=certified&sslmode=require",
        "dbname=certified&sslmode=require&sslcert=DIR/client.crt&sslkey=DIR/client.key",
        "dbname=certified&sslmode=require&sslcert=DIR/good.crt&sslkey=DIR/client.key",
        "dbname=certified&sslmode=require&sslcert=DIR/client.crt&sslkey=DIR/none.key",
        "dbname=certified&sslmode=require&sslcert=DIR/client.crt&sslkey=DIR/ca.crt",
        "dbname=unlocked&user=nobody",
    ];
    told.parameters(&server, &cases).await;
    told.is(
        r#"
        dbname=secure&sslmode=disable
          127.0.0.1:PORT does not admit this connection: pg_hba.conf rejects connection for host "127.0.0.1", user "norn", database "secure", no encryption; allow it in the server's pg_hba.conf, or take another user, host or sslmode
        dbname=secure&sslmode=allow
          TLS, norn, secure
        dbname=secure&sslmode=prefer
          TLS, norn, secure
        dbname=open&sslmode=allow
          plain, norn, open
        dbname=open&sslmode=prefer
          plain, norn, open
        dbname=open&sslmode=require
          127.0.0.1:PORT does not admit this connection: pg_hba.conf rejects connection for host "127.0.0.1", user "norn", database "open", SSL encryption; allow it in the server's pg_hba.conf, or take another user, host or sslmode
        dbname=closed&sslmode=allow
          127.0.0.1:PORT does not admit this connection: pg_hba.conf rejects connection for host "127.0.0.1", user "norn", database "closed", no encryption; allow it in the server's pg_hba.conf, or take another user, host or sslmode
        dbname=closed&sslmode=prefer
          127.0.0.1:PORT does not admit this connection: pg_hba.conf rejects connection for host "127.0.0.1", user "norn", database "closed", SSL encryption; allow it in the server's pg_hba.conf, or take another user, host or sslmode
        dbname=certified&sslmode=require
          127.0.0.1:PORT does not admit this connection: connection requires a valid client certificate; allow it in the server's pg_hba.conf, or take another user, host or sslmode
        dbname=certified&sslmode=require&sslcert=DIR/client.crt&sslkey=DIR/client.key
          TLS, norn, certified
        dbname=certified&sslmode=require&sslcert=DIR/good.crt&sslkey=DIR/client.key
          the client key DIR/client.key cannot be used: it is not the key of DIR/good.crt
        dbname=certified&sslmode=require&sslcert=DIR/client.crt&sslkey=DIR/none.key
          the client key DIR/none.key cannot be used: no such file or directory
        dbname=certified&sslmode=require&sslcert=DIR/client.crt&sslkey=DIR/ca.crt
          the client key DIR/ca.crt cannot be used: others may read it; run chmod 600 on it
        dbname=unlocked&user=nobody
          127.0.0.1:PORT does not let nobody in: role "nobody" does not exist; create the role there, or name another user in the URL
        "#,
    );
}
