//! The rows of the table `finding`.

use std::collections::BTreeMap;

use fleetloop_observe::text::bounded;
use fleetloop_protocol::api::findings::{Acknowledged, Finding, Severity};
use fleetloop_protocol::{DeviceId, UnixMillis};
use rusqlite::{Connection, OptionalExtension as _, Transaction, params};

use super::kind::Kind;
use crate::store::{StoreError, as_sql, audit, from_sql};

/// The most findings of one device, `finding.overflow` apart.
pub const PER_DEVICE: u32 = 64;

/// The most findings of all devices together: of a thousand devices that each reached theirs.
pub const IN_ALL: u32 = 65_536;

/// The longest subject, in characters; what is longer is cut.
pub const SUBJECT_CHARS: usize = 200;

/// The longest detail or note, in characters; what is longer is cut.
pub const DETAIL_CHARS: usize = 500;

/// How long an acknowledgement covers repeats, in milliseconds: a day.
pub const REOPEN_MS: u64 = 24 * 3600 * 1000;

/// Something that was found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct NewFinding<'a> {
    /// What.
    pub kind: Kind,
    /// The device that it is about; none for a worker or the hub itself.
    pub device: Option<&'a DeviceId>,
    /// What exactly it is about. Few different ones: a device's epoch, a model, never a message.
    pub subject: &'a str,
    /// What was seen.
    pub detail: &'a str,
    /// When, by the hub's clock.
    pub at: UnixMillis,
}

/// What became of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Recorded {
    /// It is new.
    New,
    /// It was known and is counted again.
    Again,
    /// It is only counted: the device has as many findings as are kept.
    Overflow,
}

/// Records a finding, in the transaction of whoever found it.
///
/// # Errors
/// The database failed.
pub fn record(tx: &Transaction<'_>, found: &NewFinding<'_>) -> Result<Recorded, StoreError> {
    let subject = &*bounded(found.subject, SUBJECT_CHARS);
    let detail = &*bounded(found.detail, DETAIL_CHARS);
    if again(tx, found, subject)? {
        return Ok(Recorded::Again);
    }
    if !make_room(tx, found)? {
        let overflow = NewFinding { kind: Kind::Overflow, subject: "", ..*found };
        if !again(tx, &overflow, "")? {
            insert(tx, &overflow, "", &format!("the first was {}: {detail}", found.kind.word()))?;
        }
        return Ok(Recorded::Overflow);
    }
    insert(tx, found, subject, detail)?;
    Ok(Recorded::New)
}

/// Counts a finding that is known; says whether it is.
fn again(tx: &Transaction<'_>, found: &NewFinding<'_>, subject: &str) -> Result<bool, StoreError> {
    let changed = tx
        .prepare_cached(
            "UPDATE finding SET count = count + 1, last_at_ms = max(last_at_ms, ?4),
                acknowledged_by = iif(acknowledged_at_ms + ?5 < ?4, NULL, acknowledged_by),
                acknowledged_at_ms = iif(acknowledged_at_ms + ?5 < ?4, NULL, acknowledged_at_ms)
             WHERE kind = ?1 AND coalesce(device, '') = ?2 AND subject = ?3",
        )?
        .execute(params![
            found.kind.word(),
            device_key(found.device),
            subject,
            as_sql(found.at.0),
            as_sql(REOPEN_MS)
        ])?;
    Ok(changed > 0)
}

fn insert(
    tx: &Transaction<'_>,
    found: &NewFinding<'_>,
    subject: &str,
    detail: &str,
) -> Result<(), StoreError> {
    let kind = found.kind.word();
    tx.prepare_cached(
        "INSERT INTO finding (kind, severity, device, subject, detail, count, first_at_ms, last_at_ms)
         VALUES (?1, ?2, ?3, ?4, ?5, 1, ?6, ?6)",
    )?
    .execute(params![
        kind,
        rank(found.kind.severity()),
        found.device.map(DeviceId::as_str),
        subject,
        detail,
        as_sql(found.at.0)
    ])?;
    let about = found.device.map_or("hub", DeviceId::as_str);
    tracing::warn!(kind, about, subject, detail, "a finding; see 'fleet-hub finding list'");
    audit(tx, "hub", "finding.record", about, &format!("{kind} {subject}: {detail}"))
}

/// Whether there is room for one more of its device, after one that matters less may have gone.
fn make_room(tx: &Transaction<'_>, found: &NewFinding<'_>) -> Result<bool, StoreError> {
    let device = device_key(found.device);
    let own: u32 = tx
        .prepare_cached(
            "SELECT count(*) FROM finding WHERE coalesce(device, '') = ?1 AND kind <> ?2",
        )?
        .query_row(params![device, Kind::Overflow.word()], |row| row.get(0))?;
    let is_full = own >= PER_DEVICE || {
        let all: u32 =
            tx.prepare_cached("SELECT count(*) FROM finding")?.query_row([], |row| row.get(0))?;
        all >= IN_ALL
    };
    if !is_full {
        return Ok(true);
    }
    let gone = tx
        .prepare_cached(
            "DELETE FROM finding WHERE id = (
                SELECT id FROM finding
                WHERE coalesce(device, '') = ?1 AND kind <> ?2
                    AND (acknowledged_at_ms IS NOT NULL OR severity < ?3)
                ORDER BY acknowledged_at_ms IS NULL, severity, last_at_ms LIMIT 1)",
        )?
        .execute(params![device, Kind::Overflow.word(), rank(found.kind.severity())])?;
    Ok(gone > 0)
}

