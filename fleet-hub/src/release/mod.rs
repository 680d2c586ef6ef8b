//! Releases: a bundle becomes something that devices may install.
//!
//! One TUF repository a channel, `dev` for now. The root key lies where this process never finds
//! it ([`refuse_root_key_inside`]); the keys of targets, snapshot and timestamp are online, so
//! whoever owns the hub can release to `dev`.
//!
//! A release is made in three steps, and a power cut leaves:
//! 1. *intended*: a row in the database, with who and why. After a cut here the next start finds
//!    no such target and forgets the intention: the release never happened.
//! 2. *published*: the repository, timestamp last. After a cut here the next start finds the
//!    target and confirms the row.
//! 3. *released*: the row confirmed.
//!
//! What devices trust is the repository; the database follows it ([`reconcile`]).

mod files;
pub mod http;
pub mod medium;
mod metadata;
mod online;
mod repository;
mod roots;
mod service;

use std::path::{Path, PathBuf};

use fleetloop_protocol::keys::KeyError;
use fleetloop_protocol::{BundleDigest, Digest};
use tough::schema::RoleType;

pub use repository::{
    InitialRelease, MOST_TARGETS, Repository, accept_root, addresses_path, init, metadata_path,
    next_online_key, root_chain, root_json,
};
pub use roots::ROOT_BYTES;
pub(crate) use service::stopped;
pub use service::{catch_up, init_repository, reconcile, release, run};

use crate::store::StoreError;

/// The only channel for now.
pub const CHANNEL: &str = "dev";

/// Why a release, or the repository itself, failed.
#[derive(Debug, thiserror::Error)]
pub enum ReleaseError {
    /// A file could not be read or written.
    #[error("cannot {what} {path} of the release repository")]
    Io {
        /// What was tried.
        what: &'static str,
        /// The file.
        path: PathBuf,
        /// Why not.
        #[source]
        source: std::io::Error,
    },
    /// A key could not be made or read.
    #[error("cannot use a release key")]
    Key(#[source] KeyError),
    /// A key is already where one was to be made.
    #[error(
        "cannot make key {path}: there is one already, and a key is never overwritten; choose a \
         fresh folder"
    )]
    KeyExists {
        /// The key.
        path: PathBuf,
    },
    /// An online key is not the one that the root names.
    #[error(
        "cannot sign {role} metadata: {path} is missing or is not the key that root {root_version} \
         names; restore it from a backup, or rotate it: 'fleet-hub key rotate {role}'"
    )]
    KeyLost {
        /// The role.
        role: RoleType,
        /// The file.
        path: PathBuf,
        /// The newest root.
        root_version: u64,
    },
    /// Not the root after the newest.
    #[error("cannot take this root metadata: {reason}")]
    NotNextRoot {
        /// Why not.
        reason: String,
    },
    /// The medium does not hold what is needed.
    #[error("cannot use the offline keys in {path}: {reason}")]
    Medium {
        /// The folder.
        path: PathBuf,
        /// Why not.
        reason: String,
    },
    /// The root key lies where this process can read it.
    #[error(
        "cannot serve: the root key lies inside the data directory, at {path}; move it to a place \
         that this machine does not reach"
    )]
    RootKeyInside {
        /// The key.
        path: PathBuf,
    },
    /// Metadata could not be signed.
    #[error("cannot sign {role} metadata: {reason}")]
    Sign {
        /// The role.
        role: RoleType,
        /// Why not.
        reason: String,
    },
    /// Metadata that is not what it should be.
    #[error("cannot read {file} of the release repository: {reason}; restore it from a backup")]
    Damaged {
        /// The file.
        file: String,
        /// What is wrong.
        reason: String,
    },
    /// The target exists with other bytes.
    #[error(
        "cannot publish {target}: the channel has it with digest {found}, and a released target \
         never changes; give the new bundle another version"
    )]
    Taken {
        /// The target.
        target: String,
        /// What the channel has.
        found: Digest,
    },
    /// A name that cannot be a target's.
    #[error("cannot publish {target:?}: {reason}")]
    Name {
        /// The name.
        target: String,
        /// Why not.
        reason: String,
    },
    /// The channel is full.
    #[error("cannot publish: the channel has {MOST_TARGETS} targets, which is the limit")]
    TooMany,
    /// A channel that is not there.
    #[error("cannot release to channel {channel:?}: there is only {CHANNEL:?} for now")]
    Channel {
        /// What was asked for.
        channel: String,
    },
    /// The gate has not let it pass, and no reason was given to release it all the same.
    #[error(
        "cannot release bundle {bundle}: {finding}; improve it, or release it with --without-gate \
         and a reason"
    )]
    Gate {
        /// The bundle.
        bundle: BundleDigest,
        /// What the gate said.
        finding: &'static str,
    },
    /// The database or the artefact store.
    #[error("cannot finish the release")]
    Store(#[from] StoreError),
    /// The work was cut off.
    #[error("cannot finish the release: the operation panicked; see the log")]
    Panicked,
    /// A time or a version that cannot be written down.
    #[error("cannot sign release metadata: its version or time is out of range; check the clock")]
    Time,
}

/// Looks for the channel's root key below `data_dir` and refuses it: a key that this process can
/// read is not offline. Files of the two content stores are not looked at.
///
/// # Errors
/// [`ReleaseError::RootKeyInside`]; the disk's.
pub fn refuse_root_key_inside(data_dir: &Path) -> Result<(), ReleaseError> {
    let roots = roots::Roots::read(&data_dir.join("tuf").join(CHANNEL))?;
    let mut folders = vec![data_dir.to_owned()];
    while let Some(folder) = folders.pop() {
        let failed = |source| ReleaseError::Io { what: "list", path: folder.clone(), source };
        for entry in std::fs::read_dir(&folder).map_err(failed)? {
            let path = entry.map_err(failed)?.path();
            let Ok(meta) = std::fs::symlink_metadata(&path) else { continue };
            let is_store =
                folder == data_dir && (path.ends_with("payloads") || path.ends_with("artefacts"));
            if meta.is_dir() && !is_store {
                folders.push(path);
            } else if std::fs::metadata(&path).is_ok_and(|m| m.is_file() && m.len() <= KEY_BYTES)
                && files::read_key(&path).is_ok_and(|key| roots.name_as_root_key(&key))
            {
                return Err(ReleaseError::RootKeyInside { path });
            }
        }
    }
    Ok(())
}

/// No PKCS#8 Ed25519 key is larger, in bytes.
const KEY_BYTES: u64 = 1024;

#[cfg(test)]
pub(crate) mod fixture;
#[cfg(test)]
mod roots_tests;
#[cfg(test)]
mod service_tests;
#[cfg(test)]
mod tests;
