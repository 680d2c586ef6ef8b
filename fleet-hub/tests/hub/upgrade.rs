//! Hub and agent of different builds: a message of a version that the reader does not know costs no
//! sample. The receiving code is the real one: the broker and the hub's intake, the agent's inbox
//! and outbox.

use std::path::Path;
use std::sync::Arc;

use edge_agent::clock::{Clock, ManualTime};
use edge_agent::config::OutboxConfig;
use edge_agent::link::inbox::{self, Ignored, Inbound};
use edge_agent::outbox::{Draft, Outbox, Outgoing, Refused, Settled};
use fleetloop_protocol::hub_keys::{HubKey, HubKeyUse, HubKeys};
use fleetloop_protocol::keys::SigningKey;
use fleetloop_protocol::receipt::{Receipt, Refusal, RefusalReason, Subject};
use fleetloop_protocol::sample::{MediaType, Prediction, Selection};
use fleetloop_protocol::signed::{Signable, VerifyError};
use fleetloop_protocol::state::Desired;
use fleetloop_protocol::topic::{Kind, Topic};
use fleetloop_protocol::wire::{DecodeError, VERSION};
use fleetloop_protocol::{
    BundleDigest, ClockState, DeviceId, Digest, Epoch, Generation, Sequence, Signed, UnixMillis,
};

use crate::device::{Device, picture};
use crate::rig::Rig;

/// A version that no build of today reads.
const TO_COME: u8 = 99;

const NOW: UnixMillis = UnixMillis(1_790_000_000_000);

/// The outbox of a device, and what the device makes of a hub's messages.
struct Agent {
    folder: tempfile::TempDir,
    device: DeviceId,
    key: Arc<SigningKey>,
    clock: Clock,
    time: ManualTime,
    outbox: Outbox,
}

impl Agent {
    /// With one sample in the outbox.
    async fn new(device: Device) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let (clock, time) = Clock::manual(NOW);
        let (device, key) = (device.id, Arc::new(device.signing));
        let outbox = open_outbox(folder.path(), &device, &key, &clock);
        let draft = Draft {
            captured_at: NOW,
            clock: ClockState::Synced,
            model: BundleDigest(Digest::of(b"model")),
            config: Digest::of(b"config"),
            media_type: MediaType::Png,
            payload: picture(b"a frame"),
            selection: Selection::Uncertain { score: 0.5 },
            predictions: vec![Prediction { class: 3, probability: 0.5 }],
        };
        outbox.append(draft).unwrap().await.unwrap().unwrap();
        Self { folder, device, key, clock, time, outbox }
    }

    fn topic(&self, kind: Kind) -> Topic {
        Topic::new(&self.device, kind)
    }

    async fn batch(&self) -> Vec<Outgoing> {
        self.outbox.next_batch(100, usize::MAX).await.unwrap()
    }

    /// What the device makes of a message from a hub with those keys.
    fn take(&self, kind: Kind, bytes: &[u8], hub: &HubKeys) -> Result<Inbound, Ignored> {
        inbox::open(&self.topic(kind).to_string(), bytes, &self.device, Some(hub), NOW)
    }

    /// Makes every waiting message one of `version`, as an agent of another build would have left it.
    async fn rewrite(&mut self, version: u8) {
        let outbox = self.outbox.clone();
        tokio::task::spawn_blocking(move || outbox.close()).await.unwrap();
        let file = self.folder.path().join(edge_agent::outbox::FILE);
        let db = rusqlite::Connection::open(file).unwrap();
        let mut select = db.prepare("SELECT id, message FROM item").unwrap();
        let rows =
            select.query_map([], |row| Ok((row.get::<_, i64>(0)?, row.get::<_, Vec<u8>>(1)?)));
        let rows: Vec<_> = rows.unwrap().map(Result::unwrap).collect();
        for (id, mut message) in rows {
            message[0] = version;
            let digest = Digest::of(&message);
            let set = "UPDATE item SET message = ?2, message_digest = ?3 WHERE id = ?1";
            db.execute(set, rusqlite::params![id, message, digest.as_bytes()]).unwrap();
        }
        drop(select);
        drop(db);
        self.outbox = open_outbox(self.folder.path(), &self.device, &self.key, &self.clock);
    }
}

