//! The hub's names, its certificate authorities, and which devices know them: `/api/v1/hosts`.

use serde::{Deserialize, Serialize};

use crate::ids::DeviceId;

/// The hub's names, as configured and as published to devices.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Hosts {
    /// The names in the configuration, the primary one first.
    pub hosts: Vec<String>,
    /// The names that the running hub serves under and has published.
    pub published: Vec<String>,
    /// The generation of what is published.
    pub generation: u64,
    /// Whether a restart is needed to publish the configured names.
    pub restart: bool,
    /// Enrolled devices that have not reported this generation yet.
    pub waiting: Vec<WaitingDevice>,
}

/// A device that does not know the newest addresses or authorities yet.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct WaitingDevice {
    /// Which device.
    pub device: DeviceId,
    /// What people call it.
    pub name: String,
    /// The generation that it reported last; 0 before it reported any.
    pub generation: u64,
    /// What is missing, in words.
    pub lacks: String,
}

/// A name to add: `POST /api/v1/hosts`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AddHost {
    /// The name or address.
    pub host: String,
}

/// A name to retire (`POST /api/v1/hosts/retire`), or, without a name, the old certificate authority
/// (`POST /api/v1/keys/ca/retire`).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Retire {
    /// The name; none for the authority.
    pub host: Option<String>,
    /// Why not to wait for devices that do not know the newest addresses yet: those must be brought
    /// back by hand ('edge-agent rehome').
    pub without_waiting: Option<String>,
}

/// Where the API is and which CAs vouch for it: `GET /api/v1/hosts/admin`, for any token. With it an
/// access file ([`super::ApiAccess`]) is brought up to date.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct AdminAddress {
    /// The base URL, by the primary name.
    pub url: String,
    /// The certificates of all CAs that are accepted now, PEM.
    pub ca_pem: String,
}