/// What is asked for.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Filter {
    /// Of that device only.
    pub device: Option<DeviceId>,
    /// Acknowledged ones too.
    pub all: bool,
    /// At most so many.
    pub limit: u32,
}

/// Findings: open ones first, then by severity, then the last seen first.
///
/// # Errors
/// The database failed.
pub fn list(connection: &Connection, filter: &Filter) -> Result<Vec<Finding>, StoreError> {
    let mut statement = connection.prepare_cached(&format!(
        "{SELECT} WHERE (?1 IS NULL OR coalesce(device, '') = ?1)
            AND (?2 OR acknowledged_at_ms IS NULL)
         ORDER BY acknowledged_at_ms IS NOT NULL, severity DESC, last_at_ms DESC, id DESC LIMIT ?3"
    ))?;
    let device = filter.device.as_ref().map(DeviceId::as_str);
    let rows = statement.query_map(params![device, filter.all, filter.limit], finding)?;
    rows.collect::<Result<_, _>>().map_err(StoreError::from)
}

/// The finding of that number.
///
/// # Errors
/// [`StoreError::NotFound`]; the database failed.
pub fn get(connection: &Connection, id: u64) -> Result<Finding, StoreError> {
    connection
        .prepare_cached(&format!("{SELECT} WHERE id = ?1"))?
        .query_row([as_sql(id)], finding)
        .optional()?
        .ok_or_else(|| {
            StoreError::not_found(format!("finding {id}; see 'fleet-hub finding list --all'"))
        })
}

/// Notes that somebody has seen to a finding. Again replaces the note.
///
/// # Errors
/// [`StoreError::NotFound`]; the database failed.
pub fn acknowledge(
    tx: &Transaction<'_>,
    id: u64,
    who: &str,
    note: &str,
    at: UnixMillis,
) -> Result<Finding, StoreError> {
    let known = get(tx, id)?;
    let note = &*bounded(note, DETAIL_CHARS);
    tx.execute(
        "UPDATE finding SET acknowledged_by = ?2, acknowledged_at_ms = ?3, note = ?4 WHERE id = ?1",
        params![as_sql(id), who, as_sql(at.0), note],
    )?;
    let about = known.device.as_ref().map_or("hub", DeviceId::as_str);
    let detail = format!("{} {}: {note}", known.kind, known.subject);
    audit(tx, who, "finding.acknowledge", about, &detail)?;
    get(tx, id)
}

/// Notes that somebody has seen to whatever is open of that kind, device and subject.
///
/// # Errors
/// The database failed.
pub fn acknowledge_all(
    tx: &Transaction<'_>,
    kind: Kind,
    device: Option<&DeviceId>,
    subject: &str,
    who: &str,
    note: &str,
    at: UnixMillis,
) -> Result<(), StoreError> {
    let open: Option<i64> = tx
        .prepare_cached(
            "SELECT id FROM finding WHERE kind = ?1 AND coalesce(device, '') = ?2
                AND subject = ?3 AND acknowledged_at_ms IS NULL",
        )?
        .query_row(
            params![kind.word(), device_key(device), bounded(subject, SUBJECT_CHARS)],
            |row| row.get(0),
        )
        .optional()?;
    match open {
        Some(id) => acknowledge(tx, from_sql(id), who, note, at).map(drop),
        None => Ok(()),
    }
}

/// How many open findings there are, by the word of their kind.
///
/// # Errors
/// The database failed.
pub fn open_by_kind(connection: &Connection) -> Result<BTreeMap<String, u64>, StoreError> {
    let mut statement = connection.prepare_cached(
        "SELECT kind, count(*) FROM finding WHERE acknowledged_at_ms IS NULL GROUP BY kind",
    )?;
    let rows = statement.query_map([], |row| Ok((row.get(0)?, from_sql(row.get(1)?))))?;
    Ok(rows.collect::<Result<_, _>>()?)
}

const SELECT: &str = "SELECT id, kind, device, subject, detail, count, first_at_ms, last_at_ms,
    acknowledged_by, acknowledged_at_ms, note FROM finding";

fn finding(row: &rusqlite::Row<'_>) -> rusqlite::Result<Finding> {
    let word: String = row.get(1)?;
    let kind = Kind::from_word(&word);
    let device: Option<String> = row.get(2)?;
    let by: Option<String> = row.get(8)?;
    let at: Option<i64> = row.get(9)?;
    let note: String = row.get(10)?;
    Ok(Finding {
        id: from_sql(row.get(0)?),
        severity: kind.map_or(Severity::Warning, Kind::severity),
        meaning: kind.map_or("This build does not know this kind.", Kind::meaning).to_owned(),
        kind: word,
        device: device.and_then(|device| device.parse().ok()),
        subject: row.get(3)?,
        detail: row.get(4)?,
        count: from_sql(row.get(5)?),
        first_at_ms: from_sql(row.get(6)?),
        last_at_ms: from_sql(row.get(7)?),
        acknowledged: by.zip(at).map(|(by, at)| Acknowledged { by, at_ms: from_sql(at), note }),
    })
}

fn device_key(device: Option<&DeviceId>) -> &str {
    device.map_or("", DeviceId::as_str)
}

const fn rank(severity: Severity) -> u8 {
    match severity {
        Severity::Notice => 0,
        Severity::Warning => 1,
        Severity::Alarm => 2,
    }
}
