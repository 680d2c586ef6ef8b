//! `fleet-hub restore`: a hub from an archive.
//!
//! A restored hub is behind its devices: they have newer orders, receipts for samples that it does
//! not have, and colleagues that it has not heard of. What is done about it:
//!
//! | what may differ | answer |
//! |---|---|
//! | versions of release metadata, generations of orders | the next one is the time in seconds, which is ahead of all that were given before |
//! | a rollout that was under way | cancelled here: nobody is sent back to an older model without a person's word |
//! | devices revoked since | devices show the newer signed list ([`crate::revoked`]), and the hub takes it over |
//! | samples receipted since | counted from what devices report, shown by `fleet-hub status` |
//!
//! The folder is marked as unfinished until the last step, as by `init`.

use std::fs::Metadata;
use std::io::ErrorKind;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _, lchown};
use std::path::{Path, PathBuf};

use fleetloop_protocol::UnixMillis;
use serde::{Deserialize, Serialize};

use super::key::{Identities, KeyError};
use super::unpack::{self, UnpackError};
use crate::clock::Clock;
use crate::config::{Config, ConfigError};
use crate::registry;
use crate::rollout::machine::{Event, step};
use crate::store::payloads::Blobs;
use crate::store::{Store, StoreError, audit, restores, rollouts};
use crate::unfinished::{self, UnfinishedError};

/// Who a restore is, in the audit log.
const WHO: &str = "restore";

/// What is restored, and where.
#[derive(Debug, Clone)]
pub struct RestoreOptions {
    /// The archive.
    pub archive: PathBuf,
    /// The file with the key that opens it.
    pub key: PathBuf,
    /// The data directory; it must not exist, or be empty. If it exists, its owner owns the hub.
    pub data: PathBuf,
}

/// What a restore did, and what is missing.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Restored {
    /// When the backup was made.
    pub backup_made_at: UnixMillis,
    /// When it was restored.
    pub restored_at: UnixMillis,
    /// Files that were unpacked.
    pub files: usize,
    /// Samples whose payloads are not in the folder.
    pub payloads_missing: u64,
    /// Models, datasets and reports whose files are not in the folder, by name.
    pub artefacts_missing: Vec<String>,
    /// The rollout that was under way and is cancelled.
    pub rollout_cancelled: Option<u64>,
}

