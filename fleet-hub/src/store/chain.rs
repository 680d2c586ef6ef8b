//! Whether what a device sends fits together: its chain of headers, its clock, its model, its classes.
//!
//! A sample that is signed and new gets its receipt whatever is found here: it may have overtaken
//! others, and evidence is kept, not thrown away. What does not fit is a finding of the device, once for
//! each epoch or model, in the transaction that stores. Each check looks up neighbours by an index;
//! nothing is scanned.
//!
//! A link of the chain is a sample or a declared gap: it names its predecessor's digest (`before`) and
//! ends in a digest (`after`). Two links that touch must agree, whichever came first.

use fleetloop_protocol::gap::Gap;
use fleetloop_protocol::limits::TELEMETRY_CLASSES;
use fleetloop_protocol::sample::SampleHeader;
use fleetloop_protocol::{BundleDigest, ClockState, DeviceId, Digest, Epoch, UnixMillis};
use rusqlite::{Connection, OptionalExtension as _, Transaction, params};

use super::findings::{self, Kind, NewFinding};
use super::{StoreError, as_sql, digest_at, registry};

/// How far a device's sequences may jump: more than it signs in eleven days at a hundred samples a
/// second.
pub const JUMP: u64 = 100_000_000;

/// How far ahead of the hub a clock that says it is right may be, in milliseconds: an hour.
pub const AHEAD_MS: u64 = 3_600_000;

/// How far ahead a clock may be that says it is not right, in milliseconds: a year.
pub const AHEAD_UNSYNCED_MS: u64 = 366 * 24 * 3_600_000;

/// No frame was captured before, in milliseconds since 1970: 1 January 2025, before this product existed.
pub const PRODUCT_MS: u64 = 1_735_689_600_000;

/// A piece of a device's chain of headers.
struct Link<'a> {
    device: &'a DeviceId,
    epoch: Epoch,
    from: u64,
    to: u64,
    before: Digest,
    after: Digest,
}

/// Looks at a sample that was just stored, and records what does not fit.
///
/// # Errors
/// The database failed.
pub fn look(
    tx: &Transaction<'_>,
    header: &SampleHeader,
    digest: Digest,
    now: UnixMillis,
) -> Result<(), StoreError> {
    let (device, sequence) = (&header.id.device, header.id.sequence.0);
    let link = Link {
        device,
        epoch: header.id.epoch,
        from: sequence,
        to: sequence,
        before: header.previous,
        after: digest,
    };
    chain(tx, &link, now)?;
    if let Some((kind, detail)) = time(header.captured_at, header.clock, now) {
        let subject = "capture time";
        findings::record(
            tx,
            &NewFinding { kind, device: Some(device), subject, detail: &detail, at: now },
        )?;
    }
    let highest = header.predictions.iter().map(|prediction| prediction.class).max();
    model(tx, device, header.model, highest, now)
}

/// Looks at a gap record that was just stored, and records what does not fit.
///
/// # Errors
/// The database failed.
pub fn look_at_gap(tx: &Transaction<'_>, gap: &Gap, now: UnixMillis) -> Result<(), StoreError> {
    let link = Link {
        device: &gap.device,
        epoch: gap.epoch,
        from: gap.from.0,
        to: gap.to.0,
        before: gap.before,
        after: gap.after,
    };
    chain(tx, &link, now)?;
    let covered: Option<i64> = tx
        .prepare_cached(
            "SELECT sequence FROM sample
             WHERE device = ?1 AND epoch = ?2 AND sequence BETWEEN ?3 AND ?4 LIMIT 1",
        )?
        .query_row(
            params![gap.device.as_str(), as_sql(gap.epoch.0), as_sql(gap.from.0), as_sql(gap.to.0)],
            |row| row.get(0),
        )
        .optional()?;
    let Some(covered) = covered else { return Ok(()) };
    let detail = format!("gap {}..{} covers sample {covered}", gap.from.0, gap.to.0);
    record(tx, &link, Kind::ChainGapOverStored, &detail, now)
}

/// Records a model that the hub does not hold, or a class that the model does not have.
///
/// # Errors
/// The database failed.
pub fn model(
    tx: &Transaction<'_>,
    device: &DeviceId,
    model: BundleDigest,
    highest_class: Option<u16>,
    now: UnixMillis,
) -> Result<(), StoreError> {
    let subject = model.to_string();
    let found = |kind, detail: &str| {
        let subject = &subject;
        findings::record(tx, &NewFinding { kind, device: Some(device), subject, detail, at: now })
    };
    let labels = registry::labels(tx, model)?;
    if labels.is_none() {
        found(Kind::ModelUnknown, "this hub holds no such bundle")?;
    }
    // A model that is not held may have as many classes as the hub can count.
    let labels = labels.unwrap_or(TELEMETRY_CLASSES);
    if let Some(class) = highest_class.filter(|class| usize::from(*class) >= labels) {
        found(Kind::ClassUnknown, &format!("class {class} of {labels}"))?;
    }
    Ok(())
}

