//! Each attack of the specification's section 1.5.2, with the exact refusal.

use fleetloop_protocol::Digest;
use tough::schema::{Signed, Snapshot, Targets, Timestamp};

use super::testing::{ChannelKeys, Edition, Files, LATER, NOW, PAST, publish, sign, target};
use super::{TrustedState, TufError, Walk, verify};

struct Channel {
    keys: ChannelKeys,
    root: Vec<u8>,
    trusted: TrustedState,
}

fn channel() -> Channel {
    let keys = ChannelKeys::new();
    let root = sign(keys.root(1, LATER), &[&keys.root]);
    let trusted = TrustedState::begin(&root, Digest::of(&root)).unwrap();
    Channel { keys, root, trusted }
}

impl Channel {
    async fn edition(&self, version: u64) -> Files {
        self.publish(Edition::of(version)).await
    }

    async fn publish(&self, edition: Edition<'_>) -> Files {
        publish(&self.keys, &self.root, edition, &[("wear/1/bundle.toml", b"manifest")]).await
    }
}

fn refused(trusted: &TrustedState, files: &Files) -> TufError {
    verify(trusted, files, NOW).expect_err("must be refused")
}

/// The role in `file`, changed, and signed again by `key`.
fn resign<T>(
    files: &Files,
    file: &str,
    key: &super::testing::TestKey,
    change: impl FnOnce(&mut T),
) -> Vec<u8>
where
    T: tough::schema::Role + serde::Serialize + serde::de::DeserializeOwned,
{
    let mut role = serde_json::from_slice::<Signed<T>>(&files[file]).unwrap().signed;
    change(&mut role);
    sign(role, &[key])
}

#[tokio::test]
async fn a_new_device_walks_from_its_pinned_root_to_the_targets() {
    let channel = channel();
    let fresh = verify(&channel.trusted, &channel.edition(3).await, NOW).unwrap();
    assert_eq!(fresh.trusted().versions(), [1, 3, 3, 3]);
    let found = fresh.target("wear/1/bundle.toml").unwrap();
    assert_eq!((found.len_bytes, found.sha256), (8, Digest::of(b"manifest")));
    assert!(matches!(fresh.target("wear/2/bundle.toml"), Err(TufError::NoTarget { .. })));
}

#[tokio::test]
async fn a_refresh_without_news_fetches_a_root_and_a_timestamp_only() {
    let channel = channel();
    let files = channel.edition(1).await;
    let trusted = verify(&channel.trusted, &files, NOW).unwrap().trusted().clone();
    let only: Files = files.into_iter().filter(|(name, _)| name == "timestamp.json").collect();
    assert_eq!(verify(&trusted, &only, NOW).unwrap().trusted().versions(), [1, 1, 1, 1]);
}

#[test]
fn a_root_other_than_the_pinned_one_is_refused() {
    let (ours, theirs) = (channel(), channel());
    let error = TrustedState::begin(&theirs.root, Digest::of(&ours.root)).unwrap_err();
    assert!(matches!(error, TufError::RootPin { .. }), "{error}");
    let unsigned = sign(ours.keys.root(1, LATER), &[&theirs.keys.root]);
    let error = TrustedState::begin(&unsigned, Digest::of(&unsigned)).unwrap_err();
    assert!(matches!(error, TufError::Signature { root_version: 1, .. }), "{error}");
}

#[tokio::test]
async fn expired_metadata_is_refused_by_the_name_of_its_file() {
    let channel = channel();
    let good = Edition::of(1);
    for (edition, file) in [
        (Edition { timestamp_expires: PAST, ..good }, "timestamp.json"),
        (Edition { snapshot_expires: PAST, ..good }, "1.snapshot.json"),
        (Edition { targets_expires: PAST, ..good }, "1.targets.json"),
    ] {
        let error = refused(&channel.trusted, &channel.publish(edition).await);
        assert!(
            matches!(&error, TufError::Expired { file: f, now, .. } if f == file && *now == NOW),
            "{error}"
        );
    }
    let root = sign(channel.keys.root(1, PAST), &[&channel.keys.root]);
    let trusted = TrustedState::begin(&root, Digest::of(&root)).unwrap();
    let error = refused(&trusted, &channel.edition(1).await);
    assert!(matches!(&error, TufError::Expired { file, .. } if file == "1.root.json"), "{error}");
}

