//! Devices: tokens for new ones, what is known of each, revoking, replacing.

use axum::Router;
use axum::extract::State;
use axum::routing::{get, post};
use fleetloop_protocol::api::devices::{
    Device, EpochSummary, KeepRequest, ReadmitRequest, ReplaceRequest, Stranger, TokenRequest,
    TokenResponse,
};
use fleetloop_protocol::{DeviceId, Generation, UnixMillis};
use rusqlite::Connection;

use super::auth::AdminCaller;
use super::error::Failure;
use super::extract::{Json, Named};
use crate::enrol::{self, EnrolError};
use crate::store::devices::{self, DeviceRow};
use crate::store::{StoreError, clones, desired, strangers};
use crate::{AppState, HubEvent};

/// The endpoints.
pub fn router() -> Router<AppState> {
    Router::new()
        .route("/devices/tokens", post(token))
        .route("/devices", get(list))
        .route("/devices/strangers", get(strangers))
        .route("/devices/{id}", get(show))
        .route("/devices/{id}/revoke", post(revoke))
        .route("/devices/{id}/replace", post(replace))
        .route("/devices/{id}/readmit", post(readmit))
        .route("/devices/{id}/epochs", get(epochs).post(keep))
}

async fn token(
    AdminCaller(caller): AdminCaller,
    State(state): State<AppState>,
    Json(request): Json<TokenRequest>,
) -> Result<axum::Json<TokenResponse>, Failure> {
    let made = enrol::new_token(&state, &request.name, request.valid_s, &caller.name).await;
    made.map(axum::Json).map_err(no_token)
}

/// The old device works on until the new one enrols with this token.
async fn replace(
    AdminCaller(caller): AdminCaller,
    State(state): State<AppState>,
    Named(id): Named<DeviceId>,
    Json(request): Json<ReplaceRequest>,
) -> Result<axum::Json<TokenResponse>, Failure> {
    let (name, valid_s) = (request.name.as_deref(), request.valid_s);
    let made = enrol::replacement_token(&state, &id, name, valid_s, &caller.name).await;
    made.map(axum::Json).map_err(no_token)
}

fn no_token(error: EnrolError) -> Failure {
    match error {
        EnrolError::Request(text) => Failure::invalid(text),
        EnrolError::Store(error) => error.into(),
        other => Failure::internal("make an enrolment token", &other),
    }
}

async fn list(
    _caller: AdminCaller,
    State(state): State<AppState>,
) -> Result<axum::Json<Vec<Device>>, Failure> {
    let now = state.clock.now();
    Ok(axum::Json(state.store.read(move |connection| all(connection, now)).await?))
}

async fn show(
    _caller: AdminCaller,
    State(state): State<AppState>,
    Named(id): Named<DeviceId>,
) -> Result<axum::Json<Device>, Failure> {
    let now = state.clock.now();
    Ok(axum::Json(state.store.read(move |connection| one(connection, &id, now)).await?))
}

/// The row first, then the event that ends the device's sessions: a crash between leaves a device
/// that the broker refuses at its next connection, for it looks at the row.
async fn revoke(
    AdminCaller(caller): AdminCaller,
    State(state): State<AppState>,
    Named(id): Named<DeviceId>,
) -> Result<axum::Json<Device>, Failure> {
    let now = state.clock.now();
    let device = id.clone();
    let revoked = state
        .store
        .write(move |tx| {
            devices::revoke(tx, &id, &caller.name, now)?;
            one(tx, &id, now)
        })
        .await?;
    state.tell(HubEvent::DeviceRevoked { device });
    Ok(axum::Json(revoked))
}

async fn strangers(
    _caller: AdminCaller,
    State(state): State<AppState>,
) -> Result<axum::Json<Vec<Stranger>>, Failure> {
    let found = state.store.read(strangers::list).await?;
    let shown = found.into_iter().map(|stranger| Stranger {
        device: stranger.device,
        certificate_ends_ms: stranger.certificate_ends.0,
        first_seen_ms: stranger.first_seen.0,
        last_seen_ms: stranger.last_seen.0,
    });
    Ok(axum::Json(shown.collect()))
}

/// Takes a device in again that enrolled after the backup that this hub was restored from.
async fn readmit(
    AdminCaller(caller): AdminCaller,
    State(state): State<AppState>,
    Named(id): Named<DeviceId>,
    Json(request): Json<ReadmitRequest>,
) -> Result<axum::Json<Device>, Failure> {
    let name = enrol::device_name(&request.name).map_err(Failure::invalid)?;
    let (now, device) = (state.clock.now(), id.clone());
    let taken = state
        .store
        .write(move |tx| {
            strangers::readmit(tx, &id, &name, &caller.name, now)?;
            one(tx, &id, now)
        })
        .await?;
    state.tell(HubEvent::DeviceEnrolled { device });
    Ok(axum::Json(taken))
}

async fn epochs(
    _caller: AdminCaller,
    State(state): State<AppState>,
    Named(id): Named<DeviceId>,
) -> Result<axum::Json<Vec<EpochSummary>>, Failure> {
    Ok(axum::Json(state.store.read(move |connection| clones::epochs(connection, &id)).await?))
}

async fn keep(
    AdminCaller(caller): AdminCaller,
    State(state): State<AppState>,
    Named(id): Named<DeviceId>,
    Json(request): Json<KeepRequest>,
) -> Result<axum::Json<Vec<EpochSummary>>, Failure> {
    let now = state.clock.now();
    let decided = state
        .store
        .write(move |tx| clones::decide(tx, &id, request.epochs.as_deref(), &caller.name, now));
    Ok(axum::Json(decided.await?))
}

/// All devices by id.
///
/// # Errors
/// The database failed.
pub(crate) fn all(connection: &Connection, now: UnixMillis) -> Result<Vec<Device>, StoreError> {
    devices::list(connection)?.into_iter().map(|row| complete(connection, row, now)).collect()
}

fn one(connection: &Connection, id: &DeviceId, now: UnixMillis) -> Result<Device, StoreError> {
    complete(connection, devices::get(connection, id)?, now)
}

fn complete(
    connection: &Connection,
    row: DeviceRow,
    now: UnixMillis,
) -> Result<Device, StoreError> {
    let order = desired::get(connection, &row.id)?;
    let presence = row.presence(now);
    let (running, update) =
        row.reported.map_or((None, None), |reported| (reported.running, Some(reported.update)));
    Ok(Device {
        id: row.id,
        name: row.name,
        state: row.state,
        enrolled_at_ms: row.enrolled_at.0,
        certificate_ends_ms: row.certificate_ends.0,
        replaces: row.replaces,
        replaced_by: row.replaced_by,
        presence,
        last_seen_ms: row.last_seen.map(|at| at.0),
        agent_version: row.agent_version,
        running,
        generation: order.as_ref().map_or(Generation(0), |order| order.generation),
        desired: order.and_then(|order| order.assignment).map(|assignment| assignment.bundle),
        update,
        telemetry: row.telemetry,
        samples_stored: row.samples_stored,
        samples_held: row.samples_held,
        cloned_since_ms: row.held_since.map(|at| at.0),
        refusals: row.refusals,
        revoked_by: row.revoked_by,
        left_behind: row.left_behind,
    })
}
