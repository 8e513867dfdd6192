//! The files of the database: who may read them, and what there is no right or room to write.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::process::Command;

use super::*;
use crate::state::conformance::trace::{holder, put, shop};

/// Every file beside the database, with its bytes and the time of its last change.
pub fn listing(folder: &Folder) -> BTreeMap<String, (Vec<u8>, i64, i64)> {
    let folder = folder.path().parent().expect("it has a folder").to_owned();
    let files = fs::read_dir(folder).expect("it is there").map(|file| {
        let file = file.expect("it is readable");
        let about = file.metadata().expect("it is there");
        let name = file.file_name().to_string_lossy().into_owned();
        (name, (fs::read(file.path()).expect("it is readable"), about.mtime(), about.mtime_nsec()))
    });
    files.collect()
}

async fn written(folder: &Folder) {
    let store = shop(folder);
    let lease = store.lock(&holder("r1"), Duration::ZERO).await.expect("nobody holds the lease");
    store.write(&lease, &[put("web", 1)]).await.expect("the lease is current");
    store.unlock(&lease).await.expect("it is held");
}

#[tokio::test]
async fn the_files_are_private() {
    let folder = Folder::new();
    let store = shop(&folder);
    store.lock(&holder("r1"), Duration::ZERO).await.expect("nobody holds the lease");
    let mode = |path: PathBuf| fs::metadata(path).expect("it is there").permissions().mode() & 0o7777;
    assert_eq!(mode(folder.path().parent().expect("it has a folder").into()), 0o700);
    for suffix in ["db", "db-wal", "db-shm"] {
        assert_eq!(mode(folder.path().with_extension(suffix)), 0o600, "{suffix}");
    }
}

#[tokio::test]
async fn reading_makes_and_changes_nothing() {
    let folder = Folder::new();
    assert!(!shop(&folder).snapshot().await.expect("absent reads as empty").exists);
    assert!(!folder.path().parent().expect("it has a folder").exists());

    written(&folder).await;
    let before = listing(&folder);
    assert_eq!(before.keys().collect::<Vec<_>>(), ["state.db"], "at rest there is one file");
    assert_eq!(shop(&folder).snapshot().await.expect("it is readable").resources.len(), 1);
    assert_eq!(listing(&folder), before);
}

#[tokio::test]
async fn a_log_without_its_index_is_read() {
    let folder = Folder::new();
    let store = shop(&folder);
    let lease = store.lock(&holder("r1"), Duration::ZERO).await.expect("nobody holds the lease");
    store.write(&lease, &[put("web", 1)]).await.expect("the lease is current");
    // As a backup of the folder would have it.
    let copy = Folder::new();
    fs::create_dir(copy.path().parent().expect("it has a folder")).expect("the folder is new");
    for suffix in ["db", "db-wal"] {
        fs::write(copy.path().with_extension(suffix), &listing(&folder)[&format!("state.{suffix}")].0)
            .expect("room");
    }
    let before = listing(&copy);
    let snapshot = shop(&copy).snapshot().await.expect("it is readable");
    assert_eq!((snapshot.resources.len(), snapshot.lock.map(|held| held.token)), (1, Some(lease.token)));
    assert_eq!(listing(&copy), before);
}

#[tokio::test]
async fn a_log_that_ends_behind_its_head_is_read_at_once() {
    let folder = Folder::new();
    written(&folder).await;
    let conn = Connection::open(folder.path()).expect("it opens");
    let mode = "PRAGMA journal_mode=WAL; CREATE TABLE more (a); PRAGMA wal_checkpoint(FULL)";
    conn.execute_batch(mode).expect("it is written");
    // As a writer leaves them that is killed before the first page of its first transaction.
    let killed = Folder::new();
    fs::create_dir(killed.path().parent().expect("it has a folder")).expect("it is made");
    for suffix in ["db", "db-wal", "db-shm"] {
        let mut bytes = fs::read(folder.path().with_extension(suffix)).expect("it is there");
        bytes.truncate(if suffix == "db-wal" { 32 } else { bytes.len() });
        fs::write(killed.path().with_extension(suffix), bytes).expect("it is written");
    }
    let (before, begun) = (listing(&killed), std::time::Instant::now());
    assert_eq!(shop(&killed).snapshot().await.expect("it is readable").resources.len(), 1);
    assert!(begun.elapsed() < Duration::from_secs(5), "it took {:?}", begun.elapsed());
    assert_eq!(listing(&killed), before);
}