#[tokio::test]
async fn metadata_that_was_good_expires_in_the_device_too() {
    let channel = channel();
    let files = channel.edition(1).await;
    let trusted = verify(&channel.trusted, &files, NOW).unwrap().trusted().clone();
    let two_years = fleetloop_protocol::UnixMillis(NOW.0 + 2 * 365 * 86_400_000);
    let error = verify(&trusted, &files, two_years).unwrap_err();
    assert!(matches!(error, TufError::Expired { .. }), "{error}");
}

#[tokio::test]
async fn a_role_signed_by_another_roles_key_is_refused() {
    let channel = channel();
    let keys = &channel.keys;
    let mut files = channel.edition(1).await;
    // The snapshot key is online too; it must not speak for the timestamp.
    let forged = resign::<Timestamp>(&files, "timestamp.json", &keys.snapshot, |_| {});
    files.insert("timestamp.json".into(), forged);
    let error = refused(&channel.trusted, &files);
    assert!(
        matches!(&error, TufError::Signature { file, .. } if file == "timestamp.json"),
        "{error}"
    );
}

#[tokio::test]
async fn targets_signed_with_online_keys_only_are_refused() {
    let channel = channel();
    let keys = &channel.keys;
    let mut files = channel.edition(1).await;
    // Someone who holds timestamp and snapshot makes a consistent chain over targets of their own.
    let evil = resign::<Targets>(&files, "1.targets.json", &keys.snapshot, |targets| {
        targets.add_target("wear/1/bundle.toml".try_into().unwrap(), target(b"evil"));
    });
    let snapshot = resign::<Snapshot>(&files, "1.snapshot.json", &keys.snapshot, |snapshot| {
        let meta = snapshot.meta.get_mut("targets.json").unwrap();
        (meta.length, meta.hashes) = (None, None);
    });
    let timestamp = resign::<Timestamp>(&files, "timestamp.json", &keys.timestamp, |timestamp| {
        let meta = timestamp.meta.get_mut("snapshot.json").unwrap();
        (meta.length, meta.hashes) = (None, None);
    });
    files.insert("1.targets.json".into(), evil);
    files.insert("1.snapshot.json".into(), snapshot);
    files.insert("timestamp.json".into(), timestamp);
    let error = refused(&channel.trusted, &files);
    assert!(
        matches!(&error, TufError::Signature { file, .. } if file == "1.targets.json"),
        "{error}"
    );
}

#[tokio::test]
async fn altered_bytes_are_refused_before_they_are_parsed() {
    let channel = channel();
    for (file, named) in
        [("1.snapshot.json", "timestamp.json"), ("1.targets.json", "snapshot.json")]
    {
        let mut files = channel.edition(1).await;
        let bytes = files.get_mut(file).unwrap();
        let last = bytes.len() - 1;
        bytes[last] = b'!';
        let error = refused(&channel.trusted, &files);
        assert!(
            matches!(&error, TufError::Hash { file: f, named_by } if f == file && *named_by == named),
            "{error}"
        );
    }
}

#[tokio::test]
async fn versions_never_go_back() {
    let channel = channel();
    let keys = &channel.keys;
    let (old, new) = (channel.edition(4).await, channel.edition(5).await);
    let trusted = verify(&channel.trusted, &new, NOW).unwrap().trusted().clone();

    let error = refused(&trusted, &old);
    let back = |e: &TufError, name: &str| matches!(e, TufError::Rollback { file, found: 4, trusted: 5 } if file == name);
    assert!(back(&error, "timestamp.json"), "{error}");

    // A newer timestamp that names the older snapshot.
    let mut files = old.clone();
    let timestamp = resign::<Timestamp>(&old, "timestamp.json", &keys.timestamp, |timestamp| {
        timestamp.version = 6.try_into().unwrap();
    });
    files.insert("timestamp.json".into(), timestamp);
    let error = refused(&trusted, &files);
    assert!(back(&error, "snapshot.json"), "{error}");

    // A newer timestamp and snapshot that name the older targets.
    let snapshot = resign::<Snapshot>(&old, "4.snapshot.json", &keys.snapshot, |snapshot| {
        snapshot.version = 6.try_into().unwrap();
    });
    let timestamp = resign::<Timestamp>(&old, "timestamp.json", &keys.timestamp, |timestamp| {
        timestamp.version = 6.try_into().unwrap();
        let meta = timestamp.meta.get_mut("snapshot.json").unwrap();
        meta.version = 6.try_into().unwrap();
        (meta.length, meta.hashes) = (None, None);
    });
    files.insert("6.snapshot.json".into(), snapshot);
    files.insert("timestamp.json".into(), timestamp);
    let error = refused(&trusted, &files);
    assert!(back(&error, "targets.json"), "{error}");
}

