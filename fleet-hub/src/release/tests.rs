//! The repository as a device and as a power cut see it.

use std::fs;

use fleetloop_protocol::UnixMillis;
use fleetloop_protocol::hub_keys::{HUB_KEYS_TARGET, HubKey, HubKeyUse, HubKeys};
use fleetloop_protocol::keys::SigningKey;
use tempfile::TempDir;
use tough::TargetName;
use tough::schema::{Role, Root, Signed, Snapshot, Targets, Timestamp};

use super::*;

const NOW: UnixMillis = UnixMillis(1_800_000_000_000);
const DAY: u64 = 24 * 60 * 60 * 1000;

/// The first version of what is signed at [`NOW`]: its second.
const FIRST: u64 = NOW.0 / 1000;

struct Channel {
    base: TempDir,
    initial: InitialRelease,
    hub_keys_json: Vec<u8>,
}

impl Channel {
    fn new() -> Self {
        let base = tempfile::tempdir().unwrap();
        let key = SigningKey::from_pkcs8(&SigningKey::generate_pkcs8().unwrap()).unwrap();
        let hub_key = |usage| HubKey {
            public_key: key.public(),
            usage,
            not_before: NOW,
            not_after: UnixMillis(u64::MAX),
        };
        let keys =
            HubKeys { keys: vec![hub_key(HubKeyUse::Receipt), hub_key(HubKeyUse::Assignment)] };
        let (tuf, offline) = (base.path().join("data/tuf"), base.path().join("offline"));
        let hub_keys_json = serde_json::to_vec(&keys).unwrap();
        let own = [(HUB_KEYS_TARGET, hub_keys_json.clone())];
        let initial = init(&tuf, &offline, &own, NOW).unwrap();
        Self { base, initial, hub_keys_json }
    }

    fn tuf(&self) -> PathBuf {
        self.base.path().join("data/tuf")
    }

    fn read(&self, file: &str) -> Vec<u8> {
        fs::read(self.tuf().join("dev").join(file)).unwrap()
    }

    fn open(&self) -> Repository {
        Repository::open(&self.tuf()).unwrap()
    }
}

fn put(path: &Path, bytes: &[u8]) {
    crate::durable::write(path, bytes, crate::durable::Access::Everybody).unwrap();
}

/// The workflow of a device, on `tough::schema` alone: from the pinned root to the targets.
fn follow(channel: &Channel, pinned: Digest, now: UnixMillis) -> Result<Targets, String> {
    let text = |e: &dyn std::fmt::Display| e.to_string();
    let root_json = channel.read("1.root.json");
    if Digest::of(&root_json) != pinned {
        return Err("not the pinned root".into());
    }
    let root: Signed<Root> = serde_json::from_slice(&root_json).map_err(|e| text(&e))?;
    root.signed.verify_role(&root).map_err(|e| text(&e))?;
    let fresh = |expires: i64| {
        if u64::try_from(expires).unwrap() > now.0 { Ok(()) } else { Err("expired".to_owned()) }
    };
    fresh(root.signed.expires().as_millisecond())?;

    let timestamp: Signed<Timestamp> =
        serde_json::from_slice(&channel.read("timestamp.json")).map_err(|e| text(&e))?;
    root.signed.verify_role(&timestamp).map_err(|e| text(&e))?;
    fresh(timestamp.signed.expires().as_millisecond())?;

    let meta = &timestamp.signed.meta["snapshot.json"];
    let bytes = channel.read(&format!("{}.snapshot.json", meta.version));
    assert_eq!(meta.length, Some(bytes.len() as u64));
    assert_eq!(&meta.hashes.as_ref().unwrap().sha256[..], Digest::of(&bytes).as_bytes());
    let snapshot: Signed<Snapshot> = serde_json::from_slice(&bytes).map_err(|e| text(&e))?;
    root.signed.verify_role(&snapshot).map_err(|e| text(&e))?;
    fresh(snapshot.signed.expires().as_millisecond())?;

    let meta = &snapshot.signed.meta["targets.json"];
    let bytes = channel.read(&format!("{}.targets.json", meta.version));
    assert_eq!(&meta.hashes.as_ref().unwrap().sha256[..], Digest::of(&bytes).as_bytes());
    let targets: Signed<Targets> = serde_json::from_slice(&bytes).map_err(|e| text(&e))?;
    root.signed.verify_role(&targets).map_err(|e| text(&e))?;
    fresh(targets.signed.expires().as_millisecond())?;
    Ok(targets.signed)
}

fn digest_in(targets: &Targets, name: &str) -> Option<Digest> {
    metadata::digest_of(targets, &TargetName::new(name).unwrap())
}

