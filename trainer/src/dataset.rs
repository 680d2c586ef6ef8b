//! Frozen datasets: reading one, and turning its pictures into what a model takes.
//!
//! On disk a dataset is a folder with `dataset.json` (the canonical bytes, whose SHA-256 is the
//! dataset's digest), `payloads/`, one file a picture, named by its SHA-256, and, where samples were
//! removed at the hub since, `removed.json`, a list of their digests. `fleet-hub dataset export` writes
//! it; docs/training.md describes it. Pictures go through the same decoding and preprocessing as on a
//! device.
//!
//! An item whose payload was removed at the hub, or that cannot be read as a picture, is left out and
//! named. More than a tenth of a split that cannot be read ([`UNREADABLE_SHARE`]), and more than one
//! item, is no accident: then the dataset is refused with a list.

use std::collections::BTreeSet;
use std::path::Path;

use fleetloop_models::picture::Frame;
use fleetloop_models::preprocess::{Preprocess, PreprocessError};
use fleetloop_protocol::Digest;
use fleetloop_protocol::api::datasets::{Dataset, Item, Split};
use fleetloop_protocol::api::jobs::{LeftOut, UNREADABLE_SHARE, may_leave_out};
use thiserror::Error;

use crate::blobs::{BlobError, Blobs};
use crate::chain::chain;

/// The largest `dataset.json`, in bytes: about a million items.
pub const DATASET_BYTES: usize = 256 << 20;

/// Unreadable items that an error names.
const NAMED: usize = 3;

/// The name of a dataset's file in its folder.
pub const DATASET_FILE: &str = "dataset.json";

/// The name of the file beside it that says what was removed since.
pub const REMOVED_FILE: &str = "removed.json";

/// Why a dataset cannot be used.
#[derive(Debug, Error)]
pub enum DatasetError {
    /// The file cannot be read.
    #[error("cannot read dataset {path}")]
    Read {
        /// Its path.
        path: std::path::PathBuf,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// The bytes are over the limit or no dataset.
    #[error("cannot read dataset: {0}")]
    Format(String),
    /// A part of it has no items.
    #[error(
        "cannot use dataset '{name}': it has no item to {purpose}; label more samples and freeze it again"
    )]
    EmptySplit {
        /// The dataset's name.
        name: String,
        /// What the items were for.
        purpose: &'static str,
    },
    /// A payload is not there.
    #[error("cannot read the payload of sample {sample}")]
    Payload {
        /// The sample.
        sample: Digest,
        /// Why.
        #[source]
        source: BlobError,
    },
    /// Too many payloads are no pictures.
    #[error(
        "cannot use dataset '{name}': {count} of {total} pictures cannot be read, at most one in {UNREADABLE_SHARE} may be left out; clear their labels ('fleet-hub label clear') and freeze it again: {first}"
    )]
    Unreadable {
        /// The dataset's name.
        name: String,
        /// How many.
        count: usize,
        /// Of how many.
        total: usize,
        /// The first of them, each with its reason.
        first: String,
    },
    /// A picture cannot be brought to the model's input.
    #[error("cannot preprocess sample {sample}")]
    Preprocess {
        /// The sample.
        sample: Digest,
        /// Why.
        #[source]
        source: PreprocessError,
    },
}

/// Reads a dataset's canonical bytes.
///
/// # Errors
/// [`DatasetError::Format`]: over the limit, not of this form, a label that no index names, items
/// out of order or twice.
pub fn parse(bytes: &[u8]) -> Result<(Dataset, Digest), DatasetError> {
    if bytes.len() > DATASET_BYTES {
        return Err(DatasetError::Format(format!(
            "{} bytes, at most {DATASET_BYTES} are read",
            bytes.len()
        )));
    }
    let dataset: Dataset =
        serde_json::from_slice(bytes).map_err(|e| DatasetError::Format(e.to_string()))?;
    if let Some(item) = dataset.items.iter().find(|i| usize::from(i.label) >= dataset.labels.len())
    {
        return Err(DatasetError::Format(format!(
            "sample {} has label {}, there are {}",
            item.sample,
            item.label,
            dataset.labels.len()
        )));
    }
    if !dataset.items.is_sorted_by(|a, b| a.sample < b.sample) {
        return Err(DatasetError::Format(
            "its items are not in order, or one appears twice".into(),
        ));
    }
    Ok((dataset, Digest::of(bytes)))
}