#[tokio::test]
async fn a_mixture_of_two_editions_is_refused() {
    let channel = channel();
    let keys = &channel.keys;
    let (one, two) = (channel.edition(1).await, channel.edition(2).await);
    let mut files = two.clone();
    files.insert("2.targets.json".into(), one["1.targets.json"].clone());
    let error = refused(&channel.trusted, &files);
    assert!(matches!(&error, TufError::Hash { file, .. } if file == "2.targets.json"), "{error}");

    // The same where the metadata names no digests: the version tells.
    let timestamp = resign::<Timestamp>(&two, "timestamp.json", &keys.timestamp, |timestamp| {
        let meta = timestamp.meta.get_mut("snapshot.json").unwrap();
        (meta.length, meta.hashes) = (None, None);
    });
    files.insert("timestamp.json".into(), timestamp);
    files.insert("2.snapshot.json".into(), one["1.snapshot.json"].clone());
    let error = refused(&channel.trusted, &files);
    assert!(
        matches!(&error, TufError::Version { file, found: 1, expected: 2 } if file == "2.snapshot.json"),
        "{error}"
    );
}

#[tokio::test]
async fn a_root_needs_the_old_keys_and_its_own() {
    let channel = channel();
    let next = ChannelKeys::new();
    for signers in [vec![&next.root], vec![&channel.keys.root]] {
        let root = sign(next.root(2, LATER), &signers);
        let files = Files::from([("2.root.json".into(), root)]);
        let error = refused(&channel.trusted, &files);
        assert!(
            matches!(&error, TufError::Signature { file, .. } if file == "2.root.json"),
            "{error}"
        );
    }
    let root = sign(next.root(2, LATER), &[&next.root, &channel.keys.root]);
    let files = publish(&next, &root, Edition::of(1), &[]).await;
    let fresh = verify(&channel.trusted, &files, NOW).unwrap();
    assert_eq!(fresh.trusted().versions(), [2, 1, 1, 1]);
}

#[tokio::test]
async fn a_missing_step_in_the_chain_of_roots_is_refused() {
    let channel = channel();
    let (second, third) = (ChannelKeys::new(), ChannelKeys::new());
    let root2 = sign(second.root(2, LATER), &[&channel.keys.root, &second.root]);
    let root3 = sign(third.root(3, LATER), &[&second.root, &third.root]);
    let mut files = publish(&third, &root3, Edition::of(1), &[]).await;
    // Root 2 is withheld: the device stays with root 1, whose keys did not sign what follows.
    let error = refused(&channel.trusted, &files);
    assert!(
        matches!(&error, TufError::Signature { file, root_version: 1, .. } if file == "timestamp.json"),
        "{error}"
    );
    // Root 3 in the place of root 2, properly signed by the old keys: the number gives it away.
    let skipped = sign(third.root(3, LATER), &[&channel.keys.root, &third.root]);
    files.insert("2.root.json".into(), skipped);
    let error = refused(&channel.trusted, &files);
    assert!(matches!(error, TufError::Version { found: 3, expected: 2, .. }), "{error}");
    files.insert("2.root.json".into(), root2);
    assert_eq!(verify(&channel.trusted, &files, NOW).unwrap().trusted().versions()[0], 3);
}

