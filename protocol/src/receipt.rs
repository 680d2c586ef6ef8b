//! What the hub answers: stored (a receipt), or not and why (a refusal). Nothing else lets a
//! device forget a sample.

use serde::{Deserialize, Serialize};

use crate::digest::Digest;
use crate::form;
use crate::ids::{Epoch, SampleId, Sequence};
use crate::limits::{SIGNED_BODY_BYTES, shorten};
use crate::sample::{sample_id_from_form, sample_id_to_form};
use crate::signed::{Purpose, Signable, VerifyError};
use crate::time::UnixMillis;
use crate::wire::{DecodeError, Invalid, Wire};

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
    /// Of a version that the hub does not read, or with a payload of a media type that it does not
    /// know: written by a newer build.
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
    PayloadMissing,
    /// The payload is not a whole picture of the header's media type, or over a picture's limits.
    Content,
}

impl RefusalReason {
    /// Whether sending the same bytes again can never help.
    pub const fn is_permanent(self) -> bool {
        match self {
            Self::Malformed
            | Self::TooLarge
            | Self::NotTrusted
            | Self::Conflict
            | Self::Content => true,
            // A newer hub reads a newer version, and knows more media types.
            Self::UnknownVersion | Self::StorageFull | Self::Busy | Self::PayloadMissing => false,
        }
    }
}

impl From<&VerifyError> for RefusalReason {
    fn from(error: &VerifyError) -> Self {
        match error {
            VerifyError::Decode(
                DecodeError::UnknownVersion { .. } | DecodeError::Unknown { .. },
            ) => Self::UnknownVersion,
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
    type Form = form::Receipt;
    const NAME: &'static str = "receipt";
    const LIMIT_BYTES: usize = SIGNED_BODY_BYTES;

    fn to_form(&self) -> form::Receipt {
        form::Receipt {
            subject: match &self.subject {
                Subject::Sample(id) => form::Subject::Sample(sample_id_to_form(id)),
                Subject::Gap { epoch, from, to } => {
                    form::Subject::Gap { epoch: epoch.0, from: from.0, to: to.0 }
                }
            },
            digest: *self.digest.as_bytes(),
            stored_at_ms: self.stored_at.0,
        }
    }

    fn from_form(form: form::Receipt) -> Result<Self, Invalid> {
        Ok(Self {
            subject: match &form.subject {
                form::Subject::Sample(id) => Subject::Sample(sample_id_from_form(id)?),
                form::Subject::Gap { epoch, from, to } => {
                    Subject::Gap { epoch: Epoch(*epoch), from: Sequence(*from), to: Sequence(*to) }
                }
            },
            digest: Digest::from_bytes(form.digest),
            stored_at: UnixMillis(form.stored_at_ms),
        })
    }
}

impl Signable for Refusal {
    const PURPOSE: Purpose = Purpose::Refusal;
}

impl Wire for Refusal {
    type Form = form::Refusal;
    const NAME: &'static str = "refusal";
    const LIMIT_BYTES: usize = SIGNED_BODY_BYTES;

    fn to_form(&self) -> form::Refusal {
        form::Refusal {
            message: *self.message.as_bytes(),
            reason: match self.reason {
                RefusalReason::Malformed => form::RefusalReason::Malformed,
                RefusalReason::UnknownVersion => form::RefusalReason::UnknownVersion,
                RefusalReason::TooLarge => form::RefusalReason::TooLarge,
                RefusalReason::NotTrusted => form::RefusalReason::NotTrusted,
                RefusalReason::Conflict => form::RefusalReason::Conflict,
                RefusalReason::StorageFull => form::RefusalReason::StorageFull,
                RefusalReason::Busy => form::RefusalReason::Busy,
                RefusalReason::PayloadMissing => form::RefusalReason::PayloadMissing,
                RefusalReason::Content => form::RefusalReason::Content,
            },
            detail: self.detail.clone(),
            retry_after_s: self.retry_after_s,
        }
    }

    fn from_form(form: form::Refusal) -> Result<Self, Invalid> {
        let reason = match form.reason {
            form::RefusalReason::Malformed => RefusalReason::Malformed,
            form::RefusalReason::UnknownVersion => RefusalReason::UnknownVersion,
            form::RefusalReason::TooLarge => RefusalReason::TooLarge,
            form::RefusalReason::NotTrusted => RefusalReason::NotTrusted,
            form::RefusalReason::Conflict => RefusalReason::Conflict,
            form::RefusalReason::StorageFull => RefusalReason::StorageFull,
            form::RefusalReason::Busy => RefusalReason::Busy,
            form::RefusalReason::PayloadMissing => RefusalReason::PayloadMissing,
            form::RefusalReason::Content => RefusalReason::Content,
        };
        if reason.is_permanent() != form.retry_after_s.is_none() {
            return Err(Invalid(format!("{reason:?} with retry {:?}", form.retry_after_s)));
        }
        Ok(Self {
            message: Digest::from_bytes(form.message),
            reason,
            detail: form.detail,
            retry_after_s: form.retry_after_s,
        })
    }
}
