use axum::body::Body;
use axum::http::Method;
use fleetloop_protocol::api::devices::{Device as Shown, EpochSummary, KeepRequest};
use fleetloop_protocol::api::status::HubStatus;
use fleetloop_protocol::gap::GapReason;
use fleetloop_protocol::keys::SigningKey;
use fleetloop_protocol::sample::Selection;
use fleetloop_protocol::telemetry::Telemetry;
use fleetloop_protocol::{Digest, Sequence, UnixMillis};

use super::*;
use crate::api::testing::{Device, Hub, NOW, picture};
use crate::store::devices::{self, NewDevice, NewToken};
use crate::store::samples;

/// Records of a file, one after another.
#[derive(Default)]
struct File(Vec<u8>);

impl File {
    fn push(&mut self, kind: RecordKind, message: &[u8], payload: &[u8]) {
        let head = Record { kind, message, payload }.head(1).unwrap();
        self.0.extend([&head[..], message, payload].concat());
    }

    /// A sample of `device` whose payload is in its message.
    fn sample(&mut self, device: &Device, sequence: u64, payload: &[u8]) {
        let mut header = device.header(payload);
        header.id.sequence = Sequence(sequence);
        let message = device.message(&header, Payload::Inline(payload.to_vec()));
        self.push(RecordKind::Sample, &message, b"");
    }
}

async fn send(hub: &Hub, device: &Device, file: &File, query: &str) -> crate::api::testing::Answer {
    let path = format!("/api/v1/samples/collect?device={}{query}", device.id);
    hub.ask(Method::POST, &hub.admin, &path, Body::from(file.0.clone())).await
}

/// Another device takes the place of `old`.
async fn replace(hub: &Hub, old: &Device) {
    let key = SigningKey::from_pkcs8(&SigningKey::generate_pkcs8().unwrap()).unwrap();
    let new = NewDevice {
        id: "dev-new".parse().unwrap(),
        signing_key: key.public(),
        certificate_pem: String::new(),
        certificate_ends: NOW,
        agent_version: "0.1.0".into(),
        secret_sha256: Digest::of(b"new"),
        keys_sha256: Digest::of(b"new keys"),
    };
    let token = NewToken {
        secret_sha256: new.secret_sha256,
        name: "press 7".into(),
        replaces: Some(old.id.clone()),
        expires_at: UnixMillis(NOW.0 + 1000),
    };
    hub.state
        .store
        .write(move |tx| {
            devices::add_token(tx, &token, "t", NOW)?;
            devices::add(tx, &new, NOW)
        })
        .await
        .unwrap();
}

/// The device says that so many messages wait.
async fn says_waiting(hub: &Hub, device: &Device, rows: u64) {
    let id = device.id.clone();
    let telemetry = Telemetry { outbox_rows: rows, ..Telemetry::default() };
    hub.state
        .store
        .write(move |tx| devices::set_telemetry(tx, &id, &telemetry, NOW))
        .await
        .unwrap();
}

async fn revoke(hub: &Hub, device: &Device) {
    let path = format!("/api/v1/devices/{}/revoke", device.id);
    hub.post(&path, &serde_json::json!({})).await.json::<Shown>();
}

#[tokio::test]
async fn what_a_replaced_device_left_behind_is_shown_until_it_is_brought_and_counts() {
    let hub = Hub::new().await;
    let old = hub.device("dev-old", "press 7").await;
    says_waiting(&hub, &old, 3).await;
    let left = async || hub.get("/api/v1/status").await.json::<HubStatus>().left_behind;
    assert!(left().await.is_empty(), "it still sends by itself");
    replace(&hub, &old).await;
    assert_eq!(left().await, [("dev-old".to_owned(), 3)].into());

    let beside = picture(9);
    let mut file = File::default();
    file.sample(&old, 0, &picture(1));
    let mut header = old.header(&beside);
    header.id.sequence = Sequence(1);
    file.push(RecordKind::Sample, &old.message(&header, Payload::Uploaded), &beside);
    let gap = Gap {
        device: old.id.clone(),
        epoch: old.epoch,
        from: Sequence(2),
        to: Sequence(3),
        before: Digest::of(b"before"),
        after: Digest::of(b"after"),
        reason: GapReason::OutboxFull,
    };
    file.push(RecordKind::Gap, old.gap(&gap).envelope(), b"");
    let done: CollectResponse = send(&hub, &old, &file, "").await.json();
    assert_eq!((done.stored, done.gaps, done.known, done.held), (2, 1, 0, 0), "{done:?}");
    assert_eq!(done.refused, []);
    assert!(left().await.is_empty());
    let shown: Shown = hub.get("/api/v1/devices/dev-old").await.json();
    assert_eq!((shown.left_behind, shown.samples_stored, shown.samples_held), (0, 2, 0));
    assert_eq!(shown.revoked_by.as_deref(), Some("dev-new"));

    let again: CollectResponse = send(&hub, &old, &file, "").await.json();
    assert_eq!((again.stored, again.gaps, again.known), (0, 0, 3), "nothing is stored twice");
    let counts = hub.state.store.read(samples::counts).await.unwrap();
    assert_eq!((counts.fleet, counts.gaps), (2, 1));
}

