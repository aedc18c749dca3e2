//! The embedded document store in SQL: one synchronous function per operation of the store trait.
//!
//! A document is one row: JSON, and beside it the columns that conditions and orders need. Every function that reads
//! before it writes is given an immediate transaction, so what it read still holds when it writes.

pub(super) mod keys;

use jiff::Timestamp;
use rusqlite::types::Value as SqlValue;
use rusqlite::{Connection, OptionalExtension as _, Row, Transaction, params, params_from_iter};
use service_kit::sqlite::SqliteError;
use uuid::Uuid;

use super::{Inserted, PENDING_EVENTS_MAX, Replaced, Stored, Write};
use crate::event::Event;
use crate::product::{Owner, Product};
use crate::search::{Search, searchable};

/// Tables and indexes; safe to run at every start.
const SCHEMA: &str = "
CREATE TABLE IF NOT EXISTS products (
    id             TEXT PRIMARY KEY,
    tenant         TEXT NOT NULL,
    user_id        TEXT NOT NULL,
    ml_item_id     TEXT UNIQUE,
    category_id    TEXT,
    searchable     TEXT NOT NULL,
    version        INTEGER NOT NULL,
    created_at     INTEGER NOT NULL, -- this and the other times: microseconds since 1970, UTC
    deleted_at     INTEGER,
    expires_at     INTEGER,
    pending_since  INTEGER,          -- time of the oldest pending event
    pending_events TEXT NOT NULL,    -- JSON array, oldest first
    document       TEXT NOT NULL     -- the product as JSON
) STRICT;
CREATE INDEX IF NOT EXISTS products_of_owner ON products (tenant, user_id, created_at DESC, id DESC);
CREATE INDEX IF NOT EXISTS products_pending ON products (pending_since, id) WHERE pending_since IS NOT NULL;
CREATE INDEX IF NOT EXISTS products_expiring ON products (expires_at) WHERE expires_at IS NOT NULL;
CREATE TABLE IF NOT EXISTS erased_owners (
    tenant  TEXT NOT NULL,
    user_id TEXT NOT NULL,
    until   INTEGER NOT NULL,
    PRIMARY KEY (tenant, user_id)
) STRICT, WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS leases (
    name   TEXT PRIMARY KEY,
    holder TEXT NOT NULL,
    until  INTEGER NOT NULL
) STRICT, WITHOUT ROWID;
";

/// What a statement can fail with.
#[derive(Debug, thiserror::Error)]
pub(super) enum SqlError {
    /// The database said no.
    #[error(transparent)]
    Database(#[from] SqliteError),
    /// A stored document is not what this version writes.
    #[error("a stored document is unreadable")]
    Document(#[from] serde_json::Error),
    /// See [`super::StoreError::Backlog`].
    #[error("too many events wait for the event log")]
    Backlog(Uuid),
}

impl From<rusqlite::Error> for SqlError {
    fn from(error: rusqlite::Error) -> Self {
        Self::Database(error.into())
    }
}

/// Creates what is missing.
pub(super) fn create_tables(connection: &Connection) -> Result<(), SqlError> {
    connection.execute_batch(SCHEMA)?;
    Ok(connection.execute_batch(keys::SCHEMA)?)
}

/// See [`super::ProductStore::insert`].
pub(super) fn insert(transaction: &Transaction<'_>, write: &Write) -> Result<Inserted, SqlError> {
    let Stored { owner, product, deleted_at } = &write.stored;
    let erased = transaction
        .prepare_cached("SELECT 1 FROM erased_owners WHERE tenant = ?1 AND user_id = ?2")?
        .exists(params![owner.tenant, owner.user_id.to_string()])?;
    if erased {
        return Ok(Inserted::OwnerErased);
    }
    let events: Vec<&Event> = write.event.iter().collect();
    let inserted = transaction
        .prepare_cached(
            "INSERT INTO products (id, tenant, user_id, ml_item_id, category_id, searchable, version, created_at,
                                   deleted_at, expires_at, pending_since, pending_events, document)
             VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12, ?13)
             ON CONFLICT DO NOTHING",
        )?
        .execute(params![
            product.id.to_string(),
            owner.tenant,
            owner.user_id.to_string(),
            product.ml_item_id,
            product.details.category_id,
            searchable(&product.details, product.ml_item_id.as_deref()),
            product.version as i64,
            micros(product.created_at),
            deleted_at.map(micros),
            write.expires_at.map(micros),
            write.event.as_ref().map(|event| micros(event.at)),
            serde_json::to_string(&events)?,
            serde_json::to_string(product)?,
        ])?;
    if inserted > 0 {
        return Ok(Inserted::Done);
    }
    let same = transaction
        .prepare_cached("SELECT 1 FROM products WHERE id = ?1")?
        .exists(params![product.id.to_string()])?;
    Ok(if same { Inserted::IdTaken } else { Inserted::ItemTaken })
}

