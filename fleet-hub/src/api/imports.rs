//! Imports: what is missing, its pictures, the import itself; listed and removed.
//!
//! Order by crash: payloads are decoded, put on the disk and noted as whole before an import may name
//! them; the import is one transaction. A crash between leaves payloads that no sample names: the same
//! command again finds them here, and after a day they are erased.

use axum::Router;
use axum::extract::State;
use axum::routing::{get, post};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use fleetloop_models::picture::Frame;
use fleetloop_observe::text::{chain, has_hidden};
use fleetloop_protocol::Digest;
use fleetloop_protocol::api::imports::{
    Import, ImportRequest, Imported, Missing, Picture, Pictures, Refused, RemoveImport, Taken,
};
use fleetloop_protocol::limits::PAYLOAD_BYTES;
use fleetloop_protocol::sample::MediaType;
use futures::{StreamExt as _, TryStreamExt as _};
use tokio::sync::Semaphore;

use super::auth::AdminCaller;
use super::error::Failure;
use super::extract::{Json, Named};
use super::samples::SOURCE_BYTES;
use crate::AppState;
use crate::store::imports::{self, Decoded};
use crate::store::removal;

/// Pictures a request.
pub const PICTURES: usize = 512;

/// Digests a request: they fit the body's limit.
pub const DIGESTS: usize = 900;

/// Payloads written at once: each waits for its own sync, and disks serve several at a time.
const WRITES: usize = 16;

/// The endpoints.
pub fn router() -> Router<AppState> {
    Router::new()
        .route("/imports", get(list).post(import))
        .route("/imports/missing", post(missing))
        .route("/imports/pictures", post(pictures))
        .route("/imports/{id}", get(show))
        .route("/imports/{id}/remove", post(remove))
}

async fn list(
    _caller: AdminCaller,
    State(state): State<AppState>,
) -> Result<axum::Json<Vec<Import>>, Failure> {
    Ok(axum::Json(state.store.read(imports::list).await?))
}

async fn show(
    _caller: AdminCaller,
    State(state): State<AppState>,
    Named(id): Named<u64>,
) -> Result<axum::Json<Import>, Failure> {
    Ok(axum::Json(state.store.read(move |connection| imports::get(connection, id)).await?))
}

async fn missing(
    _caller: AdminCaller,
    State(state): State<AppState>,
    Json(Missing { payloads }): Json<Missing>,
) -> Result<axum::Json<Missing>, Failure> {
    if payloads.len() > DIGESTS {
        return Err(Failure::too_large(format!(
            "cannot look for {} payloads: at most {DIGESTS} a request",
            payloads.len()
        )));
    }
    let payloads = state.store.read(move |c| imports::missing(c, &payloads)).await?;
    Ok(axum::Json(Missing { payloads }))
}

async fn pictures(
    _caller: AdminCaller,
    State(state): State<AppState>,
    Json(Pictures { items }): Json<Pictures>,
) -> Result<axum::Json<Taken>, Failure> {
    if items.len() > PICTURES {
        return Err(Failure::too_large(format!(
            "cannot take {} pictures: at most {PICTURES} a request",
            items.len()
        )));
    }
    let read = items.into_iter().enumerate().map(|(at, item)| bytes_of(at, &item));
    let read = read.collect::<Result<Vec<_>, _>>()?;
    // Until their notes are written, nobody erases the payloads as ones that no import names.
    let _kept = state.payloads.keep().await;
    let names: Vec<Digest> = read.iter().map(|(_, bytes)| Digest::of(bytes)).collect();
    let removed: Vec<bool> = state
        .store
        .read(move |c| names.iter().map(|name| imports::stays_removed(c, *name)).collect())
        .await?;
    let wanted = read.into_iter().zip(removed).filter(|(_, removed)| !removed);
    let decoded = decode_all(wanted.map(|(one, _)| one).collect()).await?;
    let (whole, broken): (Vec<_>, Vec<_>) =
        decoded.into_iter().partition(|(note, _)| note.fault.is_none());
    let refused = broken.into_iter().map(|(note, _)| Refused {
        picture: note.payload.to_string(),
        reason: note.fault.unwrap_or_default(),
    });
    let taken = Taken { refused: refused.collect() };
    let notes: Vec<Decoded> = futures::stream::iter(whole)
        .map(|(note, bytes)| {
            let payloads = state.payloads.clone();
            async move {
                payloads.put(note.payload, bytes).await?;
                Ok::<_, Failure>(note)
            }
        })
        .buffered(WRITES)
        .try_collect()
        .await?;
    let now = state.clock.now();
    state.store.write(move |tx| imports::note(tx, &notes, now)).await?;
    Ok(axum::Json(taken))
}

