//! Hands the name in a client's verified certificate to its requests.

use std::future::Future;
use std::io;
use std::pin::Pin;

use axum::Extension;
use axum::middleware::AddExtension;
use axum_server::accept::Accept;
use axum_server::tls_rustls::RustlsAcceptor;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio_rustls::server::TlsStream;
use tower::Layer as _;

use super::device::Peer;

/// Accepts TLS and remembers whose certificate it was.
#[derive(Clone)]
pub(super) struct PeerAcceptor {
    tls: RustlsAcceptor,
}

impl PeerAcceptor {
    pub(super) fn new(tls: RustlsAcceptor) -> Self {
        Self { tls }
    }
}

type Accepted<I, S> = (TlsStream<I>, AddExtension<S, Peer>);

impl<I, S> Accept<I, S> for PeerAcceptor
where
    I: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    S: Send + 'static,
{
    type Stream = TlsStream<I>;
    type Service = AddExtension<S, Peer>;
    type Future = Pin<Box<dyn Future<Output = io::Result<Accepted<I, S>>> + Send>>;

    fn accept(&self, stream: I, service: S) -> Self::Future {
        let accepting = self.tls.accept(stream, service);
        Box::pin(async move {
            let (stream, service) = accepting.await?;
            let certificates = stream.get_ref().1.peer_certificates();
            let name = certificates.and_then(|chain| common_name(chain.first()?));
            let service = Extension(Peer { common_name: name }).layer(service);
            Ok((stream, service))
        })
    }
}

/// The common name of a certificate whose chain rustls has verified.
fn common_name(certificate: &[u8]) -> Option<String> {
    let (_, parsed) = x509_parser::parse_x509_certificate(certificate).ok()?;
    let name = parsed.subject().iter_common_name().next()?.as_str().ok()?;
    Some(name.to_owned())
}
