//! The last order of each device.

use fleetloop_protocol::state::{Assignment, Desired, Reported};
use fleetloop_protocol::{BundleDigest, DeviceId, Generation, UnixMillis};
use rusqlite::{Connection, OptionalExtension as _, Row, Transaction, params};

use super::{StoreError, as_sql, digest_at, from_sql};
use crate::rollout::machine::is_believable;

/// An order as kept; signing it makes a `Desired`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DesiredRow {
    /// Its place among all orders for the device.
    pub generation: Generation,
    /// What to run; none leaves the device as it is.
    pub assignment: Option<Assignment>,
    /// When it was given.
    pub at: UnixMillis,
}

impl DesiredRow {
    /// As the device is told.
    pub fn to_desired(&self) -> Desired {
        Desired { generation: self.generation, at: self.at, assignment: self.assignment.clone() }
    }
}

/// What `device` shall run, ready to be signed; none if it was never told anything.
///
/// # Errors
/// The database failed.
pub fn current(connection: &Connection, device: &DeviceId) -> Result<Option<Desired>, StoreError> {
    Ok(get(connection, device)?.map(|row| row.to_desired()))
}

/// The last order of `device`; none if it never got one.
///
/// # Errors
/// The database failed.
pub fn get(connection: &Connection, device: &DeviceId) -> Result<Option<DesiredRow>, StoreError> {
    let mut statement = connection.prepare_cached(
        "SELECT generation, bundle, target, at_ms FROM desired WHERE device = ?1",
    )?;
    Ok(statement.query_row([device.as_str()], row).optional()?)
}

fn row(row: &Row<'_>) -> rusqlite::Result<DesiredRow> {
    let assignment = match row.get::<_, Option<String>>(2)? {
        None => None,
        Some(target) => Some(Assignment { target, bundle: BundleDigest(digest_at(row, 1)?) }),
    };
    Ok(DesiredRow {
        generation: Generation(from_sql(row.get(0)?)),
        assignment,
        at: UnixMillis(from_sql(row.get(3)?)),
    })
}

/// The generation that the next order must exceed. A device may be ahead of a hub that was restored
/// from an older backup, and never listens to an order below the last it has seen.
pub fn highest(row: Option<&DesiredRow>, reported: Option<&Reported>) -> Generation {
    let ours = row.map_or(0, |row| row.generation.0);
    let theirs = reported.map(|r| r.generation).filter(|g| is_believable(*g));
    Generation(ours.max(theirs.map_or(0, |generation| generation.0)))
}

/// Gives `device` its next order. Its generation must exceed the last, so that two who decided
/// from the same state cannot both be heard.
///
/// # Errors
/// [`StoreError::Conflict`] when another order came between.
pub fn give(tx: &Transaction<'_>, device: &DeviceId, order: &DesiredRow) -> Result<(), StoreError> {
    let last = get(tx, device)?.map_or(0, |row| row.generation.0);
    if order.generation.0 <= last {
        return Err(StoreError::Conflict {
            what: format!(
                "cannot give device {device} order {}: its last one is {last}; decide again",
                order.generation.0
            ),
        });
    }
    let (bundle, target) = match &order.assignment {
        Some(assignment) => {
            (Some(*assignment.bundle.0.as_bytes()), Some(assignment.target.as_str()))
        }
        None => (None, None),
    };
    tx.prepare_cached(
        "INSERT INTO desired (device, generation, bundle, target, at_ms)
         VALUES (?1, ?2, ?3, ?4, ?5)
         ON CONFLICT (device) DO UPDATE SET generation = ?2, bundle = ?3, target = ?4, at_ms = ?5",
    )?
    .execute(params![
        device.as_str(),
        as_sql(order.generation.0),
        bundle,
        target,
        as_sql(order.at.0)
    ])?;
    Ok(())
}
