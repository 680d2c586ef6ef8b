//! Models over HTTP: the list, one, an import, an evaluation, and asking the gate again.

use axum::Router;
use axum::extract::State;
use axum::http::StatusCode;
use axum::routing::{get, post};
use fleetloop_protocol::BundleDigest;
use fleetloop_protocol::api::jobs::{EvaluateRequest, Job};
use fleetloop_protocol::api::models::{Compared, ImportModel, Model};
use fleetloop_protocol::api::reports::{GateRequest, Verdict};

use crate::AppState;
use crate::api::auth::{AdminCaller, AnyCaller};
use crate::api::error::Failure;
use crate::api::extract::{Json, Named};
use crate::jobs;
use crate::store::registry as rows;

/// The endpoints.
pub fn router() -> Router<AppState> {
    Router::new()
        .route("/models", get(list).post(import))
        .route("/models/compared", get(compared))
        .route("/models/{digest}", get(show))
        .route("/models/{digest}/gate", post(judge))
        .route("/models/{digest}/evaluate", post(evaluate))
}

async fn list(
    _caller: AnyCaller,
    State(state): State<AppState>,
) -> Result<axum::Json<Vec<Model>>, Failure> {
    Ok(axum::Json(state.store.read(rows::list).await?))
}

async fn show(
    _caller: AnyCaller,
    State(state): State<AppState>,
    Named(bundle): Named<BundleDigest>,
) -> Result<axum::Json<Model>, Failure> {
    Ok(axum::Json(state.store.read(move |c| rows::get(c, bundle)).await?))
}

async fn compared(
    _caller: AnyCaller,
    State(state): State<AppState>,
) -> Result<axum::Json<Vec<Compared>>, Failure> {
    Ok(axum::Json(super::compared(&state).await?))
}

async fn import(
    AdminCaller(caller): AdminCaller,
    State(state): State<AppState>,
    Json(request): Json<ImportModel>,
) -> Result<(StatusCode, axum::Json<Model>), Failure> {
    let model = super::import(&state, request, &caller.name).await?;
    Ok((StatusCode::CREATED, axum::Json(model)))
}

async fn evaluate(
    AdminCaller(caller): AdminCaller,
    State(state): State<AppState>,
    Named(bundle): Named<BundleDigest>,
    Json(request): Json<EvaluateRequest>,
) -> Result<(StatusCode, axum::Json<Job>), Failure> {
    let job = jobs::evaluate(&state, bundle, request, &caller.name).await?;
    Ok((StatusCode::CREATED, axum::Json(job)))
}

async fn judge(
    AdminCaller(caller): AdminCaller,
    State(state): State<AppState>,
    Named(bundle): Named<BundleDigest>,
    Json(request): Json<GateRequest>,
) -> Result<axum::Json<Verdict>, Failure> {
    Ok(axum::Json(super::judge(&state, bundle, request, &caller.name).await?))
}