/// See [`super::ProductStore::replace`].
pub(super) fn replace(
    transaction: &Transaction<'_>,
    write: &Write,
    expected: u64,
) -> Result<Replaced, SqlError> {
    let Stored { owner, product, deleted_at } = &write.stored;
    let pending: Option<String> = transaction
        .prepare_cached(
            "SELECT pending_events FROM products WHERE id = ?1 AND tenant = ?2 AND user_id = ?3 AND version = ?4",
        )?
        .query_row(
            params![product.id.to_string(), owner.tenant, owner.user_id.to_string(), expected as i64],
            |row| row.get(0),
        )
        .optional()?;
    let Some(pending) = pending else { return Ok(Replaced::Stale) };
    let mut events: Vec<Event> = serde_json::from_str(&pending)?;
    if let Some(event) = &write.event {
        if events.len() >= PENDING_EVENTS_MAX {
            return Err(SqlError::Backlog(product.id));
        }
        events.push(event.clone());
    }
    transaction
        .prepare_cached(
            "UPDATE products SET category_id = ?2, searchable = ?3, version = ?4, created_at = ?5, deleted_at = ?6,
                                 expires_at = ?7, pending_since = ?8, pending_events = ?9, document = ?10
             WHERE id = ?1",
        )?
        .execute(params![
            product.id.to_string(),
            product.details.category_id,
            searchable(&product.details, product.ml_item_id.as_deref()),
            product.version as i64,
            micros(product.created_at),
            deleted_at.map(micros),
            write.expires_at.map(micros),
            events.first().map(|event| micros(event.at)),
            serde_json::to_string(&events)?,
            serde_json::to_string(product)?,
        ])?;
    Ok(Replaced::Done)
}

/// See [`super::ProductStore::find`].
pub(super) fn find(connection: &Connection, owner: &Owner, id: Uuid) -> Result<Option<Product>, SqlError> {
    let document: Option<String> = connection
        .prepare_cached(
            "SELECT document FROM products
             WHERE id = ?1 AND tenant = ?2 AND user_id = ?3 AND deleted_at IS NULL",
        )?
        .query_row(params![id.to_string(), owner.tenant, owner.user_id.to_string()], |row| row.get(0))
        .optional()?;
    Ok(document.map(|document| serde_json::from_str(&document)).transpose()?)
}

/// See [`super::ProductStore::find_item`].
pub(super) fn find_item(connection: &Connection, ml_item_id: &str) -> Result<Option<Stored>, SqlError> {
    let row: Option<(String, Uuid, Option<Timestamp>, String)> = connection
        .prepare_cached("SELECT tenant, user_id, deleted_at, document FROM products WHERE ml_item_id = ?1")?
        .query_row(params![ml_item_id], |row| {
            Ok((row.get(0)?, identity(row, 1)?, optional_time(row, 2)?, row.get(3)?))
        })
        .optional()?;
    let Some((tenant, user_id, deleted_at, document)) = row else { return Ok(None) };
    let product = serde_json::from_str(&document)?;
    Ok(Some(Stored { owner: Owner { tenant, user_id }, product, deleted_at }))
}

/// See [`super::ProductStore::search`].
pub(super) fn search(
    connection: &Connection,
    owner: &Owner,
    search: &Search,
) -> Result<Vec<Product>, SqlError> {
    let mut sql =
        "SELECT document FROM products WHERE tenant = ? AND user_id = ? AND deleted_at IS NULL".to_owned();
    let mut values: Vec<SqlValue> = vec![owner.tenant.clone().into(), owner.user_id.to_string().into()];
    if let Some(category) = &search.category {
        sql.push_str(" AND category_id = ?");
        values.push(category.clone().into());
    }
    for word in &search.words {
        sql.push_str(" AND instr(searchable, ?) > 0");
        values.push(word.clone().into());
    }
    if let Some(mark) = search.after {
        sql.push_str(" AND (created_at, id) < (?, ?)");
        values.push(micros(mark.created_at).into());
        values.push(mark.id.to_string().into());
    }
    sql.push_str(" ORDER BY created_at DESC, id DESC LIMIT ?");
    values.push(i64::from(search.limit).into());
    let mut statement = connection.prepare_cached(&sql)?;
    let rows = statement.query_map(params_from_iter(values), |row| row.get::<_, String>(0))?;
    rows.map(|document| Ok(serde_json::from_str(&document?)?)).collect()
}

