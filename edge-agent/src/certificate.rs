//! What the hub certifies, checked before it is kept: the same at enrolment and at renewal.

use std::sync::Arc;

use fleetloop_protocol::{ClockState, DeviceId, UnixMillis};
use rustls::RootCertStore;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject as _;
use rustls::server::WebPkiClientVerifier;

use crate::clock::Clock;
use crate::identity::Life;
use crate::tls;

/// The certificates in a PEM text, at least one; `name` says which in the error.
pub(crate) fn chain(name: &str, pem: &str) -> Result<Vec<CertificateDer<'static>>, String> {
    let found = CertificateDer::pem_slice_iter(pem.as_bytes())
        .collect::<Result<Vec<_>, _>>()
        .map_err(|error| format!("the {name} certificate cannot be read: {error}"))?;
    if found.is_empty() { Err(format!("it gives no {name} certificate")) } else { Ok(found) }
}

/// What a certificate must be for.
#[derive(Debug)]
pub(crate) struct Expected<'a> {
    /// Any of these issued it.
    pub(crate) cas: &'a [CertificateDer<'static>],
    /// Its common name.
    pub(crate) device: &'a DeviceId,
    /// Its key, as SubjectPublicKeyInfo.
    pub(crate) key_info: &'a [u8],
}

/// Checks a chain, the device's certificate first, at [`issued_by`]'s time.
pub(crate) fn check(
    chain: &[CertificateDer<'static>],
    expected: &Expected<'_>,
    clock: &Clock,
) -> Result<(), String> {
    let (leaf, rest) = chain.split_first().ok_or("it gives no device certificate")?;
    let (_, parsed) = x509_parser::parse_x509_certificate(leaf)
        .map_err(|error| format!("the device certificate cannot be read: {error}"))?;
    if parsed.public_key().raw != expected.key_info {
        return Err("the certificate it gives is for another key".into());
    }
    let names: Vec<_> =
        parsed.subject().iter_common_name().filter_map(|cn| cn.as_str().ok()).collect();
    if names != [expected.device.as_str()] {
        return Err(format!("the certificate is for {names:?}, not for {}", expected.device));
    }
    let mut roots = RootCertStore::empty();
    for ca in expected.cas {
        roots.add(ca.clone()).map_err(|error| format!("the CA cannot be used: {error}"))?;
    }
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider)
        .build()
        .map_err(|error| format!("the CA cannot be used: {error}"))?;
    verifier
        .verify_client_cert(leaf, rest, tls::unix_time(issued_by(clock, leaf)))
        .map(drop)
        .map_err(|error| format!("the device certificate does not hold: {error}"))
}

/// A moment at which a certificate that has just been issued must be good: now or, while that is a
/// guess, the start of its life, so that a floor that runs ahead refuses nothing.
pub(crate) fn issued_by(clock: &Clock, leaf: &CertificateDer<'_>) -> UnixMillis {
    match clock.state() {
        ClockState::Synced => clock.now(),
        ClockState::Unsynced => Life::of(leaf).map_or(clock.now(), |life| life.not_before),
    }
}
