//! The hub's keys and what they sign: `GET /api/v1/keys` and the endpoints below it.
//!
//! `docs/keys.md` says of each key what it signs, how long that is good, and what its loss costs.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::keys::PublicKey;

/// A key of a hub.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum KeyName {
    /// Signs root metadata, which names the keys of the three roles below. Kept offline.
    Root,
    /// Signs what is released.
    Targets,
    /// Signs which targets metadata is the newest.
    Snapshot,
    /// Signs, every day, which snapshot is the newest.
    Timestamp,
    /// Signs receipts and refusals.
    Receipt,
    /// Signs orders to devices.
    Assignment,
    /// The certificate authority: signs the certificates of hub and devices.
    Ca,
    /// The next certificate authority, while both are accepted.
    NextCa,
    /// The hub's own TLS certificates.
    Server,
}

impl KeyName {
    /// All of them, in the order in which they are listed.
    pub const ALL: [Self; 9] = [
        Self::Root,
        Self::Targets,
        Self::Snapshot,
        Self::Timestamp,
        Self::Receipt,
        Self::Assignment,
        Self::Ca,
        Self::NextCa,
        Self::Server,
    ];

    /// The word for it in paths, commands and metrics.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Root => "root",
            Self::Targets => "targets",
            Self::Snapshot => "snapshot",
            Self::Timestamp => "timestamp",
            Self::Receipt => "receipt",
            Self::Assignment => "assignment",
            Self::Ca => "ca",
            Self::NextCa => "next_ca",
            Self::Server => "server",
        }
    }
}

impl fmt::Display for KeyName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl FromStr for KeyName {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        Self::ALL.into_iter().find(|key| key.as_str() == text).ok_or_else(|| {
            let names: Vec<&str> = Self::ALL.iter().map(|key| key.as_str()).collect();
            format!("there is no key {text:?}; the keys are {}", names.join(", "))
        })
    }
}

/// One key as `key list` shows it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct KeyState {
    /// Which key.
    pub key: KeyName,
    /// What it signs, in words.
    pub signs: String,
    /// Where it is kept, in words.
    pub kept: String,
    /// The version of the metadata that it signed last; none where there are no versions.
    pub version: Option<u64>,
    /// When what it signed, or the key itself, ends, in milliseconds since 1970.
    pub ends_ms: u64,
    /// Whether somebody must act now: it ends soon or has ended, or a step is not finished.
    pub warns: bool,
    /// What renews it, or what to do now, in words.
    pub next: String,
}

/// The chain of root metadata, to be signed on where the root key is: `GET /api/v1/keys/roots`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RootChain {
    /// The hub's time, in milliseconds since 1970: whoever signs compares it with their own.
    pub now_ms: u64,
    /// All roots as served (JSON), the first one first.
    pub roots: Vec<String>,
}

/// The next root, signed: `POST /api/v1/keys/roots`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SignedRoot {
    /// The metadata with its signatures (JSON), at most 32 KiB.
    pub root: String,
}

/// The key that the next root shall name for a role: `POST /api/v1/keys/{key}/next`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct NextKey {
    /// The role.
    pub key: KeyName,
    /// The public half; the private half does not leave the hub.
    pub public_key: PublicKey,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_has_one_word_everywhere() {
        for key in KeyName::ALL {
            assert_eq!(key.as_str().parse(), Ok(key));
            assert_eq!(serde_json::to_string(&key).unwrap(), format!("\"{key}\""));
        }
        assert!("roots".parse::<KeyName>().is_err());
    }
}
