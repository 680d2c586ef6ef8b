//! `Signed<T>` → `Verified<T>`: the one place where bytes from outside become trusted.
//!
//! An envelope is (purpose, device, key id, body, signature). The signature (Ed25519, RFC 8032) is
//! over `"fleetloop" ‖ version ‖ purpose ‖ length of device ‖ device ‖ key id ‖ body`, so a
//! body cannot be replayed for another purpose, device, key or version. The body begins with its own
//! version byte, which is signed with it. `device` is the device that speaks or, in a hub's message,
//! the one that is spoken to. What is verified is the body as received: it is decoded only
//! afterwards, and never encoded again.

use std::marker::PhantomData;

use crate::digest::Digest;
use crate::form;
use crate::ids::{DeviceId, KeyId};
use crate::keys::{KeyRing, SigningKey};
use crate::limits::SIGNED_BODY_BYTES;
use crate::wire::{self, DecodeError, Invalid, VERSION, Wire};

/// What a signature is for; part of what is signed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum Purpose {
    /// A sample's header, by a device.
    SampleHeader = 1,
    /// A declared gap in a chain of headers, by a device.
    Gap = 2,
    /// Counters and histograms, by a device.
    Telemetry = 3,
    /// What a device runs, by the device.
    Reported = 4,
    /// A promise that something is stored, by the hub.
    Receipt = 5,
    /// A refusal, by the hub.
    Refusal = 6,
    /// What a device shall run, by the hub.
    Desired = 7,
}

/// A message that travels signed.
pub trait Signable: Wire {
    /// What its signature is for.
    const PURPOSE: Purpose;
}

/// Why a message is not trusted.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum VerifyError {
    /// The envelope or the body is not what it should be.
    #[error(transparent)]
    Decode(#[from] DecodeError),
    /// Signed for something else.
    #[error("cannot trust {name}: signed for purpose {purpose}")]
    Purpose {
        /// The message.
        name: &'static str,
        /// The purpose byte found.
        purpose: u8,
    },
    /// It speaks for another device than the one that sent it, or is meant for another.
    #[error("cannot trust {name}: it names device {found}, expected {expected}")]
    Device {
        /// The message.
        name: &'static str,
        /// The device in the envelope.
        found: DeviceId,
        /// The device of the connection.
        expected: DeviceId,
    },
    /// Signed with a key the reader does not accept.
    #[error("cannot trust {name}: key {key} is not accepted here")]
    UnknownKey {
        /// The message.
        name: &'static str,
        /// The key's name.
        key: KeyId,
    },
    /// The signature is wrong: the bytes were altered, or another key signed them.
    #[error("cannot trust {name}: the signature does not match")]
    Signature {
        /// The message.
        name: &'static str,
    },
    /// The payload beside a sample's header is not the one the header names.
    #[error("cannot trust sample: its payload is not the one its signed header names")]
    Payload,
}

/// The envelope as decoded, not yet trusted.
pub(crate) struct Envelope {
    pub(crate) purpose: u8,
    pub(crate) device: DeviceId,
    pub(crate) key: KeyId,
    pub(crate) body: Vec<u8>,
    pub(crate) signature: [u8; 64],
}

impl Wire for Envelope {
    type Form = form::Envelope;
    const NAME: &'static str = "signed envelope";
    const LIMIT_BYTES: usize = SIGNED_BODY_BYTES + 256;

    fn to_form(&self) -> form::Envelope {
        form::Envelope {
            purpose: self.purpose,
            device: self.device.as_str().to_owned(),
            key: *self.key.0.as_bytes(),
            body: self.body.clone(),
            signature: self.signature,
        }
    }

    fn from_form(form: form::Envelope) -> Result<Self, Invalid> {
        Ok(Self {
            purpose: form.purpose,
            device: form.device.parse().map_err(Invalid::because)?,
            key: KeyId(Digest::from_bytes(form.key)),
            body: form.body,
            signature: form.signature,
        })
    }
}

/// The bytes of a message signed by this process, ready to send.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Signed<T> {
    bytes: Vec<u8>,
    body_digest: Digest,
    kind: PhantomData<fn() -> T>,
}

impl<T: Signable> Signed<T> {
    /// Signs `value` for or as `device`.
    ///
    /// # Errors
    /// [`DecodeError::TooLarge`] when the value is over its limit.
    pub fn seal(value: &T, device: &DeviceId, key: &SigningKey) -> Result<Self, DecodeError> {
        let body = wire::encode(value)?;
        let body_digest = Digest::of(&body);
        let id = key.public().id();
        let signature = key.sign(&context(T::PURPOSE as u8, device, &id, &body));
        let bytes = wire::encode(&Envelope {
            purpose: T::PURPOSE as u8,
            device: device.clone(),
            key: id,
            body,
            signature,
        })?;
        Ok(Self { bytes, body_digest, kind: PhantomData })
    }

