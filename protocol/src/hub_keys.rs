//! The hub's receipt and assignment keys, as a released target: rotating them is a release.
//!
//! The target [`HUB_KEYS_TARGET`] holds this document as JSON. A device trusts no receipt, refusal
//! or order before it has verified the target through the channel's metadata.

use serde::{Deserialize, Serialize};

use crate::keys::{KeyRing, PublicKey};
use crate::time::UnixMillis;

/// The TUF target that holds [`HubKeys`].
pub const HUB_KEYS_TARGET: &str = "hub-keys.json";

/// The largest document a device reads, in bytes.
pub const HUB_KEYS_BYTES: usize = 16 * 1024;

/// What a hub's key may sign.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum HubKeyUse {
    /// Receipts and refusals.
    Receipt,
    /// Desired states.
    Assignment,
}

/// One key, what it may sign and when.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct HubKey {
    /// The key.
    pub public_key: PublicKey,
    /// What it may sign.
    pub usage: HubKeyUse,
    /// From when it is accepted.
    pub not_before: UnixMillis,
    /// From when it is no longer accepted.
    pub not_after: UnixMillis,
}

/// All keys of a hub that devices accept.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct HubKeys {
    /// The keys, at most 64.
    pub keys: Vec<HubKey>,
}

impl HubKeys {
    /// The keys for `usage` that are valid at `now`.
    pub fn ring(&self, usage: HubKeyUse, now: UnixMillis) -> KeyRing {
        self.keys
            .iter()
            .filter(|key| key.usage == usage && key.not_before <= now && now < key.not_after)
            .map(|key| key.public_key)
            .collect()
    }
}
