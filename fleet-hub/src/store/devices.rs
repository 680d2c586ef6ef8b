//! Devices and enrolment tokens.
//!
//! Invariants: a token is used once, by one pair of keys; a revoked device stays revoked; a device
//! row is never deleted, for samples and audit lines name it. What a device takes over from the one
//! it replaces is in [`super::replace`].

use fleetloop_protocol::api::devices::{DeviceState, Presence};
use fleetloop_protocol::keys::PublicKey;
use fleetloop_protocol::state::Reported;
use fleetloop_protocol::telemetry::Telemetry;
use fleetloop_protocol::{DeviceId, Digest, UnixMillis};
use rusqlite::{Connection, OptionalExtension, Row, Transaction, params};
use serde::de::DeserializeOwned;

use super::strangers::Stranger;
use super::{StoreError, as_sql, audit, clones, from_sql, replace};
use crate::limits::Limits;
use crate::presence::presence;

/// A device as stored.
#[derive(Debug, Clone)]
pub struct DeviceRow {
    /// Its id.
    pub id: DeviceId,
    /// What people call it.
    pub name: String,
    /// Where it stands.
    pub state: DeviceState,
    /// The key that signs its messages.
    pub signing_key: PublicKey,
    /// Its TLS certificate as issued, PEM.
    pub certificate_pem: String,
    /// Its agent's version.
    pub agent_version: String,
    /// When it enrolled.
    pub enrolled_at: UnixMillis,
    /// When its newest certificate ends.
    pub certificate_ends: UnixMillis,
    /// The device whose place it took.
    pub replaces: Option<DeviceId>,
    /// The device that took its place.
    pub replaced_by: Option<DeviceId>,
    /// When it was last heard.
    pub last_seen: Option<UnixMillis>,
    /// Its last signed report.
    pub reported: Option<Reported>,
    /// Its last telemetry.
    pub telemetry: Option<Telemetry>,
    /// Samples of it that are stored.
    pub samples_stored: u64,
    /// Samples among them that are held.
    pub samples_held: u64,
    /// Since when two machines speak as it, if they do.
    pub held_since: Option<UnixMillis>,
    /// Messages of it that were refused.
    pub refusals: u64,
    /// Who revoked it, if it is revoked: a person, or the device that took its place.
    pub revoked_by: Option<String>,
    /// Messages that it still had to send when it was revoked, as far as it said, less those that were
    /// brought in a file since.
    pub left_behind: u64,
}

impl DeviceRow {
    /// Whether it is there at `now`.
    pub fn presence(&self, now: UnixMillis) -> Presence {
        let is_stopping = self.reported.as_ref().is_some_and(|reported| reported.stopping);
        presence(self.last_seen, is_stopping, now)
    }
}

const COLUMNS: &str = "id, name, state, signing_key, certificate_pem, agent_version,
    enrolled_at_ms, last_seen_ms, reported, telemetry, refusals,
    (SELECT count(*) FROM sample WHERE sample.device = device.id), certificate_ends_ms, replaces,
    (SELECT other.id FROM device AS other WHERE other.replaces = device.id), held_since_ms,
    (SELECT count(*) FROM sample WHERE sample.device = device.id
        AND sample.held IN ('clone', 'collected')),
    revoked_by, collected";

fn device(row: &Row<'_>) -> Result<DeviceRow, StoreError> {
    let id: String = row.get(0)?;
    let other = |column| -> Result<Option<DeviceId>, StoreError> {
        let id = row.get::<_, Option<String>>(column)?.map(|id| id.parse());
        id.transpose().map_err(StoreError::damaged)
    };
    let state = match row.get::<_, String>(2)?.as_str() {
        "enrolled" => DeviceState::Enrolled,
        _ => DeviceState::Revoked,
    };
    let telemetry: Option<Telemetry> = from_json(row.get(9)?)?;
    let waiting = match state {
        DeviceState::Enrolled => 0,
        DeviceState::Revoked => telemetry.as_ref().map_or(0, |last| last.outbox_rows),
    };
    Ok(DeviceRow {
        id: id.parse().map_err(|_| StoreError::damaged(format_args!("device {id:?}")))?,
        name: row.get(1)?,
        state,
        signing_key: PublicKey::from_bytes(row.get(3)?),
        certificate_pem: row.get(4)?,
        agent_version: row.get(5)?,
        enrolled_at: UnixMillis(from_sql(row.get(6)?)),
        last_seen: row.get::<_, Option<i64>>(7)?.map(|ms| UnixMillis(from_sql(ms))),
        reported: from_json(row.get(8)?)?,
        telemetry,
        refusals: from_sql(row.get(10)?),
        samples_stored: from_sql(row.get(11)?),
        certificate_ends: UnixMillis(from_sql(row.get(12)?)),
        replaces: other(13)?,
        replaced_by: other(14)?,
        held_since: row.get::<_, Option<i64>>(15)?.map(|ms| UnixMillis(from_sql(ms))),
        samples_held: from_sql(row.get(16)?),
        revoked_by: row.get(17)?,
        left_behind: waiting.saturating_sub(from_sql(row.get(18)?)),
    })
}

