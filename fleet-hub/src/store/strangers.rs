//! What a hub that was restored from a backup must learn again: devices that were revoked since, and
//! devices that enrolled since. Encodings: see `store/mod.rs`.
//!
//! Invariants: who is on a list of revoked devices is never let in again; a stranger is let in only by
//! an operator, with the signing key that the hub's own CA put into its certificate.

use fleetloop_protocol::keys::PublicKey;
use fleetloop_protocol::revoked::RevokedList;
use fleetloop_protocol::{DeviceId, UnixMillis};
use rusqlite::{Connection, OptionalExtension as _, Row, Transaction, params};

use super::{StoreError, as_sql, audit, devices, from_sql};

/// The most strangers that are kept; one more takes the place of the one that was seen last the
/// longest ago.
const STRANGERS: u32 = 10_000;

/// A device that this hub does not know and whose certificate is its CA's.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Stranger {
    /// What its certificate calls it.
    pub device: DeviceId,
    /// The signing key in its certificate.
    pub signing_key: PublicKey,
    /// When its certificate ends.
    pub certificate_ends: UnixMillis,
    /// When it came first.
    pub first_seen: UnixMillis,
    /// When it came last.
    pub last_seen: UnixMillis,
}

/// Keeps that `stranger` came; its times are `last_seen`.
///
/// # Errors
/// The database failed.
pub fn record(tx: &Transaction<'_>, stranger: &Stranger) -> Result<(), StoreError> {
    tx.prepare_cached(
        "INSERT INTO stranger
         (device, signing_key, certificate_ends_ms, first_seen_ms, last_seen_ms)
         VALUES (?1, ?2, ?3, ?4, ?4)
         ON CONFLICT (device) DO UPDATE SET signing_key = ?2, certificate_ends_ms = ?3,
             last_seen_ms = ?4",
    )?
    .execute(params![
        stranger.device.as_str(),
        stranger.signing_key.as_bytes(),
        as_sql(stranger.certificate_ends.0),
        as_sql(stranger.last_seen.0)
    ])?;
    tx.prepare_cached(
        "DELETE FROM stranger WHERE device IN
         (SELECT device FROM stranger ORDER BY last_seen_ms DESC LIMIT -1 OFFSET ?1)",
    )?
    .execute([STRANGERS])?;
    Ok(())
}

/// All strangers but those that were revoked, by id.
///
/// # Errors
/// The database failed.
pub fn list(connection: &Connection) -> Result<Vec<Stranger>, StoreError> {
    let mut statement = connection.prepare_cached(
        "SELECT device, signing_key, certificate_ends_ms, first_seen_ms, last_seen_ms
         FROM stranger WHERE device NOT IN (SELECT device FROM revoked_before) ORDER BY device",
    )?;
    let rows = statement.query_map([], |row| Ok(stranger(row)))?;
    rows.map(|row| row?).collect()
}

fn stranger(row: &Row<'_>) -> Result<Stranger, StoreError> {
    let device: String = row.get(0)?;
    let device =
        device.parse().map_err(|_| StoreError::damaged(format_args!("stranger {device:?}")))?;
    Ok(Stranger {
        device,
        signing_key: PublicKey::from_bytes(row.get(1)?),
        certificate_ends: UnixMillis(from_sql(row.get(2)?)),
        first_seen: UnixMillis(from_sql(row.get(3)?)),
        last_seen: UnixMillis(from_sql(row.get(4)?)),
    })
}

/// Lets a stranger in under `name`.
///
/// # Errors
/// [`StoreError::NotFound`] when there is no such stranger; [`StoreError::Conflict`] when it was
/// revoked, or another device has its id.
pub fn readmit(
    tx: &Transaction<'_>,
    id: &DeviceId,
    name: &str,
    who: &str,
    now: UnixMillis,
) -> Result<(), StoreError> {
    let revoked: Option<u64> = tx
        .prepare_cached("SELECT revoked_at_ms FROM revoked_before WHERE device = ?1")?
        .query_row([id.as_str()], |row| Ok(from_sql(row.get(0)?)))
        .optional()?;
    if let Some(at) = revoked {
        return Err(StoreError::Conflict {
            what: format!(
                "cannot take device {id} in again: it was revoked at {at} ms; enrol it with a new token"
            ),
        });
    }
    let found = list(tx)?.into_iter().find(|stranger| stranger.device == *id);
    let Some(found) = found else {
        let what = format!(
            "device {id} among those that came with a certificate of this hub; see 'fleet-hub device \
             strangers'"
        );
        return Err(StoreError::not_found(what));
    };
    devices::readmit(tx, &found, name, now)?;
    tx.execute("DELETE FROM stranger WHERE device = ?1", [id.as_str()])?;
    audit(tx, who, "device.readmit", id.as_str(), name)
}

/// Every device that this hub has revoked or knows as revoked before a restore.
///
/// # Errors
/// The database failed.
pub fn revoked(connection: &Connection) -> Result<RevokedList, StoreError> {
    let mut statement = connection.prepare_cached(
        "SELECT id, revoked_at_ms FROM device WHERE state = 'revoked'
         UNION SELECT device, revoked_at_ms FROM revoked_before",
    )?;
    let rows = statement
        .query_map([], |row| Ok((row.get::<_, String>(0)?, row.get::<_, Option<i64>>(1)?)))?;
    let devices = rows
        .map(|row| {
            let (id, at) = row?;
            let id = id.parse().map_err(|_| StoreError::damaged(format_args!("device {id:?}")))?;
            Ok((id, UnixMillis(at.map_or(0, from_sql))))
        })
        .collect::<Result<_, StoreError>>()?;
    Ok(RevokedList { devices })
}

/// Takes over a list that this hub signed before it was restored, shown by `from`. Returns the
/// devices that are revoked by it now and were not before: their sessions are to be ended.
///
/// # Errors
/// The database failed.
pub fn absorb(
    tx: &Transaction<'_>,
    newer: &RevokedList,
    from: &DeviceId,
) -> Result<Vec<DeviceId>, StoreError> {
    let known = revoked(tx)?;
    let mut ended = Vec::new();
    for (id, at) in &newer.devices {
        if known.devices.contains_key(id) {
            continue;
        }
        tx.prepare_cached(
            "INSERT OR IGNORE INTO revoked_before (device, revoked_at_ms, shown_by)
             VALUES (?1, ?2, ?3)",
        )?
        .execute(params![id.as_str(), as_sql(at.0), from.as_str()])?;
        match devices::revoke(tx, id, from.as_str(), *at) {
            Ok(()) => ended.push(id.clone()),
            Err(StoreError::NotFound { .. }) => {}
            Err(error) => return Err(error),
        }
    }
    Ok(ended)
}
