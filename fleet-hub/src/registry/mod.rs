//! The bundles the hub holds, where they came from, and what the gate said of them.
//!
//! Invariant: a model in the list is complete. Its manifest is valid and every file it names lies
//! in the artefact store with the length it says, before the row is written. A model's report is an
//! artefact, and its verdict can be made again from the reports at any time.

pub mod http;

use fleetloop_models::bundle::{BundleError, Manifest};
use fleetloop_protocol::api::datasets::Dataset;
use fleetloop_protocol::api::models::Model;
use fleetloop_protocol::api::reports::{Report, Verdict};
use fleetloop_protocol::limits::MANIFEST_BYTES;
use fleetloop_protocol::{BundleDigest, Digest};

use crate::AppState;
use crate::gate::{self, Policy};
use crate::store::payloads::Blobs;
use crate::store::registry::{self as rows, ReportRow};
use crate::store::{StoreError, audit, labels};

/// The largest dataset or report that is read into memory, in bytes: about a million items.
const DOCUMENT_BYTES: u64 = 512 * 1024 * 1024;

/// A bundle whose manifest was read and whose files are all there.
#[derive(Debug, Clone)]
pub struct Held {
    /// The manifest.
    pub manifest: Manifest,
    /// Its bytes: the TUF target.
    pub bytes: Vec<u8>,
}

/// Reads the manifest of `bundle` and looks that every file it names is stored.
///
/// # Errors
/// [`StoreError::Invalid`] naming the artefact that is missing, for a manifest that is none, or for
/// a file of another length.
pub async fn hold(artefacts: &Blobs, bundle: BundleDigest) -> Result<Held, StoreError> {
    let invalid = |reason: String| StoreError::Invalid {
        what: format!("cannot take bundle {bundle}: {reason}"),
    };
    let missing = |what: &str, digest: Digest| {
        invalid(format!("{what} is not stored; upload it with 'PUT /api/v1/artefacts/{digest}'"))
    };
    let len = match artefacts.size(bundle.0).await {
        Err(StoreError::NotFound { .. }) => return Err(missing("the manifest", bundle.0)),
        len => len?,
    };
    if len > MANIFEST_BYTES as u64 {
        let error =
            BundleError::ManifestTooLarge { len: usize::try_from(len).unwrap_or(usize::MAX) };
        return Err(invalid(error.to_string()));
    }
    let bytes = artefacts.get(bundle.0).await?.to_vec();
    let manifest = Manifest::parse(&bytes).map_err(|e| invalid(e.to_string()))?;
    for file in &manifest.files {
        match artefacts.size(file.sha256).await {
            Ok(len) if len == file.len_bytes => {}
            Ok(len) => {
                let (path, said) = (&file.path, file.len_bytes);
                return Err(invalid(format!("{path} has {len} bytes, the manifest says {said}")));
            }
            Err(StoreError::NotFound { .. }) => return Err(missing(&file.path, file.sha256)),
            Err(error) => return Err(error),
        }
    }
    Ok(Held { manifest, bytes })
}

/// Adds a bundle that was brought from outside; its artefacts were uploaded before. Nothing is
/// known of where it came from, and no gate has judged it.
///
/// # Errors
/// As [`hold`]; [`StoreError::Conflict`] when its name and version are another bundle's, or its
/// labels are not the first of the hub's: a label is known by its place.
pub async fn import(
    state: &AppState,
    bundle: BundleDigest,
    who: &str,
) -> Result<Model, StoreError> {
    let held = hold(&state.artefacts, bundle).await?;
    let model = Model {
        bundle,
        name: held.manifest.name.clone(),
        version: held.manifest.version,
        base: None,
        dataset: None,
        run_record: None,
        job: None,
        verdict: None,
        released_as: Vec::new(),
        created_by: who.to_owned(),
        created_at_ms: state.clock.now().0,
    };
    let (target, len, who) = (held.manifest.target_name(), held.bytes.len() as u64, who.to_owned());
    let brought = held.manifest.labels;
    state
        .store
        .write(move |tx| {
            let known = labels::set(tx)?.labels;
            if !known.starts_with(&brought) {
                let what = format!(
                    "cannot import bundle {bundle}: its labels are {}, the hub's {}, and a label is \
                     known by its place; pack it with the hub's in their order ('fleet-hub label names')",
                    brought.join(", "),
                    known.join(", ")
                );
                return Err(StoreError::Conflict { what });
            }
            rows::insert(tx, &model, &target, len)?;
            audit(tx, &who, "model.import", &bundle.to_string(), &target)?;
            rows::get(tx, bundle)
        })
        .await
}

