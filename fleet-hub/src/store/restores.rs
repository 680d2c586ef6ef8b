//! That this hub was restored, and what a restore looks for. Encodings: see `store/mod.rs`.

use std::collections::BTreeMap;

use fleetloop_protocol::api::status::RestoredStatus;
use fleetloop_protocol::{BundleDigest, Digest};
use rusqlite::{Connection, OptionalExtension as _, Transaction, params};

use super::{StoreError, as_sql, devices, digest_at, from_sql, strangers};
use crate::backup::restore::Restored;

/// Keeps that the hub was restored.
///
/// # Errors
/// The database failed.
pub fn insert(tx: &Transaction<'_>, restored: &Restored) -> Result<(), StoreError> {
    let report = serde_json::to_string(restored).map_err(StoreError::damaged)?;
    tx.execute(
        "INSERT INTO restore (at_ms, report) VALUES (?1, ?2)",
        params![as_sql(restored.restored_at.0), report],
    )?;
    Ok(())
}

/// The last restore; none for a hub that never was.
///
/// # Errors
/// The database failed.
pub fn last(connection: &Connection) -> Result<Option<Restored>, StoreError> {
    let found: Option<String> = connection
        .prepare_cached("SELECT report FROM restore ORDER BY id DESC LIMIT 1")?
        .query_row([], |row| row.get(0))
        .optional()?;
    found.map(|text| serde_json::from_str(&text).map_err(StoreError::damaged)).transpose()
}

/// What the restored hub cannot know, by what devices have said since; none for a hub that never was
/// restored.
///
/// # Errors
/// The database failed.
pub fn status(connection: &Connection) -> Result<Option<RestoredStatus>, StoreError> {
    let Some(restored) = last(connection)? else { return Ok(None) };
    let mut samples_lost = BTreeMap::new();
    for device in devices::list(connection)? {
        let heard_since = device.last_seen.is_some_and(|at| at >= restored.restored_at);
        let Some(telemetry) = device.telemetry.filter(|_| heard_since) else { continue };
        let lost = telemetry.samples_receipted.saturating_sub(device.samples_stored);
        if lost > 0 {
            samples_lost.insert(device.id, lost);
        }
    }
    Ok(Some(RestoredStatus {
        backup_made_at_ms: restored.backup_made_at.0,
        restored_at_ms: restored.restored_at.0,
        samples_lost,
        strangers: strangers::list(connection)?.len() as u64,
    }))
}

/// Every payload that a sample names, and how many samples name it.
///
/// # Errors
/// The database failed.
pub fn payloads(connection: &Connection) -> Result<Vec<(Digest, u64)>, StoreError> {
    let mut statement =
        connection.prepare("SELECT payload, count(*) FROM sample GROUP BY payload")?;
    let rows = statement.query_map([], |row| Ok((digest_at(row, 0)?, from_sql(row.get(1)?))))?;
    Ok(rows.collect::<Result<_, _>>()?)
}

/// Every model, by its name and version.
///
/// # Errors
/// The database failed.
pub fn models(connection: &Connection) -> Result<Vec<(String, BundleDigest)>, StoreError> {
    let mut statement =
        connection.prepare("SELECT name || '/' || version, bundle FROM model ORDER BY 1")?;
    let rows =
        statement.query_map([], |row| Ok((row.get(0)?, BundleDigest(digest_at(row, 1)?))))?;
    Ok(rows.collect::<Result<_, _>>()?)
}

/// Every dataset, report and run record, by a name for people.
///
/// # Errors
/// The database failed.
pub fn documents(connection: &Connection) -> Result<Vec<(String, Digest)>, StoreError> {
    let mut statement = connection.prepare(
        "SELECT 'dataset ' || name, digest FROM dataset
         UNION ALL SELECT 'run record of model ' || name || '/' || version, run_record FROM model
             WHERE run_record IS NOT NULL
         UNION ALL SELECT 'report on model ' || m.name || '/' || m.version, r.digest
             FROM report r JOIN model m ON m.bundle = r.bundle
         ORDER BY 1",
    )?;
    let rows = statement.query_map([], |row| Ok((row.get(0)?, digest_at(row, 1)?)))?;
    Ok(rows.collect::<Result<_, _>>()?)
}
