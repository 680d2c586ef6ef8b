//! The device's two keys, made on the device and kept there.

use std::path::Path;
use std::sync::Arc;

use fleetloop_protocol::keys::SigningKey;
use rcgen::PublicKeyData as _;
use rustls::pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer};

use super::{FILE_BYTES, IdentityError};
use crate::durable;

/// Ed25519 for samples and reports, P-256 for TLS.
#[derive(Debug)]
pub struct DeviceKeys {
    signing: Arc<SigningKey>,
    tls: TlsKey,
}

/// A P-256 key for TLS.
pub struct TlsKey(rcgen::KeyPair);

impl std::fmt::Debug for TlsKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("TlsKey(withheld)")
    }
}

impl TlsKey {
    /// Draws a key.
    ///
    /// # Errors
    /// [`IdentityError::MakeKey`] when the system has no random bytes.
    pub fn make() -> Result<Self, IdentityError> {
        rcgen::KeyPair::generate()
            .map(Self)
            .map_err(|source| IdentityError::MakeKey { what: "TLS key", source: Box::new(source) })
    }

    /// The public half as X.509 SubjectPublicKeyInfo, DER.
    pub fn public_key_info(&self) -> Vec<u8> {
        self.0.subject_public_key_info()
    }

    /// The key for rustls.
    pub fn to_der(&self) -> PrivateKeyDer<'static> {
        PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(self.0.serialize_der()))
    }

    /// The key in PKCS#8, PEM.
    pub(super) fn to_pem(&self) -> String {
        self.0.serialize_pem()
    }

    /// A PKCS#10 request (PEM) that proves possession of the key. It asks for no name: the hub
    /// gives one.
    ///
    /// # Errors
    /// [`IdentityError::MakeKey`] when the key cannot sign.
    pub fn certificate_request(&self) -> Result<String, IdentityError> {
        let make = || -> Result<String, rcgen::Error> {
            let mut params = rcgen::CertificateParams::new(Vec::<String>::new())?;
            params.distinguished_name = rcgen::DistinguishedName::new();
            params.serialize_request(&self.0)?.pem()
        };
        make().map_err(|source| IdentityError::MakeKey {
            what: "certificate request",
            source: Box::new(source),
        })
    }
}

impl DeviceKeys {
    pub(super) fn load(signing: &Path, tls: &Path) -> Result<Self, IdentityError> {
        let read = |path: &Path| -> Result<Vec<u8>, IdentityError> {
            durable::read(path, FILE_BYTES)?.ok_or_else(|| broken(path, "it is missing"))
        };
        let key = SigningKey::from_pkcs8(&read(signing)?)
            .map_err(|_| broken(signing, "it is not an Ed25519 key in PKCS#8"))?;
        let text = String::from_utf8(read(tls)?).map_err(|_| broken(tls, "it is not PEM"))?;
        let pair = rcgen::KeyPair::from_pem(&text)
            .map_err(|_| broken(tls, "it is not a P-256 key in PKCS#8 PEM"))?;
        Ok(Self { signing: Arc::new(key), tls: TlsKey(pair) })
    }

    /// A power cut between the two writes leaves one key, which is kept; the other is made later.
    pub(super) fn load_or_make(signing: &Path, tls: &Path) -> Result<Self, IdentityError> {
        if durable::read(signing, FILE_BYTES)?.is_none() {
            let pkcs8 = SigningKey::generate_pkcs8().map_err(|source| IdentityError::MakeKey {
                what: "signing key",
                source: Box::new(source),
            })?;
            durable::write(signing, &pkcs8)?;
        }
        if durable::read(tls, FILE_BYTES)?.is_none() {
            durable::write(tls, TlsKey::make()?.to_pem().as_bytes())?;
        }
        Self::load(signing, tls)
    }

    /// The key that signs samples and reports.
    pub fn signing(&self) -> &SigningKey {
        &self.signing
    }

    pub(super) fn into_signing(self) -> Arc<SigningKey> {
        self.signing
    }

    /// The key for TLS.
    pub fn tls(&self) -> &TlsKey {
        &self.tls
    }
}

fn broken(path: &Path, reason: &str) -> IdentityError {
    IdentityError::Broken { path: path.to_owned(), reason: reason.to_owned() }
}
