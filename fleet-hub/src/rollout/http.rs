//! Rollouts over HTTP.

use axum::Router;
use axum::extract::State;
use axum::http::StatusCode;
use axum::routing::{get, post};
use fleetloop_protocol::api::rollouts::{Rollout, RolloutId, RolloutRequest};

use super::driver;
use crate::AppState;
use crate::api::auth::{AdminCaller, AnyCaller};
use crate::api::error::Failure;
use crate::api::extract::{Json, Named};
use crate::store::rollouts as rows;

/// The most rollouts that a list shows, the newest.
const LISTED: u32 = 100;

/// The endpoints.
pub fn router() -> Router<AppState> {
    Router::new()
        .route("/rollouts", get(list).post(start))
        .route("/rollouts/{id}", get(show))
        .route("/rollouts/{id}/cancel", post(cancel))
}

async fn start(
    AdminCaller(caller): AdminCaller,
    State(state): State<AppState>,
    Json(request): Json<RolloutRequest>,
) -> Result<(StatusCode, axum::Json<Rollout>), Failure> {
    let rollout = driver::start(&state, request, &caller.name).await?;
    Ok((StatusCode::CREATED, axum::Json(rollout)))
}

async fn list(
    _caller: AnyCaller,
    State(state): State<AppState>,
) -> Result<axum::Json<Vec<Rollout>>, Failure> {
    let found = state.store.read(|c| rows::list(c, LISTED)).await?;
    Ok(axum::Json(found.iter().map(rows::Stored::to_api).collect()))
}

async fn show(
    _caller: AnyCaller,
    State(state): State<AppState>,
    Named(id): Named<RolloutId>,
) -> Result<axum::Json<Rollout>, Failure> {
    Ok(axum::Json(state.store.read(move |c| rows::get(c, id)).await?.to_api()))
}

async fn cancel(
    AdminCaller(caller): AdminCaller,
    State(state): State<AppState>,
    Named(id): Named<RolloutId>,
) -> Result<axum::Json<Rollout>, Failure> {
    Ok(axum::Json(driver::cancel(&state, id, &caller.name).await?))
}
