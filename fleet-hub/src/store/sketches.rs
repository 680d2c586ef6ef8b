//! Sketches by device, model and hour, and what each model met first.
//!
//! Invariants: a window counts once however often it is delivered; what is counted is of an enrolled
//! device and of a model that the hub holds, so that no device can fill the table with inventions;
//! the hour is the hub's, for a device's clock may be anywhere. Limits: [`KEPT_HOURS`], then swept,
//! some rows with each row that is added; a row has some hundred bytes, a device 24 of them a day.

use fleetloop_protocol::sketch::Sketch;
use fleetloop_protocol::telemetry::Telemetry;
use fleetloop_protocol::{BundleDigest, DeviceId, Digest, UnixMillis};
use rusqlite::{Connection, OptionalExtension as _, Row, Transaction, params};

use super::{StoreError, as_sql, devices, digest_at, from_sql, ingest};

/// How long an hour's sketch is kept: 90 days.
pub const KEPT_HOURS: u64 = 90 * 24;

/// How long a model's first frames are gathered, longer while they are too few.
pub const FIRST_HOURS: u64 = 24;

/// The fewest first frames.
pub const FIRST_FRAMES: u64 = 1000;

/// Windows remembered of a device. What is delivered again was under way when the connection broke,
/// and no more than the broker's 16 messages are.
const WINDOWS: i64 = 32;

/// Rows swept with each that is added: more than one, so that a long stop is caught up with, and few
/// enough that the writer does not stand still.
const SWEPT_AT_ONCE: i64 = 256;

const HOUR_MS: u64 = 3_600_000;

/// The hour of a time.
pub const fn hour(at: UnixMillis) -> u64 {
    at.0 / HOUR_MS
}

/// Takes a verified window in: the device's last telemetry, and its sketch. False when it came
/// before.
///
/// # Errors
/// The database failed.
pub fn take(
    tx: &Transaction<'_>,
    device: &DeviceId,
    window: Digest,
    telemetry: &Telemetry,
    now: UnixMillis,
) -> Result<bool, StoreError> {
    if !ingest::is_enrolled(tx, device)? || !is_new(tx, device, window)? {
        return Ok(false);
    }
    devices::set_telemetry(tx, device, telemetry, now)?;
    let held = match telemetry.model {
        Some(model) if is_held(tx, model)? => model,
        _ => return Ok(true),
    };
    if telemetry.sketch.frames() > 0 {
        add(tx, device, held, &telemetry.sketch, hour(now))?;
        add_first(tx, held, &telemetry.sketch, hour(now))?;
    }
    Ok(true)
}

fn is_new(tx: &Transaction<'_>, device: &DeviceId, window: Digest) -> Result<bool, StoreError> {
    let added = tx
        .prepare_cached(
            "INSERT INTO telemetry_window (device, digest) VALUES (?1, ?2)
             ON CONFLICT (device, digest) DO NOTHING",
        )?
        .execute(params![device.as_str(), window.as_bytes()])?;
    tx.prepare_cached(
        "DELETE FROM telemetry_window WHERE device = ?1 AND id <= (SELECT id FROM telemetry_window
             WHERE device = ?1 ORDER BY id DESC LIMIT 1 OFFSET ?2)",
    )?
    .execute(params![device.as_str(), WINDOWS])?;
    Ok(added == 1)
}

fn is_held(connection: &Connection, model: BundleDigest) -> Result<bool, StoreError> {
    let mut statement = connection.prepare_cached("SELECT 1 FROM model WHERE bundle = ?1")?;
    Ok(statement.exists([model.0.as_bytes()])?)
}

fn add(
    tx: &Transaction<'_>,
    device: &DeviceId,
    model: BundleDigest,
    window: &Sketch,
    hour: u64,
) -> Result<(), StoreError> {
    let known: Option<(i64, Sketch)> = tx
        .prepare_cached(
            "SELECT id, sketch FROM sketch WHERE hour = ?1 AND device = ?2 AND model = ?3",
        )?
        .query_row(params![as_sql(hour), device.as_str(), model.0.as_bytes()], |row| {
            Ok((row.get(0)?, sketch_at(row, 1)?))
        })
        .optional()?;
    if let Some((id, mut sketch)) = known {
        sketch.merge(window);
        tx.prepare_cached("UPDATE sketch SET sketch = ?2 WHERE id = ?1")?
            .execute(params![id, json(&sketch)?])?;
        return Ok(());
    }
    tx.prepare_cached("INSERT INTO sketch (hour, device, model, sketch) VALUES (?1, ?2, ?3, ?4)")?
        .execute(params![as_sql(hour), device.as_str(), model.0.as_bytes(), json(window)?])?;
    tx.prepare_cached(
        "DELETE FROM sketch WHERE id IN (SELECT id FROM sketch WHERE hour <= ?1 LIMIT ?2)",
    )?
    .execute(params![as_sql(hour.saturating_sub(KEPT_HOURS)), SWEPT_AT_ONCE])?;
    Ok(())
}

