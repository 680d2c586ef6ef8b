//! What the hub answers: stored (a receipt), or not and why (a refusal). Nothing else lets a
//! device forget a sample.

use serde::{Deserialize, Serialize};

use crate::digest::Digest;
use crate::ids::{Epoch, SampleId, Sequence};
use crate::limits::{SIGNED_BODY_BYTES, shorten};
use crate::sample::{sample_id_from_v1, sample_id_to_v1};
use crate::signed::{Purpose, Signable, VerifyError};
use crate::time::UnixMillis;
use crate::wire::{DecodeError, Invalid, Two, Wire};
use crate::{v1, v2};

/// What is stored.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Subject {
    /// A sample.
    Sample(SampleId),
    /// A gap record.
    Gap {
        /// Its epoch.
        epoch: Epoch,
        /// The first sequence missing.
        from: Sequence,
        /// The last sequence missing.
        to: Sequence,
    },
}

/// The hub's promise that the subject is on its disk. The same subject with the same digest gets
/// the same receipt again, byte for byte.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Receipt {
    /// What is stored.
    pub subject: Subject,
    /// The body digest of the header or gap that is stored; the device compares it with its own.
    pub digest: Digest,
    /// When it was stored, by the hub's clock.
    pub stored_at: UnixMillis,
}

/// Why the hub did not accept a message.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum RefusalReason {
    /// Not the encoding of a message, or bytes left over.
    Malformed,
    /// Written by a newer build than the hub's.
    UnknownVersion,
    /// Over the limit.
    TooLarge,
    /// Signature, key, device, purpose or payload do not hold.
    NotTrusted,
    /// The identity is taken by another digest; the message is quarantined and an alarm raised.
    Conflict,
    /// The hub's disk is above its floor.
    StorageFull,
    /// The hub is behind.
    Busy,
    /// The message says that its payload was uploaded, and the hub has no such upload (any more).
    /// Said only to devices that send such messages.
    PayloadMissing,
}

impl RefusalReason {
    /// Whether sending the same bytes again can never help.
    pub const fn is_permanent(self) -> bool {
        match self {
            Self::Malformed | Self::TooLarge | Self::NotTrusted | Self::Conflict => true,
            // A newer hub reads a newer version.
            Self::UnknownVersion | Self::StorageFull | Self::Busy | Self::PayloadMissing => false,
        }
    }
}

impl From<&VerifyError> for RefusalReason {
    fn from(error: &VerifyError) -> Self {
        match error {
            VerifyError::Decode(DecodeError::UnknownVersion { .. }) => Self::UnknownVersion,
            VerifyError::Decode(DecodeError::TooLarge { .. }) => Self::TooLarge,
            VerifyError::Decode(_) => Self::Malformed,
            _ => Self::NotTrusted,
        }
    }
}

/// A message the hub did not store.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refusal {
    /// SHA-256 of the whole message as it arrived, by which the device finds it.
    pub message: Digest,
    /// Why.
    pub reason: RefusalReason,
    /// The same in words, for the device's log.
    pub detail: String,
    /// When to try again, in seconds; none when the refusal is permanent.
    pub retry_after_s: Option<u32>,
}

impl Refusal {
    /// A refusal of the message with that digest; `retry_after_s` is used where retrying can help.
    pub fn new(message: Digest, reason: RefusalReason, detail: &str, retry_after_s: u32) -> Self {
        let retry_after_s = (!reason.is_permanent()).then_some(retry_after_s);
        Self { message, reason, detail: shorten(detail), retry_after_s }
    }
}

impl Signable for Receipt {
    const PURPOSE: Purpose = Purpose::Receipt;
}

impl Wire for Receipt {
    type Frozen = v1::Receipt;
    const NAME: &'static str = "receipt";
    const LIMIT_BYTES: usize = SIGNED_BODY_BYTES;

    fn freeze(&self, _reads: u8) -> Option<v1::Receipt> {
        Some(v1::Receipt {
            subject: match &self.subject {
                Subject::Sample(id) => v1::Subject::Sample(sample_id_to_v1(id)),
                Subject::Gap { epoch, from, to } => {
                    v1::Subject::Gap { epoch: epoch.0, from: from.0, to: to.0 }
                }
            },
            digest: *self.digest.as_bytes(),
            stored_at_ms: self.stored_at.0,
        })
    }

