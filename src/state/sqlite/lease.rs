//! The lease row. What it means is decided in `state::lock`.

use rusqlite::{Connection, Transaction, TransactionBehavior, named_params};

use super::failure::Failure;
use super::row::now;
use crate::provider::machine;
use crate::state::lock::{Held, Holder, Lease, LeaseRow, TTL};
use crate::state::row::{self, Named};

/// Reads the lease row, with the database's clock.
pub fn row(conn: &Connection) -> Result<LeaseRow, Failure> {
    let mut statement =
        conn.prepare_cached(concat!("SELECT *, ", now!(), " AS now FROM norn_locks WHERE id = 1"))?;
    let mut rows = statement.query([])?;
    let row = rows.next()?.ok_or_else(|| Failure::Data("norn_locks has no row".into()))?;
    Ok(row::lease(Named { table: "norn_locks", key: "id", row })?)
}

/// Takes the lease, or says who holds it.
pub fn take(conn: &mut Connection, holder: &Holder) -> Result<Result<Lease, Held>, Failure> {
    let tx = conn.transaction_with_behavior(TransactionBehavior::Immediate)?;
    let row = row(&tx)?;
    let token = row.next_token();
    if let Some(held) = row.blocker(machine::alive) {
        return Ok(Err(held));
    }
    tx.execute(
        concat!(
            "UPDATE norn_locks SET token = :token, run = :run, who = :who, machine_id = :machine_id, ",
            "boot_id = :boot_id, pid_namespace = :pid_namespace, pid = :pid, start_time = :start_time, ",
            "job_url = :job_url, reason = :reason, acquired_at = ",
            now!(),
            ", expires_at = strftime('%Y-%m-%dT%H:%M:%f000Z', 'now', :ttl) WHERE id = 1"
        ),
        named_params! {
            ":token": integer(token)?,
            ":run": holder.run,
            ":who": holder.who,
            ":machine_id": holder.process.machine_id,
            ":boot_id": holder.process.boot_id,
            ":pid_namespace": holder.process.pid_namespace,
            ":pid": holder.process.pid,
            ":start_time": integer(holder.process.start_time)?,
            ":job_url": holder.job_url,
            ":reason": holder.reason,
            ":ttl": ttl(),
        },
    )?;
    tx.commit()?;
    Ok(Ok(Lease { token, run: holder.run.clone() }))
}

/// Begins a write that is void unless the lease is current.
pub fn begin<'c>(conn: &'c mut Connection, lease: &Lease) -> Result<Transaction<'c>, Failure> {
    let tx = conn.transaction_with_behavior(TransactionBehavior::Immediate)?;
    row(&tx)?.prove(lease)?;
    Ok(tx)
}

/// Prolongs the lease; the run's heartbeat is now.
pub fn renew(conn: &mut Connection, lease: &Lease) -> Result<(), Failure> {
    let tx = begin(conn, lease)?;
    tx.prepare_cached(
        "UPDATE norn_locks SET expires_at = strftime('%Y-%m-%dT%H:%M:%f000Z', 'now', ?1) WHERE id = 1",
    )?
    .execute([ttl()])?;
    tx.prepare_cached(concat!("UPDATE norn_runs SET heartbeat_at = ", now!(), " WHERE id = ?1"))?
        .execute([&lease.run])?;
    Ok(tx.commit()?)
}

/// Frees the lease of that token, and says whether it was held.
pub fn free(conn: &Connection, token: u64) -> Result<bool, Failure> {
    let freed = conn.execute(
        "UPDATE norn_locks SET run = NULL WHERE id = 1 AND token = ?1 AND run IS NOT NULL",
        [integer(token)?],
    )?;
    Ok(freed == 1)
}

fn ttl() -> String {
    format!("+{} seconds", TTL.as_secs())
}

fn integer(value: u64) -> Result<i64, Failure> {
    i64::try_from(value).map_err(|_| Failure::Data(format!("{value} is more than the database can hold")))
}
