//! The repository on disk: one channel's metadata, and copies of what it names.
//!
//! ```text
//! tuf/dev/N.root.json  N.targets.json  N.snapshot.json  timestamp.json  targets/…
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

use fleetloop_protocol::hub_addresses::HUB_ADDRESSES_TARGET;
use fleetloop_protocol::keys::PublicKey;
use fleetloop_protocol::{Digest, UnixMillis};
use tough::TargetName;
use tough::schema::{RoleType, Root, Snapshot, Targets, Timestamp};

use super::medium::Medium;
use super::metadata::{
    self, Document, RolePublicKeys, SNAPSHOT_LIFE_MS, TARGETS_LIFE_MS, TIMESTAMP_LIFE_MS,
    first_version, next_version,
};
use super::online::{self, OnlineKeys};
use super::roots::{Roots, check_next};
use super::{CHANNEL, ReleaseError, files};

/// The most targets of a channel; one more is refused. All of them are in one file that every
/// device fetches.
pub const MOST_TARGETS: usize = 10_000;

/// Versions of snapshot and targets metadata that are kept, for a device that is just fetching.
const KEPT_VERSIONS: usize = 32;

/// What a new repository gives to whoever made it.
#[derive(Debug, Clone)]
pub struct InitialRelease {
    /// The first root metadata, as served.
    pub root_json: Vec<u8>,
    /// Its SHA-256: what enrolment tokens name and devices pin.
    pub root_digest: Digest,
}

/// Makes the keys and the repository of the channel `dev` below `tuf_dir`; the root key goes to
/// `offline_dir`, the others stay. It publishes the hub's `own` documents. `timestamp.json` is written last: without it there is no
/// repository, and one that was cut short is made again in a fresh folder.
///
/// # Errors
/// [`ReleaseError::KeyExists`] rather than overwrite a key; the disk's.
pub fn init(
    tuf_dir: &Path,
    offline_dir: &Path,
    own: &[(&str, Vec<u8>)],
    now: UnixMillis,
) -> Result<InitialRelease, ReleaseError> {
    let (dir, keys_dir) = (tuf_dir.join(CHANNEL), tuf_dir.join("keys"));
    for folder in [&dir, &keys_dir] {
        files::make_folder(folder)?;
    }
    let (medium, root_key) = Medium::create(offline_dir)?;
    let keys = OnlineKeys::make(&keys_dir)?;
    let public = RolePublicKeys {
        root: root_key.public(),
        targets: keys.targets.public(),
        snapshot: keys.snapshot.public(),
        timestamp: keys.timestamp.public(),
    };
    let root = Document::sign(metadata::root(&public, now)?, &root_key)?;
    files::write(&dir.join("1.root.json"), &root.bytes)?;
    medium.keep(1, &root.bytes)?;
    let mut targets = metadata::targets(now)?;
    for (target, bytes) in own {
        let name = target_name(target)?;
        write_target(&dir, &name, bytes)?;
        targets.add_target(name, metadata::target(bytes));
    }
    let versions = (first_version(now), first_version(now));
    let current = Current::sign(&keys, targets, versions, now)?;
    current.place(&dir, &root.signed.signed)?;
    let root_digest = Digest::of(&root.bytes);
    Ok(InitialRelease { root_json: root.bytes, root_digest })
}

/// The root metadata with that digest, or the newest: what a device enrols with and pins. None when
/// the chain has no such root.
///
/// # Errors
/// The chain cannot be read.
pub fn root_json(tuf_dir: &Path, digest: Option<Digest>) -> Result<Option<Vec<u8>>, ReleaseError> {
    Ok(Roots::read(&tuf_dir.join(CHANNEL))?.with_digest(digest))
}

/// All root metadata of the channel, the first one first.
///
/// # Errors
/// The chain cannot be read.
pub fn root_chain(tuf_dir: &Path) -> Result<Vec<Vec<u8>>, ReleaseError> {
    Ok(Roots::read(&tuf_dir.join(CHANNEL))?.bytes())
}

/// The public half of the key that the next root shall name for the online `role`; the private half
/// stays here and signs nothing until then.
///
/// # Errors
/// The disk's.
pub fn next_online_key(tuf_dir: &Path, role: RoleType) -> Result<PublicKey, ReleaseError> {
    let _lock = files::lock(&tuf_dir.join(CHANNEL))?;
    online::next_key(&tuf_dir.join("keys"), role)
}

