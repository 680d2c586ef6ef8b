//! Findings: what the hub noticed, and who has seen to it.

use axum::Router;
use axum::extract::State;
use axum::routing::{get, post};
use fleetloop_protocol::DeviceId;
use fleetloop_protocol::api::findings::{AcknowledgeRequest, Finding};
use serde::Deserialize;

use super::auth::{AdminCaller, LabelCaller};
use super::error::Failure;
use super::extract::{Json, Named, Params};
use crate::AppState;
use crate::store::findings::{self, DETAIL_CHARS, Filter};

/// The most findings in one answer.
const LIMIT_MAX: u32 = 1000;

/// The endpoints.
pub fn router() -> Router<AppState> {
    Router::new()
        .route("/findings", get(list))
        .route("/findings/{id}/acknowledge", post(acknowledge))
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Query {
    device: Option<DeviceId>,
    #[serde(default)]
    all: bool,
    #[serde(default = "page")]
    limit: u32,
}

fn page() -> u32 {
    200
}

async fn list(
    _caller: LabelCaller,
    State(state): State<AppState>,
    Params(query): Params<Query>,
) -> Result<axum::Json<Vec<Finding>>, Failure> {
    if !(1..=LIMIT_MAX).contains(&query.limit) {
        let text = format!("cannot list {} findings: ask for 1 to {LIMIT_MAX}", query.limit);
        return Err(Failure::invalid(text));
    }
    let filter = Filter { device: query.device, all: query.all, limit: query.limit };
    Ok(axum::Json(state.store.read(move |c| findings::list(c, &filter)).await?))
}

async fn acknowledge(
    AdminCaller(caller): AdminCaller,
    State(state): State<AppState>,
    Named(id): Named<u64>,
    Json(request): Json<AcknowledgeRequest>,
) -> Result<axum::Json<Finding>, Failure> {
    if request.note.chars().count() > DETAIL_CHARS {
        let text =
            format!("cannot acknowledge finding {id}: the note is over {DETAIL_CHARS} characters");
        return Err(Failure::invalid(text));
    }
    let now = state.clock.now();
    let acknowledged = state
        .store
        .write(move |tx| findings::acknowledge(tx, id, &caller.name, &request.note, now))
        .await?;
    Ok(axum::Json(acknowledged))
}
