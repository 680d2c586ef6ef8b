//! TUF metadata as values: building, signing, checking. No files, no clock.
//!
//! The roles are [`tough::schema`]'s, and so are the canonical form that is signed and the check of
//! a signature, which is the one that devices run. Signing is done here with the hub's own Ed25519
//! keys and not by `tough`'s editor: the editor signs all roles whenever it signs one, so that the
//! daily timestamp would need the targets key, and it writes files in place.
//!
//! Times are whole seconds. Root versions count from 1, each one more than the one before. The other
//! roles' versions are seconds since 1970, or one more than the last ([`next_version`]): a hub that
//! was restored from a backup signs versions above those that its devices have seen.

use std::collections::HashMap;
use std::num::NonZeroU64;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use fleetloop_protocol::keys::{PublicKey, SigningKey};
use fleetloop_protocol::{Digest, UnixMillis};
use serde::Serialize;
use serde::de::DeserializeOwned;
use tough::TargetName;
use tough::schema::decoded::{Decoded, Hex};
use tough::schema::key::{Ed25519Key, Ed25519Scheme, Key};
use tough::schema::{
    Hashes, Metafile, Role, RoleKeys, RoleType, Root, Signature, Signed, Snapshot, Target, Targets,
    Timestamp,
};

use super::ReleaseError;

/// The TUF specification's version, as `tough` reads and writes it.
const SPEC: &str = "1.0.0";

const DAY_MS: u64 = 24 * 60 * 60 * 1000;

/// How long root metadata is good: it is renewed by hand, with the offline key.
pub const ROOT_LIFE_MS: u64 = 3 * 365 * DAY_MS;
/// How long targets metadata is good.
pub const TARGETS_LIFE_MS: u64 = 90 * DAY_MS;
/// How long snapshot metadata is good.
pub const SNAPSHOT_LIFE_MS: u64 = 7 * DAY_MS;
/// How long a timestamp is good: for as long can a network hide a release from a device.
pub const TIMESTAMP_LIFE_MS: u64 = DAY_MS;

/// The public halves of a channel's keys, one a role, threshold 1.
#[derive(Debug, Clone, Copy)]
pub(super) struct RolePublicKeys {
    pub root: PublicKey,
    pub targets: PublicKey,
    pub snapshot: PublicKey,
    pub timestamp: PublicKey,
}

/// Version 1 of a channel's root.
pub(super) fn root(keys: &RolePublicKeys, now: UnixMillis) -> Result<Root, ReleaseError> {
    let mut by_id = HashMap::new();
    let mut roles = HashMap::new();
    for (role, public) in [
        (RoleType::Root, &keys.root),
        (RoleType::Targets, &keys.targets),
        (RoleType::Snapshot, &keys.snapshot),
        (RoleType::Timestamp, &keys.timestamp),
    ] {
        let key = tuf_key(public);
        let id = key_id(&key)?;
        by_id.insert(id.clone(), key);
        let role_keys =
            RoleKeys { keyids: vec![id], threshold: NonZeroU64::MIN, _extra: HashMap::new() };
        roles.insert(role, role_keys);
    }
    Ok(Root {
        spec_version: SPEC.to_owned(),
        consistent_snapshot: true,
        version: NonZeroU64::MIN,
        expires: expires(now, ROOT_LIFE_MS)?,
        keys: by_id,
        roles,
        _extra: HashMap::new(),
    })
}

/// What the next version of a root changes.
#[derive(Debug, Clone, Default)]
pub(super) struct RootChange {
    /// The roles that get another key, and the key.
    pub keys: Vec<(RoleType, PublicKey)>,
}

/// The root after `last`: one version more, good from `now`, with other keys where `change` says so.
pub(super) fn next_root(
    last: &Root,
    change: &RootChange,
    now: UnixMillis,
) -> Result<Root, ReleaseError> {
    let mut next = last.clone();
    next.version = after(last.version)?;
    next.expires = expires(now, ROOT_LIFE_MS)?;
    for (role, public) in &change.keys {
        let key = tuf_key(public);
        let id = key_id(&key)?;
        next.keys.insert(id.clone(), key);
        let keys =
            RoleKeys { keyids: vec![id], threshold: NonZeroU64::MIN, _extra: HashMap::new() };
        next.roles.insert(*role, keys);
    }
    let used: Vec<_> = next.roles.values().flat_map(|role| role.keyids.clone()).collect();
    next.keys.retain(|id, _| used.contains(id));
    Ok(next)
}