/// Reads a dataset's folder.
///
/// # Errors
/// [`DatasetError`].
pub fn open(folder: &Path) -> Result<Opened, DatasetError> {
    let path = folder.join(DATASET_FILE);
    let bytes = std::fs::read(&path).map_err(|source| DatasetError::Read { path, source })?;
    let (dataset, digest) = parse(&bytes)?;
    let payloads =
        Blobs::open(&folder.join("payloads")).map_err(|e| DatasetError::Format(e.to_string()))?;
    let path = folder.join(REMOVED_FILE);
    let removed = match std::fs::read(&path) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => BTreeSet::new(),
        Err(source) => return Err(DatasetError::Read { path, source }),
        Ok(bytes) => serde_json::from_slice(&bytes)
            .map_err(|e| DatasetError::Format(format!("{REMOVED_FILE}: {e}")))?,
    };
    Ok(Opened { dataset, digest, payloads, removed })
}

/// A dataset that was read from its folder.
#[derive(Debug)]
pub struct Opened {
    /// The dataset.
    pub dataset: Dataset,
    /// Its digest.
    pub digest: Digest,
    /// Its pictures.
    pub payloads: Blobs,
    /// Samples that were removed at the hub since.
    pub removed: BTreeSet<Digest>,
}

/// Decoded pictures of one split with their items.
#[derive(Debug)]
pub struct Pictures<'a> {
    /// The items, ordered by sample.
    pub items: Vec<&'a Item>,
    /// Their pictures.
    pub frames: Vec<Frame>,
    /// Items of the split that are not among them, and why.
    pub left_out: Vec<LeftOut>,
}

impl<'a> Pictures<'a> {
    /// Decodes a split of a dataset, without the samples that were `removed` at the hub and those that
    /// cannot be read.
    ///
    /// # Errors
    /// [`DatasetError`]: a payload is not there, too many cannot be read, or none is left.
    pub fn read(
        dataset: &'a Dataset,
        split: Split,
        payloads: &Blobs,
        removed: &BTreeSet<Digest>,
    ) -> Result<Self, DatasetError> {
        let mut read = Self { items: Vec::new(), frames: Vec::new(), left_out: Vec::new() };
        let mut unreadable = Vec::new();
        for item in dataset.items.iter().filter(|item| item.split == split) {
            let sample = item.sample;
            if removed.contains(&sample) {
                let reason = "it was removed at the hub".to_owned();
                read.left_out.push(LeftOut { sample, reason });
                continue;
            }
            let bytes = payloads
                .get(item.payload)
                .map_err(|source| DatasetError::Payload { sample, source })?;
            match Frame::decode(item.media_type, &bytes) {
                Ok(frame) => {
                    read.items.push(item);
                    read.frames.push(frame);
                }
                Err(error) => unreadable.push(LeftOut { sample, reason: chain(&error) }),
            }
        }
        let total = read.items.len() + unreadable.len();
        if !may_leave_out(unreadable.len(), total) {
            let first = unreadable.iter().take(NAMED);
            let first: Vec<_> =
                first.map(|out| format!("sample {}: {}", out.sample.short(), out.reason)).collect();
            return Err(DatasetError::Unreadable {
                name: dataset.name.clone(),
                count: unreadable.len(),
                total,
                first: first.join(", "),
            });
        }
        if read.items.is_empty() {
            let purpose = match split {
                Split::Train => "learn from",
                Split::Gate => "judge by",
            };
            return Err(DatasetError::EmptySplit { name: dataset.name.clone(), purpose });
        }
        read.left_out.append(&mut unreadable);
        Ok(read)
    }

    /// Every picture as the model takes it, one after another.
    ///
    /// # Errors
    /// [`DatasetError::Preprocess`] names the sample.
    pub fn inputs(&self, preprocess: &mut Preprocess) -> Result<Vec<f32>, DatasetError> {
        let mut values = Vec::with_capacity(self.items.len() * preprocess.output_len());
        for (item, frame) in self.items.iter().zip(&self.frames) {
            preprocess
                .apply(frame, &mut values)
                .map_err(|source| DatasetError::Preprocess { sample: item.sample, source })?;
        }
        Ok(values)
    }
}
