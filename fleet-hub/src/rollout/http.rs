//! Rollouts over HTTP.

use axum::Router;
use axum::extract::State;
use axum::http::StatusCode;
use axum::routing::{get, post};
use fleetloop_protocol::api::rollouts::{Rollout, RolloutId, RolloutRequest};

use super::commands;
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
        .route("/rollouts/back", post(back))
        .route("/rollouts/{id}", get(show))
        .route("/rollouts/{id}/cancel", post(cancel))
}

async fn start(
    AdminCaller(caller): AdminCaller,
    State(state): State<AppState>,
    Json(request): Json<RolloutRequest>,
) -> Result<(StatusCode, axum::Json<Rollout>), Failure> {
    let rollout = commands::start(&state, request, &caller.name).await?;
    Ok((StatusCode::CREATED, axum::Json(rollout)))
}

async fn list(
    _caller: AnyCaller,
    State(state): State<AppState>,
) -> Result<axum::Json<Vec<Rollout>>, Failure> {
    let now = state.clock.now();
    let read = state.store.read(move |c| Ok((rows::list(c, LISTED)?, rows::known(c, now)?)));
    let (found, known) = read.await?;
    Ok(axum::Json(found.iter().map(|rollout| rollout.to_api(&known)).collect()))
}

async fn back(
    AdminCaller(caller): AdminCaller,
    State(state): State<AppState>,
) -> Result<axum::Json<Rollout>, Failure> {
    Ok(axum::Json(commands::back(&state, &caller.name).await?))
}

async fn show(
    _caller: AnyCaller,
    State(state): State<AppState>,
    Named(id): Named<RolloutId>,
) -> Result<axum::Json<Rollout>, Failure> {
    let now = state.clock.now();
    let read = state.store.read(move |c| Ok((rows::get(c, id)?, rows::known(c, now)?)));
    let (found, known) = read.await?;
    Ok(axum::Json(found.to_api(&known)))
}

async fn cancel(
    AdminCaller(caller): AdminCaller,
    State(state): State<AppState>,
    Named(id): Named<RolloutId>,
) -> Result<axum::Json<Rollout>, Failure> {
    Ok(axum::Json(commands::cancel(&state, id, &caller.name).await?))
}
