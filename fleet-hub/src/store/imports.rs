//! Imports: labelled pictures that came together, and what is left of them when one is removed.
//!
//! Invariants: a picture is one sample, whose name follows from its payload, however often it is
//! imported; an import is one transaction; what an import says of a picture is a label event like a
//! person's, and the newest event holds. An import that says what the last one said of a picture says
//! nothing new, so a person's correction in between stays. A picture that was imported for the gate stays
//! with it as long as one such import does. A removed import takes along the pictures that no other
//! import has, and its label events count no more; importing such a picture again revives it. A picture
//! that was removed by itself ('sample remove') stays removed.

use std::collections::{BTreeMap, BTreeSet};

use fleetloop_protocol::api::datasets::Split;
use fleetloop_protocol::api::imports::{Import, ImportRequest, Imported, Refused, sample_of};
use fleetloop_protocol::api::samples::Removed;
use fleetloop_protocol::sample::MediaType;
use fleetloop_protocol::{Digest, UnixMillis};
use rusqlite::{Connection, OptionalExtension as _, Row, Transaction, params};

use super::{StoreError, as_sql, audit, digest_at, from_sql, labels, removal};

/// Pictures that an error names.
const NAMED: usize = 3;

/// A payload that was decoded in full.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Decoded {
    /// SHA-256 of its bytes.
    pub payload: Digest,
    /// Their number.
    pub payload_len: u64,
    /// What it was decoded as.
    pub media_type: MediaType,
    /// Why it cannot be; none when it was.
    pub fault: Option<String>,
}

/// Notes what decoding came to.
///
/// # Errors
/// The database failed.
pub fn note(tx: &Transaction<'_>, all: &[Decoded], now: UnixMillis) -> Result<(), StoreError> {
    let mut statement = tx.prepare_cached(
        "INSERT INTO decoded (payload, payload_len, media_type, fault, at_ms)
         VALUES (?1, ?2, ?3, ?4, ?5) ON CONFLICT (payload) DO UPDATE SET
            payload_len = excluded.payload_len, media_type = excluded.media_type,
            fault = excluded.fault, at_ms = excluded.at_ms",
    )?;
    for one in all {
        statement.execute(params![
            one.payload.as_bytes(),
            as_sql(one.payload_len),
            one.media_type.as_str(),
            one.fault,
            as_sql(now.0)
        ])?;
    }
    Ok(())
}

/// What decoding a payload came to; none when nobody tried.
///
/// # Errors
/// The database failed.
pub fn decoded(connection: &Connection, payload: Digest) -> Result<Option<Decoded>, StoreError> {
    let found: Option<(i64, String, Option<String>)> = connection
        .prepare_cached("SELECT payload_len, media_type, fault FROM decoded WHERE payload = ?1")?
        .query_row([payload.as_bytes()], |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?)))
        .optional()?;
    found
        .map(|(len, media_type, fault)| {
            let media_type = super::samples::media_type_of(&media_type)?;
            Ok(Decoded { payload, payload_len: from_sql(len), media_type, fault })
        })
        .transpose()
}

/// Which of these payloads have to be sent for an import: not those that are here, whole, and not those
/// of pictures that were removed by themselves.
///
/// # Errors
/// The database failed.
pub fn missing(connection: &Connection, payloads: &[Digest]) -> Result<Vec<Digest>, StoreError> {
    let mut missing = Vec::new();
    for payload in payloads {
        let here = decoded(connection, *payload)?.is_some_and(|found| found.fault.is_none());
        if !here && !stays_removed(connection, *payload)? {
            missing.push(*payload);
        }
    }
    Ok(missing)
}

/// Whether the picture was removed by itself.
///
/// # Errors
/// The database failed.
pub fn stays_removed(connection: &Connection, payload: Digest) -> Result<bool, StoreError> {
    let sample = sample_of(payload);
    Ok(row(connection, sample)?
        .is_some_and(|known| known.removed && known.removed_import.is_none()))
}