fn chain(tx: &Transaction<'_>, link: &Link<'_>, now: UnixMillis) -> Result<(), StoreError> {
    if let Some(stored) = end_before(tx, link)?.filter(|stored| *stored != link.before) {
        let detail =
            format!("{} names {} as its predecessor, stored is {stored}", link.from, link.before);
        record(tx, link, Kind::ChainPrevious, &detail, now)?;
    }
    if let Some(named) = start_after(tx, link)?.filter(|named| *named != link.after) {
        let detail = format!("{} has digest {}, its successor names {named}", link.to, link.after);
        record(tx, link, Kind::ChainPrevious, &detail, now)?;
    }
    let known = highest_below(tx, link)?;
    if link.from.saturating_sub(known) > JUMP || link.to - link.from > JUMP {
        let detail = format!("from {known} to {}..{}", link.from, link.to);
        record(tx, link, Kind::ChainJump, &detail, now)?;
    }
    Ok(())
}

fn record(
    tx: &Transaction<'_>,
    link: &Link<'_>,
    kind: Kind,
    detail: &str,
    at: UnixMillis,
) -> Result<(), StoreError> {
    let subject = format!("epoch {:016x}", link.epoch.0);
    let device = Some(link.device);
    findings::record(tx, &NewFinding { kind, device, subject: &subject, detail, at }).map(drop)
}

/// The digest in which the link before ends, if that one is stored.
fn end_before(connection: &Connection, link: &Link<'_>) -> Result<Option<Digest>, StoreError> {
    let Some(before) = link.from.checked_sub(1) else { return Ok(None) };
    let found = connection
        .prepare_cached(
            "SELECT sample FROM sample WHERE device = ?1 AND epoch = ?2 AND sequence = ?3
             UNION ALL
             SELECT after FROM gap WHERE device = ?1 AND epoch = ?2 AND to_sequence = ?3 LIMIT 1",
        )?
        .query_row(params![link.device.as_str(), as_sql(link.epoch.0), as_sql(before)], |row| {
            digest_at(row, 0)
        });
    Ok(found.optional()?)
}

/// What the link after names as its predecessor, if that one is stored.
fn start_after(connection: &Connection, link: &Link<'_>) -> Result<Option<Digest>, StoreError> {
    let Some(after) = link.to.checked_add(1) else { return Ok(None) };
    let found = connection
        .prepare_cached(
            "SELECT previous FROM sample WHERE device = ?1 AND epoch = ?2 AND sequence = ?3
             UNION ALL
             SELECT before FROM gap WHERE device = ?1 AND epoch = ?2 AND from_sequence = ?3 LIMIT 1",
        )?
        .query_row(params![link.device.as_str(), as_sql(link.epoch.0), as_sql(after)], |row| {
            digest_at(row, 0)
        });
    Ok(found.optional()?)
}

/// The highest sequence below the link that is stored or declared lost; 0 when there is none.
fn highest_below(connection: &Connection, link: &Link<'_>) -> Result<u64, StoreError> {
    let Ok(from) = i64::try_from(link.from) else {
        // The index orders 63 bits, and no device counts further.
        return Ok(0);
    };
    let highest: i64 = connection
        .prepare_cached(
            "SELECT max(
                (SELECT coalesce(max(sequence), 0) FROM sample
                 WHERE device = ?1 AND epoch = ?2 AND sequence BETWEEN 0 AND ?3 - 1),
                (SELECT coalesce(max(to_sequence), 0) FROM gap
                 WHERE device = ?1 AND epoch = ?2 AND to_sequence BETWEEN 0 AND ?3 - 1))",
        )?
        .query_row(params![link.device.as_str(), as_sql(link.epoch.0), from], |row| row.get(0))?;
    Ok(highest.unsigned_abs())
}

/// What is wrong with a capture time, by the hub's clock. Pure.
fn time(captured: UnixMillis, clock: ClockState, now: UnixMillis) -> Option<(Kind, String)> {
    let allowed = match clock {
        ClockState::Synced => AHEAD_MS,
        ClockState::Unsynced => AHEAD_UNSYNCED_MS,
    };
    if captured.0 > now.0.saturating_add(allowed) {
        let ahead_h = (captured.0 - now.0) / 3_600_000;
        return Some((Kind::TimeFuture, format!("captured {ahead_h} hours after it arrived")));
    }
    if clock == ClockState::Synced && captured.0 < PRODUCT_MS {
        let detail = format!("captured {} ms after 1970, by a clock that is right", captured.0);
        return Some((Kind::TimePast, detail));
    }
    None
}

#[cfg(test)]
#[path = "chain_tests.rs"]
mod tests;
