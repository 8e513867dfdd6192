//! A connection that is cut, anywhere in a write: one clear error, and all of the write or none.

use super::*;
use crate::state::conformance::trace::{holder, put};

#[tokio::test(flavor = "multi_thread")]
async fn a_connection_cut_anywhere_in_a_write_makes_all_of_it_or_none() {
    let Some(mut base) = Base::new() else { return };
    let direct = shop(&base);
    let first = direct.lock(&holder("first"), Duration::ZERO).await.expect("nobody holds the lease");
    direct.unlock(&first).await.expect("it is held");
    let port = postgres::server("cuts").expect("there is one").port();
    let proxy = proxy::Proxy::before(port);
    base.url = base.database.url_at(proxy.port);

    // How many bytes each side sends until the lease is taken, and until a write is done.
    let store = shop(&base);
    let lease = store.lock(&holder("r0"), Duration::ZERO).await.expect("nobody holds the lease");
    let opened = [proxy::Side::Client, proxy::Side::Server].map(|side| proxy.passed(side));
    let both = |version| [put("web", version), put("api", version)];
    store.write(&lease, &both(1)).await.expect("the lease is current");
    let written = [proxy::Side::Client, proxy::Side::Server].map(|side| proxy.passed(side));
    direct.break_lock(lease.token).await.expect("it is held");

    let mut version = 1;
    let (mut made, mut lost) = (0, 0);
    for (side, at) in [(proxy::Side::Client, 0), (proxy::Side::Server, 1)] {
        let span = written[at] - opened[at];
        for part in 0..12 {
            let store = shop(&base);
            proxy.cut_next(side, opened[at] + 1 + span * part / 12);
            let run = format!("r{at}{part}");
            // The lengths of names and tokens move the cut by a few bytes, sometimes before the write.
            let lease = match store.lock(&holder(&run), Duration::ZERO).await {
                Ok(lease) => lease,
                Err(error) => {
                    cut_error(&error);
                    free(&direct).await;
                    continue;
                }
            };
            version += 1;
            let result = store.write(&lease, &both(version)).await;
            let snapshot = direct.snapshot().await.expect("it is readable");
            let mut digests: Vec<&str> = snapshot.resources.values().map(|r| r.digest.as_str()).collect();
            digests.dedup();
            assert_eq!(digests.len(), 1, "half of a write was made: {digests:?}");
            match result {
                Ok(()) => assert_eq!(digests, [version.to_string().as_str()]),
                Err(error) => {
                    cut_error(&error);
                    // The same process goes on with a new connection.
                    store.renew(&lease).await.expect("the lease is held still");
                    if digests == [version.to_string().as_str()] { made += 1 } else { lost += 1 }
                }
            }
            direct.break_lock(lease.token).await.expect("it is held");
        }
    }
    assert!(made > 0 && lost > 0, "both ends of a cut write were seen: {made} made, {lost} not");
}

fn cut_error(error: &StoreError) {
    let text = error.to_string();
    assert!(text.contains("was cut") || text.contains("cut the connection"), "{text}");
}

async fn free(store: &PostgresStore) {
    if let Some(held) = store.snapshot().await.expect("it is readable").lock {
        store.break_lock(held.token).await.expect("it is held");
    }
}