/// What a model met first.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct First {
    /// The hour of the first frame.
    from_hour: u64,
    /// The last hour that was added.
    pub to_hour: u64,
    /// The frames, of all devices.
    pub sketch: Sketch,
}

impl First {
    /// Whether nothing is added any more at that hour.
    pub fn is_complete(&self, hour: u64) -> bool {
        hour >= self.from_hour + FIRST_HOURS && self.sketch.frames() >= FIRST_FRAMES
    }
}

fn add_first(
    tx: &Transaction<'_>,
    model: BundleDigest,
    window: &Sketch,
    hour: u64,
) -> Result<(), StoreError> {
    let mut first = match first(tx, model)? {
        Some(first) if first.is_complete(hour) => return Ok(()),
        Some(first) => first,
        None => First { from_hour: hour, to_hour: hour, sketch: Sketch::default() },
    };
    first.sketch.merge(window);
    tx.prepare_cached(
        "INSERT INTO sketch_first (model, from_hour, to_hour, frames, sketch)
         VALUES (?1, ?2, ?3, ?4, ?5)
         ON CONFLICT (model) DO UPDATE SET to_hour = ?3, frames = ?4, sketch = ?5",
    )?
    .execute(params![
        model.0.as_bytes(),
        as_sql(first.from_hour),
        as_sql(hour),
        as_sql(first.sketch.frames()),
        json(&first.sketch)?
    ])?;
    Ok(())
}

/// What `model` met first; none when it met nothing yet.
///
/// # Errors
/// The database failed.
pub fn first(connection: &Connection, model: BundleDigest) -> Result<Option<First>, StoreError> {
    let found = connection
        .prepare_cached("SELECT from_hour, to_hour, sketch FROM sketch_first WHERE model = ?1")?
        .query_row([model.0.as_bytes()], |row| {
            Ok(First {
                from_hour: from_sql(row.get(0)?),
                to_hour: from_sql(row.get(1)?),
                sketch: sketch_at(row, 2)?,
            })
        });
    Ok(found.optional()?)
}

/// The sketches that are asked for.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Filter {
    /// Of that device only.
    pub device: Option<DeviceId>,
    /// Of that model only.
    pub model: Option<BundleDigest>,
    /// Of hours after this one.
    pub after_hour: u64,
}

/// One row.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SketchRow {
    /// The model.
    pub model: BundleDigest,
    /// The device.
    pub device: DeviceId,
    /// The hour.
    pub hour: u64,
    /// What was counted.
    pub sketch: Sketch,
}

/// Hands every row that `filter` lets pass to `take`, in no order.
///
/// # Errors
/// The database failed.
pub fn each(
    connection: &Connection,
    filter: &Filter,
    mut take: impl FnMut(SketchRow),
) -> Result<(), StoreError> {
    // Each form has its index: one device over long, or all over short.
    let sql = match filter.device {
        Some(_) => {
            "SELECT model, device, hour, sketch FROM sketch
             WHERE device = ?1 AND hour > ?2 AND (?3 IS NULL OR model = ?3)"
        }
        None => {
            "SELECT model, device, hour, sketch FROM sketch
             WHERE ?1 IS NULL AND hour > ?2 AND (?3 IS NULL OR model = ?3)"
        }
    };
    let mut statement = connection.prepare_cached(sql)?;
    let mut rows = statement.query(params![
        filter.device.as_ref().map(DeviceId::as_str),
        as_sql(filter.after_hour),
        filter.model.map(|model| *model.0.as_bytes())
    ])?;
    while let Some(row) = rows.next()? {
        let device: String = row.get(1)?;
        let device =
            device.parse().map_err(|_| StoreError::damaged(format_args!("device {device:?}")))?;
        let model = BundleDigest(digest_at(row, 0)?);
        take(SketchRow { model, device, hour: from_sql(row.get(2)?), sketch: sketch_at(row, 3)? });
    }
    Ok(())
}

/// A sketch of an older build that no longer fits is as good as an empty one.
fn sketch_at(row: &Row<'_>, column: usize) -> rusqlite::Result<Sketch> {
    let text: String = row.get(column)?;
    Ok(serde_json::from_str(&text).unwrap_or_default())
}

fn json(sketch: &Sketch) -> Result<String, StoreError> {
    serde_json::to_string(sketch).map_err(StoreError::damaged)
}