    /// The envelope's bytes.
    pub fn as_bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// The envelope's bytes.
    pub fn into_bytes(self) -> Vec<u8> {
        self.bytes
    }

    /// The digest of the signed body: what receipts name and chains link.
    pub fn body_digest(&self) -> Digest {
        self.body_digest
    }
}

/// A value whose signature, purpose, version and device were checked. Only [`Verified::open`]
/// makes one.
#[derive(Debug, Clone)]
pub struct Verified<T> {
    value: T,
    key: KeyId,
    body_digest: Digest,
    envelope: Vec<u8>,
}

impl<T: Signable> Verified<T> {
    /// Verifies `bytes`, which came from or are meant for `device`, against the accepted `keys`.
    ///
    /// # Errors
    /// [`VerifyError`] names the first check that failed; nothing of the body is decoded before
    /// its signature held.
    pub fn open(bytes: &[u8], device: &DeviceId, keys: &KeyRing) -> Result<Self, VerifyError> {
        let envelope: Envelope = wire::decode(bytes)?;
        let name = T::NAME;
        if envelope.purpose != T::PURPOSE as u8 {
            return Err(VerifyError::Purpose { name, purpose: envelope.purpose });
        }
        if envelope.device != *device {
            return Err(VerifyError::Device {
                name,
                found: envelope.device,
                expected: device.clone(),
            });
        }
        let key =
            keys.get(&envelope.key).ok_or(VerifyError::UnknownKey { name, key: envelope.key })?;
        let message = context(envelope.purpose, device, &envelope.key, &envelope.body);
        if !key.verifies(&message, &envelope.signature) {
            return Err(VerifyError::Signature { name });
        }
        Ok(Self {
            value: wire::decode(&envelope.body)?,
            key: envelope.key,
            body_digest: Digest::of(&envelope.body),
            envelope: bytes.to_vec(),
        })
    }
}

impl<T> Verified<T> {
    /// The value.
    pub fn get(&self) -> &T {
        &self.value
    }

    /// The value, letting go of its proof.
    pub fn into_inner(self) -> T {
        self.value
    }

    /// The name of the key that signed.
    pub fn key(&self) -> KeyId {
        self.key
    }

    /// The digest of the signed body: what receipts name and chains link.
    pub fn body_digest(&self) -> Digest {
        self.body_digest
    }

    /// The envelope as received, to be kept as evidence.
    pub fn envelope(&self) -> &[u8] {
        &self.envelope
    }
}

fn context(purpose: u8, device: &DeviceId, key: &KeyId, body: &[u8]) -> Vec<u8> {
    let device = device.as_str().as_bytes();
    let mut out = Vec::with_capacity(body.len() + device.len() + 64);
    out.extend_from_slice(b"fleetloop");
    out.push(VERSION);
    out.push(purpose);
    // A device id has at most 48 bytes, so its length fits a byte.
    out.push(device.len() as u8);
    out.extend_from_slice(device);
    out.extend_from_slice(key.0.as_bytes());
    out.extend_from_slice(body);
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ids::Generation;
    use crate::receipt::RefusalReason;
    use crate::state::Desired;
    use crate::time::UnixMillis;

    #[test]
    fn a_body_of_an_unknown_version_in_a_good_envelope_is_named_and_may_be_retried() {
        let key = SigningKey::from_pkcs8(&SigningKey::generate_pkcs8().unwrap()).unwrap();
        let device: DeviceId = "dev-a".parse().unwrap();
        let desired = Desired { generation: Generation(1), at: UnixMillis(2), assignment: None };
        let mut body = wire::encode(&desired).unwrap();
        body[0] = VERSION + 1;
        let (purpose, id) = (Purpose::Desired as u8, key.public().id());
        let signature = key.sign(&context(purpose, &device, &id, &body));
        let envelope = Envelope { purpose, device: device.clone(), key: id, body, signature };
        let bytes = wire::encode(&envelope).unwrap();
        let keys = [key.public()].into_iter().collect();
        let error = Verified::<Desired>::open(&bytes, &device, &keys).unwrap_err();
        let name = Desired::NAME;
        assert_eq!(error, DecodeError::UnknownVersion { name, version: VERSION + 1 }.into());
        assert_eq!(RefusalReason::from(&error), RefusalReason::UnknownVersion);
    }
}
