//! The devices that a hub has revoked, as a released target; and how a device shows its hub that the
//! hub forgot some.
//!
//! The target [`REVOKED_TARGET`] holds a [`RevokedList`] as JSON. A list only grows. A hub that was
//! restored from a backup may publish one that lacks devices which an earlier one had: a device that
//! holds the earlier one sends it, with the metadata that names its digest ([`NewerList`]), to
//! [`REVOKED_PATH`]. The hub believes its own signature, and revokes them again.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::ids::DeviceId;
use crate::time::UnixMillis;

/// The TUF target that holds a [`RevokedList`].
pub const REVOKED_TARGET: &str = "revoked.json";

/// The most devices of a published list; of more, the newest are published.
pub const REVOKED_DEVICES: usize = 10_000;

/// The largest list a device reads, in bytes: room for [`REVOKED_DEVICES`].
pub const REVOKED_BYTES: usize = 1024 * 1024;

/// Where a device sends a [`NewerList`], on the device listener.
pub const REVOKED_PATH: &str = "/revoked";

/// The largest [`NewerList`] a hub reads, in bytes: a list, and targets metadata, both as JSON strings.
pub const NEWER_LIST_BYTES: usize = 8 * 1024 * 1024;

/// Devices that a hub has revoked, and when, by the hub's clock.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RevokedList {
    /// Each with the time of its revocation.
    pub devices: BTreeMap<DeviceId, UnixMillis>,
}

impl RevokedList {
    /// The newest entries, at most `most` of them.
    #[must_use]
    pub fn newest(&self, most: usize) -> Self {
        let mut newest: Vec<_> = self.devices.iter().collect();
        newest.sort_by_key(|(device, at)| (std::cmp::Reverse(**at), *device));
        let devices = newest.into_iter().take(most);
        Self { devices: devices.map(|(device, at)| (device.clone(), *at)).collect() }
    }

    /// The devices of this list that `other` lacks.
    pub fn missing_in<'a>(&'a self, other: &'a Self) -> impl Iterator<Item = &'a DeviceId> {
        self.devices.keys().filter(|device| !other.devices.contains_key(*device))
    }
}

/// A list that a hub signed and no longer publishes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct NewerList {
    /// The targets metadata that names the list's digest, as it was served.
    pub targets: String,
    /// The list, as it was served.
    pub list: String,
}

#[cfg(test)]
mod tests {
    use super::*;

    fn list(devices: &[(&str, u64)]) -> RevokedList {
        let devices = devices.iter().map(|(id, at)| (id.parse().unwrap(), UnixMillis(*at)));
        RevokedList { devices: devices.collect() }
    }

    #[test]
    fn the_document_is_this_json() {
        let both = list(&[("dev-b", 2), ("dev-a", 1)]);
        let json = serde_json::to_string(&both).unwrap();
        assert_eq!(json, r#"{"devices":{"dev-a":1,"dev-b":2}}"#);
        assert_eq!(serde_json::from_str::<RevokedList>(&json).unwrap(), both);
    }

    #[test]
    fn what_another_list_lacks_is_found() {
        let (older, newer) = (list(&[("dev-a", 1)]), list(&[("dev-a", 5), ("dev-b", 2)]));
        assert_eq!(older.missing_in(&newer).count(), 0);
        let missing: Vec<_> = newer.missing_in(&older).map(DeviceId::as_str).collect();
        assert_eq!(missing, ["dev-b"]);
    }

    #[test]
    fn the_newest_of_a_long_list_fit_what_a_device_reads() {
        let name = |n: usize| format!("dev-{n:044}").parse::<DeviceId>().unwrap();
        let devices = (0..2 * REVOKED_DEVICES)
            .map(|n| (name(n), UnixMillis(1_800_000_000_000 + n as u64)))
            .collect();
        let newest = RevokedList { devices }.newest(REVOKED_DEVICES);
        assert_eq!(newest.devices.len(), REVOKED_DEVICES);
        assert!(newest.devices.contains_key(&name(2 * REVOKED_DEVICES - 1)));
        assert!(serde_json::to_vec(&newest).unwrap().len() <= REVOKED_BYTES);
    }
}
