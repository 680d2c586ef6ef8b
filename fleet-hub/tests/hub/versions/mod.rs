//! An old agent with this hub, an old hub with this agent, and either with what is yet to come.
//!
//! What the old ones say are the golden messages (`protocol/tests/golden/`) and what [`old`], which
//! knows version 1 only, writes; what they are told, [`old`] reads. The receiving code is the real one:
//! the broker and the hub's intake, the agent's inbox and outbox.

mod old;

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use edge_agent::clock::{Clock, ManualTime};
use edge_agent::config::OutboxConfig;
use edge_agent::link::inbox::{self, Ignored, Inbound};
use edge_agent::outbox::{Draft, Outbox, Outgoing, Refused, Settled};
use fleet_hub::pki::Pki;
use fleet_hub::store::desired::{self, DesiredRow};
use fleet_hub::store::devices::{self, NewDevice};
use fleetloop_protocol::enrol::EnrolResponse;
use fleetloop_protocol::hub_keys::{HubKey, HubKeyUse, HubKeys};
use fleetloop_protocol::keys::SigningKey;
use fleetloop_protocol::receipt::{Receipt, Refusal, RefusalReason};
use fleetloop_protocol::sample::{MediaType, Prediction, Selection};
use fleetloop_protocol::signed::VerifyError;
use fleetloop_protocol::state::{Assignment, Desired, Reported, Update};
use fleetloop_protocol::telemetry::Telemetry;
use fleetloop_protocol::topic::{Kind, Topic};
use fleetloop_protocol::wire::{self, DecodeError};
use fleetloop_protocol::{BundleDigest, ClockState, DeviceId, Digest, Generation, UnixMillis, v1};
use old::purpose;

use crate::device::{Device, Mqtt};
use crate::rig::Rig;

/// The device that speaks in the golden messages.
const DEVICE: &str = "dev-abcdefghij";

/// A version that no build of today reads.
const TO_COME: u8 = 99;

const NOW: UnixMillis = UnixMillis(1_790_000_000_000);

/// A golden message of version 1.
fn golden(name: &str) -> Vec<u8> {
    golden_of(1, name)
}

fn golden_of(version: u8, name: &str) -> Vec<u8> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../protocol/tests/golden");
    std::fs::read(folder.join(format!("v{version}/{name}.bin"))).unwrap()
}

