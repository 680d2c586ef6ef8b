//! Real repositories for tests: keys made in the test, metadata made by `tough`'s editor, and
//! hand-signed roles for what an editor would never write.

use std::collections::{BTreeMap, HashMap};
use std::num::NonZeroU64;
use std::str::FromStr;

use fleetloop_protocol::keys::SigningKey;
use fleetloop_protocol::{Digest, UnixMillis};
use tough::editor::RepositoryEditor;
use tough::key_source::{KeySource, LocalKeySource};
use tough::schema::key::Key;
use tough::schema::{Hashes, Role, RoleKeys, RoleType, Root, Signature, Signed, Target};

/// The time of the tests: 2026-01-01T00:00:00Z.
pub(crate) const NOW: UnixMillis = UnixMillis(1_767_225_600_000);
/// After every time in the tests.
pub(crate) const LATER: &str = "2027-01-01T00:00:00Z";
/// Before [`NOW`].
pub(crate) const PAST: &str = "2025-12-31T00:00:00Z";

pub(crate) type Files = BTreeMap<String, Vec<u8>>;

pub(crate) struct TestKey {
    pkcs8: Vec<u8>,
    key: SigningKey,
    tuf: Key,
}

impl TestKey {
    pub(crate) fn new() -> Self {
        let pkcs8 = SigningKey::generate_pkcs8().unwrap();
        let key = SigningKey::from_pkcs8(&pkcs8).unwrap();
        let hex: String = key.public().as_bytes().iter().map(|b| format!("{b:02x}")).collect();
        Self { pkcs8, key, tuf: Key::from_str(&hex).unwrap() }
    }
}

/// The keys of a channel, one a role.
pub(crate) struct ChannelKeys {
    pub(crate) root: TestKey,
    pub(crate) timestamp: TestKey,
    pub(crate) snapshot: TestKey,
    pub(crate) targets: TestKey,
}

impl ChannelKeys {
    pub(crate) fn new() -> Self {
        let key = TestKey::new;
        Self { root: key(), timestamp: key(), snapshot: key(), targets: key() }
    }

    pub(crate) fn root(&self, version: u64, expires: &str) -> Root {
        let roles = [
            (RoleType::Root, &self.root),
            (RoleType::Timestamp, &self.timestamp),
            (RoleType::Snapshot, &self.snapshot),
            (RoleType::Targets, &self.targets),
        ];
        Root {
            spec_version: "1.0.0".into(),
            consistent_snapshot: true,
            version: NonZeroU64::new(version).unwrap(),
            expires: serde_json::from_value(expires.into()).unwrap(),
            keys: roles.iter().map(|(_, k)| (k.tuf.key_id().unwrap(), k.tuf.clone())).collect(),
            roles: roles
                .iter()
                .map(|(role, k)| {
                    let keyids = vec![k.tuf.key_id().unwrap()];
                    let threshold = NonZeroU64::MIN;
                    (*role, RoleKeys { keyids, threshold, _extra: HashMap::new() })
                })
                .collect(),
            _extra: HashMap::new(),
        }
    }
}

/// A role signed by hand, as JSON.
pub(crate) fn sign<T: Role + serde::Serialize>(role: T, keys: &[&TestKey]) -> Vec<u8> {
    let message = role.canonical_form().unwrap();
    let signatures = keys
        .iter()
        .map(|k| Signature {
            keyid: k.tuf.key_id().unwrap(),
            sig: k.key.sign(&message).to_vec().into(),
        })
        .collect();
    serde_json::to_vec_pretty(&Signed { signed: role, signatures }).unwrap()
}

/// What one publication says.
#[derive(Clone, Copy)]
pub(crate) struct Edition<'a> {
    pub(crate) version: u64,
    pub(crate) timestamp_expires: &'a str,
    pub(crate) snapshot_expires: &'a str,
    pub(crate) targets_expires: &'a str,
}

impl Edition<'_> {
    pub(crate) fn of(version: u64) -> Self {
        Self { version, timestamp_expires: LATER, snapshot_expires: LATER, targets_expires: LATER }
    }
}

/// A repository as `tough`'s editor writes it: all metadata files by name.
pub(crate) async fn publish(
    keys: &ChannelKeys,
    root_json: &[u8],
    edition: Edition<'_>,
    targets: &[(&str, &[u8])],
) -> Files {
    let dir = tempfile::tempdir().unwrap();
    let path = |name: &str| dir.path().join(name);
    put(&path("root.json"), root_json);
    let mut sources: Vec<Box<dyn KeySource>> = Vec::new();
    for (i, key) in [&keys.timestamp, &keys.snapshot, &keys.targets].into_iter().enumerate() {
        put(&path(&format!("{i}.key")), &key.pkcs8);
        sources.push(Box::new(LocalKeySource { path: path(&format!("{i}.key")) }));
    }
    let version = NonZeroU64::new(edition.version).unwrap();
    let mut editor = RepositoryEditor::new(path("root.json")).await.unwrap();
    editor
        .timestamp_version(version)
        .timestamp_expires(serde_json::from_value(edition.timestamp_expires.into()).unwrap())
        .snapshot_version(version)
        .snapshot_expires(serde_json::from_value(edition.snapshot_expires.into()).unwrap())
        .targets_version(version)
        .unwrap()
        .targets_expires(serde_json::from_value(edition.targets_expires.into()).unwrap())
        .unwrap();
    for (name, bytes) in targets {
        editor.add_target(*name, target(bytes)).unwrap();
    }
    let out = path("out");
    editor.sign(&sources).await.unwrap().write(&out).await.unwrap();
    std::fs::read_dir(&out)
        .unwrap()
        .map(|entry| {
            let entry = entry.unwrap();
            let bytes = std::fs::read(entry.path()).unwrap();
            (entry.file_name().into_string().unwrap(), bytes)
        })
        .collect()
}

pub(crate) fn target(bytes: &[u8]) -> Target {
    Target {
        length: bytes.len() as u64,
        hashes: Hashes {
            sha256: Digest::of(bytes).as_bytes().to_vec().into(),
            _extra: HashMap::new(),
        },
        custom: HashMap::new(),
        _extra: HashMap::new(),
    }
}

fn put(path: &std::path::Path, bytes: &[u8]) {
    crate::durable::write(path, bytes).unwrap();
}
