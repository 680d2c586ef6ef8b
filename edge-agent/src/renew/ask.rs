//! One request for a new certificate, and what is made of its answer.

use std::sync::Arc;

use base64::Engine as _;
use fleetloop_protocol::renew::{RENEW_PATH, RenewRequest, RenewResponse, renew_message};

use crate::answer::{self, Unread, detail};
use crate::certificate::{self, Expected};
use crate::clock::Clock;
use crate::identity::{Identity, IdentityError, Life, TlsKey};
use crate::tls::{self, TlsError};

/// The largest answer, in bytes.
const RESPONSE_BYTES: u64 = 64 * 1024;

/// Why a certificate was not renewed.
#[derive(Debug, thiserror::Error)]
pub enum RenewError {
    /// No connection, or one that broke.
    #[error("cannot reach the hub at {url} to renew the certificate; it is tried again")]
    Unreachable {
        /// The address.
        url: String,
        /// Why.
        #[source]
        source: reqwest::Error,
    },
    /// The hub said no.
    #[error(
        "cannot renew the certificate: the hub answered {status} ({detail}); if the device is \
         revoked, enrol it anew"
    )]
    Refused {
        /// The HTTP status.
        status: u16,
        /// What the hub said.
        detail: String,
    },
    /// The answer cannot be right.
    #[error("cannot take the certificate of {url}: {reason}; see the hub's log")]
    BadAnswer {
        /// The address.
        url: String,
        /// What is wrong.
        reason: String,
    },
    /// The new pair cannot be made or kept.
    #[error(transparent)]
    Identity(#[from] IdentityError),
    /// TLS cannot be set up.
    #[error(transparent)]
    Tls(#[from] TlsError),
}

/// Has the device's certificate renewed, and shows the new one from then on.
///
/// Cancel-safe: dropped before the answer, nothing changed; the hub's answer is then lost, which
/// costs another request.
///
/// # Errors
/// [`RenewError`]. But for [`IdentityError::Durable`] (the disk refuses: the new certificate is
/// shown, and gone with the process) the certificate before is still the one that is shown.
pub async fn renew(identity: &Arc<Identity>, clock: &Clock) -> Result<Life, RenewError> {
    let client = tls::http_client(tls::anonymous_config(identity, clock)?)?;
    let key = TlsKey::make()?;
    let request = request(identity, &key)?;
    let base = identity.contacts().device_url();
    let url = format!("{base}{RENEW_PATH}");
    let unreachable = |source| {
        identity.contacts().url_failed(&base);
        RenewError::Unreachable { url: url.clone(), source }
    };
    let bad = |reason: String| RenewError::BadAnswer { url: url.clone(), reason };
    let mut response = client.post(&url).json(&request).send().await.map_err(unreachable)?;
    let body =
        answer::body(&mut response, RESPONSE_BYTES).await.map_err(|unread| match unread {
            Unread::Broken(source) => unreachable(source),
            Unread::TooLong => bad(format!("it is longer than {RESPONSE_BYTES} bytes")),
        })?;
    let status = response.status();
    if !status.is_success() {
        return Err(RenewError::Refused { status: status.as_u16(), detail: detail(&body) });
    }
    let answer: RenewResponse =
        serde_json::from_slice(&body).map_err(|error| bad(error.to_string()))?;
    let chain = certificate::chain("device", &answer.certificate_pem).map_err(bad)?;
    let key_info = key.public_key_info();
    let known = identity.contacts().known();
    let expected =
        Expected { cas: &known.authorities, device: identity.device(), key_info: &key_info };
    certificate::check(&chain, &expected, clock).map_err(bad)?;
    let life = Life::of(&chain[0]).map_err(bad)?;
    let kept = {
        let identity = Arc::clone(identity);
        tokio::task::spawn_blocking(move || identity.renewed(&key, &answer.certificate_pem)).await
    };
    kept.map_err(|error| bad(format!("it was not kept: {error}")))??;
    Ok(life)
}

fn request(identity: &Identity, key: &TlsKey) -> Result<RenewRequest, RenewError> {
    let csr_pem = key.certificate_request()?;
    let message = renew_message(identity.device(), &csr_pem);
    let proof = identity.signing_key().sign(&message);
    Ok(RenewRequest {
        device: identity.device().clone(),
        csr_pem,
        proof: base64::engine::general_purpose::STANDARD.encode(proof),
        agent_version: env!("CARGO_PKG_VERSION").to_owned(),
    })
}

#[cfg(test)]
#[path = "ask_tests.rs"]
mod tests;
