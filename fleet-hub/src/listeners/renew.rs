//! `POST /renew` on the device listener: for clients with and without a certificate.

use std::sync::Arc;

use axum::extract::State;
use axum::http::StatusCode;
use axum::response::{IntoResponse as _, Response};
use axum::routing::post;
use axum::{Json, Router};
use fleetloop_protocol::Digest;
use fleetloop_protocol::renew::{RENEW_PATH, RenewRequest, RenewResponse};

use super::device::Refused;
use crate::api::error::Failure;
use crate::api::extract;
use crate::door::Asker;
use crate::door::events::Door;
use crate::pki::{Pki, PkiError};
use crate::renew::{RenewError, renew};
use crate::state::AppState;

/// The route.
pub(super) fn router(state: AppState, pki: Arc<Pki>) -> Router {
    Router::new().route(RENEW_PATH, post(serve)).with_state((state, pki))
}

async fn serve(
    State((state, pki)): State<(AppState, Arc<Pki>)>,
    asker: Asker,
    extract::Json(request): extract::Json<RenewRequest>,
) -> Result<Json<RenewResponse>, Response> {
    match renew(&state, &pki, &request).await {
        Err(error @ RenewError::Refused { .. }) => {
            // Whoever names another's device is slowed, and the device itself is not.
            let account = Digest::of(request.device.as_str().as_bytes());
            let wrong = state.watch.wrong(Door::Renew, asker, Some(account)).await;
            wrong.map_err(|later| Failure::from(later).into_response())?;
            tracing::debug!(%error, "refused");
            Err(Refused::from(error).into_response())
        }
        other => other.map(Json).map_err(|error| Refused::from(error).into_response()),
    }
}

impl From<RenewError> for Refused {
    fn from(error: RenewError) -> Self {
        match error {
            RenewError::Store(error) => error.into(),
            RenewError::Refused { .. } => Self::forbidden(&error.to_string()),
            RenewError::Request(_) | RenewError::Pki(PkiError::Request(_)) => {
                Self(StatusCode::BAD_REQUEST, "invalid", error.to_string())
            }
            RenewError::Pki(error) => Self::failed(&error),
        }
    }
}