/// A sample as an import meets it.
struct Known {
    id: i64,
    gate: bool,
    removed: bool,
    removed_import: Option<i64>,
    /// What the last import that counts said of it.
    said: Option<u16>,
}

fn row(connection: &Connection, sample: Digest) -> Result<Option<Known>, StoreError> {
    let found = connection
        .prepare_cached(
            "SELECT s.id, s.split = 'gate', s.removed_at_ms IS NOT NULL, s.removed_import,
                (SELECT l.label FROM label l JOIN import i ON i.id = l.import
                 WHERE l.sample = s.id AND i.removed_at_ms IS NULL ORDER BY l.id DESC LIMIT 1)
             FROM sample s WHERE s.sample = ?1",
        )?
        .query_row([sample.as_bytes()], |row| {
            Ok(Known {
                id: row.get(0)?,
                gate: row.get(1)?,
                removed: row.get(2)?,
                removed_import: row.get(3)?,
                said: row.get(4)?,
            })
        })
        .optional()?;
    Ok(found)
}

/// Pictures with one label each, and those that have two.
fn sorted(request: &ImportRequest) -> (BTreeMap<Digest, &str>, Vec<Refused>) {
    let mut found: BTreeMap<Digest, BTreeSet<&str>> = BTreeMap::new();
    for (label, payloads) in &request.classes {
        for payload in payloads {
            found.entry(*payload).or_default().insert(label);
        }
    }
    let (mut pictures, mut refused) = (BTreeMap::new(), Vec::new());
    for (payload, names) in found {
        let mut each = names.iter();
        match (each.next(), each.next()) {
            (Some(label), None) => {
                pictures.insert(payload, *label);
            }
            _ => {
                let names: Vec<&str> = names.into_iter().collect();
                let reason = format!(
                    "the same picture is there as {}; decide for one and import it again",
                    names.join(" and as ")
                );
                refused.push(Refused { picture: payload.to_string(), reason });
            }
        }
    }
    (pictures, refused)
}

/// Imports; again changes nothing.
///
/// # Errors
/// [`StoreError::Invalid`] when the hub has no such label, [`StoreError::Conflict`] when payloads were
/// not sent: then nothing is written.
pub fn import(
    tx: &Transaction<'_>,
    request: &ImportRequest,
    who: &str,
    now: UnixMillis,
) -> Result<Imported, StoreError> {
    let (pictures, refused) = sorted(request);
    let mut done = Imported { refused, ..Imported::default() };
    let indices: BTreeMap<&str, u16> = pictures
        .values()
        .collect::<BTreeSet<_>>()
        .into_iter()
        .map(|label| Ok((*label, labels::index(tx, label)?)))
        .collect::<Result<_, StoreError>>()?;
    let digest = digest(request, &pictures);
    let same = of_digest(tx, digest)?;
    let gate = request.split == Split::Gate;
    // (payload, label, what is known of it)
    let mut work = Vec::new();
    let mut absent = Vec::new();
    for (payload, label) in &pictures {
        let known = row(tx, sample_of(*payload))?;
        if known.as_ref().is_some_and(|k| k.removed && k.removed_import.is_none()) {
            done.removed += 1;
            continue;
        }
        match decoded(tx, *payload)? {
            Some(found) if found.fault.is_none() => work.push((found, indices[label], known)),
            _ => absent.push(*payload),
        }
    }
    if !absent.is_empty() {
        return Err(not_sent(&absent));
    }
    let changes = work.iter().any(|(_, label, known)| {
        known.as_ref().is_none_or(|k| k.removed || k.said != Some(*label) || (gate && !k.gate))
    });
    if work.is_empty() || (same.is_some() && !changes) {
        done.import = same;
        done.known = work.len() as u64;
        done.kept_for_gate = work.iter().filter(|(.., k)| kept(k.as_ref(), gate)).count() as u64;
        return Ok(done);
    }
    tx.execute(
        "INSERT INTO import (digest, source, split, imported_by, imported_at_ms)
         VALUES (?1, ?2, ?3, ?4, ?5)",
        params![digest.as_bytes(), request.source, word(request.split), who, as_sql(now.0)],
    )?;
    let import = tx.last_insert_rowid();
    for (found, label, known) in &work {
        done.kept_for_gate += u64::from(kept(known.as_ref(), gate));
        let id = match known {
            None => {
                done.stored += 1;
                insert(tx, found, request, now)?
            }
            Some(known) => {
                match known.said {
                    _ if known.removed => done.stored += 1,
                    Some(said) if said == *label => done.known += 1,
                    _ => done.relabelled += 1,
                }
                renew(tx, known.id, &request.source, gate)?;
                known.id
            }
        };
        tx.prepare_cached("INSERT INTO import_sample (import, sample) VALUES (?1, ?2)")?
            .execute([import, id])?;
        if known.as_ref().and_then(|known| known.said) != Some(*label) {
            labels::add(tx, id, Some(*label), who, Some(import), now)?;
        }
    }
    done.import = Some(from_sql(import));
    let detail = format!(
        "{}: {} new, {} relabelled, for {}",
        request.source,
        done.stored,
        done.relabelled,
        word(request.split)
    );
    audit(tx, who, "import.add", &import.to_string(), &detail)?;
    Ok(done)
}

