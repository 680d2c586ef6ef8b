//! The HTTPS listeners: admin (pages, API, enrolment; server TLS) and device (mutual TLS, but for the
//! time and for renewing a certificate). Their own certificates are changed while they serve.

pub mod device;
mod peer;
pub mod range;
mod renew;
mod rest;
mod upload;

use std::net::{SocketAddr, TcpListener};
use std::sync::Arc;
use std::time::Duration;

use axum::{Router, middleware};
use axum_server::Handle;
use axum_server::tls_rustls::{RustlsAcceptor, RustlsConfig};
use rustls::ServerConfig;
use tokio::task::JoinHandle;

use peer::PeerAcceptor;

/// Why a listener does not run.
#[derive(Debug, thiserror::Error)]
#[error("cannot listen at {address} for {what}; is another hub running, or the port taken?")]
pub struct ListenError {
    what: &'static str,
    address: SocketAddr,
    #[source]
    source: std::io::Error,
}

/// A running listener.
pub struct Listener {
    handle: Handle<SocketAddr>,
    tls: RustlsConfig,
}

impl Listener {
    /// Serves `router` at `address`; the task ends when the listener is stopped or fails. What the
    /// client's certificate says of it stands in each request as [`device::Peer`].
    ///
    /// # Errors
    /// The address is taken or not this machine's.
    pub fn start(
        what: &'static str,
        address: SocketAddr,
        tls: ServerConfig,
        router: Router,
    ) -> Result<(Self, JoinHandle<()>), ListenError> {
        let failed = |source| ListenError { what, address, source };
        let socket = TcpListener::bind(address).map_err(failed)?;
        socket.set_nonblocking(true).map_err(failed)?;
        let handle = Handle::new();
        let tls = RustlsConfig::from_config(Arc::new(tls));
        let router = router.layer(middleware::from_fn(rest::read_first));
        let acceptor = RustlsAcceptor::new(tls.clone());
        let server = axum_server::from_tcp(socket)
            .map_err(failed)?
            .acceptor(PeerAcceptor::new(acceptor))
            .handle(handle.clone())
            .serve(router.into_make_service());
        let task = tokio::spawn(async move {
            if let Err(error) = server.await {
                tracing::error!(what, %address, %error, "a listener stopped");
            }
        });
        Ok((Self { handle, tls }, task))
    }

    /// What changes the certificate that the listener shows from its next connection on.
    pub fn certificate(&self) -> RustlsConfig {
        self.tls.clone()
    }

    /// Takes no more connections; those there are may finish within `drain`.
    pub fn stop(&self, drain: Duration) {
        self.handle.graceful_shutdown(Some(drain));
    }
}