/// Judges a model again, by its last report and its base's on the same dataset.
///
/// # Errors
/// [`StoreError::Conflict`] when no worker has reported on it, or not on its base.
pub async fn judge(
    state: &AppState,
    bundle: BundleDigest,
    who: &str,
) -> Result<Verdict, StoreError> {
    let (model, report) = state
        .store
        .read(move |c| Ok((rows::get(c, bundle)?, rows::last_report(c, bundle, None)?)))
        .await?;
    let unjudged = |whose: &str| StoreError::Conflict {
        what: format!(
            "cannot judge model {bundle}: no worker has reported on {whose}; train from it, or \
             release it with --without-gate and a reason"
        ),
    };
    let report = report.ok_or_else(|| unjudged("it"))?;
    let base = match model.base {
        None => None,
        Some(base) => {
            let dataset = Some(report.dataset);
            let found = state.store.read(move |c| rows::last_report(c, base, dataset)).await?;
            Some(read_report(&state.artefacts, &found.ok_or_else(|| unjudged("its base"))?).await?)
        }
    };
    let report = read_report(&state.artefacts, &report).await?;
    let verdict = gate::verdict(&report, base.as_ref(), &Policy::default());
    let (kept, who) = (verdict.clone(), who.to_owned());
    state
        .store
        .write(move |tx| {
            rows::judge(tx, bundle, &kept)?;
            let passed = if kept.passed { "passed" } else { "failed" };
            audit(tx, &who, "model.gate", &bundle.to_string(), passed)
        })
        .await?;
    Ok(verdict)
}

/// The frozen dataset of that digest.
///
/// # Errors
/// [`StoreError::NotFound`]; [`StoreError::Invalid`] when the artefact is no dataset.
pub async fn dataset(artefacts: &Blobs, digest: Digest) -> Result<Dataset, StoreError> {
    let bytes = match document(artefacts, digest).await {
        Err(StoreError::NotFound { .. }) => {
            let what = format!("dataset {digest}; see 'fleet-hub dataset list'");
            return Err(StoreError::NotFound { what });
        }
        bytes => bytes?,
    };
    serde_json::from_slice(&bytes).map_err(|_| StoreError::Invalid {
        what: format!("cannot read dataset {digest}: the artefact is no frozen dataset"),
    })
}

/// Stores `report` as an artefact.
///
/// # Errors
/// The disk's.
pub async fn store_report(artefacts: &Blobs, report: &Report) -> Result<Digest, StoreError> {
    let bytes = serde_json::to_vec(report).map_err(StoreError::damaged)?;
    let digest = Digest::of(&bytes);
    artefacts.put(digest, bytes.into()).await?;
    Ok(digest)
}

async fn read_report(artefacts: &Blobs, row: &ReportRow) -> Result<Report, StoreError> {
    let bytes = document(artefacts, row.digest).await?;
    serde_json::from_slice(&bytes)
        .map_err(|_| StoreError::damaged(format_args!("report {}", row.digest)))
}

async fn document(artefacts: &Blobs, digest: Digest) -> Result<bytes::Bytes, StoreError> {
    if artefacts.size(digest).await? > DOCUMENT_BYTES {
        let what = format!("cannot read artefact {digest}: over {DOCUMENT_BYTES} bytes");
        return Err(StoreError::Invalid { what });
    }
    artefacts.get(digest).await
}
