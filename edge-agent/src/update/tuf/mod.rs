//! The TUF client workflow (The Update Framework specification 1.0, section 5), without I/O.
//!
//! [`Walk`] is a step machine: it names the next file it wants and takes its bytes; whoever
//! drives it fetches. [`verify`] drives it over files in memory. There is no other way to a
//! [`Fresh`], and only a [`Fresh`] names targets for installing.
//!
//! Invariants: versions never go back; every signature is checked against the newest root, and a
//! new root against the old one too; lengths and digests are checked before anything is parsed;
//! expiry is judged at the time that is given; consistent snapshots only; delegations are refused.
//! Metadata that was verified on the way to a failure stays trusted, as the specification has it:
//! it keeps older metadata out the next time.

mod error;
mod store;
#[cfg(test)]
pub(crate) mod testing;
#[cfg(test)]
mod tests;
mod walk;

use std::collections::BTreeMap;

use fleetloop_protocol::{Digest, UnixMillis};
use tough::TargetName;
use tough::schema::{Role, Root, Signed, Snapshot, Targets, Timestamp};

pub use error::TufError;
pub use store::{StoreError, TufStore};
pub use walk::{Walk, Want};

/// One metadata file: its bytes and what they say.
#[derive(Debug, Clone)]
pub(crate) struct Doc<T> {
    pub(crate) bytes: Vec<u8>,
    pub(crate) signed: Signed<T>,
}

impl<T: Role> Doc<T> {
    pub(crate) fn version(&self) -> u64 {
        self.signed.signed.version().get()
    }

    pub(crate) fn expires(&self) -> UnixMillis {
        UnixMillis(u64::try_from(self.signed.signed.expires().as_millisecond()).unwrap_or(0))
    }
}

/// Metadata that was verified, now or before. It says what may not go back; it is no permission
/// to install.
#[derive(Debug, Clone)]
pub struct TrustedState {
    pub(crate) root: Doc<Root>,
    pub(crate) timestamp: Option<Doc<Timestamp>>,
    pub(crate) snapshot: Option<Doc<Snapshot>>,
    pub(crate) targets: Option<Doc<Targets>>,
}

impl TrustedState {
    /// Trust as it begins: the root metadata with the digest that the enrolment token named.
    ///
    /// # Errors
    /// [`TufError::RootPin`] when the digest differs; its own signatures are checked too.
    pub fn begin(root_json: &[u8], pin: Digest) -> Result<Self, TufError> {
        let found = Digest::of(root_json);
        if found != pin {
            return Err(TufError::RootPin { found, expected: pin });
        }
        let root: Doc<Root> = walk::parse("root.json", root_json.to_vec(), walk::ROOT_BYTES)?;
        walk::check_root("root.json", &root, &root)?;
        Ok(Self { root, timestamp: None, snapshot: None, targets: None })
    }

    /// What the last verified targets say of `name`. Good for reading what was fetched when they
    /// were fresh; installing asks a [`Fresh`].
    pub fn target(&self, name: &str) -> Option<TargetInfo> {
        let name = TargetName::new(name).ok()?;
        let target = self.targets.as_ref()?.signed.signed.targets.get(&name)?;
        let sha256: [u8; 32] = target.hashes.sha256.as_ref().try_into().ok()?;
        Some(TargetInfo { len_bytes: target.length, sha256: Digest::from_bytes(sha256) })
    }

    /// The last verified targets metadata, as it was served.
    pub fn targets_text(&self) -> Option<String> {
        let targets = self.targets.as_ref()?;
        Some(String::from_utf8_lossy(&targets.bytes).into_owned())
    }

    /// The versions of root, timestamp, snapshot and targets; 0 where there is none yet.
    pub fn versions(&self) -> [u64; 4] {
        [
            self.root.version(),
            self.timestamp.as_ref().map_or(0, Doc::version),
            self.snapshot.as_ref().map_or(0, Doc::version),
            self.targets.as_ref().map_or(0, Doc::version),
        ]
    }
}

/// A released target.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TargetInfo {
    /// Its length in bytes.
    pub len_bytes: u64,
    /// Its digest, by which it is fetched.
    pub sha256: Digest,
}

/// Metadata whose whole chain was just verified and had not expired. Only a finished [`Walk`]
/// makes one.
#[derive(Debug, Clone)]
pub struct Fresh {
    state: TrustedState,
}

impl Fresh {
    /// A target that the channel releases now.
    ///
    /// # Errors
    /// [`TufError::NoTarget`].
    pub fn target(&self, name: &str) -> Result<TargetInfo, TufError> {
        self.state.target(name).ok_or_else(|| TufError::NoTarget { name: name.to_owned() })
    }

    /// The trusted state, to be kept.
    pub fn trusted(&self) -> &TrustedState {
        &self.state
    }
}

/// The whole workflow over files in memory, by name (`2.root.json`, `timestamp.json`,
/// `3.snapshot.json`, `3.targets.json`).
///
/// # Errors
/// [`TufError`] names the first check that failed.
pub fn verify(
    trusted: &TrustedState,
    files: &BTreeMap<String, Vec<u8>>,
    now: UnixMillis,
) -> Result<Fresh, TufError> {
    let mut walk = Walk::new(trusted.clone(), now);
    while let Some(want) = walk.want()? {
        walk.take(files.get(&want.file).cloned())?;
    }
    walk.finish()
}
