//! What a device asks for: release metadata, artefacts, the time, a new certificate; and the
//! payloads it uploads.
//!
//! Behind mutual TLS; the certificate's name must be an enrolled device at every request, so that a
//! revoked one is refused on a connection it had open. Nothing is trusted by the device because it
//! came from here: metadata is signed, artefacts are named by their digest.
//!
//! Three requests are open to a client that shows no certificate. `POST /renew` proves itself by the
//! enrolled key. `GET /time` is for a device that woke without a clock: it must learn the time before
//! it can tell whether its certificate has expired. Release metadata and the hub's addresses are for a
//! device that was away while certificates, CA or name changed: it trusts nobody that answers, and
//! believes only signatures. They name models and digests, and no device. A certificate that is shown
//! must hold on these requests too.

use std::path::PathBuf;
use std::sync::Arc;

use axum::body::Body;
use axum::extract::{Path, Request, State};
use axum::http::header::{ACCEPT_RANGES, CONTENT_LENGTH, CONTENT_RANGE, CONTENT_TYPE, ETAG, RANGE};
use axum::http::{HeaderMap, StatusCode};
use axum::middleware::{self, Next};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post, put};
use axum::{Extension, Json, Router};
use fleetloop_protocol::api::ApiError;
use fleetloop_protocol::api::devices::DeviceState;
use fleetloop_protocol::revoked::{NewerList, REVOKED_PATH};
use fleetloop_protocol::time::HubTime;
use fleetloop_protocol::{DeviceId, Digest};

use super::range::{Wanted, wanted};
use super::renew;
use super::stranger;
use super::upload;
use crate::api::error::Failure;
use crate::door::Asker;
use crate::door::events::Door;
use crate::pki::Pki;
use crate::release;
use crate::revoked::{self, LearnError};
use crate::state::AppState;
use crate::store::{StoreError, devices};

/// The largest metadata file that is served, in bytes.
const METADATA_BYTES: u64 = 4 * 1024 * 1024;

/// Whose connection it is, by the client's certificate; no name when it showed none.
#[derive(Debug, Clone)]
pub struct Peer {
    pub(super) common_name: Option<String>,
    /// The certificate (DER), verified.
    pub(super) certificate: Option<Arc<[u8]>>,
}

/// The routes of the device listener.
pub fn router(state: AppState, pki: Arc<Pki>) -> Router {
    let for_enrolled = Router::new()
        .route("/artefacts/{digest}", get(artefact))
        .route("/payloads/{commitment}", put(upload::put).head(upload::has))
        .route(REVOKED_PATH, post(newer_list))
        .layer(middleware::from_fn_with_state(state.clone(), only_enrolled));
    for_enrolled
        .route("/time", get(time))
        .route("/tuf/dev/{file}", get(metadata))
        .route("/tuf/dev/targets/{file}", get(addresses))
        .with_state(state.clone())
        .merge(renew::router(state, pki))
}

/// Refuses whoever is not an enrolled device; the device's id stands in the request from here on.
async fn only_enrolled(
    State(state): State<AppState>,
    Extension(peer): Extension<Peer>,
    mut request: Request,
    next: Next,
) -> Result<Response, Response> {
    let device = enrolled(&state, &peer, Asker::of(request.extensions())).await?;
    request.extensions_mut().insert(device);
    Ok(next.run(request).await)
}

async fn enrolled(state: &AppState, peer: &Peer, asker: Asker) -> Result<DeviceId, Response> {
    let device: DeviceId = peer
        .common_name
        .as_deref()
        .and_then(|name| name.parse().ok())
        .ok_or_else(|| Refused::forbidden("no certificate, or one that names no device"))
        .map_err(IntoResponse::into_response)?;
    let id = device.clone();
    let row = state.store.read(move |connection| devices::get(connection, &id)).await;
    match row {
        Ok(row) if row.state == DeviceState::Enrolled => Ok(device),
        Ok(_) | Err(StoreError::NotFound { .. }) => {
            if let (Err(_), Some(certificate)) = (&row, &peer.certificate) {
                stranger::came(state, &device, certificate).await;
            }
            tracing::debug!(%device, "refused: not enrolled, or revoked");
            let account = Digest::of(device.as_str().as_bytes());
            let wrong = state.watch.wrong(Door::Certificate, asker, Some(account)).await;
            wrong.map_err(|later| Failure::from(later).into_response())?;
            let refused = Refused::forbidden("the device is not enrolled here, or is revoked");
            Err(refused.into_response())
        }
        Err(error) => Err(Refused::from(error).into_response()),
    }
}

async fn time(State(state): State<AppState>) -> Json<HubTime> {
    Json(HubTime { now_ms: state.clock.now() })
}

/// Takes the list of revoked devices of a device that this hub, restored from a backup, is behind of.
async fn newer_list(
    State(state): State<AppState>,
    Extension(device): Extension<DeviceId>,
    Json(shown): Json<NewerList>,
) -> Result<StatusCode, Refused> {
    match revoked::learn(&state, &device, shown).await {
        Ok(_) => Ok(StatusCode::NO_CONTENT),
        Err(LearnError::Store(error)) => Err(error.into()),
        Err(error @ LearnError::Refused(_)) => {
            tracing::warn!(%device, %error, "refused");
            Err(Refused(StatusCode::BAD_REQUEST, "invalid", error.to_string()))
        }
        Err(error) => Err(Refused::failed(&error)),
    }
}

async fn metadata(
    State(state): State<AppState>,
    Path(file): Path<String>,
) -> Result<Response, Refused> {
    // Only names that metadata can have become a path.
    serve(release::metadata_path(&state.config.paths.tuf(), &file)).await
}

/// The hub's addresses, by their digest.
async fn addresses(
    State(state): State<AppState>,
    Path(file): Path<String>,
) -> Result<Response, Refused> {
    serve(release::addresses_path(&state.config.paths.tuf(), &file)).await
}

/// A small JSON file of the repository.
async fn serve(path: Option<PathBuf>) -> Result<Response, Refused> {
    let missing = || Refused::not_found("there is no such metadata");
    let path = path.ok_or_else(missing)?;
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
