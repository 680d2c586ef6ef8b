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

/// A fresh enrolment token. It is shown once.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct TokenResponse {
    /// The token's text form.
    pub token: String,
    /// Until when it is good, in milliseconds since 1970.
    pub expires_at_ms: u64,
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
    /// When the newest certificate it was given ends, in milliseconds since 1970; none when an
    /// older hub gave it.
    pub certificate_ends_ms: Option<u64>,
    /// The device whose place it took.
    pub replaces: Option<DeviceId>,
    /// The device that took its place.
    pub replaced_by: Option<DeviceId>,
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
    /// Messages refused.
    pub refusals: u64,
}
