//! Declared gaps: what a device evicted, refused or lost, so that silence is never mistaken.

use serde::{Deserialize, Serialize};

use crate::digest::Digest;
use crate::ids::{DeviceId, Epoch, Sequence};
use crate::limits::SIGNED_BODY_BYTES;
use crate::signed::{Purpose, Signable};
use crate::v1;
use crate::wire::{Invalid, Wire};

/// Why samples will never arrive.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum GapReason {
    /// The outbox was at its limit and these were the least informative.
    OutboxFull,
    /// The hub refused them for good; they lie in the device's dead-letter table.
    Refused,
    /// Their rows were damaged on the device's disk.
    Damaged,
}

/// A run of sequences, both ends included, that will never arrive.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Gap {
    /// Whose.
    pub device: DeviceId,
    /// Of which life of its outbox.
    pub epoch: Epoch,
    /// The first sequence missing.
    pub from: Sequence,
    /// The last sequence missing.
    pub to: Sequence,
    /// What the first missing header named as `previous`.
    pub before: Digest,
    /// The body digest of the last missing header, which the next one names as `previous`.
    pub after: Digest,
    /// Why.
    pub reason: GapReason,
}

impl Signable for Gap {
    const PURPOSE: Purpose = Purpose::Gap;
}

impl Wire for Gap {
    type Frozen = v1::Gap;
    const NAME: &'static str = "gap";
    const LIMIT_BYTES: usize = SIGNED_BODY_BYTES;

    fn freeze(&self, _reads: u8) -> Option<v1::Gap> {
        Some(v1::Gap {
            device: self.device.as_str().to_owned(),
            epoch: self.epoch.0,
            from: self.from.0,
            to: self.to.0,
            before: *self.before.as_bytes(),
            after: *self.after.as_bytes(),
            reason: match self.reason {
                GapReason::OutboxFull => v1::GapReason::OutboxFull,
                GapReason::Refused => v1::GapReason::Refused,
                GapReason::Damaged => v1::GapReason::Damaged,
            },
        })
    }

    fn thaw(wire: v1::Gap) -> Result<Self, Invalid> {
        if wire.from > wire.to {
            return Err(Invalid(format!("from {} is after to {}", wire.from, wire.to)));
        }
        Ok(Self {
            device: wire.device.parse().map_err(Invalid::because)?,
            epoch: Epoch(wire.epoch),
            from: Sequence(wire.from),
            to: Sequence(wire.to),
            before: Digest::from_bytes(wire.before),
            after: Digest::from_bytes(wire.after),
            reason: match wire.reason {
                v1::GapReason::OutboxFull => GapReason::OutboxFull,
                v1::GapReason::Refused => GapReason::Refused,
                v1::GapReason::Damaged => GapReason::Damaged,
            },
        })
    }
}