#[tokio::test]
async fn samples_of_a_device_that_a_person_revoked_are_held_and_only_when_somebody_vouches() {
    let hub = Hub::new().await;
    let stolen = hub.device("dev-stolen", "press 8").await;
    revoke(&hub, &stolen).await;
    // That another takes its place later changes nothing.
    replace(&hub, &stolen).await;
    let mut file = File::default();
    file.sample(&stolen, 0, &picture(1));
    let error = send(&hub, &stolen, &file, "").await.error(409);
    assert!(error.message.contains("alice revoked it"), "{error:?}");
    assert!(error.message.contains("--vouch dev-stolen"), "{error:?}");
    let counts = hub.state.store.read(samples::counts).await.unwrap();
    assert_eq!(counts.fleet, 0, "nothing was taken in");

    let done: CollectResponse = send(&hub, &stolen, &file, "&vouched=true").await.json();
    assert_eq!((done.stored, done.held), (1, 1));
    let epochs = "/api/v1/devices/dev-stolen/epochs";
    let known: Vec<EpochSummary> = hub.get(epochs).await.json();
    assert_eq!((known[0].samples, known[0].held), (1, 1));
    let decided: Vec<EpochSummary> = hub.post(epochs, &KeepRequest { epochs: None }).await.json();
    assert_eq!((decided[0].held, decided[0].dropped), (0, 0), "they count now");
}

#[tokio::test]
async fn what_the_device_did_not_sign_or_commit_to_is_refused_by_its_place_and_the_rest_goes_on() {
    let hub = Hub::new().await;
    let old = hub.device("dev-old", "press 7").await;
    let other = hub.device("dev-other", "press 8").await;
    let mut file = File::default();
    file.sample(&other, 0, &picture(1));
    let header = old.header(&picture(2));
    file.push(RecordKind::Sample, &old.message(&header, Payload::Uploaded), &picture(3));
    let html = b"<html>no picture</html>";
    let no_picture = old.header(html);
    file.push(RecordKind::Sample, &old.message(&no_picture, Payload::Inline(html.to_vec())), b"");
    file.push(RecordKind::Gap, b"noise", b"");
    file.sample(&old, 7, &picture(4));
    let done: CollectResponse = send(&hub, &old, &file, "").await.json();
    assert_eq!((done.stored, done.known), (1, 0), "{done:?}");
    let places: Vec<usize> = done.refused.iter().map(|one| one.record).collect();
    assert_eq!(places, [0, 1, 2, 3], "{done:?}");

    file.0.truncate(file.0.len() - 1);
    let error = send(&hub, &old, &file, "").await.error(400);
    assert!(error.message.contains("record 5 is damaged: it is cut off"), "{error:?}");
}

#[tokio::test]
async fn another_sample_under_a_stored_identity_is_quarantined_as_over_the_broker() {
    let hub = Hub::new().await;
    let mut old = hub.device("dev-old", "press 7").await;
    hub.sample(&mut old, &picture(1), Selection::Random { rate: 0.5 }).await;
    let mut file = File::default();
    file.sample(&old, 0, &picture(2));
    let done: CollectResponse = send(&hub, &old, &file, "").await.json();
    assert!(done.refused[0].reason.contains("is stored with digest"), "{done:?}");
    let counts = hub.state.store.read(samples::counts).await.unwrap();
    assert_eq!((counts.fleet, counts.quarantined), (1, 1));
}

#[tokio::test]
async fn only_an_admin_collects() {
    let hub = Hub::new().await;
    let old = hub.device("dev-old", "press 7").await;
    let path = format!("/api/v1/samples/collect?device={}", old.id);
    for token in [&hub.annotator, &hub.worker] {
        hub.ask(Method::POST, token, &path, Body::empty()).await.error(403);
    }
}
