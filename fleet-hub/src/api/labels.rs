//! Labels: what to label next, what a sample shows, which labels there are.

use axum::Router;
use axum::extract::State;
use axum::routing::{get, post};
use fleetloop_protocol::Digest;
use fleetloop_protocol::api::labels::{ClearRequest, LabelQueue, LabelRequest, LabelSet};
use fleetloop_protocol::api::samples::Sample;
use rusqlite::Connection;
use serde::Deserialize;

use super::auth::{AdminCaller, AnyCaller, LabelCaller};
use super::error::Failure;
use super::extract::{Json, Params};
use super::samples::AT_ONCE;
use crate::AppState;
use crate::labelling::{self, Policy, View};
use crate::store::{StoreError, labels, samples};

/// The most samples a queue answers.
pub const QUEUE: u32 = 500;

/// The endpoints.
pub fn router() -> Router<AppState> {
    Router::new()
        .route("/labels/queue", get(queue))
        .route("/labels", post(give))
        .route("/labels/clear", post(clear))
        .route("/labels/set", get(set).put(extend))
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Query {
    #[serde(default = "twenty")]
    limit: u32,
}

fn twenty() -> u32 {
    20
}

async fn queue(
    _caller: LabelCaller,
    State(state): State<AppState>,
    Params(query): Params<Query>,
) -> Result<axum::Json<LabelQueue>, Failure> {
    if query.limit > QUEUE {
        return Err(Failure::invalid(format!("cannot list the label queue: at most {QUEUE}")));
    }
    let limit = query.limit as usize;
    Ok(axum::Json(state.store.read(move |connection| next(connection, limit)).await?))
}

/// The `limit` samples to label next.
///
/// # Errors
/// The database failed.
pub(crate) fn next(connection: &Connection, limit: usize) -> Result<LabelQueue, StoreError> {
    let view = labels::queue_view(connection)?;
    let seen =
        View { candidates: &view.candidates, recent: &view.recent, labelled: &view.labelled };
    let order: Vec<Digest> = labelling::order(&Policy::default(), seen, limit);
    let samples =
        order.iter().map(|digest| samples::get(connection, *digest)).collect::<Result<_, _>>()?;
    Ok(LabelQueue { labels: view.labels, samples, waiting: view.waiting })
}

async fn give(
    LabelCaller(caller): LabelCaller,
    State(state): State<AppState>,
    Json(request): Json<LabelRequest>,
) -> Result<axum::Json<Sample>, Failure> {
    let (now, by) = (state.clock.now(), caller.name.clone());
    let sample = state
        .store
        .write(move |tx| {
            labels::give(tx, request.sample, &request.label, &caller.name, now)?;
            samples::get(tx, request.sample)
        })
        .await?;
    if let (Some(id), Some(label)) = (&sample.id, &sample.label) {
        tracing::debug!(sample = %id, digest = %sample.sample, label, by, "sample labelled");
    }
    Ok(axum::Json(sample))
}

/// All of them or, where one cannot be, none.
async fn clear(
    LabelCaller(caller): LabelCaller,
    State(state): State<AppState>,
    Json(request): Json<ClearRequest>,
) -> Result<axum::Json<Vec<Sample>>, Failure> {
    let wanted = request.samples;
    if wanted.len() > AT_ONCE {
        return Err(Failure::invalid(format!("cannot clear labels: at most {AT_ONCE} at once")));
    }
    let now = state.clock.now();
    let samples = state
        .store
        .write(move |tx| {
            let clear = |sample: &Digest| {
                labels::clear(tx, *sample, &caller.name, now)?;
                samples::get(tx, *sample)
            };
            wanted.iter().map(clear).collect::<Result<Vec<_>, _>>()
        })
        .await?;
    Ok(axum::Json(samples))
}

async fn set(
    _caller: AnyCaller,
    State(state): State<AppState>,
) -> Result<axum::Json<LabelSet>, Failure> {
    Ok(axum::Json(state.store.read(labels::set).await?))
}

async fn extend(
    AdminCaller(caller): AdminCaller,
    State(state): State<AppState>,
    Json(wanted): Json<LabelSet>,
) -> Result<axum::Json<LabelSet>, Failure> {
    let set = state
        .store
        .write(move |tx| {
            labels::extend(tx, &wanted, &caller.name)?;
            labels::set(tx)
        })
        .await?;
    Ok(axum::Json(set))
}