#[tokio::test]
async fn half_a_transaction_of_before_the_log_is_not_read() {
    let folder = Folder::new();
    written(&folder).await;
    let conn = folder.conn();
    // A cache of no size makes SQLite write to the file before the commit.
    let half = "PRAGMA journal_mode = DELETE; PRAGMA cache_size = 0; BEGIN;
         UPDATE norn_resources SET digest = 'half';
         CREATE TABLE more (x); INSERT INTO more SELECT zeroblob(2000) FROM pragma_table_info('deployments');";
    conn.execute_batch(half).expect("the statements are right");
    let copy = Folder::new();
    fs::create_dir(copy.path().parent().expect("it has a folder")).expect("the folder is new");
    for (name, (bytes, ..)) in listing(&folder) {
        fs::write(copy.path().with_file_name(name), bytes).expect("there is room");
    }
    let before = listing(&copy);
    let raw = &before["state.db"].0;
    assert!(raw.windows(4).any(|bytes| bytes == b"half"), "the half is in the file");
    assert!(before.contains_key("state.db-journal"));
    let snapshot = shop(&copy).snapshot().await.expect("it is readable");
    assert_eq!(snapshot.resources.values().map(|record| record.digest.as_str()).collect::<Vec<_>>(), ["1"]);
    assert_eq!(listing(&copy), before);
}

#[tokio::test]
async fn a_name_that_a_uri_would_read_otherwise_is_a_name() {
    let dir = tempfile::tempdir().expect("there is a temporary folder");
    let path = dir.path().join("100%20 #1?mode=memory.db");
    let scope = || crate::state::conformance::trace::scope("shop", None);
    let store = SqliteStore::open(&path, scope()).expect("the path is absolute");
    let lease = store.lock(&holder("r1"), Duration::ZERO).await.expect("nobody holds the lease");
    store.write(&lease, &[put("web", 1)]).await.expect("the lease is current");
    let other = SqliteStore::open(&path, scope()).expect("the path is absolute");
    assert_eq!(other.snapshot().await.expect("it is readable").resources.len(), 1);
    store.unlock(&lease).await.expect("it is held");
    assert_eq!(other.snapshot().await.expect("it is readable").resources.len(), 1);
}

/// A file system of its own in a store's folder, as long as the value lives.
struct Mount(PathBuf);

impl Mount {
    /// `None` without the right to mount.
    fn new(folder: &Folder, size: &str) -> Option<Mount> {
        let path = folder.path().parent().expect("it has a folder").to_owned();
        fs::create_dir_all(&path).expect("there is room");
        let options = format!("size={size}");
        let mounted =
            Command::new("mount").args(["-t", "tmpfs", "-o", &options, "tmpfs"]).arg(&path).output();
        if mounted.is_ok_and(|output| output.status.success()) { Some(Mount(path)) } else { None }
    }
}

impl Drop for Mount {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("--lazy").arg(&self.0).status();
    }
}

/// Takes the right to write away: from root, whom modes do not stop, by the mount.
fn make_read_only(folder: &Folder, mount: Option<&Mount>) {
    if let Some(mount) = mount {
        let status = Command::new("mount").args(["-o", "remount,ro"]).arg(&mount.0).status();
        return assert!(status.is_ok_and(|status| status.success()), "the mount is ours");
    }
    let mode = |path: PathBuf, mode| {
        fs::set_permissions(path, fs::Permissions::from_mode(mode)).expect("it is ours");
    };
    for name in listing(folder).keys() {
        mode(folder.path().with_file_name(name), 0o400);
    }
    mode(folder.path().parent().expect("it has a folder").into(), 0o500);
}

