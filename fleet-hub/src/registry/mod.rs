//! The bundles the hub holds, where they came from, and what the gate said of them.
//!
//! Invariant: a model in the list is complete. Its manifest is valid, every file it names is in the
//! artefact store with the length it says, and its graph was checked, before the row is written. A model's report is an
//! artefact, and its verdict can be made again from the reports at any time.

pub mod http;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;

use fleetloop_models::bundle::{BundleError, Manifest, Role};
use fleetloop_models::graph::Graph;
use fleetloop_protocol::api::datasets::Dataset;
use fleetloop_protocol::api::models::{Compared, ImportModel, Model};
use fleetloop_protocol::api::reports::{GateRequest, Report, ReportState, StoredReport, Verdict};
use fleetloop_protocol::limits::MANIFEST_BYTES;
use fleetloop_protocol::{BundleDigest, Digest};
use serde::Serialize;
use serde::de::DeserializeOwned;
use tokio::sync::Semaphore;

use crate::AppState;
use crate::gate::{self, Policy};
use crate::jobs::disputes;
use crate::store::payloads::Blobs;
use crate::store::{StoreError, audit, labels, registry as rows, reports};

/// The largest dataset or report that is read into memory, in bytes: about a million items.
const DOCUMENT_BYTES: u64 = 512 * 1024 * 1024;

/// The most versions of a name that are compared, the newest.
const COMPARED: usize = 20;

/// The most reports that are looked through for that, the newest.
const REPORTS: u32 = 200;

/// A bundle whose manifest was read and whose files are all there.
#[derive(Debug, Clone)]
pub struct Held {
    /// The manifest.
    pub manifest: Manifest,
    /// Its bytes: the TUF target.
    pub bytes: Vec<u8>,
}

impl Held {
    /// What the database keeps of the manifest.
    pub fn listing(&self) -> rows::Listing {
        rows::Listing {
            target: self.manifest.target_name(),
            manifest_len: self.bytes.len() as u64,
            labels: self.manifest.labels.len(),
        }
    }
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

/// Holds a bundle that comes from outside: [`hold`], its graph is checked, and the manifest says of
/// the output what the graph shows. A device or a worker would run it.
///
/// # Errors
/// As [`hold`]; [`StoreError::Invalid`] when the graph is refused, see [`fleetloop_models::graph`].
pub async fn admit(artefacts: &Blobs, bundle: BundleDigest) -> Result<Held, StoreError> {
    /// One at a time, or the memory of several models would be taken at once.
    static ONE: Semaphore = Semaphore::const_new(1);
    let held = hold(artefacts, bundle).await?;
    // A valid manifest has one model.
    let Some(model) = held.manifest.file(Role::Model) else { return Ok(held) };
    let _one = ONE.acquire().await;
    let bytes = artefacts.get(model.sha256).await?;
    let output = held.manifest.output;
    let checked = tokio::task::spawn_blocking(move || {
        let graph = Graph::check(bytes.into()).map_err(|error| error.to_string())?;
        graph.reading().admits(output, &[]).map_err(|error| error.to_string())
    });
    match checked.await {
        Ok(Ok(())) => Ok(held),
        Ok(Err(error)) => {
            Err(StoreError::Invalid { what: format!("cannot take bundle {bundle}: {error}") })
        }
        Err(panicked) => Err(StoreError::Io {
            what: format!("check the model of bundle {bundle}"),
            source: std::io::Error::other(panicked),
        }),
    }
}

/// Adds a bundle that was brought from outside; its artefacts were uploaded before. Where it came from is
/// what its manifest says, and no gate has judged it.
///
/// # Errors
/// As [`admit`]; [`StoreError::Invalid`] when its run record was not uploaded; [`StoreError::Conflict`] when its name and version are another bundle's, or its
/// labels are not the first of the hub's: a label is known by its place.
pub async fn import(
    state: &AppState,
    what: impl Into<ImportModel>,
    who: &str,
) -> Result<Model, StoreError> {
    let ImportModel { bundle, run_record } = what.into();
    let held = admit(&state.artefacts, bundle).await?;
    if let Some(record) = run_record
        && !state.artefacts.exists(record).await?
    {
        let what = format!(
            "cannot import bundle {bundle}: run record {record} is not stored; upload it first"
        );
        return Err(StoreError::Invalid { what });
    }
    let lineage = held.manifest.lineage.as_ref();
    let model = Model {
        bundle,
        name: held.manifest.name.clone(),
        version: held.manifest.version,
        base: lineage.and_then(|lineage| lineage.base),
        dataset: lineage.and_then(|lineage| lineage.dataset),
        run_record,
        job: None,
        verdict: None,
        released_as: Vec::new(),
        created_by: who.to_owned(),
        created_at_ms: state.clock.now().0,
    };
    let (listing, who) = (held.listing(), who.to_owned());
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
            rows::insert(tx, &model, &listing)?;
            audit(tx, &who, "model.import", &bundle.to_string(), &listing.target)?;
            rows::get(tx, bundle)
        })
        .await
}

