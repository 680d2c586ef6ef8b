//! Renewal of a device's certificate. The contract of the messages is [`fleetloop_protocol::renew`].
//!
//! Invariants: only the key that an enrolled device enrolled with renews its certificate, whether
//! the one before has expired or not; an unknown device, a revoked one and a wrong proof get the
//! same answer, so nobody learns which devices there are; the certificate before is good until its
//! own end. Anyone who reaches the device listener may ask, so a request's length is limited
//! ([`crate::door::bodies`]), it costs a look-up before a signature is checked, and a check before one
//! is made; a wrong proof is counted by address and device ([`crate::door`]).

use base64::Engine as _;
use fleetloop_protocol::DeviceId;
use fleetloop_protocol::api::devices::DeviceState;
use fleetloop_protocol::limits::TEXT_BYTES;
use fleetloop_protocol::renew::{RenewRequest, RenewResponse, renew_message};

use crate::pki::{Pki, PkiError};
use crate::state::AppState;
use crate::store::{StoreError, devices};

/// Why nothing was renewed.
#[derive(Debug, thiserror::Error)]
pub enum RenewError {
    /// The request is wrong: what.
    #[error("cannot renew the certificate: {0}")]
    Request(&'static str),
    /// Whoever asked is not an enrolled device.
    #[error(
        "cannot renew the certificate of {device}: it is not enrolled here, is revoked, or another \
         key signed the request"
    )]
    Refused {
        /// Who it said it is.
        device: DeviceId,
    },
    /// The database failed.
    #[error(transparent)]
    Store(StoreError),
    /// The certificate request proves nothing, or signing failed.
    #[error(transparent)]
    Pki(#[from] PkiError),
}

/// Gives `request.device` a certificate for its new key.
///
/// # Errors
/// [`RenewError`] says why not; nothing is changed then.
pub async fn renew(
    state: &AppState,
    pki: &Pki,
    request: &RenewRequest,
) -> Result<RenewResponse, RenewError> {
    if request.agent_version.len() > TEXT_BYTES {
        return Err(RenewError::Request("the agent's version is too long"));
    }
    let proof = base64::engine::general_purpose::STANDARD
        .decode(&request.proof)
        .map_err(|_| RenewError::Request("the proof is not base64"))?;
    let refused = || RenewError::Refused { device: request.device.clone() };
    let id = request.device.clone();
    let device = match state.store.read(move |connection| devices::get(connection, &id)).await {
        Ok(device) if device.state == DeviceState::Enrolled => device,
        Ok(_) | Err(StoreError::NotFound { .. }) => return Err(refused()),
        Err(error) => return Err(RenewError::Store(error)),
    };
    let message = renew_message(&request.device, &request.csr_pem);
    if !device.signing_key.verifies(&message, &proof) {
        return Err(refused());
    }
    let days = state.config.limits.device_certificate_days;
    let issued = {
        let (id, key) = (&device.id, &device.signing_key);
        pki.newest().device(id, key, &request.csr_pem, state.clock.now(), days)?
    };
    let pem = issued.pem.clone();
    // A crash before this commit leaves the answer unsent: the device asks again. It may have been
    // revoked since the look: then nothing is kept and nothing is answered.
    let limits = state.config.limits.clone();
    let kept = state
        .store
        .write(move |tx| devices::renew(tx, &device.id, &pem, issued.ends, &limits))
        .await;
    kept.map_err(|error| match error {
        StoreError::NotFound { .. } => refused(),
        error => RenewError::Store(error),
    })?;
    let (device, agent) = (&request.device, &request.agent_version);
    tracing::info!(%device, agent, ends_ms = issued.ends.0, "certificate renewed");
    Ok(RenewResponse { certificate_pem: issued.pem })
}
