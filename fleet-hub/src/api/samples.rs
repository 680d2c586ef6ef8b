//! Samples: list, show, count, collect, remove.

use axum::Router;
use axum::extract::State;
use axum::routing::{get, post};
use fleetloop_observe::text::has_hidden;
use fleetloop_protocol::api::samples::{CollectResponse, RemoveRequest, Sample, SampleCounts};
use fleetloop_protocol::export::Record;
use fleetloop_protocol::{DeviceId, Digest};
use serde::Deserialize;

use super::auth::{AdminCaller, LabelCaller};
use super::error::Failure;
use super::extract::{Json, Named, Params, Raw};
use crate::AppState;
use crate::collect;
use crate::store::removal;
use crate::store::samples::{self, Filter};

/// The longest source of an import, and the longest reason of a removal, in bytes.
pub const SOURCE_BYTES: usize = fleetloop_protocol::limits::TEXT_BYTES;

/// The most samples a list answers.
pub const LIST: u32 = 1000;

/// Samples that are removed, or whose labels are cleared, in one request: their digests fit its body's
/// limit twice.
pub const AT_ONCE: usize = 450;

/// The endpoints.
pub fn router() -> Router<AppState> {
    Router::new()
        .route("/samples", get(list))
        .route("/samples/{digest}", get(show))
        .route("/sample-counts", get(counts))
        .route("/samples/remove", post(remove))
        .route("/samples/collect", post(collect))
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Query {
    group: Option<String>,
    labelled: Option<bool>,
    #[serde(default = "fifty")]
    limit: u32,
    starts: Option<String>,
    before: Option<Digest>,
}

fn fifty() -> u32 {
    50
}

async fn list(
    _caller: LabelCaller,
    State(state): State<AppState>,
    Params(query): Params<Query>,
) -> Result<axum::Json<Vec<Sample>>, Failure> {
    if query.group.as_deref().is_some_and(|group| !matches!(group, "fleet" | "import")) {
        return Err(Failure::invalid("cannot list samples: group is fleet or import"));
    }
    if query.limit > LIST {
        return Err(Failure::invalid(format!("cannot list samples: at most {LIST}; use before")));
    }
    let filter = Filter {
        group: query.group,
        labelled: query.labelled,
        limit: query.limit,
        starts: query.starts,
        before: query.before,
    };
    let found = state.store.read(move |connection| samples::list(connection, &filter)).await?;
    Ok(axum::Json(found))
}

async fn show(
    _caller: LabelCaller,
    State(state): State<AppState>,
    Named(digest): Named<Digest>,
) -> Result<axum::Json<Sample>, Failure> {
    let found = state.store.read(move |connection| samples::get(connection, digest)).await?;
    Ok(axum::Json(found))
}

async fn counts(
    _caller: LabelCaller,
    State(state): State<AppState>,
) -> Result<axum::Json<SampleCounts>, Failure> {
    Ok(axum::Json(state.store.read(samples::counts).await?))
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Collect {
    device: DeviceId,
    #[serde(default)]
    vouched: bool,
}

/// The body is records of an outbox's export, without its first line.
async fn collect(
    AdminCaller(caller): AdminCaller,
    State(state): State<AppState>,
    Params(query): Params<Collect>,
    Raw(body): Raw,
) -> Result<axum::Json<CollectResponse>, Failure> {
    let records = Record::all(&body)
        .map_err(|error| Failure::invalid(format!("cannot collect samples: {error}")))?;
    let done = collect::collect(&state, &query.device, &records, query.vouched, &caller.name);
    Ok(axum::Json(done.await?))
}

/// All of them or, where there is none of one, none.
async fn remove(
    AdminCaller(caller): AdminCaller,
    State(state): State<AppState>,
    Json(request): Json<RemoveRequest>,
) -> Result<axum::Json<Vec<Sample>>, Failure> {
    let RemoveRequest { samples: wanted, reason } = request;
    if wanted.len() > AT_ONCE {
        return Err(Failure::invalid(format!("cannot remove samples: at most {AT_ONCE} at once")));
    }
    if reason.trim().is_empty() || reason.len() > SOURCE_BYTES || has_hidden(&reason) {
        return Err(Failure::invalid(format!(
            "cannot remove samples: the reason has 1 to {SOURCE_BYTES} bytes, all of which can be seen"
        )));
    }
    let now = state.clock.now();
    let removed = state
        .store
        .write(move |tx| {
            removal::remove(tx, &wanted, &reason, &caller.name, now)?;
            wanted.iter().map(|sample| samples::get(tx, *sample)).collect::<Result<Vec<_>, _>>()
        })
        .await?;
    // The tombstones stand; a payload that cannot be erased now is erased at the next start.
    removal::erase_due(&state.store, &state.payloads, now).await?;
    Ok(axum::Json(removed))
}
