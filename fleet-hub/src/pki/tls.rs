//! TLS configurations out of the hub's files. The process's provider (aws-lc-rs) is installed first
//! thing in `main`.

use std::path::Path;
use std::sync::Arc;

use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::WebPkiClientVerifier;
use rustls::{ClientConfig, RootCertStore, ServerConfig};

use super::{Pki, PkiError};

/// Whether a server asks its clients for a certificate.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ClientCertificates {
    /// None is asked for: people and programs prove themselves with a token.
    NotAsked,
    /// Without one that our CA signed there is no connection.
    Required,
}

/// Makes aws-lc-rs the process's TLS provider; again is allowed.
pub fn install_provider() {
    // An error says that one is installed already, by a test or an embedding program.
    let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
}

/// The configuration of an HTTPS listener.
///
/// # Errors
/// A file is missing or damaged.
pub fn server(pki: &Pki, clients: ClientCertificates) -> Result<ServerConfig, PkiError> {
    let path = pki.server_pem();
    let builder = match clients {
        ClientCertificates::NotAsked => ServerConfig::builder().with_no_client_auth(),
        ClientCertificates::Required => {
            let verifier = WebPkiClientVerifier::builder(Arc::new(roots(&pki.ca_pem())?))
                .build()
                .map_err(|error| failed(&path, error))?;
            ServerConfig::builder().with_client_cert_verifier(verifier)
        }
    };
    let (chain, key) = chain_and_key(&path)?;
    let mut config = builder.with_single_cert(chain, key).map_err(|error| failed(&path, error))?;
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    Ok(config)
}

/// The configuration of the hub's own MQTT client.
///
/// # Errors
/// A file is missing or damaged.
pub fn hub_client(pki: &Pki) -> Result<ClientConfig, PkiError> {
    let path = pki.client_pem();
    let (chain, key) = chain_and_key(&path)?;
    ClientConfig::builder()
        .with_root_certificates(roots(&pki.ca_pem())?)
        .with_client_auth_cert(chain, key)
        .map_err(|error| failed(&path, error))
}

/// The first certificate in a PEM file.
///
/// # Errors
/// The file is missing or holds none.
pub fn certificate(path: &Path) -> Result<CertificateDer<'static>, PkiError> {
    CertificateDer::from_pem_file(path).map_err(|error| failed(path, error))
}

fn roots(ca_pem: &Path) -> Result<RootCertStore, PkiError> {
    let mut roots = RootCertStore::empty();
    roots.add(certificate(ca_pem)?).map_err(|error| failed(ca_pem, error))?;
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
