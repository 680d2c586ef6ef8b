//! Samples: a signed header, and beside it a payload and its salt.
//!
//! A payload up to [`INLINE_PAYLOAD_BYTES`] travels in the message. A larger one, up to
//! [`PAYLOAD_BYTES`], is uploaded to the hub over HTTPS under its commitment first; the message
//! then says that it was.
//!
//! The header names `SHA-256(salt ‖ payload)`; payload and salt can be erased together while the
//! header stays provable and says nothing of what was erased. Headers form a chain per epoch:
//! `previous` is the body digest of the header before, [`Digest::ZERO`] before the first. Samples
//! arrive in any order, so the chain tells what is missing and is no condition of acceptance.

use serde::{Deserialize, Serialize};

use crate::digest::Digest;
use crate::form;
use crate::ids::{BundleDigest, DeviceId, Epoch, SampleId, Sequence};
use crate::keys::KeyRing;
use crate::limits::{
    HEADER_PREDICTIONS, INLINE_PAYLOAD_BYTES, MESSAGE_BYTES, PAYLOAD_BYTES, SIGNED_BODY_BYTES,
};
use crate::signed::{Purpose, Signable, Signed, Verified, VerifyError};
use crate::time::{ClockState, UnixMillis};
use crate::wire::{self, Invalid, Wire};

/// How a payload is encoded.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum MediaType {
    /// A picture, losslessly: the frame that inference saw, bit for bit.
    #[serde(rename = "image/png")]
    Png,
    /// A picture from a camera that delivers JPEG; inference saw it decoded.
    #[serde(rename = "image/jpeg")]
    Jpeg,
}

impl MediaType {
    /// The IANA name.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Png => "image/png",
            Self::Jpeg => "image/jpeg",
        }
    }

    /// The media type of that IANA name.
    ///
    /// # Errors
    /// [`Invalid`] when the name is not one of ours.
    pub fn from_name(name: &str) -> Result<Self, Invalid> {
        match name {
            "image/png" => Ok(Self::Png),
            "image/jpeg" => Ok(Self::Jpeg),
            other => Err(Invalid(format!("media type {other:?} is not known"))),
        }
    }
}

/// Why a frame was worth sending.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", tag = "kind")]
pub enum Selection {
    /// The model was unsure: normalised entropy of its output, 0 (sure) to 1 (no idea).
    Uncertain {
        /// The score.
        score: f32,
    },
    /// Drawn at random, so that what the model is sure of is seen too.
    Random {
        /// The share of frames that is drawn, 0 to 1.
        rate: f32,
    },
}

/// One class and how probable the model held it.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Prediction {
    /// Index into the bundle's labels.
    pub class: u16,
    /// 0 to 1.
    pub probability: f32,
}

/// What a device says of a sample, and signs.
#[derive(Debug, Clone, PartialEq)]
pub struct SampleHeader {
    /// Which sample it is.
    pub id: SampleId,
    /// The body digest of the header before it in its epoch.
    pub previous: Digest,
    /// When the frame was taken.
    pub captured_at: UnixMillis,
    /// Whether that time can be relied on.
    pub clock: ClockState,
    /// The model that saw it.
    pub model: BundleDigest,
    /// The digest of the agent's configuration.
    pub config: Digest,
    /// How the payload is encoded.
    pub media_type: MediaType,
    /// The payload's length in bytes.
    pub payload_len: u32,
    /// `SHA-256(salt ‖ payload)`.
    pub commitment: Digest,
    /// Why it was chosen.
    pub selection: Selection,
    /// What the model made of it, the most probable first, at most [`HEADER_PREDICTIONS`].
    pub predictions: Vec<Prediction>,
}

/// `SHA-256(salt ‖ payload)`, what a header says of its payload.
pub fn commitment(salt: &[u8; 16], payload: &[u8]) -> Digest {
    Digest::of_parts(&[salt, payload])
}

/// The frame after privacy masks and before preprocessing, or where it is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Payload {
    /// Here.
    Inline(Vec<u8>),
    /// At the hub already, uploaded under the header's commitment.
    Uploaded,
}

impl Payload {
    /// The bytes, if they are here.
    pub fn inline(&self) -> Option<&[u8]> {
        match self {
            Self::Inline(bytes) => Some(bytes),
            Self::Uploaded => None,
        }
    }
}

/// A sample as it travels: the signed header's envelope, the salt and the payload.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SampleMessage {
    /// The envelope of the [`SampleHeader`].
    pub envelope: Vec<u8>,
    /// The salt of the commitment.
    pub salt: [u8; 16],
    /// The payload, or that it was uploaded.
    pub payload: Payload,
}

impl SampleMessage {
    /// The message of a signed header and its payload.
    pub fn new(header: Signed<SampleHeader>, salt: [u8; 16], payload: Payload) -> Self {
        Self { envelope: header.into_bytes(), salt, payload }
    }
}

/// A sample whose header is verified and whose payload, if it is here, is the one the header names.
#[derive(Debug, Clone)]
pub struct VerifiedSample {
    header: Verified<SampleHeader>,
    salt: [u8; 16],
    payload: Payload,
}

