//! Removing samples: what can be looked at goes, what proves them stays.
//!
//! A removed sample is a tombstone. Its payload, salt and predictions are erased and its labels count
//! no more; its digest, signed header and receipt stay, so that its device gets the same receipt again
//! and is never asked to send it, and so that a frozen dataset can name what it has lost.
//!
//! Order: tombstone and a row in `erasure` in one transaction, then the file goes, then the row. A
//! crash after any step leaves rows that [`erase_due`] works off, at the next removal or start. A
//! payload that several samples have goes with the last of them.

use fleetloop_protocol::{Digest, UnixMillis};
use rusqlite::{Connection, OptionalExtension as _, Transaction, params};

use super::payloads::Blobs;
use super::samples::no_such;
use super::{Store, StoreError, as_sql, audit, digest_at};

/// Removes samples. One that was removed before stays as it was.
///
/// # Errors
/// [`StoreError::NotFound`] names the first that there is none of: then none is removed.
pub fn remove(
    tx: &Transaction<'_>,
    samples: &[Digest],
    reason: &str,
    who: &str,
    now: UnixMillis,
) -> Result<(), StoreError> {
    for sample in samples {
        if bury(tx, *sample, reason, who, now, None)? {
            audit(tx, who, "sample.remove", &sample.to_string(), reason)?;
        }
    }
    Ok(())
}

/// Makes a sample a tombstone, by itself or with its `import`; whether it was none before.
///
/// # Errors
/// [`StoreError::NotFound`] when there is none.
pub(super) fn bury(
    tx: &Transaction<'_>,
    sample: Digest,
    reason: &str,
    who: &str,
    now: UnixMillis,
    import: Option<i64>,
) -> Result<bool, StoreError> {
    let payload = tx
        .prepare_cached("SELECT payload FROM sample WHERE sample = ?1")?
        .query_row([sample.as_bytes()], |row| digest_at(row, 0))
        .optional()?
        .ok_or_else(|| no_such(sample))?;
    let removed = tx
        .prepare_cached(
            "UPDATE sample SET removed_at_ms = ?2, removed_by = ?3, removed_reason = ?4,
                removed_import = ?5, predictions = '[]', salt = NULL
             WHERE sample = ?1 AND removed_at_ms IS NULL",
        )?
        .execute(params![sample.as_bytes(), as_sql(now.0), who, reason, import])?;
    if removed > 0 && !is_named(tx, payload)? {
        tx.prepare_cached("INSERT OR IGNORE INTO erasure (payload) VALUES (?1)")?
            .execute([payload.as_bytes()])?;
    }
    Ok(removed > 0)
}

/// Whether a sample that was not removed has that payload.
fn is_named(connection: &Connection, payload: Digest) -> Result<bool, StoreError> {
    let named = connection
        .prepare_cached("SELECT 1 FROM sample WHERE payload = ?1 AND removed_at_ms IS NULL")?
        .exists([payload.as_bytes()])?;
    Ok(named)
}

/// Which of these samples were removed.
///
/// # Errors
/// The database failed.
pub fn removed_of(connection: &Connection, samples: &[Digest]) -> Result<Vec<Digest>, StoreError> {
    let mut statement = connection
        .prepare_cached("SELECT 1 FROM sample WHERE sample = ?1 AND removed_at_ms IS NOT NULL")?;
    let mut found = Vec::new();
    for sample in samples {
        if statement.exists([sample.as_bytes()])? {
            found.push(*sample);
        }
    }
    Ok(found)
}

/// Whether a payload was that of a sample that was removed.
///
/// # Errors
/// The database failed.
pub fn is_erased(connection: &Connection, payload: Digest) -> Result<bool, StoreError> {
    let had = connection
        .prepare_cached("SELECT 1 FROM sample WHERE payload = ?1 AND removed_at_ms IS NOT NULL")?
        .exists([payload.as_bytes()])?;
    Ok(had && !is_named(connection, payload)?)
}

/// How long a payload that was sent for an import waits for it, in milliseconds.
const WAITS_MS: u64 = 24 * 60 * 60 * 1000;

/// Erases every payload that waits for it and that still no sample has, and those of imports that did
/// not come.
///
/// # Errors
/// The disk or the database failed: what is left is erased the next time.
pub async fn erase_due(store: &Store, payloads: &Blobs, now: UnixMillis) -> Result<(), StoreError> {
    // Nobody is between writing a payload and its row now, so the look below holds.
    let _erasing = payloads.erasing().await;
    for payload in store.read(move |connection| due(connection, now)).await? {
        let erased = !store.read(move |connection| is_named(connection, payload)).await?;
        if erased {
            payloads.erase(payload).await?;
            tracing::info!(%payload, "payload erased");
        }
        store
            .write(move |tx| {
                if erased {
                    tx.prepare_cached("DELETE FROM decoded WHERE payload = ?1")?
                        .execute([payload.as_bytes()])?;
                }
                tx.prepare_cached("DELETE FROM erasure WHERE payload = ?1")?
                    .execute([payload.as_bytes()])?;
                Ok(())
            })
            .await?;
    }
    Ok(())
}

fn due(connection: &Connection, now: UnixMillis) -> Result<Vec<Digest>, StoreError> {
    let mut statement = connection.prepare_cached(
        "SELECT payload FROM erasure UNION
         SELECT payload FROM decoded d WHERE at_ms < ?1 AND NOT EXISTS
            (SELECT 1 FROM sample s WHERE s.payload = d.payload AND s.removed_at_ms IS NULL)",
    )?;
    let before = as_sql(now.0.saturating_sub(WAITS_MS));
    let found =
        statement.query_map([before], |row| digest_at(row, 0))?.collect::<Result<_, _>>()?;
    Ok(found)
}
