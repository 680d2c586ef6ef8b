//! Frozen datasets: reading one, and turning its pictures into what a model takes.
//!
//! On disk a dataset is a folder with `dataset.json` (the canonical bytes, whose SHA-256 is the
//! dataset's digest) and `payloads/`, one file a picture, named by its SHA-256. Pictures go through
//! the same decoding and preprocessing as on a device.

use std::path::Path;

use fleetloop_models::picture::{Frame, PictureError};
use fleetloop_models::preprocess::{Preprocess, PreprocessError};
use fleetloop_protocol::Digest;
use fleetloop_protocol::api::datasets::{Dataset, Item, Split};
use thiserror::Error;

use crate::blobs::{BlobError, Blobs};

/// The largest `dataset.json`, in bytes: about a million items.
pub const DATASET_BYTES: usize = 256 << 20;

/// The name of a dataset's file in its folder.
pub const DATASET_FILE: &str = "dataset.json";

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
    /// A payload is no picture.
    #[error(
        "cannot decode the payload of sample {sample}; remove its label and freeze the dataset again"
    )]
    Picture {
        /// The sample.
        sample: Digest,
        /// Why.
        #[source]
        source: PictureError,
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
pub fn open(folder: &Path) -> Result<(Dataset, Digest, Blobs), DatasetError> {
    let path = folder.join(DATASET_FILE);
    let bytes = std::fs::read(&path).map_err(|source| DatasetError::Read { path, source })?;
    let (dataset, digest) = parse(&bytes)?;
    let payloads =
        Blobs::open(&folder.join("payloads")).map_err(|e| DatasetError::Format(e.to_string()))?;
    Ok((dataset, digest, payloads))
}

/// Decoded pictures of one split with their items.
#[derive(Debug)]
pub struct Pictures<'a> {
    /// The items, ordered by sample.
    pub items: Vec<&'a Item>,
    /// Their pictures.
    pub frames: Vec<Frame>,
}

impl<'a> Pictures<'a> {
    /// Decodes a split of a dataset.
    ///
    /// # Errors
    /// [`DatasetError`] names the sample that cannot be used, or says that there is none.
    pub fn read(
        dataset: &'a Dataset,
        split: Split,
        payloads: &Blobs,
    ) -> Result<Self, DatasetError> {
        let items: Vec<&Item> = dataset.items.iter().filter(|i| i.split == split).collect();
        if items.is_empty() {
            let purpose = match split {
                Split::Train => "learn from",
                Split::Gate => "judge by",
            };
            return Err(DatasetError::EmptySplit { name: dataset.name.clone(), purpose });
        }
        let frames = items.iter().map(|item| {
            let sample = item.sample;
            let bytes = payloads
                .get(item.payload)
                .map_err(|source| DatasetError::Payload { sample, source })?;
            Frame::decode(item.media_type, &bytes)
                .map_err(|source| DatasetError::Picture { sample, source })
        });
        Ok(Self { frames: frames.collect::<Result<_, _>>()?, items })
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
