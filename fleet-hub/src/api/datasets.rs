//! Datasets: freeze what is labelled, list, fetch, and what was removed since.

use std::collections::HashSet;

use axum::Router;
use axum::extract::State;
use axum::http::header::CONTENT_TYPE;
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use bytes::Bytes;
use fleetloop_observe::text::has_hidden;
use fleetloop_protocol::Digest;
use fleetloop_protocol::api::datasets::{
    Dataset, DatasetSummary, FreezeRequest, Frozen, Item, Split, kind_of,
};

use super::auth::{AdminCaller, AnyCaller, WorkerCaller};
use super::error::Failure;
use super::extract::{Json, Named};
use crate::AppState;
use crate::registry;
use crate::store::datasets::{self, Labelled};
use crate::store::{labels, removal};

/// The longest name, in bytes.
pub const NAME_BYTES: usize = 100;

/// The endpoints.
pub fn router() -> Router<AppState> {
    Router::new()
        .route("/datasets", get(list).post(freeze))
        .route("/datasets/{digest}", get(fetch))
        .route("/datasets/{digest}/removed", get(removed))
}

/// Whether the gate keeps a fleet sample: the first eight bytes of its payload's digest, big
/// endian, over 2^64, are below the share. So a picture is for the gate in every dataset of that
/// share, or never, however often a device sent it.
pub fn is_gate(payload: Digest, share: f64) -> bool {
    let mut head = [0; 8];
    head.copy_from_slice(&payload.as_bytes()[..8]);
    (u64::from_be_bytes(head) as f64) / 2f64.powi(64) < share
}

/// The dataset of what is labelled. Pure: the same samples and labels give the same bytes. What it
/// keeps to judge by it does not learn from, whichever of its samples show the same picture.
///
/// # Errors
/// [`Failure`] 400 for a name or share that cannot be, 409 when a split would be empty.
pub fn assemble(
    request: &FreezeRequest,
    labels: Vec<String>,
    labelled: Vec<Labelled>,
) -> Result<Dataset, Failure> {
    let name = &request.name;
    if name.trim().is_empty() || name.len() > NAME_BYTES || has_hidden(name) {
        return Err(Failure::invalid(format!(
            "cannot freeze a dataset: its name has 1 to {NAME_BYTES} bytes, all of which can be seen"
        )));
    }
    if !(0.0..=1.0).contains(&request.gate_share) {
        return Err(Failure::invalid(format!(
            "cannot freeze dataset {name:?}: the gate's share {} is not between 0 and 1",
            request.gate_share
        )));
    }
    if let Some(group) = request.groups.iter().find(|g| !matches!(g.as_str(), "fleet" | "import")) {
        return Err(Failure::invalid(format!(
            "cannot freeze dataset {name:?}: there is no group {group:?}, only fleet and import"
        )));
    }
    let mut items: Vec<Item> = labelled
        .into_iter()
        .filter(|one| {
            request.groups.is_empty()
                || request.groups.iter().any(|group| group == kind_of(&one.group))
        })
        .map(|one| Item {
            split: one.split.unwrap_or(if is_gate(one.payload, request.gate_share) {
                Split::Gate
            } else {
                Split::Train
            }),
            sample: one.sample,
            payload: one.payload,
            media_type: one.media_type,
            label: one.label,
            group: one.group,
        })
        .collect();
    let judged_by: HashSet<Digest> =
        items.iter().filter(|item| item.split == Split::Gate).map(|item| item.payload).collect();
    items.retain(|item| item.split == Split::Gate || !judged_by.contains(&item.payload));
    items.sort_by_key(|item| item.sample);
    let has = |split| items.iter().any(|item| item.split == split);
    for (split, word, remedy) in [
        (Split::Train, "learn from", "label samples, or lower the gate's share"),
        (
            Split::Gate,
            "judge by",
            "label more samples, raise the gate's share, or import some with --split gate",
        ),
    ] {
        if !has(split) {
            let count = items.len();
            return Err(Failure::conflict(format!(
                "cannot freeze dataset {name:?}: of {count} labelled samples none would be left to {word}; {remedy}"
            )));
        }
    }
    Ok(Dataset { name: name.clone(), labels, items })
}

/// The bytes first, as an artefact, then the row that names them: a crash between leaves an artefact
/// that nobody names, and freezing again finds it there.
async fn freeze(
    AdminCaller(caller): AdminCaller,
    State(state): State<AppState>,
    Json(request): Json<FreezeRequest>,
) -> Result<axum::Json<Frozen>, Failure> {
    let (set, labelled, held) = state
        .store
        .read(|connection| {
            let labelled = datasets::labelled(connection)?;
            Ok((labels::set(connection)?, labelled, datasets::held(connection)?))
        })
        .await?;
    let dataset = assemble(&request, set.labels, labelled)?;
    let bytes =
        serde_json::to_vec(&dataset).map_err(|e| Failure::internal("write a dataset", &e))?;
    let digest = Digest::of(&bytes);
    let count = |split| dataset.items.iter().filter(|item| item.split == split).count() as u64;
    let summary = DatasetSummary {
        digest,
        name: request.name,
        train: count(Split::Train),
        gate: count(Split::Gate),
        frozen_by: caller.name,
        frozen_at_ms: state.clock.now().0,
    };
    state.artefacts.put(digest, Bytes::from(bytes)).await?;
    let stored = state.store.write(move |tx| datasets::insert(tx, &summary)).await?;
    for item in &dataset.items {
        tracing::debug!(digest = %item.sample, dataset = %digest, "frozen into a dataset");
    }
    Ok(axum::Json(Frozen { dataset: stored, held }))
}

async fn list(
    _caller: AnyCaller,
    State(state): State<AppState>,
) -> Result<axum::Json<Vec<DatasetSummary>>, Failure> {
    Ok(axum::Json(state.store.read(datasets::list).await?))
}

async fn fetch(
    _caller: WorkerCaller,
    State(state): State<AppState>,
    Named(digest): Named<Digest>,
) -> Result<Response, Failure> {
    state.store.read(move |connection| datasets::get(connection, digest)).await?;
    let bytes = state.artefacts.get(digest).await?;
    Ok(([(CONTENT_TYPE, "application/json")], bytes).into_response())
}

/// The samples of a frozen dataset that were removed since: their payloads are gone.
async fn removed(
    _caller: WorkerCaller,
    State(state): State<AppState>,
    Named(digest): Named<Digest>,
) -> Result<axum::Json<Vec<Digest>>, Failure> {
    state.store.read(move |connection| datasets::get(connection, digest)).await?;
    let dataset = registry::dataset(&state.artefacts, digest).await?;
    let samples: Vec<Digest> = dataset.items.iter().map(|item| item.sample).collect();
    let found = state.store.read(move |c| removal::removed_of(c, &samples)).await?;
    Ok(axum::Json(found))
}
