//! `fleet-hub sample import`: labelled pictures from a folder by class, or from IDX files.
//!
//! Each picture is named by its digest; only those that the hub has not got are sent, so an import that
//! was interrupted goes on where it was. Then one request imports all of them or none. What is no whole
//! picture, or not what its name says, is left out and named. Pictures of IDX files are encoded as PNG,
//! without loss.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::ops::Range;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, bail};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use fleetloop_models::folder::{Entry, Folder};
use fleetloop_models::idx::{self, IdxPictures};
use fleetloop_observe::output::Output;
use fleetloop_observe::text::chain;
use fleetloop_protocol::Digest;
use fleetloop_protocol::api::datasets::Split;
use fleetloop_protocol::api::imports::{
    ImportRequest, Imported, Missing, Picture, Pictures, Refused, Taken,
};
use fleetloop_protocol::api::labels::LabelSet;
use fleetloop_protocol::limits::PAYLOAD_BYTES;
use fleetloop_protocol::sample::MediaType;

use super::Usage;
use super::client::Client;
use super::progress::Progress;

/// Pictures a request: half of what the hub takes.
const BATCH_ITEMS: usize = 256;

/// Base64 characters a request: half of what the hub takes.
const BATCH_CHARS: usize = 8 << 20;

/// Digests a request: what the hub takes.
const DIGESTS: usize = 900;

/// What to import.
#[derive(Debug, Clone, clap::Args)]
pub struct Args {
    /// A folder with a folder of PNG and JPEG pictures for each label.
    #[arg(long, value_name = "DIR", conflicts_with_all = ["images", "labels", "range"], required_unless_present = "images")]
    folder: Option<PathBuf>,
    /// The pictures, IDX (unsigned bytes, three dimensions).
    #[arg(long, requires = "labels")]
    images: Option<PathBuf>,
    /// Their labels, IDX; a label is an index into the hub's labels.
    #[arg(long, requires = "images")]
    labels: Option<PathBuf>,
    /// Which of them: FIRST..END, the end not included; all without it.
    #[arg(long, value_parser = range)]
    range: Option<Range<usize>>,
    /// What they are for: train or gate.
    #[arg(long, value_parser = split)]
    split: Split,
    /// Where they come from, in words; shown with each.
    #[arg(long)]
    source: String,
}

/// Reads the pictures, sends what the hub has not got, and imports.
///
/// # Errors
/// A file cannot be read, a range or label is outside, no picture is left, or the hub refuses.
pub async fn run(client: &Client, output: Output, args: Args) -> anyhow::Result<()> {
    let set: LabelSet = client.get("read the labels", "/labels/set").await?;
    let source = match (&args.folder, &args.images, &args.labels) {
        (Some(folder), ..) => Source::folder(folder, &set)?,
        (None, Some(images), Some(labels)) => {
            Source::idx(images, labels, args.range.clone(), &set)?
        }
        _ => return Err(Usage("name --folder, or --images and --labels".into()).into()),
    };
    let mut refused = source.refused();
    let listed = list(&source, &mut refused)?;
    send(client, &source, &listed, &mut refused).await?;
    let bad: HashSet<&str> = refused.iter().map(|one| one.picture.as_str()).collect();
    let mut names: HashMap<String, Vec<String>> = HashMap::new();
    let mut classes: BTreeMap<String, Vec<Digest>> = BTreeMap::new();
    for one in &listed {
        let name = source.name(one.at);
        if !bad.contains(name.as_str()) {
            names.entry(one.payload.to_string()).or_default().push(name);
            classes.entry(source.label(one.at).to_owned()).or_default().push(one.payload);
        }
    }
    if classes.is_empty() {
        let first: Vec<_> =
            refused.iter().take(3).map(|one| format!("{}: {}", one.picture, one.reason)).collect();
        bail!("cannot import: no picture is left; {}", first.join("; "));
    }
    let request = ImportRequest { source: args.source, split: args.split, classes };
    let mut done: Imported = client.post("import the pictures", "/imports", &request).await?;
    // The hub knows payloads, people know files.
    let told = done.refused.drain(..).flat_map(|one| {
        let files = names.get(&one.picture).cloned().unwrap_or_else(|| vec![one.picture.clone()]);
        files.into_iter().map(move |picture| Refused { picture, ..one.clone() })
    });
    refused.extend(told);
    done.refused = refused;
    output.print(&done, told_of)
}

