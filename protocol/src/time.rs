//! Time as it is written down. Nothing here reads a clock.

use serde::{Deserialize, Serialize};

use crate::wire::OLDEST;

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
    /// The newest wire version it reads; hubs that do not say read version 1.
    #[serde(default = "oldest")]
    pub reads_version: u8,
}

fn oldest() -> u8 {
    OLDEST
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_hub_that_does_not_say_what_it_reads_reads_version_1() {
        let read = |text: &str| serde_json::from_str::<HubTime>(text);
        let old = HubTime { now_ms: UnixMillis(7), reads_version: 1 };
        assert_eq!(read(r#"{"now_ms":7}"#).unwrap(), old);
        let new = HubTime { reads_version: 2, ..old };
        assert_eq!(read(r#"{"now_ms":7,"reads_version":2}"#).unwrap(), new);
        assert_eq!(read(r#"{"now_ms":7,"reads_version":2,"later":0}"#).unwrap(), new);
        assert!(read(r#"{"reads_version":2}"#).is_err());
    }
}
