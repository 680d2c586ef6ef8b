//! Drift: what devices meet against what their models were made for.

use axum::Router;
use axum::extract::State;
use axum::routing::get;
use fleetloop_protocol::api::drift::FleetDrift;
use fleetloop_protocol::{BundleDigest, DeviceId, Digest};
use serde::Deserialize;

use super::auth::LabelCaller;
use super::error::Failure;
use super::extract::Params;
use crate::AppState;
use crate::drift::{self, Question};

/// The endpoints.
pub fn router() -> Router<AppState> {
    Router::new().route("/drift", get(look))
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Query {
    device: Option<DeviceId>,
    model: Option<Digest>,
    #[serde(default = "day")]
    hours: u32,
}

fn day() -> u32 {
    24
}

async fn look(
    _caller: LabelCaller,
    State(state): State<AppState>,
    Params(query): Params<Query>,
) -> Result<axum::Json<FleetDrift>, Failure> {
    let Query { device, model, hours } = query;
    let question = Question { device, model: model.map(BundleDigest), hours };
    Ok(axum::Json(drift::look(&state, &question).await?))
}
