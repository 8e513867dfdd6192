//! What a database holds, and bringing it to this norn's schema.

use tokio_postgres::Row;
use tokio_postgres::error::SqlState;

use super::failure::Failure;
use super::session::{Statement, Turn, WRITE};
use crate::secret::Secret;
use crate::state::lock::Lease;
use crate::state::schema::{Found, KNOWN, Meta, Place, Tables, has_meta};
use crate::state::seed;

/// The migrations in order; the schema's number is how many of them ran. A published one never
/// changes.
const MIGRATIONS: [&str; KNOWN as usize] = [
    include_str!("../migrations/postgres/0001-meta.sql"),
    include_str!("../migrations/postgres/0002-tables.sql"),
    include_str!("../migrations/postgres/0003-plans.sql"),
    include_str!("../migrations/postgres/0004-artifacts.sql"),
];

/// Makes of two processes that found stores on one server, in whatever schema, one wait for the other.
const FOUNDING: &str = "SELECT pg_advisory_xact_lock(7598247193104867)::text";

/// The columns of the tables of a schema: of those that norn or v1 would make, and of the first
/// other one, or of all. Tables of extensions are nobody's.
const TABLES: &str = "
    WITH tables AS (
        SELECT c.oid, c.relname::text AS name,
            c.relname LIKE 'norn\\_%' OR c.relname::text = ANY (string_to_array($3, ',')) AS ours
        FROM pg_catalog.pg_class c JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
        WHERE n.nspname = coalesce($1, current_schema()) AND c.relkind IN ('r', 'p')
            AND NOT EXISTS (SELECT FROM pg_catalog.pg_depend d WHERE d.objid = c.oid AND d.deptype = 'e')
    )
    SELECT t.name AS table_name, a.attname::text AS column_name
    FROM tables t JOIN pg_catalog.pg_attribute a ON a.attrelid = t.oid AND a.attnum > 0 AND NOT a.attisdropped
    WHERE t.ours OR $2 OR t.name = (SELECT min(name) FROM tables WHERE NOT ours)
    ORDER BY t.name, a.attnum";

const META: &str = "SELECT key, value FROM @norn_meta WHERE key <> 'key'";

fn tables_of(place: &Place, all: bool) -> Statement {
    let stage = place.scope.stage.as_ref().map(ToString::to_string);
    let published = seed::TABLES.each_ref().map(|table| table.name).join(",");
    Statement::new(TABLES, [stage, Some(all.to_string()), Some(published)])
}

/// Every table of the store's schema.
pub async fn all_tables(turn: &Turn<'_>, place: &Place) -> Result<Tables, Failure> {
    read_tables(&turn.rows(tables_of(place, true)).await?)
}

/// Looks at a database, outside of any transaction: one round trip.
///
/// # Errors
/// `Foreign`, `Newer` and `OtherScope`, where it is not for this store to touch.
pub async fn inspect(turn: &Turn<'_>, place: &Place) -> Result<Found, Failure> {
    let mut replies = turn.all(&[tables_of(place, false), Statement::plain(META)], WRITE).await?;
    let meta = match replies.pop().expect("each statement has a reply") {
        Ok(rows) => read_meta(&rows)?,
        // There is no such table, or it is not norn's.
        Err(error)
            if error.code().is_some_and(|code| {
                [SqlState::UNDEFINED_TABLE, SqlState::UNDEFINED_COLUMN].contains(code)
            }) =>
        {
            Meta::new()
        }
        Err(error) => return Err(error.into()),
    };
    let tables = read_tables(&replies.pop().expect("each statement has a reply")?)?;
    Ok(place.judge(&tables, &meta)?)
}

/// Makes the first tables in an empty schema or beside v1's, with a new key.
pub async fn found(turn: &Turn<'_>, place: &Place) -> Result<(), Failure> {
    turn.script("BEGIN").await?;
    turn.rows(Statement::plain(FOUNDING)).await?;
    let tables = read_tables(&turn.rows(tables_of(place, false)).await?)?;
    let meta =
        if has_meta(&tables) { read_meta(&turn.rows(Statement::plain(META)).await?)? } else { Meta::new() };
    if place.judge(&tables, &meta)?.is_founded() {
        return turn.script("ROLLBACK").await;
    }
    if let Some(stage) = &place.scope.stage {
        let sql = "SELECT 1::text FROM pg_catalog.pg_namespace WHERE nspname = $1";
        let there = turn.rows(Statement::new(sql, [Some(stage.to_string())])).await?;
        // Without this look, one who may write to the schema and not make one would be refused.
        if there.is_empty() {
            turn.script(&format!("CREATE SCHEMA \"{stage}\"")).await?;
        }
    }
    turn.script(MIGRATIONS[0]).await?;
    for (name, value) in place.new_meta()? {
        let params = [Some(name.to_owned()), Some(value.expose().to_owned())];
        turn.rows(Statement::new("INSERT INTO @norn_meta (key, value) VALUES ($1, $2)", params)).await?;
    }
    turn.script("COMMIT").await
}

/// Runs the migrations after the first, all in one transaction that proves the lease: cut in
/// between, a new store would be one of an older norn.
pub async fn upgrade(turn: &Turn<'_>, place: &Place, lease: &Lease) -> Result<(), Failure> {
    turn.begin(lease).await?;
    let schema = place.schema(&read_meta(&turn.rows(Statement::plain(META)).await?)?)?;
    for migration in &MIGRATIONS[schema as usize..] {
        turn.script(migration).await?;
    }
    let known = [Some(KNOWN.to_string())];
    turn.rows(Statement::new("UPDATE @norn_meta SET value = $1 WHERE key = 'schema'", known)).await?;
    turn.script("COMMIT").await
}

/// What reads the store's key; see [`key`].
pub const KEY: &str = "SELECT value FROM @norn_meta WHERE key = 'key'";

/// The key of the reply to [`KEY`].
pub fn key(rows: &[Row]) -> Result<Secret, Failure> {
    let row = rows.first().ok_or_else(|| Failure::Data("norn_meta has no key".into()))?;
    Ok(Secret::new(row.try_get::<_, String>(0)?))
}

fn read_tables(rows: &[Row]) -> Result<Tables, Failure> {
    let mut tables = Tables::new();
    for row in rows {
        tables.entry(row.try_get(0)?).or_default().push(row.try_get(1)?);
    }
    Ok(tables)
}

fn read_meta(rows: &[Row]) -> Result<Meta, Failure> {
    rows.iter().map(|row| Ok((row.try_get(0)?, row.try_get(1)?))).collect()
}