/// Whether `root` lets `key` sign for `role`.
pub(super) fn names_key(root: &Root, role: RoleType, key: &PublicKey) -> bool {
    root.keys(role).any(|known| match known {
        Key::Ed25519 { keyval, .. } => keyval.public[..] == key.as_bytes()[..],
        _ => false,
    })
}

/// Targets of a first version; without any for now.
pub(super) fn targets(now: UnixMillis) -> Result<Targets, ReleaseError> {
    let version = first_version(now);
    let mut targets = Targets::new(SPEC.to_owned(), version, expires(now, TARGETS_LIFE_MS)?);
    targets.delegations = None;
    Ok(targets)
}

/// The same targets as the next version, good from `now`.
pub(super) fn next_targets(last: &Targets, now: UnixMillis) -> Result<Targets, ReleaseError> {
    let mut next = last.clone();
    next.version = next_version(last.version, now)?;
    next.expires = expires(now, TARGETS_LIFE_MS)?;
    Ok(next)
}

/// A snapshot that names these targets.
pub(super) fn snapshot(
    version: NonZeroU64,
    targets: &Document<Targets>,
    now: UnixMillis,
) -> Result<Snapshot, ReleaseError> {
    let mut snapshot = Snapshot::new(SPEC.to_owned(), version, expires(now, SNAPSHOT_LIFE_MS)?);
    snapshot.meta.insert("targets.json".to_owned(), targets.metafile());
    Ok(snapshot)
}

/// A timestamp that names this snapshot.
pub(super) fn timestamp(
    version: NonZeroU64,
    snapshot: &Document<Snapshot>,
    now: UnixMillis,
) -> Result<Timestamp, ReleaseError> {
    let mut timestamp = Timestamp::new(SPEC.to_owned(), version, expires(now, TIMESTAMP_LIFE_MS)?);
    timestamp.meta.insert("snapshot.json".to_owned(), snapshot.metafile());
    Ok(timestamp)
}

/// A target with the length and SHA-256 of `bytes`.
pub(super) fn target(bytes: &[u8]) -> Target {
    Target {
        length: bytes.len() as u64,
        hashes: hashes(Digest::of(bytes)),
        custom: HashMap::new(),
        _extra: HashMap::new(),
    }
}

/// The digest under which `targets` names `name`.
pub(super) fn digest_of(targets: &Targets, name: &TargetName) -> Option<Digest> {
    let bytes: [u8; 32] = targets.targets.get(name)?.hashes.sha256.to_vec().try_into().ok()?;
    Some(Digest::from_bytes(bytes))
}

/// Metadata with its signatures and the very bytes that are served.
#[derive(Debug, Clone)]
pub(super) struct Document<T> {
    pub signed: Signed<T>,
    pub bytes: Vec<u8>,
}

impl<T: Role + Serialize + DeserializeOwned> Document<T> {
    /// Signs `role`.
    pub(super) fn sign(role: T, key: &SigningKey) -> Result<Self, ReleaseError> {
        Self::sign_by(role, &[key])
    }

    /// Signs `role` by each of `keys`.
    pub(super) fn sign_by(role: T, keys: &[&SigningKey]) -> Result<Self, ReleaseError> {
        let unsignable = |reason: String| ReleaseError::Sign { role: T::TYPE, reason };
        let form = role.canonical_form().map_err(|e| unsignable(e.to_string()))?;
        let sign = |key: &&SigningKey| {
            let keyid = key_id(&tuf_key(&key.public()))?;
            Ok(Signature { keyid, sig: key.sign(&form).to_vec().into() })
        };
        let signatures = keys.iter().map(sign).collect::<Result<_, ReleaseError>>()?;
        let signed = Signed { signed: role, signatures };
        let mut bytes =
            serde_json::to_vec_pretty(&signed).map_err(|e| unsignable(e.to_string()))?;
        bytes.push(b'\n');
        Ok(Self { signed, bytes })
    }

