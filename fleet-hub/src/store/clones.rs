//! Devices that two machines speak as: what is held back meanwhile, and what the operator decides.
//!
//! Nothing of a cloned device is refused: both machines get their receipts. From the moment when the
//! second one was first heard its samples are *held*: stored, and left out of datasets and of the
//! labelling queue. An operator decides by epoch which of them count; the others are *dropped*: they
//! stay stored and never count. `sample.held` is NULL, `'clone'`, `'collected'` (brought in a file) or
//! `'dropped'`.

use fleetloop_protocol::api::devices::EpochSummary;
use fleetloop_protocol::state::Reported;
use fleetloop_protocol::{DeviceId, Epoch, UnixMillis};
use rusqlite::{Connection, OptionalExtension as _, Transaction, params};

use super::findings::{self, Filter, Kind, NewFinding};
use super::{StoreError, as_sql, audit, devices, from_sql};
use crate::clones::{self, Start, Verdict};

/// Takes in who speaks, in the transaction that stores the report.
///
/// # Errors
/// The database failed.
pub(super) fn heard(
    tx: &Transaction<'_>,
    device: &DeviceId,
    reported: &Reported,
    now: UnixMillis,
) -> Result<(), StoreError> {
    let starts: Option<Option<String>> = tx
        .prepare_cached("SELECT starts FROM device WHERE id = ?1")?
        .query_row([device.as_str()], |row| row.get(0))
        .optional()?;
    let Some(starts) = starts else { return Ok(()) };
    let mut history: Vec<Start> =
        starts.and_then(|text| serde_json::from_str(&text).ok()).unwrap_or_default();
    let verdict = clones::heard(&mut history, reported.start, reported.epoch, now);
    let json = serde_json::to_string(&history)
        .map_err(|error| StoreError::Invalid { what: format!("cannot store starts: {error}") })?;
    tx.prepare_cached("UPDATE device SET starts = ?2 WHERE id = ?1")?
        .execute(params![device.as_str(), json])?;
    match verdict {
        Verdict::One => Ok(()),
        Verdict::NewEpoch { former } => {
            let detail = format!("after {}", hex(former));
            let (subject, detail) = (&*format!("epoch {}", hex(reported.epoch)), &*detail);
            let kind = Kind::EpochNew;
            let found = NewFinding { kind, device: Some(device), subject, detail, at: now };
            findings::record(tx, &found).map(drop)
        }
        Verdict::Two { since } => hold(tx, device, since, now),
    }
}

/// Holds back what came since `since` and what comes from now on; again is allowed.
fn hold(
    tx: &Transaction<'_>,
    device: &DeviceId,
    since: UnixMillis,
    now: UnixMillis,
) -> Result<(), StoreError> {
    let held_since = held_since(tx, device)?;
    let subject = &*format!("since {} ms", held_since.unwrap_or(since).0);
    let detail = "two starts of the agent take turns; samples of both are kept out of datasets";
    let kind = Kind::Clone;
    findings::record(tx, &NewFinding { kind, device: Some(device), subject, detail, at: now })?;
    if held_since.is_some() {
        return Ok(());
    }
    tx.execute(
        "UPDATE device SET held_since_ms = ?2 WHERE id = ?1",
        params![device.as_str(), as_sql(since.0)],
    )?;
    let held = tx.execute(
        "UPDATE sample SET held = 'clone' WHERE device = ?1 AND stored_at_ms >= ?2 AND held IS NULL",
        params![device.as_str(), as_sql(since.0)],
    )?;
    audit(tx, "hub", "device.hold", device.as_str(), &format!("{held} samples so far"))
}

/// Since when the samples of a device are held; none when they count.
///
/// # Errors
/// The database failed.
pub(super) fn held_since(
    connection: &Connection,
    device: &DeviceId,
) -> Result<Option<UnixMillis>, StoreError> {
    let since: Option<Option<i64>> = connection
        .prepare_cached("SELECT held_since_ms FROM device WHERE id = ?1")?
        .query_row([device.as_str()], |row| row.get(0))
        .optional()?;
    Ok(since.flatten().map(|ms| UnixMillis(from_sql(ms))))
}

/// The epochs of a device, the oldest first.
///
/// # Errors
/// [`StoreError::NotFound`] when there is no such device.
pub fn epochs(connection: &Connection, device: &DeviceId) -> Result<Vec<EpochSummary>, StoreError> {
    devices::get(connection, device)?;
    let mut statement = connection.prepare_cached(
        "SELECT epoch, count(*), coalesce(sum(held IN ('clone', 'collected')), 0),
            coalesce(sum(held = 'dropped'), 0), min(stored_at_ms), max(stored_at_ms)
         FROM sample WHERE device = ?1 GROUP BY epoch ORDER BY min(stored_at_ms), epoch",
    )?;
    let all = statement.query_map([device.as_str()], |row| {
        Ok(EpochSummary {
            epoch: hex(Epoch(from_sql(row.get(0)?))),
            samples: from_sql(row.get(1)?),
            held: from_sql(row.get(2)?),
            dropped: from_sql(row.get(3)?),
            first_stored_ms: from_sql(row.get(4)?),
            last_stored_ms: from_sql(row.get(5)?),
        })
    })?;
    Ok(all.collect::<Result<_, _>>()?)
}

/// Decides: held samples of the epochs in `keep` (of all, when none is given) count, the other held
/// ones never do, and what comes from now on counts. The device's open clone findings are
/// acknowledged.
///
/// # Errors
/// [`StoreError::NotFound`] when there is no such device or epoch of it.
pub fn decide(
    tx: &Transaction<'_>,
    device: &DeviceId,
    keep: Option<&[String]>,
    who: &str,
    now: UnixMillis,
) -> Result<Vec<EpochSummary>, StoreError> {
    let known = epochs(tx, device)?;
    for epoch in keep.unwrap_or_default() {
        if !known.iter().any(|known| known.epoch == *epoch) {
            return Err(StoreError::not_found(format!(
                "epoch {epoch:?} of device {device}; see 'fleet-hub device epochs {device}'"
            )));
        }
    }
    let mut counted = Vec::new();
    for epoch in &known {
        let is_kept = keep.is_none_or(|keep| keep.contains(&epoch.epoch));
        let number = u64::from_str_radix(&epoch.epoch, 16).map_err(StoreError::damaged)?;
        let held: Option<&str> = (!is_kept).then_some("dropped");
        tx.execute(
            "UPDATE sample SET held = ?3
             WHERE device = ?1 AND epoch = ?2 AND held IN ('clone', 'collected')",
            params![device.as_str(), as_sql(number), held],
        )?;
        if is_kept && epoch.held > 0 {
            counted.push(epoch.epoch.as_str());
        }
    }
    tx.execute(
        "UPDATE device SET held_since_ms = NULL, starts = NULL WHERE id = ?1",
        [device.as_str()],
    )?;
    let filter = Filter { device: Some(device.clone()), all: false, limit: u32::MAX };
    for finding in findings::list(tx, &filter)? {
        if finding.kind == Kind::Clone.word() {
            findings::acknowledge(tx, finding.id, who, "decided by epoch", now)?;
        }
    }
    audit(tx, who, "device.keep", device.as_str(), &format!("kept {}", counted.join(" ")))?;
    epochs(tx, device)
}

/// An epoch as [`fleetloop_protocol::SampleId`] writes it.
fn hex(epoch: Epoch) -> String {
    format!("{:016x}", epoch.0)
}

#[cfg(test)]
#[path = "clones_tests.rs"]
mod tests;
