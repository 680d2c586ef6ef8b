//! Samples: list, show, count, import.

use axum::Router;
use axum::extract::State;
use axum::routing::{get, post};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use fleetloop_protocol::Digest;
use fleetloop_protocol::api::samples::{
    ImportItem, ImportRequest, ImportResponse, Sample, SampleCounts,
};
use futures::{StreamExt as _, TryStreamExt as _};
use serde::Deserialize;

use super::auth::{AdminCaller, LabelCaller};
use super::error::Failure;
use super::extract::{Json, Named, Params};
use crate::AppState;
use crate::store::samples::{self, Filter, NewImport};

/// Pictures a request.
pub const IMPORT_ITEMS: usize = 512;

/// The largest imported payload, in bytes.
pub const IMPORT_PAYLOAD_BYTES: usize = 4 << 20;

/// The longest source, in bytes.
pub const SOURCE_BYTES: usize = fleetloop_protocol::limits::TEXT_BYTES;

/// The most samples a list answers.
pub const LIST: u32 = 1000;

/// Payloads written at once: each waits for its own sync, and disks serve several at a time.
const WRITES: usize = 16;

/// The endpoints.
pub fn router() -> Router<AppState> {
    Router::new()
        .route("/samples", get(list))
        .route("/samples/{digest}", get(show))
        .route("/sample-counts", get(counts))
        .route("/samples/import", post(import))
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Query {
    group: Option<String>,
    labelled: Option<bool>,
    #[serde(default = "fifty")]
    limit: u32,
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

/// Payloads first, each on the disk under its digest, then all rows in one transaction: a crash
/// between leaves payloads that no row names, and the same request again finds them there.
async fn import(
    AdminCaller(caller): AdminCaller,
    State(state): State<AppState>,
    Json(request): Json<ImportRequest>,
) -> Result<axum::Json<ImportResponse>, Failure> {
    let ImportRequest { source, split, items } = request;
    if items.len() > IMPORT_ITEMS {
        return Err(Failure::too_large(format!(
            "cannot import {} pictures: at most {IMPORT_ITEMS} a request",
            items.len()
        )));
    }
    if source.trim().is_empty() || source.len() > SOURCE_BYTES {
        return Err(Failure::invalid(format!(
            "cannot import pictures: their source has 1 to {SOURCE_BYTES} bytes"
        )));
    }
    let decoded = items
        .into_iter()
        .enumerate()
        .map(|(at, item)| decode(at, item))
        .collect::<Result<Vec<_>, Failure>>()?;
    let names: Vec<&str> = decoded.iter().map(|(item, _)| item.label.as_str()).collect();
    known_labels(&state, &names).await?;
    let rows: Vec<NewImport> = futures::stream::iter(decoded)
        .map(|(row, bytes)| {
            let payloads = state.payloads.clone();
            async move {
                payloads.put(row.payload, bytes).await?;
                Ok::<_, Failure>(row)
            }
        })
        .buffered(WRITES)
        .try_collect()
        .await?;
    let now = state.clock.now();
    let done = state
        .store
        .write(move |tx| samples::import(tx, &source, split, &rows, &caller.name, now))
        .await?;
    Ok(axum::Json(done))
}

/// Refuses an unknown label before anything is written.
async fn known_labels(state: &AppState, names: &[&str]) -> Result<(), Failure> {
    let set = state.store.read(crate::store::labels::set).await?;
    match names.iter().find(|name| !set.labels.iter().any(|label| label == *name)) {
        None => Ok(()),
        Some(name) => Err(Failure::invalid(format!(
            "cannot import pictures: {name:?} is none of the hub's labels; see 'fleet-hub label names'"
        ))),
    }
}

fn decode(at: usize, item: ImportItem) -> Result<(NewImport, Bytes), Failure> {
    let bytes = STANDARD
        .decode(&item.payload)
        .map_err(|_| Failure::invalid(format!("cannot import picture {at}: not base64")))?;
    if bytes.is_empty() || bytes.len() > IMPORT_PAYLOAD_BYTES {
        return Err(Failure::too_large(format!(
            "cannot import picture {at}: it has {} bytes, 1 to {IMPORT_PAYLOAD_BYTES} are taken",
            bytes.len()
        )));
    }
    let row = NewImport {
        payload: Digest::of(&bytes),
        payload_len: bytes.len() as u64,
        media_type: item.media_type,
        label: item.label,
    };
    Ok((row, Bytes::from(bytes)))
}
