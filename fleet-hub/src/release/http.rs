//! Releases over HTTP.

use axum::Router;
use axum::extract::State;
use axum::http::StatusCode;
use axum::routing::get;
use fleetloop_protocol::api::models::{Release, ReleaseRequest};

use super::ReleaseError;
use crate::AppState;
use crate::api::auth::{AdminCaller, AnyCaller};
use crate::api::error::Failure;
use crate::api::extract::Json;
use crate::store::releases;

/// The endpoints.
pub fn router() -> Router<AppState> {
    Router::new().route("/releases", get(list).post(release))
}

async fn list(
    _caller: AnyCaller,
    State(state): State<AppState>,
) -> Result<axum::Json<Vec<Release>>, Failure> {
    Ok(axum::Json(state.store.read(releases::list).await?))
}

async fn release(
    AdminCaller(caller): AdminCaller,
    State(state): State<AppState>,
    Json(request): Json<ReleaseRequest>,
) -> Result<(StatusCode, axum::Json<Release>), Failure> {
    let release = super::release(&state, request, &caller.name).await?;
    Ok((StatusCode::CREATED, axum::Json(release)))
}

impl From<ReleaseError> for Failure {
    fn from(error: ReleaseError) -> Self {
        let text = error.to_string();
        match error {
            ReleaseError::Store(error) => error.into(),
            ReleaseError::Channel { .. }
            | ReleaseError::Name { .. }
            | ReleaseError::NotNextRoot { .. } => Self::invalid(text),
            ReleaseError::Gate { .. }
            | ReleaseError::Taken { .. }
            | ReleaseError::TooMany
            | ReleaseError::KeyLost { .. } => Self::conflict(text),
            ReleaseError::Io { ref source, .. }
                if source.kind() == std::io::ErrorKind::StorageFull =>
            {
                Self::full("cannot release: the hub's disk is full; free some space")
            }
            other => Self::internal("release", &other),
        }
    }
}
