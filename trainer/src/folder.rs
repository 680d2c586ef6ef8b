//! A folder of pictures by class as a dataset (`models/src/folder.rs` says what it looks like), divided
//! into what is learned from and what is judged by.
//!
//! Each picture is decoded in full first; what cannot be, what is under two classes, and what is of
//! another type than its name says is left out and named. The dataset is the one that a hub would freeze
//! of these pictures: it has a digest, and the same pictures and labels give the same one.
//!
//! Where pictures have groups (folders within the classes), whole groups are held out; otherwise a share
//! of each class, chosen by content, so that a folder with more pictures holds out the same ones.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::path::{Path, PathBuf};

use anyhow::{Context as _, bail, ensure};
use fleetloop_models::folder::{Entry, Folder};
use fleetloop_models::picture::Frame;
use fleetloop_protocol::Digest;
use fleetloop_protocol::api::datasets::{Dataset, Item, Split};
use fleetloop_protocol::api::imports::sample_of;
use rayon::prelude::*;

use crate::blobs::Blobs;
use crate::chain::chain;
use crate::train::held_out::{Holdings, whole_groups};

/// The group of pictures that are in none.
const GROUP: &str = "import";

/// What is judged by.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Judged {
    /// This share; the rest is learned from.
    Share(f64),
    /// Every picture.
    All,
}

/// A folder that was read.
#[derive(Debug)]
pub struct Read {
    /// Its pictures.
    pub dataset: Dataset,
    /// The digest of the dataset.
    pub digest: Digest,
    /// Their bytes.
    pub payloads: Blobs,
    /// Files that are left out, and why.
    pub refused: Vec<(String, String)>,
    /// The groups that are judged by; none where pictures have no groups.
    pub held_out: Option<BTreeSet<String>>,
}

/// Reads a folder. `labels` say which class is which; the classes' names in order if there are none.
///
/// # Errors
/// The folder cannot be read, a class is none of the labels, or nothing is left to learn from or to judge
/// by.
pub fn read(path: &Path, labels: Option<&[String]>, judged: Judged) -> anyhow::Result<Read> {
    let folder = Folder::open(path)?;
    let labels = labels.map_or_else(|| folder.classes(), <[String]>::to_vec);
    let unknown: Vec<String> =
        folder.classes().into_iter().filter(|class| !labels.contains(class)).collect();
    ensure!(
        unknown.is_empty(),
        "cannot use {}: its folders {} are none of the labels {}; rename them, or begin with another base",
        path.display(),
        unknown.join(", "),
        labels.join(", ")
    );
    let mut refused = folder.refused;
    let pictures = readable(folder.entries, &mut refused);
    let held_out = match judged {
        Judged::Share(share) => groups_of(&pictures, share),
        Judged::All => None,
    };
    let by_content = match (&held_out, judged) {
        (None, Judged::Share(share)) => by_content(&pictures, share),
        _ => BTreeSet::new(),
    };
    let split = |payload: &Digest, entry: &Entry| {
        let judges = match (&held_out, judged) {
            (_, Judged::All) => true,
            (Some(groups), _) => entry.group.as_ref().is_some_and(|group| groups.contains(group)),
            (None, _) => by_content.contains(payload),
        };
        if judges { Split::Gate } else { Split::Train }
    };
    let mut items = Vec::with_capacity(pictures.len());
    for (payload, entry) in &pictures {
        let label = labels.iter().position(|label| *label == entry.class);
        let label = label.and_then(|label| u16::try_from(label).ok()).context("too many labels")?;
        items.push(Item {
            sample: sample_of(*payload),
            payload: *payload,
            media_type: entry.media_type,
            label,
            split: split(payload, entry),
            group: entry.group.clone().unwrap_or_else(|| GROUP.to_owned()),
        });
    }
    items.sort_by_key(|item| item.sample);
    for (wanted, words) in [(Split::Train, "learn from"), (Split::Gate, "judge by")] {
        let needed = wanted == Split::Gate || judged != Judged::All;
        if needed && !items.iter().any(|item| item.split == wanted) {
            let first: Vec<_> =
                refused.iter().take(3).map(|(name, why)| format!("{name}: {why}")).collect();
            bail!(
                "cannot use {}: of {} pictures none is left to {words}; add pictures{}",
                path.display(),
                items.len(),
                if first.is_empty() { String::new() } else { format!(" ({})", first.join("; ")) }
            );
        }
    }
    let name = path.file_name().unwrap_or(path.as_os_str()).to_string_lossy().into_owned();
    let dataset = Dataset { name, labels, items };
    let digest = Digest::of(&serde_json::to_vec(&dataset)?);
    let files: HashMap<Digest, PathBuf> =
        pictures.into_iter().map(|(payload, entry)| (payload, entry.path)).collect();
    Ok(Read { dataset, digest, payloads: Blobs::of_files(path, files), refused, held_out })
}

/// The pictures that can be used, each once; the others are refused by name.
fn readable(entries: Vec<Entry>, refused: &mut Vec<(String, String)>) -> BTreeMap<Digest, Entry> {
    let read: Vec<(Entry, Result<Digest, String>)> = entries
        .into_par_iter()
        .map(|entry| {
            let digest = entry.read().map_err(|error| chain(&error)).and_then(|bytes| {
                Frame::decode(entry.media_type, &bytes)
                    .map(|_| Digest::of(&bytes))
                    .map_err(|error| chain(&error))
            });
            (entry, digest)
        })
        .collect();
    let mut classes: HashMap<Digest, BTreeSet<String>> = HashMap::new();
    for (entry, digest) in &read {
        if let Ok(digest) = digest {
            classes.entry(*digest).or_default().insert(entry.class.clone());
        }
    }
    let mut pictures = BTreeMap::new();
    for (entry, digest) in read {
        match digest {
            Err(why) => refused.push((entry.name, why)),
            Ok(digest) if classes[&digest].len() > 1 => {
                let names: Vec<_> = classes[&digest].iter().map(String::as_str).collect();
                let names = names.join(" and as ");
                refused.push((entry.name, format!("the same picture is there as {names}")));
            }
            Ok(digest) => {
                pictures.entry(digest).or_insert(entry);
            }
        }
    }
    pictures
}

/// The groups that are held out; none where pictures have none, or where they cannot be divided by them.
fn groups_of(pictures: &BTreeMap<Digest, Entry>, share: f64) -> Option<BTreeSet<String>> {
    let mut classes: Vec<&str> = pictures.values().map(|entry| entry.class.as_str()).collect();
    classes.sort_unstable();
    classes.dedup();
    let mut groups: BTreeMap<String, Holdings> = BTreeMap::new();
    for entry in pictures.values() {
        let class = classes.binary_search(&entry.class.as_str()).unwrap_or_default();
        let group = entry.group.clone()?;
        *groups.entry(group).or_default().entry(class).or_default() += 1;
    }
    whole_groups(&groups, share)
}

/// A share of each class with two pictures or more, at least one and not all of them.
fn by_content(pictures: &BTreeMap<Digest, Entry>, share: f64) -> BTreeSet<Digest> {
    let mut classes: BTreeMap<&str, Vec<Digest>> = BTreeMap::new();
    // In the order of their digests.
    for (payload, entry) in pictures {
        classes.entry(&entry.class).or_default().push(*payload);
    }
    let mut held = BTreeSet::new();
    for payloads in classes.into_values() {
        let below = payloads.iter().filter(|payload| payload.fraction() < share).count();
        let count = below.clamp(1, payloads.len().saturating_sub(1).max(1));
        if payloads.len() > 1 {
            held.extend(&payloads[..count]);
        }
    }
    held
}