    fn thaw(wire: v1::Receipt) -> Result<Self, Invalid> {
        Ok(Self {
            subject: match &wire.subject {
                v1::Subject::Sample(id) => Subject::Sample(sample_id_from_v1(id)?),
                v1::Subject::Gap { epoch, from, to } => {
                    Subject::Gap { epoch: Epoch(*epoch), from: Sequence(*from), to: Sequence(*to) }
                }
            },
            digest: Digest::from_bytes(wire.digest),
            stored_at: UnixMillis(wire.stored_at_ms),
        })
    }
}

impl Signable for Refusal {
    const PURPOSE: Purpose = Purpose::Refusal;
}

impl Wire for Refusal {
    type Frozen = Two<v1::Refusal, v2::Refusal>;
    const NAME: &'static str = "refusal";
    const LIMIT_BYTES: usize = SIGNED_BODY_BYTES;

    fn freeze(&self, reads: u8) -> Option<Self::Frozen> {
        let (message, detail) = (*self.message.as_bytes(), self.detail.clone());
        let retry_after_s = self.retry_after_s;
        let reason = match self.reason {
            RefusalReason::Malformed => v1::RefusalReason::Malformed,
            RefusalReason::UnknownVersion => v1::RefusalReason::UnknownVersion,
            RefusalReason::TooLarge => v1::RefusalReason::TooLarge,
            RefusalReason::NotTrusted => v1::RefusalReason::NotTrusted,
            RefusalReason::Conflict => v1::RefusalReason::Conflict,
            RefusalReason::StorageFull => v1::RefusalReason::StorageFull,
            RefusalReason::Busy => v1::RefusalReason::Busy,
            RefusalReason::PayloadMissing => {
                let reason = v2::RefusalReason::PayloadMissing;
                let refusal = v2::Refusal { message, reason, detail, retry_after_s };
                return (reads >= 2).then_some(Two::V2(refusal));
            }
        };
        Some(Two::V1(v1::Refusal { message, reason, detail, retry_after_s }))
    }

    fn thaw(frozen: Self::Frozen) -> Result<Self, Invalid> {
        let (message, reason, detail, retry_after_s) = match frozen {
            Two::V1(v1) => (v1.message, v1.reason.into(), v1.detail, v1.retry_after_s),
            Two::V2(v2) => (v2.message, v2.reason.into(), v2.detail, v2.retry_after_s),
        };
        let reason: RefusalReason = reason;
        if reason.is_permanent() != retry_after_s.is_none() {
            return Err(Invalid(format!("{reason:?} with retry {retry_after_s:?}")));
        }
        Ok(Self { message: Digest::from_bytes(message), reason, detail, retry_after_s })
    }
}

impl From<v1::RefusalReason> for RefusalReason {
    fn from(reason: v1::RefusalReason) -> Self {
        match reason {
            v1::RefusalReason::Malformed => Self::Malformed,
            v1::RefusalReason::UnknownVersion => Self::UnknownVersion,
            v1::RefusalReason::TooLarge => Self::TooLarge,
            v1::RefusalReason::NotTrusted => Self::NotTrusted,
            v1::RefusalReason::Conflict => Self::Conflict,
            v1::RefusalReason::StorageFull => Self::StorageFull,
            v1::RefusalReason::Busy => Self::Busy,
        }
    }
}

impl From<v2::RefusalReason> for RefusalReason {
    fn from(reason: v2::RefusalReason) -> Self {
        match reason {
            v2::RefusalReason::Malformed => Self::Malformed,
            v2::RefusalReason::UnknownVersion => Self::UnknownVersion,
            v2::RefusalReason::TooLarge => Self::TooLarge,
            v2::RefusalReason::NotTrusted => Self::NotTrusted,
            v2::RefusalReason::Conflict => Self::Conflict,
            v2::RefusalReason::StorageFull => Self::StorageFull,
            v2::RefusalReason::Busy => Self::Busy,
            v2::RefusalReason::PayloadMissing => Self::PayloadMissing,
        }
    }
}
