//! The local HTTP port: loopback only, read only, no login.
//!
//! `GET /healthz` is [`Health`] as JSON, 200 while the agent does its work and 503 otherwise;
//! `GET /status` is [`Status`] as JSON; `GET /metrics` is the same for Prometheus ([`mod@metrics`]);
//! `GET /results/latest?n=` is the newest results, the newest first, at most
//! [`crate::results::LATEST`].

use std::net::SocketAddr;
use std::sync::Arc;

use axum::extract::{Query, State};
use axum::http::{StatusCode, header};
use axum::response::IntoResponse;
use axum::routing::get;
use axum::{Json, Router};
use fleetloop_observe::metrics::{CONTENT_TYPE, Distribution};
use serde::Deserialize;
use tokio::net::TcpListener;
use tokio::sync::watch;

use crate::health::Health;
use crate::metrics;
use crate::results::{LATEST, Latest, ResultRecord};
use crate::shutdown::{self, Shutdown};
use crate::status::Status;

/// What the port shows.
#[derive(Clone)]
pub struct Shown {
    /// Makes the status of now.
    pub status: Arc<dyn Fn() -> Status + Send + Sync>,
    /// The latencies since start.
    pub latencies: Arc<dyn Fn() -> Distribution + Send + Sync>,
    /// The latest results.
    pub latest: Arc<Latest>,
}

/// Why there is no port.
#[derive(Debug, thiserror::Error)]
#[error("cannot listen on {listen}; is another agent running? set http.listen")]
pub struct HttpError {
    listen: SocketAddr,
    #[source]
    source: std::io::Error,
}

#[derive(Debug, Deserialize)]
struct LatestQuery {
    n: Option<usize>,
}

/// Takes the port.
///
/// # Errors
/// [`HttpError`] when it is taken.
pub async fn bind(listen: SocketAddr) -> Result<TcpListener, HttpError> {
    TcpListener::bind(listen).await.map_err(|source| HttpError { listen, source })
}

/// Serves until the signal says [`Shutdown::Now`].
///
/// # Errors
/// The system's, when the socket fails.
pub async fn serve(
    listener: TcpListener,
    shown: Shown,
    mut signal: watch::Receiver<Shutdown>,
) -> std::io::Result<()> {
    axum::serve(listener, router(shown))
        .with_graceful_shutdown(async move { shutdown::reached(&mut signal, Shutdown::Now).await })
        .await
}

fn router(shown: Shown) -> Router {
    Router::new()
        .route("/healthz", get(healthz))
        .route("/metrics", get(metrics))
        .route("/status", get(status))
        .route("/results/latest", get(latest))
        .with_state(shown)
}

async fn healthz(State(shown): State<Shown>) -> impl IntoResponse {
    let health = Health::of(&(shown.status)());
    let code = if health.healthy { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
    (code, Json(health))
}

async fn metrics(State(shown): State<Shown>) -> impl IntoResponse {
    let text = metrics::text((shown.status)(), (shown.latencies)());
    let text = text.map_err(|_| StatusCode::INTERNAL_SERVER_ERROR);
    text.map(|text| ([(header::CONTENT_TYPE, CONTENT_TYPE)], text))
}

async fn status(State(shown): State<Shown>) -> Json<Status> {
    Json((shown.status)())
}

async fn latest(
    State(shown): State<Shown>,
    Query(query): Query<LatestQuery>,
) -> Json<Vec<ResultRecord>> {
    let newest = shown.latest.newest(query.n.unwrap_or(1).min(LATEST));
    Json(newest.iter().map(|record| ResultRecord::clone(record)).collect())
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;
    use std::time::Duration;

    use super::*;
    use crate::telemetry::Meter;

    #[tokio::test]
    async fn the_port_answers_with_the_status_and_ends_with_the_signal() {
        rustls::crypto::aws_lc_rs::default_provider().install_default().ok();
        let listener = bind("127.0.0.1:0".parse().unwrap()).await.unwrap();
        let listen = listener.local_addr().unwrap();
        let well = crate::status::testing::answering();
        let mut expected = well.clone();
        let given = Arc::new(Mutex::new(well));
        let (shared, meter) = (Arc::clone(&given), Meter::new(Duration::ZERO));
        let shown = Shown {
            status: Arc::new(move || shared.lock().unwrap().clone()),
            latencies: Arc::new(move || meter.latencies()),
            latest: Arc::default(),
        };
        let (sender, signal) = shutdown::channel();
        let server = tokio::spawn(serve(listener, shown, signal));
        assert_eq!(crate::status::ask(listen).await.as_ref(), Some(&expected));
        let client = reqwest::Client::builder().no_proxy().build().unwrap();
        let get = async |path: &str| {
            let response = client.get(format!("http://{listen}{path}")).send().await.unwrap();
            (response.status().as_u16(), response.text().await.unwrap())
        };
        assert_eq!(get("/healthz").await, (200, r#"{"healthy":true,"reasons":[]}"#.into()));
        let (code, text) = get("/metrics").await;
        assert!(code == 200 && text.contains("\nfleetloop_agent_outbox_bytes 13\n"), "{text}");
        expected.outbox.as_mut().unwrap().paused = true;
        *given.lock().unwrap() = expected;
        let (code, text) = get("/healthz").await;
        assert!(code == 503 && text.contains("the disk refuses samples"), "{text}");
        assert_eq!(get("/results/latest?n=5").await, (200, "[]".into()));
        assert_eq!(get("/results/latest?n=x").await.0, 400);
        assert!(bind(listen).await.unwrap_err().to_string().contains("http.listen"));
        drop(client);
        sender.send_replace(Shutdown::Now);
        server.await.unwrap().unwrap();
        assert_eq!(crate::status::ask(listen).await, None);
    }
}
