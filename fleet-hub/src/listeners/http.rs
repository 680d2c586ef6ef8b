//! HTTP/1.1 over a connection that has been let in.

use std::convert::Infallible;

use axum::Router;
use axum::body::Body;
use axum::extract::ConnectInfo;
use axum::http::{Request, Response};
use fleetloop_protocol::DeviceId;
use fleetloop_protocol::api::devices::DeviceState;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use tokio::sync::watch;
use tower::ServiceExt as _;

use super::accept::Serve;
use super::body::{Answer, Paced};
use super::device::Peer;
use super::gate::Connection;
use super::gate::book::{Holder, Phase};
use super::stream::Stream;
use crate::store::{Store, StoreError, devices};

/// Descriptors of a device's connection: its own, and that of a file which it fetches or sends.
const DESCRIPTORS: u64 = 2;

/// Requests to a router. What the client's certificate says of it stands in each as [`Peer`], what
/// the gate knows of the connection as [`Connection`].
#[derive(Clone)]
pub(super) struct Http {
    pub(super) router: Router,
    pub(super) store: Store,
}

impl Serve for Http {
    async fn serve(
        self,
        stream: Stream,
        connection: Connection,
        name: Option<String>,
        mut stopping: watch::Receiver<bool>,
    ) {
        if let Some(device) = enrolled(&self.store, name.as_deref()).await {
            // Without room it is served all the same, as somebody without authentication.
            connection.authenticated(Holder::Device(device), DESCRIPTORS);
        }
        connection.enter(Phase::Header);
        let peer = Peer { common_name: name, certificate: stream.certificate() };
        let service = service_fn(|request: Request<Incoming>| {
            connection.enter(Phase::Request);
            let mut request = request.map(|body| Body::new(Paced::new(body, connection.clone())));
            request.extensions_mut().insert(peer.clone());
            request.extensions_mut().insert(ConnectInfo(connection.from()));
            request.extensions_mut().insert(connection.clone());
            let (answer, connection) = (self.router.clone().oneshot(request), connection.clone());
            async move {
                let answer: Response<Body> = answer.await?;
                Ok::<_, Infallible>(answer.map(|body| Answer::new(body, connection)))
            }
        });
        // Every time limit is the gate's.
        let serving = http1::Builder::new()
            .header_read_timeout(None)
            .serve_connection(TokioIo::new(stream), service);
        let mut serving = std::pin::pin!(serving);
        // Cancel-safe: both are polled again or not needed any more.
        let ended = tokio::select! {
            ended = serving.as_mut() => Some(ended),
            _ = stopping.wait_for(|now| *now) => None,
        };
        let ended = match ended {
            Some(ended) => ended,
            None => {
                serving.as_mut().graceful_shutdown();
                serving.await
            }
        };
        if let Err(error) = ended {
            tracing::debug!(from = %connection.from(), %error, "a connection ended early");
        }
    }
}

/// The enrolled device of that certificate name, if it is one's.
pub(crate) async fn enrolled(store: &Store, name: Option<&str>) -> Option<DeviceId> {
    let device: DeviceId = name?.parse().ok()?;
    let id = device.clone();
    match store.read(move |connection| devices::get(connection, &id)).await {
        Ok(row) => (row.state == DeviceState::Enrolled).then_some(device),
        Err(StoreError::NotFound { .. }) => None,
        Err(error) => {
            // In doubt nobody is let in; the device tries again.
            let error: &dyn std::error::Error = &error;
            tracing::error!(%device, error, "cannot look up a device");
            None
        }
    }
}
