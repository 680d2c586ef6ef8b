//! How the hub is, in numbers: `GET /api/v1/status`, `GET /healthz`. `GET /metrics` says the same
//! to Prometheus.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::samples::SampleCounts;
use crate::ids::DeviceId;

/// Whether the hub does its work: the answer of `GET /healthz`.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Health {
    /// Whether it does.
    pub healthy: bool,
    /// Why not, in words.
    pub reasons: Vec<String>,
}

/// The hub in numbers.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct HubStatus {
    /// The hub's version.
    pub version: String,
    /// Whether it does its work.
    pub health: Health,
    /// Its time, in milliseconds since 1970.
    pub now_ms: u64,
    /// Seconds since it started.
    pub uptime_s: u64,
    /// Whether its client is connected to the broker.
    pub broker_connected: bool,
    /// Messages of devices being verified and stored.
    pub messages_under_way: u64,
    /// How many may be.
    pub messages_limit: u64,
    /// What was left out since the start because of a quota or a full queue, by reason.
    pub messages_dropped: BTreeMap<String, u64>,
    /// Messages that were held up since the start because their devices were over their quotas.
    pub messages_slowed: u64,
    /// Samples and what became of other messages.
    pub samples: SampleCounts,
    /// Refusals by reason.
    pub refused_by_reason: BTreeMap<String, u64>,
    /// Labels given, superseded ones included.
    pub labels: u64,
    /// Devices that may connect.
    pub devices_enrolled: u64,
    /// Devices that may not any more.
    pub devices_revoked: u64,
    /// Enrolled devices that are online: heard within 150 s, each reports every minute, and not stopped.
    pub devices_connected: u64,
    /// Wrong credentials since the start, by where they were shown.
    pub credentials_wrong: BTreeMap<String, u64>,
    /// Those among them that were answered with "try again later".
    pub credentials_slowed: BTreeMap<String, u64>,
    /// Frozen datasets.
    pub datasets: u64,
    /// Training jobs by state.
    pub jobs: BTreeMap<String, u64>,
    /// Models.
    pub models: u64,
    /// Signed releases.
    pub releases: u64,
    /// Rollouts by phase.
    pub rollouts: BTreeMap<String, u64>,
    /// Open findings by kind.
    pub findings: BTreeMap<String, u64>,
    /// The database's size, in bytes.
    pub database_bytes: u64,
    /// Space left for payloads, in bytes; none when the system does not say.
    pub disk_free_bytes: Option<u64>,
    /// With less than this nothing more is taken in, in bytes.
    pub disk_floor_bytes: u64,
    /// Memory the process holds resident, in bytes.
    pub rss_bytes: u64,
    /// Messages that devices still had to send when another took their place, and that nobody brought
    /// in a file since; by device.
    pub left_behind: BTreeMap<String, u64>,
    /// The last restore from a backup; none for a hub that never was restored.
    pub restored: Option<RestoredStatus>,
    /// Spans to the OTLP collector; none when none was asked for.
    pub otlp: Option<OtlpStatus>,
    /// Descriptors (files and connections) that the process may have open.
    pub descriptors: u64,
    /// Open connections.
    pub connections: Vec<ConnectionCount>,
    /// Connections that the hub closed since its start.
    pub connections_closed: Vec<ClosedCount>,
    /// Seconds until each key, or what it signed, ends; 0 once it has.
    pub key_left_s: BTreeMap<String, u64>,
    /// What somebody must do, in words: keys that end soon.
    pub warnings: Vec<String>,
}

/// Open connections of one kind.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct ConnectionCount {
    /// `admin`, `device` or `mqtt`.
    pub listener: String,
    /// Whose they are: `device`, `token` or `hub`, or `unauthenticated`.
    pub holder: String,
    /// What they are about: `handshake`, `header`, `request`, `idle`, `connect` or `session`.
    pub phase: String,
    /// How many.
    pub count: u64,
}

/// Connections closed for one reason.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct ClosedCount {
    /// `admin`, `device` or `mqtt`.
    pub listener: String,
    /// The key in `[limits.connections]` whose limit was met, or `not_enrolled`.
    pub reason: String,
    /// How many.
    pub count: u64,
}

/// What a restored hub cannot know, as far as devices tell.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct RestoredStatus {
    /// When the backup was made, in milliseconds since 1970.
    pub backup_made_at_ms: u64,
    /// When it was restored, in milliseconds since 1970.
    pub restored_at_ms: u64,
    /// Samples that devices have a receipt for and that this hub does not have, at least; by device.
    /// They were stored after the backup.
    pub samples_lost: BTreeMap<DeviceId, u64>,
    /// Devices that enrolled after the backup, have come since and are not taken in again.
    pub strangers: u64,
}

/// What became of spans since start.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct OtlpStatus {
    /// Spans that the collector took.
    pub exported: u64,
    /// Spans that it did not take, or that could not be sent.
    pub failed: u64,
    /// Spans dropped because too many waited.
    pub dropped: u64,
}
