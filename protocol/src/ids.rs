//! Identities. Each is its own type, so that one cannot stand where another is meant.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::digest::Digest;
use crate::limits::DEVICE_ID_BYTES;

/// A device, as the hub named it at enrolment: `[a-z0-9_-]`, 1 to 48 bytes, so that it can stand
/// in an MQTT topic, in a certificate's common name and in a path.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct DeviceId(String);

/// A text that is not a device id.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("cannot read device id {text:?}: want 1 to {DEVICE_ID_BYTES} of a-z, 0-9, '_' and '-'")]
pub struct InvalidDeviceId {
    text: String,
}

impl DeviceId {
    /// The id as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for DeviceId {
    type Err = InvalidDeviceId;

    fn from_str(text: &str) -> Result<Self, InvalidDeviceId> {
        let allowed = |b: u8| matches!(b, b'a'..=b'z' | b'0'..=b'9' | b'_' | b'-');
        if text.is_empty() || text.len() > DEVICE_ID_BYTES || !text.bytes().all(allowed) {
            return Err(InvalidDeviceId { text: crate::limits::shorten(text) });
        }
        Ok(Self(text.to_owned()))
    }
}

impl TryFrom<String> for DeviceId {
    type Error = InvalidDeviceId;
    fn try_from(text: String) -> Result<Self, InvalidDeviceId> {
        text.parse()
    }
}

impl From<DeviceId> for String {
    fn from(id: DeviceId) -> Self {
        id.0
    }
}

impl fmt::Display for DeviceId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for DeviceId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "DeviceId({})", self.0)
    }
}

/// One life of a device's outbox file: drawn when the file is made, and again when the hub has another
/// sample under one of its identities (the file was restored from an image, or copied). Numbers rise
/// with time on each device, and are random within a second.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Epoch(pub u64);

/// The place of a sample within its epoch, from 0, without holes but for declared gaps.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Sequence(pub u64);

/// The identity of a sample.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct SampleId {
    /// Who took it.
    pub device: DeviceId,
    /// Which life of that device's outbox.
    pub epoch: Epoch,
    /// Its place in that life.
    pub sequence: Sequence,
}

impl fmt::Display for SampleId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{:016x}/{}", self.device, self.epoch.0, self.sequence.0)
    }
}

/// The W3C trace id of a sample's road, from the sample's id as written: the first 16 bytes of
/// SHA-256 over `fleetloop sample ` and the id. Device and hub reach the same one by themselves, so
/// nothing about it travels.
pub fn trace_id(sample: &str) -> [u8; 16] {
    let digest = Digest::of(format!("fleetloop sample {sample}").as_bytes());
    let mut id = [0; 16];
    id.copy_from_slice(&digest.as_bytes()[..16]);
    id
}

/// A model as devices know it: the digest of its bundle's manifest.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(transparent)]
pub struct BundleDigest(pub Digest);

impl fmt::Display for BundleDigest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// An Ed25519 public key's name: the SHA-256 of its 32 bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(transparent)]
pub struct KeyId(pub Digest);

impl fmt::Display for KeyId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// The order of a hub's wishes for one device. A device never goes below the highest it has seen.
#[derive(
    Debug, Clone, Copy, Default, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize,
)]
#[serde(transparent)]
pub struct Generation(pub u64);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_device_id_can_stand_in_a_topic_and_in_a_path() {
        for bad in ["", "A", "a/b", "a+", "#", "..", "a b", &"a".repeat(49)] {
            assert!(bad.parse::<DeviceId>().is_err(), "{bad}");
        }
        assert_eq!("dev-7_x".parse::<DeviceId>().unwrap().as_str(), "dev-7_x");
    }

    #[test]
    fn a_samples_trace_id_follows_from_its_id_as_written() {
        let sample =
            SampleId { device: "dev-1".parse().unwrap(), epoch: Epoch(1), sequence: Sequence(7) };
        // printf 'fleetloop sample dev-1/0000000000000001/7' | sha256sum
        let expected = 0xc33f_186a_9a02_f3a6_5a67_0036_54c4_1277_u128;
        assert_eq!(trace_id(&sample.to_string()), expected.to_be_bytes());
    }
}