    /// Reads `bytes` and checks that `root` trusts who signed them.
    pub(super) fn read(bytes: Vec<u8>, root: &Root, file: &str) -> Result<Self, ReleaseError> {
        Self::read_by(bytes, [root], file)
    }

    /// The same where any of `roots` will do: what was signed before a key was rotated.
    pub(super) fn read_by<'r>(
        bytes: Vec<u8>,
        roots: impl IntoIterator<Item = &'r Root>,
        file: &str,
    ) -> Result<Self, ReleaseError> {
        let damaged = |reason: String| ReleaseError::Damaged { file: file.to_owned(), reason };
        let signed: Signed<T> =
            serde_json::from_slice(&bytes).map_err(|e| damaged(e.to_string()))?;
        let mut verdict = Err("no root is there to check it".to_owned());
        for root in roots {
            verdict = root.verify_role(&signed).map_err(|e| e.to_string());
            if verdict.is_ok() {
                break;
            }
        }
        verdict.map_err(damaged)?;
        Ok(Self { signed, bytes })
    }

    /// Whether `root` trusts who signed this.
    pub(super) fn is_trusted_by(&self, root: &Root) -> bool {
        root.verify_role(&self.signed).is_ok()
    }

    /// When it ends.
    pub(super) fn ends(&self) -> UnixMillis {
        UnixMillis(u64::try_from(self.signed.signed.expires().as_millisecond()).unwrap_or(0))
    }

    /// How other metadata names this one.
    fn metafile(&self) -> Metafile {
        Metafile {
            length: Some(self.bytes.len() as u64),
            hashes: Some(hashes(Digest::of(&self.bytes))),
            version: self.signed.signed.version(),
            _extra: HashMap::new(),
        }
    }

    /// Whether `meta` names exactly this document.
    pub(super) fn is_named_by(&self, meta: Option<&Metafile>) -> bool {
        meta == Some(&self.metafile())
    }

    /// Whether less than a third of its life is left.
    pub(super) fn is_due(&self, life_ms: u64, now: UnixMillis) -> bool {
        self.ends().0.saturating_sub(now.0) < life_ms / 3
    }
}

/// The version of a role that was never signed: the second that it is.
pub(super) fn first_version(now: UnixMillis) -> NonZeroU64 {
    NonZeroU64::new(now.0 / 1000).unwrap_or(NonZeroU64::MIN)
}

/// The version after `last`: the second that it is, or one more than `last` when that is not less.
/// So a hub that was restored from a backup is ahead of what its devices saw before.
pub(super) fn next_version(last: NonZeroU64, now: UnixMillis) -> Result<NonZeroU64, ReleaseError> {
    Ok(after(last)?.max(first_version(now)))
}

/// The root version after `version`.
pub(super) fn after(version: NonZeroU64) -> Result<NonZeroU64, ReleaseError> {
    version.checked_add(1).ok_or(ReleaseError::Time)
}

fn hashes(digest: Digest) -> Hashes {
    Hashes { sha256: digest.as_bytes().to_vec().into(), _extra: HashMap::new() }
}

fn tuf_key(public: &PublicKey) -> Key {
    Key::Ed25519 {
        keyval: Ed25519Key { public: public.as_bytes().to_vec().into(), _extra: HashMap::new() },
        scheme: Ed25519Scheme::Ed25519,
        _extra: HashMap::new(),
    }
}

fn key_id(key: &Key) -> Result<Decoded<Hex>, ReleaseError> {
    key.key_id().map_err(|e| ReleaseError::Sign { role: RoleType::Root, reason: e.to_string() })
}

/// `life_ms` after `now`, in whole seconds. The type is jiff's, which `tough` does not re-export.
fn expires<T: TryFrom<SystemTime>>(now: UnixMillis, life_ms: u64) -> Result<T, ReleaseError> {
    let seconds = now.0.saturating_add(life_ms) / 1000;
    UNIX_EPOCH
        .checked_add(Duration::from_secs(seconds))
        .and_then(|at| at.try_into().ok())
        .ok_or(ReleaseError::Time)
}
