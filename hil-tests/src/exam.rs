//! Unseen pictures, clean and drifted, as a dataset that `trainer eval` reads: a folder with
//! `dataset.json` and `payloads/`. The group of an item says which it is.

use std::path::Path;

use anyhow::{Context as _, Result};
use fleetloop_models::picture::{Channels, Frame};
use fleetloop_protocol::Digest;
use fleetloop_protocol::api::datasets::{Dataset, Item, Split};
use fleetloop_protocol::sample::MediaType;

use crate::drift::Drift;
use crate::files;
use crate::pictures::{LABELS, Pictures};

/// The group of pictures as they are.
pub const CLEAN: &str = "clean";

/// The group of drifted pictures.
pub const DRIFTED: &str = "drifted";

/// Writes the first `count` pictures twice, as they are and drifted.
///
/// # Errors
/// When a picture cannot be encoded or a file cannot be written.
pub fn write(pictures: &Pictures, count: usize, drift: Drift, folder: &Path) -> Result<()> {
    let payloads = folder.join("payloads");
    files::folder(&payloads)?;
    let mut items = Vec::with_capacity(2 * count);
    for index in 0..count.min(pictures.len()) {
        let (pixels, label) = pictures.get(index);
        for (group, pixels) in
            [(CLEAN, pixels.to_vec()), (DRIFTED, drift.apply(pixels, pictures.width))]
        {
            let (width, height) = (u32::try_from(pictures.width)?, u32::try_from(pictures.height)?);
            let png = Frame::new(width, height, Channels::Grey, pixels)?.encode_png()?;
            let payload = Digest::of(&png);
            files::replace(&payloads.join(payload.to_string()), &png)?;
            items.push(Item {
                // Two pictures may look the same; two samples may not have one name.
                sample: Digest::of_parts(&[group.as_bytes(), &index.to_be_bytes(), &png]),
                payload,
                media_type: MediaType::Png,
                label: index_of(label)?,
                split: Split::Gate,
                group: group.to_owned(),
            });
        }
    }
    items.sort_by_key(|item| item.sample);
    let labels = LABELS.map(str::to_owned).to_vec();
    let dataset = Dataset { name: "unseen".to_owned(), labels, items };
    files::replace(&folder.join("dataset.json"), &serde_json::to_vec(&dataset)?)
}

fn index_of(label: &str) -> Result<u16> {
    let index = LABELS.iter().position(|known| *known == label);
    Ok(u16::try_from(index.context("a picture has an unknown label")?)?)
}