/// Why no hub was restored.
#[derive(Debug, thiserror::Error)]
pub enum RestoreError {
    /// The data directory.
    #[error(transparent)]
    Folder(#[from] UnfinishedError),
    /// The key.
    #[error(transparent)]
    Key(#[from] KeyError),
    /// The archive.
    #[error(transparent)]
    Archive(#[from] UnpackError),
    /// The configuration in it.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// The database in it.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// Owner or mode of a file.
    #[error(
        "cannot give {path} to the owner of the data directory; run the restore as root, or as that user"
    )]
    Owner {
        /// The file.
        path: PathBuf,
        /// Why not.
        #[source]
        source: std::io::Error,
    },
}

/// Makes a hub of a backup. `seen` is called with the bytes of each file.
///
/// # Errors
/// [`RestoreError`]; what was unpacked until then stays and is named as unfinished.
pub async fn restore(
    options: &RestoreOptions,
    clock: &Clock,
    seen: impl FnMut(u64) + Send,
) -> Result<Restored, RestoreError> {
    let identities = Identities::read(&options.key)?;
    let advice = format!(
        "an earlier 'fleet-hub restore' of {} into it did not finish; remove the folder and \
         restore again",
        options.archive.display()
    );
    unfinished::claim(&options.data, &advice)?;
    let contents = unpack::unpack(&options.archive, &identities, Some(&options.data), seen)?;
    let config = Config::load(&options.data)?;
    let store = Store::open(&options.data)?;
    let now = clock.now();
    let rollout_cancelled = cancel_rollout(&store, now).await?;
    let restored = Restored {
        backup_made_at: contents.about.made_at,
        restored_at: now,
        files: contents.entries.len(),
        payloads_missing: payloads_missing(&config, &store).await?,
        artefacts_missing: artefacts_missing(&config, &store).await?,
        rollout_cancelled,
    };
    let row = restored.clone();
    store
        .write(move |tx| {
            restores::insert(tx, &row)?;
            let detail = format!("from a backup made at {} ms", row.backup_made_at.0);
            audit(tx, WHO, "hub.restore", "hub", &detail)
        })
        .await?;
    drop(store);
    give_to_owner(&options.data)?;
    // A crash before this leaves an unfinished folder, after it a hub.
    unfinished::done(&options.data)?;
    Ok(restored)
}

/// Ends a rollout that was under way when the backup was made: how far it came is not known.
async fn cancel_rollout(store: &Store, now: UnixMillis) -> Result<Option<u64>, StoreError> {
    store
        .write(move |tx| {
            let Some(active) = rollouts::active(tx)? else { return Ok(None) };
            let (state, effects) = step(&active.state, &Event::Cancelled, now);
            rollouts::save(tx, active.id, &state, &effects)?;
            let object = active.id.0.to_string();
            audit(tx, WHO, "rollout.cancel", &object, "the hub was restored from a backup")?;
            Ok(Some(active.id.0))
        })
        .await
}

async fn payloads_missing(config: &Config, store: &Store) -> Result<u64, StoreError> {
    let payloads = Blobs::open("payload", &config.paths.payloads(), 0)?;
    let mut missing = 0;
    for (payload, samples) in store.read(restores::payloads).await? {
        if !payloads.exists(payload).await? {
            missing += samples;
        }
    }
    Ok(missing)
}

async fn artefacts_missing(config: &Config, store: &Store) -> Result<Vec<String>, StoreError> {
    let artefacts = Blobs::open("artefact", &config.paths.artefacts(), 0)?;
    let mut missing = Vec::new();
    for (name, bundle) in store.read(restores::models).await? {
        match registry::hold(&artefacts, bundle).await {
            Err(StoreError::NotFound { .. }) => missing.push(format!("model {name}")),
            other => drop(other?),
        }
    }
    for (name, digest) in store.read(restores::documents).await? {
        if !artefacts.exists(digest).await? {
            missing.push(name);
        }
    }
    Ok(missing)
}

/// Makes a file or folder its owner's alone, and says what it is.
fn give(path: &Path, owner: &Metadata) -> std::io::Result<Metadata> {
    let found = std::fs::symlink_metadata(path)?;
    if (found.uid(), found.gid()) != (owner.uid(), owner.gid()) {
        lchown(path, Some(owner.uid()), Some(owner.gid()))?;
    }
    let mode = if found.is_dir() { 0o700 } else { 0o600 };
    if found.permissions().mode() & 0o7777 != mode {
        std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode))?;
    }
    Ok(found)
}

/// Everything belongs to the owner of the data directory, and is readable by nobody else.
fn give_to_owner(data: &Path) -> Result<(), RestoreError> {
    let failed = |path: &Path, source| RestoreError::Owner { path: path.to_owned(), source };
    let owner = std::fs::metadata(data).map_err(|source| failed(data, source))?;
    let mut folders = vec![data.to_owned()];
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(&folder).map_err(|source| failed(&folder, source))? {
            let path = entry.map_err(|source| failed(&folder, source))?.path();
            let found = match give(&path, &owner) {
                // The database's shared memory goes by itself when its last connection is closed.
                Err(error) if error.kind() == ErrorKind::NotFound => continue,
                found => found.map_err(|source| failed(&path, source))?,
            };
            if found.is_dir() {
                folders.push(path);
            }
        }
    }
    std::fs::set_permissions(data, std::fs::Permissions::from_mode(0o700))
        .map_err(|source| failed(data, source))
}
