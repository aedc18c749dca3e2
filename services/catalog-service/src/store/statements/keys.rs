//! Idempotency keys of the embedded store.

use jiff::Timestamp;
use rusqlite::{Connection, OptionalExtension as _, Transaction, params};

use super::{SqlError, identity, micros};
use crate::product::{Owner, Product};
use crate::store::{Claim, Claimed};

/// Tables and indexes; safe to run at every start.
pub(super) const SCHEMA: &str = "
CREATE TABLE IF NOT EXISTS idempotency_keys (
    tenant     TEXT NOT NULL,
    user_id    TEXT NOT NULL,
    key        TEXT NOT NULL,
    request    TEXT NOT NULL,
    product_id TEXT NOT NULL,
    until      INTEGER NOT NULL,
    forget_at  INTEGER NOT NULL,
    answer     TEXT,             -- the product as it was answered, as JSON
    PRIMARY KEY (tenant, user_id, key)
) STRICT, WITHOUT ROWID;
CREATE INDEX IF NOT EXISTS idempotency_keys_forgotten ON idempotency_keys (forget_at);
";

/// See [`crate::store::ProductStore::claim`].
pub(in crate::store) fn claim(
    transaction: &Transaction<'_>,
    owner: &Owner,
    claim: &Claim,
) -> Result<Claimed, SqlError> {
    let user_id = owner.user_id.to_string();
    transaction
        .prepare_cached(
            "DELETE FROM idempotency_keys WHERE tenant = ?1 AND user_id = ?2 AND key = ?3 AND forget_at <= ?4",
        )?
        .execute(params![owner.tenant, user_id, claim.key, micros(claim.now)])?;
    let known = transaction
        .prepare_cached(
            "SELECT product_id, request, until, answer FROM idempotency_keys
             WHERE tenant = ?1 AND user_id = ?2 AND key = ?3",
        )?
        .query_row(params![owner.tenant, user_id, claim.key], |row| {
            Ok((
                identity(row, 0)?,
                row.get::<_, String>(1)?,
                row.get::<_, i64>(2)?,
                row.get::<_, Option<String>>(3)?,
            ))
        })
        .optional()?;
    let Some((product, request, until, answer)) = known else {
        transaction
            .prepare_cached(
                "INSERT INTO idempotency_keys (tenant, user_id, key, request, product_id, until, forget_at)
                 VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7)",
            )?
            .execute(params![
                owner.tenant,
                user_id,
                claim.key,
                claim.request,
                claim.product.to_string(),
                micros(claim.until),
                micros(claim.forget_at),
            ])?;
        return Ok(Claimed::Granted(claim.product));
    };
    if request != claim.request {
        return Ok(Claimed::OtherRequest);
    }
    if let Some(answer) = answer {
        return Ok(Claimed::Answered(serde_json::from_str(&answer)?));
    }
    if until > micros(claim.now) {
        return Ok(Claimed::InFlight);
    }
    set_until(transaction, owner, &claim.key, claim.until)?;
    Ok(Claimed::Granted(product))
}

/// See [`crate::store::ProductStore::answer`].
pub(in crate::store) fn answer(
    connection: &Connection,
    owner: &Owner,
    key: &str,
    product: &Product,
) -> Result<(), SqlError> {
    connection
        .prepare_cached(
            "UPDATE idempotency_keys SET answer = ?4
             WHERE tenant = ?1 AND user_id = ?2 AND key = ?3 AND answer IS NULL",
        )?
        .execute(params![owner.tenant, owner.user_id.to_string(), key, serde_json::to_string(product)?])?;
    Ok(())
}

/// See [`crate::store::ProductStore::give_back`].
pub(in crate::store) fn set_until(
    connection: &Connection,
    owner: &Owner,
    key: &str,
    until: Timestamp,
) -> Result<(), SqlError> {
    connection
        .prepare_cached(
            "UPDATE idempotency_keys SET until = ?4
             WHERE tenant = ?1 AND user_id = ?2 AND key = ?3 AND answer IS NULL",
        )?
        .execute(params![owner.tenant, owner.user_id.to_string(), key, micros(until)])?;
    Ok(())
}

/// Removes the keys of an erased owner.
pub(super) fn erase(transaction: &Transaction<'_>, owner: &Owner) -> Result<(), SqlError> {
    transaction.execute(
        "DELETE FROM idempotency_keys WHERE tenant = ?1 AND user_id = ?2",
        params![owner.tenant, owner.user_id.to_string()],
    )?;
    Ok(())
}

/// Forgets the keys whose time ends by `now`, and those that came for owners whose erasure ends by then.
pub(super) fn sweep(transaction: &Transaction<'_>, now: Timestamp) -> Result<(), SqlError> {
    transaction.execute(
        "DELETE FROM idempotency_keys WHERE forget_at <= ?1 OR (tenant, user_id) IN
             (SELECT tenant, user_id FROM erased_owners WHERE until <= ?1)",
        params![micros(now)],
    )?;
    Ok(())
}
