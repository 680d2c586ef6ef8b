//! Sketches by device, model and hour, and what each model met first.
//!
//! Invariants: a window counts once however often it is delivered; what is counted is of an enrolled
//! device and of a model that the hub holds, so that no device can fill the table with inventions, and
//! can be true ([`implausible`]), so that no device can outweigh the others with them; the hour is the hub's, for a device's clock may be anywhere. Limits: [`KEPT_HOURS`], then swept,
//! some rows with each row that is added; a row has some hundred bytes, a device 24 of them a day.

use fleetloop_protocol::sketch::Sketch;
use fleetloop_protocol::telemetry::Telemetry;
use fleetloop_protocol::{BundleDigest, DeviceId, Digest, UnixMillis};
use rusqlite::types::Type;
use rusqlite::{Connection, OptionalExtension as _, Row, Transaction, params};

use super::findings::{self, Kind, NewFinding};
use super::{StoreError, as_sql, chain, devices, digest_at, from_sql, ingest, registry};
use crate::plausible::{SECONDS_AN_HOUR, implausible};

/// How long an hour's sketch is kept: 90 days.
pub const KEPT_HOURS: u64 = 90 * 24;

/// How long a model's first frames are gathered, longer while they are too few.
pub const FIRST_HOURS: u64 = 24;

/// The fewest first frames.
pub const FIRST_FRAMES: u64 = 1000;

/// The most frames a second of a window that count among the first.
const FIRST_RATE_HZ: u64 = 10;

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
    let Some(model) = telemetry.model else { return Ok(true) };
    let labels = registry::labels(tx, model)?;
    let found = |kind, subject: &str, detail: &str| {
        findings::record(tx, &NewFinding { kind, device: Some(device), subject, detail, at: now })
    };
    if let Some(why) = implausible(telemetry, labels) {
        found(Kind::TelemetryImpossible, "window", &why)?;
        return Ok(true);
    }
    if labels.is_none() {
        chain::model(tx, device, model, None, now)?;
    } else if telemetry.sketch.frames() > 0 {
        if add(tx, device, model, telemetry, hour(now))? {
            add_first(tx, model, telemetry, hour(now))?;
        } else {
            let why = format!("over {SECONDS_AN_HOUR} seconds of windows within one hour");
            found(Kind::TelemetryImpossible, "hour", &why)?;
        }
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

/// Adds a window to its hour. False when the hour holds as many seconds as it can: the window is left
/// out then.
fn add(
    tx: &Transaction<'_>,
    device: &DeviceId,
    model: BundleDigest,
    telemetry: &Telemetry,
    hour: u64,
) -> Result<bool, StoreError> {
    let (window, window_s) = (&telemetry.sketch, u64::from(telemetry.window_s));
    let known: Option<(i64, u64, Sketch)> = tx
        .prepare_cached(
            "SELECT id, seconds, sketch FROM sketch WHERE hour = ?1 AND device = ?2 AND model = ?3",
        )?
        .query_row(params![as_sql(hour), device.as_str(), model.0.as_bytes()], |row| {
            Ok((row.get(0)?, from_sql(row.get(1)?), sketch_at(row, 2)?))
        })
        .optional()?;
    if let Some((id, seconds, mut sketch)) = known {
        // A window of no whole second takes one: there are 3,600 in an hour, however it is cut.
        let seconds = seconds + window_s.max(1);
        if seconds > SECONDS_AN_HOUR {
            return Ok(false);
        }
        sketch.merge(window);
        tx.prepare_cached("UPDATE sketch SET seconds = ?2, sketch = ?3 WHERE id = ?1")?
            .execute(params![id, as_sql(seconds), json(&sketch)?])?;
        return Ok(true);
    }
    // One window may be as long as a device reports seldom: a day.
    tx.prepare_cached(
        "INSERT INTO sketch (hour, device, model, seconds, sketch) VALUES (?1, ?2, ?3, ?4, ?5)",
    )?
    .execute(params![
        as_sql(hour),
        device.as_str(),
        model.0.as_bytes(),
        as_sql(window_s.max(1)),
        json(window)?
    ])?;
    tx.prepare_cached(
        "DELETE FROM sketch WHERE id IN (SELECT id FROM sketch WHERE hour <= ?1 LIMIT ?2)",
    )?
    .execute(params![as_sql(hour.saturating_sub(KEPT_HOURS)), SWEPT_AT_ONCE])?;
    Ok(true)
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

/// Adds a window to what its model met first, as if it had at most [`FIRST_RATE_HZ`]: which device
/// answers faster must not decide what all are compared with.
fn add_first(
    tx: &Transaction<'_>,
    model: BundleDigest,
    telemetry: &Telemetry,
    hour: u64,
) -> Result<(), StoreError> {
    let most = u64::from(telemetry.window_s.max(1)).saturating_mul(FIRST_RATE_HZ);
    let window = telemetry.sketch.at_most(most);
    let mut first = match first(tx, model)? {
        Some(first) if first.is_complete(hour) => return Ok(()),
        Some(first) => first,
        None => First { from_hour: hour, to_hour: hour, sketch: Sketch::default() },
    };
    first.sketch.merge(&window);
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

fn sketch_at(row: &Row<'_>, column: usize) -> rusqlite::Result<Sketch> {
    let text: String = row.get(column)?;
    serde_json::from_str(&text).map_err(|error| {
        rusqlite::Error::FromSqlConversionFailure(column, Type::Text, Box::new(error))
    })
}

fn json(sketch: &Sketch) -> Result<String, StoreError> {
    serde_json::to_string(sketch).map_err(StoreError::damaged)
}