/// Judges a model again, by its last report and its base's on the same dataset.
///
/// # Errors
/// [`StoreError::Invalid`] for a floor that is no share; [`StoreError::Conflict`] when no worker has reported on it, or not on its base, or while such a
/// report is in dispute.
pub async fn judge(
    state: &AppState,
    bundle: BundleDigest,
    request: GateRequest,
    who: &str,
) -> Result<Verdict, StoreError> {
    if let Some(floor) = request.floor.filter(|floor| !(0.0..=1.0).contains(floor)) {
        let what = format!("cannot judge model {bundle}: the floor {floor} is not between 0 and 1");
        return Err(StoreError::Invalid { what });
    }
    let (model, report) = state
        .store
        .read(move |c| Ok((disputes::undisputed(c, bundle)?, reports::last(c, bundle, None)?)))
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
            let found = state.store.read(move |c| reports::last(c, base, dataset)).await?;
            let found = found.ok_or_else(|| unjudged("its base"))?;
            Some(read_report(&state.artefacts, found.digest).await?)
        }
    };
    let report = read_report(&state.artefacts, report.digest).await?;
    let policy = Policy { floor: request.floor, ..Policy::default() };
    let verdict = gate::verdict(&report, base.as_ref(), &policy);
    let (kept, who) = (verdict.clone(), who.to_owned());
    state
        .store
        .write(move |tx| {
            rows::judge(tx, bundle, &kept)?;
            let floor =
                request.floor.map_or(String::new(), |floor| format!(", stated floor {floor}"));
            let detail = format!("{}{floor}", gate::word(kept.outcome));
            audit(tx, &who, "model.gate", &bundle.to_string(), &detail)
        })
        .await?;
    Ok(verdict)
}

/// What every model gets right of the items that all versions of its name were judged by; of a name with
/// one version, of all its items. The most versions that are compared are the newest [`COMPARED`].
///
/// # Errors
/// The database's, and the disk's.
pub async fn compared(state: &AppState) -> Result<Vec<Compared>, StoreError> {
    let read = state.store.read(|c| Ok((rows::list(c)?, reports::list(c, true, REPORTS)?)));
    let (models, stored) = read.await?;
    let mut names: BTreeMap<&str, Vec<&Model>> = BTreeMap::new();
    for model in &models {
        names.entry(&model.name).or_default().push(model);
    }
    let mut found = Vec::new();
    for versions in names.values_mut() {
        versions.sort_by_key(|model| std::cmp::Reverse(model.version));
        versions.truncate(COMPARED);
        let mut reports = Vec::new();
        let counts = |report: &&StoredReport| report.state == ReportState::Counts;
        for report in stored.iter().filter(counts) {
            if versions.iter().any(|model| model.bundle == report.bundle) {
                reports.push(read_report(&state.artefacts, report.digest).await?);
            }
        }
        let figures = gate::comparable(&reports);
        found.extend(versions.iter().filter_map(|model| {
            let counts = *figures.get(&model.bundle).filter(|counts| counts.of > 0)?;
            let interval = gate::statistics::wilson(counts);
            let (bundle, name, version) = (model.bundle, model.name.clone(), model.version);
            Some(Compared { bundle, name, version, counts, interval })
        }));
    }
    Ok(found)
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

/// Stores `value` as an artefact, in JSON.
///
/// # Errors
/// The disk's.
pub async fn store_document<T: Serialize + Sync>(
    artefacts: &Blobs,
    value: &T,
) -> Result<Digest, StoreError> {
    let bytes = serde_json::to_vec(value).map_err(StoreError::damaged)?;
    let digest = Digest::of(&bytes);
    artefacts.put(digest, bytes.into()).await?;
    Ok(digest)
}

/// The digest under which [`store_document`] stores `value`.
///
/// # Errors
/// None in practice.
pub fn document_digest<T: Serialize>(value: &T) -> Result<Digest, StoreError> {
    Ok(Digest::of(&serde_json::to_vec(value).map_err(StoreError::damaged)?))
}

/// Reads what [`store_document`] stored.
///
/// # Errors
/// [`StoreError::Invalid`] when it is none; the disk's.
pub async fn read_document<T: DeserializeOwned>(
    artefacts: &Blobs,
    digest: Digest,
) -> Result<T, StoreError> {
    let bytes = document(artefacts, digest).await?;
    serde_json::from_slice(&bytes)
        .map_err(|_| StoreError::damaged(format_args!("document {digest}")))
}

/// The report of that digest.
///
/// # Errors
/// As [`read_document`].
pub async fn read_report(artefacts: &Blobs, digest: Digest) -> Result<Report, StoreError> {
    read_document(artefacts, digest).await
}

async fn document(artefacts: &Blobs, digest: Digest) -> Result<bytes::Bytes, StoreError> {
    if artefacts.size(digest).await? > DOCUMENT_BYTES {
        let what = format!("cannot read artefact {digest}: over {DOCUMENT_BYTES} bytes");
        return Err(StoreError::Invalid { what });
    }
    artefacts.get(digest).await
}
