//! The lease row. What it means is decided in `state::lock`.

use super::failure::Failure;
use super::session::{Statement, Turn, WRITE};
use crate::provider::machine;
use crate::state::StoreError;
use crate::state::lock::{Held, Holder, Lease, LeaseRow, TTL};
use crate::state::row::{self, Named};

/// A column's time as all times are written.
macro_rules! time {
    ($column:literal) => {
        concat!("to_char(", $column, " AT TIME ZONE 'UTC', 'YYYY-MM-DD\"T\"HH24:MI:SS.US\"Z\"')")
    };
}
pub(super) use time;

/// The same for a column whose name stands for `COLUMN`.
pub const TIME: &str = time!("COLUMN");

/// The lease row with the database's clock.
macro_rules! row_with {
    ($locking:literal) => {
        concat!(
            "SELECT token::text, run, who, machine_id, boot_id, pid_namespace, pid::text, start_time::text, ",
            "job_url, reason, ",
            time!("acquired_at"),
            " AS acquired_at, ",
            time!("expires_at"),
            " AS expires_at, ",
            time!("clock_timestamp()"),
            " AS now FROM @norn_locks WHERE id = 1",
            $locking
        )
    };
}

/// What reads the lease row; see [`read`].
pub const ROW: &str = row_with!("");

/// The lease row of the reply to [`ROW`].
pub fn read(rows: &[tokio_postgres::Row]) -> Result<LeaseRow, Failure> {
    let row = rows.first().ok_or_else(|| Failure::Data("norn_locks has no row".into()))?;
    Ok(row::lease(Named { table: "norn_locks", key: "token", row })?)
}

/// Fails by a division by zero unless the lease is current; keeps it current until the
/// transaction ends. A transaction that its client forgot ends before the lease does.
pub fn proof(lease: &Lease) -> Statement {
    Statement::new(
        "SELECT set_config('idle_in_transaction_session_timeout', '20s', true), \
         (1 / (SELECT count(*) FROM (SELECT 1 FROM @norn_locks WHERE id = 1 AND token = $1 AND run = $2 \
         AND expires_at > clock_timestamp() FOR SHARE) AS held))::text",
        [Some(lease.token.to_string()), Some(lease.run.clone())],
    )
}

/// Why [`proof`] failed.
pub async fn disproof(turn: &Turn<'_>, lease: &Lease) -> Failure {
    let row = match turn.rows(Statement::plain(ROW)).await.and_then(|rows| read(&rows)) {
        Ok(row) => row,
        Err(failure) => return failure,
    };
    match row.prove(lease) {
        Err(error) => error.into(),
        // It was taken over and given back in between.
        Ok(()) => StoreError::LeaseLost { reason: "another run held it".into() }.into(),
    }
}

/// Takes the lease, or says who holds it.
pub async fn take(turn: &Turn<'_>, holder: &Holder) -> Result<Result<Lease, Held>, Failure> {
    let begin = [
        Statement::plain("BEGIN"),
        Statement::plain("SET LOCAL idle_in_transaction_session_timeout = '20s'"),
        Statement::plain("SET LOCAL lock_timeout = '15s'"),
        Statement::plain(row_with!(" FOR UPDATE")),
    ];
    let mut rows = Vec::new();
    for reply in turn.all(&begin, WRITE).await? {
        rows = reply?;
    }
    let row = read(&rows)?;
    let token = row.next_token();
    if let Some(held) = row.blocker(machine::alive) {
        turn.rows(Statement::plain("ROLLBACK")).await?;
        return Ok(Err(held));
    }
    let update = Statement::new(
        "UPDATE @norn_locks SET token = $1, run = $2, who = $3, machine_id = $4, boot_id = $5, \
         pid_namespace = $6, pid = $7, start_time = $8, job_url = $9, reason = $10, \
         acquired_at = clock_timestamp(), expires_at = clock_timestamp() + $11::interval WHERE id = 1",
        [
            Some(token.to_string()),
            Some(holder.run.clone()),
            Some(holder.who.clone()),
            Some(holder.process.machine_id.clone()),
            Some(holder.process.boot_id.clone()),
            Some(holder.process.pid_namespace.clone()),
            Some(holder.process.pid.to_string()),
            Some(holder.process.start_time.to_string()),
            holder.job_url.clone(),
            Some(holder.reason.clone()),
            Some(ttl()),
        ],
    );
    for reply in turn.all(&[update, Statement::plain("COMMIT")], WRITE).await? {
        reply?;
    }
    Ok(Ok(Lease { token, run: holder.run.clone() }))
}

/// What prolongs the lease, and fails by a division by zero where it is not current.
pub fn renewal(lease: &Lease) -> [Statement; 2] {
    [
        Statement::new(
            "WITH renewed AS (UPDATE @norn_locks SET expires_at = clock_timestamp() + $3::interval \
             WHERE id = 1 AND token = $1 AND run = $2 AND expires_at > clock_timestamp() RETURNING 1) \
             SELECT (1 / (SELECT count(*) FROM renewed))::text",
            [Some(lease.token.to_string()), Some(lease.run.clone()), Some(ttl())],
        ),
        Statement::new(
            "UPDATE @norn_runs SET heartbeat_at = clock_timestamp() WHERE id = $1",
            [Some(lease.run.clone())],
        ),
    ]
}

/// Frees the lease of that token, and says whether it was held.
pub async fn free(turn: &Turn<'_>, token: u64) -> Result<bool, Failure> {
    let freed = turn
        .rows(Statement::new(
            "UPDATE @norn_locks SET run = NULL WHERE id = 1 AND token = $1 AND run IS NOT NULL RETURNING 'freed'",
            [Some(token.to_string())],
        ))
        .await?;
    Ok(!freed.is_empty())
}

fn ttl() -> String {
    format!("{} seconds", TTL.as_secs())
}
