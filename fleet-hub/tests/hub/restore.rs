//! A hub that comes back from a backup older than its fleet: followed again at once, and it learns what
//! it forgot. One real agent, two devices of this test, one hub, restored by the command's own code.

use std::path::{Path, PathBuf};
use std::time::Duration;

use edge_agent::clock::Clock as DeviceClock;
use edge_agent::enroll;
use fleet_hub::backup::restore::{RestoreOptions, restore};
use fleet_hub::clock::Clock;
use fleet_hub::config::Config;
use fleet_hub::release::Repository;
use fleet_hub::store::{findings, strangers};
use fleetloop_models::picture::{Channels, Frame};

use fleetloop_protocol::api::ApiAccess;
use fleetloop_protocol::revoked::{NewerList, REVOKED_TARGET, RevokedList};
use fleetloop_protocol::topic::{Kind, Topic};
use fleetloop_protocol::{DeviceId, Digest};

use crate::device::{Device, PATIENCE};
use crate::month::agent::Agent;
use crate::month::until;
use crate::rig::Rig;

/// Room in the outbox: more than is ever signed here.
const ROWS: u64 = 1000;

/// Takes a backup over HTTPS with the access that may.
async fn backup(rig: &Rig, to: &Path) -> PathBuf {
    let text = std::fs::read_to_string(rig.config.paths.data.join("backup.toml")).unwrap();
    let access: ApiAccess = toml::from_str(&text).unwrap();
    let url = format!("{}/api/v1/backup?with_payloads=true", access.url);
    let answer = rig.http().get(url).bearer_auth(access.token).send().await.unwrap();
    assert_eq!(answer.status(), 200);
    let file = to.join("hub.tar.age");
    edge_agent::durable::write(&file, &answer.bytes().await.unwrap()).unwrap();
    file
}

/// The machine is gone; another folder, the same addresses.
async fn come_back(rig: &mut Rig, archive: PathBuf) {
    rig.stop().await;
    // Versions of metadata are seconds: a machine is not replaced within one.
    tokio::time::sleep(Duration::from_secs(3)).await;
    let data = rig.dir.path().join("restored");
    let key = rig.dir.path().join("offline").join("backup.key");
    let options = RestoreOptions { archive, key, data: data.clone() };
    let restored = restore(&options, &Clock::system(), |_| ()).await.unwrap();
    assert_eq!((restored.payloads_missing, restored.artefacts_missing.len()), (0, 0));
    std::fs::remove_dir_all(&rig.config.paths.data).unwrap();
    let limits = rig.config.limits.clone();
    rig.config = Config { limits, ..Config::load(&data).unwrap() };
    rig.serve().await;
}

/// The status of what a device asks of the device listener: 404 for one that is enrolled, for there is
/// no such artefact, and 403 for any other.
async fn asks(rig: &Rig, device: &Device) -> u16 {
    let url = format!("{}/artefacts/{}", rig.config.device_url(), Digest::ZERO);
    device.http().get(url).send().await.unwrap().status().as_u16()
}

/// Whether the hub publishes that `device` is revoked.
fn published(rig: &Rig, device: &DeviceId) -> bool {
    let repository = Repository::open(&rig.config.paths.tuf()).unwrap();
    let list: RevokedList =
        serde_json::from_slice(&repository.read_own(REVOKED_TARGET).unwrap()).unwrap();
    list.devices.contains_key(device)
}

/// Whether the agent in `dir` keeps a list with `device` on it.
fn kept(dir: &Path, device: &DeviceId) -> bool {
    let Ok(bytes) = std::fs::read(dir.join("tuf/revoked-list.json")) else { return false };
    let kept: NewerList = serde_json::from_slice(&bytes).unwrap();
    let list: RevokedList = serde_json::from_str(&kept.list).unwrap();
    list.devices.contains_key(device)
}

async fn until_it_is_answered(rig: &Rig, device: &Device, status: u16) {
    let waiting = async {
        while asks(rig, device).await != status {
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    };
    tokio::time::timeout(PATIENCE, waiting).await.unwrap_or_else(|_| panic!("never {status}"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_hub_restored_from_an_older_backup_is_followed_again_and_learns_what_it_forgot() {
    let mut rig = Rig::start().await;
    let dir = tempfile::tempdir().unwrap();
    let clock = || DeviceClock::system(dir.path().join("clock.json")).unwrap();
    enroll::enroll_at(&rig.token().await, dir.path(), &clock()).await.unwrap();
    Agent::install(dir.path());
    let start = || Agent::start(dir.path(), clock(), ROWS);
    let mut agent = start();
    agent.answers(3).await;
    agent.has_arrived().await;
    let revoked_later = rig.enrol().await;
    let archive = backup(&rig, rig.dir.path()).await;

    // After the backup: three samples, a device enrols, another is revoked, and the agent hears of it.
    agent.answers(2).await;
    agent.has_arrived().await;
    let enrolled_later = rig.enrol().await;
    rig.revoke(&revoked_later.id).await;
    until_it_is_answered(&rig, &revoked_later, 403).await;
    agent.stop().await;
    until("the revocation is published", || published(&rig, &revoked_later.id)).await;
    let mut agent = start();
    // Its model has to answer a frame before it looks at releases.
    agent.answers(1).await;
    agent.has_arrived().await;
    until("the agent keeps the list", || kept(dir.path(), &revoked_later.id)).await;
    agent.stop().await;

    come_back(&mut rig, archive).await;
    assert_eq!(rig.count("SELECT count(*) FROM sample"), 3);
    assert_eq!(asks(&rig, &revoked_later).await, 404, "the backup does not know better");
    let mut agent = start();
    agent.answers(1).await;
    agent.has_arrived().await;
    assert_eq!(rig.count("SELECT count(*) FROM sample"), 4, "the agent follows the restored hub");

    // The agent shows the newer list: nobody gets in who was shut out.
    until_it_is_answered(&rig, &revoked_later, 403).await;
    let open = rig.state().store.read(findings::open_by_kind).await.unwrap();
    assert_eq!(open.get("hub.older"), Some(&1));
    until("the revocation is published again", || published(&rig, &revoked_later.id)).await;

    // The device that the hub never heard of is let in again by a person's word, with its own key.
    assert_eq!(asks(&rig, &enrolled_later).await, 403);
    let came = rig.state().store.read(strangers::list).await.unwrap();
    assert_eq!(came.len(), 1);
    assert_eq!(
        (&came[0].device, came[0].signing_key),
        (&enrolled_later.id, enrolled_later.signing.public())
    );
    let (id, now) = (enrolled_later.id.clone(), rig.state().clock.now());
    let readmitted =
        move |tx: &rusqlite::Transaction<'_>| strangers::readmit(tx, &id, "cam", "t", now);
    rig.state().store.write(readmitted).await.unwrap();
    assert_eq!(asks(&rig, &enrolled_later).await, 404);
    let picture = Frame::new(4, 4, Channels::Grey, vec![9; 16]).unwrap().encode_png().unwrap();
    let mut mqtt = enrolled_later.connect(&rig).await;
    let topic = Topic::new(&enrolled_later.id, Kind::Sample);
    mqtt.send(&topic, enrolled_later.sample(0, &picture)).await;
    mqtt.receipt(&enrolled_later.id, &rig.receipt_keys()).await;
    let stranger = revoked_later.id.clone();
    let refused =
        rig.state().store.write(move |tx| strangers::readmit(tx, &stranger, "cam", "t", now)).await;
    assert!(refused.is_err(), "a revoked device is never taken in again");
    agent.stop().await;
    rig.stop().await;
}
