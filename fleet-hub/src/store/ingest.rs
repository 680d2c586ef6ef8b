//! What devices send: samples, gaps, and what becomes of messages that are not accepted.
//!
//! Invariants: a row exists only with its receipt, and its payload is on disk before it; one
//! identity has one digest for ever; a message that contradicts that is kept as evidence and never
//! replaces anything; a revoked device adds nothing.

use fleetloop_protocol::gap::Gap;
use fleetloop_protocol::receipt::RefusalReason;
use fleetloop_protocol::sample::VerifiedSample;
use fleetloop_protocol::{ClockState, DeviceId, Digest, SampleId, UnixMillis, Verified};
use rusqlite::{Connection, OptionalExtension, Transaction, params};

use super::{StoreError, as_sql, audit, chain, clones};
use crate::limits::Limits;

/// What became of a verified message.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Outcome {
    /// It is stored now, with the receipt that was offered.
    Stored,
    /// The same was stored before: the receipt of then, byte for byte.
    Repeated {
        /// The signed receipt.
        receipt: Vec<u8>,
    },
    /// Its identity is taken by another digest; it is quarantined.
    Conflict {
        /// The digest that is stored.
        stored: Digest,
    },
    /// Its device may not send any more.
    Revoked,
}

/// How a message came to the hub.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Via {
    /// Its device sent it.
    Link,
    /// An operator brought it in a file: see [`crate::collect`].
    File {
        /// The operator knows that another person revoked the device, and vouches for the file.
        vouched: bool,
    },
}

/// Whether a device's messages are taken in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Admission {
    /// They are, and its samples count.
    Counts,
    /// They are; its samples are held, for that reason (`sample.held`).
    Held(&'static str),
    /// They are not.
    Refused,
}

/// What is stored under an identity.
struct Known {
    digest: Digest,
    receipt: Vec<u8>,
}

/// Looks whether `sample` came before, without writing: a repeated one costs no payload write.
///
/// # Errors
/// The database failed.
pub fn look_up(
    connection: &Connection,
    sample: &VerifiedSample,
) -> Result<Option<Outcome>, StoreError> {
    let header = sample.header();
    let known = known_sample(connection, &header.get().id)?;
    Ok(known.map(|known| judge(known, header.body_digest())))
}

fn judge(known: Known, digest: Digest) -> Outcome {
    if known.digest == digest {
        Outcome::Repeated { receipt: known.receipt }
    } else {
        Outcome::Conflict { stored: known.digest }
    }
}

/// Stores a sample whose payload (of the digest `payload`) is on disk, with its signed `receipt`.
///
/// # Errors
/// The database failed.
pub fn store_sample(
    tx: &Transaction<'_>,
    sample: &VerifiedSample,
    payload: Digest,
    receipt: &[u8],
    via: Via,
    now: UnixMillis,
) -> Result<Outcome, StoreError> {
    let header = sample.header().get();
    let digest = sample.header().body_digest();
    let held = match admission(tx, &header.id.device, via)? {
        Admission::Counts => None,
        Admission::Held(why) => Some(why),
        Admission::Refused => return Ok(Outcome::Revoked),
    };
    if let Some(known) = known_sample(tx, &header.id)? {
        return Ok(judge(known, digest));
    }
    let json = |what: &str, error: serde_json::Error| StoreError::Invalid {
        what: format!("cannot store {what}: {error}"),
    };
    tx.prepare_cached(
        "INSERT INTO sample (sample, grp, device, epoch, sequence, previous, captured_at_ms,
            clock_synced, model, config, selection, predictions, payload, payload_len, media_type,
            salt, envelope, receipt, stored_at_ms, held)
         VALUES (?1, 'fleet', ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12, ?13, ?14, ?15, ?16, ?17, ?18,
            ?19)",
    )?
    .execute(params![
        digest.as_bytes(),
        header.id.device.as_str(),
        as_sql(header.id.epoch.0),
        as_sql(header.id.sequence.0),
        header.previous.as_bytes(),
        as_sql(header.captured_at.0),
        header.clock == ClockState::Synced,
        header.model.0.as_bytes(),
        header.config.as_bytes(),
        serde_json::to_string(&header.selection).map_err(|error| json("a selection", error))?,
        serde_json::to_string(&header.predictions).map_err(|error| json("predictions", error))?,
        payload.as_bytes(),
        i64::from(header.payload_len),
        header.media_type.as_str(),
        sample.salt(),
        sample.header().envelope(),
        receipt,
        as_sql(now.0),
        held,
    ])?;
    chain::look(tx, header, digest, now)?;
    Ok(Outcome::Stored)
}

