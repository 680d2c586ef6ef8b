//! A device takes another's place.
//!
//! The token of a replacement names the old device. When the new one enrols, in the same
//! transaction: it gets the old one's last order under the same generation, its place in the
//! rollout under way (what the old one proved, the new one has yet to prove), and the old one is
//! revoked. Each names the other. What the old one sent stays the old one's, for its samples say
//! who took them; nothing is copied. A device is replaced once; a revoked one (stolen, broken) can
//! be.

use fleetloop_protocol::{DeviceId, UnixMillis};
use rusqlite::{Connection, Transaction};

use super::{StoreError, audit, desired, devices, rollouts};
use crate::rollout::machine::{Event, step};

/// Refuses a device whose place is taken.
///
/// # Errors
/// [`StoreError::Conflict`] names who took it; [`StoreError::NotFound`] when there is none of that
/// id.
pub fn refuse_replaced(connection: &Connection, old: &DeviceId) -> Result<(), StoreError> {
    match devices::get(connection, old)?.replaced_by {
        None => Ok(()),
        Some(by) => Err(StoreError::Conflict {
            what: format!("cannot replace device {old}: {by} has taken its place; replace that"),
        }),
    }
}

/// Hands the place of `old` to `new`, which was added in this transaction and names it. Whoever
/// commits this then tells [`crate::HubEvent::DeviceRevoked`] of the old one.
///
/// # Errors
/// The database failed.
pub(super) fn take_over(
    tx: &Transaction<'_>,
    old: &DeviceId,
    new: &DeviceId,
    now: UnixMillis,
) -> Result<(), StoreError> {
    if let Some(order) = desired::get(tx, old)? {
        desired::give(tx, new, &order)?;
    }
    if let Some(active) = rollouts::active(tx)? {
        let event = Event::DeviceReplaced { device: old.clone(), by: new.clone() };
        let (next, effects) = step(&active.state, &event, now);
        rollouts::save(tx, active.id, &next, &effects)?;
    }
    devices::revoke(tx, old, new.as_str(), now)?;
    audit(tx, new.as_str(), "device.replace", old.as_str(), &format!("by {new}"))
}
