//! Artefacts: files by their digest, uploaded and fetched by workers and admins.

use axum::Router;
use axum::body::Body;
use axum::extract::State;
use axum::http::HeaderMap;
use axum::http::header::{CONTENT_LENGTH, CONTENT_TYPE};
use axum::response::{IntoResponse, Response};
use axum::routing::put;
use fleetloop_protocol::Digest;
use fleetloop_protocol::digest::Hasher;
use futures::StreamExt as _;
use serde::{Deserialize, Serialize};

use super::auth::WorkerCaller;
use super::error::Failure;
use super::extract::Named;
use crate::AppState;
use crate::store::StoreError;

/// What a stored artefact is answered with.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Stored {
    /// Its digest.
    pub digest: Digest,
    /// Its length in bytes.
    pub bytes: u64,
}

/// The endpoints.
pub fn router() -> Router<AppState> {
    Router::new().route("/artefacts/{digest}", put(store).get(fetch))
}

/// Streams the body to the disk; it appears under the digest only when it is whole and right. One
/// that is there is read and compared, and written no second time.
async fn store(
    _caller: WorkerCaller,
    State(state): State<AppState>,
    Named(digest): Named<Digest>,
    headers: HeaderMap,
    body: Body,
) -> Result<axum::Json<Stored>, Failure> {
    let limit = state.config.limits.artefact_bytes;
    let over = || {
        Failure::too_large(format!(
            "cannot store artefact {}: it has more than {limit} bytes (limits.artefact_bytes)",
            digest.short()
        ))
    };
    let announced = headers.get(CONTENT_LENGTH).and_then(|v| v.to_str().ok()?.parse::<u64>().ok());
    if announced.is_some_and(|len| len > limit) {
        return Err(over());
    }
    let bytes = if state.artefacts.exists(digest).await? {
        compare(digest, limit, body).await?.ok_or_else(over)?
    } else {
        match state.artefacts.put_stream(digest, limit, body.into_data_stream()).await {
            Err(StoreError::Invalid { .. }) => return Err(over()),
            other => other?,
        }
    };
    Ok(axum::Json(Stored { digest, bytes }))
}

/// Reads the body to its end; its length, none when it is over the limit.
async fn compare(digest: Digest, limit: u64, body: Body) -> Result<Option<u64>, Failure> {
    let mut hasher = Hasher::new();
    let mut len = 0;
    let mut stream = body.into_data_stream();
    while let Some(piece) = stream.next().await {
        let piece = piece.map_err(|error| {
            Failure::invalid(format!("cannot receive artefact {}: {error}", digest.short()))
        })?;
        len += piece.len() as u64;
        if len > limit {
            return Ok(None);
        }
        hasher.update(&piece);
    }
    if hasher.finish() != digest {
        return Err(StoreError::Mismatch { what: "artefact".into(), expected: digest }.into());
    }
    Ok(Some(len))
}

async fn fetch(
    _caller: WorkerCaller,
    State(state): State<AppState>,
    Named(digest): Named<Digest>,
) -> Result<Response, Failure> {
    let len = state.artefacts.size(digest).await?;
    let stream = state.artefacts.stream(digest, None).await?;
    let headers =
        [(CONTENT_TYPE, "application/octet-stream".to_owned()), (CONTENT_LENGTH, len.to_string())];
    Ok((headers, Body::from_stream(stream)).into_response())
}
