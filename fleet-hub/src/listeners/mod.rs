//! The listeners: admin (pages, API, enrolment; server TLS), device (mutual TLS, but for the time and
//! for renewing a certificate), and MQTT (mutual TLS; what happens on it is the broker's).
//!
//! All three accept in one place ([`accept`]), behind one [`gate`]. Their own certificates are
//! changed while they serve.

pub(crate) mod accept;
mod body;
pub mod device;
pub mod gate;
mod http;
pub mod range;
mod renew;
mod rest;
mod stranger;
mod stream;
mod upload;

use std::net::SocketAddr;

use axum::{Router, middleware};
use rustls::ServerConfig;
use tokio::task::JoinHandle;

use crate::state::AppState;

pub use accept::{ListenError, Listener, Tls};
pub(crate) use http::enrolled;
pub(crate) use stream::Stream;

/// Serves `router` over HTTPS at `address`; the task ends when the listener is stopped. What the
/// client's certificate says of it stands in each request as [`device::Peer`], the connection as
/// [`gate::Connection`].
///
/// # Errors
/// The address is taken or not this machine's.
pub fn https(
    listener: (gate::book::ListenerKind, &'static str),
    address: SocketAddr,
    tls: ServerConfig,
    router: Router,
    state: &AppState,
) -> Result<(Listener, JoinHandle<()>), ListenError> {
    let router = router.layer(middleware::from_fn(rest::read_first));
    let http = http::Http { router, store: state.store.clone() };
    Listener::start(listener, address, tls, state.vitals.gate.clone(), http)
}
