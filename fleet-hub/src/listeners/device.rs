//! What a device asks for: release metadata, artefacts, the time, a new certificate; and the
//! payloads it uploads.
//!
//! Behind mutual TLS; the certificate's name must be an enrolled device at every request, so that a
//! revoked one is refused on a connection it had open. Nothing is trusted by the device because it
//! came from here: metadata is signed, artefacts are named by their digest.
//!
//! Two roads are open to a client that shows no certificate: `POST /renew`, which proves itself by
//! the enrolled key, and `GET /time`. A device that woke without a clock cannot know whether its
//! certificate has expired; it must learn the time before it can tell, and whoever reaches this port
//! sees the time in every answer anyway. A certificate that is shown must hold on these roads too.

use std::sync::Arc;

use axum::body::Body;
use axum::extract::{DefaultBodyLimit, Path, Request, State};
use axum::http::header::{ACCEPT_RANGES, CONTENT_LENGTH, CONTENT_RANGE, CONTENT_TYPE, ETAG, RANGE};
use axum::http::{HeaderMap, StatusCode};
use axum::middleware::{self, Next};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, put};
use axum::{Extension, Json, Router};
use fleetloop_protocol::api::ApiError;
use fleetloop_protocol::api::devices::DeviceState;
use fleetloop_protocol::time::HubTime;
use fleetloop_protocol::{DeviceId, Digest, wire};

use super::range::{Wanted, wanted};
use super::renew;
use super::upload;
use crate::pki::Pki;
use crate::release;
use crate::state::AppState;
use crate::store::{StoreError, devices};

/// The largest metadata file that is served, in bytes.
const METADATA_BYTES: u64 = 4 * 1024 * 1024;

/// Whose connection it is, by the client's certificate; no name when it showed none.
#[derive(Debug, Clone)]
pub struct Peer {
    pub(super) common_name: Option<String>,
}

/// The routes of the device listener.
pub fn router(state: AppState, pki: Arc<Pki>) -> Router {
    let for_enrolled = Router::new()
        .route("/tuf/dev/{file}", get(metadata))
        .route("/artefacts/{digest}", get(artefact))
        .route("/payloads/{commitment}", put(upload::put).head(upload::has))
        .layer(middleware::from_fn_with_state(state.clone(), only_enrolled));
    for_enrolled
        .route("/time", get(time))
        // Uploads are taken piece by piece within limits of their own; nothing else has a body.
        .layer(DefaultBodyLimit::max(0))
        .with_state(state.clone())
        .merge(renew::router(state, pki))
}

/// Refuses whoever is not an enrolled device; the device's id stands in the request from here on.
async fn only_enrolled(
    State(state): State<AppState>,
    Extension(peer): Extension<Peer>,
    mut request: Request,
    next: Next,
) -> Result<Response, Refused> {
    let device: DeviceId = peer
        .common_name
        .as_deref()
        .and_then(|name| name.parse().ok())
        .ok_or_else(|| Refused::forbidden("no certificate, or one that names no device"))?;
    let id = device.clone();
    let row = state.store.read(move |connection| devices::get(connection, &id)).await;
    match row {
        Ok(row) if row.state == DeviceState::Enrolled => {}
        Ok(_) | Err(StoreError::NotFound { .. }) => {
            tracing::warn!(%device, "refused: not enrolled, or revoked");
            return Err(Refused::forbidden("the device is not enrolled here, or is revoked"));
        }
        Err(error) => return Err(error.into()),
    }
    request.extensions_mut().insert(device);
    Ok(next.run(request).await)
}

async fn time(State(state): State<AppState>) -> Json<HubTime> {
    Json(HubTime { now_ms: state.clock.now(), reads_version: wire::VERSION })
}

async fn metadata(
    State(state): State<AppState>,
    Path(file): Path<String>,
) -> Result<Response, Refused> {
    let missing = || Refused::not_found("there is no such metadata");
    // Only names that metadata can have become a path.
    let path = release::metadata_path(&state.config.paths.tuf(), &file).ok_or_else(missing)?;
    let failed = |error: std::io::Error| match error.kind() {
        std::io::ErrorKind::NotFound => missing(),
        _ => Refused::failed(&error),
    };
    if tokio::fs::metadata(&path).await.map_err(failed)?.len() > METADATA_BYTES {
        return Err(Refused::failed(&std::io::Error::other("metadata over 4 MiB")));
    }
    let bytes = tokio::fs::read(&path).await.map_err(failed)?;
    Ok(([(CONTENT_TYPE, "application/json")], bytes).into_response())
}

async fn artefact(
    State(state): State<AppState>,
    Path(digest): Path<String>,
    headers: HeaderMap,
) -> Result<Response, Refused> {
    let digest: Digest = digest
        .parse()
        .map_err(|_| Refused::not_found("an artefact is named by 64 hexadecimal digits"))?;
    let len = state.artefacts.size(digest).await?;
    let range = headers.get(RANGE).and_then(|value| value.to_str().ok());
    let (status, first, last) = match wanted(range, len) {
        Wanted::All => (StatusCode::OK, 0, len),
        Wanted::Part { first, last } => (StatusCode::PARTIAL_CONTENT, first, last + 1),
        Wanted::Unsatisfiable => {
            let head = [(CONTENT_RANGE, format!("bytes */{len}"))];
            return Ok((StatusCode::RANGE_NOT_SATISFIABLE, head).into_response());
        }
    };
    let part = (status == StatusCode::PARTIAL_CONTENT).then_some(first..last);
    let stream = state.artefacts.stream(digest, part).await?;
    let head = [
        (CONTENT_TYPE, "application/octet-stream".to_owned()),
        (CONTENT_LENGTH, (last - first).to_string()),
        (ACCEPT_RANGES, "bytes".to_owned()),
        (ETAG, format!("\"{digest}\"")),
    ];
    let mut response = (status, head, Body::from_stream(stream)).into_response();
    if status == StatusCode::PARTIAL_CONTENT {
        let range = format!("bytes {first}-{}/{len}", last - 1);
        if let Ok(value) = range.parse() {
            response.headers_mut().insert(CONTENT_RANGE, value);
        }
    }
    Ok(response)
}

/// A refused request, as [`ApiError`].
#[derive(Debug)]
pub(super) struct Refused(pub(super) StatusCode, pub(super) &'static str, pub(super) String);

impl Refused {
    pub(super) fn forbidden(message: &str) -> Self {
        Self(StatusCode::FORBIDDEN, "forbidden", message.to_owned())
    }

    pub(super) fn not_found(message: &str) -> Self {
        Self(StatusCode::NOT_FOUND, "not_found", message.to_owned())
    }

    pub(super) fn failed(error: &(dyn std::error::Error + 'static)) -> Self {
        tracing::error!(error, "cannot answer a device");
        let message = "the hub failed; its log says why".to_owned();
        Self(StatusCode::INTERNAL_SERVER_ERROR, "internal", message)
    }
}

impl From<StoreError> for Refused {
    fn from(error: StoreError) -> Self {
        match &error {
            StoreError::NotFound { .. } => Self::not_found(&error.to_string()),
            _ => Self::failed(&error),
        }
    }
}

impl IntoResponse for Refused {
    fn into_response(self) -> Response {
        let Self(status, code, message) = self;
        (status, Json(ApiError { code: code.to_owned(), message })).into_response()
    }
}