/// Whether a picture stays with the gate although this import would learn from it.
fn kept(known: Option<&Known>, gate: bool) -> bool {
    !gate && known.is_some_and(|known| known.gate && !known.removed)
}

fn not_sent(absent: &[Digest]) -> StoreError {
    let first: Vec<String> = absent.iter().take(NAMED).map(|d| d.short()).collect();
    let what = format!(
        "cannot import: {} payloads are not here, or are no whole pictures ({} …); send them with \
         'POST /api/v1/imports/pictures', or run the same command again",
        absent.len(),
        first.join(", ")
    );
    StoreError::Conflict { what }
}

fn insert(
    tx: &Transaction<'_>,
    found: &Decoded,
    request: &ImportRequest,
    now: UnixMillis,
) -> Result<i64, StoreError> {
    tx.prepare_cached(
        "INSERT INTO sample (sample, grp, payload, payload_len, media_type, split, source, stored_at_ms)
         VALUES (?1, 'import', ?2, ?3, ?4, ?5, ?6, ?7)",
    )?
    .execute(params![
        sample_of(found.payload).as_bytes(),
        found.payload.as_bytes(),
        as_sql(found.payload_len),
        found.media_type.as_str(),
        word(request.split),
        request.source,
        as_sql(now.0)
    ])?;
    Ok(tx.last_insert_rowid())
}

/// A known picture comes again: it has the newer source, and it is for the gate if either says so. One
/// that went with a removed import is back.
fn renew(tx: &Transaction<'_>, id: i64, source: &str, gate: bool) -> Result<(), StoreError> {
    tx.prepare_cached(
        "UPDATE sample SET source = ?2,
            split = CASE WHEN ?3 THEN 'gate' WHEN removed_at_ms IS NULL THEN split ELSE 'train' END,
            removed_at_ms = NULL, removed_by = NULL, removed_reason = NULL, removed_import = NULL
         WHERE id = ?1",
    )?
    .execute(params![id, source, gate])?;
    Ok(())
}

/// SHA-256 of what an import says.
fn digest(request: &ImportRequest, pictures: &BTreeMap<Digest, &str>) -> Digest {
    let said = serde_json::json!([
        request.source,
        word(request.split),
        pictures.iter().map(|(payload, label)| format!("{payload} {label}")).collect::<Vec<_>>()
    ]);
    Digest::of(said.to_string().as_bytes())
}

fn of_digest(connection: &Connection, digest: Digest) -> Result<Option<u64>, StoreError> {
    let found: Option<i64> = connection
        .prepare_cached("SELECT max(id) FROM import WHERE digest = ?1 AND removed_at_ms IS NULL")?
        .query_row([digest.as_bytes()], |row| row.get(0))?;
    Ok(found.map(from_sql))
}

