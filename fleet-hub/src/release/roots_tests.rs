//! Renewing and rotating what the root key signs, and what each cut leaves.

use std::fs;
use std::path::PathBuf;

use fleetloop_protocol::UnixMillis;
use tempfile::TempDir;
use tough::schema::{RoleType, Root, Signed};

use super::medium::Medium;
use super::*;

const NOW: UnixMillis = UnixMillis(1_800_000_000_000);
const DAY: u64 = 24 * 60 * 60 * 1000;

/// A channel and the medium with its root key.
struct Channel {
    base: TempDir,
}

impl Channel {
    fn new() -> Self {
        let channel = Self { base: tempfile::tempdir().unwrap() };
        init(&channel.tuf(), &channel.offline(), &[("own.json", b"{}".to_vec())], NOW).unwrap();
        channel
    }

    fn tuf(&self) -> PathBuf {
        self.base.path().join("data/tuf")
    }

    fn offline(&self) -> PathBuf {
        self.base.path().join("offline")
    }

    fn medium(&self) -> Medium {
        Medium::open(&self.offline()).unwrap()
    }

    fn chain(&self) -> Vec<Vec<u8>> {
        root_chain(&self.tuf()).unwrap()
    }

    /// What the command does, up to handing over.
    fn sign(&self, rotate: Option<RoleType>, now: UnixMillis) -> Vec<u8> {
        let (medium, chain) = (self.medium(), self.chain());
        assert!(medium.meet(&chain).unwrap().is_empty());
        let keys = match rotate {
            Some(role) if role != RoleType::Root => {
                vec![(role, next_online_key(&self.tuf(), role).unwrap())]
            }
            _ => vec![],
        };
        medium.sign_next(&chain, keys, rotate == Some(RoleType::Root), now).unwrap()
    }

    /// All of it.
    fn next_root(&self, rotate: Option<RoleType>, now: UnixMillis) {
        let root = self.sign(rotate, now);
        accept_root(&self.tuf(), &root, now).unwrap();
        self.medium().meet(&self.chain()).unwrap();
    }

    fn publish(&self, name: &str, now: UnixMillis) {
        let mut repository = Repository::open(&self.tuf()).unwrap();
        repository.publish(name, name.as_bytes(), now).unwrap();
    }

    fn offline_files(&self) -> Vec<String> {
        let entries = fs::read_dir(self.offline()).unwrap();
        let mut names: Vec<String> =
            entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
        names.sort();
        names
    }
}

