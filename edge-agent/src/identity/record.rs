//! The enrolment record, `identity.json`.

use fleetloop_protocol::{DeviceId, Digest, UnixMillis};
use serde::{Deserialize, Serialize};

/// What enrolment told the device. No secret is in it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Record {
    /// The format's version; this build writes and reads 1.
    pub format: u32,
    /// The device's name.
    pub device: DeviceId,
    /// The hub's enrolment address, as the token had it.
    pub hub: String,
    /// The broker's host name, as its certificate has it.
    pub mqtt_host: String,
    /// The broker's port.
    pub mqtt_port: u16,
    /// The base URL for release metadata and artefacts.
    pub device_url: String,
    /// The release channel it follows.
    pub channel: String,
    /// SHA-256 of the hub's CA certificate (DER).
    pub ca: Digest,
    /// SHA-256 of the root metadata that the token named.
    pub root: Digest,
    /// A time that is certainly past: the later of the device's clock at enrolment and the start
    /// of its certificate's life.
    pub enrolled_at: UnixMillis,
}

/// The format this build writes.
pub(crate) const FORMAT: u32 = 1;

impl Record {
    pub(super) fn parse(bytes: &[u8]) -> Result<Self, String> {
        let record: Self = serde_json::from_slice(bytes).map_err(|error| error.to_string())?;
        if record.format != FORMAT {
            return Err(format!("format {}, this build reads {FORMAT}", record.format));
        }
        Ok(record)
    }

    pub(super) fn to_json(&self) -> Vec<u8> {
        // A struct of plain fields always serialises.
        let mut bytes = serde_json::to_vec_pretty(self).unwrap_or_default();
        bytes.push(b'\n');
        bytes
    }
}
