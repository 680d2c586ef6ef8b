//! TLS configurations out of the hub's files. The process's provider (aws-lc-rs) is installed first
//! thing in `main`.

use std::path::Path;
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

use rustls::client::ResolvesClientCert;
use rustls::crypto::aws_lc_rs;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, UnixTime};
use rustls::server::WebPkiClientVerifier;
use rustls::sign::CertifiedKey;
use rustls::time_provider::TimeProvider;
use rustls::{ClientConfig, RootCertStore, ServerConfig, SignatureScheme};

use super::{Pki, PkiError};
use crate::clock::Clock;

/// Whether a server asks its clients for a certificate.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ClientCertificates {
    /// None is asked for: people and programs prove themselves with a token.
    NotAsked,
    /// A client may come without one; one that it shows must be our CA's and good now.
    Asked,
    /// A client must show one of our CA's that is good now: MQTT.
    Required,
}

/// Makes aws-lc-rs the process's TLS provider; again is allowed.
pub fn install_provider() {
    // An error says that one is installed already, by a test or an embedding program.
    let _ = aws_lc_rs::default_provider().install_default();
}

/// The hub's clock, for the dates of certificates.
#[derive(Clone)]
struct Time(Clock);

impl std::fmt::Debug for Time {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Time({:?})", self.0.now())
    }
}

impl TimeProvider for Time {
    fn current_time(&self) -> Option<UnixTime> {
        Some(UnixTime::since_unix_epoch(Duration::from_millis(self.0.now().0)))
    }
}

/// The configuration of a listener; the dates of certificates are judged by `clock`.
///
/// # Errors
/// A file is missing or damaged.
pub fn server(
    pki: &Pki,
    clients: ClientCertificates,
    clock: &Clock,
) -> Result<ServerConfig, PkiError> {
    let path = pki.server_pem();
    let provider = Arc::new(aws_lc_rs::default_provider());
    let time = Arc::new(Time(clock.clone()));
    let builder = ServerConfig::builder_with_details(Arc::clone(&provider), time)
        .with_safe_default_protocol_versions()
        .map_err(|error| failed(&path, error))?;
    let builder = match clients {
        ClientCertificates::NotAsked => builder.with_no_client_auth(),
        ClientCertificates::Asked | ClientCertificates::Required => {
            let roots = Arc::new(roots(&pki.accepted_pem())?);
            let verifier = WebPkiClientVerifier::builder_with_provider(roots, provider);
            let verifier = match clients {
                ClientCertificates::Required => verifier,
                _ => verifier.allow_unauthenticated(),
            };
            let verifier = verifier.build().map_err(|error| failed(&path, error))?;
            builder.with_client_cert_verifier(verifier)
        }
    };
    let (chain, key) = chain_and_key(&path)?;
    let mut config = builder.with_single_cert(chain, key).map_err(|error| failed(&path, error))?;
    if clients != ClientCertificates::Required {
        config.alpn_protocols = vec![b"http/1.1".to_vec()];
    }
    Ok(config)
}

/// The configuration of the hub's own MQTT client, and what changes the certificate that it shows.
///
/// # Errors
/// A file is missing or damaged.
pub fn hub_client(pki: &Pki) -> Result<(ClientConfig, ClientCertificate), PkiError> {
    let shown = ClientCertificate(Arc::new(RwLock::new(certified(pki)?)));
    let config = ClientConfig::builder()
        .with_root_certificates(roots(&pki.accepted_pem())?)
        .with_client_cert_resolver(Arc::new(shown.clone()));
    Ok((config, shown))
}

/// The certificate that the hub's own client shows.
#[derive(Debug, Clone)]
pub struct ClientCertificate(Arc<RwLock<Arc<CertifiedKey>>>);

impl ClientCertificate {
    /// Shows what lies in the file now from the next connection on.
    ///
    /// # Errors
    /// The file is missing or damaged.
    pub fn renew(&self, pki: &Pki) -> Result<(), PkiError> {
        *self.0.write().unwrap_or_else(PoisonError::into_inner) = certified(pki)?;
        Ok(())
    }
}

impl ResolvesClientCert for ClientCertificate {
    fn resolve(&self, _: &[&[u8]], _: &[SignatureScheme]) -> Option<Arc<CertifiedKey>> {
        Some(Arc::clone(&self.0.read().unwrap_or_else(PoisonError::into_inner)))
    }

    fn has_certs(&self) -> bool {
        true
    }
}

fn certified(pki: &Pki) -> Result<Arc<CertifiedKey>, PkiError> {
    let path = pki.client_pem();
    let (chain, key) = chain_and_key(&path)?;
    let certified = CertifiedKey::from_der(chain, key, &aws_lc_rs::default_provider());
    certified.map(Arc::new).map_err(|error| failed(&path, error))
}

/// The first certificate in a PEM file.
///
/// # Errors
/// The file is missing or holds none.
pub fn certificate(path: &Path) -> Result<CertificateDer<'static>, PkiError> {
    CertificateDer::from_pem_file(path).map_err(|error| failed(path, error))
}

fn roots(path: &Path) -> Result<RootCertStore, PkiError> {
    let mut roots = RootCertStore::empty();
    let all = CertificateDer::pem_file_iter(path).map_err(|error| failed(path, error))?;
    for certificate in all {
        let certificate = certificate.map_err(|error| failed(path, error))?;
        roots.add(certificate).map_err(|error| failed(path, error))?;
    }
    Ok(roots)
}

type ChainAndKey = (Vec<CertificateDer<'static>>, PrivateKeyDer<'static>);

fn chain_and_key(path: &Path) -> Result<ChainAndKey, PkiError> {
    let chain = CertificateDer::pem_file_iter(path)
        .and_then(Iterator::collect)
        .map_err(|error| failed(path, error))?;
    let key = PrivateKeyDer::from_pem_file(path).map_err(|error| failed(path, error))?;
    Ok((chain, key))
}

fn failed(path: &Path, error: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> PkiError {
    PkiError::Tls { path: path.to_owned(), source: error.into() }
}
