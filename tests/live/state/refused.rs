//! A state that cannot be used: one clear error, exit 1, and nothing is changed.

use std::time::{Duration, Instant};

use super::Shop;
use crate::postgres_server::Server;
use crate::proxy::Proxy;
use crate::shared::free_port;

/// Neither looks nor acts.
const BOTH: [&str; 2] = ["plan", "apply --yes"];

#[test]
fn a_server_that_cannot_be_used() {
    let Some(mut shop) = Shop::new("a state that cannot be used") else { return };
    let good = shop.database.url();
    let port = shop.server.port().to_string();
    let nobody = free_port();
    let cases = [
        (
            good.replace("p%40ss", "wrong"),
            "error: the state in postgres://norn@127.0.0.1:PORT/DB cannot be reached: 127.0.0.1:PORT refuses user \
             norn with this password: password authentication failed for user \"norn\"; correct user and password \
             in the URL",
        ),
        (
            good.replace(&port, &nobody.to_string()),
            "error: the state in postgres://norn@127.0.0.1:NOBODY/DB cannot be reached: nothing listens at \
             127.0.0.1:NOBODY; start PostgreSQL there, or correct the URL's host and port",
        ),
        (
            good.replace(&shop.database.name, "nowhere"),
            "error: the state in postgres://norn@127.0.0.1:PORT/nowhere cannot be reached: 127.0.0.1:PORT has no \
             database nowhere: database \"nowhere\" does not exist; create it there, or name another in the URL",
        ),
        (
            good.replace("norn:", "stranger:"),
            "error: the state in postgres://stranger@127.0.0.1:PORT/DB cannot be reached: 127.0.0.1:PORT refuses \
             user stranger with this password: password authentication failed for user \"stranger\"; correct user \
             and password in the URL",
        ),
    ];
    for (url, words) in cases {
        shop.state_is_at(&url);
        for line in BOTH {
            shop.refused(line, 1, &words.replace("NOBODY", &nobody.to_string()));
        }
    }
}

#[test]
fn a_server_that_swallows_all_is_waited_for_no_longer_than_asked() {
    let Some(mut shop) = Shop::new("a server that swallows packets") else { return };
    let proxy = Proxy::before(shop.server.port());
    proxy.stall(true);
    shop.state_is_at(&(shop.database.url_at(proxy.port) + "?connect_timeout=2"));
    let words = "error: the state in postgres://norn@127.0.0.1:PROXY/DB cannot be reached: 127.0.0.1:PROXY did not \
                 answer within 2 s; see whether it is up and no firewall is in between, or give connect_timeout \
                 more seconds";
    for line in BOTH {
        let asked = Instant::now();
        shop.refused(line, 1, &words.replace("PROXY", &proxy.port.to_string()));
        assert!(asked.elapsed() < Duration::from_secs(10), "{:?}", asked.elapsed());
    }
}

#[test]
fn a_database_that_holds_something_else() {
    let Some(shop) = Shop::new("a database of something else") else { return };
    let cases = [
        ("accounts (id int)", "it is a database of something else, with a table accounts"),
        ("deployments (id uuid, app text)", "its table deployments lacks the column commit_sha"),
        ("norn_meta (name text, value text)", "its norn_meta is not norn's"),
    ];
    for (table, why) in cases {
        shop.database.sql(&format!("CREATE TABLE {table}"));
        let words = format!(
            "error: postgres://norn@127.0.0.1:PORT/DB is no state of norn: {why}; name another place with --state"
        );
        for line in BOTH {
            shop.refused(line, 1, &words);
        }
        shop.database.sql(&format!("DROP TABLE {}", table.split(' ').next().unwrap_or_default()));
    }
}