#[tokio::test]
async fn a_store_that_cannot_be_written_can_be_read() {
    let (rested, left) = (Folder::new(), Folder::new());
    let mounts = [&rested, &left].map(|folder| Mount::new(folder, "4m"));
    written(&rested).await;
    // A log and its index that nobody looks after, as a killed writer leaves them.
    let living = Folder::new();
    let store = shop(&living);
    let lease = store.lock(&holder("r1"), Duration::ZERO).await.expect("nobody holds the lease");
    store.write(&lease, &[put("web", 1)]).await.expect("the lease is current");
    for (name, (bytes, ..)) in listing(&living) {
        fs::write(left.path().with_file_name(name), bytes).expect("there is room");
    }
    for (folder, mount) in [&rested, &left].into_iter().zip(&mounts) {
        make_read_only(folder, mount.as_ref());
        let store = shop(folder);
        assert_eq!(store.snapshot().await.expect("it is readable").resources.len(), 1);
        let error = store.lock(&holder("r2"), Duration::ZERO).await.expect_err("nothing can be written");
        assert!(matches!(error, StoreError::ReadOnly { .. }), "{error:?}");
        let text = error.to_string();
        assert!(text.contains("state.db") && text.contains("write access"), "{text}");
    }
}

#[expect(clippy::print_stderr, reason = "a test that cannot run says so")]
fn skipped(test: &str) {
    eprintln!("SKIPPED {test}: only root may mount a file system");
}

#[tokio::test]
async fn a_full_disk_is_told_and_what_was_written_stays() {
    let folder = Folder::new();
    let Some(mount) = Mount::new(&folder, "512k") else { return skipped("full disk") };
    let store = shop(&folder);
    let lease = store.lock(&holder("r1"), Duration::ZERO).await.expect("there is room for that");
    let mut written = 0;
    let error = loop {
        let Change::RecordPut { address, mut record } = put(&format!("web{written}"), 1) else {
            unreachable!()
        };
        record.body = serde_json::Value::String("x".repeat(20_000));
        match store.write(&lease, &[Change::RecordPut { address, record }]).await {
            Ok(()) => written += 1,
            Err(error) => break error,
        }
    };
    assert!(matches!(error, StoreError::Full { .. }), "{error:?}");
    let text = error.to_string();
    assert!(text.contains("state.db") && text.contains("free some"), "{text}");
    assert!(written > 0);
    assert_eq!(shop(&folder).snapshot().await.expect("it is readable").resources.len(), written);
    drop(store);
    drop(mount);

    let folder = Folder::new();
    let Some(_mount) = Mount::new(&folder, "8k") else { return skipped("full disk") };
    fs::write(folder.path().with_file_name("filler"), [0; 8192]).expect("it just fits");
    let error = shop(&folder).lock(&holder("r1"), Duration::ZERO).await.expect_err("there is no room");
    assert!(matches!(error, StoreError::Full { .. }), "{error:?}");
    assert!(!shop(&folder).snapshot().await.expect("it is readable").exists);
}

#[tokio::test]
async fn a_file_that_lost_its_name_is_not_written_in_silence() {
    type Loss = fn(&Folder);
    let removed: Loss = |folder| fs::remove_file(folder.path()).expect("it is there");
    let replaced: Loss = |folder| {
        let copy = folder.path().with_extension("copy");
        fs::copy(folder.path(), &copy).expect("it is readable");
        fs::rename(copy, folder.path()).expect("its folder is writable");
    };
    for (lose, word) in [(removed, "removed"), (replaced, "replaced")] {
        let folder = Folder::new();
        let store = shop(&folder);
        let lease = store.lock(&holder("r1"), Duration::ZERO).await.expect("nobody holds the lease");
        store.write(&lease, &[put("web", 1)]).await.expect("the lease is current");
        lose(&folder);
        let write = store.write(&lease, &[put("web", 2)]).await.expect_err("nobody will find it");
        let renew = store.renew(&lease).await.expect_err("nobody will find it");
        for error in [write, renew] {
            let text = error.to_string();
            assert!(text.contains("state.db") && text.contains(word), "{text}");
        }
        store.unlock(&lease).await.expect("there is nothing more to lose");
    }
}
