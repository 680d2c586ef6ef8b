//! The steps of the workflow: 5.3 root, 5.4 timestamp, 5.5 snapshot, 5.6 targets.

use fleetloop_protocol::{Digest, UnixMillis};
use serde::de::DeserializeOwned;
use tough::schema::{Metafile, Role, RoleType, Root, Signed, Snapshot, Targets, Timestamp};

use super::{Doc, Fresh, TrustedState, TufError};

/// The largest root metadata, in bytes.
pub(super) const ROOT_BYTES: u64 = 256 * 1024;
const TIMESTAMP_BYTES: u64 = 16 * 1024;
const SNAPSHOT_BYTES: u64 = 256 * 1024;
const TARGETS_BYTES: u64 = 4 * 1024 * 1024;
/// The most root versions followed in one refresh: a rotation a week for nearly five years.
const ROOTS: u32 = 256;

const TIMESTAMP: &str = "timestamp.json";
const SNAPSHOT: &str = "snapshot.json";
const TARGETS: &str = "targets.json";

/// A file the walk needs next.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Want {
    /// Its name under the channel's address.
    pub file: String,
    /// The most bytes it may have. One byte more is enough to be refused.
    pub limit_bytes: u64,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Stage {
    Root,
    Timestamp,
    Snapshot,
    Targets,
    Done,
}

/// One refresh under way.
#[derive(Debug)]
pub struct Walk {
    state: TrustedState,
    first_root: Doc<Root>,
    roots: u32,
    now: UnixMillis,
    stage: Stage,
}

impl Walk {
    /// A refresh of `trusted` at `now`.
    pub fn new(trusted: TrustedState, now: UnixMillis) -> Self {
        let first_root = trusted.root.clone();
        Self { state: trusted, first_root, roots: 0, now, stage: Stage::Root }
    }

    /// The next file, or none when all are verified.
    ///
    /// # Errors
    /// [`TufError::Incomplete`] when the metadata so far does not name it,
    /// [`TufError::TooManyRoots`] when no root can come after the newest one.
    pub fn want(&self) -> Result<Option<Want>, TufError> {
        let want = |file: String, limit_bytes| Ok(Some(Want { file, limit_bytes }));
        match self.stage {
            Stage::Root => want(format!("{}.root.json", self.next_root()?), ROOT_BYTES),
            Stage::Timestamp => want(TIMESTAMP.into(), TIMESTAMP_BYTES),
            Stage::Snapshot => {
                let meta = self.snapshot_meta()?;
                want(format!("{}.snapshot.json", meta.version), limit(meta, SNAPSHOT_BYTES))
            }
            Stage::Targets => {
                let meta = self.targets_meta()?;
                want(format!("{}.targets.json", meta.version), limit(meta, TARGETS_BYTES))
            }
            Stage::Done => Ok(None),
        }
    }

    /// Takes the bytes of the wanted file; none when the repository does not have it.
    ///
    /// # Errors
    /// [`TufError`] ends the walk; what was verified before stays in [`Walk::trusted`].
    pub fn take(&mut self, bytes: Option<Vec<u8>>) -> Result<(), TufError> {
        let Some(want) = self.want()? else { return Ok(()) };
        let bytes = match (bytes, self.stage) {
            // 5.3.3: no next root means that the last one is the newest.
            (None, Stage::Root) => return self.roots_done(),
            (None, _) => return Err(TufError::Missing { file: want.file }),
            (Some(bytes), _) => bytes,
        };
        if bytes.len() as u64 > want.limit_bytes {
            return Err(TufError::TooLarge { file: want.file, limit: want.limit_bytes });
        }
        match self.stage {
            Stage::Root => self.take_root(&want, bytes),
            Stage::Timestamp => self.take_timestamp(bytes),
            Stage::Snapshot => self.take_snapshot(&want, bytes),
            Stage::Targets => self.take_targets(&want, bytes),
            Stage::Done => Ok(()),
        }
    }

    /// What is verified so far.
    pub fn trusted(&self) -> &TrustedState {
        &self.state
    }

    /// The proof that the whole chain holds now.
    ///
    /// # Errors
    /// [`TufError::Missing`] when files are still wanted.
    pub fn finish(self) -> Result<Fresh, TufError> {
        match self.want()? {
            None => Ok(Fresh { state: self.state }),
            Some(want) => Err(TufError::Missing { file: want.file }),
        }
    }

    /// The version of the root after the newest one. After the last number there is none, and who
    /// signed that one must enrol the device anew.
    fn next_root(&self) -> Result<u64, TufError> {
        let next = self.state.root.version().checked_add(1);
        next.ok_or(TufError::TooManyRoots { limit: ROOTS })
    }

