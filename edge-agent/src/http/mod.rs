//! The local HTTP port: loopback only, read only, no login. It answers `GET` requests that name this
//! machine ([`host`]), over few and short connections ([`mod@serve`]).
//!
//! `GET /healthz` is [`Health`] as JSON, 200 while the agent does its work and 503 otherwise;
//! `GET /status` is [`Status`] as JSON; `GET /metrics` is the same for Prometheus ([`mod@metrics`]);
//! `GET /results/latest?n=` is the newest results, the newest first, at most
//! [`crate::results::LATEST`].

mod host;
mod serve;

use std::net::SocketAddr;
use std::sync::Arc;

use axum::extract::{Query, State};
use axum::http::{StatusCode, header};
use axum::middleware::from_fn;
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
use crate::shutdown::Shutdown;
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
pub async fn serve(listener: TcpListener, shown: Shown, signal: watch::Receiver<Shutdown>) {
    serve::serve(listener, router(shown), signal).await;
}

fn router(shown: Shown) -> Router {
    Router::new()
        .route("/healthz", get(healthz))
        .route("/metrics", get(metrics))
        .route("/status", get(status))
        .route("/results/latest", get(latest))
        .layer(from_fn(host::only_this_machine))
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

    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    use tokio::net::TcpStream;

    use super::*;
    use crate::shutdown;
    use crate::telemetry::Meter;

    fn shown() -> Shown {
        let meter = Meter::new(Duration::ZERO);
        Shown {
            status: Arc::new(crate::status::testing::answering),
            latencies: Arc::new(move || meter.latencies()),
            latest: Arc::default(),
        }
    }

    /// What the port answers to these bytes, to its end.
    async fn say(listen: SocketAddr, request: &str) -> String {
        let mut stream = TcpStream::connect(listen).await.unwrap();
        stream.write_all(request.as_bytes()).await.unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await.unwrap();
        answer
    }

    #[tokio::test]
    async fn another_name_another_method_and_a_second_host_get_nothing() {
        let listener = bind("127.0.0.1:0".parse().unwrap()).await.unwrap();
        let listen = listener.local_addr().unwrap();
        let (_sender, signal) = shutdown::channel();
        tokio::spawn(serve(listener, shown(), signal));
        let ask = async |line: &str, hosts: &[&str]| {
            let hosts: String = hosts.iter().map(|host| format!("Host: {host}\r\n")).collect();
            say(listen, &format!("{line} HTTP/1.1\r\n{hosts}\r\n")).await
        };
        assert!(ask("GET /healthz", &["localhost:1"]).await.starts_with("HTTP/1.1 200"));
        assert!(ask("GET /healthz", &["evil.example"]).await.starts_with("HTTP/1.1 421"));
        assert!(
            ask("GET /status", &["localhost", "evil.example"]).await.starts_with("HTTP/1.1 421")
        );
        assert!(ask("GET /status", &[]).await.starts_with("HTTP/1.1 4"));
        for method in ["POST", "PUT", "DELETE", "OPTIONS"] {
            let answer = ask(&format!("{method} /status"), &["localhost"]).await;
            assert!(answer.starts_with("HTTP/1.1 405"), "{method}: {answer}");
        }
        // One request a connection, whatever the client would like.
        let answer = ask("GET /healthz", &["localhost"]).await;
        assert!(answer.to_lowercase().contains("connection: close"), "{answer}");
    }

    #[tokio::test]
    async fn idle_connections_keep_nobody_out() {
        let listener = bind("127.0.0.1:0".parse().unwrap()).await.unwrap();
        let listen = listener.local_addr().unwrap();
        let (_sender, signal) = shutdown::channel();
        tokio::spawn(serve(listener, shown(), signal));
        let mut idle = Vec::new();
        for n in 0..300 {
            let mut stream = TcpStream::connect(listen).await.unwrap();
            // Half of them have begun a header.
            if n % 2 == 0 {
                stream.write_all(b"GET /status HTTP/1.1\r\n").await.unwrap();
            }
            idle.push(stream);
        }
        assert!(
            say(listen, "GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n").await.contains("200")
        );
        // All but the newest were closed to make room.
        let mut closed = 0;
        for stream in &mut idle[..300 - 2 * serve::CONNECTIONS] {
            let end =
                tokio::time::timeout(Duration::from_secs(20), stream.read(&mut [0; 64])).await;
            closed += usize::from(matches!(end, Ok(Ok(0) | Err(_))));
        }
        assert_eq!(closed, 300 - 2 * serve::CONNECTIONS);
    }

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
        assert_eq!(
            get("/healthz").await,
            (200, r#"{"healthy":true,"reasons":[],"notes":[]}"#.into())
        );
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
        server.await.unwrap();
        assert_eq!(crate::status::ask(listen).await, None);
    }
}
