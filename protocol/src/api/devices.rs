//! Devices as the operator sees them.

use serde::{Deserialize, Serialize};

use crate::ids::{BundleDigest, DeviceId, Generation};
use crate::state::Update;
use crate::telemetry::Telemetry;

/// A request for an enrolment token.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TokenRequest {
    /// What people call the device: where it hangs, what it watches.
    pub name: String,
    /// How long the token is good for, in seconds, at most a day.
    pub valid_s: u64,
}

/// A request for the enrolment token of a device that takes another's place.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ReplaceRequest {
    /// What people call the new device; without it, what they called the old one.
    pub name: Option<String>,
    /// How long the token is good for, in seconds, at most a day.
    pub valid_s: u64,
}

/// A request to take a device in again that the hub forgot by a restore.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ReadmitRequest {
    /// What people call the device.
    pub name: String,
}

/// A device that the hub does not know and that its CA has certified: it enrolled after the backup
/// that the hub was restored from.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Stranger {
    /// What its certificate calls it.
    pub device: DeviceId,
    /// When that ends, in milliseconds since 1970.
    pub certificate_ends_ms: u64,
    /// When it came first, in milliseconds since 1970.
    pub first_seen_ms: u64,
    /// When it came last, in milliseconds since 1970.
    pub last_seen_ms: u64,
}

/// A fresh enrolment token. It is shown once.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct TokenResponse {
    /// The token's text form.
    pub token: String,
    /// Until when it is good, in milliseconds since 1970.
    pub expires_at_ms: u64,
}

/// An epoch of a device: one life of its outbox.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct EpochSummary {
    /// Its number, 16 hexadecimal digits as in a sample's id.
    pub epoch: String,
    /// Samples stored.
    pub samples: u64,
    /// Samples among them that are kept out of datasets until an operator decides.
    pub held: u64,
    /// Samples among them that an operator decided never to count.
    pub dropped: u64,
    /// When the first was stored, in milliseconds since 1970.
    pub first_stored_ms: u64,
    /// When the last was stored, in milliseconds since 1970.
    pub last_stored_ms: u64,
}

/// A decision about the held samples of a device.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct KeepRequest {
    /// The epochs whose held samples count; those of the others never do. All, when absent.
    pub epochs: Option<Vec<String>>,
}

/// Where a device stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum DeviceState {
    /// May connect.
    Enrolled,
    /// May never connect again.
    Revoked,
}

/// Whether a device is there.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Presence {
    /// It has not reported since it enrolled.
    Never,
    /// It said that it stops, and has not reported since.
    Stopped,
    /// It was heard of, but not for longer than its reports are apart.
    Silent,
    /// It reports.
    Online,
}

/// A device.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Device {
    /// Its id.
    pub id: DeviceId,
    /// What people call it.
    pub name: String,
    /// Where it stands.
    pub state: DeviceState,
    /// When it enrolled, in milliseconds since 1970.
    pub enrolled_at_ms: u64,
    /// When the newest certificate it was given ends, in milliseconds since 1970.
    pub certificate_ends_ms: u64,
    /// The device whose place it took.
    pub replaces: Option<DeviceId>,
    /// The device that took its place.
    pub replaced_by: Option<DeviceId>,
    /// Whether it is there.
    pub presence: Presence,
    /// When it was last heard, in milliseconds since 1970.
    pub last_seen_ms: Option<u64>,
    /// Its agent's version.
    pub agent_version: String,
    /// What it proved to run.
    pub running: Option<BundleDigest>,
    /// What it shall run.
    pub desired: Option<BundleDigest>,
    /// The generation of that wish.
    pub generation: Generation,
    /// What becomes of it.
    pub update: Option<Update>,
    /// Its last telemetry.
    pub telemetry: Option<Telemetry>,
    /// Samples stored.
    pub samples_stored: u64,
    /// Samples among them that are kept out of datasets until an operator decides.
    pub samples_held: u64,
    /// Since when two machines speak as this device, in milliseconds since 1970, until an operator
    /// decides.
    pub cloned_since_ms: Option<u64>,
    /// Messages refused.
    pub refusals: u64,
    /// Who revoked it, if it is revoked: a person, or the device that took its place.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub revoked_by: Option<String>,
    /// Messages that it still had to send when it was revoked, as far as it said, less those that were
    /// brought in a file since.
    pub left_behind: u64,
}
