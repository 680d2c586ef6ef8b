//! Declared gaps: what a device evicted, refused or lost, so that silence is never mistaken.

use serde::{Deserialize, Serialize};

use crate::digest::Digest;
use crate::form;
use crate::ids::{DeviceId, Epoch, Sequence};
use crate::limits::SIGNED_BODY_BYTES;
use crate::signed::{Purpose, Signable};
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
    type Form = form::Gap;
    const NAME: &'static str = "gap";
    const LIMIT_BYTES: usize = SIGNED_BODY_BYTES;

    fn to_form(&self) -> form::Gap {
        form::Gap {
            device: self.device.as_str().to_owned(),
            epoch: self.epoch.0,
            from: self.from.0,
            to: self.to.0,
            before: *self.before.as_bytes(),
            after: *self.after.as_bytes(),
            reason: match self.reason {
                GapReason::OutboxFull => form::GapReason::OutboxFull,
                GapReason::Refused => form::GapReason::Refused,
                GapReason::Damaged => form::GapReason::Damaged,
            },
        }
    }

    fn from_form(form: form::Gap) -> Result<Self, Invalid> {
        if form.from > form.to {
            return Err(Invalid(format!("from {} is after to {}", form.from, form.to)));
        }
        Ok(Self {
            device: form.device.parse().map_err(Invalid::because)?,
            epoch: Epoch(form.epoch),
            from: Sequence(form.from),
            to: Sequence(form.to),
            before: Digest::from_bytes(form.before),
            after: Digest::from_bytes(form.after),
            reason: match form.reason {
                form::GapReason::OutboxFull => GapReason::OutboxFull,
                form::GapReason::Refused => GapReason::Refused,
                form::GapReason::Damaged => GapReason::Damaged,
            },
        })
    }
}
