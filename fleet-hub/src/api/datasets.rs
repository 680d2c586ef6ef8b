//! Datasets: freeze what is labelled, list, fetch, and what was removed since.

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;

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
use fleetloop_protocol::api::jobs::LeftOut;

use super::auth::{AdminCaller, AnyCaller, WorkerCaller};
use super::error::Failure;
use super::extract::{Json, Named};
use super::imports::decode_all;
use crate::AppState;
use crate::registry;
use crate::store::datasets::{self, Labelled};
use crate::store::{StoreError, imports, labels, removal};

/// The longest name, in bytes.
pub const NAME_BYTES: usize = 100;

/// Payloads in memory at once while they are decoded.
const DECODED_AT_ONCE: usize = 16;

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
    payload.fraction() < share
}

/// The dataset of what is labelled. Pure: the same samples and labels give the same bytes. It holds each
/// picture once, with the newest of its labels, whichever of its samples that was given to; a picture
/// that one of them keeps to judge by is not learned from.
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
    let chosen = |one: &Labelled| {
        request.groups.is_empty() || request.groups.iter().any(|group| group == kind_of(&one.group))
    };
    let mut pictures: BTreeMap<Digest, (Labelled, bool)> = BTreeMap::new();
    for one in labelled.into_iter().filter(chosen) {
        let gate = match one.split {
            Some(split) => split == Split::Gate,
            None => is_gate(one.payload, request.gate_share),
        };
        match pictures.entry(one.payload) {
            Entry::Vacant(new) => {
                new.insert((one, gate));
            }
            Entry::Occupied(mut known) => {
                let (newest, judges) = known.get_mut();
                *judges |= gate;
                if one.given > newest.given {
                    *newest = one;
                }
            }
        }
    }
    let mut items: Vec<Item> = pictures
        .into_values()
        .map(|(one, gate)| Item {
            split: if gate { Split::Gate } else { Split::Train },
            sample: one.sample,
            payload: one.payload,
            media_type: one.media_type,
            label: one.label,
            group: one.group,
        })
        .collect();
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
    let (labelled, unreadable) = readable(&state, labelled).await?;
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
    Ok(axum::Json(Frozen { dataset: stored, held, unreadable }))
}

/// Those whose payloads can be decoded in full, and the others with the reason. What was decoded once is
/// noted and not decoded again.
async fn readable(
    state: &AppState,
    labelled: Vec<Labelled>,
) -> Result<(Vec<Labelled>, Vec<LeftOut>), Failure> {
    let (labelled, unknown) = state
        .store
        .read(move |connection| {
            let mut unknown = Vec::new();
            for one in &labelled {
                if imports::decoded(connection, one.payload)?.is_none() {
                    unknown.push((one.payload, one.media_type));
                }
            }
            unknown.sort_unstable_by_key(|(payload, _)| *payload);
            unknown.dedup_by_key(|(payload, _)| *payload);
            Ok((labelled, unknown))
        })
        .await?;
    for some in unknown.chunks(DECODED_AT_ONCE) {
        let mut pictures = Vec::new();
        for (payload, media_type) in some {
            match state.payloads.get(*payload).await {
                Ok(bytes) => pictures.push((*media_type, bytes)),
                Err(StoreError::NotFound { .. } | StoreError::Mismatch { .. }) => {}
                Err(error) => return Err(error.into()),
            }
        }
        let notes =
            decode_all(pictures).await?.into_iter().map(|(note, _)| note).collect::<Vec<_>>();
        let now = state.clock.now();
        state.store.write(move |tx| imports::note(tx, &notes, now)).await?;
    }
    let sorted = state.store.read(move |connection| {
        let (mut whole, mut left_out) = (Vec::new(), Vec::new());
        for one in labelled {
            let reason = match imports::decoded(connection, one.payload)? {
                Some(found) => found.fault,
                None => {
                    Some("its picture is not on the hub's disk, or is damaged there".to_owned())
                }
            };
            match reason {
                None => whole.push(one),
                Some(reason) => left_out.push(LeftOut { sample: one.sample, reason }),
            }
        }
        Ok((whole, left_out))
    });
    Ok(sorted.await?)
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
