//! Time as it is written down. Nothing here reads a clock.

use serde::{Deserialize, Serialize};

/// Milliseconds since 1970-01-01T00:00:00Z, without leap seconds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(transparent)]
pub struct UnixMillis(pub u64);

/// What the writer of a time knew about its clock.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ClockState {
    /// Set from the network or checked against the hub.
    Synced,
    /// A guess: not below the persisted floor, but perhaps far from the truth.
    Unsynced,
}

/// What the hub answers to `GET /time` on its device listener.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct HubTime {
    /// What time it is there.
    pub now_ms: UnixMillis,
}