/// Stores a gap record with its signed `receipt`.
///
/// # Errors
/// The database failed.
pub fn store_gap(
    tx: &Transaction<'_>,
    gap: &Verified<Gap>,
    receipt: &[u8],
    via: Via,
    now: UnixMillis,
) -> Result<Outcome, StoreError> {
    let record = gap.get();
    if admission(tx, &record.device, via)? == Admission::Refused {
        return Ok(Outcome::Revoked);
    }
    let known = tx
        .prepare_cached(
            "SELECT digest, receipt FROM gap
             WHERE device = ?1 AND epoch = ?2 AND from_sequence = ?3 AND to_sequence = ?4",
        )?
        .query_row(
            params![
                record.device.as_str(),
                as_sql(record.epoch.0),
                as_sql(record.from.0),
                as_sql(record.to.0)
            ],
            known,
        )
        .optional()?;
    if let Some(known) = known {
        return Ok(judge(known, gap.body_digest()));
    }
    let reason = serde_json::to_value(record.reason).ok();
    let reason = reason.as_ref().and_then(|value| value.as_str()).unwrap_or("unknown");
    tx.prepare_cached(
        "INSERT INTO gap (digest, device, epoch, from_sequence, to_sequence, before, after, reason,
            envelope, receipt, stored_at_ms)
         VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11)",
    )?
    .execute(params![
        gap.body_digest().as_bytes(),
        record.device.as_str(),
        as_sql(record.epoch.0),
        as_sql(record.from.0),
        as_sql(record.to.0),
        record.before.as_bytes(),
        record.after.as_bytes(),
        reason,
        gap.envelope(),
        receipt,
        as_sql(now.0),
    ])?;
    chain::look_at_gap(tx, record, now)?;
    Ok(Outcome::Stored)
}

/// A verified message that contradicts what is stored.
#[derive(Debug)]
pub struct Contradiction {
    /// SHA-256 of the whole message as it arrived.
    pub message: Digest,
    /// Who sent it.
    pub device: DeviceId,
    /// The identity it claims, in words.
    pub identity: String,
    /// The digest that is stored.
    pub stored: Digest,
    /// The digest that was sent.
    pub found: Digest,
    /// The signed envelope: evidence.
    pub envelope: Vec<u8>,
}

/// Keeps a contradiction as evidence, at most `device_quarantine_rows` of each device, the newest, and
/// writes it to the audit log the first time it comes. False when the audit log has the device's lines
/// of today already.
///
/// # Errors
/// The database failed.
pub fn quarantine(
    tx: &Transaction<'_>,
    found: &Contradiction,
    limits: &Limits,
    now: UnixMillis,
) -> Result<bool, StoreError> {
    let added = tx.execute(
        "INSERT INTO quarantine (message, device, identity, stored_digest, found_digest, envelope, at_ms)
         VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7) ON CONFLICT (message) DO NOTHING",
        params![
            found.message.as_bytes(),
            found.device.as_str(),
            found.identity,
            found.stored.as_bytes(),
            found.found.as_bytes(),
            found.envelope,
            as_sql(now.0)
        ],
    )?;
    if added == 0 {
        return Ok(true);
    }
    tx.prepare_cached(
        "DELETE FROM quarantine WHERE device = ?1 AND id NOT IN (
            SELECT id FROM quarantine WHERE device = ?1 ORDER BY id DESC LIMIT ?2)",
    )?
    .execute(params![found.device.as_str(), limits.device_quarantine_rows])?;
    count(tx, "quarantined")?;
    let detail = format!("stored {}, sent {}", found.stored, found.found);
    let line = audit::Line {
        who: found.device.as_str(),
        action: "sample.quarantine",
        object: &found.identity,
        detail: &detail,
    };
    audit::of_device(tx, &line, limits.device_audit_rows)
}