fn told_of(done: &Imported) -> String {
    let mut out: String = done
        .refused
        .iter()
        .map(|one| format!("left out {}: {}\n", one.picture, one.reason))
        .collect();
    let number = done.import.map_or(String::new(), |id| format!("import {id}: "));
    out += &format!(
        "{number}{} pictures are new, {} have another label now, {} were known\n",
        done.stored, done.relabelled, done.known
    );
    if done.kept_for_gate > 0 {
        out += &format!(
            "{} of them were imported for the gate before and stay with it\n",
            done.kept_for_gate
        );
    }
    if done.removed > 0 {
        out += &format!("{} were removed with 'sample remove' and stay removed\n", done.removed);
    }
    out
}

/// Where pictures come from.
enum Source {
    Folder(Folder),
    Idx { images: IdxPictures, path: PathBuf, range: Range<usize>, labels: Vec<String> },
}

/// A picture of the source, and its payload.
struct Listed {
    at: usize,
    payload: Digest,
}

impl Source {
    fn folder(path: &Path, set: &LabelSet) -> anyhow::Result<Self> {
        let folder = Folder::open(path)?;
        let unknown: Vec<String> =
            folder.classes().into_iter().filter(|class| !set.labels.contains(class)).collect();
        if !unknown.is_empty() {
            return Err(Usage(format!(
                "cannot import {}: its folders {} are none of the hub's labels, which are {}; rename them, or add labels with 'fleet-hub label names --add'",
                path.display(), unknown.join(", "), set.labels.join(", ")
            ))
            .into());
        }
        Ok(Self::Folder(folder))
    }

    fn idx(
        images: &Path,
        labels: &Path,
        range: Option<Range<usize>>,
        set: &LabelSet,
    ) -> anyhow::Result<Self> {
        let (pictures, found) = (IdxPictures::open(images)?, idx::read_labels(labels)?);
        if found.len() != pictures.len() {
            return Err(Usage(format!(
                "cannot import {}: it holds {} pictures, and {} holds {} labels; they belong to different sets",
                images.display(), pictures.len(), labels.display(), found.len()
            ))
            .into());
        }
        let range = range.unwrap_or(0..pictures.len());
        if range.end > pictures.len() {
            return Err(Usage(format!(
                "cannot import {}..{}: {} holds {} pictures",
                range.start,
                range.end,
                images.display(),
                pictures.len()
            ))
            .into());
        }
        let name = |at: usize| {
            let label = found[at];
            set.labels.get(usize::from(label)).cloned().ok_or_else(|| {
                Usage(format!(
                    "cannot import picture {at}: its label is {label}, and the hub has {} labels; see 'fleet-hub label names'",
                    set.labels.len()
                ))
            })
        };
        let labels = range.clone().map(name).collect::<Result<_, _>>()?;
        Ok(Self::Idx { images: pictures, path: images.to_owned(), range, labels })
    }

    fn len(&self) -> usize {
        match self {
            Self::Folder(folder) => folder.entries.len(),
            Self::Idx { range, .. } => range.len(),
        }
    }

    fn label(&self, at: usize) -> &str {
        match self {
            Self::Folder(folder) => &folder.entries[at].class,
            Self::Idx { labels, .. } => &labels[at],
        }
    }

    fn name(&self, at: usize) -> String {
        match self {
            Self::Folder(folder) => folder.entries[at].name.clone(),
            Self::Idx { range, .. } => format!("picture {}", range.start + at),
        }
    }

    fn media_type(&self, at: usize) -> MediaType {
        match self {
            Self::Folder(folder) => folder.entries[at].media_type,
            Self::Idx { .. } => MediaType::Png,
        }
    }

    fn refused(&self) -> Vec<Refused> {
        let Self::Folder(folder) = self else { return Vec::new() };
        let refused = |(picture, reason): &(String, String)| Refused {
            picture: picture.clone(),
            reason: reason.clone(),
        };
        folder.refused.iter().map(refused).collect()
    }

