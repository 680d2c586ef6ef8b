//! What a certificate says of itself: its end, who signed it.

use fleetloop_protocol::UnixMillis;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject as _;

/// When the first certificate in `pem` ends.
///
/// # Errors
/// Why it cannot be read, in words.
pub(super) fn ends(pem: &[u8]) -> Result<UnixMillis, String> {
    read(pem, |parsed| {
        let end = parsed.validity().not_after.timestamp();
        UnixMillis(u64::try_from(end).unwrap_or(0).saturating_mul(1000))
    })
}

/// Who signed the first certificate in `pem`: the issuer's name, DER.
///
/// # Errors
/// As [`ends`].
pub(super) fn issuer(pem: &[u8]) -> Result<Vec<u8>, String> {
    read(pem, |parsed| parsed.issuer().as_raw().to_vec())
}

/// Whose certificate the first one in `pem` is: the subject's name, DER.
///
/// # Errors
/// As [`ends`].
pub(super) fn subject(pem: &[u8]) -> Result<Vec<u8>, String> {
    read(pem, |parsed| parsed.subject().as_raw().to_vec())
}

fn read<T>(
    pem: &[u8],
    look: impl FnOnce(&x509_parser::certificate::X509Certificate<'_>) -> T,
) -> Result<T, String> {
    let der = CertificateDer::from_pem_slice(pem).map_err(|error| error.to_string())?;
    let (_, parsed) = x509_parser::parse_x509_certificate(&der)
        .map_err(|error| format!("a certificate cannot be read: {error}"))?;
    Ok(look(&parsed))
}
