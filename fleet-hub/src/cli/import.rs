//! `fleet-hub sample import`: labelled pictures from IDX files into the hub.
//!
//! Pictures are encoded losslessly (PNG) and sent in batches. The hub knows a record by its
//! contents, so an import that was interrupted is run again and stores only what is missing.

use std::ops::Range;
use std::path::PathBuf;

use anyhow::Context as _;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use fleetloop_models::idx::{self, IdxPictures};
use fleetloop_observe::output::Output;
use fleetloop_protocol::api::datasets::Split;
use fleetloop_protocol::api::labels::LabelSet;
use fleetloop_protocol::api::samples::{ImportItem, ImportRefused, ImportRequest, ImportResponse};
use fleetloop_protocol::sample::MediaType;

use super::Usage;
use super::client::Client;
use super::progress::Progress;

/// Pictures a request: half of what the hub takes.
const BATCH_ITEMS: usize = 256;

/// Base64 characters a request: half of what the hub takes.
const BATCH_CHARS: usize = 8 << 20;

/// What to import.
#[derive(Debug, Clone, clap::Args)]
pub struct Args {
    /// The pictures, IDX (unsigned bytes, three dimensions).
    #[arg(long)]
    images: PathBuf,
    /// Their labels, IDX; a label is an index into the hub's labels.
    #[arg(long)]
    labels: PathBuf,
    /// Which of them: FIRST..END, the end not included; all without it.
    #[arg(long, value_parser = range)]
    range: Option<Range<usize>>,
    /// What they are for: train or gate.
    #[arg(long, value_parser = split)]
    split: Split,
    /// Where they come from, in words; kept with each.
    #[arg(long)]
    source: String,
}

/// Reads the files and sends them.
///
/// # Errors
/// A file cannot be read, the range or a label is outside, or the hub refuses.
pub async fn run(client: &Client, output: Output, args: Args) -> anyhow::Result<()> {
    let set: LabelSet = client.get("read the labels", "/labels/set").await?;
    let pictures = IdxPictures::open(&args.images)?;
    let labels = idx::read_labels(&args.labels)?;
    if labels.len() != pictures.len() {
        return Err(Usage(format!(
            "cannot import {}: it holds {} pictures, and {} holds {} labels; they belong to different sets",
            args.images.display(), pictures.len(), args.labels.display(), labels.len()
        ))
        .into());
    }
    let range = args.range.clone().unwrap_or(0..pictures.len());
    if range.end > pictures.len() {
        return Err(Usage(format!(
            "cannot import {}..{}: {} holds {} pictures",
            range.start,
            range.end,
            args.images.display(),
            pictures.len()
        ))
        .into());
    }

    let mut progress = Progress::new("importing", range.len() as u64);
    let mut sum = ImportResponse::default();
    let mut next = range.start;
    while next < range.end {
        let items = batch(&args, &pictures, &labels, &set, next..range.end)?;
        let count = items.len();
        let request = ImportRequest { source: args.source.clone(), split: args.split, items };
        let operation = format!("import pictures {next}..{}", next + count);
        let answer: ImportResponse = client.post(&operation, "/samples/import", &request).await?;
        sum.stored += answer.stored;
        sum.known += answer.known;
        sum.refused.extend(
            answer.refused.into_iter().map(|one| ImportRefused { item: next + one.item, ..one }),
        );
        next += count;
        progress.add(count as u64);
    }
    progress.finish();
    output.print(&sum, |sum| {
        let refused =
            sum.refused.iter().map(|one| format!("picture {}: {}\n", one.item, one.reason));
        refused
            .chain([format!("imported {} pictures, {} were known\n", sum.stored, sum.known)])
            .collect()
    })
}

fn batch(
    args: &Args,
    pictures: &IdxPictures,
    labels: &[u8],
    set: &LabelSet,
    range: Range<usize>,
) -> anyhow::Result<Vec<ImportItem>> {
    let mut items = Vec::with_capacity(BATCH_ITEMS);
    let mut chars = 0;
    for index in range.take(BATCH_ITEMS) {
        let picture = pictures.read(index)?;
        let png = picture.encode_png().with_context(|| {
            format!("cannot import picture {index} of {}", args.images.display())
        })?;
        let label = set.labels.get(usize::from(labels[index])).ok_or_else(|| {
            Usage(format!(
                "cannot import picture {index}: its label is {}, and the hub has {} labels; see 'fleet-hub label names'",
                labels[index], set.labels.len()
            ))
        })?;
        let payload = STANDARD.encode(png);
        chars += payload.len();
        if chars > BATCH_CHARS && !items.is_empty() {
            break;
        }
        items.push(ImportItem { payload, media_type: MediaType::Png, label: label.clone() });
    }
    Ok(items)
}

fn range(text: &str) -> Result<Range<usize>, String> {
    let wrong = || format!("{text:?} is not a range; write FIRST..END, such as 0..6000");
    let (from, to) = text.split_once("..").ok_or_else(wrong)?;
    let from = from.parse().map_err(|_| wrong())?;
    let to = to.parse().map_err(|_| wrong())?;
    if from >= to {
        return Err(format!("{text:?} holds nothing"));
    }
    Ok(from..to)
}

fn split(text: &str) -> Result<Split, String> {
    match text {
        "train" => Ok(Split::Train),
        "gate" => Ok(Split::Gate),
        other => Err(format!("{other:?} is not a split; write train or gate")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_range_that_holds_nothing_is_refused() {
        assert_eq!(range("0..6000"), Ok(0..6000));
        for text in ["", "5", "5..5", "6..5", "..5", "a..b", "-1..3"] {
            assert!(range(text).is_err(), "{text}");
        }
    }
}
