//! Payloads: the bytes of a sample, by their digest.

use axum::Router;
use axum::extract::State;
use axum::http::header::{CACHE_CONTROL, CONTENT_TYPE, X_CONTENT_TYPE_OPTIONS};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use fleetloop_protocol::Digest;

use super::auth::AnyCaller;
use super::error::Failure;
use super::extract::Named;
use crate::AppState;
use crate::store::samples;

/// The endpoint.
pub fn router() -> Router<AppState> {
    Router::new().route("/payloads/{digest}", get(show))
}

async fn show(
    _caller: AnyCaller,
    State(state): State<AppState>,
    Named(digest): Named<Digest>,
) -> Result<Response, Failure> {
    answer(&state, digest).await
}

/// The payload with its media type. The bytes come from devices and importers: `nosniff` keeps a
/// browser from taking them for anything but a picture.
///
/// # Errors
/// No sample has such a payload, or the disk failed.
pub(crate) async fn answer(state: &AppState, digest: Digest) -> Result<Response, Failure> {
    let media_type = state
        .store
        .read(move |connection| samples::media_type(connection, digest))
        .await?
        .ok_or_else(|| {
            Failure::not_found(format!("cannot find payload {digest}: no sample has it"))
        })?;
    let bytes = state.payloads.get(digest).await?;
    let headers = [
        (CONTENT_TYPE, media_type.as_str()),
        (X_CONTENT_TYPE_OPTIONS, "nosniff"),
        // What a digest names never changes.
        (CACHE_CONTROL, "private, max-age=31536000, immutable"),
    ];
    Ok((headers, bytes).into_response())
}