    fn take_root(&mut self, want: &Want, bytes: Vec<u8>) -> Result<(), TufError> {
        let expected = self.next_root()?;
        let next: Doc<Root> = parse(&want.file, bytes, ROOT_BYTES)?;
        // 5.3.4: by a threshold of the old root's keys and of its own.
        check_signature(&want.file, &self.state.root, &next.signed)?;
        check_root(&want.file, &next, &next)?;
        // 5.3.5: exactly the next version.
        check_version(&want.file, next.version(), expected)?;
        self.roots += 1;
        if self.roots > ROOTS {
            return Err(TufError::TooManyRoots { limit: ROOTS });
        }
        self.state.root = next;
        Ok(())
    }

    fn roots_done(&mut self) -> Result<(), TufError> {
        let state = &mut self.state;
        check_expiry(&format!("{}.root.json", state.root.version()), &state.root, self.now)?;
        // 5.3.11: rotated keys forget what the old ones signed, so that a fast-forward by a stolen
        // key can be undone. What the new root's keys do not cover is forgotten as well.
        let rotated = |role| keys_of(&self.first_root, role) != keys_of(&state.root, role);
        let online = rotated(RoleType::Timestamp) || rotated(RoleType::Snapshot);
        let root = &state.root.signed.signed;
        state.timestamp.take_if(|doc| online || root.verify_role(&doc.signed).is_err());
        state.snapshot.take_if(|doc| online || root.verify_role(&doc.signed).is_err());
        state.targets.take_if(|doc| root.verify_role(&doc.signed).is_err());
        self.stage = Stage::Timestamp;
        Ok(())
    }

    fn take_timestamp(&mut self, bytes: Vec<u8>) -> Result<(), TufError> {
        let new: Doc<Timestamp> = parse(TIMESTAMP, bytes, TIMESTAMP_BYTES)?;
        check_signature(TIMESTAMP, &self.state.root, &new.signed)?;
        let named = metafile(TIMESTAMP, &new.signed.signed.meta, SNAPSHOT)?.version.get();
        if let Some(trusted) = &self.state.timestamp {
            // 5.4.3: neither the timestamp nor the snapshot it names goes back.
            check_rollback(TIMESTAMP, new.version(), trusted.version())?;
            let before = metafile(TIMESTAMP, &trusted.signed.signed.meta, SNAPSHOT)?.version.get();
            check_rollback(SNAPSHOT, named, before)?;
        }
        // 5.4.3.1: the same version again is no news; what is trusted stays, and must not be old.
        if self.state.timestamp.as_ref().is_none_or(|trusted| trusted.version() < new.version()) {
            check_expiry(TIMESTAMP, &new, self.now)?;
            self.state.timestamp = Some(new);
        } else if let Some(trusted) = &self.state.timestamp {
            check_expiry(TIMESTAMP, trusted, self.now)?;
        }
        self.stage = Stage::Snapshot;
        let meta = self.snapshot_meta()?;
        if self.state.snapshot.as_ref().is_some_and(|doc| is_named(doc, meta)) {
            self.snapshot_done()?;
        }
        Ok(())
    }

    fn take_snapshot(&mut self, want: &Want, bytes: Vec<u8>) -> Result<(), TufError> {
        let meta = self.snapshot_meta()?;
        check_hash(&want.file, &bytes, meta, TIMESTAMP)?;
        let new: Doc<Snapshot> = parse(&want.file, bytes, SNAPSHOT_BYTES)?;
        check_signature(&want.file, &self.state.root, &new.signed)?;
        check_version(&want.file, new.version(), meta.version.get())?;
        if let Some(trusted) = &self.state.snapshot {
            // 5.5.5: nothing that was named disappears or goes back.
            for (name, before) in &trusted.signed.signed.meta {
                let now = metafile(&want.file, &new.signed.signed.meta, name)?;
                check_rollback(name, now.version.get(), before.version.get())?;
            }
        }
        metafile(&want.file, &new.signed.signed.meta, TARGETS)?;
        check_expiry(&want.file, &new, self.now)?;
        self.state.snapshot = Some(new);
        self.snapshot_done()
    }

    fn snapshot_done(&mut self) -> Result<(), TufError> {
        if let Some(doc) = &self.state.snapshot {
            check_expiry(SNAPSHOT, doc, self.now)?;
        }
        self.stage = Stage::Targets;
        let meta = self.targets_meta()?;
        if self.state.targets.as_ref().is_some_and(|doc| is_named(doc, meta)) {
            self.targets_done()?;
        }
        Ok(())
    }

    fn take_targets(&mut self, want: &Want, bytes: Vec<u8>) -> Result<(), TufError> {
        let meta = self.targets_meta()?;
        check_hash(&want.file, &bytes, meta, SNAPSHOT)?;
        let new: Doc<Targets> = parse(&want.file, bytes, TARGETS_BYTES)?;
        check_signature(&want.file, &self.state.root, &new.signed)?;
        check_version(&want.file, new.version(), meta.version.get())?;
        if new.signed.signed.delegations.as_ref().is_some_and(|d| !d.roles.is_empty()) {
            return Err(TufError::Unsupported { file: want.file.clone(), what: "delegation" });
        }
        check_expiry(&want.file, &new, self.now)?;
        self.state.targets = Some(new);
        self.targets_done()
    }

