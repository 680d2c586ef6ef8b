//! The key and certificate that the device shows on TLS, as one thing.

use std::sync::Arc;

use fleetloop_protocol::UnixMillis;
use rustls::crypto::aws_lc_rs;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::sign::CertifiedKey;

/// From when to when a certificate is good.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Life {
    /// Its start.
    pub not_before: UnixMillis,
    /// Its end.
    pub not_after: UnixMillis,
}

impl Life {
    /// The life that a certificate (DER) states.
    ///
    /// # Errors
    /// Why it cannot be read, in words.
    pub fn of(certificate: &[u8]) -> Result<Self, String> {
        let (_, parsed) = x509_parser::parse_x509_certificate(certificate)
            .map_err(|error| format!("a certificate cannot be read: {error}"))?;
        let at = |time: x509_parser::time::ASN1Time| {
            UnixMillis(u64::try_from(time.timestamp()).unwrap_or(0).saturating_mul(1000))
        };
        let validity = parsed.validity();
        Ok(Self { not_before: at(validity.not_before), not_after: at(validity.not_after) })
    }
}

/// A TLS key and the certificate for it.
#[derive(Debug)]
pub struct TlsPair {
    certified: Arc<CertifiedKey>,
    life: Life,
}

impl TlsPair {
    /// The pair of a key and the chain for it, the device's certificate first.
    ///
    /// # Errors
    /// Why they cannot be used together, in words.
    pub fn new(
        chain: Vec<CertificateDer<'static>>,
        key: PrivateKeyDer<'static>,
    ) -> Result<Self, String> {
        let life = Life::of(chain.first().ok_or("it holds no certificate")?)?;
        let certified = CertifiedKey::from_der(chain, key, &aws_lc_rs::default_provider())
            .map_err(|error| format!("key and certificate cannot be used: {error}"))?;
        Ok(Self { certified: Arc::new(certified), life })
    }

    /// The pair in one PEM text: the key, then the chain.
    ///
    /// # Errors
    /// As [`TlsPair::new`].
    pub fn from_pem(text: &[u8]) -> Result<Self, String> {
        let key = PrivateKeyDer::from_pem_slice(text)
            .map_err(|error| format!("it holds no key: {error}"))?;
        let chain = CertificateDer::pem_slice_iter(text)
            .collect::<Result<Vec<_>, _>>()
            .map_err(|error| error.to_string())?;
        Self::new(chain, key)
    }

    /// What rustls shows.
    pub fn certified(&self) -> Arc<CertifiedKey> {
        Arc::clone(&self.certified)
    }

    /// Whether the CA of that certificate (DER) signed it, by the names that both state.
    pub fn is_signed_by(&self, ca: &[u8]) -> bool {
        let issuer = self.certified.cert.first().and_then(|leaf| {
            let (_, leaf) = x509_parser::parse_x509_certificate(leaf).ok()?;
            Some(leaf.issuer().as_raw().to_vec())
        });
        let subject = x509_parser::parse_x509_certificate(ca).ok();
        let subject = subject.map(|(_, ca)| ca.subject().as_raw().to_vec());
        issuer.is_some() && issuer == subject
    }

    /// From when to when it is good.
    pub fn life(&self) -> Life {
        self.life
    }
}
