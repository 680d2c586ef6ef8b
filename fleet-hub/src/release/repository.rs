//! The repository on disk: one channel's metadata, and copies of what it names.
//!
//! ```text
//! tuf/dev/1.root.json  N.targets.json  N.snapshot.json  timestamp.json  targets/…
//! tuf/keys/dev-targets.pk8  dev-snapshot.pk8  dev-timestamp.pk8            (0600)
//! ```
//!
//! Snapshots are consistent: metadata is never edited, a new version is a new file, and
//! `timestamp.json`, the only file that is replaced, is replaced last. The target files below
//! `targets/` are for mirrors and other TUF clients; devices fetch them as artefacts by digest.
//! Whoever signs holds `lock`, from reading what there is to replacing the timestamp.

use std::fs::File;
use std::num::NonZeroU64;
use std::path::{Path, PathBuf};

use fleetloop_protocol::hub_keys::{HUB_KEYS_TARGET, HubKeys};
use fleetloop_protocol::keys::SigningKey;
use fleetloop_protocol::{Digest, UnixMillis};
use tough::TargetName;
use tough::schema::{Root, Snapshot, Targets, Timestamp};

use super::metadata::{
    self, Document, RolePublicKeys, SNAPSHOT_LIFE_MS, TARGETS_LIFE_MS, TIMESTAMP_LIFE_MS, after,
};
use super::{CHANNEL, ReleaseError, files};

/// The most targets of a channel; one more is refused. All of them are in one file that every
/// device fetches.
pub const MOST_TARGETS: usize = 10_000;

/// Versions of snapshot and targets metadata that are kept, for a device that is just fetching.
const KEPT_VERSIONS: u64 = 32;

/// What a new repository gives to whoever made it.
#[derive(Debug, Clone)]
pub struct InitialRelease {
    /// The first root metadata, as served.
    pub root_json: Vec<u8>,
    /// Its SHA-256: what enrolment tokens name and devices pin.
    pub root_digest: Digest,
    /// The target `hub-keys.json`, to be stored as an artefact.
    pub hub_keys_json: Vec<u8>,
}

/// Makes the keys and the repository of the channel `dev` below `tuf_dir`; the root key goes to
/// `offline_dir`, the others stay. `timestamp.json` is written last: without it there is no
/// repository, and one that was cut short is made again in a fresh folder.
///
/// # Errors
/// [`ReleaseError::KeyExists`] rather than overwrite a key; the disk's.
pub fn init(
    tuf_dir: &Path,
    offline_dir: &Path,
    hub_keys: &HubKeys,
    now: UnixMillis,
) -> Result<InitialRelease, ReleaseError> {
    let (dir, keys_dir) = (tuf_dir.join(CHANNEL), tuf_dir.join("keys"));
    for folder in [&dir, &keys_dir, &offline_dir.to_owned()] {
        files::make_folder(folder)?;
    }
    let root_key = files::make_key(&offline_dir.join(format!("{CHANNEL}-root.pk8")))?;
    let keys = OnlineKeys {
        targets: files::make_key(&key_file(&keys_dir, "targets"))?,
        snapshot: files::make_key(&key_file(&keys_dir, "snapshot"))?,
        timestamp: files::make_key(&key_file(&keys_dir, "timestamp"))?,
    };
    let public = RolePublicKeys {
        root: root_key.public(),
        targets: keys.targets.public(),
        snapshot: keys.snapshot.public(),
        timestamp: keys.timestamp.public(),
    };
    let root = Document::sign(metadata::root(&public, now)?, &root_key)?;
    let hub_keys_json = serde_json::to_vec_pretty(hub_keys).map_err(|e| ReleaseError::Damaged {
        file: HUB_KEYS_TARGET.into(),
        reason: e.to_string(),
    })?;

    files::write(&dir.join("1.root.json"), &root.bytes)?;
    let name = target_name(HUB_KEYS_TARGET)?;
    write_target(&dir, &name, &hub_keys_json)?;
    let mut targets = metadata::targets(NonZeroU64::MIN, now)?;
    targets.add_target(name, metadata::target(&hub_keys_json));
    let current = Current::sign(&keys, targets, (NonZeroU64::MIN, NonZeroU64::MIN), now)?;
    current.place(&dir, &root.signed.signed)?;
    let root_digest = Digest::of(&root.bytes);
    Ok(InitialRelease { root_json: root.bytes, root_digest, hub_keys_json })
}