    fn targets_done(&mut self) -> Result<(), TufError> {
        if let Some(doc) = &self.state.targets {
            check_expiry(TARGETS, doc, self.now)?;
        }
        self.stage = Stage::Done;
        Ok(())
    }

    fn snapshot_meta(&self) -> Result<&Metafile, TufError> {
        let missing = || TufError::Missing { file: TIMESTAMP.into() };
        let timestamp = self.state.timestamp.as_ref().ok_or_else(missing)?;
        metafile(TIMESTAMP, &timestamp.signed.signed.meta, SNAPSHOT)
    }

    fn targets_meta(&self) -> Result<&Metafile, TufError> {
        let missing = || TufError::Missing { file: SNAPSHOT.into() };
        let snapshot = self.state.snapshot.as_ref().ok_or_else(missing)?;
        metafile(SNAPSHOT, &snapshot.signed.signed.meta, TARGETS)
    }
}

/// The parsed file. Its length is checked before a byte is read.
pub(super) fn parse<T: DeserializeOwned>(
    file: &str,
    bytes: Vec<u8>,
    limit: u64,
) -> Result<Doc<T>, TufError> {
    let file = || file.to_owned();
    if bytes.len() as u64 > limit {
        return Err(TufError::TooLarge { file: file(), limit });
    }
    let signed: Signed<T> = serde_json::from_slice(&bytes)
        .map_err(|source| TufError::Parse { file: file(), source })?;
    Ok(Doc { bytes, signed })
}

/// A root's own rules: signed by the keys of `by`, and of a kind this agent follows.
pub(super) fn check_root(file: &str, root: &Doc<Root>, by: &Doc<Root>) -> Result<(), TufError> {
    check_signature(file, by, &root.signed)?;
    if !root.signed.signed.consistent_snapshot {
        let what = "a repository without consistent snapshots";
        return Err(TufError::Unsupported { file: file.to_owned(), what });
    }
    if !root.signed.signed.spec_version.starts_with("1.") {
        let what = "a specification other than 1.x";
        return Err(TufError::Unsupported { file: file.to_owned(), what });
    }
    Ok(())
}

fn check_signature<T: Role>(file: &str, by: &Doc<Root>, role: &Signed<T>) -> Result<(), TufError> {
    by.signed.signed.verify_role(role).map_err(|source| TufError::Signature {
        file: file.to_owned(),
        root_version: by.version(),
        source: Box::new(source),
    })
}

fn check_version(file: &str, found: u64, expected: u64) -> Result<(), TufError> {
    if found == expected {
        return Ok(());
    }
    Err(TufError::Version { file: file.to_owned(), found, expected })
}

fn check_rollback(file: &str, found: u64, trusted: u64) -> Result<(), TufError> {
    if found >= trusted {
        return Ok(());
    }
    Err(TufError::Rollback { file: file.to_owned(), found, trusted })
}

fn check_expiry<T: Role>(file: &str, doc: &Doc<T>, now: UnixMillis) -> Result<(), TufError> {
    if now < doc.expires() {
        return Ok(());
    }
    Err(TufError::Expired { file: file.to_owned(), expired_at: doc.expires(), now })
}

fn check_hash(
    file: &str,
    bytes: &[u8],
    meta: &Metafile,
    named_by: &'static str,
) -> Result<(), TufError> {
    // The specification makes the digest optional: the version then stands for it.
    let Some(hashes) = &meta.hashes else { return Ok(()) };
    if hashes.sha256.as_ref() == Digest::of(bytes).as_bytes() {
        return Ok(());
    }
    Err(TufError::Hash { file: file.to_owned(), named_by })
}

/// Whether `doc` is the very file that `meta` names.
fn is_named<T: Role>(doc: &Doc<T>, meta: &Metafile) -> bool {
    let same_digest = meta
        .hashes
        .as_ref()
        .is_none_or(|hashes| hashes.sha256.as_ref() == Digest::of(&doc.bytes).as_bytes());
    doc.version() == meta.version.get() && same_digest
}

fn limit(meta: &Metafile, most: u64) -> u64 {
    meta.length.unwrap_or(most).min(most)
}

fn metafile<'a>(
    file: &str,
    meta: &'a std::collections::HashMap<String, Metafile>,
    name: &str,
) -> Result<&'a Metafile, TufError> {
    meta.get(name)
        .ok_or_else(|| TufError::Incomplete { file: file.to_owned(), missing: name.to_owned() })
}

/// A role's threshold and keys, for comparison.
fn keys_of(root: &Doc<Root>, role: RoleType) -> Option<(u64, Vec<Vec<u8>>)> {
    let keys = root.signed.signed.roles.get(&role)?;
    let mut ids: Vec<Vec<u8>> = keys.keyids.iter().map(|id| id.as_ref().to_vec()).collect();
    ids.sort();
    Some((keys.threshold.get(), ids))
}