    /// A picture's bytes, or why they cannot be imported.
    fn read(&self, at: usize) -> anyhow::Result<Result<Vec<u8>, String>> {
        let entry: &Entry = match self {
            Self::Folder(folder) => &folder.entries[at],
            Self::Idx { images, path, range, .. } => {
                let index = range.start + at;
                let encoded = images.read(index)?.encode_png();
                return Ok(Ok(encoded.with_context(|| {
                    format!("cannot import picture {index} of {}", path.display())
                })?));
            }
        };
        let bytes = match entry.read() {
            Ok(bytes) => bytes,
            Err(error) => return Ok(Err(chain(&error))),
        };
        if bytes.len() > PAYLOAD_BYTES {
            let len = bytes.len();
            return Ok(Err(format!("it has {len} bytes, at most {PAYLOAD_BYTES} are taken")));
        }
        Ok(Ok(bytes))
    }
}

/// Names every picture by its digest.
fn list(source: &Source, refused: &mut Vec<Refused>) -> anyhow::Result<Vec<Listed>> {
    let mut progress = Progress::new("reading", source.len() as u64);
    let mut listed = Vec::with_capacity(source.len());
    for at in 0..source.len() {
        match source.read(at)? {
            Ok(bytes) => listed.push(Listed { at, payload: Digest::of(&bytes) }),
            Err(reason) => refused.push(Refused { picture: source.name(at), reason }),
        }
        progress.add(1);
    }
    progress.finish();
    Ok(listed)
}

/// Sends what the hub has not got.
async fn send(
    client: &Client,
    source: &Source,
    listed: &[Listed],
    refused: &mut Vec<Refused>,
) -> anyhow::Result<()> {
    let mut wanted: HashMap<Digest, usize> = HashMap::new();
    for some in listed.chunks(DIGESTS) {
        let asked = Missing { payloads: some.iter().map(|one| one.payload).collect() };
        let missing: Missing =
            client.post("look for the pictures", "/imports/missing", &asked).await?;
        let missing: HashSet<Digest> = missing.payloads.into_iter().collect();
        let absent = some.iter().filter(|one| missing.contains(&one.payload));
        wanted.extend(absent.map(|one| (one.payload, one.at)));
    }
    let mut order: Vec<(Digest, usize)> = wanted.into_iter().collect();
    order.sort_unstable_by_key(|(_, at)| *at);
    let mut progress = Progress::new("sending", listed.len() as u64);
    progress.add((listed.len() - order.len()) as u64);
    let mut broken: HashMap<String, String> = HashMap::new();
    let mut left = order.as_slice();
    while !left.is_empty() {
        let batch = batch(source, left)?;
        let count = batch.items.len();
        let operation = format!("send pictures {} …", source.name(left[0].1));
        let taken: Taken = client.post(&operation, "/imports/pictures", &batch).await?;
        broken.extend(taken.refused.into_iter().map(|one| (one.picture, one.reason)));
        left = &left[count..];
        progress.add(count as u64);
    }
    progress.finish();
    for one in listed {
        if let Some(reason) = broken.get(&one.payload.to_string()) {
            refused.push(Refused { picture: source.name(one.at), reason: reason.clone() });
        }
    }
    Ok(())
}

/// The next pictures, as many as a request takes.
fn batch(source: &Source, left: &[(Digest, usize)]) -> anyhow::Result<Pictures> {
    let (mut items, mut chars) = (Vec::new(), 0);
    for (payload, at) in left.iter().take(BATCH_ITEMS) {
        let bytes = source.read(*at)?.unwrap_or_default();
        if Digest::of(&bytes) != *payload {
            bail!(
                "cannot import {}: it changed meanwhile; run the command again",
                source.name(*at)
            );
        }
        let payload = STANDARD.encode(bytes);
        chars += payload.len();
        if chars > BATCH_CHARS && !items.is_empty() {
            break;
        }
        items.push(Picture { payload, media_type: source.media_type(*at) });
    }
    Ok(Pictures { items })
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
