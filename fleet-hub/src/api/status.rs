//! How the hub is: numbers for people and programs, metrics for Prometheus, health for whoever
//! restarts it.
//!
//! `/api/v1/status` and `/metrics` take a token of any role: a scraper should hold the least.
//! `/metrics/devices` names devices and takes an annotator's or an admin's. `/healthz` takes none, for whoever probes a process has none.

use axum::Router;
use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::IntoResponse;
use axum::routing::get;
use fleetloop_observe::metrics::CONTENT_TYPE;
use fleetloop_protocol::api::status::HubStatus;

use super::auth::{AnyCaller, LabelCaller};
use super::error::Failure;
use crate::{AppState, metrics, status};

/// The endpoint below the API's prefix.
pub fn router() -> Router<AppState> {
    Router::new().route("/status", get(show))
}

/// The endpoints beside the API.
pub fn beside() -> Router<AppState> {
    Router::new()
        .route("/metrics", get(scrape))
        .route("/metrics/devices", get(scrape_devices))
        .route("/healthz", get(healthz))
}

async fn show(
    _caller: AnyCaller,
    State(state): State<AppState>,
) -> Result<axum::Json<HubStatus>, Failure> {
    Ok(axum::Json(status::status(&state).await?))
}

async fn scrape(
    _caller: AnyCaller,
    State(state): State<AppState>,
) -> Result<impl IntoResponse, Failure> {
    let status = status::status(&state).await?;
    let text = metrics::text(status).map_err(|e| Failure::internal("write the metrics", &e))?;
    Ok(([(header::CONTENT_TYPE, CONTENT_TYPE)], text))
}

async fn scrape_devices(
    _caller: LabelCaller,
    State(state): State<AppState>,
) -> Result<impl IntoResponse, Failure> {
    let now = state.clock.now();
    let devices = state.store.read(move |connection| super::devices::all(connection, now)).await?;
    let text = metrics::devices::text(devices)
        .map_err(|e| Failure::internal("write the devices' metrics", &e))?;
    Ok(([(header::CONTENT_TYPE, CONTENT_TYPE)], text))
}