/// The first root metadata: what a device enrols with and pins.
///
/// # Errors
/// The file cannot be read.
pub fn root_json(tuf_dir: &Path) -> Result<Vec<u8>, ReleaseError> {
    files::read(&tuf_dir.join(CHANNEL).join("1.root.json"))
}

/// Where the metadata file of that name lies; none for any other name, so that nothing else of the
/// disk can be asked for.
pub fn metadata_path(tuf_dir: &Path, file: &str) -> Option<PathBuf> {
    let is_version = |text: &str| {
        (1..=18).contains(&text.len())
            && text.bytes().all(|b| b.is_ascii_digit())
            && !text.starts_with('0')
    };
    let versioned = ["root", "snapshot", "targets"].iter().any(|role| {
        file.strip_suffix(".json")
            .and_then(|rest| rest.strip_suffix(role))
            .and_then(|rest| rest.strip_suffix('.'))
            .is_some_and(is_version)
    });
    (versioned || file == "timestamp.json").then(|| tuf_dir.join(CHANNEL).join(file))
}

/// The channel `dev`, opened for signing, and locked while this lives: opening it twice waits.
#[derive(Debug)]
pub struct Repository {
    _lock: File,
    dir: PathBuf,
    root: Root,
    keys: OnlineKeys,
    current: Current,
}

#[derive(Debug)]
struct OnlineKeys {
    targets: SigningKey,
    snapshot: SigningKey,
    timestamp: SigningKey,
}

/// What `timestamp.json` leads to.
#[derive(Debug, Clone)]
struct Current {
    targets: Document<Targets>,
    snapshot: Document<Snapshot>,
    timestamp: Document<Timestamp>,
}

impl Repository {
    /// Opens the repository below `tuf_dir` and follows it as a device does, but for expiry, which
    /// [`refresh`](Self::refresh) mends.
    ///
    /// # Errors
    /// A file is missing, or is not what its signature or the file that names it says.
    pub fn open(tuf_dir: &Path) -> Result<Self, ReleaseError> {
        let (dir, keys_dir) = (tuf_dir.join(CHANNEL), tuf_dir.join("keys"));
        let lock = files::lock(&dir)?;
        let root = read_root(&dir)?;
        let keys = OnlineKeys {
            targets: files::read_key(&key_file(&keys_dir, "targets"))?,
            snapshot: files::read_key(&key_file(&keys_dir, "snapshot"))?,
            timestamp: files::read_key(&key_file(&keys_dir, "timestamp"))?,
        };
        let current = Current::read(&dir, &root)?;
        Ok(Self { _lock: lock, dir, root, keys, current })
    }

    /// The digest that the channel gives `target`.
    ///
    /// # Errors
    /// The name cannot be a target's.
    pub fn digest_of(&self, target: &str) -> Result<Option<Digest>, ReleaseError> {
        Ok(metadata::digest_of(&self.current.targets.signed.signed, &target_name(target)?))
    }

    /// All targets with their digests, by name.
    pub fn targets(&self) -> Vec<(String, Digest)> {
        let targets = &self.current.targets.signed.signed;
        let one =
            |name: &TargetName| Some((name.raw().to_owned(), metadata::digest_of(targets, name)?));
        let mut all: Vec<_> = targets.targets.keys().filter_map(one).collect();
        all.sort();
        all
    }

