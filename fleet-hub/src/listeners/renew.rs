//! `POST /renew` on the device listener: for clients with and without a certificate.

use std::sync::Arc;

use axum::extract::{DefaultBodyLimit, State};
use axum::http::StatusCode;
use axum::routing::post;
use axum::{Json, Router};
use fleetloop_protocol::renew::{RENEW_PATH, RenewRequest, RenewResponse};

use super::device::Refused;
use crate::pki::{Pki, PkiError};
use crate::renew::{REQUEST_BYTES, RenewError, renew};
use crate::state::AppState;

/// The route.
pub(super) fn router(state: AppState, pki: Arc<Pki>) -> Router {
    Router::new()
        .route(RENEW_PATH, post(serve))
        .layer(DefaultBodyLimit::max(REQUEST_BYTES))
        .with_state((state, pki))
}

async fn serve(
    State((state, pki)): State<(AppState, Arc<Pki>)>,
    Json(request): Json<RenewRequest>,
) -> Result<Json<RenewResponse>, Refused> {
    Ok(Json(renew(&state, &pki, &request).await?))
}

impl From<RenewError> for Refused {
    fn from(error: RenewError) -> Self {
        match error {
            RenewError::Store(error) => error.into(),
            RenewError::Refused { .. } => {
                tracing::warn!(%error, "refused");
                Self::forbidden(&error.to_string())
            }
            RenewError::Request(_) | RenewError::Pki(PkiError::Request(_)) => {
                Self(StatusCode::BAD_REQUEST, "invalid", error.to_string())
            }
            RenewError::Pki(error) => Self::failed(&error),
        }
    }
}