fn from_json<T: DeserializeOwned>(text: Option<String>) -> Result<Option<T>, StoreError> {
    text.map(|text| serde_json::from_str(&text))
        .transpose()
        .map_err(|_| StoreError::damaged("report of a device"))
}

/// All devices by id.
///
/// # Errors
/// The database failed.
pub fn list(connection: &Connection) -> Result<Vec<DeviceRow>, StoreError> {
    let sql = format!("SELECT {COLUMNS} FROM device ORDER BY id");
    let mut statement = connection.prepare_cached(&sql)?;
    let mut rows = statement.query([])?;
    let mut devices = Vec::new();
    while let Some(row) = rows.next()? {
        devices.push(device(row)?);
    }
    Ok(devices)
}

/// One device.
///
/// # Errors
/// [`StoreError::NotFound`] when there is none of that id.
pub fn get(connection: &Connection, id: &DeviceId) -> Result<DeviceRow, StoreError> {
    let sql = format!("SELECT {COLUMNS} FROM device WHERE id = ?1");
    let mut statement = connection.prepare_cached(&sql)?;
    let mut rows = statement.query([id.as_str()])?;
    match rows.next()? {
        Some(row) => device(row),
        None => Err(StoreError::not_found(format!("device {id}; see 'fleet-hub device list'"))),
    }
}

/// The keys of all devices that may connect, for [`crate::mqtt`] and the listeners.
///
/// # Errors
/// The database failed.
pub fn enrolled(connection: &Connection) -> Result<Vec<(DeviceId, PublicKey)>, StoreError> {
    let mut statement =
        connection.prepare_cached("SELECT id, signing_key FROM device WHERE state = 'enrolled'")?;
    let rows = statement
        .query_map([], |row| Ok((row.get::<_, String>(0)?, row.get::<_, [u8; 32]>(1)?)))?;
    rows.map(|row| {
        let (id, key) = row?;
        let id = id.parse().map_err(|_| StoreError::damaged(format_args!("device {id:?}")))?;
        Ok((id, PublicKey::from_bytes(key)))
    })
    .collect()
}

/// What is known of an enrolled device's certificate.
#[derive(Debug, Clone)]
pub struct CertificateRow {
    /// Which device.
    pub id: DeviceId,
    /// What people call it.
    pub name: String,
    /// Its last report.
    pub reported: Option<Reported>,
    /// Its newest certificate, PEM.
    pub certificate_pem: String,
}

/// The newest certificates of all enrolled devices, by id.
///
/// # Errors
/// The database failed.
pub fn enrolled_certificates(connection: &Connection) -> Result<Vec<CertificateRow>, StoreError> {
    let mut statement = connection.prepare_cached(
        "SELECT id, name, reported, coalesce(renewed_pem, certificate_pem) FROM device
         WHERE state = 'enrolled' ORDER BY id",
    )?;
    let mut rows = statement.query([])?;
    let mut found = Vec::new();
    while let Some(row) = rows.next()? {
        let id: String = row.get(0)?;
        let reported: Option<String> = row.get(2)?;
        found.push(CertificateRow {
            id: id.parse().map_err(|_| StoreError::damaged(format_args!("device {id:?}")))?,
            name: row.get(1)?,
            reported: reported.and_then(|text| serde_json::from_str(&text).ok()),
            certificate_pem: row.get(3)?,
        });
    }
    Ok(found)
}

/// Revokes a device for ever; again is allowed. Whoever calls this then tells
/// [`crate::HubEvent::DeviceRevoked`], which kicks its session.
///
/// # Errors
/// [`StoreError::NotFound`] when there is none of that id.
pub fn revoke(
    tx: &Transaction<'_>,
    id: &DeviceId,
    who: &str,
    now: UnixMillis,
) -> Result<(), StoreError> {
    let changed = tx.execute(
        "UPDATE device SET state = 'revoked', revoked_at_ms = ?2, revoked_by = ?3
         WHERE id = ?1 AND state = 'enrolled'",
        params![id.as_str(), as_sql(now.0), who],
    )?;
    if changed == 1 {
        return audit(tx, who, "device.revoke", id.as_str(), "");
    }
    get(tx, id).map(drop)
}

