//! Runs on different machines, with clocks that differ: the lease and the database's clock decide.

use std::process::Command;

use rustix::process::{Pid, Signal, kill_process_group};

use super::{BUILD_UNTIL_TOLD, Shop, finished, started, write_version};
use crate::shared::skipped;
use crate::support::{Sandbox, until};

/// A machine of its own: its processes, its network, its name and its machine id.
const MACHINE: &str = r#"
mount --bind "$1" /etc/machine-id && hostname elsewhere && ip link set lo up && exec sh -c "$2""#;

/// norn on a machine of its own, as a process group that ends as one; `more` is what its shell does after.
pub fn on_machine(sandbox: &Sandbox, id: u32, arguments: &str, more: &str) -> Command {
    use std::os::unix::process::CommandExt;
    sandbox.write("machine-id", &format!("{id:032}\n"));
    let mut command = Command::new("unshare");
    command.args(["--mount", "--uts", "--net", "--pid", "--fork", "--kill-child", "--mount-proc"]);
    command.args(["sh", "-c", MACHINE, "sh"]).arg(sandbox.path("machine-id"));
    command.arg(format!("'{}' {arguments}{more}", sandbox.norn.display()));
    command.current_dir(sandbox.dir.path()).env_clear().envs(&sandbox.env).env("USER", "ann");
    command.process_group(0);
    command
}

/// Whether there can be a machine of its own here.
pub fn machine_or_skip(sandbox: &Sandbox, what: &str) -> bool {
    let probe = on_machine(sandbox, 42, "--version", "").output().expect("unshare is there");
    if !probe.status.success() {
        skipped(what, &String::from_utf8_lossy(&probe.stderr));
    }
    probe.status.success()
}

#[test]
fn a_holder_on_another_machine_is_dead_only_when_its_lease_is() {
    let what = "a holder on another machine";
    let Some(shop) = Shop::by_socket(what) else { return };
    let other = shop.elsewhere();
    if !machine_or_skip(&other, what) {
        return;
    }
    write_version(&other, shop.port, "one", "build: {command: 'touch ../../../../building; sleep 300'}");
    let holder = started(&mut on_machine(&other, 42, "apply --yes", ""));
    until("the build runs", || other.path("building").exists());
    let refused = |moment: &str| {
        let ran = shop.sandbox.run("apply --yes");
        let said = redact(&shop.plain(&ran.err).replace(&shop.socket().replace('/', "%2F"), "SOCKET"));
        let locked = "error: the state in postgres://norn@SOCKET:PORT/DB is locked by ann@elsewhere (pid #, norn \
                      apply, since #-#-#T#:#:#.#Z)\nhelp: `norn lock status` shows what it does; wait for it with --lock-wait #m, or end that process\n";
        assert_eq!((ran.code, said.as_str()), (4, locked), "{moment}");
        let status = redact(&shop.sandbox.ok("status").out);
        let changing = "changing now: ann@elsewhere (pid #, norn apply, since #-#-#T#:#:#.#Z)";
        assert!(status.contains(changing), "{moment}: {status}");
    };
    refused("while it works");
    let group = Pid::from_raw(i32::try_from(holder.id()).expect("a pid")).expect("a pid");
    kill_process_group(group, Signal::KILL).expect("it runs");
    finished(holder);
    until("all of that machine has ended", || other.processes().is_empty());
    refused("after it was killed");
    // As if the minute of its lease had passed.
    shop.database.sql("UPDATE norn_locks SET expires_at = expires_at - interval '60 s'");
    shop.database.sql("UPDATE norn_runs SET heartbeat_at = heartbeat_at - interval '50 s'");
    let status = shop.sandbox.ok("status").out;
    assert!(!status.contains("changing now"), "{status}");
    assert!(status.contains("left by a dead run, settled by the next apply: deploy/web"), "{status}");
    let ran = shop.sandbox.ok("apply --yes");
    // Nobody here sees its command, which may last as long as its lease was prolonged.
    assert!(
        ran.err.contains("until the commands of a dead run on another machine have ended"),
        "{}",
        ran.err
    );
    assert_eq!(shop.statuses(), "failed deployed");
    shop.is_sound("after the takeover");
}

/// Without pids and times.
fn redact(text: &str) -> String {
    let (mut out, mut digits) = (String::new(), false);
    for letter in text.chars() {
        if letter.is_ascii_digit() {
            if !digits {
                out.push('#');
            }
        } else {
            out.push(letter);
        }
        digits = letter.is_ascii_digit();
    }
    out
}

#[test]
fn clocks_that_differ_change_nothing() {
    let what = "clocks that differ";
    let Some(mut shop) = Shop::new(what) else { return };
    let folders = ["/usr/lib/x86_64-linux-gnu", "/usr/lib/aarch64-linux-gnu", "/usr/lib", "/usr/lib64"];
    let mut libraries = folders.iter().map(|folder| format!("{folder}/faketime/libfaketime.so.1"));
    let Some(library) = libraries.find(|path| std::path::Path::new(path).exists()) else {
        return skipped(what, "libfaketime is not installed");
    };
    let clock = |sandbox: &mut Sandbox, offset: &str| {
        sandbox.env.insert("LD_PRELOAD".into(), library.clone());
        sandbox.env.insert("FAKETIME".into(), offset.into());
        // What counts time since boot is no clock that can be wrong.
        sandbox.env.insert("FAKETIME_DONT_FAKE_MONOTONIC".into(), "1".into());
    };
    let mut other = shop.elsewhere();
    clock(&mut shop.sandbox, "+1h");
    clock(&mut other, "-1h");
    let taken = shop.database.sql("SELECT extract(epoch FROM clock_timestamp())::bigint");
    // Its build looks at the lease, and keeps the lock until the other one was refused.
    let look = "SELECT expires_at - acquired_at >= interval '60 s', \
                abs(extract(epoch FROM acquired_at - clock_timestamp())) < 30 FROM norn_locks";
    for (holder, late, version) in [(&shop.sandbox, &other, "one"), (&other, &shop.sandbox, "two")] {
        write_version(holder, shop.port, version, BUILD_UNTIL_TOLD);
        let norn = started(&mut holder.command("apply --yes"));
        until("the build runs", || holder.path("building").exists());
        assert_eq!(shop.database.sql(look), "t|t");
        let ran = late.run("apply --yes");
        assert_eq!(ran.code, 4, "{}", ran.err);
        holder.write("go", "");
        let ran = finished(norn);
        assert_eq!(ran.code, 0, "{}", ran.err);
        holder.ok("destroy --yes --confirm shop");
    }
    let times = format!(
        "SELECT count(*), bool_and(abs(extract(epoch FROM at) - {taken}) < 100) FROM (SELECT started_at AS at FROM \
         deployments UNION ALL SELECT finished_at FROM deployments UNION ALL SELECT started_at FROM norn_runs \
         UNION ALL SELECT heartbeat_at FROM norn_runs UNION ALL SELECT ended_at FROM norn_steps) AS times"
    );
    let times = shop.database.sql(&times);
    assert!(times.ends_with("|t"), "every time is the database's: {times}");
}
