//! Names over HTTP, and how a holder of an access file learns the newest address and CA.

use axum::Router;
use axum::extract::State;
use axum::routing::{get, post};
use fleetloop_protocol::api::hosts::{AddHost, AdminAddress, Hosts, Retire};

use super::HostError;
use crate::AppState;
use crate::api::auth::{AdminCaller, AnyCaller};
use crate::api::error::Failure;
use crate::api::extract::Json;

/// The endpoints.
pub fn router() -> Router<AppState> {
    Router::new()
        .route("/hosts", get(list).post(add))
        .route("/hosts/retire", post(retire))
        .route("/hosts/admin", get(admin))
}

async fn list(
    _caller: AdminCaller,
    State(state): State<AppState>,
) -> Result<axum::Json<Hosts>, Failure> {
    Ok(axum::Json(super::known(&state, &state.pki).await?))
}

async fn add(
    AdminCaller(caller): AdminCaller,
    State(state): State<AppState>,
    Json(request): Json<AddHost>,
) -> Result<axum::Json<Hosts>, Failure> {
    super::add(&state, &request.host, &caller.name).await?;
    Ok(axum::Json(super::known(&state, &state.pki).await?))
}

async fn retire(
    AdminCaller(caller): AdminCaller,
    State(state): State<AppState>,
    Json(request): Json<Retire>,
) -> Result<axum::Json<Hosts>, Failure> {
    let host = request.host.as_deref().unwrap_or_default();
    let reason = request.without_waiting.as_deref();
    super::retire(&state, &state.pki, host, reason, &caller.name).await?;
    Ok(axum::Json(super::known(&state, &state.pki).await?))
}

async fn admin(
    _caller: AnyCaller,
    State(state): State<AppState>,
) -> Result<axum::Json<AdminAddress>, Failure> {
    let ca_pem = state.pki.accepted().concat();
    Ok(axum::Json(AdminAddress { url: state.config.admin_url(), ca_pem }))
}

impl From<HostError> for Failure {
    fn from(error: HostError) -> Self {
        let text = error.to_string();
        match error {
            HostError::NotThis { .. } => Self::conflict(text),
            HostError::Config(_) => Self::invalid(text),
            HostError::Release(error) => error.into(),
            HostError::Store(error) => error.into(),
            HostError::Write(_) => Self::internal("change the hub's names", &error),
        }
    }
}