/// The key that signed the golden messages: PKCS#8 version 1 of RFC 8410, section 7.
fn golden_key() -> SigningKey {
    let mut pkcs8 = vec![
        0x30, 0x2e, 0x02, 0x01, 0x00, 0x30, 0x05, 0x06, 0x03, 0x2b, 0x65, 0x70, 0x04, 0x22, 0x04,
        0x20,
    ];
    pkcs8.extend_from_slice(&[1; 32]);
    SigningKey::from_pkcs8(&pkcs8).unwrap()
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

/// The golden messages' device, let in by `rig`.
async fn enrolled(rig: &Rig) -> (Device, Mqtt) {
    let mut device = Device::new();
    device.signing = golden_key();
    let token = rig.token().await;
    let request = device.request(&token);
    let pki = Pki::load(&rig.config.paths).unwrap();
    let id: DeviceId = DEVICE.parse().unwrap();
    let now = rig.state().clock.now();
    let issued = pki.authority.device(&id, &request.csr_pem, now, 365).unwrap();
    let new = NewDevice {
        id: id.clone(),
        signing_key: request.signing_key,
        certificate_pem: issued.pem.clone(),
        certificate_ends: issued.ends,
        agent_version: request.agent_version,
        secret_sha256: Digest::of(&token.secret),
        keys_sha256: Digest::of(b"its keys"),
    };
    rig.state().store.write(move |tx| devices::add(tx, &new, now)).await.unwrap();
    let (mqtt_host, mqtt_port) = rig.config.mqtt_address();
    device.take(EnrolResponse {
        device: id.clone(),
        certificate_pem: issued.pem,
        ca_pem: pki.authority.pem().to_owned(),
        mqtt_host,
        mqtt_port,
        device_url: rig.config.device_url(),
        channel: "dev".into(),
    });
    let mqtt = device.connect(rig).await;
    (device, mqtt)
}

fn topic(kind: Kind) -> Topic {
    Topic::new(&DEVICE.parse().unwrap(), kind)
}

#[tokio::test(flavor = "multi_thread")]
async fn what_an_agent_of_version_1_sent_is_stored_today_and_it_can_read_the_answers() {
    let rig = Rig::start().await;
    let (device, mut mqtt) = enrolled(&rig).await;
    let hub = Pki::load(&rig.config.paths).unwrap();
    let receipt = |bytes: &[u8]| {
        old::open::<v1::Receipt>(bytes, purpose::RECEIPT, DEVICE, hub.receipt.public()).0
    };
    // The same sample again, in the form of version 2 the last time: one row and one receipt.
    for message in [golden("sample"), golden("sample"), golden_of(2, "sample_inline")] {
        mqtt.send(&topic(Kind::Sample), message).await;
        let answer = receipt(&mqtt.next(&device.id, Kind::Receipt).await);
        let v1::Subject::Sample(id) = answer.subject else { panic!("{:?}", answer.subject) };
        assert_eq!(
            (id.device.as_str(), id.epoch, id.sequence),
            (DEVICE, 0x0123_4567_89ab_cdef, 41)
        );
        assert_eq!(answer.digest, *Digest::of(&golden("sample_header")).as_bytes());
    }
    assert_eq!(rig.count("SELECT count(*) FROM sample"), 1);
    assert!(rig.state().payloads.exists(Digest::of(b"a frame")).await.unwrap());

    mqtt.send(&topic(Kind::Gap), golden("gap.signed")).await;
    let answer = receipt(&mqtt.next(&device.id, Kind::Receipt).await);
    assert!(
        matches!(answer.subject, v1::Subject::Gap { epoch: 9, from: 5, to: 7 }),
        "{:?}",
        answer.subject
    );
    assert_eq!(answer.digest, *Digest::of(&golden("gap")).as_bytes());
    assert_eq!(rig.count("SELECT count(*) FROM gap"), 1);

    // A sample that is altered on the way gets a refusal that it reads as well.
    let mut altered = golden("sample");
    *altered.last_mut().unwrap() ^= 1;
    mqtt.send(&topic(Kind::Sample), altered.clone()).await;
    let refusal = mqtt.next(&device.id, Kind::Refusal).await;
    let key = hub.receipt.public();
    let (refusal, _) = old::open::<v1::Refusal>(&refusal, purpose::REFUSAL, DEVICE, key);
    assert_eq!(refusal.message, *Digest::of(&altered).as_bytes());
    assert!(matches!(refusal.reason, v1::RefusalReason::NotTrusted), "{:?}", refusal.reason);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_reports_of_an_agent_of_version_1_are_kept_and_it_can_read_its_order() {
    let rig = Rig::start().await;
    let (device, mut mqtt) = enrolled(&rig).await;
    let hub = Pki::load(&rig.config.paths).unwrap();
    let bundle = BundleDigest(Digest::of(b"bundle"));
    let target = "wear/2/bundle.toml".to_owned();
    let assignment = Some(Assignment { target, bundle });
    // The golden report knows generation 4.
    let (id, row) =
        (device.id.clone(), DesiredRow { generation: Generation(5), at: NOW, assignment });
    rig.state().store.write(move |tx| desired::give(tx, &id, &row)).await.unwrap();
    // Telemetry has no answer, but what comes after it is handled after it is.
    mqtt.send(&topic(Kind::Telemetry), golden("telemetry.signed")).await;
    mqtt.send(&topic(Kind::Reported), golden("reported.signed")).await;
    let order = mqtt.next(&device.id, Kind::Desired).await;
    let key = hub.assignment.public();
    let (order, _) = old::open::<v1::Desired>(&order, purpose::DESIRED, DEVICE, key);
    assert_eq!(order.generation, 5);
    assert_eq!(order.assignment.unwrap().bundle, *bundle.0.as_bytes());
    let kept = async {
        loop {
            let id = device.id.clone();
            let row = rig.state().store.read(move |c| devices::get(c, &id)).await.unwrap();
            if let (Some(telemetry), Some(reported)) = (row.telemetry, row.reported) {
                return (telemetry, reported);
            }
            mqtt.hears(&device.id, Kind::Desired, Duration::from_millis(20)).await;
        }
    };
    let (telemetry, reported) =
        tokio::time::timeout(crate::device::PATIENCE, kept).await.expect("nothing was kept");
    assert_eq!(telemetry, wire::decode::<Telemetry>(&golden("telemetry")).unwrap());
    assert_eq!(reported, wire::decode::<Reported>(&golden("reported")).unwrap());
    assert!(matches!(reported.update, Update::Failed { .. }));
}

#[test]
fn what_a_hub_of_version_1_said_is_believed_today() {
    let device: DeviceId = DEVICE.parse().unwrap();
    let keys = keys(&golden_key());
    let open = |kind, bytes: &[u8]| {
        inbox::open(&topic(kind).to_string(), bytes, &device, Some(&keys), NOW).unwrap()
    };
    let take = |kind, name: &str| open(kind, &golden(name));
    let receipt = |name: &str| wire::decode::<Receipt>(&golden(name)).unwrap();
    for name in ["receipt", "receipt_gap"] {
        assert_eq!(take(Kind::Receipt, &format!("{name}.signed")), Inbound::Receipt(receipt(name)));
    }
    let refusal = wire::decode::<Refusal>(&golden("refusal")).unwrap();
    assert_eq!(take(Kind::Refusal, "refusal.signed"), Inbound::Refusal(refusal));
    // What version 2 added.
    let missing = open(Kind::Refusal, &golden_of(2, "refusal_payload_missing.signed"));
    assert!(
        matches!(&missing, Inbound::Refusal(r) if r.reason == RefusalReason::PayloadMissing),
        "{missing:?}"
    );
    let desired = wire::decode::<Desired>(&golden("desired")).unwrap();
    assert_eq!(take(Kind::Desired, "desired.signed"), Inbound::Desired(desired));
}

/// An outbox of the golden messages' device.
struct Agent {
    folder: tempfile::TempDir,
    limits: OutboxConfig,
    clock: Clock,
    time: ManualTime,
    outbox: Outbox,
}

impl Agent {
    fn new(max_rows: u64) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let limits = OutboxConfig { max_rows, ..OutboxConfig::default() };
        let (clock, time) = Clock::manual(NOW);
        let outbox = open_outbox(folder.path(), &limits, &clock);
        Self { folder, limits, clock, time, outbox }
    }

    async fn append(&self, payload: &[u8]) {
        let draft = Draft {
            captured_at: NOW,
            clock: ClockState::Synced,
            model: BundleDigest(Digest::of(b"model")),
            config: Digest::of(b"config"),
            media_type: MediaType::Png,
            payload: payload.to_vec(),
            selection: Selection::Uncertain { score: 0.5 },
            predictions: vec![Prediction { class: 3, probability: 0.5 }],
        };
        self.outbox.append(draft).unwrap().await.unwrap().unwrap();
    }

    async fn batch(&self) -> Vec<Outgoing> {
        self.outbox.next_batch(100, usize::MAX).await.unwrap()
    }

    /// What the device makes of a message from a hub with those keys.
    fn take(&self, kind: Kind, bytes: &[u8], hub: &HubKeys) -> Result<Inbound, Ignored> {
        let device = DEVICE.parse().unwrap();
        inbox::open(&topic(kind).to_string(), bytes, &device, Some(hub), NOW)
    }

    async fn settle(&self, bytes: &[u8], hub: &HubKeys) -> Settled {
        match self.take(Kind::Receipt, bytes, hub).unwrap() {
            Inbound::Receipt(receipt) => self.outbox.settle(receipt).await.unwrap(),
            other => panic!("{other:?}"),
        }
    }

    async fn refuse(&self, bytes: &[u8], hub: &HubKeys) -> (RefusalReason, Refused) {
        match self.take(Kind::Refusal, bytes, hub).unwrap() {
            Inbound::Refusal(refusal) => {
                (refusal.reason, self.outbox.refuse(refusal).await.unwrap())
            }
            other => panic!("{other:?}"),
        }
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
        self.outbox = open_outbox(self.folder.path(), &self.limits, &self.clock);
    }
}

fn open_outbox(folder: &Path, limits: &OutboxConfig, clock: &Clock) -> Outbox {
    let device = DEVICE.parse().unwrap();
    Outbox::open(folder, limits, device, Arc::new(golden_key()), clock.clone()).unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_hub_of_version_1_reads_what_the_outbox_sends_and_its_answers_settle_it() {
    let agent = Agent::new(2);
    let hub = golden_key();
    // The third evicts the first, which leaves a gap.
    for payload in [b"one".as_slice(), b"two", b"three"] {
        agent.append(payload).await;
    }
    let sent = agent.batch().await;
    assert_eq!(sent.len(), 3);
    let public = golden_key().public();
    for outgoing in sent {
        let (subject, digest) = if outgoing.kind == Kind::Sample {
            let message: v1::SampleMessage = old::read(&outgoing.bytes);
            let (header, digest) = old::open::<v1::SampleHeader>(
                &message.envelope,
                purpose::SAMPLE_HEADER,
                DEVICE,
                public,
            );
            let payload = Digest::of_parts(&[&message.salt, &message.payload]);
            assert_eq!(header.commitment, *payload.as_bytes());
            (v1::Subject::Sample(header.id), digest)
        } else {
            let (gap, digest) = old::open::<v1::Gap>(&outgoing.bytes, purpose::GAP, DEVICE, public);
            (v1::Subject::Gap { epoch: gap.epoch, from: gap.from, to: gap.to }, digest)
        };
        let receipt = v1::Receipt { subject, digest: *digest.as_bytes(), stored_at_ms: NOW.0 };
        let answer = old::seal(&receipt, purpose::RECEIPT, DEVICE, &hub);
        assert_eq!(agent.settle(&answer, &keys(&hub)).await, Settled::Deleted);
    }
    let stats = agent.outbox.stats();
    assert_eq!((stats.samples, stats.gaps, stats.samples_receipted_total), (0, 0, 2));
}

#[tokio::test(flavor = "multi_thread")]
async fn the_refusals_of_a_hub_of_version_1_mean_today_what_they_meant() {
    let agent = Agent::new(10);
    let hub = golden_key();
    agent.append(b"one").await;
    let sent = agent.batch().await;
    let refusal = |reason, retry_after_s| {
        let message = *sent[0].message.as_bytes();
        let detail = "because".to_owned();
        let refusal = v1::Refusal { message, reason, detail, retry_after_s };
        old::seal(&refusal, purpose::REFUSAL, DEVICE, &hub)
    };
    for (reason, today) in [
        (v1::RefusalReason::StorageFull, RefusalReason::StorageFull),
        (v1::RefusalReason::Busy, RefusalReason::Busy),
        (v1::RefusalReason::UnknownVersion, RefusalReason::UnknownVersion),
    ] {
        let refused = agent.refuse(&refusal(reason, Some(60)), &keys(&hub)).await;
        assert_eq!(refused, (today, Refused::Retry));
    }
    assert_eq!(agent.outbox.stats().samples, 1, "it waits");
    let refused = agent.refuse(&refusal(v1::RefusalReason::Malformed, None), &keys(&hub)).await;
    assert_eq!(refused, (RefusalReason::Malformed, Refused::DeadLetter));
    assert_eq!(agent.outbox.stats().dead_letters, 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_message_of_a_version_to_come_waits_at_the_device_until_its_hub_reads_it() {
    let rig = Rig::start().await;
    let (device, mut mqtt) = enrolled(&rig).await;
    let mut agent = Agent::new(10);
    agent.append(b"one").await;
    agent.rewrite(TO_COME).await;
    let sent = agent.batch().await;
    assert_eq!(sent[0].bytes[0], TO_COME);
    mqtt.send(&topic(Kind::Sample), sent[0].bytes.clone()).await;
    let refusal = mqtt.next(&device.id, Kind::Refusal).await;
    let refused = agent.refuse(&refusal, &rig.keys).await;
    assert_eq!(refused, (RefusalReason::UnknownVersion, Refused::Retry));
    let stats = agent.outbox.stats();
    assert_eq!((stats.samples, stats.dead_letters, stats.refused_total), (1, 0, 0));
    assert_eq!(rig.count("SELECT count(*) FROM sample"), 0);
    // Not at once again, but again, for as long as it takes.
    agent.outbox.connection_lost().await.unwrap();
    assert!(agent.batch().await.is_empty());
    agent.time.advance(edge_agent::outbox::LONGEST_RETRY);
    assert_eq!(agent.batch().await, sent);
    // The hub was upgraded, so that the same sample is one it reads.
    agent.rewrite(1).await;
    let sent = agent.batch().await;
    mqtt.send(&topic(Kind::Sample), sent[0].bytes.clone()).await;
    let receipt = mqtt.next(&device.id, Kind::Receipt).await;
    assert_eq!(agent.settle(&receipt, &rig.keys).await, Settled::Deleted);
    assert_eq!(rig.count("SELECT count(*) FROM sample"), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_body_of_a_version_to_come_in_an_envelope_of_today_is_refused_for_now_as_well() {
    let rig = Rig::start().await;
    let (device, mut mqtt) = enrolled(&rig).await;
    let body = |name: &str| {
        let mut body = golden(name);
        body[0] = TO_COME;
        body
    };
    let header =
        old::seal_body(body("sample_header"), purpose::SAMPLE_HEADER, DEVICE, &device.signing);
    let sample =
        v1::SampleMessage { envelope: header, salt: [7; 16], payload: b"a frame".to_vec() };
    let gap = old::seal_body(body("gap"), purpose::GAP, DEVICE, &device.signing);
    for (kind, message) in [(Kind::Sample, old::write(&sample)), (Kind::Gap, gap)] {
        mqtt.send(&topic(kind), message.clone()).await;
        let refusal = mqtt.refusal(&device.id, &rig.receipt_keys()).await;
        assert_eq!(refusal.reason, RefusalReason::UnknownVersion, "{kind:?}");
        assert_eq!(refusal.message, Digest::of(&message));
        assert!(refusal.retry_after_s.is_some());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_answer_of_a_version_to_come_is_ignored_and_nothing_leaves_the_outbox() {
    let agent = Agent::new(10);
    let hub = golden_key();
    agent.append(b"one").await;
    for (kind, purpose, name) in [
        (Kind::Receipt, purpose::RECEIPT, "receipt"),
        (Kind::Refusal, purpose::REFUSAL, "refusal"),
        (Kind::Desired, purpose::DESIRED, "desired"),
    ] {
        let mut body = golden(name);
        body[0] = TO_COME;
        let mut envelope = golden(&format!("{name}.signed"));
        envelope[0] = TO_COME;
        for bytes in [old::seal_body(body, purpose, DEVICE, &hub), envelope] {
            let ignored = agent.take(kind, &bytes, &keys(&hub)).unwrap_err();
            let Ignored::Untrusted(VerifyError::Decode(unread)) = ignored else {
                panic!("{ignored}");
            };
            assert!(
                matches!(unread, DecodeError::UnknownVersion { version: TO_COME, .. }),
                "{unread}"
            );
        }
    }
    assert_eq!(agent.outbox.stats().samples, 1);
}
