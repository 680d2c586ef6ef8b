//! Jobs over HTTP: asked for by an admin, worked on by a worker.

use axum::Router;
use axum::extract::State;
use axum::http::StatusCode;
use axum::routing::{get, post};
use fleetloop_protocol::api::jobs::{
    Done, Job, JobFailed, JobId, Lease, LeaseRequest, Renew, TrainRequest,
};
use fleetloop_protocol::api::models::Model;

use crate::AppState;
use crate::api::auth::{AdminCaller, AnyCaller, WorkerCaller};
use crate::api::error::Failure;
use crate::api::extract::{Json, Named};
use crate::store::jobs as rows;

/// The most jobs that a list shows, the newest.
const LISTED: u32 = 1000;

/// The endpoints.
pub fn router() -> Router<AppState> {
    Router::new()
        .route("/jobs", get(list).post(request))
        .route("/jobs/{id}", get(show))
        .route("/worker/lease", post(lease))
        .route("/worker/jobs/{id}/renew", post(renew))
        .route("/worker/jobs/{id}/done", post(done))
        .route("/worker/jobs/{id}/failed", post(failed))
}

async fn request(
    AdminCaller(caller): AdminCaller,
    State(state): State<AppState>,
    Json(request): Json<TrainRequest>,
) -> Result<(StatusCode, axum::Json<Job>), Failure> {
    let job = super::request(&state, request, &caller.name).await?;
    Ok((StatusCode::CREATED, axum::Json(job)))
}

async fn list(
    _caller: AnyCaller,
    State(state): State<AppState>,
) -> Result<axum::Json<Vec<Job>>, Failure> {
    let now = state.clock.now();
    let jobs = state.store.read(|c| rows::list(c, LISTED)).await?;
    Ok(axum::Json(jobs.iter().map(|job| job.to_api(now)).collect()))
}

async fn show(
    _caller: AnyCaller,
    State(state): State<AppState>,
    Named(id): Named<JobId>,
) -> Result<axum::Json<Job>, Failure> {
    let now = state.clock.now();
    Ok(axum::Json(state.store.read(move |c| rows::get(c, id)).await?.to_api(now)))
}

async fn lease(
    WorkerCaller(caller): WorkerCaller,
    State(state): State<AppState>,
    Json(request): Json<LeaseRequest>,
) -> Result<axum::Json<Option<Lease>>, Failure> {
    Ok(axum::Json(super::lease(&state, &request.worker, &caller.name).await?))
}

async fn renew(
    WorkerCaller(caller): WorkerCaller,
    State(state): State<AppState>,
    Named(id): Named<JobId>,
    Json(body): Json<Renew>,
) -> Result<StatusCode, Failure> {
    super::renew(&state, id, body, &caller.name).await?;
    Ok(StatusCode::NO_CONTENT)
}

async fn done(
    WorkerCaller(caller): WorkerCaller,
    State(state): State<AppState>,
    Named(id): Named<JobId>,
    Json(body): Json<Done>,
) -> Result<axum::Json<Model>, Failure> {
    Ok(axum::Json(super::done(&state, id, body, &caller.name).await?))
}

async fn failed(
    WorkerCaller(caller): WorkerCaller,
    State(state): State<AppState>,
    Named(id): Named<JobId>,
    Json(body): Json<JobFailed>,
) -> Result<StatusCode, Failure> {
    super::failed(&state, id, body, &caller.name).await?;
    Ok(StatusCode::NO_CONTENT)
}