/// See [`super::ProductStore::unpublished`].
pub(super) fn unpublished(connection: &Connection, max: usize) -> Result<Vec<(Uuid, Event)>, SqlError> {
    let mut statement = connection.prepare_cached(
        "SELECT id, pending_events FROM products WHERE pending_since IS NOT NULL ORDER BY pending_since, id",
    )?;
    let mut rows = statement.query([])?;
    let mut found = Vec::new();
    while found.len() < max
        && let Some(row) = rows.next()?
    {
        let product = identity(row, 0)?;
        let events: Vec<Event> = serde_json::from_str(&row.get::<_, String>(1)?)?;
        found.extend(events.into_iter().map(|event| (product, event)));
    }
    Ok(found)
}

/// See [`super::ProductStore::mark_published`].
pub(super) fn mark_published(
    transaction: &Transaction<'_>,
    published: &[(Uuid, Uuid)],
) -> Result<(), SqlError> {
    let mut products: Vec<Uuid> = published.iter().map(|(product, _)| *product).collect();
    products.sort_unstable();
    products.dedup();
    for product in products {
        let pending: Option<String> = transaction
            .prepare_cached("SELECT pending_events FROM products WHERE id = ?1")?
            .query_row(params![product.to_string()], |row| row.get(0))
            .optional()?;
        // Erased in between: nothing left to forget.
        let Some(pending) = pending else { continue };
        let mut events: Vec<Event> = serde_json::from_str(&pending)?;
        events.retain(|event| !published.contains(&(product, event.id)));
        transaction
            .prepare_cached("UPDATE products SET pending_since = ?2, pending_events = ?3 WHERE id = ?1")?
            .execute(params![
                product.to_string(),
                events.first().map(|event| micros(event.at)),
                serde_json::to_string(&events)?
            ])?;
    }
    Ok(())
}

/// See [`super::ProductStore::erase`].
pub(super) fn erase(
    transaction: &Transaction<'_>,
    owner: &Owner,
    until: Timestamp,
) -> Result<usize, SqlError> {
    transaction
        .prepare_cached(
            "INSERT INTO erased_owners (tenant, user_id, until) VALUES (?1, ?2, ?3)
             ON CONFLICT (tenant, user_id) DO UPDATE SET until = max(until, excluded.until)",
        )?
        .execute(params![owner.tenant, owner.user_id.to_string(), micros(until)])?;
    keys::erase(transaction, owner)?;
    Ok(transaction
        .prepare_cached("DELETE FROM products WHERE tenant = ?1 AND user_id = ?2")?
        .execute(params![owner.tenant, owner.user_id.to_string()])?)
}

/// See [`super::ProductStore::sweep`].
pub(super) fn sweep(transaction: &Transaction<'_>, now: Timestamp) -> Result<usize, SqlError> {
    keys::sweep(transaction, now)?;
    transaction.execute("DELETE FROM erased_owners WHERE until <= ?1", params![micros(now)])?;
    Ok(transaction.execute(
        "DELETE FROM products WHERE expires_at IS NOT NULL AND expires_at <= ?1 AND pending_since IS NULL",
        params![micros(now)],
    )?)
}

/// See [`super::ProductStore::lease`].
pub(super) fn lease(
    connection: &Connection,
    name: &str,
    holder: &str,
    now: Timestamp,
    until: Timestamp,
) -> Result<bool, SqlError> {
    let taken = connection
        .prepare_cached(
            "INSERT INTO leases (name, holder, until) VALUES (?1, ?2, ?4)
             ON CONFLICT (name) DO UPDATE SET holder = excluded.holder, until = excluded.until
             WHERE leases.holder = excluded.holder OR leases.until <= ?3",
        )?
        .execute(params![name, holder, micros(now), micros(until)])?;
    Ok(taken == 1)
}

/// See [`super::ProductStore::release`].
pub(super) fn release(connection: &Connection, name: &str, holder: &str) -> Result<(), SqlError> {
    connection.execute("DELETE FROM leases WHERE name = ?1 AND holder = ?2", params![name, holder])?;
    Ok(())
}

/// See [`super::ProductStore::check`].
pub(super) fn check(connection: &Connection) -> Result<(), SqlError> {
    Ok(connection.query_row("SELECT count(*) FROM leases", [], |_| Ok(()))?)
}

fn micros(time: Timestamp) -> i64 {
    time.as_microsecond()
}

fn optional_time(row: &Row<'_>, column: usize) -> rusqlite::Result<Option<Timestamp>> {
    row.get::<_, Option<i64>>(column)?
        .map(Timestamp::from_microsecond)
        .transpose()
        .map_err(|error| unreadable(column, error))
}

fn identity(row: &Row<'_>, column: usize) -> rusqlite::Result<Uuid> {
    row.get::<_, String>(column)?.parse().map_err(|error| unreadable(column, error))
}

fn unreadable(column: usize, error: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> rusqlite::Error {
    rusqlite::Error::FromSqlConversionFailure(column, rusqlite::types::Type::Text, error.into())
}
