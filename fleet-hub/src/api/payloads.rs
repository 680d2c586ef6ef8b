//! Payloads: the bytes of a sample, by their digest.

use axum::Router;
use axum::extract::State;
use axum::http::header::{CACHE_CONTROL, CONTENT_TYPE, X_CONTENT_TYPE_OPTIONS};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use bytes::Bytes;
use fleetloop_models::picture::Frame;
use fleetloop_protocol::Digest;
use fleetloop_protocol::sample::MediaType;

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
    let (media_type, bytes) = find(state, digest).await?;
    Ok(shown(media_type, bytes))
}

/// The same for people: upright, whatever EXIF says and whether their browser heeds it.
///
/// # Errors
/// As [`answer`].
pub(crate) async fn upright(state: &AppState, digest: Digest) -> Result<Response, Failure> {
    let (media_type, bytes) = find(state, digest).await?;
    if !Frame::is_turned(media_type, &bytes) {
        return Ok(shown(media_type, bytes));
    }
    let turning = tokio::task::spawn_blocking(move || {
        Frame::decode(media_type, &bytes).and_then(|frame| frame.encode_png())
    });
    match turning.await.map_err(|error| Failure::internal("turn a picture", &error))? {
        Ok(png) => Ok(shown(MediaType::Png, png.into())),
        Err(error) => Err(Failure::conflict(format!("cannot show payload {digest}: {error}"))),
    }
}

async fn find(state: &AppState, digest: Digest) -> Result<(MediaType, Bytes), Failure> {
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
    Ok((media_type, state.payloads.get(digest).await?))
}

fn shown(media_type: MediaType, bytes: Bytes) -> Response {
    let headers = [
        (CONTENT_TYPE, media_type.as_str()),
        (X_CONTENT_TYPE_OPTIONS, "nosniff"),
        // What a digest names never changes, but it may be erased.
        (CACHE_CONTROL, "private, max-age=3600, immutable"),
    ];
    (headers, bytes).into_response()
}