/// Keeps the newest certificate of an enrolled device.
///
/// # Errors
/// [`StoreError::NotFound`] when there is no such device, or it is revoked.
pub fn renew(
    tx: &Transaction<'_>,
    id: &DeviceId,
    certificate_pem: &str,
    ends: UnixMillis,
    limits: &Limits,
) -> Result<(), StoreError> {
    let changed = tx.execute(
        "UPDATE device SET renewed_pem = ?2, certificate_ends_ms = ?3
         WHERE id = ?1 AND state = 'enrolled'",
        params![id.as_str(), certificate_pem, as_sql(ends.0)],
    )?;
    if changed == 0 {
        return Err(StoreError::not_found(format!("device {id} among the enrolled ones")));
    }
    let detail = format!("until {} ms", ends.0);
    let id = id.as_str();
    let line = super::audit::Line { who: id, action: "device.renew", object: id, detail: &detail };
    super::audit::of_device(tx, &line, limits.device_audit_rows).map(drop)
}

/// A fresh enrolment token.
#[derive(Debug, Clone)]
pub struct NewToken {
    /// SHA-256 of its secret, all that is kept of it.
    pub secret_sha256: Digest,
    /// What people will call the device.
    pub name: String,
    /// The device whose place it will take.
    pub replaces: Option<DeviceId>,
    /// Until when it is good.
    pub expires_at: UnixMillis,
}

/// Keeps a fresh enrolment token.
///
/// # Errors
/// The database failed.
pub fn add_token(
    tx: &Transaction<'_>,
    token: &NewToken,
    who: &str,
    now: UnixMillis,
) -> Result<(), StoreError> {
    let replaces = token.replaces.as_ref().map(DeviceId::as_str);
    tx.execute(
        "INSERT INTO enrolment_token
         (secret_sha256, name, created_by, created_at_ms, expires_at_ms, replaces)
         VALUES (?1, ?2, ?3, ?4, ?5, ?6)",
        params![
            token.secret_sha256.as_bytes(),
            token.name,
            who,
            as_sql(now.0),
            as_sql(token.expires_at.0),
            replaces
        ],
    )?;
    let detail = replaces.map_or(String::new(), |old| format!("in place of {old}"));
    audit(tx, who, "device.token", &token.name, &detail)
}

/// What enrolling under a token would do.
#[derive(Debug)]
pub enum TokenUse {
    /// It is fresh: a device of this name may be added.
    Fresh {
        /// What people call the device.
        name: String,
        /// The device whose place it takes.
        replaces: Option<DeviceId>,
    },
    /// The same two keys used it before: the same answer again.
    Again(Box<DeviceRow>),
}

/// Looks at a token.
///
/// # Errors
/// [`StoreError::NotFound`] for an unknown one; [`StoreError::Conflict`] for one that is expired,
/// used by other keys, or for the place of a device that another took.
pub fn look_up_token(
    connection: &Connection,
    secret_sha256: Digest,
    keys_sha256: Digest,
    now: UnixMillis,
) -> Result<TokenUse, StoreError> {
    type TokenRow = (String, i64, Option<String>, Option<[u8; 32]>, Option<String>);
    let row: Option<TokenRow> = connection
        .query_row(
            "SELECT name, expires_at_ms, device, keys_sha256, replaces FROM enrolment_token
             WHERE secret_sha256 = ?1",
            [secret_sha256.as_bytes()],
            |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?, row.get(3)?, row.get(4)?)),
        )
        .optional()?;
    let ask = "ask for a new one with 'fleet-hub device add'";
    let Some((name, expires_at, used_by, used_keys, replaces)) = row else {
        return Err(StoreError::not_found(format!("enrolment token; {ask}")));
    };
    if let Some(used_by) = used_by {
        if used_keys.map(Digest::from_bytes) != Some(keys_sha256) {
            let what = format!("cannot enrol: the token is used; {ask}");
            return Err(StoreError::Conflict { what });
        }
        let id =
            used_by.parse().map_err(|_| StoreError::damaged(format_args!("device {used_by:?}")))?;
        let device = get(connection, &id)?;
        if device.state == DeviceState::Revoked {
            let what = format!("cannot enrol: the token's device is revoked; {ask}");
            return Err(StoreError::Conflict { what });
        }
        return Ok(TokenUse::Again(Box::new(device)));
    }
    if from_sql(expires_at) <= now.0 {
        return Err(StoreError::Conflict {
            what: format!("cannot enrol: the token is expired; {ask}"),
        });
    }
    let replaces = replaces.map(|old| old.parse()).transpose().map_err(StoreError::damaged)?;
    if let Some(old) = &replaces {
        replace::refuse_replaced(connection, old)?;
    }
    Ok(TokenUse::Fresh { name, replaces })
}