/// Counts a refusal, in all, by reason and by device.
///
/// # Errors
/// The database failed.
pub fn count_refusal(
    tx: &Transaction<'_>,
    device: &DeviceId,
    reason: RefusalReason,
) -> Result<(), StoreError> {
    count(tx, "refused")?;
    let reason = serde_json::to_value(reason).ok();
    let reason = reason.as_ref().and_then(|value| value.as_str()).unwrap_or("unknown");
    count(tx, &format!("refused.{reason}"))?;
    tx.prepare_cached("UPDATE device SET refusals = refusals + 1 WHERE id = ?1")?
        .execute([device.as_str()])?;
    Ok(())
}

/// Adds one to the counter `name`.
///
/// # Errors
/// The database failed.
pub fn count(tx: &Transaction<'_>, name: &str) -> Result<(), StoreError> {
    tx.prepare_cached(
        "INSERT INTO counter (name, value) VALUES (?1, 1)
         ON CONFLICT (name) DO UPDATE SET value = value + 1",
    )?
    .execute([name])?;
    Ok(())
}

/// The counter `name`: `repeated`, `quarantined`, `refused`, `refused.<reason>`.
///
/// # Errors
/// The database failed.
pub fn counter(connection: &Connection, name: &str) -> Result<u64, StoreError> {
    let value = connection
        .prepare_cached("SELECT value FROM counter WHERE name = ?1")?
        .query_row([name], |row| row.get::<_, i64>(0))
        .optional()?;
    Ok(super::from_sql(value.unwrap_or(0)))
}

/// Whether messages of `device` that come like that are taken in. A device whose place another took
/// was trusted until then. One that a person revoked may be in anybody's hands, and its key with it.
///
/// # Errors
/// The database failed.
pub fn admission(
    connection: &Connection,
    device: &DeviceId,
    via: Via,
) -> Result<Admission, StoreError> {
    let by_person = match via {
        _ if is_enrolled(connection, device)? => false,
        Via::Link => return Ok(Admission::Refused),
        Via::File { .. } if is_replaced(connection, device)? => false,
        Via::File { vouched: false } => return Ok(Admission::Refused),
        Via::File { vouched: true } => true,
    };
    if clones::held_since(connection, device)?.is_some() {
        return Ok(Admission::Held("clone"));
    }
    Ok(if by_person { Admission::Held("collected") } else { Admission::Counts })
}

/// Whether the device was revoked by the one that took its place, and by nobody before.
fn is_replaced(connection: &Connection, device: &DeviceId) -> Result<bool, StoreError> {
    let found = connection
        .prepare_cached(
            "SELECT 1 FROM device AS old JOIN device AS new ON new.id = old.revoked_by
             WHERE old.id = ?1 AND new.replaces = old.id",
        )?
        .exists([device.as_str()])?;
    Ok(found)
}

/// Counts messages of a device's outbox that were brought in a file, and who brought them.
///
/// # Errors
/// The database failed.
pub fn collected(
    tx: &Transaction<'_>,
    device: &DeviceId,
    messages: u64,
    detail: &str,
    who: &str,
) -> Result<(), StoreError> {
    tx.execute(
        "UPDATE device SET collected = collected + ?2 WHERE id = ?1",
        params![device.as_str(), as_sql(messages)],
    )?;
    audit(tx, who, "sample.collect", device.as_str(), detail)
}

/// Whether the device may send.
///
/// # Errors
/// The database failed.
pub(super) fn is_enrolled(connection: &Connection, device: &DeviceId) -> Result<bool, StoreError> {
    let found = connection
        .prepare_cached("SELECT 1 FROM device WHERE id = ?1 AND state = 'enrolled'")?
        .exists([device.as_str()])?;
    Ok(found)
}

fn known_sample(connection: &Connection, id: &SampleId) -> Result<Option<Known>, StoreError> {
    let found = connection
        .prepare_cached(
            "SELECT sample, receipt FROM sample WHERE device = ?1 AND epoch = ?2 AND sequence = ?3",
        )?
        .query_row(params![id.device.as_str(), as_sql(id.epoch.0), as_sql(id.sequence.0)], known)
        .optional()?;
    Ok(found)
}

fn known(row: &rusqlite::Row<'_>) -> rusqlite::Result<Known> {
    Ok(Known { digest: super::digest_at(row, 0)?, receipt: row.get(1)? })
}