impl VerifiedSample {
    /// Verifies the bytes of a [`SampleMessage`] that came from `device`.
    ///
    /// # Errors
    /// [`VerifyError`] names the first check that failed.
    pub fn open(bytes: &[u8], device: &DeviceId, keys: &KeyRing) -> Result<Self, VerifyError> {
        let message: SampleMessage = wire::decode(bytes)?;
        let header = Verified::<SampleHeader>::open(&message.envelope, device, keys)?;
        let named = header.get();
        if named.id.device != *device {
            return Err(VerifyError::Device {
                name: SampleHeader::NAME,
                found: named.id.device.clone(),
                expected: device.clone(),
            });
        }
        let len = named.payload_len as usize;
        let fits = match &message.payload {
            Payload::Inline(bytes) => {
                len == bytes.len() && named.commitment == commitment(&message.salt, bytes)
            }
            Payload::Uploaded => len <= PAYLOAD_BYTES,
        };
        if !fits {
            return Err(VerifyError::Payload);
        }
        Ok(Self { header, salt: message.salt, payload: message.payload })
    }

    /// The header.
    pub fn header(&self) -> &Verified<SampleHeader> {
        &self.header
    }

    /// The salt of the commitment.
    pub fn salt(&self) -> &[u8; 16] {
        &self.salt
    }

    /// The payload. Whoever has an uploaded one compares it with the header's commitment and
    /// length.
    pub fn payload(&self) -> &Payload {
        &self.payload
    }
}

impl Wire for SampleMessage {
    type Form = form::SampleMessage;
    const NAME: &'static str = "sample";
    const LIMIT_BYTES: usize = MESSAGE_BYTES;

    fn to_form(&self) -> form::SampleMessage {
        form::SampleMessage {
            envelope: self.envelope.clone(),
            salt: self.salt,
            payload: match &self.payload {
                Payload::Inline(bytes) => form::Payload::Inline(bytes.clone()),
                Payload::Uploaded => form::Payload::Uploaded,
            },
        }
    }

    fn from_form(form: form::SampleMessage) -> Result<Self, Invalid> {
        let payload = match form.payload {
            form::Payload::Inline(bytes) => {
                let len = bytes.len();
                if len > INLINE_PAYLOAD_BYTES {
                    let limit = INLINE_PAYLOAD_BYTES;
                    return Err(Invalid(format!("payload of {len} bytes, the limit is {limit}")));
                }
                Payload::Inline(bytes)
            }
            form::Payload::Uploaded => Payload::Uploaded,
        };
        Ok(Self { envelope: form.envelope, salt: form.salt, payload })
    }
}

impl Signable for SampleHeader {
    const PURPOSE: Purpose = Purpose::SampleHeader;
}

impl Wire for SampleHeader {
    type Form = form::SampleHeader;
    const NAME: &'static str = "sample header";
    const LIMIT_BYTES: usize = SIGNED_BODY_BYTES;

    fn to_form(&self) -> form::SampleHeader {
        form::SampleHeader {
            id: sample_id_to_form(&self.id),
            previous: *self.previous.as_bytes(),
            captured_at_ms: self.captured_at.0,
            clock_synced: self.clock == ClockState::Synced,
            model: *self.model.0.as_bytes(),
            config: *self.config.as_bytes(),
            media_type: self.media_type.as_str().to_owned(),
            payload_len: self.payload_len,
            commitment: *self.commitment.as_bytes(),
            selection: match self.selection {
                Selection::Uncertain { score } => form::Selection::Uncertain { score },
                Selection::Random { rate } => form::Selection::Random { rate },
            },
            predictions: self
                .predictions
                .iter()
                .map(|p| form::Prediction { class: p.class, probability: p.probability })
                .collect(),
        }
    }

    fn unknown(form: &form::SampleHeader) -> Option<String> {
        MediaType::from_name(&form.media_type).err().map(|invalid| invalid.0)
    }

    fn from_form(form: form::SampleHeader) -> Result<Self, Invalid> {
        if form.predictions.len() > HEADER_PREDICTIONS {
            return Err(Invalid(format!("{} predictions", form.predictions.len())));
        }
        Ok(Self {
            id: sample_id_from_form(&form.id)?,
            previous: Digest::from_bytes(form.previous),
            captured_at: UnixMillis(form.captured_at_ms),
            clock: clock_from_form(form.clock_synced),
            model: BundleDigest(Digest::from_bytes(form.model)),
            config: Digest::from_bytes(form.config),
            media_type: MediaType::from_name(&form.media_type)?,
            payload_len: form.payload_len,
            commitment: Digest::from_bytes(form.commitment),
            selection: match form.selection {
                form::Selection::Uncertain { score } => {
                    Selection::Uncertain { score: share("score", score)? }
                }
                form::Selection::Random { rate } => {
                    Selection::Random { rate: share("rate", rate)? }
                }
            },
            predictions: form
                .predictions
                .iter()
                .map(|p| {
                    let probability = share("probability", p.probability)?;
                    Ok(Prediction { class: p.class, probability })
                })
                .collect::<Result<_, Invalid>>()?,
        })
    }
}

/// A number from 0 to 1; NaN is none.
fn share(name: &str, value: f32) -> Result<f32, Invalid> {
    // Rounding in a softmax may leave a hair above 1.
    if (0.0..=1.0001).contains(&value) {
        Ok(value.min(1.0))
    } else {
        Err(Invalid(format!("{name} {value} is not between 0 and 1")))
    }
}

pub(crate) fn clock_from_form(synced: bool) -> ClockState {
    if synced { ClockState::Synced } else { ClockState::Unsynced }
}

pub(crate) fn sample_id_to_form(id: &SampleId) -> form::SampleId {
    form::SampleId {
        device: id.device.as_str().to_owned(),
        epoch: id.epoch.0,
        sequence: id.sequence.0,
    }
}

pub(crate) fn sample_id_from_form(form: &form::SampleId) -> Result<SampleId, Invalid> {
    Ok(SampleId {
        device: form.device.parse().map_err(Invalid::because)?,
        epoch: Epoch(form.epoch),
        sequence: Sequence(form.sequence),
    })
}
