//! Items that a worker left out: each is looked at here, so that a worker cannot leave out a hard one.

use std::collections::{BTreeSet, HashMap};

use fleetloop_models::picture::Frame;
use fleetloop_protocol::Digest;
use fleetloop_protocol::api::datasets::{Dataset, Item, Split};
use fleetloop_protocol::api::jobs::{LeftOut, may_leave_out};

use crate::AppState;
use crate::store::{StoreError, removal};

/// The dataset without the items that were left out: those that were removed, and those that this hub
/// cannot read as pictures either.
///
/// # Errors
/// [`StoreError::Invalid`] for an item that is not the dataset's, one that can be read, or more than
/// may be left out.
pub(super) async fn without(
    state: &AppState,
    mut dataset: Dataset,
    left_out: &[LeftOut],
) -> Result<Dataset, StoreError> {
    if left_out.is_empty() {
        return Ok(dataset);
    }
    let refused = |what: String| StoreError::Invalid {
        what: format!("cannot take a result that leaves items out: {what}"),
    };
    let samples: Vec<Digest> = left_out.iter().map(|item| item.sample).collect();
    let all = samples.clone();
    let removed: BTreeSet<Digest> =
        state.store.read(move |c| removal::removed_of(c, &all)).await?.into_iter().collect();
    let known: HashMap<Digest, &Item> = dataset.items.iter().map(|i| (i.sample, i)).collect();
    let mut unreadable: HashMap<Split, usize> = HashMap::new();
    for sample in samples.iter().collect::<BTreeSet<_>>() {
        let item = *known.get(sample).ok_or_else(|| refused(format!("it has no item {sample}")))?;
        if removed.contains(sample) {
            continue;
        }
        if is_readable(state, item).await? {
            return Err(refused(format!("sample {sample} can be read; judge by it as well")));
        }
        *unreadable.entry(item.split).or_default() += 1;
    }
    for (split, count) in unreadable {
        let there = |item: &&Item| item.split == split && !removed.contains(&item.sample);
        let total = dataset.items.iter().filter(there).count();
        if !may_leave_out(count, total) {
            return Err(refused(format!("{count} of {total} cannot be read, which is too many")));
        }
    }
    let gone: BTreeSet<Digest> = samples.into_iter().collect();
    dataset.items.retain(|item| !gone.contains(&item.sample));
    Ok(dataset)
}

/// Whether the item's payload is here and a picture.
async fn is_readable(state: &AppState, item: &Item) -> Result<bool, StoreError> {
    let bytes = match state.payloads.get(item.payload).await {
        Ok(bytes) => bytes,
        Err(StoreError::NotFound { .. } | StoreError::Mismatch { .. }) => return Ok(false),
        Err(error) => return Err(error),
    };
    let media_type = item.media_type;
    tokio::task::spawn_blocking(move || Frame::decode(media_type, &bytes).is_ok())
        .await
        .map_err(|_| StoreError::Panicked)
}