/// A device about to be added.
#[derive(Debug, Clone)]
pub struct NewDevice {
    /// Its id, drawn by the hub.
    pub id: DeviceId,
    /// The key that signs its messages.
    pub signing_key: PublicKey,
    /// Its TLS certificate, PEM.
    pub certificate_pem: String,
    /// When that ends.
    pub certificate_ends: UnixMillis,
    /// Its agent's version.
    pub agent_version: String,
    /// The token it came with.
    pub secret_sha256: Digest,
    /// SHA-256 over its two public keys.
    pub keys_sha256: Digest,
}

/// Adds a device and uses up its token, or finds that the same keys did so before; if it takes
/// another's place, this happens here too. One transaction: a crash leaves all done or nothing.
///
/// # Errors
/// As [`look_up_token`], looked at again within the transaction.
pub fn add(
    tx: &Transaction<'_>,
    new: &NewDevice,
    now: UnixMillis,
) -> Result<DeviceRow, StoreError> {
    let (name, replaces) = match look_up_token(tx, new.secret_sha256, new.keys_sha256, now)? {
        TokenUse::Again(device) => return Ok(*device),
        TokenUse::Fresh { name, replaces } => (name, replaces),
    };
    tx.execute(
        "INSERT INTO device (id, name, state, signing_key, certificate_pem, agent_version,
             enrolled_at_ms, certificate_ends_ms, replaces)
         VALUES (?1, ?2, 'enrolled', ?3, ?4, ?5, ?6, ?7, ?8)",
        params![
            new.id.as_str(),
            name,
            new.signing_key.as_bytes(),
            new.certificate_pem,
            new.agent_version,
            as_sql(now.0),
            as_sql(new.certificate_ends.0),
            replaces.as_ref().map(DeviceId::as_str)
        ],
    )?;
    tx.execute(
        "UPDATE enrolment_token SET used_at_ms = ?2, device = ?3, keys_sha256 = ?4
         WHERE secret_sha256 = ?1",
        params![
            new.secret_sha256.as_bytes(),
            as_sql(now.0),
            new.id.as_str(),
            new.keys_sha256.as_bytes()
        ],
    )?;
    audit(tx, new.id.as_str(), "device.enrol", new.id.as_str(), &name)?;
    if let Some(old) = &replaces {
        replace::take_over(tx, old, &new.id, now)?;
    }
    get(tx, &new.id)
}

/// Adds a device that the hub does not know any more, as its certificate has it. No enrolment token
/// leads to it, so the certificate that enrolment gave is not kept.
///
/// # Errors
/// [`StoreError::Conflict`] when a device of that id is there.
pub fn readmit(
    tx: &Transaction<'_>,
    stranger: &Stranger,
    name: &str,
    now: UnixMillis,
) -> Result<(), StoreError> {
    let added = tx.execute(
        "INSERT OR IGNORE INTO device (id, name, state, signing_key, certificate_pem, agent_version,
             enrolled_at_ms, certificate_ends_ms)
         VALUES (?1, ?2, 'enrolled', ?3, '', '', ?4, ?5)",
        params![
            stranger.device.as_str(),
            name,
            stranger.signing_key.as_bytes(),
            as_sql(now.0),
            as_sql(stranger.certificate_ends.0)
        ],
    )?;
    if added == 0 {
        let what = format!(
            "cannot take device {0} in again: it is known; see 'fleet-hub device show {0}'",
            stranger.device
        );
        return Err(StoreError::Conflict { what });
    }
    Ok(())
}

/// Keeps a device's last report.
///
/// # Errors
/// The database failed.
pub fn set_reported(
    tx: &Transaction<'_>,
    id: &DeviceId,
    reported: &Reported,
    now: UnixMillis,
) -> Result<(), StoreError> {
    let json = serde_json::to_string(reported)
        .map_err(|error| StoreError::Invalid { what: format!("cannot store a report: {error}") })?;
    tx.prepare_cached(
        "UPDATE device SET reported = ?2, agent_version = ?3, last_seen_ms = ?4 WHERE id = ?1",
    )?
    .execute(params![id.as_str(), json, reported.agent_version, as_sql(now.0)])?;
    clones::heard(tx, id, reported, now)
}

/// Keeps a device's last telemetry.
///
/// # Errors
/// The database failed.
pub fn set_telemetry(
    tx: &Transaction<'_>,
    id: &DeviceId,
    telemetry: &Telemetry,
    now: UnixMillis,
) -> Result<(), StoreError> {
    let json = serde_json::to_string(telemetry).map_err(|error| StoreError::Invalid {
        what: format!("cannot store telemetry: {error}"),
    })?;
    tx.prepare_cached("UPDATE device SET telemetry = ?2, last_seen_ms = ?3 WHERE id = ?1")?
        .execute(params![id.as_str(), json, as_sql(now.0)])?;
    Ok(())
}