    /// Publishes `bytes` as `target`; again is allowed and changes nothing.
    ///
    /// # Errors
    /// [`ReleaseError::Taken`] when the channel gives other bytes under that name: a released
    /// target never changes. [`ReleaseError::TooMany`]; the disk's.
    pub fn publish(
        &mut self,
        target: &str,
        bytes: &[u8],
        now: UnixMillis,
    ) -> Result<(), ReleaseError> {
        let name = target_name(target)?;
        let digest = Digest::of(bytes);
        match metadata::digest_of(&self.current.targets.signed.signed, &name) {
            Some(found) if found == digest => return Ok(()),
            Some(found) => return Err(ReleaseError::Taken { target: target.to_owned(), found }),
            None => {}
        }
        if self.current.targets.signed.signed.targets.len() >= MOST_TARGETS {
            return Err(ReleaseError::TooMany);
        }
        write_target(&self.dir, &name, bytes)?;
        let mut targets = metadata::next_targets(&self.current.targets.signed.signed, now)?;
        targets.add_target(name, metadata::target(bytes));
        let next = Current::sign(&self.keys, targets, self.current.next_versions()?, now)?;
        self.replace(next)
    }

    /// Signs anew what has less than a third of its life left, and what names it. Returns whether
    /// anything was due.
    ///
    /// # Errors
    /// The disk's.
    pub fn refresh(&mut self, now: UnixMillis) -> Result<bool, ReleaseError> {
        let current = &self.current;
        let versions = current.next_versions()?;
        let next = if current.targets.is_due(TARGETS_LIFE_MS, now) {
            let targets = metadata::next_targets(&current.targets.signed.signed, now)?;
            Current::sign(&self.keys, targets, versions, now)?
        } else if current.snapshot.is_due(SNAPSHOT_LIFE_MS, now) {
            Current::sign_snapshot(&self.keys, current.targets.clone(), versions, now)?
        } else if current.timestamp.is_due(TIMESTAMP_LIFE_MS, now) {
            let timestamp = metadata::timestamp(versions.1, &current.snapshot, now)?;
            let timestamp = Document::sign(timestamp, &self.keys.timestamp)?;
            Current { timestamp, ..current.clone() }
        } else {
            return Ok(false);
        };
        self.replace(next).map(|()| true)
    }

    /// Milliseconds since 1970 at which the root metadata ends.
    pub fn root_expires(&self) -> UnixMillis {
        UnixMillis(u64::try_from(self.root.expires.as_millisecond()).unwrap_or(0))
    }

    fn replace(&mut self, next: Current) -> Result<(), ReleaseError> {
        next.place(&self.dir, &self.root)?;
        self.current = next;
        self.current.prune(&self.dir);
        Ok(())
    }
}

impl Current {
    /// Signs all three; `versions` are the snapshot's and the timestamp's.
    fn sign(
        keys: &OnlineKeys,
        targets: Targets,
        versions: (NonZeroU64, NonZeroU64),
        now: UnixMillis,
    ) -> Result<Self, ReleaseError> {
        Self::sign_snapshot(keys, Document::sign(targets, &keys.targets)?, versions, now)
    }

    fn sign_snapshot(
        keys: &OnlineKeys,
        targets: Document<Targets>,
        versions: (NonZeroU64, NonZeroU64),
        now: UnixMillis,
    ) -> Result<Self, ReleaseError> {
        let snapshot = metadata::snapshot(versions.0, &targets, now)?;
        let snapshot = Document::sign(snapshot, &keys.snapshot)?;
        let timestamp = metadata::timestamp(versions.1, &snapshot, now)?;
        let timestamp = Document::sign(timestamp, &keys.timestamp)?;
        Ok(Self { targets, snapshot, timestamp })
    }

    fn next_versions(&self) -> Result<(NonZeroU64, NonZeroU64), ReleaseError> {
        let timestamp = after(self.timestamp.signed.signed.version)?;
        Ok((after(self.snapshot.signed.signed.version)?, timestamp))
    }

    fn read(dir: &Path, root: &Root) -> Result<Self, ReleaseError> {
        let read = |file: &str| files::read(&dir.join(file));
        let timestamp: Document<Timestamp> =
            Document::read(read("timestamp.json")?, root, "timestamp.json")?;
        let meta = timestamp.signed.signed.meta.get("snapshot.json");
        let file = format!("{}.snapshot.json", meta.map_or(0, |m| m.version.get()));
        let snapshot: Document<Snapshot> = Document::read(read(&file)?, root, &file)?;
        let unnamed = |file: &str| ReleaseError::Damaged {
            file: file.to_owned(),
            reason: "it is not the file that the signed metadata names".to_owned(),
        };
        if !snapshot.is_named_by(meta) {
            return Err(unnamed(&file));
        }
        let meta = snapshot.signed.signed.meta.get("targets.json");
        let file = format!("{}.targets.json", meta.map_or(0, |m| m.version.get()));
        let targets: Document<Targets> = Document::read(read(&file)?, root, &file)?;
        if !targets.is_named_by(meta) {
            return Err(unnamed(&file));
        }
        Ok(Self { targets, snapshot, timestamp })
    }

