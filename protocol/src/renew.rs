//! Renewal of a device's TLS certificate over HTTPS: `POST /renew` on the hub's device listener, as
//! JSON.
//!
//! One request serves a certificate that is still good and one that has expired, for it rests on
//! neither: the key that the device enrolled with signs the device's name and the request for the
//! new certificate. Whoever repeats the request gets a certificate for a key that only the device
//! has. A lost answer strands nobody: the certificate before is good until its own end, and after
//! it the same request is made again.

use serde::{Deserialize, Serialize};

use crate::digest::Digest;
use crate::ids::DeviceId;

/// The path of the request on the hub's device listener; no client certificate is needed.
pub const RENEW_PATH: &str = "/renew";

/// What a device sends to have its certificate renewed.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RenewRequest {
    /// Who asks.
    pub device: DeviceId,
    /// PKCS#10 request (PEM) for the new certificate; proves possession of the new P-256 key.
    pub csr_pem: String,
    /// Signature by the key that the device enrolled with, over [`renew_message`], in base64.
    pub proof: String,
    /// The agent's version.
    pub agent_version: String,
}

/// What the hub answers.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RenewResponse {
    /// The new certificate and the CA's, PEM.
    pub certificate_pem: String,
}

/// What the enrolled key signs: bound to the device and to the certificate request, and to nothing
/// that any other signature of that key is over.
pub fn renew_message(device: &DeviceId, csr_pem: &str) -> Vec<u8> {
    let mut out = b"fleetloop renewal 1".to_vec();
    // A device id has at most 48 bytes.
    out.push(device.as_str().len() as u8);
    out.extend_from_slice(device.as_str().as_bytes());
    out.extend_from_slice(Digest::of(csr_pem.as_bytes()).as_bytes());
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_proof_is_for_one_device_and_one_request() {
        let (a, b): (DeviceId, DeviceId) = ("dev-a".parse().unwrap(), "dev-b".parse().unwrap());
        let message = renew_message(&a, "csr");
        assert_eq!(message, renew_message(&a, "csr"));
        assert_ne!(message, renew_message(&b, "csr"));
        assert_ne!(message, renew_message(&a, "another"));
        assert!(message.starts_with(b"fleetloop renewal 1\x05dev-a"));
    }
}