#[tokio::test]
async fn a_fast_forward_by_a_stolen_key_is_undone_by_rotating_it() {
    let mut channel = channel();
    let far = channel.edition(4_000_000_000).await;
    let trusted = verify(&channel.trusted, &far, NOW).unwrap().trusted().clone();
    let error = refused(&trusted, &channel.edition(2).await);
    assert!(matches!(error, TufError::Rollback { found: 2, .. }), "{error}");

    channel.keys.timestamp = super::testing::TestKey::new();
    channel.keys.snapshot = super::testing::TestKey::new();
    channel.root = sign(channel.keys.root(2, LATER), &[&channel.keys.root]);
    let fresh = verify(&trusted, &channel.edition(2).await, NOW).unwrap();
    assert_eq!(fresh.trusted().versions(), [2, 2, 2, 2]);
}

#[tokio::test]
async fn a_device_that_was_away_walks_over_roots_that_ended_to_one_that_has_not() {
    let channel = channel();
    let before = verify(&channel.trusted, &channel.edition(5).await, NOW).unwrap();
    let trusted = before.trusted().clone();
    // Renewed, its root key rotated, its other keys rotated one by one, renewed: all but the last
    // ended while the device was away.
    let mut keys = channel.keys;
    let root2 = sign(keys.root(2, PAST), &[&keys.root]);
    let old = std::mem::replace(&mut keys.root, super::testing::TestKey::new());
    let root3 = sign(keys.root(3, PAST), &[&old, &keys.root]);
    keys.targets = super::testing::TestKey::new();
    let root4 = sign(keys.root(4, PAST), &[&keys.root]);
    keys.timestamp = super::testing::TestKey::new();
    keys.snapshot = super::testing::TestKey::new();
    let root5 = sign(keys.root(5, PAST), &[&keys.root]);
    let root6 = sign(keys.root(6, LATER), &[&keys.root]);
    // Versions jump: they are seconds, and the keys that signed the older ones are gone.
    let mut files = publish(&keys, &root6, Edition::of(1_767_225_600), &[]).await;
    for (version, root) in [(2, root2), (3, root3), (4, root4), (5, root5)] {
        files.insert(format!("{version}.root.json"), root);
    }
    let fresh = verify(&trusted, &files, NOW).unwrap();
    let version = 1_767_225_600;
    assert_eq!(fresh.trusted().versions(), [6, version, version, version]);
    // Without the last one the newest root has ended, and nothing is installed by it.
    files.remove("6.root.json");
    let error = refused(&trusted, &files);
    assert!(matches!(&error, TufError::Expired { file, .. } if file == "5.root.json"), "{error}");
}

#[tokio::test]
async fn a_file_over_its_limit_is_refused_unread() {
    let channel = channel();
    let good = channel.edition(1).await;
    let huge = vec![b' '; 300 * 1024];
    for (file, limit) in [("2.root.json", 256 * 1024), ("timestamp.json", 16 * 1024)] {
        let mut files = good.clone();
        files.insert(file.into(), huge.clone());
        let error = refused(&channel.trusted, &files);
        assert!(
            matches!(&error, TufError::TooLarge { file: f, limit: l } if f == file && *l == limit),
            "{error}"
        );
    }
    // The length that the file before it names is a limit as well.
    let mut files = good.clone();
    files.get_mut("1.targets.json").unwrap().push(b'\n');
    let error = refused(&channel.trusted, &files);
    assert!(
        matches!(&error, TufError::TooLarge { file, .. } if file == "1.targets.json"),
        "{error}"
    );
}

#[tokio::test]
async fn a_delegation_is_refused() {
    let channel = channel();
    let keys = &channel.keys;
    let mut files = channel.edition(1).await;
    let mut value: serde_json::Value = serde_json::from_slice(&files["1.targets.json"]).unwrap();
    value["signed"]["delegations"] = serde_json::json!({
        "keys": {},
        "roles": [{ "name": "other", "keyids": [], "threshold": 1, "paths": ["*"], "terminating": false }],
    });
    let targets: Targets = serde_json::from_value(value["signed"].clone()).unwrap();
    files.insert("1.targets.json".into(), sign(targets, &[&keys.targets]));
    let snapshot = resign::<Snapshot>(&files, "1.snapshot.json", &keys.snapshot, |snapshot| {
        let meta = snapshot.meta.get_mut("targets.json").unwrap();
        (meta.length, meta.hashes) = (None, None);
    });
    files.insert("1.snapshot.json".into(), snapshot);
    let timestamp = resign::<Timestamp>(&files, "timestamp.json", &keys.timestamp, |timestamp| {
        let meta = timestamp.meta.get_mut("snapshot.json").unwrap();
        (meta.length, meta.hashes) = (None, None);
    });
    files.insert("timestamp.json".into(), timestamp);
    let error = refused(&channel.trusted, &files);
    assert!(matches!(error, TufError::Unsupported { what: "delegation", .. }), "{error}");
}