#[test]
fn a_store_of_another_project_or_stage() {
    let Some(shop) = Shop::new("a state of another project") else { return };
    shop.sandbox.ok("apply --yes");
    shop.sandbox.ok("destroy --yes --confirm shop");
    let spec = shop.sandbox.read("infraspec.yaml");
    let belongs = |theirs: &str, ours: &str| {
        let words = format!(
            "error: the state in postgres://norn@127.0.0.1:PORT/DB belongs to project {theirs}, not to project \
             {ours}; name another place with --state"
        );
        for line in BOTH {
            shop.refused(line, 1, &words);
        }
    };
    shop.sandbox.write("infraspec.yaml", &spec.replace("project: shop", "project: another"));
    belongs("shop without a stage", "another without a stage");
    shop.sandbox.write("infraspec.yaml", &(spec + "stages: {prod: {}, test: {}}\ndefaultStage: prod\n"));
    // One that was copied, as a restored dump would be.
    shop.database.sql("ALTER SCHEMA public RENAME TO prod");
    belongs("shop without a stage", "shop, stage prod");
    shop.database.sql("UPDATE prod.norn_meta SET value = 'test' WHERE key = 'stage'");
    belongs("shop, stage test", "shop, stage prod");
}

#[test]
fn a_role_without_the_right_to_create() {
    let Some(mut shop) = Shop::new("a role without rights") else { return };
    let role = format!("{}_reader", shop.database.name);
    shop.database.sql(&format!("CREATE ROLE {role} LOGIN PASSWORD 'reader-secret'"));
    let good = shop.database.url();
    let (_, place) = good.split_once('@').expect("it names a user");
    shop.state_is_at(&format!("postgres://{role}:reader-secret@{place}"));
    let refused = |shop: &Shop, why: &str| {
        let words = format!(
            "error: the state in postgres://DB_reader@127.0.0.1:PORT/DB cannot be written: permission denied for \
             {why} (SQLSTATE 42501); give this role the right to create and write tables there, or name another \
             place with --state"
        );
        shop.said(&shop.sandbox.run("apply --yes"), "apply --yes", 1, &words);
    };
    let before = shop.content();
    shop.sandbox.ok("plan");
    refused(&shop, "schema public");
    assert!(before == shop.content() && shop.sandbox.processes().is_empty());
    // A stage has a schema of its own, which is not its to make.
    let spec = shop.sandbox.read("infraspec.yaml");
    shop.sandbox.write("infraspec.yaml", &(spec.clone() + "stages: {prod: {}}\ndefaultStage: prod\n"));
    refused(&shop, "database DB");
    assert!(before == shop.content() && shop.sandbox.processes().is_empty());
    // What was refused is not where the state was: the mended name is not a switch.
    shop.sandbox.write("infraspec.yaml", &spec);
    shop.state_is_at(&good);
    shop.sandbox.ok("apply --yes");
    // With tables that it may read only, it may plan.
    shop.state_is_at(&format!("postgres://{role}:reader-secret@{place}"));
    std::fs::remove_file(shop.sandbox.path(".norn/store")).expect("it is remembered");
    shop.database.sql(&format!("GRANT SELECT ON ALL TABLES IN SCHEMA public TO {role}"));
    let before = shop.content();
    shop.sandbox.plan_is_empty();
    shop.version("two", "");
    refused(&shop, "table norn_locks");
    assert!(before == shop.content());
}

#[test]
fn a_read_only_replica() {
    let Some(mut shop) = Shop::new("a read-only replica") else { return };
    shop.sandbox.ok("apply --yes");
    let replica: Server = shop.server.standby();
    std::fs::remove_file(shop.sandbox.path(".norn/store")).expect("it is remembered");
    let primary = shop.database.url();
    shop.state_is_at(&replica.url(&shop.database.name));
    shop.sandbox.plan_is_empty();
    shop.sandbox.ok("status");
    shop.version("two", "");
    let before = shop.content();
    let words = "error: the state in postgres://norn@127.0.0.1:REPLICA/DB cannot be written: the server is a \
                 read-only replica; name the primary server, or name another place with --state";
    let words = words.replace("REPLICA", &replica.port().to_string());
    let ran = shop.sandbox.run("apply --yes");
    shop.said(&ran, "apply --yes", 1, &words);
    assert!(before == shop.content());
    shop.serves("");
    shop.state_is_at(&primary);
    shop.sandbox.ok("apply --yes");
    shop.serves("two");
}

