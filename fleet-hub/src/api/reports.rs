//! Reports of workers, and deciding which of two that contradict each other counts.

use axum::Router;
use axum::extract::State;
use axum::routing::{get, post};
use fleetloop_protocol::Digest;
use fleetloop_protocol::api::reports::{AcceptRequest, StoredReport};
use serde::Deserialize;

use super::auth::{AdminCaller, AnyCaller};
use super::error::Failure;
use super::extract::{Json, Named, Params};
use crate::AppState;
use crate::jobs::disputes;
use crate::store::findings::DETAIL_CHARS;
use crate::store::reports as rows;

/// The most reports in one answer, the newest.
const LISTED: u32 = 1000;

/// The endpoints.
pub fn router() -> Router<AppState> {
    Router::new().route("/reports", get(list)).route("/reports/{digest}/accept", post(accept))
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Query {
    #[serde(default)]
    all: bool,
}

async fn list(
    _caller: AnyCaller,
    State(state): State<AppState>,
    Params(query): Params<Query>,
) -> Result<axum::Json<Vec<StoredReport>>, Failure> {
    Ok(axum::Json(state.store.read(move |c| rows::list(c, query.all, LISTED)).await?))
}

async fn accept(
    AdminCaller(caller): AdminCaller,
    State(state): State<AppState>,
    Named(digest): Named<Digest>,
    Json(request): Json<AcceptRequest>,
) -> Result<axum::Json<Vec<StoredReport>>, Failure> {
    let reason = request.reason.trim();
    if !(1..=DETAIL_CHARS).contains(&reason.chars().count()) {
        let text = format!(
            "cannot accept report {digest}: give a reason of 1 to {DETAIL_CHARS} characters"
        );
        return Err(Failure::invalid(text));
    }
    Ok(axum::Json(disputes::accept(&state, digest, &caller.name, reason).await?))
}