async fn healthz(State(state): State<AppState>) -> impl IntoResponse {
    let health = status::health(&state).await;
    let code = if health.healthy { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
    (code, axum::Json(health))
}

#[cfg(test)]
mod tests {
    use axum::body::Body;
    use axum::http::{Method, Request};
    use fleetloop_protocol::api::status::Health;
    use fleetloop_protocol::receipt::RefusalReason;
    use fleetloop_protocol::sample::Selection;
    use prometheus_parse::{Scrape, Value};

    use super::*;
    use crate::api::testing::{Hub, picture};
    use crate::store::{ingest, labels};

    async fn busy_hub() -> Hub {
        let hub = Hub::new().await;
        let mut device = hub.device("dev-1", "press").await;
        hub.device("dev-2", "lathe").await;
        let chosen = Selection::Uncertain { score: 0.7 };
        let sample = hub.sample(&mut device, &picture(1), chosen).await;
        hub.sample(&mut device, &picture(2), chosen).await;
        let now = hub.state.clock.now();
        hub.state
            .store
            .write(move |tx| {
                ingest::count_refusal(tx, &device.id, RefusalReason::Malformed)?;
                ingest::count(tx, "repeated")?;
                tx.execute(
                    "UPDATE device SET last_seen_ms = ?1 WHERE id = 'dev-1'",
                    [now.0.cast_signed()],
                )?;
                labels::give(tx, sample, "boot", "anna", now)
            })
            .await
            .unwrap();
        hub
    }

    #[tokio::test]
    async fn each_enrolled_device_has_its_series_for_whoever_may_see_devices() {
        let hub = busy_hub().await;
        let path = "/metrics/devices";
        hub.ask(Method::GET, &hub.worker, path, Body::empty()).await.error(403);
        let revoke = "/api/v1/devices/dev-2/revoke";
        assert_eq!(hub.post(revoke, &serde_json::json!({})).await.status, 200);
        let answer = hub.ask(Method::GET, &hub.annotator, path, Body::empty()).await;
        assert_eq!(answer.headers[header::CONTENT_TYPE], CONTENT_TYPE);
        let text = answer.text();
        let scrape = Scrape::parse(text.lines().map(|line| Ok(line.to_owned()))).unwrap();
        let values = |name: &str| -> Vec<(String, f64)> {
            let of_name = scrape.samples.iter().filter(|sample| sample.metric == name);
            of_name
                .map(|sample| match sample.value {
                    Value::Untyped(value) | Value::Gauge(value) => {
                        (sample.labels["device"].to_string(), value)
                    }
                    ref other => panic!("{name}: {other:?}"),
                })
                .collect()
        };
        let of_1 = |value: f64| vec![("dev-1".to_owned(), value)];
        assert_eq!(values("fleetloop_device_samples_stored_total"), of_1(2.0));
        assert_eq!(values("fleetloop_device_refusals_total"), of_1(1.0));
        let seen = hub.state.clock.now().0 / 1000;
        assert_eq!(values("fleetloop_device_seen_timestamp_seconds"), of_1(seen as f64));
        assert_eq!(values("fleetloop_device_outbox_messages"), [], "it never said");
        assert!(text.contains("name=\"press\""), "{text}");
    }

    #[tokio::test]
    async fn the_metrics_are_the_statuses_numbers_for_any_token_and_for_no_one_without() {
        let hub = busy_hub().await;
        for token in [&hub.admin, &hub.annotator, &hub.worker] {
            let answer = hub.ask(Method::GET, token, "/metrics", Body::empty()).await;
            assert_eq!(answer.status, 200);
        }
        let without = Request::get("/metrics").body(Body::empty()).unwrap();
        let refused = hub.send(without).await.error(401);
        assert!(refused.message.contains("cannot GET /metrics:"), "{}", refused.message);
        let status: HubStatus = hub.get("/api/v1/status").await.json();
        assert_eq!((status.samples.fleet, status.samples.fleet_labelled), (2, 1));
        assert_eq!((status.devices_enrolled, status.devices_connected, status.labels), (2, 1, 1));
        assert_eq!(status.refused_by_reason["malformed"], 1);
        let answer = hub.get("/metrics").await;
        assert_eq!(answer.headers[header::CONTENT_TYPE], CONTENT_TYPE);
        let text = answer.text();
        let scrape = Scrape::parse(text.lines().map(|line| Ok(line.to_owned()))).unwrap();
        let value = |name: &str, label: &str| {
            let found = scrape.samples.iter().find(|sample| {
                sample.metric == format!("fleetloop_hub_{name}")
                    && (label.is_empty() || sample.labels.values().any(|value| value == label))
            });
            match found.map(|sample| &sample.value) {
                Some(Value::Untyped(value) | Value::Gauge(value)) => *value,
                other => panic!("{name} {label}: {other:?}"),
            }
        };
        for (name, label, expected) in [
            ("samples_total", "fleet", status.samples.fleet),
            ("samples_total", "import", status.samples.imported),
            ("samples_labelled", "", status.samples.fleet_labelled),
            ("receipts_total", "", 3),
            ("repeats_total", "", status.samples.repeated),
            ("refusals_total", "malformed", 1),
            ("devices", "enrolled", status.devices_enrolled),
            ("devices", "revoked", status.devices_revoked),
            ("devices_connected", "", status.devices_connected),
            ("labels_total", "", status.labels),
            ("database_bytes", "", status.database_bytes),
            ("messages_limit", "", status.messages_limit),
        ] {
            assert_eq!(value(name, label), expected as f64, "{name} {label}");
        }
    }

    #[tokio::test]
    async fn a_hub_without_its_broker_is_unwell_and_says_why_without_a_token() {
        let hub = Hub::new().await;
        let ask = async || {
            let answer = hub.send(Request::get("/healthz").body(Body::empty()).unwrap()).await;
            let health: Health = serde_json::from_slice(&answer.body).unwrap();
            (answer.status.as_u16(), health)
        };
        let (code, health) = ask().await;
        assert_eq!((code, health.reasons.len()), (503, 1));
        assert!(health.reasons[0].contains("broker"), "{health:?}");
        hub.state.vitals.connected.send_replace(true);
        assert_eq!(ask().await, (200, Health { healthy: true, reasons: Vec::new() }));
    }
}