#[test]
fn a_device_that_pinned_the_root_can_follow_what_the_hub_publishes() {
    let channel = Channel::new();
    let pinned = Digest::of(&root_json(&channel.tuf(), None).unwrap().unwrap());
    assert_eq!(pinned, channel.initial.root_digest);
    let targets = follow(&channel, pinned, NOW).unwrap();
    let keys = digest_in(&targets, HUB_KEYS_TARGET);
    assert_eq!(keys, Some(Digest::of(&channel.hub_keys_json)));
    let read: HubKeys = serde_json::from_slice(&channel.hub_keys_json).unwrap();
    assert_eq!(read.keys.len(), 2);

    let manifest = b"name = \"wear\"".to_vec();
    channel.open().publish("wear/1/bundle.toml", &manifest, NOW).unwrap();
    let targets = follow(&channel, pinned, NOW).unwrap();
    assert_eq!(digest_in(&targets, "wear/1/bundle.toml"), Some(Digest::of(&manifest)));
    assert_eq!(digest_in(&targets, HUB_KEYS_TARGET), keys);
    assert_eq!(
        follow(&channel, Digest::of(b"another hub"), NOW),
        Err("not the pinned root".into())
    );
}

#[tokio::test]
async fn toughs_own_client_accepts_the_repository_too() {
    let channel = Channel::new();
    let now = crate::clock::Clock::system().now();
    let mut repository = channel.open();
    repository.publish("wear/1/bundle.toml", b"manifest", now).unwrap();
    repository.refresh(now).unwrap();
    let dir = channel.tuf().join("dev");
    let url = |path: &Path| url::Url::from_directory_path(path).unwrap();
    let root = channel.initial.root_json.clone();
    let loader = tough::RepositoryLoader::new(&root, url(&dir), url(&dir.join("targets")))
        .expiration_enforcement(tough::ExpirationEnforcement::Unsafe);
    let loaded = loader.load().await.unwrap();
    let known: Vec<_> = loaded.all_targets().map(|(name, _)| name.raw().to_owned()).collect();
    assert_eq!(known.len(), 2, "{known:?}");
    // Of a name with folders `tough` looks for `<digest>.<folders>/<file>`, against the
    // specification (5.7.3), so the target without folders stands for both.
    let name = TargetName::new(HUB_KEYS_TARGET).unwrap();
    let stream = loaded.read_target(&name).await.unwrap().expect("the target");
    let bytes = tough::IntoVec::into_vec(stream).await.unwrap();
    assert_eq!(bytes, channel.hub_keys_json);
}

#[test]
fn a_released_target_never_changes() {
    let channel = Channel::new();
    let mut repository = channel.open();
    repository.publish("wear/1/bundle.toml", b"one", NOW).unwrap();
    let before = channel.read("timestamp.json");
    repository.publish("wear/1/bundle.toml", b"one", NOW).unwrap();
    let refused = repository.publish("wear/1/bundle.toml", b"two", NOW);
    assert!(matches!(refused, Err(ReleaseError::Taken { .. })), "{refused:?}");
    assert_eq!(channel.read("timestamp.json"), before);
}

#[test]
fn what_a_power_cut_leaves_is_the_old_channel_or_the_new_one() {
    let channel = Channel::new();
    let pinned = channel.initial.root_digest;
    let dev = channel.tuf().join("dev");
    let before = channel.read("timestamp.json");
    channel.open().publish("wear/1/bundle.toml", b"one", NOW).unwrap();
    // Cut before the timestamp was replaced: the new files are there, and nothing names them.
    put(&dev.join("timestamp.json"), &before);
    let old = follow(&channel, pinned, NOW).unwrap();
    assert_eq!(digest_in(&old, "wear/1/bundle.toml"), None);
    // Cut before the snapshot, and in the middle of writing it.
    let second = format!("{}.snapshot.json", FIRST + 1);
    fs::remove_file(dev.join(&second)).unwrap();
    put(&dev.join(format!(".{second}.new")), b"{");
    // The next start releases something else under the same numbers, and devices see it.
    let mut repository = channel.open();
    assert_eq!(repository.digest_of("wear/1/bundle.toml").unwrap(), None);
    repository.publish("wear/2/bundle.toml", b"two", NOW).unwrap();
    let new = follow(&channel, pinned, NOW).unwrap();
    assert_eq!(digest_in(&new, "wear/2/bundle.toml"), Some(Digest::of(b"two")));
    assert_eq!(digest_in(&new, "wear/1/bundle.toml"), None);
}