#[test]
fn a_place_that_is_none() {
    let Some(mut shop) = Shop::new("a place that is no state") else { return };
    let good = shop.database.url();
    let scheme = "error: NORN_STATE_URL: the URL begins with neither postgres:// nor postgresql://; write it as \
                  postgres://user:password@host:5432/database";
    let number = "error: NORN_STATE_URL: a port is a number from 1 to 65535; in a password, write : as %3A and @ as \
                  %40";
    for (url, words) in [
        ("mysql://root:secret-word@localhost/norn", scheme),
        ("/var/lib/norn.db", scheme),
        ("postgres://u:secret-word@host:port/db", number),
    ] {
        shop.state_is_at(url);
        for line in BOTH {
            shop.refused(line, 1, words);
        }
    }
    shop.state_is_at("");
    for line in BOTH {
        shop.refused(
            &format!("{line} --state {good}"),
            1,
            "error: --state holds a password, which every user of this machine can read\n\
             help: leave it out, and set PGPASSWORD or write it into ~/.pgpass",
        );
    }
    let spec = shop.sandbox.read("infraspec.yaml");
    shop.sandbox.write("infraspec.yaml", &format!("{spec}state: {{url: \"${{SHOP_STATE}}\"}}\n"));
    for line in BOTH {
        shop.refused(
            line,
            1,
            "error: `state.url`: SHOP_STATE is not set\n\
             help: set SHOP_STATE in norn's environment, or in a file given with --env-file",
        );
    }
    // Empty is not set: the next one counts.
    shop.sandbox.env.insert("SHOP_STATE".into(), good.clone());
    shop.sandbox.env.insert("NORN_DATABASE_URL".into(), String::new());
    let plan = shop.plain(&shop.sandbox.ok("plan").out);
    let first = "project shop · state postgres://norn@127.0.0.1:PORT/DB (0 resources)";
    assert_eq!(plan.lines().next(), Some(first));
}

#[test]
fn a_state_is_not_switched_silently() {
    let Some(mut shop) = Shop::new("a state that moves") else { return };
    let url = shop.database.url();
    shop.state_is_at("");
    shop.sandbox.ok("apply --yes");
    shop.sandbox.ok("destroy --yes --confirm shop");
    shop.state_is_at(&url);
    let file = "DIR/.norn/state.db";
    let database = "postgres://norn@127.0.0.1:PORT/DB";
    let switched = |shop: &Shop, was: &str, now: &str| {
        let unset = if now.starts_with("postgres") { "unset NORN_STATE_URL, or " } else { "" };
        let words = format!(
            "error: the state was in {was} and would now be in {now}\n\
             help: {unset}name the one you mean with --state; to move it: `norn state migrate`; \
             to begin anew: remove DIR/.norn/store"
        );
        for line in BOTH {
            shop.refused(line, 1, &words);
        }
    };
    switched(&shop, file, database);
    std::fs::remove_file(shop.sandbox.path(".norn/store")).expect("it is remembered");
    shop.sandbox.ok("apply --yes");
    shop.sandbox.ok("destroy --yes --confirm shop");
    shop.state_is_at("");
    switched(&shop, database, file);
    // A database with another store of the same project, and one with none.
    let (other, empty) = (shop.server.database(), shop.server.database());
    let mut elsewhere = shop.elsewhere();
    elsewhere.env.insert("NORN_STATE_URL".into(), other.url());
    elsewhere.ok("plan --out plan.norn");
    for another in [&other, &empty] {
        shop.state_is_at(&another.url());
        switched(&shop, database, &database.replace("DB", &another.name));
    }
    // The same one by another name of its host is no switch, and is where the state is from then on.
    let localhost = url.replace("127.0.0.1", "localhost");
    shop.state_is_at(&localhost);
    shop.sandbox.ok("plan");
    shop.sandbox.ok("apply --yes");
    let store = shop.plain(&shop.sandbox.read(".norn/store"));
    assert!(store.starts_with("postgres://norn@localhost:PORT/DB\n"), "{store}");
    shop.state_is_at(&url);
    shop.sandbox.plan_is_empty();
}