fn bytes_of(at: usize, item: &Picture) -> Result<(MediaType, Bytes), Failure> {
    let bytes = STANDARD
        .decode(&item.payload)
        .map_err(|_| Failure::invalid(format!("cannot take picture {at}: not base64")))?;
    Ok((item.media_type, Bytes::from(bytes)))
}

/// Decodes every pixel of the pictures, in their order.
///
/// # Errors
/// The decoder panicked.
pub(super) async fn decode_all(
    pictures: Vec<(MediaType, Bytes)>,
) -> Result<Vec<(Decoded, Bytes)>, Failure> {
    /// One request at a time: a large picture takes 200 MB while it is decoded.
    static ONE: Semaphore = Semaphore::const_new(1);
    let _one = ONE.acquire().await.map_err(|error| Failure::internal("decode pictures", &error))?;
    let decoding = tokio::task::spawn_blocking(move || {
        let decoded = |(media_type, bytes): (MediaType, Bytes)| {
            let note = Decoded {
                payload: Digest::of(&bytes),
                payload_len: bytes.len() as u64,
                media_type,
                fault: fault(media_type, &bytes),
            };
            (note, bytes)
        };
        pictures.into_iter().map(decoded).collect()
    });
    decoding.await.map_err(|error| Failure::internal("decode pictures", &error))
}

/// Why a payload cannot be imported; none for a whole picture.
fn fault(media_type: MediaType, bytes: &[u8]) -> Option<String> {
    if bytes.len() > PAYLOAD_BYTES {
        let len = bytes.len();
        return Some(format!("it has {len} bytes, at most {PAYLOAD_BYTES} are taken"));
    }
    Frame::decode(media_type, bytes).err().map(|error| chain(&error))
}

async fn import(
    AdminCaller(caller): AdminCaller,
    State(state): State<AppState>,
    Json(request): Json<ImportRequest>,
) -> Result<axum::Json<Imported>, Failure> {
    checked("source", "import pictures", &request.source)?;
    // As above: the import looks that the payloads are here, and names them.
    let _kept = state.payloads.keep().await;
    let now = state.clock.now();
    let done =
        state.store.write(move |tx| imports::import(tx, &request, &caller.name, now)).await?;
    Ok(axum::Json(done))
}

async fn remove(
    AdminCaller(caller): AdminCaller,
    State(state): State<AppState>,
    Named(id): Named<u64>,
    Json(RemoveImport { reason }): Json<RemoveImport>,
) -> Result<axum::Json<Import>, Failure> {
    checked("reason", "remove the import", &reason)?;
    let now = state.clock.now();
    let removed =
        state.store.write(move |tx| imports::remove(tx, id, &reason, &caller.name, now)).await?;
    // The tombstones stand; a payload that cannot be erased now is erased at the next start.
    removal::erase_due(&state.store, &state.payloads, now).await?;
    Ok(axum::Json(removed))
}

fn checked(what: &str, operation: &str, text: &str) -> Result<(), Failure> {
    if text.trim().is_empty() || text.len() > SOURCE_BYTES || has_hidden(text) {
        return Err(Failure::invalid(format!(
            "cannot {operation}: the {what} has 1 to {SOURCE_BYTES} bytes, all of which can be seen"
        )));
    }
    Ok(())
}