fn refused(channel: &Channel, root: &[u8], now: UnixMillis) -> String {
    match accept_root(&channel.tuf(), root, now) {
        Err(ReleaseError::NotNextRoot { reason }) => reason,
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_renewed_root_lasts_three_years_more_and_names_the_same_keys() {
    let channel = Channel::new();
    let later = UnixMillis(NOW.0 + 1000 * DAY);
    channel.next_root(None, later);
    let [first, second] = channel.chain().try_into().unwrap();
    let read = |bytes: &[u8]| serde_json::from_slice::<Signed<Root>>(bytes).unwrap().signed;
    let (first, second) = (read(&first), read(&second));
    assert_eq!((second.version.get(), &second.keys), (2, &first.keys));
    let ends = u64::try_from(second.expires.as_millisecond()).unwrap();
    assert_eq!(ends, later.0 + 3 * 365 * DAY);
    channel.publish("wear/1/bundle.toml", later);
}

#[test]
fn every_role_is_rotated_and_the_channel_goes_on() {
    let channel = Channel::new();
    let roles = [RoleType::Targets, RoleType::Snapshot, RoleType::Timestamp, RoleType::Root];
    for (at, role) in (1..).zip(roles) {
        let now = UnixMillis(NOW.0 + at * DAY);
        channel.next_root(Some(role), now);
        channel.publish(&format!("wear/{at}/bundle.toml"), now);
    }
    assert_eq!(channel.chain().len(), 5);
    assert_eq!(Repository::open(&channel.tuf()).unwrap().targets().len(), 5);
    let keys = fs::read_dir(channel.tuf().join("keys")).unwrap().count();
    assert_eq!(keys, 3, "the keys before are gone");
}

#[test]
fn a_root_that_devices_would_refuse_is_not_taken() {
    let channel = Channel::new();
    let other = Channel::new();
    let good = channel.sign(None, NOW);
    assert!(refused(&channel, &other.sign(None, NOW), NOW).contains("does not trust"));
    let text = String::from_utf8(good.clone()).unwrap();
    let altered = text.replace("\"version\": 2", "\"version\": 3");
    assert!(refused(&channel, altered.as_bytes(), NOW).contains("version 3, not 2"));
    assert!(refused(&channel, b"{}", NOW).contains("no root"));
    assert!(refused(&channel, &vec![b' '; ROOT_BYTES + 1], NOW).contains("at most"));
    // Signed where the clock was years behind, or ahead.
    let (long_ago, far) = (UnixMillis(NOW.0 - 1090 * DAY), UnixMillis(NOW.0 + 3650 * DAY));
    assert!(refused(&channel, &channel.sign(None, long_ago), NOW).contains("check the clocks"));
    assert!(refused(&channel, &channel.sign(None, far), NOW).contains("check the clocks"));
    assert_eq!(channel.chain().len(), 1);
    accept_root(&channel.tuf(), &good, NOW).unwrap();
    accept_root(&channel.tuf(), &good, NOW).unwrap();
    assert_eq!(channel.chain().len(), 2, "the same one again is one");
}

#[test]
fn a_root_that_names_a_key_this_hub_does_not_hold_is_not_taken() {
    let channel = Channel::new();
    let root = channel.sign(Some(RoleType::Targets), NOW);
    fs::remove_file(channel.tuf().join("keys/dev-targets.next.pk8")).unwrap();
    assert!(refused(&channel, &root, NOW).contains("targets key"));
}

#[test]
fn a_cut_between_the_new_root_and_what_its_keys_sign_is_mended_by_the_next_start() {
    let channel = Channel::new();
    let root = channel.sign(Some(RoleType::Targets), NOW);
    // The cut: the root is in place, nothing is signed by the new key.
    let second = channel.tuf().join("dev/2.root.json");
    crate::durable::write(&second, &root, crate::durable::Access::Everybody).unwrap();
    let mut repository = Repository::open(&channel.tuf()).unwrap();
    assert!(repository.refresh(NOW).unwrap());
    drop(repository);
    channel.publish("wear/1/bundle.toml", NOW);
}

#[test]
fn a_lost_online_key_is_named_and_mended_by_a_rotation() {
    let channel = Channel::new();
    fs::remove_file(channel.tuf().join("keys/dev-timestamp.pk8")).unwrap();
    let opened = Repository::open(&channel.tuf());
    assert!(matches!(opened, Err(ReleaseError::KeyLost { role: RoleType::Timestamp, .. })));
    channel.next_root(Some(RoleType::Timestamp), NOW);
    channel.publish("wear/1/bundle.toml", NOW);
}

#[test]
fn each_cut_of_a_rotation_of_the_root_key_is_finished_by_the_next_attempt() {
    let channel = Channel::new();
    // Cut after the next key was made and the root signed: the hub has nothing of it.
    channel.sign(Some(RoleType::Root), NOW);
    assert!(channel.offline_files().contains(&"dev-root.next.pk8".to_owned()));
    // Cut after the hub took it: the next key is not in its place yet.
    let root = channel.sign(Some(RoleType::Root), NOW);
    accept_root(&channel.tuf(), &root, NOW).unwrap();
    // Cut between the two renames.
    let offline = channel.offline();
    fs::rename(offline.join("dev-root.pk8"), offline.join("dev-root.before-2.pk8")).unwrap();
    channel.next_root(None, NOW);
    assert_eq!(channel.chain().len(), 3);
    let files = ["dev-1.root.json", "dev-2.root.json", "dev-3.root.json"];
    let expected: Vec<&str> =
        files.into_iter().chain(["dev-root.before-2.pk8", "dev-root.pk8"]).collect();
    assert_eq!(channel.offline_files(), expected);
    // A medium with the key before is of no use any more, and says so.
    fs::rename(offline.join("dev-root.before-2.pk8"), offline.join("dev-root.pk8")).unwrap();
    let refused = channel.medium().sign_next(&channel.chain(), vec![], false, NOW);
    assert!(refused.unwrap_err().to_string().contains("medium of the last rotation"));
}

#[test]
fn a_hub_restored_from_before_a_rotation_gets_its_roots_from_the_medium() {
    let channel = Channel::new();
    channel.next_root(Some(RoleType::Root), NOW);
    channel.next_root(None, NOW);
    let newest = channel.chain();
    for version in [2, 3] {
        fs::remove_file(channel.tuf().join(format!("dev/{version}.root.json"))).unwrap();
    }
    let lacking = channel.medium().meet(&channel.chain()).unwrap();
    assert_eq!(lacking, newest[1..]);
    for root in lacking {
        accept_root(&channel.tuf(), &root, NOW).unwrap();
    }
    assert_eq!(channel.chain(), newest);
    let stranger = Channel::new();
    let error = channel.medium().meet(&stranger.chain()).unwrap_err();
    assert!(error.to_string().contains("different hubs"), "{error}");
}

#[test]
fn a_restored_hub_signs_versions_above_those_its_devices_have_seen() {
    let channel = Channel::new();
    let backup = fs::read(channel.tuf().join("dev/timestamp.json")).unwrap();
    for at in 1..=8 {
        channel.publish(&format!("wear/{at}/bundle.toml"), UnixMillis(NOW.0 + at * DAY));
    }
    let seen = Repository::open(&channel.tuf()).unwrap().ends()[1].1;
    // What the backup's timestamp leads to is what the restored hub has.
    let timestamp = channel.tuf().join("dev/timestamp.json");
    crate::durable::write(&timestamp, &backup, crate::durable::Access::Everybody).unwrap();
    channel.publish("wear/9/bundle.toml", UnixMillis(NOW.0 + 9 * DAY));
    assert!(Repository::open(&channel.tuf()).unwrap().ends()[1].1 > seen);
}

#[test]
fn only_the_newest_versions_are_kept_however_far_apart_they_are() {
    let channel = Channel::new();
    for at in 1..=40 {
        channel.publish(&format!("wear/{at}/bundle.toml"), UnixMillis(NOW.0 + at * DAY));
    }
    let names = fs::read_dir(channel.tuf().join("dev")).unwrap();
    let kept = names.filter(|entry| {
        entry.as_ref().unwrap().file_name().to_string_lossy().ends_with(".targets.json")
    });
    assert_eq!(kept.count(), 32);
}
