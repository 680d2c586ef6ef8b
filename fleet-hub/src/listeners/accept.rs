//! Accepting: every connection to the hub comes in here, passes the gate, and shakes hands.

use std::future::Future;
use std::net::{SocketAddr, TcpListener};
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

use rustls::ServerConfig;
use tokio::net::TcpStream;
use tokio::sync::watch;
use tokio::task::{JoinHandle, JoinSet};
use tokio_rustls::TlsAcceptor;

use super::gate::book::ListenerKind;
use super::gate::{Connection, Gate};
use super::stream::Stream;

/// How long to wait when the system gives no connection: it lacks descriptors or memory.
const NO_CONNECTION: Duration = Duration::from_millis(100);

/// Connections that the system keeps ready for us to accept.
const BACKLOG: i32 = 1024;

/// Why a listener does not run.
#[derive(Debug, thiserror::Error)]
#[error("cannot listen at {address} for {what}; is another hub running, or the port taken?")]
pub struct ListenError {
    what: &'static str,
    address: SocketAddr,
    #[source]
    source: std::io::Error,
}

/// What a listener does with a connection whose TLS handshake is done.
pub(crate) trait Serve: Clone + Send + Sync + 'static {
    /// Serves it until its end; `name` is the common name of the client's verified certificate.
    /// When `stopping` becomes true, it finishes what is under way and ends.
    fn serve(
        self,
        stream: Stream,
        connection: Connection,
        name: Option<String>,
        stopping: watch::Receiver<bool>,
    ) -> impl Future<Output = ()> + Send;
}

/// A TLS configuration that can be changed; the next handshake uses the new one.
#[derive(Clone)]
pub struct Tls(Arc<RwLock<Arc<ServerConfig>>>);

impl Tls {
    fn new(config: ServerConfig) -> Self {
        Self(Arc::new(RwLock::new(Arc::new(config))))
    }

    fn now(&self) -> Arc<ServerConfig> {
        Arc::clone(&self.0.read().unwrap_or_else(PoisonError::into_inner))
    }

    /// Uses `config` from the next connection on.
    pub fn change(&self, config: ServerConfig) {
        *self.0.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(config);
    }
}

/// A running listener.
pub struct Listener {
    tls: Tls,
    /// None until it stops; then how long those there are may take.
    stop: watch::Sender<Option<Duration>>,
}

impl Listener {
    /// Accepts at `address` and serves; the task ends when the listener is stopped.
    ///
    /// # Errors
    /// The address is taken or not this machine's.
    pub(crate) fn start(
        (listener, what): (ListenerKind, &'static str),
        address: SocketAddr,
        tls: ServerConfig,
        gate: Gate,
        serve: impl Serve,
    ) -> Result<(Self, JoinHandle<()>), ListenError> {
        let socket = bind(address).map_err(|source| ListenError { what, address, source })?;
        let (stop, stopped) = watch::channel(None);
        let tls = Tls::new(tls);
        let accepting = Accepting { listener, socket, tls: tls.clone(), gate };
        Ok((Self { tls, stop }, tokio::spawn(accepting.run(serve, stopped))))
    }

    /// What changes the certificate that the listener shows from its next connection on.
    pub fn certificate(&self) -> Tls {
        self.tls.clone()
    }

    /// Takes no more connections; those there are may finish within `drain`.
    pub fn stop(&self, drain: Duration) {
        self.stop.send_replace(Some(drain));
    }
}

fn bind(address: SocketAddr) -> std::io::Result<tokio::net::TcpListener> {
    let socket = TcpListener::bind(address)?;
    rustix::net::listen(&socket, BACKLOG)?;
    socket.set_nonblocking(true)?;
    tokio::net::TcpListener::from_std(socket)
}

struct Accepting {
    listener: ListenerKind,
    socket: tokio::net::TcpListener,
    tls: Tls,
    gate: Gate,
}

impl Accepting {
    async fn run(self, serve: impl Serve, mut stopped: watch::Receiver<Option<Duration>>) {
        let (stopping, stopping_rx) = watch::channel(false);
        let mut connections = JoinSet::new();
        let drain = loop {
            // Cancel-safe: a connection that is not accepted yet waits in the system's queue, an end
            // that is not looked at yet in the set.
            tokio::select! {
                accepted = self.accept() => {
                    let Some((socket, from)) = accepted else { continue };
                    let attended = self.attend(socket, from, serve.clone(), stopping_rx.clone());
                    connections.spawn(attended);
                }
                Some(_) = connections.join_next(), if !connections.is_empty() => {}
                stop = stopped.wait_for(Option::is_some) => {
                    break stop.ok().and_then(|drain| *drain).unwrap_or_default();
                }
            }
        };
        stopping.send_replace(true);
        let ending = async { while connections.join_next().await.is_some() {} };
        if tokio::time::timeout(drain, ending).await.is_err() {
            tracing::warn!(listener = self.listener.name(), "connections are cut off by the stop");
        }
    }

    async fn accept(&self) -> Option<(TcpStream, SocketAddr)> {
        self.gate.settled().await;
        match self.socket.accept().await {
            Ok(accepted) => Some(accepted),
            Err(error) => {
                // A client that is gone again is no trouble; a lack of descriptors is.
                if !matches!(error.kind(), std::io::ErrorKind::ConnectionAborted) {
                    tracing::error!(listener = self.listener.name(), %error, "cannot accept");
                    tokio::time::sleep(NO_CONNECTION).await;
                }
                None
            }
        }
    }

    fn attend<S: Serve>(
        &self,
        socket: TcpStream,
        from: SocketAddr,
        serve: S,
        stopping: watch::Receiver<bool>,
    ) -> impl Future<Output = ()> + use<S> {
        let admitted = self.gate.admit(self.listener, from);
        let connection = admitted.0.clone();
        let acceptor = TlsAcceptor::from(self.tls.now());
        let listener = self.listener;
        let work = async move {
            // So that small answers do not wait, and a client that vanished is noticed some day.
            let _ = socket.set_nodelay(true);
            let _ = rustix::net::sockopt::set_socket_keepalive(&socket, true);
            let stream = match acceptor.accept(socket).await {
                Ok(stream) => stream,
                Err(error) => {
                    tracing::debug!(listener = listener.name(), %from, %error, "no TLS handshake");
                    return;
                }
            };
            let certificates = stream.get_ref().1.peer_certificates();
            let name = certificates.and_then(|chain| common_name(chain.first()?));
            let stream = Stream::new(stream, connection.clone());
            serve.serve(stream, connection, name, stopping).await;
        };
        async move {
            // Cancel-safe: what is dropped is a connection that must close.
            tokio::select! {
                () = Box::pin(work) => {}
                () = admitted.0.closed() => {}
            }
        }
    }
}

/// The common name of a certificate whose chain rustls has verified.
fn common_name(certificate: &[u8]) -> Option<String> {
    let (_, parsed) = x509_parser::parse_x509_certificate(certificate).ok()?;
    let name = parsed.subject().iter_common_name().next()?.as_str().ok()?;
    Some(name.to_owned())
}
