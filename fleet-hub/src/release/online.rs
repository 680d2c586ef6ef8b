//! The online keys of a channel: targets, snapshot, timestamp.
//!
//! ```text
//! tuf/keys/dev-targets.pk8        the key that signs
//! tuf/keys/dev-targets.next.pk8   made for a rotation; signs nothing until a root names it
//! ```
//!
//! A rotation has three steps, and a power cut leaves:
//! 1. *made*: the next key is on the disk. After a cut here it waits for the next attempt.
//! 2. *named*: a root that names it is in the chain. After a cut here the next opening of the
//!    repository takes the next step.
//! 3. *taken*: the next key's file takes the place of the one before.

use std::path::{Path, PathBuf};

use fleetloop_protocol::keys::{PublicKey, SigningKey};
use tough::schema::{RoleType, Root};

use super::metadata::names_key;
use super::{CHANNEL, ReleaseError, files};

/// The roles whose keys are online.
pub(super) const ROLES: [RoleType; 3] =
    [RoleType::Targets, RoleType::Snapshot, RoleType::Timestamp];

/// The private keys of a channel that are on this machine.
#[derive(Debug)]
pub(super) struct OnlineKeys {
    pub targets: SigningKey,
    pub snapshot: SigningKey,
    pub timestamp: SigningKey,
}

impl OnlineKeys {
    /// Makes three new keys.
    pub(super) fn make(dir: &Path) -> Result<Self, ReleaseError> {
        let make = |role| files::make_key(&key_file(dir, role));
        Ok(Self {
            targets: make(RoleType::Targets)?,
            snapshot: make(RoleType::Snapshot)?,
            timestamp: make(RoleType::Timestamp)?,
        })
    }

    /// Reads the keys that `root` names; one that was made for a rotation takes its place now.
    ///
    /// # Errors
    /// [`ReleaseError::KeyLost`] when neither is the one that `root` names.
    pub(super) fn open(dir: &Path, root: &Root) -> Result<Self, ReleaseError> {
        for role in ROLES {
            let (next, key) = (next_file(dir, role), key_file(dir, role));
            if next.exists() && names_key(root, role, &files::read_key(&next)?.public()) {
                files::rename(&next, &key)?;
            }
        }
        let read = |role| {
            let path = key_file(dir, role);
            match files::read_key(&path) {
                Ok(key) if names_key(root, role, &key.public()) => Ok(key),
                _ => Err(ReleaseError::KeyLost { role, path, root_version: root.version.get() }),
            }
        };
        Ok(Self {
            targets: read(RoleType::Targets)?,
            snapshot: read(RoleType::Snapshot)?,
            timestamp: read(RoleType::Timestamp)?,
        })
    }
}

/// The public half of the key that is made for the next rotation of `role`; the same one until a
/// root names it.
pub(super) fn next_key(dir: &Path, role: RoleType) -> Result<PublicKey, ReleaseError> {
    let path = next_file(dir, role);
    let key = if path.exists() { files::read_key(&path)? } else { files::make_key(&path)? };
    Ok(key.public())
}

/// Whether this machine has the key that `root` names for each online role.
///
/// # Errors
/// [`ReleaseError::NotNextRoot`] names the first role without one.
pub(super) fn are_named(dir: &Path, root: &Root) -> Result<(), ReleaseError> {
    for role in ROLES {
        let held = [key_file(dir, role), next_file(dir, role)].into_iter().any(|path| {
            files::read_key(&path).is_ok_and(|key| names_key(root, role, &key.public()))
        });
        let alone = root.roles.get(&role).is_some_and(|keys| keys.threshold.get() == 1);
        if !held || !alone {
            let reason = format!("this hub does not hold the {role} key that it names");
            return Err(ReleaseError::NotNextRoot { reason });
        }
    }
    Ok(())
}

fn key_file(dir: &Path, role: RoleType) -> PathBuf {
    dir.join(format!("{CHANNEL}-{role}.pk8"))
}

fn next_file(dir: &Path, role: RoleType) -> PathBuf {
    dir.join(format!("{CHANNEL}-{role}.next.pk8"))
}
