//! Enrolment over HTTPS: `GET /enrol/root.json?sha256=…`, then `POST /enrol`, as JSON.
//!
//! The device checks the token's two digests (CA, root metadata) before it posts. Posting again
//! with the same token and the same two keys gives the same answer, so a lost reply strands
//! nobody; with other keys it is refused, for the token is used.

use serde::{Deserialize, Serialize};

use crate::digest::Digest;
use crate::ids::DeviceId;
use crate::keys::PublicKey;

/// The path of the enrolment request on the hub's enrolment listener.
pub const ENROL_PATH: &str = "/enrol";
/// The path of the channel's root metadata there; the query is a [`RootQuery`].
pub const ENROL_ROOT_PATH: &str = "/enrol/root.json";

/// Which root metadata a new device asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct RootQuery {
    /// The one that its token names; the newest without.
    pub sha256: Option<Digest>,
}

/// What a new device sends.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct EnrolRequest {
    /// The token's secret, in hexadecimal.
    pub secret: String,
    /// The key that will sign its samples and reports.
    pub signing_key: PublicKey,
    /// PKCS#10 request (PEM) for its TLS certificate; proves possession of the P-256 key.
    pub csr_pem: String,
    /// Signature by `signing_key` over [`proof_message`], in base64: proves possession of it.
    pub proof: String,
    /// The agent's version.
    pub agent_version: String,
}

/// What the hub answers.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct EnrolResponse {
    /// The name the device has from now on.
    pub device: DeviceId,
    /// Its TLS certificate and the CA's, PEM.
    pub certificate_pem: String,
    /// The hub's CA certificate, PEM.
    pub ca_pem: String,
    /// The broker's host name, as its certificate has it.
    pub mqtt_host: String,
    /// The broker's port (TLS, client certificate required).
    pub mqtt_port: u16,
    /// The base URL for release metadata and artefacts (client certificate required).
    pub device_url: String,
    /// The release channel it follows.
    pub channel: String,
}

/// What the signing key signs to prove that the device holds it: bound to the token's secret and
/// to the certificate request, so that neither can be used with another.
pub fn proof_message(secret: &[u8; 32], csr_pem: &str) -> Vec<u8> {
    let mut out = b"fleetloop enrolment 1".to_vec();
    out.extend_from_slice(Digest::of(secret).as_bytes());
    out.extend_from_slice(Digest::of(csr_pem.as_bytes()).as_bytes());
    out
}