/// All imports, the newest first.
///
/// # Errors
/// The database failed.
pub fn list(connection: &Connection) -> Result<Vec<Import>, StoreError> {
    let mut statement = connection.prepare_cached(&format!("{SELECT} ORDER BY i.id DESC"))?;
    let all = statement.query_map([], read)?.collect::<Result<_, _>>()?;
    Ok(all)
}

/// One import.
///
/// # Errors
/// [`StoreError::NotFound`] when there is none of that number.
pub fn get(connection: &Connection, id: u64) -> Result<Import, StoreError> {
    connection
        .prepare_cached(&format!("{SELECT} WHERE i.id = ?1"))?
        .query_row([as_sql(id)], read)
        .optional()?
        .ok_or_else(|| StoreError::not_found(format!("import {id}; see 'fleet-hub import list'")))
}

const SELECT: &str = "SELECT i.id, i.source, i.split, i.imported_by, i.imported_at_ms,
    i.removed_at_ms, i.removed_by, i.removed_reason,
    (SELECT count(*) FROM import_sample s WHERE s.import = i.id) FROM import i";

fn read(row: &Row<'_>) -> rusqlite::Result<Import> {
    let removed = match row.get::<_, Option<i64>>(5)? {
        None => None,
        Some(at_ms) => {
            Some(Removed { at_ms: from_sql(at_ms), by: row.get(6)?, reason: row.get(7)? })
        }
    };
    Ok(Import {
        id: from_sql(row.get(0)?),
        source: row.get(1)?,
        // The table allows no other word.
        split: if row.get::<_, String>(2)? == "gate" { Split::Gate } else { Split::Train },
        by: row.get(3)?,
        at_ms: from_sql(row.get(4)?),
        removed,
        pictures: from_sql(row.get(8)?),
    })
}

/// Removes an import: its label events count no more, and the pictures that no other import has go with
/// it. Again changes nothing.
///
/// # Errors
/// [`StoreError::NotFound`] when there is none of that number.
pub fn remove(
    tx: &Transaction<'_>,
    id: u64,
    reason: &str,
    who: &str,
    now: UnixMillis,
) -> Result<Import, StoreError> {
    if get(tx, id)?.removed.is_some() {
        return get(tx, id);
    }
    let import = as_sql(id);
    tx.execute(
        "UPDATE import SET removed_at_ms = ?2, removed_by = ?3, removed_reason = ?4 WHERE id = ?1",
        params![import, as_sql(now.0), who, reason],
    )?;
    // Of each of its samples: how many imports still have it, and what they say.
    let left: Vec<(i64, Digest, i64, bool, Option<String>)> = tx
        .prepare_cached(
            "SELECT s.id, s.sample, count(i.id), coalesce(max(i.split = 'gate'), 0),
                (SELECT n.source FROM import_sample m JOIN import n ON n.id = m.import
                 WHERE m.sample = s.id AND n.removed_at_ms IS NULL ORDER BY n.id DESC LIMIT 1)
             FROM import_sample own JOIN sample s ON s.id = own.sample
             LEFT JOIN import_sample other ON other.sample = s.id
             LEFT JOIN import i ON i.id = other.import AND i.removed_at_ms IS NULL
             WHERE own.import = ?1 GROUP BY s.id",
        )?
        .query_map([import], |row| {
            Ok((row.get(0)?, digest_at(row, 1)?, row.get(2)?, row.get(3)?, row.get(4)?))
        })?
        .collect::<Result<_, _>>()?;
    let mut gone = 0;
    for (sample, digest, others, gate, source) in left {
        if others > 0 {
            tx.prepare_cached("UPDATE sample SET split = ?2, source = ?3 WHERE id = ?1")?.execute(
                params![sample, word(if gate { Split::Gate } else { Split::Train }), source],
            )?;
        } else if removal::bury(tx, digest, reason, who, now, Some(import))? {
            gone += 1;
        }
    }
    let detail = format!("{gone} pictures erased: {reason}");
    audit(tx, who, "import.remove", &id.to_string(), &detail)?;
    get(tx, id)
}

/// A split as stored.
const fn word(split: Split) -> &'static str {
    match split {
        Split::Train => "train",
        Split::Gate => "gate",
    }
}