/// Takes the root after the newest, signed where the root key is, and signs anew what its keys did
/// not sign. The newest root again is allowed and changes nothing.
///
/// # Errors
/// [`ReleaseError::NotNextRoot`] says why it is not taken; the disk's.
pub fn accept_root(tuf_dir: &Path, bytes: &[u8], now: UnixMillis) -> Result<(), ReleaseError> {
    let dir = tuf_dir.join(CHANNEL);
    {
        let _lock = files::lock(&dir)?;
        let roots = Roots::read(&dir)?;
        if roots.with_digest(None).is_none_or(|newest| newest != bytes) {
            let next = check_next(roots.newest(), bytes, now)?;
            online::are_named(&tuf_dir.join("keys"), &next.signed.signed)?;
            let version = next.signed.signed.version;
            files::write(&dir.join(format!("{version}.root.json")), &next.bytes)?;
            // A cut here leaves metadata that the new root may not trust: devices refuse it, and go
            // on as they are, until the next start signs it anew.
        }
    }
    Repository::open(tuf_dir)?.refresh(now).map(drop)
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

/// Where the hub's addresses of that digest lie (`<sha256>.hub-addresses.json`); none for any other
/// name.
pub fn addresses_path(tuf_dir: &Path, file: &str) -> Option<PathBuf> {
    let digest = file.strip_suffix(HUB_ADDRESSES_TARGET)?.strip_suffix('.')?;
    let digest: Digest = digest.parse().ok()?;
    let name = format!("{digest}.{HUB_ADDRESSES_TARGET}");
    Some(tuf_dir.join(CHANNEL).join("targets").join(name))
}

/// The channel `dev`, opened for signing, and locked while this lives: opening it twice waits.
#[derive(Debug)]
pub struct Repository {
    _lock: File,
    dir: PathBuf,
    roots: Roots,
    keys: OnlineKeys,
    current: Current,
}

/// What `timestamp.json` leads to.
#[derive(Debug, Clone)]
struct Current {
    targets: Document<Targets>,
    snapshot: Document<Snapshot>,
    timestamp: Document<Timestamp>,
}

impl Repository {
    /// Opens the repository below `tuf_dir` and follows it as a device does, but for expiry and for
    /// what a key signed that was rotated since, which [`refresh`](Self::refresh) mends.
    ///
    /// # Errors
    /// A file is missing, or is not what its signature or the file that names it says.
    pub fn open(tuf_dir: &Path) -> Result<Self, ReleaseError> {
        let (dir, keys_dir) = (tuf_dir.join(CHANNEL), tuf_dir.join("keys"));
        let lock = files::lock(&dir)?;
        let roots = Roots::read(&dir)?;
        let keys = OnlineKeys::open(&keys_dir, roots.newest())?;
        let current = Current::read(&dir, &roots)?;
        Ok(Self { _lock: lock, dir, roots, keys, current })
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
        self.place_target(name, bytes, now)
    }

    /// Publishes a document of the hub itself, in the place of the one before: the hub's keys, its
    /// addresses. The same bytes again change nothing.
    ///
    /// # Errors
    /// [`ReleaseError::TooMany`]; the disk's.
    pub fn publish_own(
        &mut self,
        target: &str,
        bytes: &[u8],
        now: UnixMillis,
    ) -> Result<(), ReleaseError> {
        let name = target_name(target)?;
        let found = metadata::digest_of(&self.current.targets.signed.signed, &name);
        if found == Some(Digest::of(bytes)) {
            return Ok(());
        }
        self.place_target(name, bytes, now)
    }

    /// The bytes of a document of the hub itself.
    ///
    /// # Errors
    /// It is missing, or is not what the metadata names.
    pub fn read_own(&self, target: &str) -> Result<Vec<u8>, ReleaseError> {
        let damaged = |reason: &str| ReleaseError::Damaged {
            file: target.to_owned(),
            reason: reason.to_owned(),
        };
        let digest = self.digest_of(target)?.ok_or_else(|| damaged("it is not published"))?;
        let bytes = files::read(&self.dir.join("targets").join(format!("{digest}.{target}")))?;
        if Digest::of(&bytes) == digest { Ok(bytes) } else { Err(damaged("its digest is wrong")) }
    }

    fn place_target(
        &mut self,
        name: TargetName,
        bytes: &[u8],
        now: UnixMillis,
    ) -> Result<(), ReleaseError> {
        let last = &self.current.targets.signed.signed;
        if last.targets.len() >= MOST_TARGETS && !last.targets.contains_key(&name) {
            return Err(ReleaseError::TooMany);
        }
        write_target(&self.dir, &name, bytes)?;
        let mut targets = metadata::next_targets(last, now)?;
        targets.add_target(name, metadata::target(bytes));
        let next = Current::sign(&self.keys, targets, self.current.next_versions(now)?, now)?;
        self.replace(next)
    }

    /// Signs anew what has less than a third of its life left or was signed by a key that was rotated
    /// since, and what names it. Returns whether anything was due.
    ///
    /// # Errors
    /// The disk's.
    pub fn refresh(&mut self, now: UnixMillis) -> Result<bool, ReleaseError> {
        let (current, root) = (&self.current, self.roots.newest());
        let Current { targets, snapshot, timestamp } = current;
        let role = if targets.is_due(TARGETS_LIFE_MS, now) || !targets.is_trusted_by(root) {
            RoleType::Targets
        } else if snapshot.is_due(SNAPSHOT_LIFE_MS, now) || !snapshot.is_trusted_by(root) {
            RoleType::Snapshot
        } else if timestamp.is_due(TIMESTAMP_LIFE_MS, now) || !timestamp.is_trusted_by(root) {
            RoleType::Timestamp
        } else {
            return Ok(false);
        };
        self.sign_anew(role, now).map(|()| true)
    }

    /// The versions of root, targets, snapshot and timestamp, and when each ends.
    pub fn ends(&self) -> [(RoleType, u64, UnixMillis); 4] {
        let Current { targets, snapshot, timestamp } = &self.current;
        [
            (RoleType::Root, self.roots.newest().version.get(), self.roots.ends()),
            (RoleType::Targets, targets.signed.signed.version.get(), targets.ends()),
            (RoleType::Snapshot, snapshot.signed.signed.version.get(), snapshot.ends()),
            (RoleType::Timestamp, timestamp.signed.signed.version.get(), timestamp.ends()),
        ]
    }

    /// When the timestamp was signed.
    pub fn signed_at(&self) -> UnixMillis {
        UnixMillis(self.current.timestamp.ends().0.saturating_sub(TIMESTAMP_LIFE_MS))
    }

    /// Signs the metadata of an online role anew, whatever is left of its life.
    ///
    /// # Errors
    /// The disk's.
    pub fn sign_anew(&mut self, role: RoleType, now: UnixMillis) -> Result<(), ReleaseError> {
        let current = &self.current;
        let versions = current.next_versions(now)?;
        let next = match role {
            RoleType::Targets => {
                let targets = metadata::next_targets(&current.targets.signed.signed, now)?;
                Current::sign(&self.keys, targets, versions, now)?
            }
            RoleType::Snapshot => {
                Current::sign_snapshot(&self.keys, current.targets.clone(), versions, now)?
            }
            _ => current.sign_timestamp(&self.keys, versions.1, now)?,
        };
        self.replace(next)
    }

    /// The digest that targets metadata of this channel, of any age, gives `target`.
    ///
    /// # Errors
    /// No root of this channel names the key that signed it.
    pub fn once_named(&self, targets: &[u8], target: &str) -> Result<Option<Digest>, ReleaseError> {
        let read =
            |root| Document::<Targets>::read(targets.to_vec(), root, "older targets metadata");
        let document = self.roots.newest_first().map(read).find(Result::is_ok);
        let document = document.unwrap_or_else(|| read(self.roots.newest()))?;
        Ok(metadata::digest_of(&document.signed.signed, &target_name(target)?))
    }

    fn replace(&mut self, next: Current) -> Result<(), ReleaseError> {
        next.place(&self.dir, self.roots.newest())?;
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

    fn sign_timestamp(
        &self,
        keys: &OnlineKeys,
        version: NonZeroU64,
        now: UnixMillis,
    ) -> Result<Self, ReleaseError> {
        let timestamp = metadata::timestamp(version, &self.snapshot, now)?;
        let timestamp = Document::sign(timestamp, &keys.timestamp)?;
        Ok(Self { timestamp, ..self.clone() })
    }

    fn next_versions(&self, now: UnixMillis) -> Result<(NonZeroU64, NonZeroU64), ReleaseError> {
        let timestamp = next_version(self.timestamp.signed.signed.version, now)?;
        Ok((next_version(self.snapshot.signed.signed.version, now)?, timestamp))
    }

    fn read(dir: &Path, roots: &Roots) -> Result<Self, ReleaseError> {
        let read = |file: &str| files::read(&dir.join(file));
        let timestamp: Document<Timestamp> =
            Document::read_by(read("timestamp.json")?, roots.newest_first(), "timestamp.json")?;
        let meta = timestamp.signed.signed.meta.get("snapshot.json");
        let file = format!("{}.snapshot.json", meta.map_or(0, |m| m.version.get()));
        let snapshot: Document<Snapshot> =
            Document::read_by(read(&file)?, roots.newest_first(), &file)?;
        let unnamed = |file: &str| ReleaseError::Damaged {
            file: file.to_owned(),
            reason: "it is not the file that the signed metadata names".to_owned(),
        };
        if !snapshot.is_named_by(meta) {
            return Err(unnamed(&file));
        }
        let meta = snapshot.signed.signed.meta.get("targets.json");
        let file = format!("{}.targets.json", meta.map_or(0, |m| m.version.get()));
        let targets: Document<Targets> =
            Document::read_by(read(&file)?, roots.newest_first(), &file)?;
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
        for role in ["targets", "snapshot"] {
            let mut versions = versions_of(dir, role);
            versions.sort_unstable_by(|a, b| b.cmp(a));
            for old in versions.into_iter().skip(KEPT_VERSIONS) {
                let _ = std::fs::remove_file(dir.join(format!("{old}.{role}.json")));
            }
        }
    }
}

/// The versions of a role's metadata that are in `dir`.
fn versions_of(dir: &Path, role: &str) -> Vec<u64> {
    let Ok(entries) = std::fs::read_dir(dir) else { return Vec::new() };
    let version = |name: String| {
        name.strip_suffix(".json")?.strip_suffix(role)?.strip_suffix('.')?.parse().ok()
    };
    entries.flatten().filter_map(|entry| version(entry.file_name().into_string().ok()?)).collect()
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