    /// Makes this what devices see, in the order in which a power cut does no harm.
    fn place(&self, dir: &Path, root: &Root) -> Result<(), ReleaseError> {
        // Nothing goes out that a device would refuse.
        let Self { targets, snapshot, timestamp } = self.clone();
        Document::<Targets>::read(targets.bytes, root, "new targets metadata")?;
        Document::<Snapshot>::read(snapshot.bytes, root, "new snapshot metadata")?;
        Document::<Timestamp>::read(timestamp.bytes, root, "new timestamp metadata")?;

        let file = format!("{}.targets.json", self.targets.signed.signed.version);
        files::write(&dir.join(file), &self.targets.bytes)?;
        // A cut here leaves targets that no snapshot names. No device fetches them, and the next
        // release writes other bytes under that number.
        let file = format!("{}.snapshot.json", self.snapshot.signed.signed.version);
        files::write(&dir.join(file), &self.snapshot.bytes)?;
        // A cut here leaves a snapshot that no timestamp names: the same holds.
        files::write(&dir.join("timestamp.json"), &self.timestamp.bytes)
        // The rename within this write is the release. A cut before it leaves the old channel, a
        // cut after it the new one.
    }

    /// Removes the versions that fell out of those kept; what cannot be removed is no harm.
    fn prune(&self, dir: &Path) {
        let versions = [
            ("targets", self.targets.signed.signed.version),
            ("snapshot", self.snapshot.signed.signed.version),
        ];
        for (role, version) in versions {
            if let Some(old) = version.get().checked_sub(KEPT_VERSIONS).filter(|old| *old > 0) {
                let _ = std::fs::remove_file(dir.join(format!("{old}.{role}.json")));
            }
        }
    }
}

/// Follows the chain of roots from the first, each trusted by the one before and by itself.
fn read_root(dir: &Path) -> Result<Root, ReleaseError> {
    let first = files::read(&dir.join("1.root.json"))?;
    let unchecked: tough::schema::Signed<Root> = serde_json::from_slice(&first)
        .map_err(|e| ReleaseError::Damaged { file: "1.root.json".into(), reason: e.to_string() })?;
    let mut root = Document::<Root>::read(first, &unchecked.signed, "1.root.json")?.signed.signed;
    loop {
        let file = format!("{}.root.json", after(root.version)?);
        let path = dir.join(&file);
        if !path.exists() {
            return Ok(root);
        }
        let bytes = files::read(&path)?;
        let next: Document<Root> = Document::read(bytes.clone(), &root, &file)?;
        root = Document::<Root>::read(bytes, &next.signed.signed, &file)?.signed.signed;
    }
}

fn target_name(text: &str) -> Result<TargetName, ReleaseError> {
    let name = TargetName::new(text)
        .map_err(|e| ReleaseError::Name { target: text.to_owned(), reason: e.to_string() })?;
    if name.resolved() == text && !text.starts_with('/') {
        Ok(name)
    } else {
        let reason = "it must be a plain relative path".to_owned();
        Err(ReleaseError::Name { target: text.to_owned(), reason })
    }
}

/// `targets/<folders>/<sha256>.<file>`, as consistent snapshots have it.
fn write_target(dir: &Path, name: &TargetName, bytes: &[u8]) -> Result<(), ReleaseError> {
    let (folders, file) = name.raw().rsplit_once('/').unwrap_or(("", name.raw()));
    let folder = dir.join("targets").join(folders);
    files::make_folder(&folder)?;
    files::write(&folder.join(format!("{}.{file}", Digest::of(bytes))), bytes)
}

fn key_file(keys_dir: &Path, role: &str) -> PathBuf {
    keys_dir.join(format!("{CHANNEL}-{role}.pk8"))
}