fn open_outbox(folder: &Path, device: &DeviceId, key: &Arc<SigningKey>, clock: &Clock) -> Outbox {
    let limits = OutboxConfig::default();
    Outbox::open(folder, &limits, device.clone(), Arc::clone(key), clock.clone()).unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_message_of_a_version_to_come_waits_at_the_device_until_its_hub_reads_it() {
    let rig = Rig::start().await;
    let device = rig.enrol().await;
    let mut mqtt = device.connect(&rig).await;
    let mut agent = Agent::new(device).await;
    agent.rewrite(TO_COME).await;
    let sent = agent.batch().await;
    assert_eq!(sent[0].bytes[0], TO_COME);
    mqtt.send(&agent.topic(Kind::Sample), sent[0].bytes.clone()).await;
    let refusal = mqtt.next(&agent.device, Kind::Refusal).await;
    let Inbound::Refusal(refusal) = agent.take(Kind::Refusal, &refusal, &rig.keys).unwrap() else {
        panic!("a refusal is sent under its own topic");
    };
    assert_eq!(refusal.reason, RefusalReason::UnknownVersion);
    assert_eq!(agent.outbox.refuse(refusal).await.unwrap(), Refused::Retry);
    let stats = agent.outbox.stats();
    assert_eq!((stats.samples, stats.dead_letters, stats.refused_total), (1, 0, 0));
    assert_eq!(rig.count("SELECT count(*) FROM sample"), 0);
    // Not at once again, but again, for as long as it takes.
    agent.outbox.connection_lost().await.unwrap();
    assert!(agent.batch().await.is_empty());
    agent.time.advance(edge_agent::outbox::LONGEST_RETRY);
    assert_eq!(agent.batch().await, sent);
    // The hub was upgraded, so that the same sample is one it reads.
    agent.rewrite(VERSION).await;
    let sent = agent.batch().await;
    mqtt.send(&agent.topic(Kind::Sample), sent[0].bytes.clone()).await;
    let receipt = mqtt.next(&agent.device, Kind::Receipt).await;
    let Inbound::Receipt(receipt) = agent.take(Kind::Receipt, &receipt, &rig.keys).unwrap() else {
        panic!("a receipt is sent under its own topic");
    };
    assert_eq!(agent.outbox.settle(receipt).await.unwrap(), Settled::Deleted);
    assert_eq!(rig.count("SELECT count(*) FROM sample"), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_answer_of_a_version_to_come_is_ignored_and_nothing_leaves_the_outbox() {
    let agent = Agent::new(Device::new()).await;
    let hub = SigningKey::from_pkcs8(&SigningKey::generate_pkcs8().unwrap()).unwrap();
    let digest = Digest::of(b"a message");
    let subject = Subject::Gap { epoch: Epoch(9), from: Sequence(5), to: Sequence(7) };
    let receipt = Receipt { subject, digest, stored_at: NOW };
    let refusal = Refusal::new(digest, RefusalReason::Malformed, "because", 0);
    let desired = Desired { generation: Generation(5), at: NOW, assignment: None };
    for (kind, answer) in [
        (Kind::Receipt, sealed(&agent, &receipt, &hub)),
        (Kind::Refusal, sealed(&agent, &refusal, &hub)),
        (Kind::Desired, sealed(&agent, &desired, &hub)),
    ] {
        assert!(agent.take(kind, &answer, &keys(&hub)).is_ok());
        let mut to_come = answer;
        to_come[0] = TO_COME;
        let ignored = agent.take(kind, &to_come, &keys(&hub)).unwrap_err();
        let Ignored::Untrusted(VerifyError::Decode(unread)) = ignored else {
            panic!("{ignored}");
        };
        assert!(matches!(unread, DecodeError::UnknownVersion { version: TO_COME, .. }), "{unread}");
    }
    assert_eq!(agent.outbox.stats().samples, 1);
}

fn sealed<T: Signable>(agent: &Agent, value: &T, hub: &SigningKey) -> Vec<u8> {
    Signed::seal(value, &agent.device, hub).unwrap().into_bytes()
}

/// A hub that signs with `key`, as its devices know it.
fn keys(key: &SigningKey) -> HubKeys {
    let key = |usage| HubKey {
        public_key: key.public(),
        usage,
        not_before: UnixMillis(0),
        not_after: UnixMillis(u64::MAX),
    };
    HubKeys { keys: vec![key(HubKeyUse::Receipt), key(HubKeyUse::Assignment)] }
}
