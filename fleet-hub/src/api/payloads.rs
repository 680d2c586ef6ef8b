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
use crate::store::{removal, samples};

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
/// No sample has such a payload, its samples were removed, or the disk failed.
pub(crate) async fn answer(state: &AppState, digest: Digest) -> Result<Response, Failure> {
    let media_type =
        state.store.read(move |connection| samples::media_type(connection, digest)).await?;
    let Some(media_type) = media_type else {
        let erased = state.store.read(move |c| removal::is_erased(c, digest)).await?;
        return Err(if erased {
            Failure::gone(format!("cannot read payload {digest}: its samples were removed"))
        } else {
            Failure::not_found(format!("cannot find payload {digest}: no sample has it"))
        });
    };
    let bytes = state.payloads.get(digest).await?;
    let headers = [
        (CONTENT_TYPE, media_type.as_str()),
        (X_CONTENT_TYPE_OPTIONS, "nosniff"),
        // What a digest names never changes, but it may be erased.
        (CACHE_CONTROL, "private, max-age=3600, immutable"),
    ];
    Ok((headers, bytes).into_response())
}
