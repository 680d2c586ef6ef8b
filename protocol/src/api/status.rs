//! How the hub is, in numbers: `GET /api/v1/status`, `GET /healthz`. `GET /metrics` says the same
//! to Prometheus.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::samples::SampleCounts;

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
    /// Enrolled devices that were heard within three minutes; each reports every minute.
    pub devices_connected: u64,
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
    /// The database's size, in bytes.
    pub database_bytes: u64,
    /// Space left for payloads, in bytes; none when the system does not say.
    pub disk_free_bytes: Option<u64>,
    /// With less than this nothing more is taken in, in bytes.
    pub disk_floor_bytes: u64,
    /// Memory the process holds resident, in bytes.
    pub rss_bytes: u64,
    /// Spans to the OTLP collector; none when none was asked for.
    pub otlp: Option<OtlpStatus>,
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