#[test]
fn metadata_is_signed_anew_when_a_third_of_its_life_is_left() {
    let channel = Channel::new();
    let pinned = channel.initial.root_digest;
    let mut repository = channel.open();
    assert!(!repository.refresh(UnixMillis(NOW.0 + DAY / 2)).unwrap());
    // Two thirds of a day: the timestamp. Five days: the snapshot. Sixty-one days: the targets.
    let mut versions = Vec::new();
    for later in [DAY * 2 / 3 + 2000, 5 * DAY, 61 * DAY] {
        let now = UnixMillis(NOW.0 + later);
        assert!(repository.refresh(now).unwrap());
        assert!(!repository.refresh(now).unwrap());
        follow(&channel, pinned, now).unwrap();
        let timestamp: Signed<Timestamp> =
            serde_json::from_slice(&channel.read("timestamp.json")).unwrap();
        let snapshot = timestamp.signed.meta["snapshot.json"].version.get();
        versions.push((timestamp.signed.version.get(), snapshot));
    }
    let [day, five, sixty] = [DAY * 2 / 3 + 2000, 5 * DAY, 61 * DAY].map(|ms| FIRST + ms / 1000);
    assert_eq!(versions, [(day, FIRST), (five, five), (sixty, sixty)]);
    let targets = repository.targets();
    drop(repository);
    assert_eq!(channel.open().targets(), targets);
    let late = UnixMillis(NOW.0 + 70 * DAY);
    assert_eq!(follow(&channel, pinned, late), Err("expired".into()));
}

#[test]
fn altered_metadata_is_not_opened() {
    let (snapshot, targets) = (format!("{FIRST}.snapshot.json"), format!("{FIRST}.targets.json"));
    for file in ["timestamp.json", &*snapshot, &*targets, "1.root.json"] {
        let channel = Channel::new();
        let path = channel.tuf().join("dev").join(file);
        let text = String::from_utf8(fs::read(&path).unwrap()).unwrap();
        // A later expiry, well-formed but not what was signed.
        let year = text.find("\"expires\": \"20").unwrap() + "\"expires\": \"".len();
        let altered = format!("{}2999{}", &text[..year], &text[year + 4..]);
        put(&path, altered.as_bytes());
        let opened = Repository::open(&channel.tuf());
        assert!(matches!(opened, Err(ReleaseError::Damaged { .. })), "{file}: {opened:?}");
    }
}

#[test]
fn the_root_key_is_offline_and_readable_by_its_owner_only() {
    use std::os::unix::fs::PermissionsExt as _;
    let channel = Channel::new();
    let data = channel.base.path().join("data");
    let key = channel.base.path().join("offline/dev-root.pk8");
    assert_eq!(fs::metadata(&key).unwrap().permissions().mode() & 0o777, 0o600);
    refuse_root_key_inside(&data).unwrap();
    fs::create_dir(data.join("usb")).unwrap();
    fs::copy(&key, data.join("usb/some-name")).unwrap();
    let refused = refuse_root_key_inside(&data);
    assert!(matches!(refused, Err(ReleaseError::RootKeyInside { .. })), "{refused:?}");
}

#[test]
fn a_key_is_never_overwritten() {
    let channel = Channel::new();
    let offline = channel.base.path().join("offline");
    let again = init(&channel.tuf(), &offline, &[], NOW);
    assert!(matches!(again, Err(ReleaseError::KeyExists { .. })), "{again:?}");
    assert_eq!(root_chain(&channel.tuf()).unwrap(), [channel.initial.root_json]);
}

#[test]
fn only_metadata_can_be_asked_for() {
    let path = |file| metadata_path(Path::new("/x"), file);
    for file in ["1.root.json", "12.snapshot.json", "3.targets.json", "timestamp.json"] {
        assert_eq!(path(file), Some(PathBuf::from("/x/dev").join(file)), "{file}");
    }
    for file in [
        "",
        "root.json",
        "0.root.json",
        "01.root.json",
        ".root.json",
        "1.mirrors.json",
        "x.root.json",
        "../keys/dev-targets.pk8",
        "1.root.json.new",
        "targets/a",
        "1..root.json",
        "-1.root.json",
    ] {
        assert_eq!(path(file), None, "{file}");
    }
}

#[test]
fn a_target_is_a_plain_relative_path() {
    let channel = Channel::new();
    let mut repository = channel.open();
    for name in ["", "..", "../x", "/etc/x", "a/../b", "a//b", "./a"] {
        let refused = repository.publish(name, b"x", NOW);
        assert!(matches!(refused, Err(ReleaseError::Name { .. })), "{name}: {refused:?}");
    }
}
