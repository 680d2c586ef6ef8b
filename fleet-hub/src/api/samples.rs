//! Samples: list, show, count, import, collect, remove.

use axum::Router;
use axum::extract::State;
use axum::routing::{get, post};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use fleetloop_models::content;
use fleetloop_observe::text::has_hidden;
use fleetloop_protocol::api::samples::{
    CollectResponse, ImportItem, ImportRefused, ImportRequest, ImportResponse, RemoveRequest,
    Sample, SampleCounts,
};
use fleetloop_protocol::export::Record;
use fleetloop_protocol::limits::PAYLOAD_BYTES;
use fleetloop_protocol::{DeviceId, Digest};
use futures::{StreamExt as _, TryStreamExt as _};
use serde::Deserialize;

use super::auth::{AdminCaller, LabelCaller};
use super::error::Failure;
use super::extract::{Json, Named, Params, Raw};
use crate::AppState;
use crate::collect;
use crate::store::removal;
use crate::store::samples::{self, Filter, NewImport};

/// Pictures a request.
pub const IMPORT_ITEMS: usize = 512;

/// The longest source, in bytes.
pub const SOURCE_BYTES: usize = fleetloop_protocol::limits::TEXT_BYTES;

/// The most samples a list answers.
pub const LIST: u32 = 1000;

/// Samples that are removed, or whose labels are cleared, in one request: their digests fit its body's
/// limit twice.
pub const AT_ONCE: usize = 450;

/// Payloads written at once: each waits for its own sync, and disks serve several at a time.
const WRITES: usize = 16;

/// The endpoints.
pub fn router() -> Router<AppState> {
    Router::new()
        .route("/samples", get(list))
        .route("/samples/{digest}", get(show))
        .route("/sample-counts", get(counts))
        .route("/samples/import", post(import))
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
    if source.trim().is_empty() || source.len() > SOURCE_BYTES || has_hidden(&source) {
        return Err(Failure::invalid(format!(
            "cannot import pictures: their source has 1 to {SOURCE_BYTES} bytes, all of which can be seen"
        )));
    }
    let names: Vec<&str> = items.iter().map(|item| item.label.as_str()).collect();
    known_labels(&state, &names).await?;
    let (mut decoded, mut refused) = (Vec::new(), Vec::new());
    for (at, item) in items.into_iter().enumerate() {
        let media_type = item.media_type;
        let (row, bytes) = decode(at, item)?;
        match content::check(media_type, &bytes) {
            Ok(_) => decoded.push((row, bytes)),
            Err(error) => refused.push(ImportRefused { item: at, reason: error.to_string() }),
        }
    }
    // Until the rows name the payloads, nobody erases them as ones that no sample has.
    let _kept = state.payloads.keep().await;
    let known: Vec<Digest> = decoded.iter().map(|(row, _)| row.record(&source, split)).collect();
    let removed = state.store.read(move |c| removal::removed_of(c, &known)).await?;
    let rows: Vec<NewImport> = futures::stream::iter(decoded)
        .map(|(row, bytes)| {
            let payloads = state.payloads.clone();
            let erased = removed.contains(&row.record(&source, split));
            async move {
                if !erased {
                    payloads.put(row.payload, bytes).await?;
                }
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
    Ok(axum::Json(ImportResponse { refused, ..done }))
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
    removal::erase_due(&state.store, &state.payloads).await?;
    Ok(axum::Json(removed))
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
    if bytes.len() > PAYLOAD_BYTES {
        return Err(Failure::too_large(format!(
            "cannot import picture {at}: it has {} bytes, at most {PAYLOAD_BYTES} are taken",
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
