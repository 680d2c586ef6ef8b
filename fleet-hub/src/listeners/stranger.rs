//! A device that this hub does not know and whose certificate its CA signed: it enrolled after the
//! backup that the hub was restored from. It is kept for the operator to decide
//! (`fleet-hub device strangers`), with the signing key that the certificate vouches for.

use fleetloop_protocol::keys::PublicKey;
use fleetloop_protocol::{DeviceId, Digest, UnixMillis};
use x509_parser::extensions::GeneralName;
use x509_parser::prelude::{FromDer as _, X509Certificate};

use crate::pki::SIGNING_KEY_URI;
use crate::state::AppState;
use crate::store::strangers::{self, Stranger};

/// Keeps that `device` came with `certificate` (DER), whose chain was verified.
pub(super) async fn came(state: &AppState, device: &DeviceId, certificate: &[u8]) {
    let Some(stranger) = stranger(device, certificate, state.clock.now()) else {
        tracing::warn!(%device, "refused: unknown, and its certificate names no signing key");
        return;
    };
    tracing::warn!(%device, "refused: this hub does not know the device that its CA certified");
    let kept = state.store.write(move |tx| strangers::record(tx, &stranger)).await;
    if let Err(error) = kept {
        tracing::error!(%device, error = &error as &dyn std::error::Error, "cannot keep a stranger");
    }
}

/// What the certificate says of the device; none without a signing key.
fn stranger(device: &DeviceId, certificate: &[u8], now: UnixMillis) -> Option<Stranger> {
    let (_, parsed) = X509Certificate::from_der(certificate).ok()?;
    let names = &parsed.subject_alternative_name().ok()??.value.general_names;
    let key = names.iter().find_map(|name| match name {
        GeneralName::URI(uri) => uri.strip_prefix(SIGNING_KEY_URI),
        _ => None,
    })?;
    let key: Digest = key.parse().ok()?;
    let ends_s = u64::try_from(parsed.validity().not_after.timestamp()).ok()?;
    Some(Stranger {
        device: device.clone(),
        signing_key: PublicKey::from_bytes(*key.as_bytes()),
        certificate_ends: UnixMillis(ends_s * 1000),
        first_seen: now,
        last_seen: now,
    })
}