#[tokio::test]
async fn what_was_verified_before_a_failure_still_keeps_older_metadata_out() {
    let channel = channel();
    let mut files = channel.edition(9).await;
    files.remove("9.snapshot.json");
    let mut walk = Walk::new(channel.trusted.clone(), NOW);
    let error = loop {
        match walk.want().unwrap() {
            Some(want) => {
                if let Err(error) = walk.take(files.get(&want.file).cloned()) {
                    break error;
                }
            }
            None => panic!("the snapshot is missing"),
        }
    };
    assert!(matches!(&error, TufError::Missing { file } if file == "9.snapshot.json"), "{error}");
    let kept = walk.trusted().clone();
    assert!(walk.finish().is_err(), "an unfinished walk proves nothing");
    let error = refused(&kept, &channel.edition(8).await);
    assert!(matches!(error, TufError::Rollback { found: 8, trusted: 9, .. }), "{error}");
}

/// What a fuzz target's input is, see `fuzz/src/metadata.rs`.
fn input(root: &[u8], answers: &[&[u8]]) -> Vec<u8> {
    std::iter::once(root).chain(answers.iter().copied()).collect::<Vec<_>>().join(&b"\n--\n"[..])
}

#[tokio::test]
#[ignore = "writes fuzz/seeds/metadata with new keys; run by hand when the seeds change"]
async fn the_fuzzers_seeds_are_written() {
    let channel = channel();
    let files = channel.edition(1).await;
    let [timestamp, snapshot, targets] =
        ["timestamp.json", "1.snapshot.json", "1.targets.json"].map(|name| files[name].as_slice());
    let next = sign(channel.keys.root(2, LATER), &[&channel.keys.root]);
    let last = sign(channel.keys.root(u64::MAX, LATER), &[&channel.keys.root]);
    let other = ChannelKeys::new();
    let stranger = sign(other.root(2, LATER), &[&other.root]);
    let expired = channel.publish(Edition { targets_expires: PAST, ..Edition::of(1) }).await;
    let late = ["timestamp.json", "1.snapshot.json", "1.targets.json"];
    let late = late.map(|name| expired[name].as_slice());
    let folder = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../fuzz/seeds/metadata");
    for (name, root, answers) in [
        ("three-roles", &channel.root, vec![b"".as_slice(), timestamp, snapshot, targets]),
        ("second-root", &channel.root, vec![&next, b"", timestamp, snapshot, targets]),
        ("refused-last-root-there-can-be", &last, vec![last.as_slice(); 3]),
        ("refused-root-of-a-stranger", &channel.root, vec![stranger.as_slice(), b"", timestamp]),
        ("refused-expired-targets", &channel.root, vec![b"".as_slice(), late[0], late[1], late[2]]),
        ("refused-nothing-but-a-root", &channel.root, vec![]),
        ("refused-snapshot-for-a-timestamp", &channel.root, vec![b"".as_slice(), snapshot]),
    ] {
        crate::durable::write(&folder.join(name), &input(root, &answers)).unwrap();
    }
}

#[test]
fn the_last_root_version_there_can_be_has_no_next_one_and_ends_no_process() {
    let keys = ChannelKeys::new();
    let root = sign(keys.root(u64::MAX, LATER), &[&keys.root]);
    let trusted = TrustedState::begin(&root, Digest::of(&root)).unwrap();
    assert!(matches!(Walk::new(trusted, NOW).want(), Err(TufError::TooManyRoots { .. })));
}
